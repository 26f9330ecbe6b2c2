// The exports of a component, by the canonical ABI: what the host calls and how answers lie in memory. The structs of
// pelton.h lie in a memory of 32 bits as those of sdk/wit do.

#ifdef __wasm__

#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define EXPORT(name) __attribute__((export_name(name)))

// Memory for what the host gives to one call, taken back as a whole when the call is over.
typedef struct block {
    // What follows a block is aligned as it is: lists of times need 8.
    _Alignas(8) struct block *before;
    size_t used, room;
} block;

static block *given;
// What the first block of a call has room for: what a call before needed.
static size_t expected;
#define LEAST_BLOCK ((size_t)1 << 18)

EXPORT("cabi_realloc")
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    size_t used = given == NULL ? 0 : (given->used + align - 1) / align * align;
    if (given == NULL || used > given->room || given->room - used < size) {
        size_t room = given == NULL && expected > LEAST_BLOCK ? expected : LEAST_BLOCK;
        if (room < size) room = size;
        block *more = pelton_need(NULL, sizeof(block) + room);
        *more = (block){given, 0, room};
        given = more;
        used = 0;
    }
    uint8_t *at = (uint8_t *)(given + 1) + used;
    given->used = used + size;
    if (old != NULL) memcpy(at, old, old_size < size ? old_size : size);
    return at;
}

// Keeps a block that was enough by itself; otherwise the next call begins with one that is.
static void take_back(void) {
    size_t used = 0;
    for (block *b = given; b != NULL; b = b->before) used += b->used + 16;
    if (used > expected) expected = used;
    if (given != NULL && given->before == NULL) {
        given->used = 0;
        return;
    }
    while (given != NULL) {
        block *before = given->before;
        free(given);
        given = before;
    }
}

typedef struct {
    pelton_bytes name, value;
} setting;

static char *kept(pelton_bytes text) {
    char *copy = pelton_need(NULL, text.len + 1);
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    return copy;
}

EXPORT("configure")
void *pelton_export_configure(const setting *settings, size_t count) {
    static struct {
        uint8_t failed;
        pelton_bytes reason;
    } answer;
    static pelton_config config;
    config.pairs = pelton_need(NULL, (count + 1) * sizeof *config.pairs);
    for (size_t i = 0; i < count; i++) {
        config.pairs[i][0] = kept(settings[i].name);
        config.pairs[i][1] = kept(settings[i].value);
    }
    config.pairs[count][0] = NULL;
    take_back();
    answer.reason = pelton_text(pelton_configure(&config));
    answer.failed = !pelton_is_null(answer.reason);
    return &answer;
}

#ifdef PELTON_WORLD_TRANSFORM

typedef struct {
    bool is_some;
    pelton_slices column;
} optional_slices;

typedef struct {
    bool is_some;
    pelton_times column;
} optional_times;

typedef struct {
    bool is_some;
    pelton_header_columns columns;
} optional_headers;

typedef struct {
    bool is_some;
    pelton_numbers column;
} optional_numbers;

typedef struct {
    pelton_numbers source;
    pelton_bytes data;
    optional_slices keys, values;
    optional_times timestamps;
    optional_headers headers;
    optional_numbers route;
} output;

typedef struct {
    uint32_t index;
    pelton_bytes reason;
} rejection;

typedef struct {
    uint8_t kind;
    union {
        pelton_bytes reason;
        struct {
            rejection *ptr;
            size_t len;
        } rejected;
    };
} failure;

static struct {
    uint8_t failed;
    union {
        output output;
        failure failure;
    };
} processed;

static pelton_out out;
static rejection *rejected;
static size_t rejected_room;

static pelton_slices slices(const pelton_column *column) {
    return (pelton_slices){column->offsets.numbers, column->lengths.numbers};
}

static void answer(void) {
    processed.failed = 0;
    processed.output = (output){
        .source = out.source.numbers,
        .data = {out.data, out.len},
        .keys = {out.has_keys, slices(&out.keys)},
        .values = {out.has_values, slices(&out.values)},
        .timestamps = {out.has_timestamps, out.timestamps},
        .headers = {out.has_headers, {out.counts.numbers, slices(&out.names), slices(&out.header_values)}},
        .route = {out.has_route, out.route.numbers},
    };
}

EXPORT("process")
void *pelton_export_process(const pelton_batch *batch) {
    size_t failures = 0;
    pelton_begin(&out, batch);
    for (pelton_record record = {batch, 0, 0}; record.index < batch->offsets.len; record = pelton_next(record)) {
        pelton_result result = pelton_transform(record, &out);
        if (result.kind == PELTON_DONE) continue;
        pelton_bytes reason = pelton_text(result.reason == NULL ? "no reason was given" : result.reason);
        if (result.kind != PELTON_REJECT) {
            processed.failed = 1;
            processed.failure = (failure){.kind = result.kind == PELTON_RETRY ? 0 : 2, .reason = reason};
            return &processed;
        }
        if (failures == rejected_room) {
            rejected_room = rejected_room > 0 ? 2 * rejected_room : 16;
            rejected = pelton_need(rejected, rejected_room * sizeof *rejected);
        }
        // The plugin may write the next reason to the same place.
        uint8_t *own = cabi_realloc(NULL, 0, 1, reason.len);
        memcpy(own, reason.ptr, reason.len);
        rejected[failures++] = (rejection){(uint32_t)record.index, {own, reason.len}};
    }
    if (failures > 0) {
        processed.failed = 1;
        processed.failure = (failure){.kind = 1, .rejected = {rejected, failures}};
    } else {
        answer();
    }
    return &processed;
}

EXPORT("cabi_post_process")
void pelton_post_process(void *answered) {
    (void)answered;
    take_back();
}

#endif

#ifdef PELTON_WORLD_PARTITIONER

typedef struct {
    pelton_batch batch;
    uint32_t partitions;
} partition_arguments;

EXPORT("partition")
void *pelton_export_partition(const partition_arguments *arguments) {
    static pelton_growing placed;
    placed.numbers.len = 0;
    const pelton_batch *batch = &arguments->batch;
    for (pelton_record record = {batch, 0, 0}; record.index < batch->offsets.len; record = pelton_next(record))
        pelton_push(&placed, pelton_partition(record, arguments->partitions));
    return &placed.numbers;
}

EXPORT("cabi_post_partition")
void pelton_post_partition(void *answered) {
    (void)answered;
    take_back();
}

#endif

__attribute__((import_module("pelton:plugin/log@0.1.0"), import_name("write")))
void pelton_import_log(int32_t level, const char *text, size_t len);

void pelton_log(pelton_level level, const char *text) { pelton_import_log(level, text, strlen(text)); }

#endif
