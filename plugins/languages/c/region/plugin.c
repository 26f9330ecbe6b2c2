// Each region has partitions of its own, and a key stays in one of them.

#include <stdio.h>
#include <string.h>

#include "pelton.h"

#define MAX_REGIONS 256

static pelton_bytes regions[MAX_REGIONS];
static size_t region_count;
static pelton_bytes separator;
static const char *header;

static pelton_bytes trimmed(pelton_bytes name) {
    while (name.len > 0 && name.ptr[0] == ' ') name.ptr++, name.len--;
    while (name.len > 0 && name.ptr[name.len - 1] == ' ') name.len--;
    return name;
}

const char *pelton_configure(const pelton_config *config) {
    static char reason[128];
    const char *name = pelton_setting(config, "regions");
    for (region_count = 0; name != NULL; region_count++) {
        if (region_count == MAX_REGIONS) return "regions: there are more than 256";
        const char *end = strchr(name, ',');
        size_t len = end == NULL ? strlen(name) : (size_t)(end - name);
        pelton_bytes region = trimmed((pelton_bytes){(const uint8_t *)name, len});
        if (region.len == 0) return "regions: a name is empty; write them as `eu,us,asia`";
        for (size_t i = 0; i < region_count; i++)
            if (pelton_equal(regions[i], region)) {
                snprintf(reason, sizeof reason, "regions: `%.*s` is there twice", (int)region.len, (const char *)region.ptr);
                return reason;
            }
        regions[region_count] = region;
        name = end == NULL ? NULL : end + 1;
    }
    separator = pelton_text(pelton_setting(config, "separator"));
    header = pelton_setting(config, "header");
    return separator.len == 0 ? "separator is empty" : NULL;
}

// The region of a record, by its place in the settings; that of the others comes last.
static size_t region_of(pelton_record record) {
    pelton_bytes name = *header == '\0' ? pelton_key(record) : pelton_header(record, header);
    if (pelton_is_null(name)) name = pelton_text("");
    for (size_t at = 0; *header == '\0' && at + separator.len <= name.len; at++)
        if (memcmp(name.ptr + at, separator.ptr, separator.len) == 0) name.len = at;
    size_t region = 0;
    while (region < region_count && !pelton_equal(regions[region], name)) region++;
    return region;
}

uint32_t pelton_partition(pelton_record record, uint32_t partitions) {
    uint64_t region = region_of(record), shares = region_count + 1;
    uint32_t first = (uint32_t)(region * partitions / shares), after = (uint32_t)((region + 1) * partitions / shares);
    // With fewer partitions than shares, several of them have one together.
    return first + pelton_partition_of_key(pelton_key(record), after > first ? after - first : 1);
}
