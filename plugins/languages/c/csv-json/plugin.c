// A line with separators becomes a JSON object of texts.

#include <stdio.h>
#include <string.h>

#include "pelton.h"

#define MAX_COLUMNS 256

static pelton_bytes columns[MAX_COLUMNS];
static size_t column_count;
static pelton_bytes separator;

const char *pelton_configure(const pelton_config *config) {
    const char *name = pelton_setting(config, "columns");
    separator = pelton_text(pelton_setting(config, "separator"));
    if (separator.len == 0) return "separator is empty";
    for (column_count = 0; name != NULL; column_count++) {
        if (column_count == MAX_COLUMNS) return "columns: there are more than 256";
        const char *end = strchr(name, ',');
        columns[column_count] = (pelton_bytes){(const uint8_t *)name, end == NULL ? strlen(name) : (size_t)(end - name)};
        if (columns[column_count].len == 0) return "columns: a name is empty";
        name = end == NULL ? NULL : end + 1;
    }
    return NULL;
}

// Splits a line, and says how many fields there are; those past MAX_COLUMNS are counted only.
static size_t split(pelton_bytes line, pelton_bytes *fields) {
    size_t count = 0, start = 0;
    for (size_t at = 0; at <= line.len; at++) {
        bool is_end = at == line.len;
        bool is_separator = line.len - at >= separator.len && memcmp(line.ptr + at, separator.ptr, separator.len) == 0;
        if (!is_end && !is_separator) continue;
        if (count < MAX_COLUMNS) fields[count] = (pelton_bytes){line.ptr + start, at - start};
        count++;
        if (!is_end) start = at + separator.len, at = start - 1;
    }
    return count;
}

// A text of JSON at `to`, or how long it is if there is no `to`.
static size_t quote(uint8_t *to, pelton_bytes text) {
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char escaped[8] = {(char)text.ptr[i]};
        if (text.ptr[i] < 0x20) snprintf(escaped, sizeof escaped, "\\u%04x", text.ptr[i]);
        if (text.ptr[i] == '"' || text.ptr[i] == '\\') escaped[0] = '\\', escaped[1] = (char)text.ptr[i];
        size_t more = strlen(escaped);
        if (to != NULL) memcpy(to + 1 + len, escaped, more);
        len += more;
    }
    if (to != NULL) to[0] = to[1 + len] = '"';
    return len + 2;
}

static size_t object(uint8_t *to, const pelton_bytes *fields) {
    size_t len = 0;
    for (size_t i = 0; i < column_count; i++) {
        if (to != NULL) to[len] = i == 0 ? '{' : ',';
        len++;
        len += quote(to == NULL ? NULL : to + len, columns[i]);
        if (to != NULL) to[len] = ':';
        len++;
        len += quote(to == NULL ? NULL : to + len, fields[i]);
    }
    if (to != NULL) to[len] = '}';
    return len + 1;
}

pelton_result pelton_transform(pelton_record record, pelton_out *out) {
    static char reason[64];
    pelton_bytes line = pelton_value(record), fields[MAX_COLUMNS];
    if (!pelton_is_null(line)) {
        size_t count = split(line, fields);
        if (count != column_count) {
            snprintf(reason, sizeof reason, "the line has %zu fields, not %zu", count, column_count);
            return pelton_reject(reason);
        }
    }
    pelton_keep(out, record);
    if (!pelton_is_null(line)) object(pelton_new_value(out, object(NULL, fields)), fields);
    return PELTON_OK;
}
