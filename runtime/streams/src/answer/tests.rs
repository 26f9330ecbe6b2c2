use super::*;

fn batch() -> OwnedBatch {
    let mut batch = OwnedBatch::new("t", 0);
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"h", Some(b"1")), (b"h", None)];
    for (i, (key, value)) in
        [(&b"k0"[..], &b"v0"[..]), (b"k1", b"v1"), (b"k2", b"v2")].into_iter().enumerate()
    {
        let record = RecordIn {
            offset: 10 + 2 * i as i64,
            timestamp: i as i64,
            key: Some(key),
            value: Some(value),
            headers: Headers::default(),
        };
        batch.push(record, headers[..i].iter().copied()).expect("fits");
    }
    batch
}

fn slices(entries: &[(u32, u32)]) -> Option<SlicesOut> {
    let (offsets, lengths) = entries.iter().copied().unzip();
    Some(SlicesOut { offsets, lengths })
}

/// Offset, timestamp, key, value, number of headers.
type Shown<'a> = (i64, i64, &'a str, &'a str, usize);

/// Three input records whose blob has 17 bytes: `k0v0 k1v1h1 k2v2h1h`.
fn check(out: BatchOut, expect: Result<&[Shown<'_>], &str>) {
    let batch = batch();
    let input = batch.as_batch();
    let text =
        |field: Option<&[u8]>| field.map_or("null".to_owned(), |f| String::from_utf8_lossy(f).into_owned());
    let got = Answer::check(&input, out, 1000, 2);
    match (&got, expect) {
        (Ok(answer), Ok(expect)) => {
            let got: Vec<_> = answer
                .records(input)
                .map(|r| (r.offset, r.timestamp, text(r.key), text(r.value), r.headers.count()))
                .collect();
            let expect: Vec<_> =
                expect.iter().map(|r| (r.0, r.1, r.2.to_owned(), r.3.to_owned(), r.4)).collect();
            assert_eq!(got, expect);
            let copied = answer.to_batch(input, |_| true).expect("fits");
            let copied: Vec<_> = copied
                .as_batch()
                .records()
                .map(|r| (r.offset, r.timestamp, text(r.key), text(r.value), r.headers.count()))
                .collect();
            assert_eq!(copied, expect);
            let bytes: u64 = answer.records(input).map(|r| r.bytes() + RECORD_OVERHEAD_BYTES).sum();
            assert_eq!(answer.bytes(), bytes);
        }
        (Err(AnswerError::IllFormed(what)), Err(expect)) => assert_eq!(what, expect),
        _ => panic!("{got:?} is not {expect:?}"),
    }
}

#[test]
fn columns_left_out_are_inherited() {
    let all = [(10, 0, "k0", "v0", 0), (12, 1, "k1", "v1", 1), (14, 2, "k2", "v2", 2)];
    check(BatchOut::identity(3), Ok(&all));
    check(BatchOut { source: vec![2, 0, 2], ..BatchOut::default() }, Ok(&[all[2], all[0], all[2]]));
    check(BatchOut::default(), Ok(&[]));
    check(
        BatchOut {
            source: vec![1, 2],
            data: b"new".to_vec(),
            keys: slices(&[(0, NULL), (0, 2)]),
            values: slices(&[(17, 3), (20, 0)]),
            timestamps: Some(vec![7, -1]),
            headers: Some(HeadersOut {
                counts: vec![0, 1],
                names: slices(&[(17, 1)]).unwrap_or_default(),
                values: slices(&[(0, NULL)]).unwrap_or_default(),
            }),
            route: Some(vec![0, 1]),
        },
        Ok(&[(12, 7, "null", "new", 0), (14, -1, "k0", "", 1)]),
    );
}

#[test]
fn a_record_without_source_inherits_nothing() {
    let out = |timestamps| BatchOut {
        source: vec![NO_SOURCE],
        data: b"x".to_vec(),
        values: slices(&[(17, 1)]),
        timestamps,
        ..BatchOut::default()
    };
    check(out(Some(vec![5])), Ok(&[(-1, 5, "null", "x", 0)]));
    check(out(None), Err("record 0 has no source and no timestamp"));
}

#[test]
fn nothing_outside_of_the_two_blobs_is_reached() {
    let keys = |offset, length| BatchOut {
        source: vec![0],
        data: b"abc".to_vec(),
        keys: slices(&[(offset, length)]),
        ..BatchOut::default()
    };
    for (offset, length) in [
        (0, 18),
        (16, 2),
        (17, 4),
        (20, 1),
        (21, 0),
        (u32::MAX, 1),
        (1, u32::MAX - 1),
        (u32::MAX, u32::MAX - 1),
    ] {
        check(
            keys(offset, length),
            Err(&format!(
                "keys[0] is {length} bytes at {offset}, which is not within the input (17 bytes) or the answer's data \
                 (3 bytes behind it)"
            )),
        );
    }
}

#[test]
fn columns_that_do_not_fit_together_are_refused() {
    let source = vec![0, 1];
    let base = BatchOut { source: source.clone(), ..BatchOut::default() };
    check(
        BatchOut { source: vec![0, 3], ..BatchOut::default() },
        Err("source[1] is 3, but the batch has 3 records"),
    );
    check(
        BatchOut { keys: slices(&[(0, 1)]), ..base.clone() },
        Err("`keys.offsets` has 1 entries, but should have 2"),
    );
    check(
        BatchOut { values: Some(SlicesOut { offsets: vec![0, 0], lengths: vec![] }), ..base.clone() },
        Err("`values.lengths` has 0 entries, but should have 2"),
    );
    check(
        BatchOut { timestamps: Some(vec![1, 2, 3]), ..base.clone() },
        Err("`timestamps` has 3 entries, but should have 2"),
    );
    check(BatchOut { route: Some(vec![0]), ..base.clone() }, Err("`route` has 1 entries, but should have 2"));
    check(
        BatchOut { route: Some(vec![1, 2]), ..base.clone() },
        Err("route[1] is 2, but the plugin has 2 outputs"),
    );
    let headers = |counts: &[u32], names: &[(u32, u32)]| BatchOut {
        headers: Some(HeadersOut {
            counts: counts.to_vec(),
            names: slices(names).unwrap_or_default(),
            values: slices(names).unwrap_or_default(),
        }),
        data: vec![0xff],
        ..base.clone()
    };
    check(headers(&[1], &[(0, 1)]), Err("`headers.counts` has 1 entries, but should have 2"));
    check(headers(&[1, 1], &[(0, 1)]), Err("`headers.names.offsets` has 1 entries, but should have 2"));
    check(
        headers(&[u32::MAX, u32::MAX], &[]),
        Err("`headers.names.offsets` has 0 entries, but should have 8589934590"),
    );
    check(headers(&[0, 1], &[(0, NULL)]), Err("headers.names[0] is null"));
    check(headers(&[1, 0], &[(17, 1)]), Err("headers.names[0] is not UTF-8"));
}

/// A filter that names one large input a million times answers with 4 MB and emits gigabytes: the limit counts what is
/// emitted.
#[test]
fn inherited_bytes_count_each_time() {
    let batch = batch();
    let input = batch.as_batch();
    let out = |n| BatchOut { source: vec![2; n], ..BatchOut::default() };
    let one = 4 + 3 + RECORD_OVERHEAD_BYTES;
    assert_eq!(Answer::check(&input, out(10), 10 * one, 1).map(|a| a.bytes()), Ok(10 * one));
    assert_eq!(
        Answer::check(&input, out(10), 10 * one - 1, 1).map(|a| a.bytes()),
        Err(AnswerError::TooLarge { limit_bytes: 10 * one - 1 })
    );
    assert!(Answer::check(&input, BatchOut { source: vec![NO_SOURCE; 1], ..out(0) }, 1, 1).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    /// Whatever the columns hold, a check answers, and what passes can be read to the end.
    #[test]
    fn no_answer_can_make_the_reader_fail(
        source in proptest::collection::vec(0_u32..4, 0..4),
        spans in proptest::collection::vec((0_u32..40, 0_u32..20), 0..8),
        counts in proptest::collection::vec(0_u32..3, 0..4),
        data in proptest::collection::vec(proptest::num::u8::ANY, 0..20),
        which in 0_u8..32,
    ) {
        let take = |from: usize, n: usize| slices(&spans.iter().cycle().skip(from).take(n.min(spans.len() * 4)).copied().collect::<Vec<_>>());
        let entries = counts.iter().sum::<u32>() as usize;
        let column = |bit: u8, from| (which & bit != 0).then(|| take(from, source.len())).flatten();
        let out = BatchOut {
            data,
            keys: column(1, 0),
            values: column(2, 1),
            timestamps: (which & 4 != 0).then(|| vec![0; source.len()]),
            headers: (which & 8 != 0).then(|| HeadersOut {
                counts: counts.clone(),
                names: take(2, entries).unwrap_or_default(),
                values: take(3, entries).unwrap_or_default(),
            }),
            route: (which & 16 != 0).then(|| source.clone()),
            source,
        };
        let batch = batch();
        if let Ok(answer) = Answer::check(&batch.as_batch(), out, 10_000, 3) {
            let bytes: u64 = answer.records(batch.as_batch()).map(|r| r.bytes() + RECORD_OVERHEAD_BYTES).sum();
            proptest::prop_assert_eq!(bytes, answer.bytes());
        }
    }
}
