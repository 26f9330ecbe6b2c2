//! Records that come over HTTP: placed, checked by the rules of their topic and written, as a Kafka client's are.
//!
//! Without an idempotency key they are appended as an acks=all produce request's. With one they are written in a transaction
//! together with a record of `__pelton_idempotency` that remembers the answer ([`keys`]), so a request that is sent again within
//! a day is answered and not written again, whatever crashes in between.

mod batch;
mod keys;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton_partitioner::PartitionerKind;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use self::batch::{Part, parts};
pub(crate) use self::keys::{KEY_BYTES_MAX, KeyRefused};
use self::writer::{KeyedWrite, Writer};
use crate::api::produce::Producing;
use crate::partition::acks::Acks;
use crate::topics::Topic;

/// Records of one request.
pub(crate) const RECORDS_MAX: usize = 10_000;
/// How long a request waits for the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewRecord {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    /// Milliseconds since 1970-01-01 UTC; none: the time of writing.
    pub(crate) timestamp: Option<i64>,
    /// Where it goes, if the request says so.
    pub(crate) partition: Option<i32>,
}

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// In the order of the request.
    pub(crate) records: Vec<Place>,
    /// They are tickets of a topic with a partitioner of its own, not yet places in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) tickets: bool,
}

/// Why records were not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The topic does not take them. Nothing was written.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Key(#[from] KeyRefused),
    /// Later it may work. Without an idempotency key some of it may be written.
    #[error("{0}")]
    Unavailable(String),
}

/// What writes them.
pub(crate) struct Records {
    parts: Arc<Producing>,
    /// Who writes what has an idempotency key; there once somebody has sent one.
    writer: OnceCell<Writer>,
}

impl Records {
    pub(crate) fn new(parts: Arc<Producing>) -> Records {
        Records { parts, writer: OnceCell::new() }
    }

    /// Writes the records of a request, all of them in its order. `digest` is that of the request, which one that is sent again
    /// with the same key has.
    pub(crate) async fn write(
        &self,
        topic: &Arc<Topic>,
        records: Vec<NewRecord>,
        rule: PartitionerKind,
        key: Option<(String, [u8; 32])>,
    ) -> Result<Written, WriteError> {
        let stored_in =
            self.parts.topics.intake(topic).map_err(|error| WriteError::Refused(error.to_string()))?;
        let count = records.len();
        let parts = parts(topic, records, rule)?;
        self.check_room(topic, stored_in.as_ref())?;
        let tickets = stored_in.is_some();
        let stored_in = stored_in.unwrap_or_else(|| Arc::clone(topic));
        if let Some((key, digest)) = key {
            let writer = self.writer.get_or_try_init(|| Writer::start(Arc::clone(&self.parts))).await?;
            let topic = Arc::clone(topic);
            return writer.write(KeyedWrite { topic, stored_in, parts, count, tickets, key, digest }).await;
        }
        let records = self.append(topic, &stored_in, parts, count).await?;
        Ok(Written { records, tickets })
    }

    fn check_room(&self, topic: &Topic, intake: Option<&Arc<Topic>>) -> Result<(), WriteError> {
        let first = intake.and_then(|intake| intake.local.first()).and_then(|partition| partition.intake());
        let (Some(intake), Some(partitioner)) = (first, &topic.config.partitioner) else { return Ok(()) };
        if intake.unrouted_bytes() < partitioner.intake_max_bytes {
            return Ok(());
        }
        let why =
            "more of the topic is not routed yet than `pelton.intake.max.bytes` allows: try again later";
        Err(WriteError::Unavailable(why.to_owned()))
    }

    /// Appends without a transaction.
    async fn append(
        &self,
        topic: &Topic,
        stored_in: &Topic,
        parts: Vec<Part>,
        count: usize,
    ) -> Result<Vec<Place>, WriteError> {
        let Producing { log_dir, clock, metrics, unpack, .. } = &*self.parts;
        let unavailable = |error: &dyn std::fmt::Display| WriteError::Unavailable(error.to_string());
        // All of them first, so that one that is refused leaves nothing behind.
        let mut batches = Vec::with_capacity(parts.len());
        for part in parts {
            let batch = part.batch(topic, None, clock.now_ms(), *unpack)?;
            let partition = stored_in.partition(part.partition).map_err(|error| unavailable(&error))?;
            batches.push((part, Arc::clone(partition), batch));
        }
        let bytes = batches.iter().map(|(_, _, batch)| batch.len() as u64).sum();
        let room = log_dir.permit(bytes).await.map_err(|error| unavailable(&error))?;
        let acks = Acks::new();
        let mut places = vec![Place { partition: -1, offset: -1 }; count];
        for (part, partition, batch) in batches {
            let (records, bytes) = (part.records.len() as u64, batch.len());
            let appended = partition.append_client(
                batch,
                &room,
                clock.now_ms(),
                stored_in.config.durability,
                Some(&acks),
            );
            let appended = appended.map_err(|error| unavailable(&error))?;
            metrics.produced(records, bytes);
            part.note(appended.base_offset, &mut places);
        }
        drop(room);
        match tokio::time::timeout(PATIENCE, acks.wait()).await {
            Ok(Ok(())) => Ok(places),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(unavailable(
                &"the records did not become durable in time; whether they are written is not known",
            )),
        }
    }
}
