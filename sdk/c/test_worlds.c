// make test

#include "pelton_testing.h"

const char *pelton_configure(const pelton_config *config) {
    (void)config;
    return NULL;
}

static pelton_bytes number(long long value) {
    static char text[32];
    snprintf(text, sizeof text, "%lld", value);
    return pelton_text(text);
}

static long long number_of(pelton_bytes bytes) {
    char text[32] = {0};
    if (bytes.len < sizeof text && bytes.len > 0) memcpy(text, bytes.ptr, bytes.len);
    return strtoll(text, NULL, 10);
}

// Counts the records of each key; and says which keys there were.
static pelton_result counted(pelton_record record, pelton_out *out) {
    long long count = number_of(pelton_get("seen", pelton_key(record))) + 1;
    pelton_put("seen", pelton_key(record), number(count));
    pelton_put("keys", pelton_key(record), pelton_text(""));
    if (pelton_equal(pelton_value(record), pelton_text("bad"))) return pelton_reject("it is bad");
    pelton_entries found = pelton_range("keys", pelton_text(NULL), pelton_text(NULL), false, 2);
    pelton_shown shown = {NULL, 0};
    pelton_show_number(&shown, count, "");
    for (size_t i = 0; i < pelton_entry_count(&found); i++)
        pelton_show(&shown, pelton_text(" ")), pelton_show(&shown, pelton_string(&found.keys, i));
    pelton_show(&shown, pelton_text(found.more ? " more" : ""));
    pelton_keep(out, record), pelton_set_value(out, pelton_text(shown.text));
    return PELTON_OK;
}

static pelton_result ranged(pelton_record record, pelton_out *out) {
    (void)out;
    static const char *const keys[] = {"a/1", "a/2", "b/1", "b/2"};
    pelton_bytes null = pelton_text(NULL), k = pelton_key(record);
    for (size_t i = 0; i < 4; i++) pelton_put("s", pelton_text(keys[i]), pelton_text(keys[i]));
    pelton_put("s", pelton_text("a/1"), null);
    pelton_entries found = pelton_prefix("s", pelton_text("a/"), false, PELTON_ALL);
    pelton_check(pelton_entry_count(&found) == 1 && pelton_equal(pelton_string(&found.values, 0), pelton_text("a/2")));
    found = pelton_range("s", pelton_text("a/2"), pelton_text("b/2"), true, PELTON_ALL);
    pelton_check(pelton_entry_count(&found) == 2 && pelton_equal(pelton_string(&found.keys, 0), pelton_text("b/1")));
    pelton_check(!found.more && pelton_delete_range("s", pelton_text("b/"), null, 1));
    pelton_check(pelton_is_null(pelton_get("s", pelton_text("b/1"))));
    pelton_put_window("w", k, 10, pelton_text("10")), pelton_put_window("w", k, 20, pelton_text("20"));
    pelton_put_window("w", k, 95, pelton_text("95")), pelton_put_window("w", k, 20, null);
    pelton_put_window("w", k, 120, pelton_text("last")), pelton_put_window("w", k, 20, pelton_text("late"));
    pelton_check(pelton_is_null(pelton_get_window("w", k, 10)) && pelton_is_null(pelton_get_window("w", k, 20)));
    pelton_check(pelton_equal(pelton_get_window("w", k, 95), pelton_text("95")));
    pelton_windows windows = pelton_windows_of("w", k, 0, 1000, true, 1);
    pelton_check(windows.starts.len == 1 && windows.starts.ptr[0] == 120 && windows.more);
    pelton_check(pelton_equal(pelton_string(&windows.values, 0), pelton_text("last")));
    return PELTON_OK;
}

static pelton_result timed(pelton_record record, pelton_out *out) {
    pelton_set_timer(PELTON_STREAM_TIME, pelton_key(record), pelton_timestamp(record) + 10);
    pelton_set_timer(PELTON_WALL_CLOCK, pelton_key(record), pelton_clock() + 10);
    if (pelton_equal(pelton_value(record), pelton_text("cancel"))) pelton_cancel_timer(PELTON_WALL_CLOCK,
                                                                                       pelton_key(record));
    pelton_put("seen", pelton_key(record), pelton_value(record));
    pelton_keep(out, record);
    return PELTON_OK;
}

static pelton_result fired(pelton_timer timer, pelton_out *out) {
    if (pelton_equal(timer.name, pelton_text("bad"))) return pelton_reject("it is bad");
    pelton_emit(out, timer.name, pelton_get("seen", timer.name), timer.at);
    pelton_add_header(out, pelton_text("on"), pelton_text(timer.domain == PELTON_WALL_CLOCK ? "clock" : NULL));
    pelton_set_output(out, 1);
    return PELTON_OK;
}

// Of what is made of a record and what is not, in any order.
static pelton_result mixed(pelton_record record, pelton_out *out) {
    pelton_keep(out, record);
    pelton_emit(out, pelton_text("n"), pelton_text(NULL), 7);
    pelton_keep(out, record), pelton_add_header(out, pelton_text("h"), pelton_text("1"));
    pelton_emit(out, pelton_text(NULL), pelton_text("new"), 8), pelton_set_output(out, 2);
    return PELTON_OK;
}

pelton_result pelton_create(pelton_aggregate *value) {
    pelton_aggregate_set(value, pelton_text("0"));
    return PELTON_OK;
}

pelton_result pelton_add(pelton_aggregate *value, pelton_record record) {
    if (pelton_is_null(pelton_value(record))) return pelton_reject("there is no value");
    pelton_aggregate_set(value, number(number_of(pelton_aggregate_get(value)) + number_of(pelton_value(record))));
    return PELTON_OK;
}

pelton_result pelton_merge(pelton_aggregate *value, pelton_bytes other) {
    pelton_aggregate_set(value, number(number_of(pelton_aggregate_get(value)) + number_of(other)));
    return PELTON_OK;
}

int main(void) {
    const pelton_store_given stores[] = {{"seen", 0}, {"keys", 0}, {"s", 0}, {"w", 100}, {NULL, 0}};
    pelton_use_stores(stores);
    const pelton_given four[] = {{.key = "c"}, {.key = "a"}, {.key = "b"}, {.key = "c"}};
    pelton_expect(pelton_give_function(counted, four, 4),
                  "0/0/c=1 c[]\n0/0/a=1 a c[]\n0/0/b=1 a b more[]\n0/0/c=2 a b more[]\n");
    const pelton_given bad[] = {{.key = "c"}, {.key = "c", .value = "bad"}};
    pelton_expect(pelton_give_function(counted, bad, 2), "rejected 1: it is bad\n");
    pelton_check(pelton_equal(pelton_get("seen", pelton_text("c")), pelton_text("2")));
    pelton_expect(pelton_give_function(counted, four, 1), "0/0/c=3 a b more[]\n");
    pelton_expect(pelton_give_function(ranged, four, 1), "");

    pelton_use_stores(stores);
    const pelton_given a = {.key = "a", .value = "1"}, b = {.key = "b", .value = "cancel", .timestamp = 5};
    const pelton_given c = {.key = "c", .value = "3", .timestamp = 10}, late = {.key = "d", .timestamp = 30};
    const pelton_given odd = {.key = "bad", .value = "", .timestamp = 11};
    pelton_expect(pelton_give_timed_function(timed, fired, a), "0/0/a=1[]\n");
    pelton_expect(pelton_give_timed_function(timed, fired, b), "0/5/b=cancel[]\n");
    pelton_expect(pelton_give_timed_function(timed, fired, c), "1/10/a=1[on:null]\n0/10/c=3[]\n");
    pelton_test_clock = 10;
    pelton_expect(pelton_fire_function_at(fired, PELTON_WALL_CLOCK, 9), "");
    pelton_expect(pelton_fire_function_at(fired, PELTON_WALL_CLOCK, 10), "1/10/a=1[on:clock]\n1/10/c=3[on:clock]\n");
    pelton_check(pelton_timer_at(PELTON_STREAM_TIME, pelton_text("b")) == 15);
    pelton_expect(pelton_give_timed_function(timed, fired, odd), "0/11/bad=[]\n");
    pelton_expect(pelton_fire_function_at(fired, PELTON_STREAM_TIME, 30), "rejected 2: it is bad\n");
    pelton_check(pelton_timer_at(PELTON_STREAM_TIME, pelton_text("b")) == 15);
    (void)late;

    const pelton_given one[] = {{.key = "k", .value = "v", .timestamp = 1, .headers = {{"x", "y"}}}};
    pelton_expect(pelton_run_function(mixed, one, 1),
                  "0/1/k=v[x:y]\n0/7/n=null[]\n0/1/k=v[x:y,h:1]\n2/8/null=new[]\n");

    pelton_expect(pelton_add_to("a", {.value = "5"}), "5");
    pelton_expect(pelton_add_to("b", {.value = "7"}), "7");
    pelton_expect(pelton_add_to("a", {.value = NULL}), "rejected 0: there is no value\n");
    pelton_expect(pelton_add_to("a", {.value = "123456789012345678"}), "123456789012345683");
    pelton_expect(pelton_merge_groups("a", "b"), "123456789012345690");
    // It is the plugin's own that is missing.
    pelton_expect(pelton_subtract_from("b", {.value = "1"}),
                  "fatal 0: this aggregator cannot take records out again, so it is not for tables\n");
    return pelton_tested();
}
