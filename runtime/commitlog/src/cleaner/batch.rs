//! What becomes of one batch: the decisions of Kafka's `Cleaner`, without a file.

use std::collections::HashMap;

use pelton_wire::record::{
    BatchHeader, BatchView, BuildError, DecompressLimit, EndTransactionMarker, FilterSpec, Filtered, Record,
    filter_batch,
};

use super::key_map::{Full, KeyOffsets};
use super::transactions::{CleanedTransactions, MarkerVerdict};
use crate::mutant::Mutant;
use crate::txn_index::AbortedTxn;

/// The last record of a producer that may still write: its sequence or its epoch must stay in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRecord {
    /// Its last data batch ends at this offset.
    Data(i64),
    /// Only a marker with this producer epoch is known.
    Marker(i16),
}

/// What a clean is told.
pub(crate) struct CleanRules {
    /// The broker's clock, ms.
    pub(crate) now_ms: i64,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// The last record of each producer that has not expired.
    pub(crate) last_records: HashMap<i64, LastRecord>,
    /// The offset before which this round cleans; the batch that ends there stays, if empty, so that its offset does.
    pub(crate) up_to: i64,
}

/// Counts of one clean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanCounts {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Records without a key: a compacted topic refuses them now, but may have taken them before it was one.
    pub(crate) keyless: u64,
}

/// Cleans batches in the order of their offsets.
pub(crate) struct BatchCleaner<'a> {
    map: &'a KeyOffsets,
    rules: &'a CleanRules,
    transactions: CleanedTransactions,
    counts: CleanCounts,
    scratch: Vec<u8>,
}

/// What a batch comes to.
pub(crate) struct Cleaned<'b> {
    pub(crate) bytes: Filtered<'b>,
    /// The index entry of an aborted transaction whose marker stays.
    pub(crate) aborted: Option<AbortedTxn>,
}

impl<'a> BatchCleaner<'a> {
    pub(crate) fn new(
        map: &'a KeyOffsets,
        rules: &'a CleanRules,
        transactions: CleanedTransactions,
    ) -> BatchCleaner<'a> {
        BatchCleaner { map, rules, transactions, counts: CleanCounts::default(), scratch: Vec::new() }
    }

    pub(crate) fn counts(&self) -> CleanCounts {
        self.counts
    }

    /// Decides about one batch.
    pub(crate) fn clean<'b>(&mut self, view: &BatchView<'b>) -> Result<Cleaned<'b>, BuildError> {
        let header = view.header();
        let MarkerVerdict { empty, entry } = self.look_at(view)?;
        let past_horizon = header.delete_horizon().is_some_and(|at| at <= self.rules.now_ms)
            || Mutant::TombstonesAtOnce.is_on();
        // A marker goes in three cleans: its data, then it gets a horizon, then it goes.
        let discard = if header.is_control() { empty && past_horizon } else { empty };
        let keep_empty = self.is_last_of_producer(header) || header.next_offset() == self.rules.up_to;
        let spec = FilterSpec {
            keep_empty,
            delete_horizon: self.rules.now_ms.saturating_add(self.rules.delete_retention_ms),
            marker_of_empty_transaction: empty && header.is_control(),
        };
        let (map, counts) = (self.map, &mut self.counts);
        let retained = |record: &Record<'_>| {
            counts.records_in += 1;
            let keep = !discard && (header.is_control() || is_retained(map, record, past_horizon, counts));
            counts.records_out += u64::from(keep);
            keep
        };
        let filtered = filter_batch(view, spec, retained, &mut self.scratch, DecompressLimit::STORED)?;
        self.counts.bytes_in += view.bytes().len() as u64;
        self.counts.bytes_out += match &filtered {
            Filtered::Removed => 0,
            Filtered::Whole(bytes) => bytes.len() as u64,
            Filtered::Rewritten(bytes) => bytes.len() as u64,
        };
        Ok(Cleaned { bytes: filtered, aborted: entry })
    }

    /// Whether the batch says nothing any more: its records were aborted, or it marks a transaction without records.
    fn look_at(&mut self, view: &BatchView<'_>) -> Result<MarkerVerdict, BuildError> {
        let header = view.header();
        if !header.is_control() {
            let empty = self.transactions.data_is_aborted(header);
            return Ok(MarkerVerdict { empty, entry: None });
        }
        let mut records = view.records(&mut self.scratch, DecompressLimit::STORED)?;
        let marker = records.next().transpose()?.and_then(|record| EndTransactionMarker::parse(&record).ok());
        Ok(self.transactions.marker(header, marker))
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        if !header.has_producer() {
            return false;
        }
        match self.rules.last_records.get(&header.producer_id) {
            Some(LastRecord::Data(offset)) => header.last_offset() == *offset,
            Some(LastRecord::Marker(epoch)) => header.is_control() && header.producer_epoch == *epoch,
            None => false,
        }
    }
}

/// Whether a data record stays: the newest of its key, and not a tombstone whose time is over.
fn is_retained(map: &KeyOffsets, record: &Record<'_>, past_horizon: bool, counts: &mut CleanCounts) -> bool {
    // Behind what the map has seen nothing is known, so all of it stays.
    if record.offset > map.latest() {
        return true;
    }
    let Some(key) = record.key else {
        counts.keyless += 1;
        return false;
    };
    let is_newest = map.get(key).is_none_or(|newest| record.offset >= newest);
    is_newest && (record.value.is_some() || !past_horizon)
}

/// Takes the keys of one batch into the map, unless it was aborted.
///
/// # Errors
/// The records cannot be read.
pub(crate) fn map_batch(
    map: &mut KeyOffsets,
    transactions: &mut CleanedTransactions,
    view: &BatchView<'_>,
    scratch: &mut Vec<u8>,
) -> Result<Result<(), Full>, BuildError> {
    let header = view.header();
    let is_aborted = !header.is_control() && transactions.data_is_aborted(header);
    if !header.is_control() && (!is_aborted || Mutant::AbortedKeysCount.is_on()) {
        for record in view.records(scratch, DecompressLimit::STORED)? {
            let record = record?;
            if let Some(key) = record.key
                && map.put(key, record.offset) == Err(Full)
            {
                return Ok(Err(Full));
            }
            map.seen_up_to(record.offset);
        }
    } else if header.is_control() {
        let mut records = view.records(scratch, DecompressLimit::STORED)?;
        let marker = records.next().transpose()?.and_then(|record| EndTransactionMarker::parse(&record).ok());
        transactions.marker(header, marker);
    }
    map.seen_up_to(header.last_offset());
    Ok(Ok(()))
}
