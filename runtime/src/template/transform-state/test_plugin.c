// make test

#include "pelton_testing.h"

int main(void) {
    const pelton_store_given stores[] = {{"seen", 0}, {NULL, 0}};
    const pelton_given records[] = {{.key = "a"}, {.key = "b"}, {.key = "a"}}, bad[] = {{.key = "a"}, {.value = "x"}};
    pelton_use_stores(stores);
    pelton_expect(pelton_give_batch(records, 3), "0/0/a=1[]\n0/0/b=1[]\n0/0/a=2[]\n");
    // Stores stay from batch to batch, but for what a failed one has written.
    pelton_expect(pelton_give_batch(bad, 2), "rejected 1: there is no key\n");
    pelton_expect(pelton_give_batch(records, 1), "0/0/a=3[]\n");
    return pelton_tested();
}
