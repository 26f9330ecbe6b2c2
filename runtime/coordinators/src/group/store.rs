//! Where the coordinator keeps its records: `__consumer_offsets`, seen through the little that it needs of it.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;

use pelton_partitions::partition::TxnMarker;
use pelton_partitions::producer_id::ProducerIdentity;

/// The name of the topic.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The answer of a store, later.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// A record to append. Without a value it deletes what has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// The entries of a log, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A record; `producer_id` is set when it belongs to a transaction. A key that is absent is empty.
    Record { offset: i64, producer_id: Option<i64>, key: Bytes, value: Option<Bytes> },
    /// The end of a producer's transaction.
    Marker { producer_id: i64, commit: bool },
}

impl Stored {
    /// Where a record is.
    pub fn offset(&self) -> Option<i64> {
        match self {
            Stored::Record { offset, .. } => Some(*offset),
            Stored::Marker { .. } => None,
        }
    }
}

/// Why a store refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Definite: nothing was written.
    #[error("the records do not fit into one batch of `{OFFSETS_TOPIC}`")]
    TooLarge,
    /// Definite: the marker's producer has a newer epoch here.
    #[error("the marker has an older epoch of its producer")]
    ProducerFenced,
    /// Definite: a newer coordinator has ended a transaction of the marker's producer here.
    #[error("the marker is of an older coordinator")]
    CoordinatorFenced,
    /// Definite for a full disk; after any other failure of the disk the broker stops.
    #[error("`{OFFSETS_TOPIC}` cannot be used: {reason}")]
    Unavailable { reason: String },
}

/// The partitions of `__consumer_offsets`.
pub trait GroupStore: Send + Sync + 'static {
    /// How many there are; `None` while the topic does not exist.
    fn partition_count(&self) -> Option<i32>;

    /// Creates the topic, unless it is there. Done once that is durable.
    fn create(&self, partitions: i32) -> StoreFuture<()>;

    /// Appends one batch. It has its place in the partition when the call returns, so that calls in order are records
    /// in order; the future ends with the batch's base offset once it is durable. Futures of a partition end in order.
    /// A future that is dropped changes nothing. An error means that it has no place. With a producer the batch is part
    /// of its transaction.
    fn append(
        &self,
        partition: i32,
        producer: Option<ProducerIdentity>,
        records: Vec<KeyValue>,
        timestamp_ms: i64,
    ) -> Result<StoreFuture<i64>, StoreError>;

    /// Appends the end of a producer's transaction. It has its place when this returns; the future is as that of
    /// [`GroupStore::append`].
    fn append_marker(
        &self,
        partition: i32,
        marker: TxnMarker,
        timestamp_ms: i64,
    ) -> Result<StoreFuture<i64>, StoreError>;

    /// Bytes of a partition.
    fn size_bytes(&self, partition: i32) -> u64;

    /// One past the last durable record of a partition.
    fn end_offset(&self, partition: i32) -> i64;

    /// Deletes every record before an offset, which is durable.
    fn delete_before(&self, partition: i32, offset: i64) -> StoreFuture<()>;

    /// Reads a partition from its start to its end and sends what it holds, in order and in pieces. Reading starts with
    /// the call; the future ends after the last piece, and must be asked, since an error comes through it alone.
    fn read(&self, partition: i32, into: mpsc::Sender<Vec<Stored>>) -> StoreFuture<()>;
}

#[cfg(test)]
pub mod fake;
