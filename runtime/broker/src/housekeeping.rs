//! Periodic work on the logs: deletes segments by retention, expires idle producers, writes snapshots.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::blocking::run_blocking;
use crate::clock::Clock;
use crate::config::Config;
use crate::group::service::Groups;
use crate::partition::Partition;
use crate::topics::Topics;

/// Longest time in ms between two rounds of small work in the logs (idle producers, files to remove, snapshots). A
/// round costs microseconds a partition and shortens the next start.
const ROUND_MAX_MS: i64 = 60_000;

/// Runs until the broker stops.
pub(crate) async fn run(
    topics: Arc<Topics>,
    groups: Groups,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
    stopping: CancellationToken,
) {
    let mut retention = every(config.log_retention_check_interval_ms);
    let mut snapshots = every(config.snapshot_check_interval_ms);
    let mut producers = every(config.producer_id_expiration_check_interval_ms.min(ROUND_MAX_MS));
    loop {
        let job: fn(&Partition, i64) = tokio::select! {
            _ = retention.tick() => Partition::apply_retention,
            _ = producers.tick() => Partition::housekeep,
            _ = snapshots.tick() => {
                drop(groups.snapshot_when_due());
                continue;
            }
            () = stopping.cancelled() => return,
        };
        for topic in topics.list() {
            let (partitions, now_ms) = (topic.local.clone(), clock.now_ms());
            // One topic at a time, so that a stop waits for one topic at most.
            tokio::select! {
                () = run_blocking(move || partitions.iter().for_each(|partition| job(partition, now_ms))) => {}
                () = stopping.cancelled() => return,
            }
        }
    }
}

fn every(ms: i64) -> Interval {
    let period = Duration::from_millis(u64::try_from(ms).unwrap_or(1).max(1));
    let mut interval = tokio::time::interval(period);
    // After a long round the next one is a whole period away.
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
