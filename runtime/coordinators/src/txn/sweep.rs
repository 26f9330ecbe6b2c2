//! Time-outs of transactions and the expiry of transactional ids. Each id has one deadline in a queue, so a round costs
//! what is due; and each id that is due has a task of its own, so that one whose lock is taken delays no other.

use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use tokio::sync::Semaphore;

use super::coordinator::Transactions;
use super::state::{EpochAfter, Transaction};

/// Ids that are handled at the same time. If as many are locked and never unlocked, the rest waits.
pub(super) const AT_ONCE: usize = 256;
/// How long to wait before what could not be done for an id is tried again.
const RETRY_MS: i64 = 1000;

impl Transactions {
    /// Starts to do what is due: aborts transactions that timed out, which fences their producers, and deletes ids that
    /// no producer has used for `transactional.id.expiration.ms`. Does not wait until that is done.
    pub async fn sweep(&self) {
        while let Some(id) = self.pop_due() {
            let permit = Arc::clone(&self.inner.sweeping).acquire_owned().await;
            let this = self.clone();
            tokio::spawn(async move {
                this.act_on_deadline(&id).await;
                drop(permit);
            });
        }
    }

    fn pop_due(&self) -> Option<Arc<str>> {
        let now_ms = u64::try_from(self.now_ms()).unwrap_or(0);
        self.inner.deadlines.lock().pop_due(now_ms)
    }

    async fn act_on_deadline(&self, id: &Arc<str>) {
        let Ok(mut held) = self.lock(id).await else { return };
        let Some(txn) = held.get().cloned() else { return };
        let (now_ms, expiration_ms) = (self.now_ms(), self.inner.settings.expiration_ms);
        // Until this has worked. If it has, the state that it leaves sets another one.
        let at_ms = if txn.is_timed_out(now_ms) || txn.is_expired(now_ms, expiration_ms) {
            Some(now_ms.saturating_add(RETRY_MS))
        } else {
            txn.deadline_ms(expiration_ms)
        };
        self.set_deadline(id, at_ms);
        if txn.is_timed_out(now_ms) {
            tracing::info!(transactional_id = &**id, "the transaction timed out, aborting it");
            let kept = Mutant::TimeOutKeepsEpoch.is_on();
            let epoch = if kept { EpochAfter::Same } else { EpochAfter::Fencing };
            match self.end_locked(&mut held, false, epoch, None).await {
                Ok(_) => held.last_seen.start_anew(),
                Err(error) => {
                    tracing::warn!(transactional_id = &**id, %error, "a transaction that timed out is not aborted yet");
                }
            }
        } else if txn.is_expired(now_ms, expiration_ms) {
            let forget = || self.inner.log.forget(id).is_ok();
            if self.inner.cache.remove(id, &mut held, forget) {
                self.set_deadline(id, None);
            }
        }
    }

    /// Has [`Transactions::sweep`] look at an id at this time.
    fn set_deadline(&self, id: &Arc<str>, at_ms: Option<i64>) {
        let mut deadlines = self.inner.deadlines.lock();
        match at_ms {
            Some(at_ms) => deadlines.set(Arc::clone(id), u64::try_from(at_ms).unwrap_or(0)),
            None => deadlines.cancel(id),
        }
    }

    /// The state of an id has changed, and with it the time at which something is to be done.
    pub(super) fn watch(&self, txn: &Transaction) {
        self.set_deadline(&txn.id, txn.deadline_ms(self.inner.settings.expiration_ms));
    }
}

pub(super) fn permits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}
