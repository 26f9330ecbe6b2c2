// What the parts of the SDK share.

#ifndef PELTON_INTERNAL_H
#define PELTON_INTERNAL_H

#include "pelton.h"

typedef struct {
    pelton_numbers numbers;
    size_t room;
} pelton_growing;

typedef struct {
    pelton_growing offsets, lengths;
} pelton_column;

struct pelton_out {
    const pelton_batch *batch;
    pelton_record last;
    pelton_growing source, route, counts;
    pelton_column keys, values, names, header_values;
    pelton_times timestamps;
    size_t timestamps_room;
    uint8_t *data;
    size_t len, room;
    bool has_keys, has_values, has_timestamps, has_headers, has_route;
};

struct pelton_config {
    // Pairs of a name and a value; NULL ends them.
    const char *(*pairs)[2];
};

// What `source` says of a record that is made of none.
#define PELTON_NO_SOURCE UINT32_MAX

// Empties it, for another batch. Its memory is used again.
void pelton_begin(pelton_out *out, const pelton_batch *batch);
// A number at the end of a list.
void pelton_push(pelton_growing *list, uint32_t number);
// Memory, or the end of the plugin.
void *pelton_need(void *old, size_t bytes);
pelton_bytes pelton_field(const pelton_batch *batch, const pelton_slices *column, size_t i);
// The record behind this one.
pelton_record pelton_next(pelton_record record);

#endif
