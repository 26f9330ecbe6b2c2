// Stores, timers and values of groups in memory, as a server has them: for unit tests. Included by pelton_testing.h.

#ifndef PELTON_TESTING_WORLDS_H
#define PELTON_TESTING_WORLDS_H

// A store that a test gives its plugin, until the next `pelton_use_stores`. A retention in milliseconds makes it one of windows. A name
// of NULL ends them.
typedef struct {
    const char *name;
    int64_t retention;
} pelton_store_given;

typedef struct {
    char *store;
    uint8_t *key, *value;
    size_t key_len, value_len;
    int64_t start;
} pelton_kept;

// A timer that is set.
typedef struct {
    pelton_domain domain;
    char *name;
    size_t len;
    int64_t at;
} pelton_set;

// All that a node keeps. Memory is never given back: a test is over soon.
typedef struct {
    pelton_store_given stores[16];
    int64_t times[16];
    pelton_kept *kept;
    size_t count;
    pelton_set *timers;
    size_t timer_count;
} pelton_memory_stores;

static pelton_memory_stores pelton_memory;
static int64_t pelton_test_clock, pelton_test_stream_time = -1;

static inline void *pelton_copied(const void *bytes, size_t len) {
    char *copy = pelton_need(NULL, len + 1);
    if (len > 0) memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

// A copy to go back to: what lies in it is never changed in place.
static inline pelton_memory_stores pelton_snapshot(void) {
    pelton_memory_stores copy = pelton_memory;
    copy.kept = pelton_copied(pelton_memory.kept, pelton_memory.count * sizeof *copy.kept);
    copy.timers = pelton_copied(pelton_memory.timers, pelton_memory.timer_count * sizeof *copy.timers);
    return copy;
}

// Begins with empty stores, no timers, and clocks that stand at their beginning.
static inline void pelton_use_stores(const pelton_store_given *stores) {
    pelton_memory = (pelton_memory_stores){.count = 0};
    pelton_test_clock = 0, pelton_test_stream_time = -1;
    for (size_t i = 0; stores != NULL && stores[i].name != NULL && i < 15; i++)
        pelton_memory.stores[i] = stores[i], pelton_memory.times[i] = -1;
}

static inline size_t pelton_store_of(const char *store, bool has_windows) {
    for (size_t i = 0; pelton_memory.stores[i].name != NULL; i++) {
        const pelton_store_given *given = &pelton_memory.stores[i];
        if (strcmp(given->name, store) == 0 && (given->retention > 0) == has_windows) return i;
    }
    fprintf(stderr, "the node is not given a store `%s` of %s\n", store, has_windows ? "windows" : "entries");
    abort();
}

static inline int pelton_order(const void *left, size_t left_len, const void *right, size_t right_len) {
    size_t len = left_len < right_len ? left_len : right_len;
    int order = len > 0 ? memcmp(left, right, len) : 0;
    return order != 0 ? order : (left_len > right_len) - (left_len < right_len);
}

static inline int pelton_kept_order(const void *left, const void *right) {
    const pelton_kept *a = left, *b = right;
    int order = pelton_order(a->key, a->key_len, b->key, b->key_len);
    return order != 0 ? order : (a->start > b->start) - (a->start < b->start);
}

static inline pelton_kept *pelton_find(const char *store, pelton_bytes key, int64_t start) {
    for (size_t i = 0; i < pelton_memory.count; i++) {
        pelton_kept *kept = &pelton_memory.kept[i];
        bool is_same = strcmp(kept->store, store) == 0 && kept->start == start;
        if (is_same && pelton_order(kept->key, kept->key_len, key.ptr, key.len) == 0) return kept;
    }
    return NULL;
}

static inline void pelton_forget(size_t i) { pelton_memory.kept[i] = pelton_memory.kept[--pelton_memory.count]; }

static inline void pelton_set_kept(const char *store, pelton_bytes key, int64_t start, pelton_bytes value) {
    if (pelton_is_null(key)) fprintf(stderr, "a key is null\n"), abort();
    pelton_kept *found = pelton_find(store, key, start);
    if (found != NULL) pelton_forget((size_t)(found - pelton_memory.kept));
    if (pelton_is_null(value)) return;
    pelton_memory.kept = pelton_need(pelton_memory.kept, (pelton_memory.count + 1) * sizeof *pelton_memory.kept);
    pelton_memory.kept[pelton_memory.count++] = (pelton_kept){
        pelton_copied(store, strlen(store)), pelton_copied(key.ptr, key.len), pelton_copied(value.ptr, value.len),
        key.len, value.len, start};
    qsort(pelton_memory.kept, pelton_memory.count, sizeof *pelton_memory.kept, pelton_kept_order);
}

static inline pelton_bytes pelton_kept_value(const pelton_kept *kept) {
    return kept == NULL ? (pelton_bytes){NULL, 0} : (pelton_bytes){kept->value, kept->value_len};
}

pelton_bytes pelton_get(const char *store, pelton_bytes key) {
    pelton_store_of(store, false);
    return pelton_kept_value(pelton_find(store, key, 0));
}

void pelton_put(const char *store, pelton_bytes key, pelton_bytes value) {
    pelton_store_of(store, false);
    pelton_set_kept(store, key, 0, value);
}

static inline void pelton_string_push(pelton_strings *strings, const uint8_t *bytes, size_t len) {
    pelton_growing offsets = {strings->fields.offsets, strings->fields.offsets.len};
    pelton_growing lengths = {strings->fields.lengths, strings->fields.lengths.len};
    pelton_push(&offsets, (uint32_t)strings->data.len), pelton_push(&lengths, (uint32_t)len);
    strings->fields = (pelton_slices){offsets.numbers, lengths.numbers};
    uint8_t *data = pelton_need((void *)strings->data.ptr, strings->data.len + len);
    if (len > 0) memcpy(data + strings->data.len, bytes, len);
    strings->data = (pelton_bytes){data, strings->data.len + len};
}

static inline size_t pelton_limit(uint32_t limit) { return limit < 10000 ? limit : 10000; }

static inline bool pelton_starts_with(const pelton_kept *kept, pelton_bytes prefix) {
    return kept->key_len >= prefix.len && pelton_order(kept->key, prefix.len, prefix.ptr, prefix.len) == 0;
}

static inline pelton_entries pelton_page(
    const char *store, pelton_bytes start, pelton_bytes end, pelton_bytes prefix, bool reverse, uint32_t limit) {
    pelton_store_of(store, false);
    pelton_entries page = {0};
    for (size_t n = 0; n < pelton_memory.count; n++) {
        const pelton_kept *kept = &pelton_memory.kept[reverse ? pelton_memory.count - 1 - n : n];
        bool is_within = strcmp(kept->store, store) == 0 && pelton_starts_with(kept, prefix) &&
                         pelton_order(kept->key, kept->key_len, start.ptr, start.len) >= 0 &&
                         (pelton_is_null(end) || pelton_order(kept->key, kept->key_len, end.ptr, end.len) < 0);
        if (!is_within) continue;
        if (pelton_entry_count(&page) == pelton_limit(limit)) {
            page.more = true;
            break;
        }
        pelton_string_push(&page.keys, kept->key, kept->key_len);
        pelton_string_push(&page.values, kept->value, kept->value_len);
    }
    return page;
}

pelton_entries pelton_range(const char *store, pelton_bytes start, pelton_bytes end, bool reverse, uint32_t limit) {
    return pelton_page(store, start, end, (pelton_bytes){NULL, 0}, reverse, limit);
}

pelton_entries pelton_prefix(const char *store, pelton_bytes prefix, bool reverse, uint32_t limit) {
    return pelton_page(store, (pelton_bytes){NULL, 0}, (pelton_bytes){NULL, 0}, prefix, reverse, limit);
}

bool pelton_delete_range(const char *store, pelton_bytes start, pelton_bytes end, uint32_t limit) {
    pelton_entries found = pelton_range(store, start, end, false, limit);
    for (size_t i = 0; i < pelton_entry_count(&found); i++)
        pelton_put(store, pelton_string(&found.keys, i), (pelton_bytes){NULL, 0});
    return found.more;
}

pelton_bytes pelton_get_window(const char *store, pelton_bytes key, int64_t start) {
    pelton_store_of(store, true);
    return pelton_kept_value(pelton_find(store, key, start));
}

void pelton_put_window(const char *store, pelton_bytes key, int64_t start, pelton_bytes value) {
    size_t of = pelton_store_of(store, true);
    if (start < 0) fprintf(stderr, "%lld is no time for a window\n", (long long)start), abort();
    if (start > pelton_memory.times[of]) pelton_memory.times[of] = start;
    int64_t first = pelton_memory.times[of] - pelton_memory.stores[of].retention + 1;
    if (start >= first) pelton_set_kept(store, key, start, value);
    for (size_t i = pelton_memory.count; i-- > 0;)
        if (strcmp(pelton_memory.kept[i].store, store) == 0 && pelton_memory.kept[i].start < first) pelton_forget(i);
    qsort(pelton_memory.kept, pelton_memory.count, sizeof *pelton_memory.kept, pelton_kept_order);
}

pelton_windows pelton_windows_of(
    const char *store, pelton_bytes key, int64_t first, int64_t last, bool reverse, uint32_t limit) {
    pelton_store_of(store, true);
    pelton_windows page = {0};
    for (size_t n = 0; n < pelton_memory.count; n++) {
        const pelton_kept *kept = &pelton_memory.kept[reverse ? pelton_memory.count - 1 - n : n];
        bool is_within = strcmp(kept->store, store) == 0 && kept->start >= first && kept->start <= last;
        if (!is_within || pelton_order(kept->key, kept->key_len, key.ptr, key.len) != 0) continue;
        if (page.starts.len == pelton_limit(limit)) {
            page.more = true;
            break;
        }
        page.starts.ptr = pelton_need(page.starts.ptr, (page.starts.len + 1) * sizeof(int64_t));
        page.starts.ptr[page.starts.len++] = kept->start;
        pelton_string_push(&page.values, kept->value, kept->value_len);
    }
    return page;
}

// When a timer is due; -1: it is not set.
static inline int64_t pelton_timer_at(pelton_domain domain, pelton_bytes name) {
    for (size_t i = 0; i < pelton_memory.timer_count; i++) {
        const pelton_set *set = &pelton_memory.timers[i];
        if (set->domain == domain && pelton_order(set->name, set->len, name.ptr, name.len) == 0) return set->at;
    }
    return -1;
}

void pelton_cancel_timer(pelton_domain domain, pelton_bytes name) {
    for (size_t i = pelton_memory.timer_count; i-- > 0;) {
        pelton_set *set = &pelton_memory.timers[i];
        if (set->domain == domain && pelton_order(set->name, set->len, name.ptr, name.len) == 0)
            *set = pelton_memory.timers[--pelton_memory.timer_count];
    }
}

void pelton_set_timer(pelton_domain domain, pelton_bytes name, int64_t at) {
    if (at < 0) fprintf(stderr, "%lld is no time for a timer\n", (long long)at), abort();
    pelton_cancel_timer(domain, name);
    size_t count = pelton_memory.timer_count + 1;
    pelton_memory.timers = pelton_need(pelton_memory.timers, count * sizeof *pelton_memory.timers);
    pelton_memory.timers[pelton_memory.timer_count++] =
        (pelton_set){domain, pelton_copied(name.ptr, name.len), name.len, at};
}

int64_t pelton_clock(void) { return pelton_test_clock; }

static inline int pelton_set_order(const void *left, const void *right) {
    const pelton_set *a = left, *b = right;
    if (a->at != b->at) return a->at < b->at ? -1 : 1;
    return pelton_order(a->name, a->len, b->name, b->len);
}

// Gives the records as one batch to a plugin with stores, which stay from batch to batch. What comes of it, as `pelton_run` shows it. A
// batch that fails leaves stores as they were.
static inline const char *pelton_give_function(
    pelton_transform_function transform, const pelton_given *given, size_t count) {
    pelton_memory_stores before = pelton_snapshot();
    const char *shown = pelton_run_function(transform, given, count);
    static const char *const failures[] = {"rejected ", "retry ", "fatal "};
    for (size_t i = 0; i < 3; i++)
        if (strncmp(shown, failures[i], strlen(failures[i])) == 0) pelton_memory = before;
    return shown;
}

#define pelton_give_batch(given, count) pelton_give_function(pelton_transform, given, count)

typedef pelton_result (*pelton_fire_function)(pelton_timer timer, pelton_out *out);

// Has timers of a domain fire that are due. What comes of it.
static inline const char *pelton_fire_function_at(pelton_fire_function fire, pelton_domain domain, int64_t now) {
    pelton_memory_stores before = pelton_snapshot();
    pelton_set *due = pelton_need(NULL, (pelton_memory.timer_count + 1) * sizeof *due);
    size_t count = 0;
    for (size_t i = 0; i < pelton_memory.timer_count; i++)
        if (pelton_memory.timers[i].domain == domain && pelton_memory.timers[i].at <= now)
            due[count++] = pelton_memory.timers[i];
    qsort(due, count, sizeof *due, pelton_set_order);
    pelton_batch *batch = pelton_need(NULL, sizeof *batch);
    *batch = (pelton_batch){.data = pelton_text("")};
    pelton_out *out = calloc(1, sizeof *out);
    pelton_begin(out, batch);
    pelton_shown shown = {NULL, 0};
    pelton_show(&shown, pelton_text(""));
    for (size_t i = 0; i < count; i++) pelton_cancel_timer(domain, (pelton_bytes){(uint8_t *)due[i].name, due[i].len});
    for (size_t i = 0; i < count; i++) {
        pelton_timer timer = {domain, {(uint8_t *)due[i].name, due[i].len}, due[i].at};
        pelton_result result = fire(timer, out);
        if (result.kind == PELTON_DONE) continue;
        pelton_memory = before;
        pelton_show_failure(&shown, i, result);
        return shown.text;
    }
    pelton_show_out(&shown, out);
    return shown.text;
}

// The clock goes on. What comes of timers on it that are due.
#define pelton_tick(clock) \
    (pelton_test_clock = (clock), pelton_fire_function_at(pelton_fire, PELTON_WALL_CLOCK, pelton_test_clock))

// Gives a record to a plugin with timers, and has those on stream time fire before it that it makes due. What comes of both.
static inline const char *pelton_give_timed_function(
    pelton_transform_function transform, pelton_fire_function fire, pelton_given given) {
    if (given.timestamp > pelton_test_stream_time) pelton_test_stream_time = given.timestamp;
    pelton_shown shown = {NULL, 0};
    pelton_show(&shown, pelton_text(pelton_fire_function_at(fire, PELTON_STREAM_TIME, pelton_test_stream_time)));
    pelton_show(&shown, pelton_text(pelton_give_function(transform, &given, 1)));
    return shown.text;
}

#define pelton_give_timed(given) pelton_give_timed_function(pelton_transform, pelton_fire, given)

// The values of groups.
typedef struct {
    const char *group;
    pelton_aggregate value;
} pelton_group;

static pelton_group pelton_groups[64];
static size_t pelton_group_count;

static inline pelton_aggregate *pelton_value_of(const char *group) {
    for (size_t i = 0; i < pelton_group_count; i++)
        if (strcmp(pelton_groups[i].group, group) == 0) return &pelton_groups[i].value;
    if (pelton_group_count == 64) fprintf(stderr, "a test may have 64 groups\n"), abort();
    pelton_group *made = &pelton_groups[pelton_group_count++];
    *made = (pelton_group){group, {NULL, 0, 0}};
    pelton_result result = pelton_create(&made->value);
    pelton_check(result.kind == PELTON_DONE);
    return &made->value;
}

typedef pelton_result (*pelton_fold_function)(pelton_aggregate *value, pelton_record record);

static inline const char *pelton_folded(pelton_aggregate *value, pelton_aggregate before, pelton_result result) {
    pelton_shown shown = {NULL, 0};
    pelton_show(&shown, pelton_text(""));
    if (result.kind != PELTON_DONE) {
        *value = before;
        pelton_show_failure(&shown, 0, result);
    } else {
        pelton_show(&shown, pelton_aggregate_get(value));
    }
    return shown.text;
}

static inline const char *pelton_fold(pelton_fold_function change, const char *group, pelton_given given) {
    pelton_aggregate *value = pelton_value_of(group), before = *value;
    // What was before stays as it is: its bytes are somebody else's for the plugin.
    value->room = 0;
    given.key = group;
    pelton_batch *batch = pelton_need(NULL, sizeof *batch);
    *batch = pelton_batch_of(&given, 1);
    return pelton_folded(value, before, change(value, (pelton_record){batch, 0, 0}));
}

// Adds a record to a group. Its value then, or how that failed.
#define pelton_add_to(group, ...) pelton_fold(pelton_add, group, (pelton_given)__VA_ARGS__)
// Takes a record out of a group.
#define pelton_subtract_from(group, ...) pelton_fold(pelton_subtract, group, (pelton_given)__VA_ARGS__)

// One group takes in another one. Its value then, or how that failed.
static inline const char *pelton_merge_groups(const char *into, const char *from) {
    pelton_aggregate *value = pelton_value_of(into), before = *value;
    value->room = 0;
    return pelton_folded(value, before, pelton_merge(value, pelton_aggregate_get(pelton_value_of(from))));
}

#endif
