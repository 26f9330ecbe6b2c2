//! A compacted log as a consumer sees it, and what it should see.

use std::collections::{BTreeMap, HashMap, HashSet};

use pelton_commitlog::LogReader;
use pelton_wire::record::{BatchHeader, DecompressLimit, EndTransactionMarker, batches};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
pub(crate) type Records = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A batch that was appended.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) base: i64,
    /// The offset after it.
    pub(crate) end: i64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Plain(Records),
    InTransaction { producer_id: i64, sequence: i32, records: Records },
    Marker { producer_id: i64, committed: bool },
}

/// Everything that was appended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    batches: Vec<Batch>,
}

/// What a read-committed consumer from the beginning knows in the end.
pub(crate) struct Table {
    pub(crate) rows: Rows,
    pub(crate) stable: i64,
}

impl Model {
    pub(crate) fn push(&mut self, batch: Batch) {
        self.batches.push(batch);
    }

    /// A crash took everything from `end` on.
    pub(crate) fn cut(&mut self, end: i64) {
        self.batches.retain(|batch| batch.end <= end);
    }

    /// The next sequence of a producer, and whether it has a transaction open.
    pub(crate) fn producer(&self, id: i64) -> (i32, bool) {
        let mut known = (0, false);
        for batch in &self.batches {
            match &batch.kind {
                Kind::InTransaction { producer_id, sequence, records } if *producer_id == id => {
                    known = (sequence + records.len() as i32, true);
                }
                Kind::Marker { producer_id, .. } if *producer_id == id => known.1 = false,
                _ => {}
            }
        }
        known
    }

    /// The table of a log from `start` to `end`.
    pub(crate) fn table(&self, start: i64, end: i64) -> Table {
        let batches = || self.batches.iter().filter(|batch| batch.end <= end);
        let mut open: HashMap<i64, i64> = HashMap::new();
        let mut aborted: HashSet<i64> = HashSet::new();
        for batch in batches() {
            match batch.kind {
                Kind::Plain(_) => {}
                Kind::InTransaction { producer_id, .. } => {
                    open.entry(producer_id).or_insert(batch.base);
                }
                Kind::Marker { producer_id, committed } => {
                    let Some(first) = open.remove(&producer_id) else { continue };
                    let of_it = |b: &&Batch| {
                        let same = matches!(b.kind, Kind::InTransaction { producer_id: id, .. } if id == producer_id);
                        same && (first..batch.base).contains(&b.base)
                    };
                    if !committed {
                        aborted.extend(batches().filter(of_it).map(|b| b.base));
                    }
                }
            }
        }
        // What lies below the start of the log is not waited for.
        let stable = open.values().copied().min().unwrap_or(end).max(start).min(end);
        let mut rows = Rows::new();
        for batch in batches().filter(|batch| batch.end <= stable && !aborted.contains(&batch.base)) {
            let (Kind::Plain(records) | Kind::InTransaction { records, .. }) = &batch.kind else { continue };
            for (offset, (key, value)) in (batch.base..).zip(records) {
                if offset >= start {
                    apply(&mut rows, key, value.as_deref());
                }
            }
        }
        Table { rows, stable }
    }
}

fn apply(rows: &mut Rows, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => drop(rows.insert(key.to_vec(), value.to_vec())),
        None => drop(rows.remove(key)),
    }
}

/// Reads a log from its start to its last stable offset as Kafka's consumer does, in small fetches.
pub(crate) fn read_table(reader: &LogReader, what: &str) -> Rows {
    let offsets = reader.offsets();
    let (mut rows, mut at) = (Rows::new(), offsets.log_start);
    while at < offsets.last_stable {
        let range = reader.read(at, 600, offsets.last_stable, true);
        let range = range.unwrap_or_else(|error| panic!("{what}: at {at}: {error}"));
        assert!(range.next_offset > at, "{what}: nothing at {at} of {offsets:?}");
        let mut aborted =
            reader.aborted_transactions(range.base_offset, range.next_offset).expect("an index");
        aborted.sort_by_key(|txn| std::cmp::Reverse(txn.first_offset));
        let mut ignored: HashSet<i64> = HashSet::new();
        let next = range.next_offset;
        let bytes = range.into_bytes().expect("bytes that were just found");
        for batch in batches(&bytes) {
            let batch = batch.unwrap_or_else(|error| panic!("{what}: {error}"));
            batch.verify_crc().unwrap_or_else(|error| panic!("{what}: {error}"));
            let header: BatchHeader = *batch.header();
            while let Some(txn) = aborted.pop_if(|txn| txn.first_offset <= header.last_offset()) {
                ignored.insert(txn.producer_id);
            }
            let mut scratch = Vec::new();
            let records = batch.records(&mut scratch, DecompressLimit::default()).expect("records");
            for record in records.map(|record| record.expect("a record")) {
                if header.is_control() {
                    let marker = EndTransactionMarker::parse(&record).expect("a marker");
                    if !marker.committed {
                        ignored.remove(&header.producer_id);
                    }
                } else if !(header.is_transactional() && ignored.contains(&header.producer_id))
                    && record.offset >= offsets.log_start
                {
                    apply(&mut rows, record.key.expect("a key"), record.value);
                }
            }
        }
        at = next;
    }
    rows
}
