//! The rules of compaction, on logs that are lists of batches.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use pelton_wire::record::{
    BatchBuilder, BatchOptions, BatchView, Codec, DecompressLimit, EndTransactionMarker, Filtered,
    end_transaction_batch,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::batch::{BatchCleaner, CleanCounts, CleanRules, LastRecord, map_batch};
use super::key_map::KeyOffsets;
use super::transactions::CleanedTransactions;
use crate::txn_index::AbortedTxn;

const PRODUCER: i64 = 9;

/// A log of whole batches, and the entries of its transaction indexes.
#[derive(Clone, Default)]
struct TestLog {
    batches: Vec<Bytes>,
    aborted: Vec<AbortedTxn>,
    end: i64,
}

impl TestLog {
    fn append(&mut self, options: BatchOptions, records: &[(&str, Option<&str>)]) -> i64 {
        let base = self.end;
        let mut builder = BatchBuilder::new(BatchOptions { base_offset: base, ..options });
        for (n, (key, value)) in (0..).zip(records) {
            builder.append(base + n, Some(key.as_bytes()), value.map(str::as_bytes), &[]).unwrap();
        }
        self.end += records.len() as i64;
        self.batches.push(builder.finish().unwrap());
        base
    }

    fn plain(&mut self, records: &[(&str, Option<&str>)]) -> i64 {
        self.append(BatchOptions::default(), records)
    }

    fn transactional(&mut self, producer_id: i64, records: &[(&str, Option<&str>)]) -> i64 {
        let options = BatchOptions {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
            ..Default::default()
        };
        self.append(options, records)
    }

    fn end_transaction(&mut self, producer_id: i64, committed: bool, first_offset: i64) {
        let marker = EndTransactionMarker { committed, coordinator_epoch: 0 };
        let batch = end_transaction_batch(&marker, producer_id, 0, self.end).unwrap();
        self.batches.push(batch.placed(self.end, -1).into_bytes());
        if !committed {
            let last_offset = self.end;
            self.aborted.push(AbortedTxn {
                producer_id,
                first_offset,
                last_offset,
                last_stable_offset: last_offset + 1,
            });
        }
        self.end += 1;
    }

    /// One clean of everything.
    fn clean(&mut self, now_ms: i64, delete_retention_ms: i64, last: &[(i64, LastRecord)]) -> CleanCounts {
        let mut map = KeyOffsets::new(1 << 20, usize::MAX, [3; 16]);
        let mut transactions = CleanedTransactions::new(self.aborted.clone());
        let mut scratch = Vec::new();
        for bytes in &self.batches {
            let view = BatchView::check(bytes).unwrap();
            map_batch(&mut map, &mut transactions, &view, &mut scratch).unwrap().unwrap();
        }
        let last_records: HashMap<_, _> = last.iter().copied().collect();
        let rules = CleanRules { now_ms, delete_retention_ms, last_records, up_to: i64::MAX };
        let mut cleaner = BatchCleaner::new(&map, &rules, CleanedTransactions::new(self.aborted.clone()));
        let (mut batches, mut aborted) = (Vec::new(), Vec::new());
        for bytes in &self.batches {
            let cleaned = cleaner.clean(&BatchView::check(bytes).unwrap()).unwrap();
            aborted.extend(cleaned.aborted);
            match cleaned.bytes {
                Filtered::Removed => {}
                Filtered::Whole(_) => batches.push(bytes.clone()),
                Filtered::Rewritten(new) => batches.push(new),
            }
        }
        let counts = cleaner.counts();
        (self.batches, self.aborted) = (batches, aborted);
        counts
    }

    fn records(&self) -> Vec<(i64, String, Option<String>)> {
        let mut all = Vec::new();
        for bytes in &self.batches {
            let (view, mut scratch) = (BatchView::check(bytes).unwrap(), Vec::new());
            if view.header().is_control() {
                continue;
            }
            for record in view.records(&mut scratch, DecompressLimit::STORED).unwrap() {
                let record = record.unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                all.push((record.offset, text(record.key.unwrap()), record.value.map(text)));
            }
        }
        all
    }

    fn offsets(&self) -> Vec<i64> {
        self.records().into_iter().map(|(offset, ..)| offset).collect()
    }

    /// Control batches: offset, records in them, whether they have a delete horizon.
    fn markers(&self) -> Vec<(i64, i32, bool)> {
        let headers = self.batches.iter().map(|bytes| *BatchView::check(bytes).unwrap().header());
        let control = headers.filter(|header| header.is_control());
        control.map(|h| (h.base_offset, h.records_count, h.delete_horizon().is_some())).collect()
    }
}

#[test]
fn of_each_key_the_newest_record_stays() {
    let mut log = TestLog::default();
    log.plain(&[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))]);
    log.plain(&[("c", Some("1")), ("b", Some("2"))]);
    let bytes = |log: &TestLog| log.batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
    let bytes_in = bytes(&log);
    let counts = log.clean(0, 0, &[]);
    assert_eq!(log.offsets(), [2, 3, 4]);
    let bytes_out = bytes(&log);
    assert_eq!(counts, CleanCounts { records_in: 5, records_out: 3, bytes_in, bytes_out, keyless: 0 });
    let before = log.batches.clone();
    log.clean(0, 0, &[]);
    assert_eq!(log.batches, before);
}

#[test]
fn a_tombstone_goes_at_the_first_clean_after_its_horizon() {
    let mut log = TestLog::default();
    log.plain(&[("a", Some("1")), ("b", Some("1"))]);
    log.plain(&[("a", None), ("c", Some("1"))]);
    log.clean(1_000, 500, &[]);
    assert_eq!(log.offsets(), [1, 2, 3]);
    log.clean(1_499, 500, &[]);
    assert_eq!(log.offsets(), [1, 2, 3], "not before its time");
    log.clean(1_500, 500, &[]);
    assert_eq!(log.offsets(), [1, 3]);
    let horizon = BatchView::check(log.batches.last().unwrap()).unwrap().header().delete_horizon();
    assert_eq!(horizon, Some(1_500), "what is left of its batch keeps the horizon");
}

#[test]
fn without_retention_a_tombstone_survives_the_clean_that_sees_it_first() {
    let mut log = TestLog::default();
    log.plain(&[("a", None)]);
    log.clean(1_000, 0, &[]);
    assert_eq!(log.offsets(), [0]);
    log.clean(1_000, 0, &[]);
    assert!(log.batches.is_empty(), "a batch that held only the tombstone vanishes");
}

#[test]
fn aborted_records_go_at_once_and_their_marker_in_two_more_cleans() {
    let mut log = TestLog::default();
    let first = log.transactional(PRODUCER, &[("a", Some("aborted")), ("b", Some("aborted"))]);
    log.end_transaction(PRODUCER, false, first);
    log.plain(&[("c", Some("1"))]);
    log.clean(1_000, 500, &[]);
    assert_eq!((log.offsets(), log.markers()), (vec![3], vec![(2, 1, false)]));
    assert_eq!(log.aborted.len(), 1, "batches of it were met: the index entry stays");
    log.clean(1_000, 500, &[]);
    assert_eq!(log.markers(), [(2, 1, true)]);
    assert!(log.aborted.is_empty());
    log.clean(1_400, 500, &[]);
    assert_eq!(log.markers(), [(2, 1, true)]);
    log.clean(1_500, 500, &[]);
    assert_eq!(log.markers(), []);
}

#[test]
fn aborted_values_never_hide_committed_ones() {
    let mut log = TestLog::default();
    log.plain(&[("a", Some("1"))]);
    let first = log.transactional(PRODUCER, &[("a", Some("aborted"))]);
    log.end_transaction(PRODUCER, false, first);
    log.clean(0, 0, &[]);
    assert_eq!(log.records(), [(0, "a".to_owned(), Some("1".to_owned()))]);
}

#[test]
fn a_commit_marker_stays_while_a_record_of_its_transaction_does() {
    let mut log = TestLog::default();
    log.transactional(PRODUCER, &[("a", Some("1")), ("b", Some("1"))]);
    log.end_transaction(PRODUCER, true, 0);
    for now in [1_000, 2_000, 3_000] {
        log.clean(now, 0, &[]);
        assert_eq!((log.offsets(), log.markers()), (vec![0, 1], vec![(2, 1, false)]));
    }
    log.plain(&[("a", Some("2")), ("b", Some("2"))]);
    log.clean(4_000, 0, &[]);
    assert_eq!(log.markers(), [(2, 1, false)], "its records went only now");
    log.clean(4_000, 0, &[]);
    assert_eq!(log.markers(), [(2, 1, true)]);
    log.clean(4_000, 0, &[]);
    assert_eq!(log.markers(), []);
}

#[test]
fn what_a_producer_needs_stays_as_an_empty_batch() {
    let mut log = TestLog::default();
    let first = log.transactional(PRODUCER, &[("a", Some("1"))]);
    log.end_transaction(PRODUCER, false, first);
    log.transactional(7, &[("b", Some("1"))]);
    log.end_transaction(7, true, 2);
    log.plain(&[("b", Some("2"))]);
    let last = [(PRODUCER, LastRecord::Marker(0)), (7, LastRecord::Data(2))];
    for now in [1_000, 2_000, 3_000, 4_000] {
        log.clean(now, 0, &last);
    }
    assert_eq!(
        log.markers(),
        [(1, 0, false), (3, 1, false)],
        "an empty control batch, and a marker with its data"
    );
    let empty = BatchView::check(&log.batches[1]).unwrap();
    assert_eq!((empty.header().base_offset, empty.header().records_count), (2, 0));
    log.clean(5_000, 0, &[]);
    assert_eq!(log.offsets(), [4]);
    assert_eq!(log.markers(), [(3, 1, false)], "the producers have expired");
}

#[test]
fn nothing_behind_the_map_is_touched() {
    let mut log = TestLog::default();
    log.plain(&[("a", Some("1")), ("a", Some("2"))]);
    log.plain(&[("a", Some("3")), ("a", Some("4"))]);
    let mut map = KeyOffsets::new(1 << 10, 10, [3; 16]);
    let view = BatchView::check(&log.batches[0]).unwrap();
    map_batch(&mut map, &mut CleanedTransactions::default(), &view, &mut Vec::new()).unwrap().unwrap();
    let rules = CleanRules { now_ms: 0, delete_retention_ms: 0, last_records: HashMap::new(), up_to: 2 };
    let mut cleaner = BatchCleaner::new(&map, &rules, CleanedTransactions::default());
    let second = BatchView::check(&log.batches[1]).unwrap();
    assert_eq!(cleaner.clean(&second).unwrap().bytes, Filtered::Whole(&log.batches[1]));
}

/// A consumer from the beginning ends with the same map, however often the log is cleaned and grown.
#[test]
fn a_consumer_from_the_beginning_ends_with_the_same_table() {
    for seed in 0..200 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut log = TestLog::default();
        let mut model: BTreeMap<String, String> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..random.random_range(1..30) {
            let mut batch = Vec::new();
            for _ in 0..random.random_range(1..6) {
                let key = format!("k{}", random.random_range(0..8));
                let value = random.random_bool(0.7).then(|| format!("v{}", random.random::<u16>()));
                batch.push((key, value));
            }
            let records: Vec<_> = batch.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
            let kind = random.random_range(0..4);
            let codec = Codec::ALL[random.random_range(0..Codec::ALL.len())];
            match kind {
                0 | 1 => drop(log.append(BatchOptions { codec, ..BatchOptions::default() }, &records)),
                _ => {
                    let producer = random.random_range(1..4);
                    let first = log.transactional(producer, &records);
                    log.end_transaction(producer, kind == 2, first);
                }
            }
            if kind != 3 {
                for (key, value) in batch {
                    match value {
                        Some(value) => drop(model.insert(key, value)),
                        None => drop(model.remove(&key)),
                    }
                }
            }
            if random.random_bool(0.3) {
                now += random.random_range(0..100);
                let last = [(1, LastRecord::Marker(0))];
                log.clean(
                    now,
                    random.random_range(0..100),
                    if random.random_bool(0.5) { &last } else { &[] },
                );
            }
        }
        let mut table = BTreeMap::new();
        for (offset, key, value) in log.records() {
            if log.aborted.iter().any(|t| (t.first_offset..t.last_offset).contains(&offset)) {
                continue;
            }
            match value {
                Some(value) => drop(table.insert(key, value)),
                None => drop(table.remove(&key)),
            }
        }
        assert_eq!(table, model, "seed {seed}");
    }
}
