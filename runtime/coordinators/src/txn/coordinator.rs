//! What requests ask of transactional ids.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use tokio::sync::{OnceCell, Semaphore};

use super::cache::{TransactionCache, TxnLock};
use super::embedded::EMBEDDED_ID_PREFIX;
use super::end::PendingMarkers;
use super::error::TxnError;
use super::log::{LoadError, TransactionLog};
use super::origin::{RequestKind, RequestOrigin};
use super::state::{Protocol, Transaction};
use super::sweep;
use crate::group::Groups;
use crate::group::error::GroupError;
use crate::group::store::OFFSETS_TOPIC;
use crate::group::types::{CommitRequest, TopicPartition};
use crate::snapshot::SnapshotGauge;
use crate::timer::TimerQueue;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::InternalAppend;
use pelton_partitions::producer_id::ProducerIdentity;
use pelton_partitions::same_journal::SameJournal;
use pelton_partitions::topics::Topics;
use pelton_partitions::topics::producer_ids::ProducerIds;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct TxnSettings {
    pub partitions: i32,
    pub segment_bytes: u32,
    pub snapshot_min_bytes: u64,
    pub max_timeout_ms: i32,
    pub max_ids: usize,
    pub expiration_ms: i64,
}

/// A batch or an offset that a producer wants to write as part of its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionalWrite {
    pub producer: ProducerIdentity,
    pub at: TopicPartition,
}

/// The coordinator. A cheap clone.
#[derive(Clone)]
pub struct Transactions {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) settings: TxnSettings,
    pub(super) log: TransactionLog,
    pub(super) gauges: Mutex<HashMap<i32, SnapshotGauge>>,
    pub(super) topics: Arc<Topics>,
    pub(super) journal: SameJournal,
    pub(super) groups: Groups,
    pub(super) producer_ids: Arc<ProducerIds>,
    clock: Arc<dyn Clock>,
    pub(super) cache: TransactionCache,
    pub(super) pending_markers: PendingMarkers,
    /// When something is to be done about an id without a request, ms since 1970.
    pub(super) deadlines: Mutex<TimerQueue<Arc<str>>>,
    pub(super) sweeping: Arc<Semaphore>,
    /// Set once `__transaction_state` is there.
    created: OnceCell<()>,
}

/// Whether clients may use a transactional id.
pub fn open_to_clients(id: &str) -> Result<(), TxnError> {
    if id.starts_with(EMBEDDED_ID_PREFIX) { Err(TxnError::Reserved) } else { Ok(()) }
}

pub(super) async fn durable(append: InternalAppend) -> Result<(), TxnError> {
    append.durable().await.map(drop).map_err(|_| TxnError::NotAvailable)
}

impl Transactions {
    pub fn new(
        settings: TxnSettings,
        topics: Arc<Topics>,
        groups: Groups,
        producer_ids: Arc<ProducerIds>,
        clock: Arc<dyn Clock>,
    ) -> Transactions {
        let log = TransactionLog::new(Arc::clone(&topics), Arc::clone(&clock), settings.segment_bytes);
        let partitions = match log.partitions().len() {
            0 => settings.partitions,
            there => i32::try_from(there).unwrap_or(i32::MAX),
        };
        let inner = Inner {
            cache: TransactionCache::new(partitions, settings.max_ids),
            settings,
            log,
            gauges: Mutex::default(),
            journal: topics.same_journal(),
            topics,
            groups,
            producer_ids,
            clock,
            pending_markers: PendingMarkers::default(),
            deadlines: Mutex::default(),
            sweeping: sweep::permits(),
            created: OnceCell::new(),
        };
        Transactions { inner: Arc::new(inner) }
    }

    /// Replays `__transaction_state`. Blocking; before the first request.
    pub fn load(&self) -> Result<(), LoadError> {
        for (id, mut txn) in self.inner.log.replay()? {
            if open_to_clients(&id).is_err() {
                // Its producer was a part of the process that is gone.
                txn.timeout_ms = 0;
            }
            if txn.is_ending() && !Mutant::DecisionForgotten.is_on() {
                self.inner.pending_markers.add(id);
            }
            self.inner.topics.producer_id_is_used(txn.largest_producer_id());
            self.watch(&txn);
            self.inner.cache.load(txn);
        }
        Ok(())
    }

    /// Creates `__transaction_state` if it is not there yet.
    pub async fn ensure_topic(&self) -> Result<(), TxnError> {
        let inner = &self.inner;
        inner.created.get_or_try_init(|| inner.log.create(inner.settings.partitions)).await.copied()
    }

    /// AddPartitionsToTxn and AddOffsetsToTxn.
    pub async fn add(
        &self,
        id: &str,
        producer: ProducerIdentity,
        partitions: Vec<TopicPartition>,
        (kind, from): (RequestKind, Option<RequestOrigin>),
    ) -> Result<(), TxnError> {
        open_to_clients(id)?;
        let mut held = self.lock(id).await?;
        held.txn()?.check_producer(producer)?;
        held.last_seen.see(kind, from)?;
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
    pub async fn verify(
        &self,
        id: &str,
        producer: ProducerIdentity,
        at: &TopicPartition,
    ) -> Result<(), TxnError> {
        let held = self.lock(id).await?;
        held.txn()?.check_added(producer, at)
    }

    /// Locks an id, at once or not at all.
    pub fn try_lock(&self, id: &str) -> Result<Option<TxnLock>, TxnError> {
        Ok(self.inner.cache.get(id)?.try_lock_owned().ok())
    }

    /// Locks an id.
    pub async fn lock(&self, id: &str) -> Result<TxnLock, TxnError> {
        Ok(self.inner.cache.get(id)?.lock_owned().await)
    }

    /// Which of these writes may be done while `held` is held, in their order. With the newer protocol their partitions
    /// are added to the transaction, all in one record, which the journal makes durable before what is written next.
    pub fn allow(
        &self,
        held: &mut TxnLock,
        writes: Vec<TransactionalWrite>,
        protocol: Protocol,
        journal: SameJournal,
    ) -> Vec<Result<(), TxnError>> {
        let check = |write: &TransactionalWrite| match protocol {
            Protocol::Classic => held.txn()?.check_added(write.producer, &write.at),
            Protocol::EpochPerTransaction => held.txn()?.check_open(write.producer),
        };
        let mut verdicts: Vec<_> = writes.iter().map(check).collect();
        if protocol == Protocol::Classic || verdicts.iter().all(Result::is_err) {
            return verdicts;
        }
        let allowed = writes.into_iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        let added = self.add_locked(held, allowed.map(|(write, _)| write.at), protocol, journal);
        if let Err(error) = added {
            verdicts.iter_mut().for_each(|verdict| *verdict = verdict.and(Err(error)));
        }
        verdicts
    }

    /// Makes partitions part of the transaction, if they are not, before something is written to them.
    pub(super) fn add_locked(
        &self,
        held: &mut TxnLock,
        partitions: impl IntoIterator<Item = TopicPartition>,
        protocol: Protocol,
        _: SameJournal,
    ) -> Result<(), TxnError> {
        match held.txn()?.add(partitions, protocol, self.now_ms()) {
            Some(next) => self.replace(held, next).map(drop),
            None => Ok(()),
        }
    }

    /// TxnOffsetCommit: the offsets count once the transaction is committed. One result per offset, in order.
    pub async fn commit_offsets(
        &self,
        id: &str,
        group: &str,
        request: CommitRequest,
        producer: ProducerIdentity,
        protocol: Protocol,
        from: Option<RequestOrigin>,
    ) -> Result<Result<Vec<Result<(), GroupError>>, GroupError>, TxnError> {
        open_to_clients(id)?;
        self.inner.groups.ensure_topic().await.map_err(|_| TxnError::NotAvailable)?;
        let mut held = self.lock(id).await?;
        held.txn()?.check_producer(producer)?;
        held.last_seen.see(RequestKind::TxnOffsetCommit, from)?;
        let write = TransactionalWrite { producer, at: self.offsets_partition(group) };
        self.allow(&mut held, vec![write], protocol, self.inner.journal)
            .into_iter()
            .collect::<Result<(), _>>()?;
        // Held until the offsets have their place, or will have none.
        let release = Box::new(move |_| drop(held));
        Ok(self.inner.groups.commit_in_transaction(group, request, producer, release).await)
    }

    /// The partition that has a group's offsets.
    pub fn offsets_partition(&self, group: &str) -> TopicPartition {
        TopicPartition { topic: OFFSETS_TOPIC.into(), partition: self.inner.groups.partition_of(group) }
    }

    /// A transactional id as it is now.
    pub fn describe(&self, id: &str) -> Option<Arc<Transaction>> {
        self.inner.cache.show(id)
    }

    /// All transactional ids as they are now.
    pub fn list(&self) -> Vec<Arc<Transaction>> {
        self.inner.cache.show_all()
    }

    /// The transactions that a start would find. Blocking.
    pub fn replayed(&self) -> Result<HashMap<Arc<str>, Transaction>, LoadError> {
        self.inner.log.replay()
    }

    /// Writes the next state of an id, and takes it over if that worked.
    pub(super) fn replace(&self, held: &mut TxnLock, next: Transaction) -> Result<InternalAppend, TxnError> {
        let append = self.inner.log.write(&next)?;
        self.watch(&next);
        held.set(Some(next));
        Ok(append)
    }

    /// Runs to its end even when the connection that asked is gone: half an end would hold up readers until a restart.
    pub(super) async fn uncancelled<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, TxnError>> + Send + 'static,
    ) -> Result<T, TxnError> {
        tokio::spawn(work).await.unwrap_or(Err(TxnError::NotAvailable))
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.inner.clock.now_ms()
    }
}
