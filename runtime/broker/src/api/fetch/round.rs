//! The result of one look at the open partitions.

use pelton_wire::message::fetch::{AbortedTransaction, PartitionData};
use pelton_wire::{ErrorCode, Records};

use crate::api::reply::Externals;
use crate::partition::{Fetched, Isolation};

/// The result of one look.
#[derive(Default)]
pub(super) struct Round {
    /// By the number of the partition in its list.
    pub(super) answers: Vec<(u32, PartitionData)>,
    pub(super) externals: Externals,
    /// Bytes of records.
    pub(super) bytes: u64,
    /// An error, or a divergence, that the client must act on.
    pub(super) failed: bool,
}

impl Round {
    pub(super) fn add(&mut self, index: i32, fetched: Fetched, isolation: Isolation) -> PartitionData {
        self.bytes += fetched.bytes;
        let aborted = fetched.aborted.into_iter();
        let aborted =
            aborted.map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset });
        PartitionData {
            partition_index: index,
            high_watermark: fetched.offsets.high_watermark,
            last_stable_offset: fetched.offsets.last_stable,
            log_start_offset: fetched.offsets.log_start,
            aborted_transactions: (isolation == Isolation::ReadCommitted).then(|| aborted.collect()),
            records: Some(self.externals.add(fetched.slices)),
            ..Default::default()
        }
    }

    pub(super) fn fail(&mut self, index: i32, error_code: ErrorCode) -> PartitionData {
        self.failed = true;
        PartitionData {
            partition_index: index,
            error_code,
            high_watermark: -1,
            aborted_transactions: None,
            records: Some(Records::default()),
            ..Default::default()
        }
    }
}
