//! `__consumer_offsets` as a topic of this broker.

use std::sync::Arc;

use bytes::Bytes;
use pelton_commitlog::AppendError;
use tokio::sync::mpsc;

use super::config::LOAD_RECORDS_PER_PIECE;
use super::store::{GroupStore, KeyValue, OFFSETS_TOPIC, StoreError, StoreFuture, Stored};
use pelton_partitions::blocking::run_blocking;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::{
    InternalAppend, InternalAppendError, InternalRecord, Partition, PartitionAppendError, Replayed, TxnMarker,
};
use pelton_partitions::producer_id::ProducerIdentity;
use pelton_partitions::topic_config::Overrides;
use pelton_partitions::topics::{NewTopic, TopicError, Topics};

/// The topic in the broker's catalogue.
pub struct TopicStore {
    topics: Arc<Topics>,
    clock: Arc<dyn Clock>,
    /// `offsets.topic.segment.bytes`
    segment_bytes: u32,
    /// `pelton.offsets.batch.max.bytes`
    batch_max_bytes: usize,
}

impl TopicStore {
    pub fn new(
        topics: Arc<Topics>,
        clock: Arc<dyn Clock>,
        segment_bytes: u32,
        batch_max_bytes: usize,
    ) -> TopicStore {
        TopicStore { topics, clock, segment_bytes, batch_max_bytes }
    }

    fn partition(&self, index: i32) -> Result<Arc<Partition>, StoreError> {
        self.topics.partition(OFFSETS_TOPIC, index).map_err(|not_here| unavailable(&not_here))
    }

    fn place(
        &self,
        index: i32,
        producer: Option<ProducerIdentity>,
        records: Vec<KeyValue>,
        now_ms: i64,
    ) -> Result<InternalAppend, StoreError> {
        // The other fields of a record take far fewer bytes.
        const RECORD_OVERHEAD_BYTES: usize = 64;
        let partition = self.partition(index)?;
        let size =
            |r: &KeyValue| r.key.len() + r.value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES;
        if records.iter().map(size).sum::<usize>() > self.batch_max_bytes {
            return Err(StoreError::TooLarge);
        }
        let records: Vec<InternalRecord> =
            records.into_iter().map(|r| InternalRecord { key: Some(r.key), value: r.value }).collect();
        let appended = match producer {
            None => partition.append_records(&records, now_ms),
            Some(producer) => partition.append_transactional(producer, &records, now_ms),
        };
        appended.map_err(|error| unavailable(&error))
    }
}

fn landing(append: InternalAppend) -> StoreFuture<i64> {
    Box::pin(async move { append.durable().await.map_err(|error| unavailable(&error)) })
}

impl GroupStore for TopicStore {
    fn partition_count(&self) -> Option<i32> {
        self.topics.get(OFFSETS_TOPIC).map(|topic| topic.partition_count)
    }

    fn create(&self, partitions: i32) -> StoreFuture<()> {
        let (topics, now_ms) = (Arc::clone(&self.topics), self.clock.now_ms());
        let overrides = settings(self.segment_bytes);
        Box::pin(async move {
            let new = NewTopic { name: OFFSETS_TOPIC.to_owned(), partitions, overrides };
            match topics.create(new, now_ms).await {
                Ok(_) | Err(TopicError::Exists(_)) => Ok(()),
                Err(error) => Err(unavailable(&error)),
            }
        })
    }

    fn append(
        &self,
        partition: i32,
        producer: Option<ProducerIdentity>,
        records: Vec<KeyValue>,
        timestamp_ms: i64,
    ) -> Result<StoreFuture<i64>, StoreError> {
        self.place(partition, producer, records, timestamp_ms).map(landing)
    }

    fn append_marker(
        &self,
        partition: i32,
        marker: TxnMarker,
        timestamp_ms: i64,
    ) -> Result<StoreFuture<i64>, StoreError> {
        let appended = self.partition(partition)?.append_marker(marker, timestamp_ms);
        appended.map(landing).map_err(|error| match error {
            InternalAppendError::Append(PartitionAppendError::Log(AppendError::InvalidProducerEpoch {
                ..
            })) => StoreError::ProducerFenced,
            InternalAppendError::Append(PartitionAppendError::Log(AppendError::CoordinatorFenced {
                ..
            })) => StoreError::CoordinatorFenced,
            other => unavailable(&other),
        })
    }

    fn size_bytes(&self, partition: i32) -> u64 {
        self.partition(partition).map_or(0, |partition| partition.reader().size_bytes())
    }

    fn end_offset(&self, partition: i32) -> i64 {
        self.partition(partition).map_or(0, |partition| partition.high_watermark())
    }

    fn delete_before(&self, partition: i32, offset: i64) -> StoreFuture<()> {
        let (partition, now_ms) = (self.partition(partition), self.clock.now_ms());
        Box::pin(async move {
            let partition = partition?;
            let deleted = run_blocking(move || partition.delete_before(offset, now_ms)).await;
            deleted.map_err(|error| unavailable(&error))
        })
    }

    fn read(&self, partition: i32, into: mpsc::Sender<Vec<Stored>>) -> StoreFuture<()> {
        let partition = match self.partition(partition) {
            Ok(partition) => partition,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let reading = tokio::spawn(run_blocking(move || replay(&partition, &into)));
        Box::pin(async move { reading.await.unwrap_or_else(|error| Err(unavailable(&error))) })
    }
}

/// Kafka's settings for this topic.
fn settings(segment_bytes: u32) -> Overrides {
    let settings = [("cleanup.policy", "compact".to_owned()), ("segment.bytes", segment_bytes.to_string())];
    settings.map(|(name, value)| (name.to_owned(), value)).into()
}

fn replay(partition: &Partition, into: &mpsc::Sender<Vec<Stored>>) -> Result<(), StoreError> {
    let mut piece = Vec::with_capacity(LOAD_RECORDS_PER_PIECE);
    // A receiver that is gone has stopped, and needs no more.
    let send = |piece: Vec<Stored>| drop(into.blocking_send(piece));
    partition
        .replay(0, |met| {
            piece.push(stored(met));
            if piece.len() == LOAD_RECORDS_PER_PIECE {
                send(std::mem::replace(&mut piece, Vec::with_capacity(LOAD_RECORDS_PER_PIECE)));
            }
        })
        .map_err(|error| unavailable(&error))?;
    send(piece);
    Ok(())
}

fn stored(met: Replayed<'_>) -> Stored {
    match met {
        Replayed::Record { offset, producer_id, key, value, timestamp: _ } => Stored::Record {
            offset,
            producer_id,
            key: Bytes::copy_from_slice(key.unwrap_or_default()),
            value: value.map(Bytes::copy_from_slice),
        },
        Replayed::Marker { producer_id, commit } => Stored::Marker { producer_id, commit },
    }
}

fn unavailable(reason: &impl ToString) -> StoreError {
    StoreError::Unavailable { reason: reason.to_string() }
}
