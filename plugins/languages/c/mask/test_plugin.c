#include "pelton_testing.h"

int main(void) {
    const pelton_setting_given config[] = {{"keep", "4"}, {"header", "masked"}, {NULL, NULL}};
    const pelton_given records[] = {
        {.value = "card 1234-5678-9012"},
        {.value = "no 123"},
        {.value = NULL},
        {.value = "1234567", .headers = {{"internal", "true"}}},
    };
    pelton_expect(pelton_run(config, records, 4),
                  "0/0/null=card ****-****-9012[masked:8]\n0/0/null=no 123[]\n0/0/null=null[]\n");
    return pelton_tested();
}
