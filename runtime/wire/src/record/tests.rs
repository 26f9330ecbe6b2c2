//! Tests of single batches; what Kafka makes and what is random is tested in `tests/record_*.rs`.

use bytes::Bytes;

use super::*;

const LIMIT: DecompressLimit = DecompressLimit { max_bytes: 1 << 20 };

/// Three records at 1,000, 3,000 and 2,000 ms, with the keys `a`, null and `c`.
fn batch(options: BatchOptions) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options);
    let headers = [Header { key: b"h", value: Some(b"1") }, Header { key: b"h", value: None }];
    builder.append(1_000, Some(b"a"), Some(b"one"), &headers).expect("a small record");
    builder.append(3_000, None, Some(b""), &[]).expect("a small record");
    builder.append(2_000, Some(b"c"), None, &[]).expect("a small record");
    builder.finish().expect("a small batch").to_vec()
}

fn plain() -> Vec<u8> {
    batch(BatchOptions { base_offset: 100, ..BatchOptions::default() })
}

/// The batch after `change`, with its length and checksum made right.
fn changed(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    let length = u32::try_from(bytes.len() - 12).expect("a small batch");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    edit::seal(&mut bytes);
    bytes
}

fn set<const N: usize>(at: usize, field: [u8; N]) -> impl Fn(&mut Vec<u8>) {
    move |bytes| bytes[at..at + N].copy_from_slice(&field)
}

#[test]
fn headers_that_are_none() {
    let check = |change: &dyn Fn(&mut Vec<u8>), expect: BatchError| {
        let mut bytes = plain();
        change(&mut bytes);
        assert_eq!(BatchView::check(&bytes).map(|_| ()), Err(expect));
    };
    let total = plain().len();
    check(&|b| b.truncate(60), BatchError::Short { have: 60 });
    check(&|b| b.truncate(0), BatchError::Short { have: 0 });
    check(&set(16, [1]), BatchError::Magic(1));
    check(&set(16, [0xff]), BatchError::Magic(-1));
    check(&set(8, 48i32.to_be_bytes()), BatchError::Length(48));
    check(&set(8, (-1i32).to_be_bytes()), BatchError::Length(-1));
    check(
        &set(8, i32::MAX.to_be_bytes()),
        BatchError::Truncated { total: 12 + i32::MAX as usize, have: total },
    );
    check(&|b| b.push(0), BatchError::Trailing { total, have: total + 1 });
    check(&set(57, (-1i32).to_be_bytes()), BatchError::RecordsCount(-1));
    let range = |base_offset, last_offset_delta| BatchError::OffsetRange { base_offset, last_offset_delta };
    check(&set(23, (-1i32).to_be_bytes()), range(100, -1));
    check(&set(0, (i64::MAX - 1).to_be_bytes()), range(i64::MAX - 1, 2));
    let stored = BatchHeader::parse(&plain()).expect("a header").crc;
    let computed = {
        let mut bytes = plain();
        bytes[70] ^= 1;
        crc::crc32c(&bytes[21..])
    };
    check(&|b| b[70] ^= 1, BatchError::Crc { stored, computed });
}

#[test]
fn garbage_between_batches_is_an_error() {
    let mut buffer = plain();
    let first = buffer.len();
    buffer.extend_from_slice(&[0xaa; 100]);
    let mut iterator = batches(&buffer);
    assert!(matches!(iterator.next(), Some(Ok(view)) if view.bytes().len() == first));
    assert_eq!(iterator.next().map(|result| result.map(|_| ())), Some(Err(BatchError::Magic(-86))));
    assert_eq!(iterator.position(), first, "where the garbage starts");
    assert!(iterator.next().is_none());
}

#[test]
fn edits_outside_the_checksum_keep_it() {
    let mut bytes = plain();
    let crc = BatchHeader::parse(&bytes).expect("a header").crc;
    let mut edit = BatchMut::new(&mut bytes).expect("a batch");
    edit.set_place(1 << 40, 9);
    assert_eq!(edit.header().last_offset(), (1 << 40) + 2);
    let view = BatchView::check(&bytes).expect("the checksum holds");
    let header = view.header();
    assert_eq!((header.base_offset, header.partition_leader_epoch, header.crc), (1 << 40, 9, crc));
}

#[test]
fn log_append_time_is_the_time_of_all_records() {
    for codec in Codec::ALL {
        let mut bytes = batch(BatchOptions { codec, ..BatchOptions::default() });
        BatchMut::new(&mut bytes).expect("a batch").set_log_append_time(7_777);
        let view = BatchView::check(&bytes).expect("sealed again");
        assert_eq!(view.header().timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(view.header().codec(), Ok(codec));
        let mut scratch = Vec::new();
        let records = view.records(&mut scratch, LIMIT).expect("can be unpacked");
        let times: Vec<_> = records.map(|record| record.expect("well-formed").timestamp).collect();
        assert_eq!(times, [7_777; 3], "{codec}");
    }
}

#[test]
fn duplicate_headers_and_nulls_are_kept() {
    let bytes = plain();
    let view = BatchView::check(&bytes).expect("a batch");
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch, LIMIT).expect("not compressed");
    let records: Vec<_> = records.map(|record| record.expect("well-formed")).collect();
    let inside = records[0].key.is_some_and(|key| bytes.as_ptr_range().contains(&key.as_ptr()));
    assert!(inside, "an uncompressed batch is read in place");
    let headers: Vec<_> = records[0].headers.collect();
    assert_eq!(headers, [Header { key: b"h", value: Some(b"1") }, Header { key: b"h", value: None }]);
    let fields: Vec<_> = records.iter().map(|r| (r.offset, r.key, r.value)).collect();
    assert_eq!(
        fields,
        [
            (100, Some(&b"a"[..]), Some(&b"one"[..])),
            (101, None, Some(&b""[..])),
            (102, Some(&b"c"[..]), None)
        ]
    );
}

/// The record bytes `records` in a batch that counts `count`, up to the first error.
fn read_records(records: &[u8], count: i32) -> Result<usize, RecordError> {
    let bytes = changed(plain(), |bytes| {
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(records);
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
    });
    let view = BatchView::check(&bytes).expect("sealed again");
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch, LIMIT)?.collect::<Result<Vec<_>, _>>()?;
    Ok(records.len())
}

#[test]
fn malformed_records() {
    // Length 6: attributes, timestamp delta, offset delta, key null, value null, no headers.
    const GOOD: [u8; 7] = [0x0c, 0, 0, 0, 1, 1, 0];
    let check = |records: &[u8], expect: RecordFault| match read_records(records, 1) {
        Err(RecordError::Malformed { index: 0, fault }) => assert_eq!(fault, expect, "{records:02x?}"),
        other => panic!("{other:?} instead of {expect:?}"),
    };
    assert!(matches!(read_records(&GOOD, 1), Ok(1)));
    assert!(matches!(read_records(&[], 0), Ok(0)));
    check(&[], RecordFault::Truncated);
    check(&GOOD[..6], RecordFault::Length(6));
    check(&[0x0b, 0, 0, 0, 1, 1, 0], RecordFault::Length(-6));
    check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01], RecordFault::Varint);
    check(&[0x0a, 0, 0, 0, 1, 1], RecordFault::Truncated);
    check(&[0x00, 0, 0, 0, 1, 1, 0], RecordFault::Truncated);
    check(&[0x0e, 0, 0, 0, 1, 1, 0, 0], RecordFault::LengthMismatch { fields: 6, record: 7 });
    check(&[0x0c, 0, 0, 0, 3, 1, 0], RecordFault::FieldLength(-2));
    check(&[0x0c, 0, 0, 0, 1, 0x40, 0], RecordFault::Truncated);
    check(&[0x0c, 0, 0, 0, 1, 1, 1], RecordFault::HeaderCount(-1));
    check(&[0x0c, 0, 0, 0, 1, 1, 2], RecordFault::Truncated);
    check(&[0x10, 0, 0, 0, 1, 1, 2, 1, 1], RecordFault::FieldLength(-1));
    check(&[0x0c, 0, 0, 6, 1, 1, 0], RecordFault::OffsetDelta(3));
    check(&[0x0c, 0, 0, 1, 1, 1, 0], RecordFault::OffsetDelta(-1));
    // A count that lies, in both directions.
    let two = [GOOD, GOOD].concat();
    assert!(matches!(read_records(&two, 1), Err(RecordError::Trailing { count: 1, bytes: 7 })));
    assert!(matches!(
        read_records(&two, i32::MAX),
        Err(RecordError::Malformed { index: 2, fault: RecordFault::Truncated })
    ));
}

#[test]
fn an_unknown_codec_is_named() {
    let bytes = changed(plain(), set(21, [0, 6]));
    let view = BatchView::check(&bytes).expect("sealed again");
    assert_eq!(view.header().codec(), Err(UnknownCodec(6)));
    assert!(matches!(view.records(&mut Vec::new(), LIMIT), Err(RecordError::Codec(UnknownCodec(6)))));
}

#[test]
fn an_empty_batch_keeps_its_offsets() {
    for codec in Codec::ALL {
        let original = batch(BatchOptions {
            codec,
            base_offset: 100,
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: i32::MAX,
            ..Default::default()
        });
        let header = *BatchView::check(&original).expect("a batch").header();
        let empty = BatchBuilder::new(BatchOptions::like(&header)).finish().expect("a small batch");
        let view = BatchView::check(&empty).expect("a batch");
        let header = view.header();
        assert_eq!((header.records_count, header.base_offset, header.last_offset()), (0, 100, 102));
        assert_eq!(
            (header.base_sequence, header.last_sequence(), header.max_timestamp),
            (i32::MAX, 1, 3_000)
        );
        assert_eq!(view.records(&mut Vec::new(), LIMIT).expect("nothing to unpack").count(), 0);
    }
    assert!(matches!(BatchBuilder::new(BatchOptions::default()).finish(), Err(BuildError::Empty)));
}

#[test]
fn offsets_only_go_up() {
    let mut builder =
        BatchBuilder::new(BatchOptions { last_offset_delta: Some(9), ..BatchOptions::default() });
    let mut append = |delta| builder.append_at(delta, 0, None, None, std::iter::empty());
    assert!(append(3).is_ok());
    for (delta, previous) in [(3, 3), (0, 3), (-1, 3), (10, 9), (i32::MAX, 9)] {
        assert!(matches!(append(delta), Err(BuildError::OffsetDelta { delta: d, previous: p })
            if (d, p) == (delta, previous)));
    }
    assert!(append(9).is_ok());
    let batch = builder.finish().expect("a small batch");
    assert_eq!(BatchHeader::parse(&batch).expect("a header").last_offset_delta, 9);
}

#[test]
fn search_by_timestamp() {
    for codec in Codec::ALL {
        let bytes = batch(BatchOptions { codec, base_offset: 100, ..BatchOptions::default() });
        let view = BatchView::check(&bytes).expect("a batch");
        let check = |timestamp, start, expect: Option<(i64, i64)>| {
            let found =
                first_at_or_after(&view, timestamp, start, &mut Vec::new(), LIMIT).expect("well-formed");
            assert_eq!(
                found.map(|found| (found.offset, found.timestamp)),
                expect,
                "{timestamp} from {start}"
            );
        };
        check(i64::MIN, 0, Some((100, 1_000)));
        check(1_000, 0, Some((100, 1_000)));
        check(1_001, 0, Some((101, 3_000)));
        check(2_000, 0, Some((101, 3_000)));
        check(3_000, 0, Some((101, 3_000)));
        check(3_001, 0, None);
        check(1_000, 102, Some((102, 2_000)));
        check(2_500, 102, None);
        let max = offset_of_max_timestamp(&view, &mut Vec::new(), LIMIT).expect("well-formed");
        assert_eq!(max, Some(TimestampedOffset { offset: 101, timestamp: 3_000 }));
    }
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NO_TIMESTAMP, None, None, &[]).expect("a small record");
    let bytes = builder.finish().expect("a small batch");
    let view = BatchView::check(&bytes).expect("a batch");
    assert_eq!(offset_of_max_timestamp(&view, &mut Vec::new(), LIMIT).expect("well-formed"), None);
}

#[test]
fn columns_of_several_batches() {
    let mut columns = Columns::new();
    for (base_offset, codec) in [(100, Codec::None), (200, Codec::Zstd), (300, Codec::Snappy)] {
        let bytes = batch(BatchOptions { codec, base_offset, ..BatchOptions::default() });
        let view = BatchView::check(&bytes).expect("a batch");
        let select = Select { from_offset: 102, headers: base_offset == 300 };
        let added = columns.append(&view, select, LIMIT).expect("well-formed");
        assert_eq!(added, if base_offset == 100 { 1 } else { 3 });
    }
    assert_eq!(columns.offsets(), [102, 200, 201, 202, 300, 301, 302]);
    assert_eq!(columns.timestamps(), [2_000, 1_000, 3_000, 2_000, 1_000, 3_000, 2_000]);
    assert_eq!(columns.header_counts(), [0, 0, 0, 0, 2, 0, 0]);
    let get = |slices: &columns::Slices, i| {
        slices.get(columns.data(), i).map(|s| String::from_utf8_lossy(s).into_owned())
    };
    let keys: Vec<_> = (0..7).map(|i| get(columns.keys(), i)).collect();
    let (a, c) = (Some("a".to_owned()), Some("c".to_owned()));
    assert_eq!(keys, [c.clone(), a.clone(), None, c.clone(), a, None, c]);
    assert_eq!(get(columns.values(), 1).as_deref(), Some("one"));
    assert_eq!(columns.values().lengths[2..4], [0, NULL_LENGTH], "empty is not null");
    assert_eq!(get(columns.header_names(), 1).as_deref(), Some("h"));
    assert_eq!(
        (get(columns.header_values(), 0).as_deref(), get(columns.header_values(), 1)),
        (Some("1"), None)
    );

    // A batch that is broken in its last record leaves nothing behind.
    let before = columns.clone();
    let broken = changed(plain(), |bytes| {
        bytes.pop();
    });
    let view = BatchView::check(&broken).expect("sealed again");
    assert!(columns.append(&view, Select::default(), LIMIT).is_err());
    assert_eq!(columns, before);
    columns.clear();
    assert_eq!(columns, Columns::new());
}

#[test]
fn control_records() {
    let mut key = ControlRecord { control_type: ControlType::Commit }.encode_key().to_vec();
    let check = |key: Option<&[u8]>, value: Option<&[u8]>, expect: Result<bool, ControlError>| {
        let headers = Headers::default();
        let record = Record { offset_delta: 0, offset: 0, timestamp: 0, key, value, headers };
        assert_eq!(EndTransactionMarker::parse(&record).map(|marker| marker.committed), expect);
    };
    let value = [0, 0, 0, 0, 0, 5];
    check(Some(&key), Some(&value), Ok(true));
    check(Some(&[0, 0, 0, 0]), Some(&value), Ok(false));
    check(Some(&[0, 9, 0, 1, 7, 7]), Some(&[0, 1, 0, 0, 0, 5, 9]), Ok(true));
    check(None, Some(&value), Err(ControlError::Key(0)));
    check(Some(&key[..3]), Some(&value), Err(ControlError::Key(3)));
    check(Some(&key), Some(&value[..5]), Err(ControlError::Value(5)));
    check(Some(&key), None, Err(ControlError::Value(0)));
    check(Some(&key), Some(&[0x80, 0, 0, 0, 0, 5]), Err(ControlError::Version(i16::MIN)));
    check(Some(&[0xff, 0xff, 0, 1]), Some(&value), Err(ControlError::Version(-1)));
    key[3] = 2;
    check(Some(&key), Some(&value), Err(ControlError::NotMarker(ControlType::LeaderChange)));
    for id in -1..9 {
        assert_eq!(ControlType::from_id(id).id(), id);
    }
}

#[test]
fn append_is_refused_by_the_header() {
    let check = |change: &dyn Fn(&mut Vec<u8>), expect: &str| {
        let bytes = changed(plain(), change);
        let view = BatchView::check(&bytes).expect("sealed again");
        let rules = AppendRules { zstd_allowed: false, limit: LIMIT, ..AppendRules::default() };
        let refusal = validate_for_append(&view, &rules, &mut Vec::new()).expect_err(expect);
        assert_eq!(refusal.to_string(), expect);
    };
    check(&set(23, 3i32.to_be_bytes()), "the batch covers 4 offsets and counts 3 records");
    check(&set(57, 4i32.to_be_bytes()), "the batch covers 3 offsets and counts 4 records");
    check(
        &|b| {
            b.truncate(HEADER_BYTES);
            set(23, [0; 4])(b);
            set(57, [0; 4])(b);
        },
        "the batch covers 1 offsets and counts 0 records",
    );
    check(&set(21, [0, 0x20]), "clients cannot write control records");
    check(&set(43, 5i64.to_be_bytes()), "a batch of producer id `5` has the sequence `-1`");
    check(&set(21, [0, 0x10]), "a transactional batch needs a producer id");
    check(&set(21, [0, 0x40]), "clients cannot set a delete horizon");
    check(&set(21, [0, 0x08]), "clients cannot set the timestamp type to LogAppendTime");
    check(&set(21, [0, 4]), "zstd needs version 7 of Produce or later");
    check(&set(21, [0, 7]), "unknown compression codec `7`");
    check(&set(21, [0, 3]), "not valid lz4: unknown frame magic `00000022`");
    check(&|b| b.push(0), "1 bytes follow the 3 records that the batch header counts");
}

#[test]
fn append_is_refused_record_by_record() {
    let check = |rules: AppendRules, expect: &[RecordProblem]| {
        for codec in Codec::ALL {
            let bytes = batch(BatchOptions { codec, ..BatchOptions::default() });
            let view = BatchView::check(&bytes).expect("a batch");
            match validate_for_append(&view, &AppendRules { limit: LIMIT, ..rules }, &mut Vec::new()) {
                Err(AppendRefusal::Records { first, problems, count }) => {
                    assert_eq!((&problems[..], first, count), (expect, expect[0], expect.len()));
                }
                Ok(found) => {
                    assert_eq!(expect, []);
                    assert_eq!((found.records_count, found.max_timestamp), (3, 3_000));
                    assert!(!found.offsets_wrong);
                }
                Err(other) => panic!("{other}"),
            }
        }
    };
    let problem = |index, kind| RecordProblem { index, kind };
    let timestamp = |index, timestamp| problem(index, RecordProblemKind::Timestamp(timestamp));
    let rules = AppendRules::default();
    check(rules, &[]);
    check(AppendRules { keys_required: true, ..rules }, &[problem(1, RecordProblemKind::NoKey)]);
    check(AppendRules { min_timestamp: 1_000, max_timestamp: 3_000, ..rules }, &[]);
    check(AppendRules { min_timestamp: 2_500, ..rules }, &[timestamp(0, 1_000), timestamp(2, 2_000)]);
    check(AppendRules { max_timestamp: 2_000, ..rules }, &[timestamp(1, 3_000)]);
}

/// Kafka's rule: what counts is the record after its length, and only where the broker has to unpack it.
#[test]
fn a_record_may_unpack_to_so_much() {
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        builder.append(0, None, Some(&[b'v'; 993]), &[]).expect("a small record");
        let bytes = builder.finish().expect("a small batch");
        let view = BatchView::check(&bytes).expect("a batch");
        for (max, refused) in [(1000, false), (999, codec.is_compressed())] {
            let rules = AppendRules { max_record_bytes: max, limit: LIMIT, ..AppendRules::default() };
            let result = validate_for_append(&view, &rules, &mut Vec::new());
            let size = match result {
                Err(AppendRefusal::RecordTooLarge { index: 0, size, .. }) => Some(size),
                Ok(_) => None,
                Err(other) => panic!("{codec} {max}: {other}"),
            };
            assert_eq!(size, refused.then_some(1000), "{codec} {max}");
        }
    }
}

#[test]
fn a_record_without_timestamp_is_in_every_range() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NO_TIMESTAMP, Some(b"k"), None, &[]).expect("a small record");
    let bytes = builder.finish().expect("a small batch");
    let view = BatchView::check(&bytes).expect("a batch");
    let rules = AppendRules { min_timestamp: 1_000, ..AppendRules::default() };
    let found = validate_for_append(&view, &rules, &mut Vec::new()).expect("may be appended");
    assert_eq!(found.max_timestamp, NO_TIMESTAMP);
}

#[test]
fn refused_records_are_listed_up_to_a_limit() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..MAX_RECORD_ERRORS + 5 {
        builder.append(0, None, None, &[]).expect("a small record");
    }
    let bytes = builder.finish().expect("a small batch");
    let view = BatchView::check(&bytes).expect("a batch");
    let rules = AppendRules { keys_required: true, ..AppendRules::default() };
    let refusal = validate_for_append(&view, &rules, &mut Vec::new());
    let Err(AppendRefusal::Records { problems, count, .. }) = refusal else { panic!("{refusal:?}") };
    assert_eq!((problems.len(), count), (MAX_RECORD_ERRORS, MAX_RECORD_ERRORS + 5));
}

/// Some old clients give every record the offset 0. Their batches are written anew.
#[test]
fn wrong_offsets_are_found_and_written_anew() {
    for codec in Codec::ALL {
        let plain = plain();
        let wrong = changed(plain.clone(), |bytes| {
            // The offset delta of the second record: behind the first record, its length, attributes and a timestamp
            // delta of two bytes.
            let second = HEADER_BYTES + 1 + usize::from(bytes[HEADER_BYTES]) / 2;
            assert_eq!(bytes[second + 4], 2, "the offset delta 1");
            bytes[second + 4] = 0;
        });
        let view = BatchView::check(&wrong).expect("sealed again");
        let wrong = recompress(&view, codec, None, &mut Vec::new(), LIMIT).expect("can be packed");
        let view = BatchView::check(wrong.bytes()).expect("a batch");
        let rules = AppendRules::default();
        let found = validate_for_append(&view, &rules, &mut Vec::new()).expect("may be appended");
        assert!(found.offsets_wrong);
        let right = rewrite_offsets(&view, &mut Vec::new(), LIMIT).expect("well-formed");
        let view = BatchView::check(right.bytes()).expect("a batch");
        assert!(!validate_for_append(&view, &rules, &mut Vec::new()).expect("may be appended").offsets_wrong);
        let right = recompress(&view, Codec::None, None, &mut Vec::new(), LIMIT).expect("can be unpacked");
        assert_eq!(right.bytes(), &plain, "{codec}");
    }
}

/// Java's reader refuses blocks that refer to earlier ones, so what it could not read is not stored.
#[test]
fn linked_lz4_blocks_are_refused() {
    use std::io::Write;
    let plain = plain();
    let bytes = changed(plain.clone(), |bytes| {
        let info = lz4_flex::frame::FrameInfo::new().block_mode(lz4_flex::frame::BlockMode::Linked);
        let mut frame = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        frame.write_all(&plain[HEADER_BYTES..]).expect("writes to memory");
        bytes.truncate(HEADER_BYTES);
        bytes.extend(frame.finish().expect("writes to memory"));
        bytes[22] = Codec::Lz4.id();
    });
    let view = BatchView::check(&bytes).expect("sealed again");
    assert!(view.records(&mut Vec::new(), LIMIT).is_ok(), "reading it is possible");
    let refusal =
        validate_for_append(&view, &AppendRules { limit: LIMIT, ..Default::default() }, &mut Vec::new());
    assert!(matches!(refusal, Err(AppendRefusal::Lz4NotPortable)), "{refusal:?}");
}

#[test]
fn a_checked_batch_says_what_its_bytes_say() {
    let check = |batch: &CheckedBatch| {
        let view = BatchView::check(batch.bytes()).expect("checksum and all");
        assert_eq!(batch.header(), view.header());
        assert_eq!(batch.view().payload(), view.payload());
    };
    let sent = Bytes::from(plain());
    let batch = CheckedBatch::check(sent.clone()).expect("a batch");
    check(&batch);
    assert_eq!(batch.bytes().as_ptr(), sent.as_ptr(), "nothing is copied");
    assert_ne!(batch.detached().bytes().as_ptr(), sent.as_ptr());
    let timed = batch.clone().with_log_append_time(7_777);
    check(&timed);
    assert_eq!(
        (timed.header().max_timestamp, timed.header().timestamp_type()),
        (7_777, TimestampType::LogAppendTime)
    );
    check(&batch.clone().with_max_timestamp(5));
    assert_eq!(batch.bytes(), &sent, "who else holds the bytes sees nothing of that");
    for codec in Codec::ALL {
        let options = BatchOptions { codec, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.append(1, None, Some(b"value value value"), &[]).expect("fits");
        check(&builder.build().expect("a batch"));
        check(&recompress(&batch.view(), codec, None, &mut Vec::new(), LIMIT).expect("can be packed"));
    }
    let mut flipped = plain();
    flipped[70] ^= 1;
    assert!(matches!(CheckedBatch::check(flipped.into()), Err(BatchError::Crc { .. })));
    let two = [&sent[..], &sent[..]].concat();
    for bad in [Bytes::new(), sent.slice(..sent.len() - 1), two.into(), Bytes::from(vec![0; 200])] {
        assert!(CheckedBatch::check(bad.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_place_is_written_into_bytes_that_nobody_else_holds() {
    let sent = Bytes::from(plain());
    let at = sent.as_ptr();
    let shared = CheckedBatch::check(sent.clone()).expect("a batch").placed(1 << 40, 77);
    assert_ne!(shared.bytes().as_ptr(), at);
    assert_eq!(sent, plain(), "who else holds the bytes sees nothing of it");
    let placed = CheckedBatch::check(sent).expect("a batch").placed(1 << 40, 77);
    assert_eq!(placed.bytes().as_ptr(), at, "nothing is copied");
    assert_eq!(placed, shared);
    let view = BatchView::check(placed.bytes()).expect("checksum and all");
    assert_eq!(placed.header(), view.header());
    assert_eq!((view.header().base_offset, view.header().partition_leader_epoch), (1 << 40, 77));
    assert_eq!(placed.crc32c(), crc::crc32c(placed.bytes()));
}
