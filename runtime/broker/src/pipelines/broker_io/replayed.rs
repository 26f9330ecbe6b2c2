//! Partitions that a replay reads.

use std::sync::Arc;

use pelton_pipelines::io::{Filled, IoError, ReplayPartition};
use pelton_streams::manifest::values::Start;
use pelton_wire::record::Columns;

use super::source::{ReadFault, read_committed};
use crate::partition::{Isolation, Partition};

pub(super) struct StoredPartition {
    topic: String,
    partition: Arc<Partition>,
}

impl StoredPartition {
    pub(super) fn new(topic: &str, partition: Arc<Partition>) -> StoredPartition {
        StoredPartition { topic: topic.to_owned(), partition }
    }

    fn unreadable(&self, error: &dyn std::fmt::Display) -> IoError {
        IoError::Unavailable(format!("read {} [{}]: {error}", self.topic, self.partition.index()))
    }
}

impl ReplayPartition for StoredPartition {
    fn resolve(&self, at: Start) -> Result<i64, IoError> {
        let offsets = self.partition.offsets();
        Ok(match at {
            Start::Earliest => offsets.log_start,
            Start::Latest => offsets.last_stable,
            Start::Offset(offset) => offset.clamp(offsets.log_start, offsets.last_stable),
            Start::Timestamp(ms) => {
                let at = self.partition.reader().offset_for_timestamp(ms, offsets.last_stable);
                let at = at.map_err(|error| self.unreadable(&error))?;
                at.map_or(offsets.last_stable, |at| at.offset)
            }
        })
    }

    fn fill(&self, offset: i64, end: i64, records: &mut Columns) -> Result<Filled, IoError> {
        let readable = self.partition.readable_end(Isolation::ReadCommitted);
        let end_offset = readable.min(end);
        // Batches are read whole: one that the end lies inside of has records before it.
        match read_committed(&self.partition, offset, readable, true, records) {
            Ok(next_offset) => {
                records.cut(end);
                Ok(Filled { next_offset: next_offset.min(end), end_offset, deleted_unread: false })
            }
            Err(ReadFault::Deleted) => {
                let next_offset = self.partition.log_start_offset();
                Ok(Filled { next_offset, end_offset, deleted_unread: true })
            }
            Err(ReadFault::Unreadable(error)) => Err(self.unreadable(&error)),
            Err(ReadFault::BadBatch { offset, reason }) => {
                let (topic, partition) = (self.topic.clone(), self.partition.index());
                Err(IoError::BadBatch { topic, partition, offset, reason })
            }
        }
    }
}
