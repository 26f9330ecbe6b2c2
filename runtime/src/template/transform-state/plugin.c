// A transform with state: `pelton_transform` sees a record and the stores of its partition, and says what to emit.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pelton.h"

// What plugin.toml calls the store.
#define SEEN "seen"

// Called once, with the settings of plugin.toml and pipeline.toml. A text refuses the deployment.
const char *pelton_configure(const pelton_config *config) {
    (void)config;
    return NULL;
}

// Counts the records of each key. What is written to a store counts if and only if what is emitted does, through any crash.
pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    pelton_bytes key = pelton_key(record);
    if (pelton_is_null(key)) return pelton_reject("there is no key");
    char count[24] = "";
    pelton_bytes before = pelton_get(SEEN, key);
    if (before.len < sizeof count && before.len > 0) memcpy(count, before.ptr, before.len);
    snprintf(count, sizeof count, "%lld", strtoll(count, NULL, 10) + 1);
    pelton_put(SEEN, key, pelton_text(count));
    pelton_keep(out, record);
    pelton_set_value(out, pelton_text(count));
    return PELTON_OK;
}
