// make test

#include "pelton_testing.h"

int main(void) {
    const pelton_setting_given config[] = {{"longer_than", "2"}, {NULL, NULL}};
    const pelton_given records[] = {{.value = "abc"}, {.value = "no"}, {.value = "long", .key = "k"}};
    pelton_expect(pelton_run(config, records, 3), "0/0/null=ABC[]\n0/0/k=LONG[]\n");
    const pelton_given nothing[] = {{.value = NULL}};
    pelton_expect(pelton_run(config, nothing, 1), "rejected 0: there is no value\n");
    return pelton_tested();
}
