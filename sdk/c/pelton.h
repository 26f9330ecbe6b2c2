// Plugins for pelton in C. A plugin has `pelton_configure`, and `pelton_transform` or `pelton_partition`, as its world
// asks; `pelton plugin build` makes a component of it. What is read from a record is borrowed from its batch: nothing is
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

// What a plugin has. `pelton_configure` is called once, before anything else: a text refuses the deployment, NULL is fine.
const char *pelton_configure(const pelton_config *config);
// Takes one record and emits any number of records. One that is not emitted is filtered.
pelton_result pelton_transform(pelton_record record, pelton_out *out);
// The partition of a record: below `partitions`, which is at least 1. The same record and the same number of partitions
// must always give the same answer.
uint32_t pelton_partition(pelton_record record, uint32_t partitions);

#endif
