//! Keeps a partition of `__consumer_offsets` as small as its live records.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{After, Owner};

impl Owner {
    /// Writes a snapshot if the log has grown enough. It may be at any moment: what is not decided, or on its way,
    /// stays as it is in the log, and only what is before that is let go, once the snapshot is durable.
    pub(super) fn snapshot_when_due(&mut self, over: oneshot::Sender<()>) {
        let size = self.store.size_bytes(self.partition);
        if !self.snapshots.is_due(size, self.limits.snapshot_min_bytes) {
            return;
        }
        self.snapshots.taken();
        let on_their_way = self.in_flight.iter().filter(|append| append.then.is_of_members());
        let on_their_way = on_their_way.map(|append| append.group.clone()).collect();
        let (store, partition) = (Arc::clone(&self.store), self.partition);
        let landed = if self.in_flight.is_empty() { store.end_offset(partition) } else { self.landed_before };
        let (effects, needed) = self.shard.snapshot(&on_their_way);
        let before = needed.map_or(landed, |needed| needed.min(landed));
        let let_go: After = Box::new(move |written| match written {
            Ok(()) => {
                let deleted = store.delete_before(partition, before);
                tokio::spawn(async move {
                    if let Err(error) = deleted.await {
                        tracing::warn!(partition, %error,
                            "records before a snapshot of `__consumer_offsets` were not deleted; the next one deletes them");
                    }
                    drop(over);
                });
            }
            Err(error) => {
                tracing::warn!(partition, %error,
                    "a snapshot of `__consumer_offsets` was not written; the next is due when the log has doubled");
            }
        });
        self.perform(effects, Some(let_go));
    }
}
