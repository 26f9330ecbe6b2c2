// A transform: `pelton_transform` sees a record and says what to emit.

#include "pelton.h"

static int64_t longer_than;

// Called once, with the settings of plugin.toml and pipeline.toml. A text refuses the deployment.
const char *pelton_configure(const pelton_config *config) {
    return pelton_setting_int(config, "longer_than", &longer_than) ? NULL : "longer_than is no number";
}

// Capitals for every value that is longer than a limit; shorter ones are dropped.
pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    pelton_bytes value = pelton_value(record);
    if (pelton_is_null(value)) return pelton_reject("there is no value");
    if (value.len <= (size_t)longer_than) return PELTON_OK;
    pelton_keep(out, record);
    uint8_t *edited = pelton_edit_value(out);
    for (size_t i = 0; i < value.len; i++)
        if (edited[i] >= 'a' && edited[i] <= 'z') edited[i] -= 'a' - 'A';
    return PELTON_OK;
}
