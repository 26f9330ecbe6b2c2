// A transform with timers: `pelton_transform` sees a record, `pelton_fire` a timer that is due.

#include "pelton.h"

static int64_t after_ms;

// Called once, with the settings of plugin.toml and pipeline.toml. A text refuses the deployment.
const char *pelton_configure(const pelton_config *config) {
    return pelton_setting_int(config, "after_ms", &after_ms) ? NULL : "after_ms is no number";
}

// Says of each key that no record of it has come for a while.
pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    (void)out;
    if (pelton_is_null(pelton_key(record))) return pelton_reject("there is no key");
    // A timer for each key, which every record moves.
    pelton_set_timer(PELTON_WALL_CLOCK, pelton_key(record), pelton_clock() + after_ms);
    return PELTON_OK;
}

pelton_result pelton_fire(pelton_timer timer, pelton_out *out) {
    pelton_emit(out, timer.name, pelton_text("quiet"), timer.at);
    return PELTON_OK;
}
