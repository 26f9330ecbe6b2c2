//! What is done now and then: old segments go, quiet producers are forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::broker::{Broker, run_blocking};
use crate::partition::Partition;

/// Longest time between two rounds of small work in the logs (quiet producers, files to remove, snapshots), in ms: it costs
/// microseconds a partition, and the next start is the shorter for it.
const ROUND_MAX_MS: i64 = 60_000;

/// Runs until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = broker.stopping();
    let mut retention = every(broker.config.log_retention_check_interval_ms);
    let mut snapshots = every(broker.config.snapshot_check_interval_ms);
    let mut producers = every(broker.config.producer_id_expiration_check_interval_ms.min(ROUND_MAX_MS));
    loop {
        let job: fn(&Partition, i64) = tokio::select! {
            _ = retention.tick() => Partition::apply_retention,
            _ = producers.tick() => Partition::housekeep,
            _ = snapshots.tick() => {
                drop(broker.groups.snapshot_when_due());
                continue;
            }
            () = stopping.wait() => return,
        };
        for topic in broker.topics.list() {
            let (partitions, now_ms) = (topic.partitions.clone(), broker.clock.now_ms());
            // A topic at a time, so that a stop waits for one topic at most.
            tokio::select! {
                () = run_blocking(move || partitions.iter().for_each(|partition| job(partition, now_ms))) => {}
                () = stopping.wait() => return,
            }
        }
    }
}

fn every(ms: i64) -> Interval {
    let period = Duration::from_millis(u64::try_from(ms).unwrap_or(1).max(1));
    let mut interval = tokio::time::interval(period);
    // After a long job the next one is a whole period away, not at once.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
