// The stores and timers of a node, in a component: what the server is asked, by the canonical ABI. An answer that is more than a number
// lies where the last argument says, and what it points to is memory of this call.

#if defined __wasm__ && (defined PELTON_WORLD_TRANSFORM_STATE || defined PELTON_WORLD_TRANSFORM_TIMER)

#include <string.h>

#include "internal.h"

#define STATE(name) __attribute__((import_module("pelton:plugin/state@0.1.0"), import_name(name)))

// A column of one string, as arguments.
static uint32_t zero;
#define ONE(bytes, length) (bytes).ptr, (bytes).len, &zero, (size_t)1, &length, (size_t)1

static uint32_t length_of(pelton_bytes bytes) { return pelton_is_null(bytes) ? PELTON_NULL : (uint32_t)bytes.len; }

STATE("get")
void pelton_state_get(const char *store, size_t store_len, const uint8_t *data, size_t len, const uint32_t *offsets,
                      size_t count, const uint32_t *lengths, size_t lengths_count, pelton_strings *answer);

pelton_bytes pelton_get(const char *store, pelton_bytes key) {
    pelton_strings answer;
    uint32_t length = length_of(key);
    pelton_state_get(store, strlen(store), ONE(key, length), &answer);
    return pelton_string(&answer, 0);
}

STATE("put")
void pelton_state_put(const char *store, size_t store_len, const uint8_t *data, size_t len, const uint32_t *offsets,
                      size_t count, const uint32_t *lengths, size_t lengths_count, const uint8_t *value_data,
                      size_t value_len, const uint32_t *value_offsets, size_t value_count,
                      const uint32_t *value_lengths, size_t value_lengths_count);

void pelton_put(const char *store, pelton_bytes key, pelton_bytes value) {
    uint32_t length = length_of(key), value_length = length_of(value);
    pelton_state_put(store, strlen(store), ONE(key, length), ONE(value, value_length));
}

STATE("range")
void pelton_state_range(const char *store, size_t store_len, const uint8_t *start, size_t start_len,
                        int32_t has_end, const uint8_t *end, size_t end_len, int32_t reverse, uint32_t limit,
                        pelton_entries *answer);

pelton_entries pelton_range(const char *store, pelton_bytes start, pelton_bytes end, bool reverse, uint32_t limit) {
    pelton_entries answer;
    pelton_state_range(store, strlen(store), start.ptr, start.len, !pelton_is_null(end), end.ptr, end.len, reverse,
                       limit, &answer);
    return answer;
}

STATE("prefix")
void pelton_state_prefix(const char *store, size_t store_len, const uint8_t *prefix, size_t prefix_len,
                         int32_t reverse, uint32_t limit, pelton_entries *answer);

pelton_entries pelton_prefix(const char *store, pelton_bytes prefix, bool reverse, uint32_t limit) {
    pelton_entries answer;
    pelton_state_prefix(store, strlen(store), prefix.ptr, prefix.len, reverse, limit, &answer);
    return answer;
}

STATE("delete-range")
int32_t pelton_state_delete_range(const char *store, size_t store_len, const uint8_t *start, size_t start_len,
                                  int32_t has_end, const uint8_t *end, size_t end_len, uint32_t limit);

bool pelton_delete_range(const char *store, pelton_bytes start, pelton_bytes end, uint32_t limit) {
    return pelton_state_delete_range(
               store, strlen(store), start.ptr, start.len, !pelton_is_null(end), end.ptr, end.len, limit) != 0;
}

STATE("get-windows")
void pelton_state_get_windows(const char *store, size_t store_len, const uint8_t *data, size_t len,
                              const uint32_t *offsets, size_t count, const uint32_t *lengths, size_t lengths_count,
                              const int64_t *starts, size_t starts_count, pelton_strings *answer);

pelton_bytes pelton_get_window(const char *store, pelton_bytes key, int64_t start) {
    pelton_strings answer;
    uint32_t length = length_of(key);
    pelton_state_get_windows(store, strlen(store), ONE(key, length), &start, 1, &answer);
    return pelton_string(&answer, 0);
}

STATE("put-windows")
void pelton_state_put_windows(const char *store, size_t store_len, const uint8_t *data, size_t len,
                              const uint32_t *offsets, size_t count, const uint32_t *lengths, size_t lengths_count,
                              const int64_t *starts, size_t starts_count, const uint8_t *value_data,
                              size_t value_len, const uint32_t *value_offsets, size_t value_count,
                              const uint32_t *value_lengths, size_t value_lengths_count);

void pelton_put_window(const char *store, pelton_bytes key, int64_t start, pelton_bytes value) {
    uint32_t length = length_of(key), value_length = length_of(value);
    pelton_state_put_windows(store, strlen(store), ONE(key, length), &start, 1, ONE(value, value_length));
}

STATE("windows-of")
void pelton_state_windows_of(const char *store, size_t store_len, const uint8_t *key, size_t key_len, int64_t first,
                             int64_t last, int32_t reverse, uint32_t limit, pelton_windows *answer);

pelton_windows pelton_windows_of(
    const char *store, pelton_bytes key, int64_t first, int64_t last, bool reverse, uint32_t limit) {
    pelton_windows answer;
    pelton_state_windows_of(store, strlen(store), key.ptr, key.len, first, last, reverse, limit, &answer);
    return answer;
}

#ifdef PELTON_WORLD_TRANSFORM_TIMER

#define TIMERS(name) __attribute__((import_module("pelton:plugin/timers@0.1.0"), import_name(name)))

TIMERS("set")
void pelton_timers_set(int32_t domain, const uint8_t *data, size_t len, const uint32_t *offsets, size_t count,
                       const uint32_t *lengths, size_t lengths_count, const int64_t *at, size_t at_count);

void pelton_set_timer(pelton_domain domain, pelton_bytes name, int64_t at) {
    uint32_t length = length_of(name);
    pelton_timers_set((int32_t)domain, ONE(name, length), &at, 1);
}

TIMERS("cancel")
void pelton_timers_cancel(int32_t domain, const uint8_t *data, size_t len, const uint32_t *offsets, size_t count,
                          const uint32_t *lengths, size_t lengths_count);

void pelton_cancel_timer(pelton_domain domain, pelton_bytes name) {
    uint32_t length = length_of(name);
    pelton_timers_cancel((int32_t)domain, ONE(name, length));
}

TIMERS("clock")
int64_t pelton_timers_clock(void);

int64_t pelton_clock(void) { return pelton_timers_clock(); }

#endif

#endif
