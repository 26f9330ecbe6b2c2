// Plugins for pelton in C. A plugin has `pelton_configure`, and what its world asks for (see the end of this file);
// `pelton plugin build` makes a component of it. What is read from a record is borrowed from its batch: nothing is
// copied, and it is gone when the function has returned.

#ifndef PELTON_H
#define PELTON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes that belong to somebody else. A `ptr` of NULL is null, which is not the same as empty.
typedef struct {
    const uint8_t *ptr;
    size_t len;
} pelton_bytes;

static inline bool pelton_is_null(pelton_bytes bytes) { return bytes.ptr == NULL; }
bool pelton_equal(pelton_bytes left, pelton_bytes right);
// A text that ends with 0, as bytes without that; null for NULL.
pelton_bytes pelton_text(const char *text);

// A batch as the contract has it (sdk/wit/records.wit), for work on columns: field i of a column is
// `data[offsets[i] .. offsets[i] + lengths[i]]`, null where the length is PELTON_NULL.
#define PELTON_NULL UINT32_MAX

typedef struct {
    uint32_t *ptr;
    size_t len;
} pelton_numbers;

typedef struct {
    int64_t *ptr;
    size_t len;
} pelton_times;

typedef struct {
    pelton_numbers offsets, lengths;
} pelton_slices;

typedef struct {
    pelton_numbers counts;
    pelton_slices names, values;
} pelton_header_columns;

typedef struct {
    pelton_bytes topic;
    uint32_t partition;
    pelton_bytes data;
    pelton_times offsets;
    pelton_slices keys, values;
    pelton_times timestamps;
    bool has_headers;
    pelton_header_columns headers;
} pelton_batch;

// One record of a batch.
typedef struct {
    const pelton_batch *batch;
    size_t index;
    // Where its headers begin in the columns of headers.
    size_t header;
} pelton_record;

// The key; null also when `needs` in plugin.toml leaves keys out.
pelton_bytes pelton_key(pelton_record record);
// The value; null also when `needs` in plugin.toml leaves values out.
pelton_bytes pelton_value(pelton_record record);
// Milliseconds since 1970-01-01 UTC; -1 for none.
int64_t pelton_timestamp(pelton_record record);
// Its offset; -1 if it comes from no stored record.
int64_t pelton_offset(pelton_record record);
size_t pelton_header_count(pelton_record record);
pelton_bytes pelton_header_name(pelton_record record, size_t i);
pelton_bytes pelton_header_value(pelton_record record, size_t i);
// The value of the last header of this name; null if there is none.
pelton_bytes pelton_header(pelton_record record, const char *name);

// What a transform emits. A column exists only from the first record that changes it: what nobody touches is inherited.
typedef struct pelton_out pelton_out;

// Emits the record as it is. The functions below change the record that was emitted last.
void pelton_keep(pelton_out *out, pelton_record record);
void pelton_set_key(pelton_out *out, pelton_bytes key);
void pelton_set_value(pelton_out *out, pelton_bytes value);
// A new value of `len` bytes, to be written to before anything else is called.
uint8_t *pelton_new_value(pelton_out *out, size_t len);
// A copy of its value, to be changed in place before anything else is called; NULL if it is null.
uint8_t *pelton_edit_value(pelton_out *out);
void pelton_set_timestamp(pelton_out *out, int64_t timestamp);
// Adds a header behind those it has.
void pelton_add_header(pelton_out *out, pelton_bytes name, pelton_bytes value);
void pelton_no_headers(pelton_out *out);
// Sends it to another output than the first: an index into `outputs` of plugin.toml.
void pelton_set_output(pelton_out *out, uint32_t output);

// Emits a record that is made of no other one. The functions above change it, too.
void pelton_emit(pelton_out *out, pelton_bytes key, pelton_bytes value, int64_t timestamp);

// How a record went. A reason must be readable until the next call: a literal, or something static.
typedef struct {
    enum { PELTON_DONE, PELTON_RETRY, PELTON_REJECT, PELTON_FATAL } kind;
    const char *reason;
} pelton_result;

#define PELTON_OK ((pelton_result){PELTON_DONE, NULL})
// This record cannot be processed, now or later. What happens to it is `on_error` of the pipeline.
static inline pelton_result pelton_reject(const char *reason) { return (pelton_result){PELTON_REJECT, reason}; }
// Give me the same batch again later.
static inline pelton_result pelton_retry(const char *reason) { return (pelton_result){PELTON_RETRY, reason}; }
// Stop the pipeline.
static inline pelton_result pelton_fatal(const char *reason) { return (pelton_result){PELTON_FATAL, reason}; }

// The settings of plugin.toml and pipeline.toml.
typedef struct pelton_config pelton_config;
// The value of a setting, which stays; NULL if there is no such setting.
const char *pelton_setting(const pelton_config *config, const char *name);
// The value as a number; false if it is none.
bool pelton_setting_int(const pelton_config *config, const char *name, int64_t *value);

// Lines for `pelton pipeline logs`. A call may write 100 lines of 1 KiB; what is over is dropped and counted. Without
// pelton, as in unit tests, lines go to standard error.
typedef enum { PELTON_DEBUG, PELTON_INFO, PELTON_WARN, PELTON_ERROR } pelton_level;
void pelton_log(pelton_level level, const char *text);

// Where Kafka's Java client puts a key: murmur2. Null is taken as an empty key.
uint32_t pelton_partition_of_key(pelton_bytes key, uint32_t partitions);

// Byte strings that the server answers. They are there until the call is over: copy what is to stay.
typedef struct {
    pelton_bytes data;
    pelton_slices fields;
} pelton_strings;

// String i; null for null.
pelton_bytes pelton_string(const pelton_strings *strings, size_t i);

// The stores of the node, in the worlds `transform-state` and `transform-timer`. Reads see what the call has written. What a call that
// fails has written is dropped, so what a plugin remembers of a store is wrong as soon as that happens: read it again in each call.
// A store that the node is not given, or one of the other kind, ends the instance.

// The value of a key; null if there is none. It is there until the call is over.
pelton_bytes pelton_get(const char *store, pelton_bytes key);
// Sets a key to a value; null deletes it.
void pelton_put(const char *store, pelton_bytes key, pelton_bytes value);

typedef struct {
    pelton_strings keys, values;
    // There are more in the range: a server gives at most 10,000, and about 4 MiB.
    bool more;
} pelton_entries;

static inline size_t pelton_entry_count(const pelton_entries *entries) { return entries->keys.fields.offsets.len; }
#define PELTON_ALL UINT32_MAX
// The first entries from `start` (inclusive) to `end` (exclusive; null: the last key), at most `limit` of them; `reverse`: the last ones,
// last key first.
pelton_entries pelton_range(const char *store, pelton_bytes start, pelton_bytes end, bool reverse, uint32_t limit);
// The same for the keys that begin with `prefix`.
pelton_entries pelton_prefix(const char *store, pelton_bytes prefix, bool reverse, uint32_t limit);
// Deletes the first entries of a range, at most `limit` of them and 10,000. Whether there are more.
bool pelton_delete_range(const char *store, pelton_bytes start, pelton_bytes end, uint32_t limit);

// The value of the window of a key that begins at `start` (milliseconds since 1970-01-01 UTC); null if there is none.
pelton_bytes pelton_get_window(const char *store, pelton_bytes key, int64_t start);
// Sets a window of a key to a value; null deletes it. One that would be forgotten already is not kept.
void pelton_put_window(const char *store, pelton_bytes key, int64_t start, pelton_bytes value);

typedef struct {
    pelton_times starts;
    pelton_strings values;
    // As in entries.
    bool more;
} pelton_windows;

// The first windows of a key that begin from `first` to `last`, both inclusive; `reverse`: the last ones, last start first.
pelton_windows pelton_windows_of(
    const char *store, pelton_bytes key, int64_t first, int64_t last, bool reverse, uint32_t limit);

// Timers, in the world `transform-timer`. What is set and cancelled is dropped with a call that fails.
typedef enum {
    // The largest timestamp of the records that came in this partition. Such a timer fires before the record that brings it there.
    PELTON_STREAM_TIME,
    // The clock of the machine.
    PELTON_WALL_CLOCK,
} pelton_domain;

typedef struct {
    pelton_domain domain;
    pelton_bytes name;
    // When it was due, in milliseconds since 1970-01-01 UTC.
    int64_t at;
} pelton_timer;

// Sets a timer. One of this name in the domain is moved.
void pelton_set_timer(pelton_domain domain, pelton_bytes name, int64_t at);
void pelton_cancel_timer(pelton_domain domain, pelton_bytes name);
// The clock of the machine, as it was when the call began. Only timers should depend on it: records that are processed again see
// another one.
int64_t pelton_clock(void);

// The value of a group, in the world `aggregator`. It is at once the result that the node emits; the server keeps it.
typedef struct {
    uint8_t *ptr;
    size_t len;
    // What is allocated; 0: somebody else has the bytes.
    size_t room;
} pelton_aggregate;

static inline pelton_bytes pelton_aggregate_get(const pelton_aggregate *value) {
    return (pelton_bytes){value->len > 0 ? value->ptr : (const uint8_t *)"", value->len};
}
// Sets it to a copy.
void pelton_aggregate_set(pelton_aggregate *value, pelton_bytes to);

// What a plugin has. `pelton_configure` is called once, before anything else: a text refuses the deployment, NULL is fine.
const char *pelton_configure(const pelton_config *config);
// Takes one record and emits any number of records. One that is not emitted is filtered. In the worlds `transform`,
// `transform-state` and `transform-timer`.
pelton_result pelton_transform(pelton_record record, pelton_out *out);
// A timer is due, and is not set any more. PELTON_REJECT is for this timer; `on_error` of the pipeline decides about it. In the world
// `transform-timer`.
pelton_result pelton_fire(pelton_timer timer, pelton_out *out);
// In the world `aggregator`. The value of a group without records; empty if a plugin does not have this.
pelton_result pelton_create(pelton_aggregate *value);
// Adds a record to the value of its group. Its key is that of the group.
pelton_result pelton_add(pelton_aggregate *value, pelton_record record);
// Takes a record out that was added before: where a table is aggregated. A plugin that does not have this is not for tables.
pelton_result pelton_subtract(pelton_aggregate *value, pelton_record record);
// Makes one value of two of one key: sessions that meet. `value` is the earlier one. A plugin that does not have this is not for sessions.
pelton_result pelton_merge(pelton_aggregate *value, pelton_bytes other);
// In the world `partitioner`. The partition of a record: below `partitions`, which is at least 1. The same record and the same number of partitions
// must always give the same answer.
uint32_t pelton_partition(pelton_record record, uint32_t partitions);

#endif
