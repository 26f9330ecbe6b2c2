//! Records that are filtered, parted and made of others without a plugin.

use super::*;

const SOURCE: &str = "[[source]]\nid='in'\ntopic='in'\n";

#[test]
fn records_go_where_a_condition_says() {
    let manifest = format!(
        "{SOURCE}[[node]]\nid='known'\nfrom='in'\nfilter='json:delay is not null'\non_error={{policy='dead-letter',topic='dead'}}\n\
         [[node]]\nid='by'\nfrom='known'\nbranch={{very='json:delay > 60',late='json:delay > 15'}}\n\
         [[node]]\nid='short'\nfrom='by:late'\nselect={{d='json:delay',who='key'}}\n\
         [[sink]]\nfrom='by:very'\ntopic='very'\n[[sink]]\nfrom='short'\ntopic='late'\n[[sink]]\nfrom='by:rest'\ntopic='ok'\n"
    );
    let rows = [
        r#"a={"delay":61}@1"#,
        r#"b={"delay":16.5}@2"#,
        r#"c={"delay":15}@3"#,
        r#"d={"delay":null}@4"#,
        "e=no json@5",
        "f=~@6",
        r#"-={"delay":30}@7"#,
    ];
    let expect = [
        r#"very: a={"delay":61}@1"#,
        r#"ok: c={"delay":15}@3"#,
        r#"late: b={"d":16.5,"who":"b"}@2"#,
        r#"late: -={"d":30,"who":null}@7"#,
        "dead: e=no json@5",
    ];
    let notices = check(&manifest, &[("in", &rows)], &expect);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(
        notices[0].contains("node `known`") && notices[0].contains("the value is not JSON"),
        "{notices:?}"
    );
}

#[test]
fn items_become_records_and_are_counted() {
    let manifest = format!(
        "{SOURCE}[[node]]\nid='item'\nfrom='in'\nflat_map='json:items'\non_error={{policy='skip'}}\n\
         [[node]]\nid='n'\nfrom='item'\ngroup_by='json:sku'\naggregate={{n='count',sum='sum:json:n'}}\n\
         [[sink]]\nfrom='n'\ntopic='out'\n"
    );
    let rows = [
        r#"a={"items":[{"sku":"x","n":1},{"sku":"y","n":2},{"sku":"x","n":3}]}@1"#,
        r#"b={"items":[]}@2"#,
        r#"c={"items":7}@3"#,
        r#"d={"items":[{"sku":"y","n":1}]}@4"#,
    ];
    let expect = [
        r#"out: x={"n":1,"sum":1}@1"#,
        r#"out: y={"n":1,"sum":2}@1"#,
        r#"out: x={"n":2,"sum":4}@1"#,
        r#"out: y={"n":2,"sum":3}@4"#,
    ];
    let notices = check(&manifest, &[("in", &rows)], &expect);
    assert_eq!(notices.len(), 1, "{notices:?}");
}

/// What is filtered out of a table is deleted in what is made of it, whoever knows what was before.
#[test]
fn a_filtered_table_is_grouped_and_joined() {
    let table = "[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='big'\nfrom='t'\nfilter='json:n > 5'\non_error={policy='skip'}\n\
                 [[node]]\nid='part'\nfrom='big'\nselect={g='json:g',n='json:n'}\n";
    let grouped = format!(
        "{table}[[node]]\nid='by'\nfrom='part'\ngroup_by='json:g'\naggregate={{n='count',sum='sum:json:n'}}\n\
         [[sink]]\nfrom='by'\ntopic='groups'\n"
    );
    let rows = [
        r#"a={"g":"x","n":6}@1"#,
        r#"b={"g":"x","n":5}@2"#,
        r#"b={"g":"x","n":7}@3"#,
        "b=no json@4",
        r#"a={"g":"y","n":6}@5"#,
        r#"b={"g":"x","n":1}@6"#,
        "a=~@7",
        "a=~@8",
    ];
    let expect = [
        r#"groups: x={"n":1,"sum":6}@1"#,
        r#"groups: x={"n":2,"sum":13}@3"#,
        r#"groups: x={"n":1,"sum":7}@5"#,
        r#"groups: y={"n":1,"sum":6}@5"#,
        "groups: x=~@6",
        "groups: y=~@7",
    ];
    let notices = check(&grouped, &[("t", &rows)], &expect);
    assert_eq!(notices.len(), 1, "{notices:?}");

    let joined = format!(
        "{SOURCE}{table}[[node]]\nid='n'\nfrom='in'\njoin={{with='part',kind='left',left='l',right='r'}}\n\
         [[sink]]\nfrom='n'\ntopic='out'\n"
    );
    let rows = [r#"a={"g":"x","n":6}@1"#, r#"a={"g":"x","n":5}@3"#, r#"a={"n":9}@5"#, "a=~@7"];
    let stream = ["a=1@2", "a=2@4", "a=3@6", "a=4@8"];
    let expect = [
        r#"out: a={"l":1,"r":{"g":"x","n":6}}@2"#,
        r#"out: a={"l":2,"r":null}@4"#,
        r#"out: a={"l":3,"r":{"g":null,"n":9}}@6"#,
        r#"out: a={"l":4,"r":null}@8"#,
    ];
    check(&joined, &[("t", &rows), ("in", &stream)], &expect);
}
