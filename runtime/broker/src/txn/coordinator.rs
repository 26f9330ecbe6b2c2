//! What requests ask of transactional ids.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use tokio::sync::{OnceCell, OwnedMutexGuard, oneshot};

use super::embedded::EMBEDDED_ID_PREFIX;
use super::error::TxnError;
use super::log::{LoadError, TransactionLog};
use super::order::{Concern, Heard, Place};
use super::records::ID_BYTES_MAX;
use super::state::{End, EpochAfter, Init, Protocol, Transaction, TxnState};
use crate::clock::Clock;
use crate::group::Groups;
use crate::group::error::GroupError;
use crate::group::store::OFFSETS_TOPIC;
use crate::group::types::{CommitRequest, TopicPartition};
use crate::partition::{InternalAppend, InternalAppendError, PartitionAppendError};
use crate::producer_id::{ProducerIdentity, ProducerIds};
use crate::snapshot::SnapshotGauge;
use crate::topics::Topics;

/// What the operator set.
#[derive(Clone, Debug)]
pub(crate) struct TxnSettings {
    pub(crate) partitions: i32,
    pub(crate) segment_bytes: u32,
    pub(crate) snapshot_min_bytes: u64,
    pub(crate) max_timeout_ms: i32,
    pub(crate) max_ids: usize,
    pub(crate) expiration_ms: i64,
}

/// What is known of a transactional id.
#[derive(Default)]
pub(crate) struct Seat {
    /// `None` until it is first used.
    pub(super) txn: Option<Transaction>,
    heard: Heard,
}

impl Seat {
    fn taken(txn: Transaction) -> Seat {
        Seat { txn: Some(txn), heard: Heard::default() }
    }

    pub(super) fn txn(&self) -> Result<&Transaction, TxnError> {
        self.txn.as_ref().ok_or(TxnError::UnknownProducer)
    }
}

type Slot = Arc<tokio::sync::Mutex<Seat>>;
/// Alone with a transactional id.
pub(crate) type Held = OwnedMutexGuard<Seat>;

/// The coordinator. A cheap clone.
#[derive(Clone)]
pub(crate) struct Transactions {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: TxnSettings,
    pub(super) log: TransactionLog,
    pub(super) gauges: Mutex<HashMap<i32, SnapshotGauge>>,
    topics: Arc<Topics>,
    pub(super) groups: Groups,
    producer_ids: Arc<ProducerIds>,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<Arc<str>, Slot>>,
    /// Those whose markers could not all be written yet.
    unfinished: Mutex<BTreeSet<Arc<str>>>,
    /// Set once `__transaction_state` is there.
    created: OnceCell<()>,
}

/// What ending a transaction has written, and what has yet to hear of it.
pub(crate) struct Ending {
    append: InternalAppend,
    markers: Vec<InternalAppend>,
    applied: Vec<oneshot::Receiver<Result<(), GroupError>>>,
}

impl Ending {
    /// Waits until a crash cannot undo it and everybody sees it.
    pub(crate) async fn settled(self) -> Result<(), TxnError> {
        if Mutant::EndBeforeSync.is_on() {
            return Ok(());
        }
        for append in self.markers.into_iter().chain([self.append]) {
            durable(append).await?;
        }
        for applied in self.applied {
            // An error means that the broker stops: whoever asks again finds it done.
            let _ = applied.await;
        }
        Ok(())
    }
}

/// Whether clients may use a transactional id.
pub(crate) fn open_to_clients(id: &str) -> Result<(), TxnError> {
    if id.starts_with(EMBEDDED_ID_PREFIX) { Err(TxnError::Reserved) } else { Ok(()) }
}

pub(super) async fn durable(append: InternalAppend) -> Result<(), TxnError> {
    append.durable().await.map(drop).map_err(|_| TxnError::NotAvailable)
}

impl Transactions {
    pub(crate) fn new(
        settings: TxnSettings,
        topics: Arc<Topics>,
        groups: Groups,
        producer_ids: Arc<ProducerIds>,
        clock: Arc<dyn Clock>,
    ) -> Transactions {
        let log = TransactionLog::new(Arc::clone(&topics), Arc::clone(&clock), settings.segment_bytes);
        let inner = Inner {
            settings,
            log,
            gauges: Mutex::default(),
            topics,
            groups,
            producer_ids,
            clock,
            slots: Mutex::default(),
            unfinished: Mutex::default(),
            created: OnceCell::new(),
        };
        Transactions { inner: Arc::new(inner) }
    }

    /// Takes over what the log has. Blocking; before the first request.
    pub(crate) fn load(&self) -> Result<(), LoadError> {
        let found = self.inner.log.replay()?;
        let mut unfinished = self.inner.unfinished.lock();
        let mut slots = self.inner.slots.lock();
        for (id, mut txn) in found {
            if open_to_clients(&id).is_err() {
                // Its producer was a part of the process that is gone: it has had its time.
                txn.timeout_ms = 0;
            }
            if txn.is_ending() && !Mutant::DecisionForgotten.is_on() {
                unfinished.insert(Arc::clone(&id));
            }
            self.inner.topics.producer_id_is_used(txn.largest_producer_id());
            slots.insert(id, Arc::new(tokio::sync::Mutex::new(Seat::taken(txn))));
        }
        Ok(())
    }

    /// Creates `__transaction_state` if it is not there yet.
    pub(crate) async fn ensure_topic(&self) -> Result<(), TxnError> {
        let inner = &self.inner;
        inner.created.get_or_try_init(|| inner.log.create(inner.settings.partitions)).await.copied()
    }

    /// InitProducerId: the producer becomes the only one of its id. What was open is aborted.
    pub(crate) async fn init(
        &self,
        id: &str,
        before: Option<ProducerIdentity>,
        timeout_ms: i32,
        from: Option<Place>,
    ) -> Result<ProducerIdentity, TxnError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(TxnError::InvalidId);
        }
        open_to_clients(id)?;
        if timeout_ms <= 0 || timeout_ms > self.inner.settings.max_timeout_ms {
            return Err(TxnError::InvalidTimeout);
        }
        self.ensure_topic().await?;
        let (this, slot) = (self.clone(), self.slot_or_new(id)?);
        let id: Arc<str> = id.into();
        self.uncancelled(async move {
            let mut held = slot.lock_owned().await;
            held.heard.hear(Concern::Producer, from)?;
            this.init_held(&mut held, id, before, timeout_ms).await
        })
        .await
    }

    pub(super) async fn init_held(
        &self,
        held: &mut Held,
        id: Arc<str>,
        before: Option<ProducerIdentity>,
        timeout_ms: i32,
    ) -> Result<ProducerIdentity, TxnError> {
        let Some(current) = held.txn.clone() else {
            let fresh = Transaction::new(id, self.next_producer_id().await?, timeout_ms, self.now_ms());
            return self.replace_and_wait(held, fresh).await;
        };
        let init = current.check_init(before)?;
        if init == Init::Again {
            return self.replace_and_wait(held, current).await;
        }
        let mut current = current;
        if current.state == TxnState::Ongoing && !Mutant::InitKeepsOpen.is_on() {
            // Whoever goes on from here looks at what its group has committed: that must be decided by then.
            self.end_held(held, false, EpochAfter::Fencing, None).await?.settled().await?;
            current = held.txn()?.clone();
        }
        let rotated = if init == Init::Rotate || current.must_rotate() {
            Some(self.next_producer_id().await?)
        } else {
            None
        };
        let next = current.init(before, rotated, timeout_ms, self.now_ms());
        held.heard.start_anew();
        self.replace_and_wait(held, next).await
    }

    async fn replace_and_wait(
        &self,
        held: &mut Held,
        next: Transaction,
    ) -> Result<ProducerIdentity, TxnError> {
        let producer = next.producer;
        let append = self.replace(held, next)?;
        if !Mutant::InitBeforeSync.is_on() {
            durable(append).await?;
        }
        Ok(producer)
    }

    /// AddPartitionsToTxn and AddOffsetsToTxn.
    pub(crate) async fn add(
        &self,
        id: &str,
        producer: ProducerIdentity,
        partitions: Vec<TopicPartition>,
        from: Option<Place>,
    ) -> Result<(), TxnError> {
        open_to_clients(id)?;
        let mut held = self.hold(id).await?;
        held.txn()?.check_producer(producer)?;
        held.heard.hear(Concern::Transaction, from)?;
        let txn = held.txn()?;
        txn.check_open(producer)?;
        let next = txn.add(partitions, Protocol::Classic, self.now_ms());
        // The repeated request of a client that got no answer waits for the first one's record: it is written again.
        let next = next.unwrap_or_else(|| txn.clone());
        let append = self.replace(&mut held, next)?;
        drop(held);
        durable(append).await
    }

    /// Whether every one of these partitions is part of the producer's open transaction.
    pub(crate) async fn verify(
        &self,
        id: &str,
        producer: ProducerIdentity,
        at: &TopicPartition,
    ) -> Result<(), TxnError> {
        let held = self.hold(id).await?;
        held.txn()?.check_added(producer, at)
    }

    /// Alone with an id, at once or not at all.
    pub(crate) fn try_hold(&self, id: &str) -> Result<Option<Held>, TxnError> {
        Ok(self.slot(id)?.try_lock_owned().ok())
    }

    /// Alone with an id.
    pub(crate) async fn hold(&self, id: &str) -> Result<Held, TxnError> {
        Ok(self.slot(id)?.lock_owned().await)
    }

    /// Lets the producer write to a partition while `held` is held. With the newer protocol that adds the partition.
    pub(crate) fn allow(
        &self,
        held: &mut Held,
        producer: ProducerIdentity,
        at: TopicPartition,
        protocol: Protocol,
    ) -> Result<(), TxnError> {
        let txn = held.txn()?;
        if protocol == Protocol::Classic {
            return txn.check_added(producer, &at);
        }
        txn.check_open(producer)?;
        if let Some(next) = txn.add([at], protocol, self.now_ms()) {
            // The journal makes it durable before what is written next.
            self.replace(held, next)?;
        }
        Ok(())
    }

    /// TxnOffsetCommit: the offsets count once the transaction is committed. One result per offset, in order.
    pub(crate) async fn commit_offsets(
        &self,
        id: &str,
        group: &str,
        request: CommitRequest,
        producer: ProducerIdentity,
        protocol: Protocol,
        from: Option<Place>,
    ) -> Result<Result<Vec<Result<(), GroupError>>, GroupError>, TxnError> {
        open_to_clients(id)?;
        self.inner.groups.ensure_topic().await.map_err(|_| TxnError::NotAvailable)?;
        let mut held = self.hold(id).await?;
        held.txn()?.check_producer(producer)?;
        held.heard.hear(Concern::Offsets, from)?;
        self.allow(&mut held, producer, self.offsets_partition(group), protocol)?;
        // Held until the offsets have their place, or will have none.
        let release = Box::new(move |_| drop(held));
        Ok(self.inner.groups.commit_in_transaction(group, request, producer, release).await)
    }

    /// The partition that has a group's offsets.
    pub(crate) fn offsets_partition(&self, group: &str) -> TopicPartition {
        TopicPartition { topic: OFFSETS_TOPIC.into(), partition: self.inner.groups.partition_of(group) }
    }

    /// EndTxn. Answers who the producer is from now on.
    pub(crate) async fn end(
        &self,
        id: &str,
        producer: ProducerIdentity,
        commit: bool,
        protocol: Protocol,
        from: Option<Place>,
    ) -> Result<ProducerIdentity, TxnError> {
        open_to_clients(id)?;
        let (this, slot) = (self.clone(), self.slot(id)?);
        self.uncancelled(async move {
            let mut held = slot.lock_owned().await;
            // The newer protocol tells copies by their epoch, as Kafka does, and answers them.
            if protocol == Protocol::Classic {
                held.txn()?.check_producer(producer)?;
                held.heard.hear(Concern::Transaction, from)?;
            }
            let txn = held.txn()?;
            if txn.check_end(producer, commit, protocol)? == End::Done {
                let same = txn.clone();
                if Mutant::RepeatedEndBeforeSync.is_on() {
                    return Ok(same.producer);
                }
                return this.replace_and_wait(&mut held, same).await;
            }
            let (epoch, rotates) = match protocol {
                Protocol::Classic => (EpochAfter::Same, false),
                Protocol::EpochPerTransaction => (EpochAfter::Next, txn.must_rotate()),
            };
            let rotated = if rotates { Some(this.next_producer_id().await?) } else { None };
            let ending = this.end_held(&mut held, commit, epoch, rotated).await?;
            let producer = held.txn()?.producer;
            drop(held);
            ending.settled().await?;
            Ok(producer)
        })
        .await
    }

    /// Decides the end and carries it out: decision, markers, completion.
    pub(super) async fn end_held(
        &self,
        held: &mut Held,
        commit: bool,
        epoch: EpochAfter,
        rotated: Option<i64>,
    ) -> Result<Ending, TxnError> {
        let txn = held.txn()?;
        let prepared = txn.prepare(commit, epoch, rotated, self.now_ms());
        let id = Arc::clone(&prepared.id);
        if Mutant::DecisionNotWritten.is_on() {
            held.txn = Some(prepared);
        } else {
            self.replace(held, prepared)?;
        }
        let ending = self.finish_held(held).await;
        if ending.is_err() {
            self.inner.unfinished.lock().insert(id);
        }
        ending
    }

    /// Writes the markers of a decided transaction and its completion. Doing it again is harmless: a marker ends what is
    /// open, and nothing is.
    pub(super) async fn finish_held(&self, held: &mut Held) -> Result<Ending, TxnError> {
        let txn = held.txn()?.clone();
        let commit = txn.state == TxnState::PrepareCommit;
        let (mut markers, mut applied) = (Vec::new(), Vec::new());
        let left_out = usize::from(Mutant::MarkerLeftOut.is_on() && txn.partitions.len() > 1);
        for at in txn.partitions.iter().skip(left_out) {
            if &*at.topic == OFFSETS_TOPIC {
                let end = self.inner.groups.end_transaction(at.partition, txn.producer, commit);
                applied.push(end.await.map_err(|_| TxnError::NotAvailable)?);
            } else {
                markers.extend(self.write_marker(at, txn.producer, commit)?);
            }
        }
        let append = self.replace(held, txn.complete(self.now_ms()))?;
        Ok(Ending { append, markers, applied })
    }

    fn write_marker(
        &self,
        at: &TopicPartition,
        producer: ProducerIdentity,
        commit: bool,
    ) -> Result<Option<InternalAppend>, TxnError> {
        let topic = self.inner.topics.get(&at.topic);
        // With the topic went what the marker is about.
        let Some(partition) = topic.as_ref().and_then(|topic| topic.partition(at.partition)) else {
            return Ok(None);
        };
        match partition.append_marker(producer, commit, self.now_ms()) {
            Ok(append) => Ok(Some(append)),
            Err(InternalAppendError::Append(PartitionAppendError::Gone)) => Ok(None),
            Err(error) => {
                tracing::warn!(topic = &*at.topic, partition = at.partition, %error, "a transaction's marker was not written; trying again");
                Err(TxnError::NotAvailable)
            }
        }
    }

    /// Ends what a crash left between decision and end, before anybody can ask. What cannot be ended in this time (a full
    /// disk, groups that cannot be read) is left to [`Transactions::finish_all`], and the broker starts all the same.
    pub(crate) async fn recover(&self, patience: Duration) {
        if self.inner.unfinished.lock().is_empty() {
            return;
        }
        let work = async {
            // An error is the owner's, who logs it. Transactions without offsets there can be ended all the same.
            let _ = self.inner.groups.loaded().await;
            for ending in self.finish_all().await {
                // An error stops the broker, and comes up there.
                let _ = ending.settled().await;
            }
        };
        let _ = tokio::time::timeout(patience, work).await;
        let left = self.inner.unfinished.lock().len();
        if left > 0 {
            tracing::warn!(left, "transactions from before the start are not ended yet; trying again");
        }
    }

    /// Tries again to end what could not be ended.
    pub(crate) async fn finish_all(&self) -> Vec<Ending> {
        let ids: Vec<Arc<str>> = self.inner.unfinished.lock().iter().cloned().collect();
        let mut endings = Vec::new();
        for id in ids {
            let Ok(mut held) = self.hold(&id).await else { continue };
            let ending = held.txn.as_ref().is_some_and(Transaction::is_ending);
            let finished = if ending { self.finish_held(&mut held).await.map(Some) } else { Ok(None) };
            if let Ok(ending) = finished {
                self.inner.unfinished.lock().remove(&id);
                endings.extend(ending);
            }
        }
        endings
    }

    /// Aborts transactions that have had their time. Their producers are fenced by it.
    pub(crate) async fn abort_timed_out(&self) {
        for (id, slot) in self.all() {
            let mut held = slot.lock_owned().await;
            if held.txn.as_ref().is_some_and(|txn| txn.is_timed_out(self.now_ms())) {
                tracing::info!(transactional_id = &*id, "a transaction has had its time and is aborted");
                // What fails is tried again with the unfinished ones; before it was decided, in the next round.
                let kept = Mutant::TimeOutKeepsEpoch.is_on();
                let epoch = if kept { EpochAfter::Same } else { EpochAfter::Fencing };
                if let Err(error) = self.end_held(&mut held, false, epoch, None).await {
                    tracing::warn!(transactional_id = &*id, %error, "a transaction is not aborted yet");
                }
            }
        }
    }

    /// Forgets ids that nobody has used for `transactional.id.expiration.ms`.
    pub(crate) async fn expire(&self) {
        for (id, slot) in self.all() {
            let mut held = slot.lock_owned().await;
            let now_ms = self.now_ms();
            let unused =
                held.txn.as_ref().is_none_or(|txn| txn.is_expired(now_ms, self.inner.settings.expiration_ms));
            if !unused {
                continue;
            }
            let mut slots = self.inner.slots.lock();
            // The map has the slot, and this has: whoever else had it would go on with one that nobody finds.
            let alone = Arc::strong_count(OwnedMutexGuard::mutex(&held)) == 2;
            if alone && (held.txn.is_none() || self.inner.log.forget(&id).is_ok()) {
                held.txn = None;
                slots.remove(&id);
            }
        }
    }

    /// A transactional id as it is now.
    pub(crate) async fn describe(&self, id: &str) -> Option<Transaction> {
        self.hold(id).await.ok()?.txn.clone()
    }

    /// All transactional ids as they are now.
    pub(crate) async fn list(&self) -> Vec<Transaction> {
        let mut all = Vec::new();
        for (_, slot) in self.all() {
            all.extend(slot.lock().await.txn.clone());
        }
        all
    }

    /// What a start would find. Blocking.
    #[cfg(test)]
    pub(crate) fn replayed(&self) -> Result<HashMap<Arc<str>, Transaction>, LoadError> {
        self.inner.log.replay()
    }

    /// Every id, in order.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Slot)> {
        let mut all: Vec<_> =
            self.inner.slots.lock().iter().map(|(id, slot)| (Arc::clone(id), Arc::clone(slot))).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Writes the next state of an id, and takes it over if that worked.
    pub(super) fn replace(&self, held: &mut Held, next: Transaction) -> Result<InternalAppend, TxnError> {
        let append = self.inner.log.write(&next)?;
        held.txn = Some(next);
        Ok(append)
    }

    async fn next_producer_id(&self) -> Result<i64, TxnError> {
        let next = self.inner.producer_ids.next(&self.inner.topics).await;
        next.map_err(|error| {
            tracing::warn!(%error, "no producer id to give");
            TxnError::NotAvailable
        })
    }

    fn slot(&self, id: &str) -> Result<Slot, TxnError> {
        self.inner.slots.lock().get(id).cloned().ok_or(TxnError::UnknownProducer)
    }

    pub(super) fn slot_or_new(&self, id: &str) -> Result<Slot, TxnError> {
        let mut slots = self.inner.slots.lock();
        if let Some(slot) = slots.get(id) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= self.inner.settings.max_ids {
            return Err(TxnError::TooMany);
        }
        Ok(Arc::clone(slots.entry(id.into()).or_default()))
    }

    /// Runs to its end even when the connection that asked is gone: half an end would hold up readers until a restart.
    async fn uncancelled<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, TxnError>> + Send + 'static,
    ) -> Result<T, TxnError> {
        tokio::spawn(work).await.unwrap_or(Err(TxnError::NotAvailable))
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }
}
