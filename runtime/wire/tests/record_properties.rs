//! Properties of record batches: what is built is read back, and no damage makes a reader panic.

use pelton_wire::record::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    gap: i32,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        prop::collection::vec(any::<u8>(), 0..max),
        (any::<u8>(), 0..max).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn timestamps() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 1_600_000_000_000i64..1_700_000_000_000,
        1 => any::<i64>(),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, -1, 0]),
    ]
}

fn record() -> impl Strategy<Value = Owned> {
    let headers = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec((bytes(20), prop::option::of(bytes(40))), 0..5),
        1 => bytes(5).prop_map(|key| vec![(key.clone(), Some(vec![1])), (key.clone(), None), (key, Some(vec![1]))]),
    ];
    let fields = (0..3i32, timestamps(), prop::option::of(bytes(50)), prop::option::of(bytes(2000)), headers);
    fields.prop_map(|(gap, timestamp, key, value, headers)| Owned { gap, timestamp, key, value, headers })
}

fn options() -> impl Strategy<Value = BatchOptions> {
    let codec = prop::sample::select(Codec::ALL.to_vec());
    let level = prop::option::of(-5..25i32);
    let offsets = (0..i64::MAX - (1 << 32), any::<i32>());
    let producer = prop_oneof![
        Just((NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE)),
        (0..i64::MAX, 0..i16::MAX, prop_oneof![0..i32::MAX, Just(i32::MAX - 1)]),
    ];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), prop::option::of(timestamps()));
    (codec, level, offsets, producer, flags).prop_map(|(codec, level, offsets, producer, flags)| {
        BatchOptions {
            base_offset: offsets.0,
            partition_leader_epoch: offsets.1,
            codec,
            level,
            timestamp_type: if flags.0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            producer_id: producer.0,
            producer_epoch: producer.1,
            base_sequence: producer.2,
            transactional: flags.1,
            control: flags.2,
            delete_horizon: flags.3,
            ..BatchOptions::default()
        }
    })
}

fn build(options: &BatchOptions, records: &[Owned]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(options.clone());
    let mut delta = -1;
    for record in records {
        delta += 1 + record.gap;
        let headers: Vec<Header<'_>> =
            record.headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect();
        builder
            .append_at(
                delta,
                record.timestamp,
                record.key.as_deref(),
                record.value.as_deref(),
                headers.iter().copied(),
            )
            .expect("a small record");
    }
    builder.finish().expect("a small batch").to_vec()
}

const LIMIT: DecompressLimit = DecompressLimit { max_bytes: 16 << 20 };

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn what_is_built_is_read(options in options(), records in prop::collection::vec(record(), 1..40)) {
        let batch = build(&options, &records);
        let view = BatchView::check(&batch).expect("a whole batch");
        let header = view.header();
        let last = records.iter().map(|record| 1 + record.gap).sum::<i32>() - 1;
        let max = records.iter().map(|record| record.timestamp).max().expect("at least one");
        prop_assert_eq!(header.base_offset, options.base_offset);
        prop_assert_eq!(header.partition_leader_epoch, options.partition_leader_epoch);
        prop_assert_eq!(header.last_offset_delta, last);
        prop_assert_eq!(header.max_timestamp, max);
        prop_assert_eq!(header.records_count as usize, records.len());
        prop_assert_eq!(header.codec(), Ok(options.codec));
        prop_assert_eq!(header.timestamp_type(), options.timestamp_type);
        prop_assert_eq!(header.is_transactional(), options.transactional);
        prop_assert_eq!(header.is_control(), options.control);
        prop_assert_eq!(header.delete_horizon(), options.delete_horizon);
        prop_assert_eq!(header.has_producer(), options.producer_id >= 0);
        prop_assert_eq!(header.compute_crc(view.payload()), header.crc);
        prop_assert_eq!(&header.encode()[..], &batch[..HEADER_BYTES]);

        let mut scratch = Vec::new();
        let mut columns = Columns::new();
        prop_assert_eq!(columns.append(&view, Select::default(), LIMIT).expect("well-formed"), records.len());
        let read: Vec<_> = view.records(&mut scratch, LIMIT).expect("can be unpacked").collect();
        prop_assert_eq!(read.len(), records.len());
        let (mut delta, mut at) = (-1, 0);
        for (index, (read, expect)) in read.into_iter().zip(&records).enumerate() {
            let read = read.expect("well-formed");
            delta += 1 + expect.gap;
            let timestamp =
                if options.timestamp_type == TimestampType::LogAppendTime { max } else { expect.timestamp };
            prop_assert_eq!(read.offset_delta, delta);
            prop_assert_eq!(read.offset, options.base_offset + i64::from(delta));
            prop_assert_eq!(read.timestamp, timestamp);
            prop_assert_eq!(read.key, expect.key.as_deref());
            prop_assert_eq!(read.value, expect.value.as_deref());
            let headers: Vec<OwnedHeader> =
                read.headers.map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(&headers, &expect.headers);

            prop_assert_eq!(columns.offsets()[index], read.offset);
            prop_assert_eq!(columns.timestamps()[index], timestamp);
            prop_assert_eq!(columns.keys().get(columns.data(), index), read.key);
            prop_assert_eq!(columns.values().get(columns.data(), index), read.value);
            prop_assert_eq!(columns.header_counts()[index] as usize, headers.len());
            for (key, value) in &headers {
                prop_assert_eq!(columns.header_names().get(columns.data(), at), Some(&key[..]));
                prop_assert_eq!(columns.header_values().get(columns.data(), at), value.as_deref());
                at += 1;
            }
        }
        prop_assert_eq!(columns.header_names().len(), at);
    }

    /// Compaction writes a batch anew with some of its records: what is left keeps offset, timestamp and headers.
    #[test]
    fn rewriting_keeps_what_identifies_a_batch(
        options in options(),
        records in prop::collection::vec(record(), 1..20),
        keep in any::<u32>(),
    ) {
        let batch = build(&options, &records);
        let view = BatchView::check(&batch).expect("a whole batch");
        let mut scratch = Vec::new();
        let mut builder = BatchBuilder::new(BatchOptions::like(view.header()));
        let mut kept = Vec::new();
        for (index, record) in view.records(&mut scratch, LIMIT).expect("can be unpacked").enumerate() {
            let record = record.expect("well-formed");
            if keep >> (index % 32) & 1 == 1 {
                builder.append_record(&record).expect("fits as before");
                kept.push((record.offset, record.timestamp, record.key, record.value));
            }
        }
        let again = builder.finish().expect("a small batch");
        let again = BatchView::check(&again).expect("a whole batch");
        let (old, new) = (view.header(), again.header());
        prop_assert_eq!(new.records_count as usize, kept.len());
        prop_assert_eq!((new.base_offset, new.last_offset()), (old.base_offset, old.last_offset()));
        prop_assert_eq!((new.base_sequence, new.last_sequence()), (old.base_sequence, old.last_sequence()));
        prop_assert_eq!((new.producer_id, new.producer_epoch), (old.producer_id, old.producer_epoch));
        let flags = |h: &BatchHeader| (h.timestamp_type(), h.is_transactional(), h.is_control(), h.delete_horizon());
        prop_assert_eq!(flags(new), flags(old));
        let mut other = Vec::new();
        let read: Vec<_> = again
            .records(&mut other, LIMIT)
            .expect("can be unpacked")
            .map(|record| record.expect("well-formed"))
            .map(|record| (record.offset, record.timestamp, record.key, record.value))
            .collect();
        prop_assert_eq!(read, kept);
    }

    #[test]
    fn codecs_give_back_what_they_took(
        codec in prop::sample::select(Codec::ALL.to_vec()),
        level in prop::option::of(any::<i32>()),
        pieces in prop::collection::vec(bytes(50_000), 0..6),
    ) {
        let input = pieces.concat();
        let mut packed = b"before".to_vec();
        codec.compress(level, &input, &mut packed).expect("can be packed");
        let mut out = b"kept".to_vec();
        codec.decompress(&packed[6..], input.len(), &mut out).expect("can be unpacked");
        prop_assert_eq!(&out[..4], b"kept");
        prop_assert!(out[4..] == input[..]);
        if !input.is_empty() {
            prop_assert!(codec.decompress(&packed[6..], input.len() - 1, &mut out).is_err());
            prop_assert_eq!(out.len(), input.len() + 4, "an error leaves the output as it was");
        }
    }
}

/// Some batches of every codec with everything in them.
fn samples() -> Vec<Vec<u8>> {
    let record = |i: i32| Owned {
        gap: i % 2,
        timestamp: 1_700_000_000_000 + i64::from(i),
        key: (i % 3 != 0).then(|| format!("key-{i}").into_bytes()),
        value: (i % 4 != 0).then(|| vec![b'v'; (i * 7) as usize]),
        headers: (0..i % 3).map(|h| (vec![b'h'; h as usize], (h > 0).then(|| vec![1, 2, 3]))).collect(),
    };
    let records: Vec<_> = (0..12).map(record).collect();
    Codec::ALL
        .iter()
        .map(|codec| build(&BatchOptions { codec: *codec, ..BatchOptions::default() }, &records))
        .collect()
}

#[test]
fn cut_batches_are_refused() {
    for batch in samples() {
        for end in 0..batch.len() {
            let cut = &batch[..end];
            let expect = if end < HEADER_BYTES {
                BatchError::Short { have: end }
            } else {
                BatchError::Truncated { total: batch.len(), have: end }
            };
            assert_eq!(BatchView::check(cut).map(|_| ()), Err(expect));
            assert_eq!(batches(cut).count(), 0);
            fuzz_batch(cut);
        }
    }
}

/// A cut behind the header with the length made to fit: what is missing is found in the records or in the codec.
#[test]
fn batches_with_missing_records_are_refused() {
    for batch in samples() {
        for end in HEADER_BYTES..batch.len() {
            let mut cut = batch[..end].to_vec();
            cut[8..12].copy_from_slice(&u32::try_from(end - 12).expect("small").to_be_bytes());
            BatchMut::new(&mut cut).expect("lengths fit").set_max_timestamp(0);
            let view = BatchView::check(&cut).expect("sealed again");
            let mut scratch = Vec::new();
            let refused = match view.records(&mut scratch, LIMIT) {
                Ok(mut records) => records.any(|record| record.is_err()),
                Err(_) => true,
            };
            assert!(refused, "{:?} cut at {end} of {}", view.header().codec(), batch.len());
            fuzz_batch(&cut);
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for batch in samples() {
        for bit in 21 * 8..batch.len() * 8 {
            let mut damaged = batch.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchView::check(&damaged).is_err(), "bit {bit}");
        }
    }
}

/// Damage of every kind, sealed again or not, must come back as an error or as records: [`fuzz_batch`] holds what must
/// be true of each. A failing round prints its seed.
#[test]
fn damaged_batches_never_panic() {
    let samples = samples();
    for seed in 0..6_000u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut batch = samples[random.random_range(0..samples.len())].clone();
        for _ in 0..random.random_range(1..6) {
            damage(&mut batch, &mut random);
        }
        if random.random_bool(0.8) && batch.len() >= HEADER_BYTES {
            let length = u32::try_from(batch.len() - 12).expect("small");
            batch[8..12].copy_from_slice(&length.to_be_bytes());
            batch[16] = 2;
        }
        if let Err(panic) = std::panic::catch_unwind(|| fuzz_batch(&batch)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn damage(batch: &mut Vec<u8>, random: &mut StdRng) {
    if batch.is_empty() {
        return;
    }
    let at = random.random_range(0..batch.len());
    match random.random_range(0..6) {
        0 => batch[at] = random.random(),
        1 => batch[at] ^= 1 << random.random_range(0..8),
        2 => batch[at] = [0x00, 0x7f, 0x80, 0xff][random.random_range(0..4)],
        3 => batch.truncate(at.max(HEADER_BYTES)),
        4 => batch.insert(at, random.random()),
        _ => {
            let field = [0, 8, 21, 23, 27, 35, 43, 51, 53, 57][random.random_range(0..10)];
            let value: u64 =
                [0, 1, u64::MAX, u64::MAX >> 1, 1 << 63, random.random()][random.random_range(0..6)];
            for (to, from) in batch.iter_mut().skip(field).zip(value.to_be_bytes()).take(8) {
                *to = from;
            }
        }
    }
}
