//! What was done, in order, and what a directory must look like after a prefix of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pelton_commitlog::{Log, PartitionId, RecoveredPartition};
use pelton_wire::record::{DecompressLimit, batches};

/// One operation, as the journal gets it.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create(PartitionId),
    Delete(PartitionId),
    Append(PartitionId, Vec<u8>),
    Truncate(PartitionId, i64),
    LogStart(PartitionId, i64),
}

/// All operations of a run, and how many of them were acknowledged.
#[derive(Clone, Default)]
pub(crate) struct History {
    ops: Vec<Op>,
    /// The first so many are durable.
    acknowledged: Arc<AtomicUsize>,
}

impl History {
    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// The last operation surely did not happen.
    pub(crate) fn take_back(&mut self) {
        self.ops.pop();
    }

    pub(crate) fn submitted(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// To be called when everything so far is durable.
    pub(crate) fn acknowledge(&self) -> impl FnOnce() + Send + 'static {
        let (acknowledged, now) = (self.acknowledged.clone(), self.ops.len());
        move || {
            acknowledged.fetch_max(now, Ordering::AcqRel);
        }
    }

    /// After a crash the history is what was found.
    pub(crate) fn cut(&mut self, len: usize) {
        self.ops.truncate(len);
        self.acknowledged.store(len, Ordering::Release);
    }
}

/// A log: its start, and all values from offset 0 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LogState {
    log_start: i64,
    values: Vec<Vec<u8>>,
}

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    logs: BTreeMap<PartitionId, LogState>,
}

impl State {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(id) => drop(self.logs.insert(id.clone(), LogState::default())),
            Op::Delete(id) => drop(self.logs.remove(id)),
            Op::Append(id, value) => self.log(id).values.push(value.clone()),
            Op::Truncate(id, end) => self.log(id).values.truncate(*end as usize),
            Op::LogStart(id, start) => self.log(id).log_start = *start,
        }
    }

    fn log(&mut self, id: &PartitionId) -> &mut LogState {
        self.logs.get_mut(id).expect("operations come after creation")
    }

    /// What a reader sees: values below the start do not matter.
    fn visible(&self) -> BTreeMap<&PartitionId, (i64, &[Vec<u8>])> {
        let log = |log: &LogState| log.log_start;
        self.logs.iter().map(|(id, l)| (id, (log(l), &l.values[log(l) as usize..]))).collect()
    }
}

/// The values of a log from its start to its end, read as a consumer would.
fn read(log: &Log, what: &str) -> (i64, Vec<Vec<u8>>) {
    let reader = log.reader();
    let offsets = reader.offsets();
    assert_eq!(offsets.high_watermark, offsets.log_end, "{what}: what a start finds is durable");
    let (mut at, mut values) = (offsets.log_start, Vec::new());
    while at < offsets.log_end {
        let range = reader.read(at, 4096, offsets.log_end, true);
        let range = range.unwrap_or_else(|error| panic!("{what}: {} at {at}: {error}", log.id()));
        assert!(
            range.next_offset > at && !range.slices.is_empty(),
            "{what}: {} gives nothing at {at}",
            log.id()
        );
        at = range.next_offset;
        let bytes = range.into_bytes().expect("a simulated read does not fail");
        for batch in batches(&bytes) {
            let mut scratch = Vec::new();
            let batch = batch.unwrap_or_else(|error| panic!("{what}: {}: {error}", log.id()));
            let records = batch.records(&mut scratch, DecompressLimit::default()).expect("records");
            values.extend(records.map(|record| record.expect("a record").value.expect("a value").to_vec()));
        }
    }
    (offsets.log_start, values)
}

/// Checks that what was found is the state after a prefix of the operations that holds all acknowledged ones; answers its length.
pub(crate) fn check(history: &History, recovered: &[RecoveredPartition], what: &str) -> usize {
    let found: BTreeMap<_, _> = recovered.iter().map(|p| (p.id.clone(), read(p.log(), what))).collect();
    assert_eq!(found.len(), recovered.len(), "{what}: a partition was found twice");
    let mut state = State::default();
    let acknowledged = history.acknowledged();
    for len in 0..=history.ops.len() {
        if len > 0 {
            state.apply(&history.ops[len - 1]);
        }
        if len >= acknowledged && is(&state, &found) {
            return len;
        }
    }
    describe(history, &found, acknowledged, what)
}

fn is(state: &State, found: &BTreeMap<PartitionId, (i64, Vec<Vec<u8>>)>) -> bool {
    let visible = state.visible();
    visible.len() == found.len()
        && visible.iter().zip(found).all(
            |((id, (start, values)), (found_id, (found_start, found_values)))| {
                *id == found_id && start == found_start && *values == &found_values[..]
            },
        )
}

fn describe(
    history: &History,
    found: &BTreeMap<PartitionId, (i64, Vec<Vec<u8>>)>,
    acknowledged: usize,
    what: &str,
) -> ! {
    let mut state = State::default();
    history.ops[..acknowledged].iter().for_each(|op| state.apply(op));
    let expected: Vec<_> =
        state.visible().iter().map(|(id, (start, v))| (id.to_string(), *start, v.len())).collect();
    let found: Vec<_> = found.iter().map(|(id, (start, v))| (id.to_string(), *start, v.len())).collect();
    panic!(
        "{what}: no prefix of the operations explains what was found.\nacknowledged {acknowledged} of {}\n\
         (partition, log start, records) acknowledged: {expected:?}\nfound: {found:?}",
        history.ops.len()
    );
}
