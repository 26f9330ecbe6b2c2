//! Reading a partition of `__consumer_offsets` at the start, while requests are refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::error::GroupError;
use super::super::shard::Shard;
use super::super::store::{OFFSETS_TOPIC, StoreError};
use super::Owner;
use super::message::{Message, refuse};
use crate::unreadable::UnreadableRecord;

/// How long to wait before a partition that could not be read is tried again.
const LOAD_RETRY: Duration = Duration::from_secs(5);

/// Pieces of a partition that wait to be replayed: the reader is one ahead.
const LOAD_PIECES: usize = 1;

/// What reading a partition at the start has come to.
pub(super) enum Loaded {
    Whole,
    Unreadable(UnreadableRecord),
    Stopped,
}

/// Why a partition was not read.
enum ReadError {
    Store(StoreError),
    Record(UnreadableRecord),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> ReadError {
        ReadError::Store(error)
    }
}

impl From<UnreadableRecord> for ReadError {
    fn from(record: UnreadableRecord) -> ReadError {
        ReadError::Record(record)
    }
}

impl Owner {
    /// Replays the partition; meanwhile requests are refused.
    pub(super) async fn load(&mut self, requests: &mut mpsc::Receiver<Message>) -> Loaded {
        let started = Instant::now();
        let mut delay = Duration::ZERO;
        loop {
            let reading = self.replay(delay);
            tokio::pin!(reading);
            let read = loop {
                tokio::select! {
                    read = &mut reading => break read,
                    request = requests.recv() => match request {
                        Some(Message::Stop) | None => {
                            requests.close();
                            return Loaded::Stopped;
                        }
                        Some(request) => refuse(request, GroupError::CoordinatorLoadInProgress),
                    },
                }
            };
            match read {
                Ok(shard) => {
                    self.shard = shard;
                    self.landed_before = self.store.end_offset(self.partition);
                    tracing::debug!(partition = self.partition, took = ?started.elapsed(), "groups loaded");
                    return Loaded::Whole;
                }
                Err(ReadError::Record(record)) => {
                    tracing::error!(%record, "the groups of a partition cannot be served");
                    return Loaded::Unreadable(record);
                }
                Err(ReadError::Store(error)) => {
                    tracing::error!(partition = self.partition, %error, "groups cannot be loaded; trying again");
                    delay = LOAD_RETRY;
                }
            }
        }
    }

    fn replay(&self, delay: Duration) -> impl Future<Output = Result<Shard, ReadError>> + use<> {
        let mut shard = Shard::new(self.limits.clone(), self.count.clone());
        let (store, partition, clock) = (Arc::clone(&self.store), self.partition, self.clock.clone());
        async move {
            tokio::time::sleep(delay).await;
            let (into, mut pieces) = mpsc::channel(LOAD_PIECES);
            let reading = store.read(partition, into);
            while let Some(records) = pieces.recv().await {
                for record in records {
                    let offset = record.offset();
                    shard.replay(record, clock.now()).map_err(|error| UnreadableRecord {
                        topic: OFFSETS_TOPIC,
                        partition,
                        offset: offset.unwrap_or(-1),
                        reason: error.to_string(),
                    })?;
                }
            }
            reading.await?;
            shard.resume(clock.now());
            Ok(shard)
        }
    }
}
