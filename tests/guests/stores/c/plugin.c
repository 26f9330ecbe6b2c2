// Calls each function of stores and timers once. Some values are orders: see cases.toml.

#include <stdio.h>
#include <string.h>

#include "pelton.h"

static char said[1024];

const char *pelton_configure(const pelton_config *config) {
    (void)config;
    return NULL;
}

static void say(const char *text, size_t len) { strncat(said, text, len); }

static void say_text(const char *text) { say(text, strlen(text)); }

static void say_bytes(pelton_bytes bytes) {
    if (pelton_is_null(bytes)) bytes = pelton_text("null");
    say((const char *)bytes.ptr, bytes.len);
}

static void say_entries(pelton_entries found) {
    for (size_t i = 0; i < pelton_entry_count(&found); i++) {
        say_bytes(pelton_string(&found.keys, i)), say_text("=");
        say_bytes(pelton_string(&found.values, i)), say_text(",");
    }
    say_text(found.more ? "more;" : ";");
}

static void say_number(int64_t number) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)number);
    say_text(text);
}

static void say_windows(pelton_windows found) {
    for (size_t i = 0; i < found.starts.len; i++) {
        say_number(found.starts.ptr[i]), say_text("=");
        say_bytes(pelton_string(&found.values, i)), say_text(",");
    }
    say_text(found.more ? "more;" : ";");
}

static void each(pelton_bytes key) {
    static const char *const keys[] = {"a/1", "a/2", "b/1", "b/2"};
    const pelton_bytes null = {NULL, 0};
    said[0] = '\0';
    for (size_t i = 0; i < 4; i++) pelton_put("s", pelton_text(keys[i]), pelton_text(keys[i]));
    pelton_put("s", pelton_text("empty"), pelton_text(""));
    pelton_put("s", pelton_text("a/1"), null);
    say_entries(pelton_prefix("s", pelton_text("a/"), false, PELTON_ALL));
    say_entries(pelton_range("s", pelton_text("a/2"), pelton_text("b/2"), true, PELTON_ALL));
    say_entries(pelton_range("s", null, null, false, 1));
    say_text(pelton_delete_range("s", pelton_text("b/"), pelton_text("b/9"), 1) ? "true;" : "false;");
    say_bytes(pelton_get("s", pelton_text("b/1"))), say_text(";");
    say_bytes(pelton_get("s", pelton_text("b/2"))), say_text(";");
    say_bytes(pelton_get("s", pelton_text("empty"))), say_text(";");
    pelton_put_window("w", key, 10, pelton_text("10")), pelton_put_window("w", key, 20, pelton_text("20"));
    pelton_put_window("w", key, 95, pelton_text("95"));
    pelton_windows first = pelton_windows_of("w", key, 0, 19, false, PELTON_ALL);
    pelton_put_window("w", key, 20, null), pelton_put_window("w", key, 120, pelton_text("last"));
    say_bytes(pelton_get_window("w", key, 10)), say_text(";");
    say_bytes(pelton_get_window("w", key, 95)), say_text(";");
    say_windows(pelton_windows_of("w", key, 0, 1000, true, 1));
    say_windows(first);
    pelton_set_timer(PELTON_STREAM_TIME, pelton_text("x"), 9000);
    pelton_set_timer(PELTON_STREAM_TIME, pelton_text("x"), 5000);
    pelton_set_timer(PELTON_STREAM_TIME, pelton_text("y"), 6000);
    pelton_cancel_timer(PELTON_STREAM_TIME, pelton_text("y"));
    pelton_set_timer(PELTON_WALL_CLOCK, pelton_text("w"), pelton_clock() + 100);
    say_number(pelton_clock());
}

static bool is(pelton_bytes value, const char *text) { return pelton_equal(value, pelton_text(text)); }

pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    pelton_bytes order = pelton_value(record), key = pelton_key(record);
    pelton_keep(out, record);
    if (pelton_is_null(order)) {
        each(key);
        pelton_set_value(out, pelton_text(said));
        return PELTON_OK;
    }
    if (is(order, "stray")) pelton_get("nothing", key);
    if (order.len >= 3 && memcmp(order.ptr, "put", 3) == 0) pelton_put("s", key, order);
    if (is(order, "put and reject")) return pelton_reject("told to reject");
    if (is(order, "timer")) pelton_set_timer(PELTON_WALL_CLOCK, key, 100);
    return PELTON_OK;
}

pelton_result pelton_fire(pelton_timer timer, pelton_out *out) {
    if (is(timer.name, "bad")) return pelton_reject("told to fail");
    char at[24];
    snprintf(at, sizeof at, "%lld", (long long)timer.at);
    pelton_emit(out, timer.name, pelton_text(timer.domain == PELTON_STREAM_TIME ? "stream" : "clock"), timer.at);
    pelton_add_header(out, pelton_text("at"), pelton_text(at)), pelton_add_header(out, pelton_text("null"), pelton_text(NULL));
    pelton_set_output(out, 1);
    return PELTON_OK;
}
