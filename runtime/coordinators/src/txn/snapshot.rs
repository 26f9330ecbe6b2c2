//! Keeps `__transaction_state` as small as its live records.

use std::sync::Arc;

use super::coordinator::{Transactions, durable};
use super::error::TxnError;
use pelton_partitions::blocking::run_blocking;
use pelton_partitions::partition::Partition;

impl Transactions {
    /// Writes a snapshot of each partition that has grown enough since its last one.
    pub async fn snapshot_when_due(&self) {
        for partition in self.inner.log.partitions() {
            let size = partition.reader().size_bytes();
            let due = {
                let mut gauges = self.inner.gauges.lock();
                gauges
                    .entry(partition.index())
                    .or_default()
                    .is_due(size, self.inner.settings.snapshot_min_bytes)
            };
            if !due {
                continue;
            }
            match self.snapshot(&partition).await {
                Ok(()) => self.inner.gauges.lock().entry(partition.index()).or_default().taken(),
                Err(error) => {
                    tracing::warn!(partition = partition.index(), %error,
                        "a snapshot of `__transaction_state` was not written; trying again");
                }
            }
        }
    }

    /// Appends every transactional id of the partition once more, and then deletes the records before.
    async fn snapshot(&self, partition: &Arc<Partition>) -> Result<(), TxnError> {
        let before = partition.high_watermark();
        let mut last = None;
        for id in self.inner.cache.of_partition(partition.index()) {
            let Ok(mut held) = self.lock(&id).await else { continue };
            if let Some(txn) = held.get().cloned() {
                last = Some(self.replace(&mut held, (*txn).clone())?);
            }
        }
        if let Some(last) = last {
            durable(last).await?;
        }
        let (partition, now_ms) = (Arc::clone(partition), self.now_ms());
        let deleted = run_blocking(move || partition.delete_before(before, now_ms)).await;
        deleted.map_err(|_| TxnError::NotAvailable)
    }
}
