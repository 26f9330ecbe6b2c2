// All digits of a value but the last ones become stars, and what is internal is left out.

#include <stdio.h>

#include "pelton.h"

static int64_t keep;
static const char *header;

const char *pelton_configure(const pelton_config *config) {
    if (!pelton_setting_int(config, "keep", &keep)) return "keep is no number";
    header = pelton_setting(config, "header");
    return NULL;
}

static bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    if (pelton_equal(pelton_header(record, "internal"), pelton_text("true"))) return PELTON_OK;
    pelton_bytes value = pelton_value(record);
    int64_t masked = -keep;
    for (size_t i = 0; i < value.len; i++) masked += is_digit(value.ptr[i]);
    pelton_keep(out, record);
    if (masked <= 0) return PELTON_OK;
    uint8_t *edited = pelton_edit_value(out);
    int64_t left = masked;
    for (size_t i = 0; left > 0 && i < value.len; i++)
        if (is_digit(edited[i])) edited[i] = '*', left--;
    if (*header != '\0') {
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)masked);
        pelton_add_header(out, pelton_text(header), pelton_text(text));
    }
    return PELTON_OK;
}
