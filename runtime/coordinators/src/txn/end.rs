//! The end of a transaction: decision, markers and completion, written in one go, and the markers and completions that a
//! crash or a full disk has prevented.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cache::TxnLock;
use super::coordinator::{Transactions, durable, open_to_clients};
use super::error::TxnError;
use super::origin::{RequestKind, RequestOrigin};
use super::state::{End, EpochAfter, Protocol, TxnState};
use crate::group::error::GroupError;
use crate::group::store::OFFSETS_TOPIC;
use crate::group::types::TopicPartition;
use pelton_partitions::partition::{InternalAppend, InternalAppendError, PartitionAppendError, TxnMarker};
use pelton_partitions::producer_id::ProducerIdentity;
use pelton_partitions::same_journal::SameJournal;
use pelton_partitions::topics::NotHere;

/// The appends that end a transaction, and the groups that have yet to apply its offsets.
pub struct EndTxnWrites {
    append: InternalAppend,
    markers: Vec<InternalAppend>,
    applied: Vec<oneshot::Receiver<Result<(), GroupError>>>,
}

impl EndTxnWrites {
    /// Waits until the end is durable and its offsets count.
    pub async fn settled(self) -> Result<(), TxnError> {
        if Mutant::EndBeforeSync.is_on() {
            return Ok(());
        }
        for append in self.markers.into_iter().chain([self.append]) {
            durable(append).await?;
        }
        for applied in self.applied {
            // An error means that the broker stops: a client that asks again finds the end done.
            let _ = applied.await;
        }
        Ok(())
    }
}

/// The transactional ids in PrepareCommit or PrepareAbort whose markers could not all be written yet.
#[derive(Debug, Default)]
pub(super) struct PendingMarkers(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    waiting: BTreeSet<Arc<str>>,
    under_way: BTreeSet<Arc<str>>,
}

impl PendingMarkers {
    pub(super) fn add(&self, id: Arc<str>) {
        self.0.lock().waiting.insert(id);
    }

    fn len(&self) -> usize {
        let ids = self.0.lock();
        ids.waiting.union(&ids.under_way).count()
    }

    /// All ids that no task is writing the markers of. The caller does.
    fn take(&self) -> Vec<Arc<str>> {
        let mut ids = self.0.lock();
        let Ids { waiting, under_way } = &mut *ids;
        let taken: Vec<_> = waiting.extract_if(.., |id| !under_way.contains(id)).collect();
        under_way.extend(taken.iter().cloned());
        taken
    }

    fn put_back(&self, id: Arc<str>, completed: bool) {
        let mut ids = self.0.lock();
        ids.under_way.remove(&id);
        if !completed {
            ids.waiting.insert(id);
        }
    }
}

impl Transactions {
    /// EndTxn. Returns the producer's identity from now on.
    pub async fn end(
        &self,
        id: &str,
        producer: ProducerIdentity,
        commit: bool,
        protocol: Protocol,
        from: Option<RequestOrigin>,
    ) -> Result<ProducerIdentity, TxnError> {
        open_to_clients(id)?;
        let (this, lock) = (self.clone(), self.inner.cache.get(id)?);
        self.uncancelled(async move {
            let mut held = lock.lock_owned().await;
            // The newer protocol tells copies by their epoch, as Kafka does, and answers them.
            if protocol == Protocol::Classic {
                held.txn()?.check_producer(producer)?;
                held.last_seen.see(RequestKind::EndTxn { commit }, from)?;
            }
            let txn = held.txn()?;
            if txn.check_end(producer, commit, protocol)? == End::Done {
                let same = txn.clone();
                if Mutant::RepeatedEndBeforeSync.is_on() {
                    return Ok(same.producer);
                }
                return this.replace_and_wait(&mut held, same).await;
            }
            let (epoch, rotated) = match protocol {
                Protocol::Classic => (EpochAfter::Same, None),
                Protocol::EpochPerTransaction => (EpochAfter::Next, this.rotated(txn).await?),
            };
            let ending = this.end_locked(&mut held, commit, epoch, rotated).await?;
            let producer = held.txn()?.producer;
            drop(held);
            ending.settled().await?;
            Ok(producer)
        })
        .await
    }

    /// Decides the end and carries it out: decision, markers, completion.
    pub(super) async fn end_locked(
        &self,
        held: &mut TxnLock,
        commit: bool,
        epoch: EpochAfter,
        rotated: Option<i64>,
    ) -> Result<EndTxnWrites, TxnError> {
        let prepared = held.txn()?.prepare(commit, epoch, rotated, self.now_ms());
        let id = Arc::clone(&prepared.id);
        if Mutant::DecisionNotWritten.is_on() {
            held.set(Some(prepared));
        } else {
            self.replace(held, prepared)?;
        }
        let ending = self.complete_locked(held, self.inner.journal).await;
        if ending.is_err() {
            self.inner.pending_markers.add(id);
        }
        ending
    }

    /// Writes the markers of a decided transaction and its completion, all at once: the journal makes the decision
    /// durable before the markers, and the markers before the completion. Doing it again is harmless: a marker ends
    /// what is open, and nothing is.
    pub(super) async fn complete_locked(
        &self,
        held: &mut TxnLock,
        _: SameJournal,
    ) -> Result<EndTxnWrites, TxnError> {
        let txn = held.txn()?.clone();
        let commit = txn.state == TxnState::PrepareCommit;
        let marker = TxnMarker { producer: txn.producer, commit, coordinator_epoch: None };
        let (mut markers, mut applied) = (Vec::new(), Vec::new());
        let left_out = usize::from(Mutant::MarkerLeftOut.is_on() && txn.partitions.len() > 1);
        for at in txn.partitions.iter().skip(left_out) {
            if &*at.topic == OFFSETS_TOPIC {
                let end = self.inner.groups.end_transaction(at.partition, marker);
                applied.push(end.await.map_err(|_| TxnError::NotAvailable)?);
            } else {
                markers.extend(self.write_marker(at, marker)?);
            }
        }
        let append = self.replace(held, txn.complete(self.now_ms()))?;
        Ok(EndTxnWrites { append, markers, applied })
    }

    fn write_marker(
        &self,
        at: &TopicPartition,
        marker: TxnMarker,
    ) -> Result<Option<InternalAppend>, TxnError> {
        let partition = match self.inner.topics.partition(&at.topic, at.partition) {
            Ok(partition) => partition,
            // A topic takes its records with it, and then no marker is needed.
            Err(NotHere::UnknownTopic | NotHere::UnknownPartition) => return Ok(None),
            Err(NotHere::NotLeader) => return Err(TxnError::NotAvailable),
        };
        match partition.append_marker(marker, self.now_ms()) {
            Ok(append) => Ok(Some(append)),
            Err(InternalAppendError::Append(PartitionAppendError::Gone)) => Ok(None),
            Err(error) => {
                tracing::warn!(topic = &*at.topic, partition = at.partition, %error,
                    "a transaction's marker was not written; trying again");
                Err(TxnError::NotAvailable)
            }
        }
    }

    /// Completes the transactions that a crash left in PrepareCommit or PrepareAbort, before the first request. Those that
    /// cannot be completed within `patience` (a full disk, groups that cannot be read) are left to [`Transactions::complete_all`], and the broker
    /// starts all the same.
    pub async fn recover(&self, patience: Duration) {
        if self.inner.pending_markers.len() == 0 {
            return;
        }
        let work = async {
            // The group owner logs an error. Transactions without offsets there can be ended all the same.
            let _ = self.inner.groups.loaded().await;
            for ending in self.complete_all().await {
                // An error stops the broker, and comes up there.
                let _ = ending.settled().await;
            }
        };
        let _ = tokio::time::timeout(patience, work).await;
        let left = self.inner.pending_markers.len();
        if left > 0 {
            tracing::warn!(left, "transactions of before the start still lack markers; trying again");
        }
    }

    /// Tries again to write the markers that could not be written, and the completions behind them.
    pub async fn complete_all(&self) -> Vec<EndTxnWrites> {
        let mut endings = Vec::new();
        for task in self.start_completing() {
            // An error: the runtime is being shut down.
            endings.extend(task.await.ok().flatten());
        }
        endings
    }

    /// The same, each in a task of its own, so that one whose lock is taken delays no other.
    pub(super) fn start_completing(&self) -> Vec<JoinHandle<Option<EndTxnWrites>>> {
        let complete = |id: Arc<str>| {
            let this = self.clone();
            tokio::spawn(async move {
                let completed = this.complete(&id).await;
                this.inner.pending_markers.put_back(id, completed.is_ok());
                completed.ok().flatten()
            })
        };
        self.inner.pending_markers.take().into_iter().map(complete).collect()
    }

    async fn complete(&self, id: &str) -> Result<Option<EndTxnWrites>, TxnError> {
        let Ok(mut held) = self.lock(id).await else { return Ok(None) };
        let ending = held.get().is_some_and(|txn| txn.is_ending());
        if ending { self.complete_locked(&mut held, self.inner.journal).await.map(Some) } else { Ok(None) }
    }
}
