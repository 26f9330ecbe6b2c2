// Runs a plugin without pelton, as pelton would: for unit tests. Included by one file of a test program.

#ifndef PELTON_TESTING_H
#define PELTON_TESTING_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef const char *pelton_setting_given[2];

// A record to give. Headers are pairs of a name and a value; a name of NULL ends them.
typedef struct {
    const char *key, *value;
    int64_t timestamp;
    const char *headers[8][2];
} pelton_given;

static int pelton_failures;

// Says where a test failed.
#define pelton_check(condition) \
    ((condition) ? (void)0 : (void)(pelton_failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition)))

#define pelton_expect(got, wanted) pelton_expect_at(__FILE__, __LINE__, (got), (wanted))

static inline void pelton_expect_at(const char *file, int line, const char *got, const char *wanted) {
    if (strcmp(got, wanted) == 0) return;
    pelton_failures++;
    fprintf(stderr, "%s:%d: wanted\n%sgot\n%s", file, line, wanted, got);
}

// What `main` returns.
static inline int pelton_tested(void) {
    fprintf(stderr, pelton_failures > 0 ? "FAILED\n" : "ok\n");
    return pelton_failures > 0;
}

void pelton_log(pelton_level level, const char *text) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    fprintf(stderr, "%s: %s\n", names[level], text);
}

static inline void pelton_give(pelton_batch *batch, pelton_column *column, const char *text) {
    size_t len = text == NULL ? 0 : strlen(text);
    pelton_push(&column->offsets, (uint32_t)batch->data.len);
    pelton_push(&column->lengths, text == NULL ? PELTON_NULL : (uint32_t)len);
    uint8_t *data = pelton_need((uint8_t *)batch->data.ptr, batch->data.len + len);
    if (len > 0) memcpy(data + batch->data.len, text, len);
    batch->data = (pelton_bytes){data, batch->data.len + len};
}

// The batch of the topic `test`, partition 0, from offset 0.
static inline pelton_batch pelton_batch_of(const pelton_given *given, size_t count) {
    pelton_batch batch = {.topic = pelton_text("test")};
    pelton_column keys = {0}, values = {0}, names = {0}, header_values = {0};
    pelton_growing counts = {0};
    batch.offsets = (pelton_times){pelton_need(NULL, count * sizeof(int64_t)), count};
    batch.timestamps = (pelton_times){pelton_need(NULL, count * sizeof(int64_t)), count};
    for (size_t i = 0; i < count; i++) {
        batch.offsets.ptr[i] = (int64_t)i;
        batch.timestamps.ptr[i] = given[i].timestamp;
        pelton_give(&batch, &keys, given[i].key);
        pelton_give(&batch, &values, given[i].value);
        uint32_t headers = 0;
        for (; headers < 8 && given[i].headers[headers][0] != NULL; headers++) {
            pelton_give(&batch, &names, given[i].headers[headers][0]);
            pelton_give(&batch, &header_values, given[i].headers[headers][1]);
            batch.has_headers = true;
        }
        pelton_push(&counts, headers);
    }
    batch.keys = (pelton_slices){keys.offsets.numbers, keys.lengths.numbers};
    batch.values = (pelton_slices){values.offsets.numbers, values.lengths.numbers};
    batch.headers.counts = counts.numbers;
    batch.headers.names = (pelton_slices){names.offsets.numbers, names.lengths.numbers};
    batch.headers.values = (pelton_slices){header_values.offsets.numbers, header_values.lengths.numbers};
    return batch;
}

static inline const char *pelton_configured(const pelton_setting_given *config) {
    static const pelton_setting_given none[] = {{NULL, NULL}};
    pelton_config settings = {(const char *(*)[2])(config == NULL ? none : config)};
    return pelton_configure(&settings);
}

typedef struct {
    char *text;
    size_t len;
} pelton_shown;

static inline void pelton_show(pelton_shown *shown, pelton_bytes bytes) {
    if (pelton_is_null(bytes)) bytes = pelton_text("null");
    shown->text = pelton_need(shown->text, shown->len + bytes.len + 1);
    memcpy(shown->text + shown->len, bytes.ptr, bytes.len);
    shown->len += bytes.len;
    shown->text[shown->len] = '\0';
}

static inline void pelton_show_number(pelton_shown *shown, long long number, const char *behind) {
    char text[32];
    snprintf(text, sizeof text, "%lld%s", number, behind);
    pelton_show(shown, pelton_text(text));
}

// A field of what was emitted: in the batch, or in the new bytes behind it.
static inline pelton_bytes pelton_emitted(const pelton_out *out, const pelton_column *column, size_t i) {
    uint32_t offset = column->offsets.numbers.ptr[i], length = column->lengths.numbers.ptr[i];
    if (length == PELTON_NULL) return (pelton_bytes){NULL, 0};
    size_t known = out->batch->data.len;
    return (pelton_bytes){offset < known ? out->batch->data.ptr + offset : out->data + (offset - known), length};
}

static inline void pelton_show_headers(pelton_shown *shown, const pelton_out *out, size_t i, pelton_record record) {
    size_t first = 0, count = record.index == PELTON_NO_SOURCE ? 0 : pelton_header_count(record);
    if (out->has_headers) {
        for (size_t j = 0; j < i; j++) first += out->counts.numbers.ptr[j];
        count = out->counts.numbers.ptr[i];
    }
    pelton_show(shown, pelton_text("["));
    for (size_t j = 0; j < count; j++) {
        if (j > 0) pelton_show(shown, pelton_text(","));
        pelton_show(shown, out->has_headers ? pelton_emitted(out, &out->names, first + j) : pelton_header_name(record, j));
        pelton_show(shown, pelton_text(":"));
        pelton_show(shown, out->has_headers ? pelton_emitted(out, &out->header_values, first + j)
                                            : pelton_header_value(record, j));
    }
    pelton_show(shown, pelton_text("]\n"));
}

// What was emitted, a line for each record: `output/timestamp/key=value[name:value,…]`.
static inline void pelton_show_out(pelton_shown *shown, const pelton_out *out) {
    for (size_t i = 0; i < out->source.numbers.len; i++) {
        bool is_new = out->source.numbers.ptr[i] == PELTON_NO_SOURCE;
        pelton_record record = {out->batch, is_new ? PELTON_NO_SOURCE : 0, 0};
        while (record.index < out->source.numbers.ptr[i]) record = pelton_next(record);
        pelton_show_number(shown, out->has_route ? out->route.numbers.ptr[i] : 0, "/");
        pelton_show_number(shown, out->has_timestamps ? out->timestamps.ptr[i] : pelton_timestamp(record), "/");
        pelton_show(shown, out->has_keys ? pelton_emitted(out, &out->keys, i) : pelton_key(record));
        pelton_show(shown, pelton_text("="));
        pelton_show(shown, out->has_values ? pelton_emitted(out, &out->values, i) : pelton_value(record));
        pelton_show_headers(shown, out, i, record);
    }
}

// `rejected 1: there is no key`
static inline void pelton_show_failure(pelton_shown *shown, size_t index, pelton_result result) {
    static const char *const kinds[] = {"", "retry", "rejected", "fatal"};
    pelton_show(shown, pelton_text(kinds[result.kind]));
    pelton_show(shown, pelton_text(" "));
    pelton_show_number(shown, (long long)index, ": ");
    pelton_show(shown, pelton_text(result.reason));
    pelton_show(shown, pelton_text("\n"));
}

typedef pelton_result (*pelton_transform_function)(pelton_record record, pelton_out *out);

// Gives the records as one batch to a function, and shows what comes of it.
static inline const char *pelton_run_function(
    pelton_transform_function transform, const pelton_given *given, size_t count) {
    pelton_shown shown = {NULL, 0}, failed = {NULL, 0};
    pelton_batch *batch = pelton_need(NULL, sizeof *batch);
    *batch = pelton_batch_of(given, count);
    pelton_out *out = calloc(1, sizeof *out);
    pelton_begin(out, batch);
    for (pelton_record record = {batch, 0, 0}; record.index < count; record = pelton_next(record)) {
        pelton_result result = transform(record, out);
        if (result.kind != PELTON_DONE) pelton_show_failure(&failed, record.index, result);
    }
    if (failed.text != NULL) return failed.text;
    pelton_show(&shown, pelton_text(""));
    pelton_show_out(&shown, out);
    return shown.text;
}

#define pelton_run(config, given, count) \
    (pelton_configured(config) != NULL ? pelton_configured(config) : pelton_run_function(pelton_transform, given, count))

#include "pelton_testing_worlds.h"

typedef uint32_t (*pelton_partition_function)(pelton_record record, uint32_t partitions);

static inline void pelton_place(
    pelton_partition_function partition, const pelton_given *given, size_t count, uint32_t partitions, uint32_t *placed) {
    pelton_batch batch = pelton_batch_of(given, count);
    for (pelton_record record = {&batch, 0, 0}; record.index < count; record = pelton_next(record)) {
        placed[record.index] = partition(record, partitions);
        pelton_check(placed[record.index] < partitions);
    }
}

#define pelton_partitions(config, given, count, partitions, placed) \
    (pelton_check(pelton_configured(config) == NULL), pelton_place(pelton_partition, given, count, partitions, placed))

#endif
