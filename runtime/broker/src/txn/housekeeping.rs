//! What is done for transactions now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::broker::Broker;

/// How long to wait before markers that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often unused ids are looked for: their time is counted in days.
const EXPIRY: Duration = Duration::from_secs(3600);

/// Runs until the broker stops.
pub(crate) async fn run(broker: Arc<Broker>) {
    let mut stopping = broker.stopping();
    let every = |ms: i64| interval(Duration::from_millis(u64::try_from(ms).unwrap_or(1).max(1)));
    let mut timeouts = every(broker.config.transaction_abort_check_interval_ms);
    let mut snapshots = every(broker.config.snapshot_check_interval_ms);
    let (mut retry, mut expiry) = (interval(RETRY), interval(EXPIRY));
    for timer in [&mut timeouts, &mut retry, &mut expiry, &mut snapshots] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            _ = retry.tick() => drop(broker.transactions.finish_all().await),
            _ = timeouts.tick() => broker.transactions.abort_timed_out().await,
            _ = expiry.tick() => broker.transactions.expire().await,
            _ = snapshots.tick() => broker.transactions.snapshot_when_due().await,
            () = stopping.wait() => return,
        }
    }
}
