//! Reading a partition: for a fetch, by time, by epoch, and from its beginning.

use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::{ReadError, TimestampOffset};
use pelton_wire::record::{
    BatchError, BatchView, ControlError, DecompressLimit, EndTransactionMarker, RecordError, batches,
};

use super::{Fetched, Isolation, Partition, PartitionReadError};

/// Bytes read at once when a partition is replayed: large enough for the disk, small against memory.
const REPLAY_CHUNK: u64 = 1024 * 1024;

/// Why the broker's own records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A batch of it is damaged.
    #[error("a batch is damaged: {0}")]
    Batch(#[from] BatchError),
    /// Records of it are damaged.
    #[error("the records of the batch at offset {offset} are damaged: {source}")]
    Records {
        /// Where the batch starts.
        offset: i64,
        source: RecordError,
    },
    /// A marker of it is damaged.
    #[error("the marker at offset {offset} is damaged: {source}")]
    Marker {
        /// Where it is.
        offset: i64,
        source: ControlError,
    },
}

/// One thing that a replay meets.
#[derive(Clone, Copy, Debug)]
pub enum Replayed<'a> {
    /// A record.
    Record {
        offset: i64,
        /// Its timestamp (ms).
        timestamp: i64,
        /// The transactional producer that wrote it: it counts only once a marker commits it.
        producer_id: Option<i64>,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    },
    /// The end of a producer's transaction.
    Marker {
        producer_id: i64,
        /// Whether it was committed.
        commit: bool,
    },
}

impl Partition {
    /// Whether a read from `from` on is answered from memory, without touching a file.
    pub fn is_in_memory(&self, from: i64) -> bool {
        from >= self.high_watermark() || self.reader.is_in_memory(from)
    }

    /// The records that a fetch from `from` on may read, in about `max_bytes`; with `whole_batch` at least one batch,
    /// however large. Waits for the disk unless [`Partition::is_in_memory`].
    pub fn fetch(
        &self,
        from: i64,
        max_bytes: u64,
        whole_batch: bool,
        isolation: Isolation,
    ) -> Result<Fetched, PartitionReadError> {
        if self.gone.load(std::sync::atomic::Ordering::Acquire) {
            return Err(PartitionReadError::Gone);
        }
        let offsets = self.offsets();
        let up_to = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
        };
        let (range, aborted) = match isolation {
            Isolation::ReadCommitted if !Mutant::AbortedNotTold.is_on() => {
                self.reader.read_committed(from, max_bytes, up_to, whole_batch)?
            }
            Isolation::ReadCommitted | Isolation::ReadUncommitted => {
                (self.reader.read(from, max_bytes, up_to, whole_batch)?, Vec::new())
            }
        };
        let aborted = aborted.iter().map(|txn| (txn.producer_id, txn.first_offset)).collect();
        Ok(Fetched { slices: range.slices, bytes: range.bytes, offsets, aborted })
    }

    /// The first record below `end` that is not older than `timestamp` (ms). Blocking.
    pub fn first_from(&self, timestamp: i64, end: i64) -> Result<Option<TimestampOffset>, ReadError> {
        self.reader.offset_for_timestamp(timestamp, end)
    }

    /// The first record below `end` with the largest timestamp. Blocking.
    pub fn max_timestamp(&self, end: i64) -> Result<Option<TimestampOffset>, ReadError> {
        self.reader.max_timestamp_offset(end)
    }

    /// The largest leader epoch up to `epoch`, and where it ended: for the last one, where consumers may read to.
    /// `None` if the log knows none.
    pub fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        match self.reader.end_offset_for_epoch(epoch) {
            Some(end) => Some((end.epoch, end.end_offset.min(self.high_watermark()))),
            // The log learns of an epoch with its first record. The leader is in it before: "none" would tell a reader
            // that what it has read is gone.
            None if epoch == self.leader_epoch() => Some((epoch, self.high_watermark())),
            None => None,
        }
    }

    /// Calls `each` with every record and marker from `from` (or the start of the log) to its end, in order; where the
    /// next record will be. For the broker's own topics, before anything is appended to them. Blocking.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    pub fn replay(&self, from: i64, each: impl FnMut(Replayed<'_>)) -> Result<i64, ReplayError> {
        self.replay_until(from, self.log_end_offset(), each)
    }

    /// The same up to `end`, and a little further: whole batches are read. Blocking.
    ///
    /// # Errors
    /// The log cannot be read, or is damaged.
    pub fn replay_until(
        &self,
        from: i64,
        end: i64,
        mut each: impl FnMut(Replayed<'_>),
    ) -> Result<i64, ReplayError> {
        let mut next = from.max(self.log_start_offset());
        let mut scratch = Vec::new();
        while next < end {
            // Up to the end of the log: a batch that goes beyond `end` is not read otherwise.
            let range = self.reader.read(next, REPLAY_CHUNK, self.log_end_offset(), true)?;
            if range.next_offset <= next {
                break;
            }
            let (first, after) = (next, range.next_offset);
            let bytes = range.into_bytes()?;
            for view in batches(&bytes) {
                replay_batch(&view?, first, &mut scratch, &mut each)?;
            }
            next = after;
        }
        Ok(next)
    }
}

fn replay_batch(
    view: &BatchView<'_>,
    first: i64,
    scratch: &mut Vec<u8>,
    each: &mut impl FnMut(Replayed<'_>),
) -> Result<(), ReplayError> {
    let header = *view.header();
    let bad = |source| ReplayError::Records { offset: header.base_offset, source };
    let producer_id = header.is_transactional().then_some(header.producer_id);
    for record in view.records(scratch, DecompressLimit::STORED).map_err(bad)? {
        let record = record.map_err(bad)?;
        if header.is_control() {
            match EndTransactionMarker::parse(&record) {
                Ok(marker) => {
                    each(Replayed::Marker { producer_id: header.producer_id, commit: marker.committed })
                }
                // Control records of other kinds say nothing to a coordinator.
                Err(ControlError::NotMarker(_)) => {}
                Err(source) => {
                    return Err(ReplayError::Marker { offset: record.offset, source });
                }
            }
            continue;
        }
        // The first batch may begin before the offset that was asked for.
        if record.offset >= first {
            let (key, value) = (record.key, record.value);
            each(Replayed::Record {
                offset: record.offset,
                timestamp: record.timestamp,
                producer_id,
                key,
                value,
            });
        }
    }
    Ok(())
}
