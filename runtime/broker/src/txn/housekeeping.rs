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
    let check_ms = u64::try_from(broker.config.transaction_abort_check_interval_ms).unwrap_or(1).max(1);
    let mut timeouts = interval(Duration::from_millis(check_ms));
    let (mut retry, mut expiry) = (interval(RETRY), interval(EXPIRY));
    for timer in [&mut timeouts, &mut retry, &mut expiry] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        tokio::select! {
            _ = retry.tick() => drop(broker.transactions.finish_all().await),
            _ = timeouts.tick() => broker.transactions.abort_timed_out().await,
            _ = expiry.tick() => broker.transactions.expire().await,
            () = stopping.wait() => return,
        }
    }
}
