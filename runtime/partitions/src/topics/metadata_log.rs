//! Writing and replaying `__cluster_metadata-0`.

use std::sync::Arc;

use pelton_wire::record::{BatchBuilder, BatchOptions, BuildError};
use uuid::Uuid;

use super::record::{Change, Metadata, MetadataRecordError};
use crate::clock::Clock;
use crate::partition::acks::NotDurable;
use crate::partition::{InternalAppendError, Partition, ReplayError, Replayed};

/// The topic of the catalogue's own partition.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Its id: Kafka's for the same topic, and never given to another.
pub const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);

/// Why a change of the metadata was not written.
#[derive(Debug, thiserror::Error)]
pub enum MetadataWriteError {
    /// The records make no batch.
    #[error("the metadata records cannot be written: {0}")]
    Build(#[from] BuildError),
    /// The log did not take them.
    #[error("the metadata log does not take them: {0}")]
    Append(#[from] InternalAppendError),
    /// The storage failed before they were durable.
    #[error("the metadata log failed: {0}")]
    NotDurable(#[from] NotDurable),
}

/// Why the metadata could not be read at start.
#[derive(Debug, thiserror::Error)]
pub enum MetadataReplayError {
    /// The partition cannot be read.
    #[error("`{METADATA_TOPIC}-0` cannot be read: {0}")]
    Replay(#[from] ReplayError),
    /// A record of it is not understood.
    #[error("the record at offset {offset} of `{METADATA_TOPIC}-0` cannot be understood: {reason}")]
    Record { offset: i64, reason: String },
}

/// The metadata and the log that it is kept in.
pub struct MetadataLog {
    partition: Arc<Partition>,
    state: Metadata,
    clock: Arc<dyn Clock>,
}

/// Records written in one batch of a snapshot.
const SNAPSHOT_BATCH: usize = 500;

impl MetadataLog {
    /// Replays the log. Blocking.
    pub fn replay(partition: Arc<Partition>, clock: Arc<dyn Clock>) -> Result<Self, MetadataReplayError> {
        let mut state = Metadata::default();
        let mut bad = None;
        partition.replay(0, |replayed| {
            // There are no transactions in this log.
            let Replayed::Record { offset, key, value, .. } = replayed else { return };
            match Change::decode(key.unwrap_or_default(), value) {
                Ok(change) => state.apply(&change),
                Err(error) => {
                    bad.get_or_insert((offset, error));
                }
            }
        })?;
        match bad {
            Some((offset, error)) => Err(unreadable(offset, &error)),
            None => Ok(MetadataLog { partition, state, clock }),
        }
    }

    /// The partition that it is kept in.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The metadata as it is.
    pub fn state(&self) -> &Metadata {
        &self.state
    }

    pub fn next_producer_id(&self) -> i64 {
        self.state.next_producer_id()
    }

    /// Writes changes, waits until they are durable, and only then takes them in.
    pub async fn write(&mut self, changes: &[Change]) -> Result<(), MetadataWriteError> {
        self.append(changes).await?;
        changes.iter().for_each(|change| self.state.apply(change));
        if self.state.wants_snapshot() {
            // A broker can run for years without a restart, so the log is kept short while it runs. The change itself
            // is durable, so a snapshot that fails does not fail it.
            if let Err(error) = self.snapshot().await {
                tracing::warn!(%error, "a snapshot of `__cluster_metadata-0` was not written");
            }
        }
        Ok(())
    }

    /// Writes every live fact once more, and then drops what stood before. A crash in between leaves both, which
    /// replays to the same.
    async fn snapshot(&mut self) -> Result<(), MetadataWriteError> {
        let start = self.partition.log_end_offset();
        for changes in self.state.snapshot().chunks(SNAPSHOT_BATCH) {
            self.append(changes).await?;
        }
        let partition = Arc::clone(&self.partition);
        let dropped = tokio::task::spawn_blocking(move || partition.delete_records(start)).await;
        if let Ok(Ok(_)) = dropped {
            self.state.snapshot_taken();
        } else {
            tracing::warn!("the metadata log could not be shortened; it stays longer than it needs to be");
        }
        Ok(())
    }

    async fn append(&self, changes: &[Change]) -> Result<(), MetadataWriteError> {
        let now = self.clock.now_ms();
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for change in changes {
            let (key, value) = change.encode();
            batch.append(now, Some(&key), value.as_deref(), &[])?;
        }
        self.partition.append_internal(batch.build()?, now)?.durable().await?;
        Ok(())
    }
}

fn unreadable(offset: i64, error: &MetadataRecordError) -> MetadataReplayError {
    MetadataReplayError::Record { offset, reason: error.to_string() }
}
