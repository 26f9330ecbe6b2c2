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

#ifndef PELTON_WORLD_PARTITIONER

// Memory of this call.
static pelton_bytes copied(pelton_bytes bytes) {
    uint8_t *own = cabi_realloc(NULL, 0, 1, bytes.len);
    memcpy(own, bytes.ptr, bytes.len);
    return (pelton_bytes){own, bytes.len};
}

static pelton_bytes reason_of(pelton_result result) {
    return pelton_text(result.reason == NULL ? "no reason was given" : result.reason);
}

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

static rejection *rejected;
static size_t rejected_room, failures;

// A failure of the whole call.
static failure whole(pelton_result result) {
    return (failure){.kind = result.kind == PELTON_RETRY ? 0 : 2, .reason = reason_of(result)};
}

static void reject(size_t index, pelton_result result) {
    if (failures == rejected_room) {
        rejected_room = rejected_room > 0 ? 2 * rejected_room : 16;
        rejected = pelton_need(rejected, rejected_room * sizeof *rejected);
    }
    // The plugin may write the next reason to the same place.
    rejected[failures++] = (rejection){(uint32_t)index, copied(reason_of(result))};
}

static failure of_records(void) { return (failure){.kind = 1, .rejected = {rejected, failures}}; }

#endif

#if defined PELTON_WORLD_TRANSFORM || defined PELTON_WORLD_TRANSFORM_STATE || defined PELTON_WORLD_TRANSFORM_TIMER

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

static struct {
    uint8_t failed;
    union {
        output output;
        failure failure;
    };
} processed;

static pelton_out out;

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

static void *fails(failure failure) {
    processed.failed = 1;
    processed.failure = failure;
    return &processed;
}

EXPORT("process")
void *pelton_export_process(const pelton_batch *batch) {
    failures = 0;
    pelton_begin(&out, batch);
    for (pelton_record record = {batch, 0, 0}; record.index < batch->offsets.len; record = pelton_next(record)) {
        pelton_result result = pelton_transform(record, &out);
        if (result.kind == PELTON_DONE) continue;
        if (result.kind != PELTON_REJECT) return fails(whole(result));
        reject(record.index, result);
    }
    if (failures > 0) return fails(of_records());
    answer();
    return &processed;
}

EXPORT("cabi_post_process")
void pelton_post_process(void *answered) {
    (void)answered;
    take_back();
}

#endif

#ifdef PELTON_WORLD_TRANSFORM_TIMER

EXPORT("fire")
void *pelton_export_fire(pelton_domain domain, const uint8_t *data, size_t len, uint32_t *offsets, size_t count,
                         uint32_t *lengths, size_t lengths_count, const int64_t *at, size_t at_count) {
    static const pelton_batch nothing = {.data = {(const uint8_t *)"", 0}};
    const pelton_strings names = {{data, len}, {{offsets, count}, {lengths, lengths_count}}};
    failures = 0;
    pelton_begin(&out, &nothing);
    for (size_t i = 0; i < at_count; i++) {
        pelton_result result = pelton_fire((pelton_timer){domain, pelton_string(&names, i), at[i]}, &out);
        if (result.kind == PELTON_DONE) continue;
        if (result.kind != PELTON_REJECT) return fails(whole(result));
        reject(i, result);
        return fails(of_records());
    }
    answer();
    return &processed;
}

EXPORT("cabi_post_fire")
void pelton_post_fire(void *answered) {
    (void)answered;
    take_back();
}

#endif

#ifdef PELTON_WORLD_AGGREGATOR

typedef struct {
    pelton_strings values;
    pelton_batch batch;
    pelton_numbers groups;
} fold_arguments;

static struct {
    uint8_t failed;
    union {
        pelton_strings values;
        failure failure;
    };
} folded;

// The values of the groups of a call, and what is answered.
static pelton_aggregate *groups;
static size_t groups_room;
static pelton_column answers;
static uint8_t *answered_bytes;
static size_t answered_len, answered_room;

static void begin_fold(const pelton_strings *values) {
    size_t count = values->fields.offsets.len;
    if (count > groups_room) {
        groups = pelton_need(groups, count * sizeof *groups);
        groups_room = count;
    }
    for (size_t i = 0; i < count; i++) {
        pelton_bytes value = pelton_string(values, i);
        groups[i] = (pelton_aggregate){(uint8_t *)value.ptr, value.len, 0};
    }
    answers.offsets.numbers.len = answers.lengths.numbers.len = answered_len = failures = 0;
}

static void answer_value(const pelton_aggregate *value) {
    if (answered_room - answered_len < value->len) {
        size_t room = answered_room > 0 ? 2 * answered_room : 4096;
        answered_room = room - answered_len < value->len ? answered_len + value->len : room;
        answered_bytes = pelton_need(answered_bytes, answered_room);
    }
    pelton_push(&answers.offsets, (uint32_t)answered_len);
    pelton_push(&answers.lengths, (uint32_t)value->len);
    if (value->len > 0) memcpy(answered_bytes + answered_len, value->ptr, value->len);
    answered_len += value->len;
}

static void end_fold(size_t count) {
    for (size_t i = 0; i < count; i++)
        if (groups[i].room > 0) free(groups[i].ptr);
}

static void *answer_fold(pelton_result result) {
    folded.failed = result.kind != PELTON_DONE || failures > 0;
    if (!folded.failed)
        folded.values = (pelton_strings){{answered_bytes, answered_len}, {answers.offsets.numbers,
                                                                          answers.lengths.numbers}};
    else
        folded.failure = result.kind != PELTON_DONE ? whole(result) : of_records();
    return &folded;
}

static void *fold(const fold_arguments *given, pelton_result change(pelton_aggregate *value, pelton_record record)) {
    const pelton_batch *batch = &given->batch;
    begin_fold(&given->values);
    pelton_result result = PELTON_OK;
    for (pelton_record record = {batch, 0, 0}; record.index < batch->offsets.len; record = pelton_next(record)) {
        pelton_aggregate *value = &groups[given->groups.ptr[record.index]];
        result = change(value, record);
        if (result.kind == PELTON_DONE) {
            answer_value(value);
        } else if (result.kind == PELTON_REJECT) {
            reject(record.index, result);
            result = PELTON_OK;
        } else {
            break;
        }
    }
    end_fold(given->values.fields.offsets.len);
    return answer_fold(result);
}

EXPORT("create")
void *pelton_export_create(void) {
    static struct {
        uint8_t failed;
        pelton_bytes value;
    } created;
    pelton_aggregate value = {NULL, 0, 0};
    pelton_result result = pelton_create(&value);
    created.failed = result.kind != PELTON_DONE;
    created.value = created.failed ? reason_of(result) : copied(pelton_aggregate_get(&value));
    if (value.room > 0) free(value.ptr);
    return &created;
}

EXPORT("add")
void *pelton_export_add(const fold_arguments *given) { return fold(given, pelton_add); }

EXPORT("subtract")
void *pelton_export_subtract(const fold_arguments *given) { return fold(given, pelton_subtract); }

EXPORT("merge")
void *pelton_export_merge(const uint8_t *data, size_t len, uint32_t *offsets, size_t count, uint32_t *lengths,
                          size_t lengths_count, const uint8_t *other_data, size_t other_len, uint32_t *other_offsets,
                          size_t other_count, uint32_t *other_lengths, size_t other_lengths_count) {
    const pelton_strings left = {{data, len}, {{offsets, count}, {lengths, lengths_count}}};
    const pelton_strings right = {{other_data, other_len}, {{other_offsets, other_count}, {other_lengths, other_lengths_count}}};
    begin_fold(&left);
    pelton_result result = PELTON_OK;
    for (size_t i = 0; i < count && result.kind == PELTON_DONE; i++) {
        result = pelton_merge(&groups[i], pelton_string(&right, i));
        // No record is to blame.
        if (result.kind == PELTON_REJECT) result.kind = PELTON_FATAL;
        if (result.kind == PELTON_DONE) answer_value(&groups[i]);
    }
    end_fold(count);
    return answer_fold(result);
}

#define TAKE_BACK_AFTER(name) \
    EXPORT("cabi_post_" #name) \
    void pelton_post_##name(void *answered) { \
        (void)answered; \
        take_back(); \
    }

TAKE_BACK_AFTER(create)
TAKE_BACK_AFTER(add)
TAKE_BACK_AFTER(subtract)
TAKE_BACK_AFTER(merge)

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
