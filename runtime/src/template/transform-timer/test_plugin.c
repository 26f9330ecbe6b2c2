// make test

#include "pelton_testing.h"

int main(void) {
    const pelton_setting_given config[] = {{"after_ms", "1000"}, {NULL, NULL}};
    pelton_use_stores(NULL);
    pelton_check(pelton_configured(config) == NULL);
    pelton_expect(pelton_give_timed(((pelton_given){.key = "a", .value = "x"})), "");
    pelton_expect(pelton_tick(999), "");
    pelton_expect(pelton_tick(1000), "0/1000/a=quiet[]\n");
    return pelton_tested();
}
