#include "pelton_testing.h"

static uint32_t of(const char *const (*settings)[2], const char *key, uint32_t partitions) {
    const pelton_given record[] = {{.key = key, .headers = {{"region", "eu"}}}};
    uint32_t placed[1];
    pelton_partitions(settings, record, 1, partitions, placed);
    return placed[0];
}

int main(void) {
    const pelton_setting_given by_key[] = {{"regions", "eu, us"}, {"separator", "-"}, {"header", ""}, {NULL, NULL}};
    for (int n = 0; n < 100; n++) {
        char eu[16], us[16], asia[16];
        snprintf(eu, sizeof eu, "eu-%d", n), snprintf(us, sizeof us, "us-%d", n), snprintf(asia, sizeof asia, "asia-%d", n);
        pelton_check(of(by_key, eu, 7) < 2);
        pelton_check(of(by_key, us, 7) >= 2 && of(by_key, us, 7) < 4);
        pelton_check(of(by_key, asia, 7) >= 4);
        pelton_check(of(by_key, us, 1) == 0);
    }
    const pelton_setting_given by_header[] = {{"regions", "us,eu"}, {"separator", "-"}, {"header", "region"}, {NULL, NULL}};
    pelton_check(of(by_header, "us-1", 3) == 1);
    const pelton_setting_given empty[] = {{"regions", "eu,,us"}, {"separator", "-"}, {"header", ""}, {NULL, NULL}};
    pelton_expect(pelton_configured(empty), "regions: a name is empty; write them as `eu,us,asia`");
    const pelton_setting_given twice[] = {{"regions", "eu,us,eu"}, {"separator", "-"}, {"header", ""}, {NULL, NULL}};
    pelton_expect(pelton_configured(twice), "regions: `eu` is there twice");
    return pelton_tested();
}
