//! Batches as Kafka's own Java code makes them (`record_golden/golden.txt`, by `Golden.java` beside it), and a second
//! opinion from the crate `kafka-protocol` where it is right.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{self as oracle, RecordBatchDecoder, RecordBatchEncoder};
use pelton_wire::record::*;

const START: i64 = 1_700_000_000_000;
const BASE_OFFSET: i64 = 1000;
const LIMIT: DecompressLimit = DecompressLimit { max_bytes: 64 << 20 };

fn golden() -> HashMap<&'static str, Vec<u8>> {
    include_str!("record_golden/golden.txt")
        .lines()
        .map(|line| line.split_once(' ').expect("a name and hex"))
        .map(|(name, text)| (name, hex::decode(text).expect("hex")))
        .collect()
}

/// A record that owns its bytes.
#[derive(Debug, PartialEq)]
struct Owned {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Record `i` of every batch that `Golden.java` makes with its loop.
fn expected(i: i64) -> Owned {
    let repeat = usize::try_from(i % 13).expect("not negative");
    let all = [
        (b"trace".to_vec(), Some(format!("t-{i}").into_bytes())),
        (b"trace".to_vec(), None),
        (Vec::new(), Some(Vec::new())),
    ];
    Owned {
        offset: BASE_OFFSET + i,
        timestamp: START + i * 37 - (i % 3) * 1000,
        key: (i % 5 != 0).then(|| format!("key-{i}").into_bytes()),
        value: (i % 7 != 3).then(|| format!("value-{i} ").repeat(repeat).into_bytes()),
        headers: all.into_iter().take(usize::try_from(i % 4).expect("not negative")).collect(),
    }
}

fn owned(record: Record<'_>) -> Owned {
    Owned {
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect(),
    }
}

fn read(batch: &[u8]) -> Vec<Owned> {
    let view = BatchView::check(batch).expect("a whole batch");
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch, LIMIT).expect("can be unpacked");
    records.map(|record| owned(record.expect("well-formed"))).collect()
}

fn build(options: BatchOptions, count: i64) -> Bytes {
    let mut builder =
        BatchBuilder::new(BatchOptions { base_offset: BASE_OFFSET, partition_leader_epoch: 3, ..options });
    for i in 0..count {
        let record = expected(i);
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        builder
            .append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
            .expect("a small record");
    }
    builder.finish().expect("a small batch")
}

/// Uncompressed batches come out byte for byte as Kafka's.
#[test]
fn uncompressed_batches_are_kafkas() {
    let check = |name: &str, ours: Bytes| {
        assert_eq!(hex::encode(ours), hex::encode(&golden()[name]), "{name}");
    };
    check("none", build(BatchOptions::default(), 10));
    let append_time = BatchOptions {
        timestamp_type: TimestampType::LogAppendTime,
        max_timestamp: Some(5555),
        ..BatchOptions::default()
    };
    check("log-append-time", build(append_time, 3));
    let producer = BatchOptions { producer_id: 4711, producer_epoch: 7, ..BatchOptions::default() };
    let transactional = BatchOptions { base_sequence: i32::MAX - 1, transactional: true, ..producer.clone() };
    check("transactional", build(transactional, 5));
    let empty = BatchOptions {
        base_sequence: 40,
        transactional: true,
        last_offset_delta: Some(9),
        max_timestamp: Some(START),
        ..producer
    };
    check("empty", build(empty, 0));

    for (name, committed) in [("marker-abort", false), ("marker-commit", true)] {
        let marker = EndTransactionMarker { committed, coordinator_epoch: 12 };
        let batch = end_transaction_batch(&marker, 4711, 7, START).expect("a small batch");
        let mut batch = batch.bytes().to_vec();
        let mut edit = BatchMut::new(&mut batch).expect("a batch");
        edit.set_place(99, 3);
        check(name, Bytes::from(batch));
    }

    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: BASE_OFFSET,
        partition_leader_epoch: 3,
        delete_horizon: Some(START + 86_400_000),
        last_offset_delta: Some(9),
        ..BatchOptions::default()
    });
    builder.append_at(4, START, Some(b"gone"), None, std::iter::empty()).expect("a small record");
    builder
        .append_at(7, START + 1, Some(b"kept"), Some(b"value"), std::iter::empty())
        .expect("a small record");
    check("delete-horizon", builder.finish().expect("a small batch"));
}

/// What Kafka compressed is read, and has the very bytes that we would have compressed.
#[test]
fn compressed_batches_are_read() {
    for (codec, count) in
        [(Codec::None, 10), (Codec::Gzip, 300), (Codec::Snappy, 900), (Codec::Lz4, 900), (Codec::Zstd, 300)]
    {
        let batch = &golden()[codec.name()];
        let view = BatchView::check(batch).expect("a whole batch");
        assert_eq!(view.header().codec(), Ok(codec));
        assert_eq!(read(batch), (0..count).map(expected).collect::<Vec<_>>(), "{codec}");
        let plain = recompress(&view, Codec::None, None, &mut Vec::new(), LIMIT).expect("can be unpacked");
        assert_eq!(*plain.bytes(), build(BatchOptions::default(), count), "{codec}");
        let rules = AppendRules::default();
        let validated = validate_for_append(&view, &rules, &mut Vec::new()).expect("a proper batch");
        assert_eq!(i64::from(validated.records_count), count);
        assert_eq!(validated.max_timestamp, view.header().max_timestamp);
        assert_eq!(validated.uncompressed_bytes, plain.len() - HEADER_BYTES);
        assert!(!validated.offsets_wrong);

        for other in Codec::ALL {
            let again = recompress(&view, other, None, &mut Vec::new(), LIMIT).expect("can be written anew");
            let again = BatchView::check(again.bytes()).expect("a whole batch");
            assert_eq!(again.header().codec(), Ok(other));
            let back =
                recompress(&again, Codec::None, None, &mut Vec::new(), LIMIT).expect("can be unpacked");
            assert_eq!(back, plain, "{codec} to {other}");
        }
    }
}

#[test]
fn header_facts_of_kafkas_batches() {
    let golden = golden();
    let header = |name: &str| *BatchView::check(&golden[name]).expect("a whole batch").header();

    let h = header("transactional");
    assert!(h.is_transactional() && h.has_producer() && !h.is_control());
    assert_eq!(
        (h.base_sequence, h.last_sequence()),
        (i32::MAX - 1, 2),
        "Kafka reads sequences [2147483646, 2]"
    );
    assert_eq!((h.last_offset(), h.next_offset()), (1004, 1005));

    let h = header("log-append-time");
    assert_eq!(h.timestamp_type(), TimestampType::LogAppendTime);
    assert!(read(&golden["log-append-time"]).iter().all(|record| record.timestamp == 5555));

    let h = header("empty");
    assert_eq!((h.records_count, h.last_offset(), h.last_sequence()), (0, 1009, 49));
    assert_eq!(read(&golden["empty"]), []);

    let h = header("delete-horizon");
    assert_eq!(h.delete_horizon(), Some(START + 86_400_000));
    let records = read(&golden["delete-horizon"]);
    assert_eq!(
        records.iter().map(|r| (r.offset, r.timestamp)).collect::<Vec<_>>(),
        [(1004, START), (1007, START + 1)]
    );

    for (name, committed) in [("marker-abort", false), ("marker-commit", true)] {
        let view = BatchView::check(&golden[name]).expect("a whole batch");
        assert!(view.header().is_control());
        let mut scratch = Vec::new();
        let record = view.records(&mut scratch, LIMIT).expect("not compressed").next();
        let record = record.expect("one record").expect("well-formed");
        let marker = EndTransactionMarker { committed, coordinator_epoch: 12 };
        assert_eq!(EndTransactionMarker::parse(&record), Ok(marker));
    }
}

/// All batches one after another, as a fetch gives them, the last one cut off at every length.
#[test]
fn a_buffer_of_batches() {
    let golden = golden();
    let names = ["none", "gzip", "empty", "marker-commit"];
    let buffer: Vec<u8> = names.iter().flat_map(|name| golden[name].clone()).collect();
    let whole: usize = names[..3].iter().map(|name| golden[name].len()).sum();
    for end in whole..buffer.len() {
        let mut iterator = batches(&buffer[..end]);
        let found = iterator.by_ref().map(|view| view.expect("a batch").bytes().len()).collect::<Vec<_>>();
        assert_eq!(found, names[..3].iter().map(|name| golden[name].len()).collect::<Vec<_>>());
        assert_eq!(iterator.position(), whole);
    }
    assert_eq!(batches(&buffer).count(), 4);
}

/// What we write, `kafka-protocol` reads: without duplicate headers, which it loses, and with its timestamps.
#[test]
fn kafka_protocol_reads_our_batches() {
    let mut batch =
        build(BatchOptions { producer_id: 5, producer_epoch: 1, base_sequence: 0, ..Default::default() }, 2);
    let set = RecordBatchDecoder::decode(&mut batch).expect("a batch");
    assert_eq!(set.records.len(), 2);
    for (i, record) in (0..).zip(set.records) {
        let expect = expected(i);
        assert_eq!(record.offset, expect.offset);
        assert_eq!(record.timestamp, expect.timestamp);
        assert_eq!(record.key.as_deref(), expect.key.as_deref());
        assert_eq!(record.value.as_deref(), expect.value.as_deref());
        let headers: Vec<_> =
            record.headers.into_iter().map(|(k, v)| (k.as_bytes().to_vec(), v.map(|v| v.to_vec()))).collect();
        assert_eq!(headers, expect.headers);
        assert_eq!((record.producer_id, record.producer_epoch, i64::from(record.sequence)), (5, 1, i));
        assert_eq!(record.partition_leader_epoch, 3);
    }
}

/// What `kafka-protocol` writes, we read, and write the same way.
#[test]
fn kafka_protocol_writes_our_batches() {
    let record = |i: i64| oracle::Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 3,
        producer_id: 5,
        producer_epoch: 1,
        timestamp_type: oracle::TimestampType::Creation,
        offset: BASE_OFFSET + i,
        sequence: i32::try_from(i).expect("small") + 77,
        timestamp: START + i * 1_000_000,
        key: (i % 2 == 0).then(|| Bytes::from(format!("key {i}"))),
        value: (i % 3 != 0).then(|| Bytes::from(vec![b'v'; usize::try_from(i).expect("small") * 50])),
        headers: IndexMap::from([(StrBytes::from_string(format!("h{i}")), Some(Bytes::from_static(b"x")))]),
    };
    let records: Vec<_> = (0..50).map(record).collect();
    let options = oracle::RecordEncodeOptions { version: 2, compression: oracle::Compression::None };
    let mut theirs = BytesMut::new();
    RecordBatchEncoder::encode(&mut theirs, &records, &options).expect("can be encoded");

    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: BASE_OFFSET,
        partition_leader_epoch: 3,
        producer_id: 5,
        producer_epoch: 1,
        base_sequence: 77,
        transactional: true,
        ..BatchOptions::default()
    });
    let read = read(&theirs);
    for (ours, record) in read.iter().zip(&records) {
        assert_eq!(ours.offset, record.offset);
        assert_eq!(ours.timestamp, record.timestamp);
        assert_eq!(ours.key.as_deref(), record.key.as_deref());
        assert_eq!(ours.value.as_deref(), record.value.as_deref());
        let headers: Vec<Header<'_>> =
            ours.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        builder
            .append(ours.timestamp, ours.key.as_deref(), ours.value.as_deref(), &headers)
            .expect("a small record");
    }
    assert_eq!(read.len(), records.len());
    assert_eq!(builder.finish().expect("a small batch"), theirs);
}
