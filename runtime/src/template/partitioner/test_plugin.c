// make test

#include "pelton_testing.h"

int main(void) {
    const pelton_given records[] = {{.key = "eu-1"}, {.key = "us-1"}, {.key = "eu-2"}};
    uint32_t placed[3];
    pelton_partitions(NULL, records, 3, 12, placed);
    pelton_check(placed[0] == placed[2]);
    pelton_check(placed[0] != placed[1]);
    return pelton_tested();
}
