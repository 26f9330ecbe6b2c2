// make test

#include "pelton_testing.h"

int main(void) {
    pelton_expect(pelton_add_to("a", {.value = "abc"}), "abc");
    pelton_expect(pelton_add_to("a", {.value = "ab"}), "abc");
    pelton_expect(pelton_add_to("b", {.value = "longer"}), "longer");
    pelton_expect(pelton_merge_groups("a", "b"), "longer");
    return pelton_tested();
}
