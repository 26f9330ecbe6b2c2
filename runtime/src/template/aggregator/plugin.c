// An aggregator: `pelton_add` puts a record into the value of its key, or of a window of it. The value is the result.

#include "pelton.h"

// Called once, with the settings of plugin.toml and pipeline.toml. A text refuses the deployment.
const char *pelton_configure(const pelton_config *config) {
    (void)config;
    return NULL;
}

// The longest value of each key.
pelton_result pelton_add(pelton_aggregate *value, pelton_record record) {
    pelton_bytes other = pelton_value(record);
    if (pelton_is_null(other)) return pelton_reject("there is no value");
    if (other.len > value->len) pelton_aggregate_set(value, other);
    return PELTON_OK;
}

// Two sessions of a key have met.
pelton_result pelton_merge(pelton_aggregate *value, pelton_bytes other) {
    if (other.len > value->len) pelton_aggregate_set(value, other);
    return PELTON_OK;
}
