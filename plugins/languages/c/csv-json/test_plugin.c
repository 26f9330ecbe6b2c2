#include "pelton_testing.h"

int main(void) {
    const pelton_setting_given config[] = {{"columns", "id,name"}, {"separator", ";"}, {NULL, NULL}};
    const pelton_given lines[] = {{.value = "1;Jörg \"J\"\t"}, {.value = ";"}, {.value = NULL}};
    pelton_expect(pelton_run(config, lines, 3),
                  "0/0/null={\"id\":\"1\",\"name\":\"Jörg \\\"J\\\"\\u0009\"}[]\n"
                  "0/0/null={\"id\":\"\",\"name\":\"\"}[]\n0/0/null=null[]\n");
    const pelton_given odd[] = {{.value = "1;2"}, {.value = "1"}, {.value = "1;2;"}};
    pelton_expect(pelton_run(config, odd, 3),
                  "rejected 1: the line has 1 fields, not 2\nrejected 2: the line has 3 fields, not 2\n");
    const pelton_setting_given empty[] = {{"columns", "a,,b"}, {"separator", ";"}, {NULL, NULL}};
    pelton_expect(pelton_configured(empty), "columns: a name is empty");
    return pelton_tested();
}
