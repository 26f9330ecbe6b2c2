// What the bench of languages measures: hand on, keep half of them, change some bytes of each.

#include <string.h>

#include "pelton.h"

static const char *operation;

const char *pelton_configure(const pelton_config *config) {
    operation = pelton_setting(config, "operation");
    return NULL;
}

// What stands behind the quotes of "name".
static void upper_name(uint8_t *value, size_t len) {
    static const char name[] = "\"name\":\"";
    const size_t prefix = sizeof name - 1;
    for (size_t at = 0; at + prefix <= len; at++) {
        if (memcmp(value + at, name, prefix) != 0) continue;
        for (size_t i = at + prefix; i < len && value[i] != '"'; i++)
            if (value[i] >= 'a' && value[i] <= 'z') value[i] -= 'a' - 'A';
        return;
    }
}

pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    pelton_bytes value = pelton_value(record);
    if (*operation == 'f' && (value.len <= 7 || value.ptr[7] & 1)) return PELTON_OK;
    pelton_keep(out, record);
    if (*operation == 'e' && value.ptr != NULL) upper_name(pelton_edit_value(out), value.len);
    return PELTON_OK;
}
