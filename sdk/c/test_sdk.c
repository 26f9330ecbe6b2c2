// make test

#include "pelton_testing.h"

static const pelton_given INPUT[] = {
    {.value = "v0", .key = "k0", .timestamp = 1},
    {.value = "v1", .timestamp = 2, .headers = {{"a", "1"}}},
    {.key = "k2", .timestamp = 3, .headers = {{"b", "1"}, {"c", NULL}}},
};

// Nothing is asked of it here.
const char *pelton_configure(const pelton_config *config) {
    int64_t number;
    if (pelton_setting_int(config, "at", &number)) return number == -5 ? NULL : "another number";
    return pelton_setting(config, "at") == NULL ? NULL : "no number";
}

static pelton_result kept(pelton_record record, pelton_out *out) {
    if (record.index != 1) pelton_keep(out, record);
    return PELTON_OK;
}

static pelton_result changed(pelton_record record, pelton_out *out) {
    switch (record.index) {
    case 0:
        pelton_keep(out, record);
        break;
    case 1:
        pelton_keep(out, record), pelton_set_value(out, pelton_text("new"));
        break;
    default:
        pelton_keep(out, record);
        pelton_keep(out, record), pelton_set_key(out, pelton_text("key")), pelton_set_value(out, pelton_text(""));
        pelton_set_timestamp(out, 9);
        pelton_keep(out, record), pelton_set_key(out, pelton_text(NULL)), pelton_check(pelton_edit_value(out) == NULL);
        memcpy(pelton_new_value(out, 2), "xy", 2);
    }
    return PELTON_OK;
}

static pelton_result routed(pelton_record record, pelton_out *out) {
    pelton_keep(out, record);
    if (record.index == 1) pelton_add_header(out, pelton_text("x"), pelton_text("2")), pelton_set_output(out, 3);
    if (record.index == 2) {
        pelton_check(pelton_equal(pelton_header(record, "b"), pelton_text("1")) && pelton_offset(record) == 2);
        pelton_check(pelton_is_null(pelton_header(record, "c")) && pelton_is_null(pelton_header(record, "d")));
        pelton_keep(out, record), pelton_no_headers(out), pelton_add_header(out, pelton_text("y"), pelton_text(NULL));
    }
    return PELTON_OK;
}

static pelton_result rejecting(pelton_record record, pelton_out *out) {
    if (pelton_is_null(pelton_key(record))) return pelton_reject("there is no key");
    pelton_keep(out, record);
    return PELTON_OK;
}

int main(void) {
    pelton_expect(pelton_run_function(kept, INPUT, 3), "0/1/k0=v0[]\n0/3/k2=null[b:1,c:null]\n");
    pelton_expect(pelton_run_function(changed, INPUT, 3),
                  "0/1/k0=v0[]\n0/2/null=new[a:1]\n0/3/k2=null[b:1,c:null]\n0/9/key=[b:1,c:null]\n0/3/null=xy[b:1,c:null]\n");
    pelton_expect(pelton_run_function(routed, INPUT, 3),
                  "0/1/k0=v0[]\n3/2/null=v1[a:1,x:2]\n0/3/k2=null[b:1,c:null]\n0/3/k2=null[y:null]\n");
    pelton_expect(pelton_run_function(rejecting, INPUT, 3), "rejected 1: there is no key\n");
    // As Kafka's Java client 4.4.0 placed them.
    pelton_check(pelton_partition_of_key(pelton_text("pelton"), 7) == 5);
    pelton_check(pelton_partition_of_key(pelton_text("pelton"), 12) == 11);
    pelton_check(pelton_partition_of_key(pelton_text(""), 7) == 2 && pelton_partition_of_key(pelton_text(NULL), 12) == 9);
    const pelton_setting_given five[] = {{"at", "-5"}, {NULL, NULL}}, word[] = {{"at", "5x"}, {NULL, NULL}};
    pelton_check(pelton_configured(five) == NULL && strcmp(pelton_configured(word), "no number") == 0);
    return pelton_tested();
}
