use bytes::Bytes;

use super::*;

const PLAIN: Ctx = Ctx { version: 0, flexible: false };
const FLEXIBLE: Ctx = Ctx { version: 0, flexible: true };

/// A value and its bytes belong together in both directions.
fn check<T: Field + PartialEq + std::fmt::Debug>(value: T, ctx: Ctx, expect: &str) {
    let mut w = Writer::new();
    value.encode(&mut w, ctx).unwrap();
    let bytes = w.into_bytes().unwrap();
    assert_eq!(hex::encode(&bytes), expect, "{value:?}");
    let mut r = Reader::new(bytes);
    assert_eq!(T::decode(&mut r, ctx).unwrap(), value);
    r.finish().unwrap();
}

fn check_refused<T: Field + std::fmt::Debug>(bytes: &'static [u8], ctx: Ctx, expect: Malformed) {
    match T::decode(&mut Reader::new(Bytes::from_static(bytes)), ctx) {
        Err(DecodeError::Malformed { fact, .. }) => assert_eq!(fact, expect, "{bytes:x?}"),
        other => panic!("{bytes:x?} gave {other:?}"),
    }
}

#[test]
fn types_of_fixed_size() {
    check(-2i8, PLAIN, "fe");
    check(-2i16, PLAIN, "fffe");
    check(-2i32, FLEXIBLE, "fffffffe");
    check(-2i64, FLEXIBLE, "fffffffffffffffe");
    check(true, PLAIN, "01");
    check(crate::ErrorCode(16), PLAIN, "0010");
    check(uuid::Uuid::from_u128(0x0102), FLEXIBLE, "00000000000000000000000000000102");
}

#[test]
fn types_with_a_length() {
    check(String::from("hé"), PLAIN, "000368c3a9");
    check(String::from("hé"), FLEXIBLE, "0468c3a9");
    check(None::<String>, PLAIN, "ffff");
    check(None::<String>, FLEXIBLE, "00");
    check(Bytes::from_static(b"ab"), PLAIN, "000000026162");
    check(Bytes::from_static(b"ab"), FLEXIBLE, "036162");
    check(None::<Bytes>, PLAIN, "ffffffff");
    check(vec![1i16, 2], PLAIN, "0000000200010002");
    check(vec![1i16, 2], FLEXIBLE, "0300010002");
    check(None::<Vec<i16>>, PLAIN, "ffffffff");
    check(None::<Vec<i16>>, FLEXIBLE, "00");
    check(Some(Vec::<i16>::new()), FLEXIBLE, "01");
    check(Some(Records::default()), PLAIN, "00000000");
}

#[test]
fn lengths_that_are_no_lengths() {
    check_refused::<String>(&[0xff, 0xff], PLAIN, Malformed::Null);
    check_refused::<String>(&[0xff, 0xfe], PLAIN, Malformed::NegativeLength(-2));
    check_refused::<String>(&[0, 2, b'a'], PLAIN, Malformed::Truncated { needed: 2, remaining: 1 });
    check_refused::<String>(&[2, 0xff], FLEXIBLE, Malformed::NotUtf8);
    check_refused::<String>(&[0x81, 0x80, 0x02], FLEXIBLE, Malformed::StringTooLong(32768));
    check_refused::<Bytes>(&[0], FLEXIBLE, Malformed::Null);
    check_refused::<Bytes>(&[0x80; 4], PLAIN, Malformed::NegativeLength(-0x7f7f_7f80));
    check_refused::<Vec<i32>>(
        &[0x7f, 0xff, 0xff, 0xff],
        PLAIN,
        Malformed::CountTooLarge { count: I32_MAX, most: 0 },
    );
    check_refused::<Vec<i32>>(
        &[4, 0, 0, 0, 1, 0, 0, 0, 2],
        FLEXIBLE,
        Malformed::CountTooLarge { count: 3, most: 2 },
    );
    check_refused::<Vec<i32>>(&[0xff, 0xff, 0xff, 0xff, 0x1f], FLEXIBLE, Malformed::VarintTooLong);
    check_refused::<Vec<i32>>(&[0x80; 6], FLEXIBLE, Malformed::VarintTooLong);
}

/// Empty strings are the smallest elements there are: one byte on the wire, 24 in memory.
#[test]
fn a_frame_of_empty_elements_is_over_budget() {
    let decode = |count: usize| {
        let mut w = Writer::new();
        w.compact_len(Some(count)).unwrap();
        w.put(&vec![1; count]);
        Vec::<String>::decode(&mut Reader::new(w.into_bytes().unwrap()), FLEXIBLE)
    };
    assert_eq!(decode(2_000).unwrap().len(), 2_000);
    let count = 100_000;
    let budget = (count + 3) * DECODED_MULTIPLE + DECODED_ALLOWANCE;
    assert_eq!(
        decode(count),
        Err(Malformed::OverBudget { wanted: count * size_of::<String>(), left: budget }.into())
    );
}

/// The budget must not refuse what clients have reason to send.
#[test]
fn arrays_of_short_names_fit_the_budget() {
    let names: Vec<String> = (0..200_000).map(|i| format!("{i:04}")).collect();
    let mut w = Writer::new();
    names.encode(&mut w, FLEXIBLE).unwrap();
    assert_eq!(Vec::<String>::decode(&mut Reader::new(w.into_bytes().unwrap()), FLEXIBLE).unwrap(), names);
}

fn check_tags(bytes: &'static [u8], expect: Result<i16, Malformed>) {
    let mut seen = 0;
    let mut r = Reader::new(Bytes::from_static(bytes));
    let result = r.tagged_fields(|r, tag| {
        if tag == 7 {
            seen = r.i16()?;
        }
        Ok(tag == 7)
    });
    match (result, expect) {
        (Ok(()), Ok(value)) => assert_eq!((seen, r.remaining()), (value, 0), "{bytes:x?}"),
        (Err(DecodeError::Malformed { fact, .. }), Err(expect)) => assert_eq!(fact, expect, "{bytes:x?}"),
        (result, expect) => panic!("{bytes:x?}: {result:?} instead of {expect:?}"),
    }
}

#[test]
fn tagged_fields() {
    check_tags(&[0], Ok(0));
    check_tags(&[1, 7, 2, 0, 5], Ok(5));
    check_tags(&[2, 3, 4, 9, 9, 9, 9, 7, 2, 0, 5], Ok(5));
    check_tags(&[1, 7, 3, 0, 5, 0], Err(Malformed::TaggedSize { tag: 7, declared: 3, used: 2 }));
    // A known field must not read past its own end into what follows.
    check_tags(&[1, 7, 1, 0, 5], Err(Malformed::Truncated { needed: 2, remaining: 1 }));
    check_tags(&[1, 3, 9, 0], Err(Malformed::Truncated { needed: 9, remaining: 1 }));
    check_tags(&[9, 3, 0, 3, 0], Err(Malformed::CountTooLarge { count: 9, most: 2 }));
    check_tags(
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        Err(Malformed::CountTooLarge { count: u32::MAX as usize, most: 0 }),
    );
}

#[test]
fn a_tagged_field_is_written_with_its_size_in_front() {
    for len in [0, 1, 127, 128, 5_000] {
        let body = vec![0xab; len];
        let mut w = Writer::new();
        w.i8(1);
        w.tagged_field(7, |w| {
            w.put(&body);
            Ok(())
        })
        .unwrap();
        let mut seen = 0;
        let mut r = Reader::new(w.into_bytes().unwrap());
        r.tagged_fields(|r, tag| {
            assert_eq!((tag, r.remaining()), (7, len));
            seen = r.bytes(len)?.len();
            Ok(true)
        })
        .unwrap();
        assert_eq!((seen, r.remaining()), (len, 0));
    }
}

#[test]
fn large_bytes_are_pieces_of_their_own_and_the_prefix_counts_them() {
    let large = Bytes::from(vec![7; SPLICE_MIN]);
    let mut w = Writer::framed();
    w.i16(1);
    w.splice(&large);
    w.external(3, 500);
    w.external(4, 0);
    w.i8(2);
    let pieces = w.finish().unwrap();
    let length = 2 + SPLICE_MIN as u32 + 500 + 1;
    let head = [&length.to_be_bytes()[..], &[0, 1]].concat();
    assert_eq!(
        pieces,
        [
            Piece::Bytes(head.into()),
            Piece::Bytes(large.clone()),
            Piece::External { id: 3, len: 500 },
            Piece::Bytes(Bytes::from_static(&[2])),
        ]
    );
    let Piece::Bytes(spliced) = &pieces[1] else { panic!("not bytes") };
    assert_eq!(spliced.as_ptr(), large.as_ptr(), "it was copied");
}

#[test]
fn external_records_are_not_bytes() {
    let mut w = Writer::new();
    w.external(0, 9);
    assert_eq!(w.into_bytes(), Err(EncodeError::ExternalRecords));
}

#[test]
fn byte_fields_are_slices_of_the_frame() {
    let frame = Bytes::from_static(b"\x03ab");
    let field = Bytes::decode(&mut Reader::new(frame.clone()), FLEXIBLE).unwrap();
    assert_eq!(field.as_ptr(), frame[1..].as_ptr());
}

#[test]
fn what_does_not_fit_its_length_is_refused() {
    let long = "a".repeat(32_768);
    for ctx in [PLAIN, FLEXIBLE] {
        let error = long.encode(&mut Writer::new(), ctx).unwrap_err();
        assert_eq!(error, EncodeError::too_long(32_768, 32_767));
    }
}
