//! InitProducerId: makes a producer the only one of a transactional id.

use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;

use super::cache::TxnLock;
use super::coordinator::{Transactions, durable, open_to_clients};
use super::error::TxnError;
use super::origin::{RequestKind, RequestOrigin};
use super::records::ID_BYTES_MAX;
use super::state::{EpochAfter, Init, Transaction, TxnState};
use pelton_partitions::producer_id::ProducerIdentity;

impl Transactions {
    /// InitProducerId: the producer becomes the only one of its id. An open transaction is aborted.
    pub async fn init(
        &self,
        id: &str,
        before: Option<ProducerIdentity>,
        timeout_ms: i32,
        from: Option<RequestOrigin>,
    ) -> Result<ProducerIdentity, TxnError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(TxnError::InvalidId);
        }
        open_to_clients(id)?;
        if timeout_ms <= 0 || timeout_ms > self.inner.settings.max_timeout_ms {
            return Err(TxnError::InvalidTimeout);
        }
        self.ensure_topic().await?;
        let (this, lock) = (self.clone(), self.inner.cache.get_or_new(id)?);
        let id: Arc<str> = id.into();
        self.uncancelled(async move {
            let mut held = lock.lock_owned().await;
            held.last_seen.see(RequestKind::InitProducerId, from)?;
            let outcome = this.init_locked(&mut held, Arc::clone(&id), before, timeout_ms).await;
            if held.get().is_none() {
                this.inner.cache.remove(&id, &mut held, || true);
            }
            outcome
        })
        .await
    }

    pub(super) async fn init_locked(
        &self,
        held: &mut TxnLock,
        id: Arc<str>,
        before: Option<ProducerIdentity>,
        timeout_ms: i32,
    ) -> Result<ProducerIdentity, TxnError> {
        let Some(mut current) = held.get().cloned() else {
            let fresh = Transaction::new(id, self.next_producer_id().await?, timeout_ms, self.now_ms());
            return self.replace_and_wait(held, fresh).await;
        };
        let init = current.check_init(before)?;
        if init == Init::Again {
            return self.replace_and_wait(held, (*current).clone()).await;
        }
        if current.state == TxnState::Ongoing && !Mutant::InitKeepsOpen.is_on() {
            // The new producer reads the committed offsets of its group next: they must be decided by then.
            self.end_locked(held, false, EpochAfter::Fencing, None).await?.settled().await?;
            current = held.get().cloned().ok_or(TxnError::UnknownProducer)?;
        }
        let rotated = if init == Init::Rotate || current.must_rotate() {
            Some(self.next_producer_id().await?)
        } else {
            None
        };
        let next = current.init(before, rotated, timeout_ms, self.now_ms());
        held.last_seen.start_anew();
        self.replace_and_wait(held, next).await
    }

    /// Writes the state of an id and waits until it is durable.
    pub(super) async fn replace_and_wait(
        &self,
        held: &mut TxnLock,
        next: Transaction,
    ) -> Result<ProducerIdentity, TxnError> {
        let producer = next.producer;
        let append = self.replace(held, next)?;
        if !Mutant::InitBeforeSync.is_on() {
            durable(append).await?;
        }
        Ok(producer)
    }

    async fn next_producer_id(&self) -> Result<i64, TxnError> {
        let next = self.inner.producer_ids.next(&self.inner.topics).await;
        next.map_err(|error| {
            tracing::warn!(%error, "no producer id could be reserved");
            TxnError::NotAvailable
        })
    }

    /// The producer id that comes after an end, if no epoch is left.
    pub(super) async fn rotated(&self, txn: &Transaction) -> Result<Option<i64>, TxnError> {
        if txn.must_rotate() { self.next_producer_id().await.map(Some) } else { Ok(None) }
    }
}
