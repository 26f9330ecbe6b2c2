//! What the cleaner knows of the transactions that it meets, from the transaction indexes and the batches themselves:
//! which records were aborted, and which markers have no record left to speak of. As Kafka's
//! `CleanedTransactionMetadata`.

use std::collections::{HashMap, HashSet};

use pelton_wire::record::{BatchHeader, EndTransactionMarker};

use crate::txn_index::AbortedTxn;

/// The transactions of the part of a log that is read in the order of offsets.
#[derive(Default)]
pub(crate) struct CleanedTransactions {
    /// Aborted transactions whose first record is still ahead, by first offset, the next one last.
    ahead: Vec<AbortedTxn>,
    /// Aborted ones that have begun, by producer, and whether one of their batches was met.
    aborted: HashMap<i64, (AbortedTxn, bool)>,
    /// Producers with a batch of a transaction that was not aborted.
    committed: HashSet<i64>,
}

/// What is to become of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MarkerVerdict {
    /// No batch of its transaction was met: it says nothing any more.
    pub(crate) empty: bool,
    /// The index entry that stays with it.
    pub(crate) entry: Option<AbortedTxn>,
}

impl CleanedTransactions {
    /// `aborted` are the entries of the transaction indexes of all segments to be read.
    pub(crate) fn new(mut aborted: Vec<AbortedTxn>) -> CleanedTransactions {
        aborted.sort_unstable_by_key(|txn| std::cmp::Reverse(txn.first_offset));
        aborted.dedup();
        CleanedTransactions { ahead: aborted, ..CleanedTransactions::default() }
    }

    /// Whether the records of this data batch were aborted.
    pub(crate) fn data_is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&header.producer_id) {
            Some((_, met)) => {
                *met = true;
                true
            }
            None => {
                self.committed.insert(header.producer_id);
                false
            }
        }
    }

    /// What is to become of a control batch; `marker` is absent if an earlier clean has emptied it, or if it is not one.
    pub(crate) fn marker(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
    ) -> MarkerVerdict {
        self.begin_up_to(header.last_offset());
        let Some(marker) = marker else {
            return MarkerVerdict { empty: header.records_count == 0, entry: None };
        };
        if marker.committed {
            return MarkerVerdict { empty: !self.committed.remove(&header.producer_id), entry: None };
        }
        match self.aborted.remove(&header.producer_id) {
            // The marker stays until all batches of its transaction have gone.
            Some((txn, true)) => MarkerVerdict { empty: false, entry: Some(txn) },
            Some((_, false)) | None => MarkerVerdict { empty: true, entry: None },
        }
    }

    fn begin_up_to(&mut self, offset: i64) {
        while let Some(txn) = self.ahead.pop_if(|txn| txn.first_offset <= offset) {
            self.aborted.entry(txn.producer_id).or_insert((txn, false));
        }
    }
}
