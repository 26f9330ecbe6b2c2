//! A store in memory that a test can hold up and break.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use pelton_partitions::partition::TxnMarker;
use pelton_partitions::producer_id::ProducerIdentity;

use super::{GroupStore, KeyValue, StoreError, StoreFuture, Stored};

#[derive(Default)]
struct Log {
    records: Vec<Stored>,
    /// Records before it are deleted.
    start: usize,
    held: VecDeque<(oneshot::Sender<Result<i64, StoreError>>, i64)>,
}

#[derive(Default)]
struct Inner {
    logs: Vec<Log>,
    hold: bool,
    reads: Option<tokio::sync::watch::Receiver<bool>>,
    fail: Option<StoreError>,
}

/// Keeps every batch; with [`MemoryStore::hold`], its durability waits for [`MemoryStore::release`].
#[derive(Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

impl MemoryStore {
    /// From now on nothing becomes durable by itself.
    pub fn hold(&self) {
        self.inner.lock().hold = true;
    }

    /// Everything held is durable, and so is what comes.
    pub fn release(&self) {
        let mut inner = self.inner.lock();
        inner.hold = false;
        for log in &mut inner.logs {
            for (reply, base) in log.held.drain(..) {
                let _ = reply.send(Ok(base));
            }
        }
    }

    /// Reads wait until `true` is sent.
    pub fn hold_reads(&self) -> tokio::sync::watch::Sender<bool> {
        let (go, wait) = tokio::sync::watch::channel(false);
        self.inner.lock().reads = Some(wait);
        go
    }

    /// Every append fails from now on, or with `None` works again.
    pub fn fail(&self, error: Option<StoreError>) {
        self.inner.lock().fail = error;
    }

    /// All records of a partition.
    pub fn records(&self, partition: usize) -> Vec<Stored> {
        let inner = self.inner.lock();
        let log = &inner.logs[partition];
        log.records[log.start..].to_vec()
    }
}

impl MemoryStore {
    fn place(
        &self,
        partition: i32,
        records: impl IntoIterator<Item = impl FnOnce(i64) -> Stored>,
    ) -> Result<StoreFuture<i64>, StoreError> {
        let mut inner = self.inner.lock();
        if let Some(error) = inner.fail.clone() {
            return Err(error);
        }
        let hold = inner.hold;
        let log = &mut inner.logs[usize::try_from(partition).unwrap()];
        let base = i64::try_from(log.records.len()).unwrap();
        log.records.extend((base..).zip(records).map(|(offset, record)| record(offset)));
        let (reply, durable) = oneshot::channel();
        if hold {
            log.held.push_back((reply, base));
        } else {
            reply.send(Ok(base)).unwrap();
        }
        Ok(Box::pin(async move { durable.await.unwrap() }))
    }
}

impl GroupStore for MemoryStore {
    fn partition_count(&self) -> Option<i32> {
        let count = self.inner.lock().logs.len();
        (count > 0).then(|| i32::try_from(count).unwrap())
    }

    fn create(&self, partitions: i32) -> StoreFuture<()> {
        let mut inner = self.inner.lock();
        if inner.logs.is_empty() {
            inner.logs.resize_with(usize::try_from(partitions).unwrap(), Log::default);
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn append(
        &self,
        partition: i32,
        producer: Option<ProducerIdentity>,
        records: Vec<KeyValue>,
        _timestamp_ms: i64,
    ) -> Result<StoreFuture<i64>, StoreError> {
        let producer_id = producer.map(|producer| producer.id);
        let records = records.into_iter().map(|record| {
            move |offset| Stored::Record { offset, producer_id, key: record.key, value: record.value }
        });
        self.place(partition, records)
    }

    fn append_marker(
        &self,
        partition: i32,
        marker: TxnMarker,
        _timestamp_ms: i64,
    ) -> Result<StoreFuture<i64>, StoreError> {
        let TxnMarker { producer, commit, .. } = marker;
        self.place(partition, [|_| Stored::Marker { producer_id: producer.id, commit }])
    }

    /// A hundred bytes a record.
    fn size_bytes(&self, partition: i32) -> u64 {
        let inner = self.inner.lock();
        inner
            .logs
            .get(usize::try_from(partition).unwrap())
            .map_or(0, |log| (log.records.len() - log.start) as u64 * 100)
    }

    fn end_offset(&self, partition: i32) -> i64 {
        i64::try_from(self.inner.lock().logs[usize::try_from(partition).unwrap()].records.len()).unwrap()
    }

    fn delete_before(&self, partition: i32, offset: i64) -> StoreFuture<()> {
        self.inner.lock().logs[usize::try_from(partition).unwrap()].start = usize::try_from(offset).unwrap();
        Box::pin(std::future::ready(Ok(())))
    }

    fn read(&self, partition: i32, into: mpsc::Sender<Vec<Stored>>) -> StoreFuture<()> {
        let records = self.records(usize::try_from(partition).unwrap());
        let held = self.inner.lock().reads.clone();
        tokio::spawn(async move {
            if let Some(mut held) = held {
                held.wait_for(|go| *go).await.unwrap();
            }
            for piece in records.chunks(3) {
                into.send(piece.to_vec()).await.unwrap();
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }
}
