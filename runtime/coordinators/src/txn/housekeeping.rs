//! Periodic jobs of the transaction coordinator.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::coordinator::Transactions;

/// How long to wait before markers that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often things are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Transactions that timed out, and transactional ids that expired.
    pub sweep: Duration,
    /// Partitions of `__transaction_state` that have grown.
    pub snapshots: Duration,
}

/// Runs until the broker stops. Jobs do not wait for each other.
pub async fn run(transactions: Transactions, intervals: Intervals, stopping: impl Future<Output = ()>) {
    let mut jobs = JoinSet::new();
    let sweeps = transactions.clone();
    jobs.spawn(every(intervals.sweep, async move || sweeps.sweep().await));
    let completing = transactions.clone();
    // The tasks that this starts go on by themselves.
    jobs.spawn(every(RETRY, async move || drop(completing.start_completing())));
    jobs.spawn(every(intervals.snapshots, async move || transactions.snapshot_when_due().await));
    stopping.await;
}

async fn every(period: Duration, mut job: impl AsyncFnMut()) {
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        job().await;
    }
}
