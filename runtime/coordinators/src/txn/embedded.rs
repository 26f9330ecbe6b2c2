//! Transactions of producers inside of the broker: the drivers of pipelines, and who writes records that come over HTTP. The states, records and markers are those
//! of a client's transaction; there are no requests in between, and a commit has its place in the log before it is
//! durable, so that the next transaction may begin at once.

use std::sync::Arc;

use pelton_commitlog::AppendPermit;
use pelton_commitlog::mutant::Mutant;
use pelton_wire::record::CheckedBatch;

use super::cache::TxnLock;
use super::coordinator::Transactions;
use super::end::EndTxnWrites;
use super::error::TxnError;
use super::state::{EpochAfter, Protocol, Transaction, TxnState};
use crate::group::error::GroupError;
use crate::group::types::{CommitRequest, TopicPartition};
use pelton_partitions::partition::{Partition, PartitionAppendError};
use pelton_partitions::producer_id::ProducerIdentity;
use pelton_partitions::topic_config::Durability;

/// Transactional ids that begin so are the broker's own.
pub const EMBEDDED_ID_PREFIX: &str = "pelton.";

/// A transactional batch for a partition.
pub struct TransactionalBatch {
    pub at: TopicPartition,
    pub partition: Arc<Partition>,
    /// Checked, with the producer's id and epoch in it.
    pub batch: CheckedBatch,
    pub durability: Durability,
}

/// Why nothing, or not everything, was written or decided. The transaction can only be aborted.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error("the transaction coordinator refused it: {0}")]
    Coordinator(#[from] TxnError),
    #[error("the group coordinator refused the offsets: {0}")]
    Offsets(#[from] GroupError),
    /// Of one partition.
    #[error("write {} [{}]: {error}", at.topic, at.partition)]
    Append { at: TopicPartition, error: PartitionAppendError },
    /// Every batch of an embedded producer is written once.
    #[error("{} [{}] has a batch with the pipeline's producer id and sequence that is not the pipeline's", at.topic, at.partition)]
    Foreign { at: TopicPartition },
}

impl Transactions {
    /// Becomes the only producer of `id`. An open transaction is aborted, and a decided one is ended: the committed
    /// offsets of the producer's group are decided when this returns.
    pub async fn init_embedded(&self, id: &str) -> Result<ProducerIdentity, EmbeddedError> {
        self.ensure_topic().await?;
        let mut held = self.inner.cache.get_or_new(id)?.lock_owned().await;
        if held.get().is_some_and(|txn| txn.is_ending()) {
            self.complete_locked(&mut held, self.inner.journal).await?.settled().await?;
        }
        if let Some(txn) = held.get().cloned().filter(|_| Mutant::TakeOverKeepsOpen.is_on()) {
            held.set(Some(Transaction { state: TxnState::Empty, ..(*txn).clone() }));
        }
        let timeout_ms = self.inner.settings.max_timeout_ms;
        Ok(self.init_locked(&mut held, id.into(), None, timeout_ms).await?)
    }

    /// Ends what the producer of `id` has left, if there was one: an open transaction is aborted, a decided one is ended, and
    /// nothing that is on its way from it is taken any more. All of that is decided when this returns.
    pub async fn fence_embedded(&self, id: &str) -> Result<(), EmbeddedError> {
        let is_known = self.inner.cache.show(id).is_some();
        if is_known { self.init_embedded(id).await.map(drop) } else { Ok(()) }
    }

    /// Appends to the open transaction of a producer, for which there is `room`, and opens it if none is open; the first offset
    /// of each batch. The partition with the offsets of `group`, if there is one, becomes part of it too. Not durable before
    /// the transaction has ended.
    pub fn write(
        &self,
        held: &mut TxnLock,
        producer: ProducerIdentity,
        group: Option<&str>,
        batches: Vec<TransactionalBatch>,
        room: &AppendPermit,
    ) -> Result<Vec<i64>, EmbeddedError> {
        held.txn()?.check_open(producer)?;
        let offsets = group.map(|group| self.offsets_partition(group));
        let partitions = batches.iter().map(|batch| batch.at.clone()).chain(offsets);
        self.add_locked(held, partitions, Protocol::Classic, self.inner.journal)?;
        let mut written = Vec::with_capacity(batches.len());
        for TransactionalBatch { at, partition, batch, durability } in batches {
            match partition.append_client(batch, room, self.now_ms(), durability, None) {
                Ok(appended) if appended.duplicate => return Err(EmbeddedError::Foreign { at }),
                Ok(appended) => written.push(appended.base_offset),
                Err(error) => return Err(EmbeddedError::Append { at, error }),
            }
        }
        Ok(written)
    }

    /// Commits the open transaction of a producer without a group, which has written to `at`. As
    /// [`Transactions::commit_with_offsets`].
    pub async fn commit_embedded(
        &self,
        id: &str,
        producer: ProducerIdentity,
        at: &TopicPartition,
    ) -> Result<EndTxnWrites, EmbeddedError> {
        let mut held = self.lock(id).await?;
        held.txn()?.check_added(producer, at)?;
        Ok(self.end_locked(&mut held, true, EpochAfter::Same, None).await?)
    }

    /// Commits the open transaction of a producer with its group's offsets in it. All of it has its place in the log
    /// when this returns; [`EndTxnWrites::settled`] waits until a crash cannot undo it.
    pub async fn commit_with_offsets(
        &self,
        id: &str,
        producer: ProducerIdentity,
        group: &str,
        offsets: CommitRequest,
    ) -> Result<EndTxnWrites, EmbeddedError> {
        let mut held = self.lock(id).await?;
        let txn = held.txn()?;
        txn.check_added(producer, &self.offsets_partition(group))?;
        // A driver whose inputs are gone has outputs all the same.
        if !offsets.offsets.is_empty() {
            self.inner.groups.place_in_transaction(group, offsets, producer).await?;
        }
        Ok(self.end_locked(&mut held, true, EpochAfter::Same, None).await?)
    }

    /// Commits offsets of a producer that has written nothing since its last commit. That needs no transaction, since
    /// there is nothing that they must be seen together with; but a producer that was fenced commits nothing. Durable
    /// when this returns.
    pub async fn commit_offsets_alone(
        &self,
        id: &str,
        producer: ProducerIdentity,
        group: &str,
        offsets: CommitRequest,
    ) -> Result<(), EmbeddedError> {
        let held = self.lock(id).await?;
        held.txn()?.check_open(producer)?;
        // Held until the offsets have their place in the log: the next producer of the id reads them after that.
        let release = Box::new(move |_| drop(held));
        let results = self.inner.groups.commit_placed(group, offsets, Some(release)).await?;
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    /// Aborts the open transaction, or ends the decided one, since the producer has ended. Its epoch is fenced.
    pub async fn abandon(&self, id: &str) -> Result<(), TxnError> {
        let Ok(mut held) = self.lock(id).await else { return Ok(()) };
        let ending = match held.get() {
            Some(txn) if txn.state == TxnState::Ongoing => {
                self.end_locked(&mut held, false, EpochAfter::Fencing, None).await?
            }
            Some(txn) if txn.is_ending() => self.complete_locked(&mut held, self.inner.journal).await?,
            _ => return Ok(()),
        };
        ending.settled().await
    }
}
