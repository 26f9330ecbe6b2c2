//! The transactional ids that the broker knows, each behind a lock of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::error::TxnError;
use super::origin::LastSeen;
use super::state::Transaction;
use crate::group::partition_of;

/// The state of a transactional id, and its last requests.
#[derive(Default)]
pub struct TransactionMetadata {
    /// `None` until it is first used.
    txn: Option<Arc<Transaction>>,
    /// The same for readers that do not lock.
    shown: Arc<Mutex<Option<Arc<Transaction>>>>,
    pub(super) last_seen: LastSeen,
}

impl TransactionMetadata {
    pub(super) fn txn(&self) -> Result<&Transaction, TxnError> {
        self.txn.as_deref().ok_or(TxnError::UnknownProducer)
    }

    pub(super) fn get(&self) -> Option<&Arc<Transaction>> {
        self.txn.as_ref()
    }

    pub(super) fn set(&mut self, txn: Option<Transaction>) {
        self.txn = txn.map(Arc::new);
        self.shown.lock().clone_from(&self.txn);
    }
}

type Lock = Arc<tokio::sync::Mutex<TransactionMetadata>>;
/// A locked transactional id.
pub type TxnLock = OwnedMutexGuard<TransactionMetadata>;

struct Entry {
    lock: Lock,
    shown: Arc<Mutex<Option<Arc<Transaction>>>>,
}

impl Entry {
    fn new(txn: Option<Transaction>) -> Entry {
        let mut metadata = TransactionMetadata::default();
        metadata.set(txn);
        Entry { shown: Arc::clone(&metadata.shown), lock: Arc::new(tokio::sync::Mutex::new(metadata)) }
    }
}

/// The ids of one partition of `__transaction_state`.
type Shard = HashMap<Arc<str>, Entry>;

/// All transactional ids, by partition of `__transaction_state`.
pub(super) struct TransactionCache {
    shards: Vec<Mutex<Shard>>,
    count: AtomicUsize,
    max: usize,
}

impl TransactionCache {
    pub(super) fn new(partitions: i32, max: usize) -> TransactionCache {
        let shards = (0..partitions.max(1)).map(|_| Mutex::default()).collect();
        TransactionCache { shards, count: AtomicUsize::new(0), max }
    }

    fn shard(&self, id: &str) -> &Mutex<Shard> {
        &self.shards[partition_of(id, self.shards.len())]
    }

    /// Takes over an id that the log has, whatever the limit says.
    pub(super) fn load(&self, txn: Transaction) {
        let id = Arc::clone(&txn.id);
        if self.shard(&id).lock().insert(id, Entry::new(Some(txn))).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The lock of an id.
    pub(super) fn get(&self, id: &str) -> Result<Lock, TxnError> {
        let shard = self.shard(id).lock();
        shard.get(id).map(|entry| Arc::clone(&entry.lock)).ok_or(TxnError::UnknownProducer)
    }

    /// The lock of an id, which may be a new one.
    pub(super) fn get_or_new(&self, id: &str) -> Result<Lock, TxnError> {
        let mut shard = self.shard(id).lock();
        if let Some(entry) = shard.get(id) {
            return Ok(Arc::clone(&entry.lock));
        }
        // Shards count at the same time, so the limit may be passed by as many ids as there are shards.
        if self.count.load(Ordering::Relaxed) >= self.max {
            return Err(TxnError::TooMany);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let entry = shard.entry(id.into()).or_insert_with(|| Entry::new(None));
        Ok(Arc::clone(&entry.lock))
    }

    /// Removes an id if only the caller has its lock or waits for it, and `forget` succeeds. Whether it is removed.
    pub(super) fn remove(&self, id: &str, held: &mut TxnLock, forget: impl FnOnce() -> bool) -> bool {
        let mut shard = self.shard(id).lock();
        // Two references: the map's and the caller's. A third holder would go on with an orphaned lock.
        if Arc::strong_count(OwnedMutexGuard::mutex(held)) > 2 || !forget() {
            return false;
        }
        held.set(None);
        if shard.remove(id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// An id as it is now, without waiting for its lock.
    pub(super) fn show(&self, id: &str) -> Option<Arc<Transaction>> {
        let shown = Arc::clone(&self.shard(id).lock().get(id)?.shown);
        shown.lock().clone()
    }

    /// All ids as they are now, without waiting for their locks.
    pub(super) fn show_all(&self) -> Vec<Arc<Transaction>> {
        let mut all = Vec::with_capacity(self.count.load(Ordering::Relaxed));
        for shard in &self.shards {
            let shard = shard.lock();
            all.extend(shard.values().filter_map(|entry| entry.shown.lock().clone()));
        }
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The ids of a partition of `__transaction_state`, in order.
    pub(super) fn of_partition(&self, partition: i32) -> Vec<Arc<str>> {
        let shard = usize::try_from(partition).ok().and_then(|index| self.shards.get(index));
        let mut ids: Vec<_> = shard.map_or_else(Vec::new, |shard| shard.lock().keys().cloned().collect());
        ids.sort_unstable();
        ids
    }
}
