use super::*;
use crate::testing::{TestRecord, batch, expand};

/// Three records: key and value, no key, no value; the last two have headers.
fn input() -> Vec<TestRecord> {
    let header = |name: &str| (name.to_owned(), Some(b"1".to_vec()));
    vec![
        TestRecord { timestamp: 1, ..TestRecord::value("v0").with_key("k0") },
        TestRecord { timestamp: 2, headers: vec![header("a")], ..TestRecord::value("v1") },
        TestRecord {
            key: Some(b"k2".to_vec()),
            timestamp: 3,
            headers: vec![header("b"), header("c")],
            ..TestRecord::default()
        },
    ]
}

/// What comes out as `output/timestamp/key=value[headers]`.
fn check(emit: impl for<'a> Fn(&[Record<'a>], &mut Out<'a>), expect: &[&str]) -> Output {
    let batch = batch(&input());
    let mut out = Out::new(&batch);
    emit(&Record::all(&batch).collect::<Vec<_>>(), &mut out);
    let output = out.finish();
    let text = |field: &Option<Vec<u8>>| {
        field.as_ref().map_or("null".to_owned(), |field| String::from_utf8_lossy(field).into_owned())
    };
    let shown: Vec<String> = expand(&batch, &output)
        .iter()
        .map(|r| {
            let headers: Vec<String> = r.headers.iter().map(|(n, v)| format!("{n}:{}", text(v))).collect();
            format!("{}/{}/{}={}{headers:?}", r.output, r.timestamp, text(&r.key), text(&r.value))
                .replace('"', "")
        })
        .collect();
    assert_eq!(shown, expect);
    output
}

#[test]
fn what_is_kept_is_inherited() {
    let output = check(
        |r, out| {
            out.keep(r[2]);
            out.keep(r[0]);
        },
        &["0/3/k2=null[b:1, c:1]", "0/1/k0=v0[]"],
    );
    assert!(
        output.data.is_empty()
            && output.keys.is_none()
            && output.values.is_none()
            && output.headers.is_none()
    );
}

#[test]
fn a_column_begins_with_the_first_change() {
    check(
        |r, out| {
            out.keep(r[0]);
            out.keep(r[1]);
            out.value(r[1], "new");
            out.keep(r[2]);
            out.key_value(r[2], "key", "").timestamp(9);
            out.edit(r[0], |v| v.reverse());
            out.edit(r[2], |v| v.reverse());
            out.tombstone(r[0]).no_key();
            out.write(r[0], |data| data.extend_from_slice(b"w")).key("x");
        },
        &[
            "0/1/k0=v0[]",
            "0/2/null=v1[a:1]",
            "0/2/null=new[a:1]",
            "0/3/k2=null[b:1, c:1]",
            "0/9/key=[b:1, c:1]",
            "0/1/k0=0v[]",
            "0/3/k2=null[b:1, c:1]",
            "0/1/null=null[]",
            "0/1/x=w[]",
        ],
    );
}

#[test]
fn headers_and_routes() {
    check(
        |r, out| {
            out.keep(r[2]);
            out.keep(r[1]).header("x", "2").to(3);
            out.keep(r[2]).no_headers().header("y", "");
            out.keep(r[0]);
        },
        &["0/3/k2=null[b:1, c:1]", "3/2/null=v1[a:1, x:2]", "0/3/k2=null[y:]", "0/1/k0=v0[]"],
    );
}

#[test]
fn records_read_their_headers() {
    let batch = batch(&input());
    let records: Vec<_> = Record::all(&batch).collect();
    assert_eq!(records[2].headers().map(|(name, _)| name).collect::<Vec<_>>(), [b"b", b"c"]);
    assert_eq!(records[2].header("c"), Some(&b"1"[..]));
    assert_eq!(records[0].header("c"), None);
    assert_eq!((records[1].offset(), records[1].topic(), records[1].partition()), (1, "test", 0));
}
