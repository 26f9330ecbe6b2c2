//! The vector that the log is compared with.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::batches::Producer;

/// A batch as it must be stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) base: i64,
    pub(crate) last: i64,
    pub(crate) bytes: Bytes,
    pub(crate) timestamps: Vec<i64>,
    pub(crate) role: Role,
    pub(crate) producer: Option<Producer>,
}

/// What a batch is to transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    InTransaction { producer_id: i64 },
    Marker { producer_id: i64, committed: bool },
}

/// An aborted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Aborted {
    pub(crate) last: i64,
    pub(crate) first: i64,
    pub(crate) producer_id: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Everything that was ever appended and not truncated, also what lies below the start.
    pub(crate) history: Vec<Stored>,
    pub(crate) log_start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) end: i64,
}

impl Model {
    /// Cuts to the batches that end below `offset`. Returns the new end.
    pub(crate) fn truncate(&mut self, offset: i64) -> i64 {
        let kept = self.history.partition_point(|b| b.last < offset);
        let base = self.history.get(kept).map_or(offset, |b| b.base);
        self.history.truncate(kept);
        self.end = base.min(offset).max(self.log_start);
        self.high_watermark = self.high_watermark.min(self.end);
        self.end
    }

    /// Last sequence of a producer, and the offset of its last batch.
    pub(crate) fn last_sequence(&self, id: i64) -> Option<(i32, i64)> {
        let last = self.history.iter().rev().find(|b| b.producer.is_some_and(|p| p.id == id))?;
        Some((last.producer?.sequence + last.timestamps.len() as i32 - 1, last.last))
    }

    /// The batches that a read from `from` may give, the first one first.
    pub(crate) fn readable(&self, from: i64, up_to: i64) -> impl Iterator<Item = &Stored> {
        let start = self.history.partition_point(|b| b.last < from);
        self.history[start..].iter().take_while(move |b| b.last < up_to)
    }

    /// First record at or after the log start with at least this timestamp.
    pub(crate) fn at_timestamp(&self, timestamp: i64, up_to: i64) -> Option<(i64, i64)> {
        self.records().find(|(_, t)| *t >= timestamp).filter(|(offset, _)| *offset < up_to)
    }

    fn records(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        let of_batch = |b: &Stored| (b.base..).zip(b.timestamps.clone()).collect::<Vec<_>>();
        self.history.iter().flat_map(of_batch).filter(|(offset, _)| *offset >= self.log_start)
    }

    /// The largest timestamp of batches below `up_to`, and the first record that has it.
    pub(crate) fn at_max_timestamp(&self, up_to: i64) -> Option<i64> {
        let batches = self.history.iter().filter(|b| b.last >= self.log_start && b.last < up_to);
        batches.flat_map(|b| b.timestamps.iter().copied()).max()
    }

    /// Aborted transactions, and the first offset that is not stable yet.
    pub(crate) fn transactions(&self) -> (Vec<Aborted>, Option<i64>) {
        let mut open: BTreeMap<i64, i64> = BTreeMap::new();
        let mut aborted = Vec::new();
        let mut undecided = Vec::new();
        for batch in &self.history {
            match batch.role {
                Role::Plain => {}
                Role::InTransaction { producer_id } => drop(open.entry(producer_id).or_insert(batch.base)),
                Role::Marker { producer_id, committed } => {
                    let Some(first) = open.remove(&producer_id) else { continue };
                    if !committed {
                        aborted.push(Aborted { last: batch.base, first, producer_id });
                    }
                    if batch.base >= self.high_watermark {
                        undecided.push(first);
                    }
                }
            }
        }
        (aborted, open.into_values().chain(undecided).min())
    }

    pub(crate) fn last_stable(&self) -> i64 {
        self.transactions().1.unwrap_or(i64::MAX).min(self.high_watermark).max(self.log_start)
    }
}
