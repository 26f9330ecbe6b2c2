// Records, what is emitted, settings, and where keys go: the parts that are the same natively and in a component.

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

bool pelton_equal(pelton_bytes left, pelton_bytes right) {
    if (left.ptr == NULL || right.ptr == NULL) return left.ptr == right.ptr;
    return left.len == right.len && memcmp(left.ptr, right.ptr, left.len) == 0;
}

pelton_bytes pelton_text(const char *text) {
    return (pelton_bytes){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

void *pelton_need(void *old, size_t bytes) {
    void *memory = realloc(old, bytes > 0 ? bytes : 1);
    if (memory == NULL) abort();
    return memory;
}

pelton_bytes pelton_field(const pelton_batch *batch, const pelton_slices *column, size_t i) {
    if (i >= column->lengths.len || column->lengths.ptr[i] == PELTON_NULL) return (pelton_bytes){NULL, 0};
    return (pelton_bytes){batch->data.ptr + column->offsets.ptr[i], column->lengths.ptr[i]};
}

pelton_bytes pelton_key(pelton_record record) {
    return pelton_field(record.batch, &record.batch->keys, record.index);
}

pelton_bytes pelton_value(pelton_record record) {
    return pelton_field(record.batch, &record.batch->values, record.index);
}

int64_t pelton_timestamp(pelton_record record) { return record.batch->timestamps.ptr[record.index]; }

int64_t pelton_offset(pelton_record record) { return record.batch->offsets.ptr[record.index]; }

size_t pelton_header_count(pelton_record record) {
    return record.batch->has_headers ? record.batch->headers.counts.ptr[record.index] : 0;
}

pelton_bytes pelton_header_name(pelton_record record, size_t i) {
    return pelton_field(record.batch, &record.batch->headers.names, record.header + i);
}

pelton_bytes pelton_header_value(pelton_record record, size_t i) {
    return pelton_field(record.batch, &record.batch->headers.values, record.header + i);
}

pelton_bytes pelton_header(pelton_record record, const char *name) {
    pelton_bytes wanted = pelton_text(name);
    for (size_t i = pelton_header_count(record); i-- > 0;)
        if (pelton_equal(pelton_header_name(record, i), wanted)) return pelton_header_value(record, i);
    return (pelton_bytes){NULL, 0};
}

pelton_record pelton_next(pelton_record record) {
    return (pelton_record){record.batch, record.index + 1, record.header + pelton_header_count(record)};
}

void pelton_push(pelton_growing *list, uint32_t number) {
    if (list->numbers.len == list->room) {
        list->room = list->room > 0 ? 2 * list->room : 64;
        list->numbers.ptr = pelton_need(list->numbers.ptr, list->room * sizeof(uint32_t));
    }
    list->numbers.ptr[list->numbers.len++] = number;
}

static void push_field(pelton_column *column, uint32_t offset, uint32_t length) {
    pelton_push(&column->offsets, offset);
    pelton_push(&column->lengths, length);
}

static void push_time(pelton_out *out, int64_t time) {
    if (out->timestamps.len == out->timestamps_room) {
        out->timestamps_room = out->timestamps_room > 0 ? 2 * out->timestamps_room : 64;
        out->timestamps.ptr = pelton_need(out->timestamps.ptr, out->timestamps_room * sizeof(int64_t));
    }
    out->timestamps.ptr[out->timestamps.len++] = time;
}

// A field as it is in the batch; null if the batch was given without this column.
static void inherit(pelton_column *column, const pelton_slices *from, size_t i) {
    if (i < from->lengths.len)
        push_field(column, from->offsets.ptr[i], from->lengths.ptr[i]);
    else
        push_field(column, 0, PELTON_NULL);
}

static void inherit_headers(pelton_out *out, pelton_record record) {
    size_t count = pelton_header_count(record);
    pelton_push(&out->counts, (uint32_t)count);
    for (size_t i = record.header; i < record.header + count; i++) {
        inherit(&out->names, &record.batch->headers.names, i);
        inherit(&out->header_values, &record.batch->headers.values, i);
    }
}

static void empty(pelton_column *column) { column->offsets.numbers.len = column->lengths.numbers.len = 0; }

void pelton_begin(pelton_out *out, const pelton_batch *batch) {
    out->batch = batch;
    out->source.numbers.len = out->route.numbers.len = out->counts.numbers.len = 0;
    out->timestamps.len = out->len = 0;
    empty(&out->keys), empty(&out->values), empty(&out->names), empty(&out->header_values);
    out->has_keys = out->has_values = out->has_timestamps = out->has_headers = out->has_route = false;
}

void pelton_keep(pelton_out *out, pelton_record record) {
    out->last = record;
    pelton_push(&out->source, (uint32_t)record.index);
    if (out->has_keys) inherit(&out->keys, &record.batch->keys, record.index);
    if (out->has_values) inherit(&out->values, &record.batch->values, record.index);
    if (out->has_timestamps) push_time(out, pelton_timestamp(record));
    if (out->has_headers) inherit_headers(out, record);
    if (out->has_route) pelton_push(&out->route, 0);
}

// Room for new bytes, and where they are as offsets of the answer count.
static uint8_t *append(pelton_out *out, size_t len, uint32_t *offset) {
    if (out->room - out->len < len) {
        size_t room = out->room > 0 ? 2 * out->room : out->batch->data.len;
        out->room = room - out->len < len || room < out->len ? out->len + len : room;
        out->data = pelton_need(out->data, out->room);
    }
    uint8_t *at = out->data + out->len;
    *offset = (uint32_t)(out->batch->data.len + out->len);
    out->len += len;
    return at;
}

// The column as if it had been there from the first record on.
static void backfill(pelton_out *out, bool *has, pelton_column *column, const pelton_slices *from) {
    if (*has) return;
    *has = true;
    for (size_t i = 0; i < out->source.numbers.len; i++) inherit(column, from, out->source.numbers.ptr[i]);
}

static uint8_t *set_last(pelton_out *out, pelton_column *column, bool null, size_t len) {
    uint32_t offset = 0;
    uint8_t *at = null ? NULL : append(out, len, &offset);
    size_t last = column->lengths.numbers.len - 1;
    column->offsets.numbers.ptr[last] = offset;
    column->lengths.numbers.ptr[last] = null ? PELTON_NULL : (uint32_t)len;
    return at;
}

static void copy(uint8_t *to, pelton_bytes from) {
    if (to != NULL && from.len > 0) memcpy(to, from.ptr, from.len);
}

void pelton_set_key(pelton_out *out, pelton_bytes key) {
    backfill(out, &out->has_keys, &out->keys, &out->batch->keys);
    copy(set_last(out, &out->keys, pelton_is_null(key), key.len), key);
}

void pelton_set_value(pelton_out *out, pelton_bytes value) {
    backfill(out, &out->has_values, &out->values, &out->batch->values);
    copy(set_last(out, &out->values, pelton_is_null(value), value.len), value);
}

uint8_t *pelton_new_value(pelton_out *out, size_t len) {
    backfill(out, &out->has_values, &out->values, &out->batch->values);
    return set_last(out, &out->values, false, len);
}

uint8_t *pelton_edit_value(pelton_out *out) {
    pelton_bytes value = pelton_value(out->last);
    if (pelton_is_null(value)) return NULL;
    uint8_t *copied = pelton_new_value(out, value.len);
    copy(copied, value);
    return copied;
}

static void need_timestamps(pelton_out *out) {
    if (out->has_timestamps) return;
    out->has_timestamps = true;
    // What is made of no record says its time, so all of these have a source.
    for (size_t i = 0; i < out->source.numbers.len; i++)
        push_time(out, out->batch->timestamps.ptr[out->source.numbers.ptr[i]]);
}

void pelton_set_timestamp(pelton_out *out, int64_t timestamp) {
    need_timestamps(out);
    out->timestamps.ptr[out->timestamps.len - 1] = timestamp;
}

static void need_headers(pelton_out *out) {
    if (out->has_headers) return;
    out->has_headers = true;
    for (size_t i = 0; i < out->source.numbers.len; i++) {
        if (out->source.numbers.ptr[i] == PELTON_NO_SOURCE) {
            pelton_push(&out->counts, 0);
            continue;
        }
        pelton_record record = {out->batch, 0, 0};
        // What was emitted last is known; what came before it is looked for, once a batch.
        if (out->source.numbers.ptr[i] == out->last.index) record = out->last;
        while (record.index < out->source.numbers.ptr[i]) record = pelton_next(record);
        inherit_headers(out, record);
    }
}

static void push_bytes(pelton_out *out, pelton_column *column, pelton_bytes bytes) {
    push_field(column, 0, PELTON_NULL);
    copy(set_last(out, column, pelton_is_null(bytes), bytes.len), bytes);
}

void pelton_add_header(pelton_out *out, pelton_bytes name, pelton_bytes value) {
    need_headers(out);
    push_bytes(out, &out->names, name);
    push_bytes(out, &out->header_values, value);
    out->counts.numbers.ptr[out->counts.numbers.len - 1]++;
}

void pelton_no_headers(pelton_out *out) {
    need_headers(out);
    uint32_t *count = &out->counts.numbers.ptr[out->counts.numbers.len - 1];
    size_t rest = out->names.lengths.numbers.len - *count;
    out->names.offsets.numbers.len = out->names.lengths.numbers.len = rest;
    out->header_values.offsets.numbers.len = out->header_values.lengths.numbers.len = rest;
    *count = 0;
}

void pelton_set_output(pelton_out *out, uint32_t output) {
    if (!out->has_route) {
        out->has_route = true;
        for (size_t i = 0; i < out->source.numbers.len; i++) pelton_push(&out->route, 0);
    }
    out->route.numbers.ptr[out->route.numbers.len - 1] = output;
}

void pelton_emit(pelton_out *out, pelton_bytes key, pelton_bytes value, int64_t timestamp) {
    backfill(out, &out->has_keys, &out->keys, &out->batch->keys);
    backfill(out, &out->has_values, &out->values, &out->batch->values);
    need_timestamps(out);
    out->last = (pelton_record){out->batch, PELTON_NO_SOURCE, 0};
    pelton_push(&out->source, PELTON_NO_SOURCE);
    push_bytes(out, &out->keys, key);
    push_bytes(out, &out->values, value);
    push_time(out, timestamp);
    if (out->has_headers) pelton_push(&out->counts, 0);
    if (out->has_route) pelton_push(&out->route, 0);
}

pelton_bytes pelton_string(const pelton_strings *strings, size_t i) {
    size_t len = strings->fields.lengths.ptr[i];
    if (len == PELTON_NULL) return (pelton_bytes){NULL, 0};
    // What is empty is not null.
    return (pelton_bytes){len > 0 ? strings->data.ptr + strings->fields.offsets.ptr[i] : (const uint8_t *)"", len};
}

void pelton_aggregate_set(pelton_aggregate *value, pelton_bytes to) {
    uint8_t *old = value->room > 0 ? value->ptr : NULL;
    if (value->room < to.len || value->room == 0) {
        value->room = to.len > 16 ? to.len : 16;
        value->ptr = pelton_need(NULL, value->room);
    }
    // It may be made of a part of itself.
    if (to.len > 0) memmove(value->ptr, to.ptr, to.len);
    value->len = to.len;
    if (old != value->ptr) free(old);
}

// What a plugin need not have.
__attribute__((weak)) pelton_result pelton_create(pelton_aggregate *value) {
    (void)value;
    return PELTON_OK;
}

__attribute__((weak)) pelton_result pelton_subtract(pelton_aggregate *value, pelton_record record) {
    (void)value, (void)record;
    return pelton_fatal("this aggregator cannot take records out again, so it is not for tables");
}

__attribute__((weak)) pelton_result pelton_merge(pelton_aggregate *value, pelton_bytes other) {
    (void)value, (void)other;
    return pelton_fatal("this aggregator cannot merge values, so it is not for sessions");
}

const char *pelton_setting(const pelton_config *config, const char *name) {
    for (const char *(*pair)[2] = config->pairs; (*pair)[0] != NULL; pair++)
        if (strcmp((*pair)[0], name) == 0) return (*pair)[1];
    return NULL;
}

bool pelton_setting_int(const pelton_config *config, const char *name, int64_t *value) {
    const char *text = pelton_setting(config, name);
    if (text == NULL || *text == '\0') return false;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0') return false;
    *value = number;
    return true;
}

// Kafka's hash, with the seed that Kafka uses.
static uint32_t murmur2(pelton_bytes key) {
    const uint32_t m = 0x5bd1e995;
    uint32_t hash = 0x9747b28c ^ (uint32_t)key.len;
    size_t whole = key.len & ~(size_t)3;
    for (size_t at = 0; at < whole; at += 4) {
        const uint8_t *p = key.ptr + at;
        uint32_t word = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        word *= m;
        hash = hash * m ^ (word ^ word >> 24) * m;
    }
    if (whole < key.len) {
        for (size_t i = whole; i < key.len; i++) hash ^= (uint32_t)key.ptr[i] << (8 * (i - whole));
        hash *= m;
    }
    hash = (hash ^ hash >> 13) * m;
    return hash ^ hash >> 15;
}

uint32_t pelton_partition_of_key(pelton_bytes key, uint32_t partitions) {
    return (murmur2(key) & 0x7fffffff) % partitions;
}
