// A partitioner: says which partition of its topic each record goes to.

#include "pelton.h"

// Called once, with the settings of plugin.toml and pipeline.toml. A text refuses the deployment.
const char *pelton_configure(const pelton_config *config) {
    (void)config;
    return NULL;
}

// Keys that begin alike, up to the first `-`, lie in one partition: `eu-17` beside `eu-4`.
uint32_t pelton_partition(pelton_record record, uint32_t partitions) {
    pelton_bytes key = pelton_key(record), region = {key.ptr, 0};
    while (region.len < key.len && key.ptr[region.len] != '-') region.len++;
    return pelton_partition_of_key(region, partitions);
}
