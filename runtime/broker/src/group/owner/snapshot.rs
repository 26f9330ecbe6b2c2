//! Keeps a partition of `__consumer_offsets` as small as what it says.

use std::sync::Arc;

use super::{After, Owner};
use crate::snapshot::SnapshotGauge;

/// How long to wait before looking again whether the shard is settled: that takes a look at each group.
const LOOK_AGAIN_MS: u64 = 50;

/// What an owner knows of its snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    gauge: SnapshotGauge,
    wanted: bool,
    not_before_ms: u64,
}

impl Owner {
    pub(super) fn want_snapshot_when_due(&mut self) {
        let size = self.store.size_bytes(self.partition);
        self.snapshots.wanted |= self.snapshots.gauge.is_due(size, self.limits.snapshot_min_bytes);
    }

    /// Writes a wanted snapshot as soon as the log says all that is known: then nothing before it is needed any more. There
    /// are such moments as long as no rebalance and no transaction is open all the time.
    pub(super) fn snapshot_when_settled(&mut self) {
        if !self.snapshots.wanted || !self.in_flight.is_empty() {
            return;
        }
        let now_ms = self.clock.now().mono_ms;
        if now_ms < self.snapshots.not_before_ms {
            return;
        }
        if !self.shard.is_settled() {
            self.snapshots.not_before_ms = now_ms.saturating_add(LOOK_AGAIN_MS);
            return;
        }
        self.snapshots.wanted = false;
        self.snapshots.gauge.taken();
        let (store, partition) = (Arc::clone(&self.store), self.partition);
        let before = store.end_offset(partition);
        let effects = self.shard.snapshot();
        let after: After = Box::new(move |landed| match landed {
            Ok(()) => {
                let deleted = store.delete_before(partition, before);
                tokio::spawn(async move {
                    if let Err(error) = deleted.await {
                        tracing::warn!(partition, %error, "what a snapshot of the groups supersedes could not be deleted; trying again");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(partition, %error, "a snapshot of the groups was not written; trying again")
            }
        });
        self.perform(effects, Some(after));
    }
}
