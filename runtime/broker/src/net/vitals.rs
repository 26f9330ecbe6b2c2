//! The timeouts of a connection: idle, request receive, response send.
//!
//! The reader and the writer of a connection note moments in atomics; one coarse timer looks at them. A timer per
//! request would cost more than most requests.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;

/// Which timeout closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Expired {
    #[error("no request for `connections.max.idle.ms`")]
    Idle,
    #[error("a request did not arrive whole within `pelton.request.receive.timeout.ms`")]
    SlowRequest,
    #[error("the client took nothing of a response for `pelton.response.send.timeout.ms`")]
    SlowReader,
}

/// How long each phase may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    idle_ms: u64,
    receive_ms: u64,
    send_ms: u64,
}

impl Patience {
    pub(crate) fn of(config: &Config) -> Self {
        let ms = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        Patience {
            idle_ms: ms(config.connections_max_idle_ms),
            receive_ms: ms(config.request_receive_timeout_ms),
            send_ms: ms(config.response_send_timeout_ms),
        }
    }

    /// How often to check: no timeout is exceeded by more than half.
    fn tick(self) -> Duration {
        const SHORTEST_MS: u64 = 10;
        const LONGEST_MS: u64 = 30_000;
        let shortest = self.idle_ms.min(self.receive_ms).min(self.send_ms);
        Duration::from_millis((shortest / 2).clamp(SHORTEST_MS, LONGEST_MS))
    }
}

/// The moments of one connection, in milliseconds since it was opened. 0 in a `*_since` means "not now".
#[derive(Debug)]
pub(crate) struct Vitals {
    opened: Instant,
    last_request: AtomicU64,
    receiving_since: AtomicU64,
    sending_since: AtomicU64,
    /// Since when reading the request waits for the broker and not for the client.
    held_up_since: AtomicU64,
    waiting: AtomicU32,
}

impl Vitals {
    pub(crate) fn new() -> Self {
        Vitals {
            opened: Instant::now(),
            last_request: AtomicU64::new(0),
            receiving_since: AtomicU64::new(0),
            sending_since: AtomicU64::new(0),
            held_up_since: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
        }
    }

    fn now(&self) -> u64 {
        // From 1, so that 0 can mean "not now".
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// The first bytes of a request have arrived.
    pub(crate) fn request_begun(&self) {
        if self.receiving_since.load(Ordering::Relaxed) == 0 {
            self.receiving_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A request has arrived whole and waits for its response.
    pub(crate) fn request_whole(&self) {
        self.receiving_since.store(0, Ordering::Relaxed);
        self.last_request.store(self.now(), Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the broker, for example for request memory: the time does not count towards the client's timeouts.
    pub(crate) async fn waiting_for_us<T>(&self, ours: impl Future<Output = T>) -> T {
        let begin = self.now();
        self.held_up_since.store(begin, Ordering::Relaxed);
        let got = ours.await;
        if self.receiving_since.load(Ordering::Relaxed) != 0 {
            let waited = self.now().saturating_sub(begin);
            self.receiving_since.fetch_add(waited, Ordering::Relaxed);
        }
        self.held_up_since.store(0, Ordering::Relaxed);
        got
    }

    /// A request is done: its response has been sent, or it has none.
    pub(crate) fn request_done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.last_request.store(self.now(), Ordering::Relaxed);
    }

    /// The socket takes no more bytes; the time counts from the last byte that it took.
    pub(crate) fn send_blocked(&self) {
        if self.sending_since.load(Ordering::Relaxed) == 0 {
            self.sending_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// The socket took some bytes.
    pub(crate) fn send_moved(&self) {
        self.sending_since.store(0, Ordering::Relaxed);
    }

    pub(super) fn check(&self, patience: Patience) -> Result<(), Expired> {
        let now = self.now();
        let over = |since: u64, limit: u64| since != 0 && now.saturating_sub(since) > limit;
        if over(self.sending_since.load(Ordering::Relaxed), patience.send_ms) {
            return Err(Expired::SlowReader);
        }
        if self.held_up_since.load(Ordering::Relaxed) != 0 {
            return Ok(());
        }
        let receiving_since = self.receiving_since.load(Ordering::Relaxed);
        if over(receiving_since, patience.receive_ms) {
            return Err(Expired::SlowRequest);
        }
        let idle = receiving_since == 0 && self.waiting.load(Ordering::Relaxed) == 0;
        if idle && over(self.last_request.load(Ordering::Relaxed).max(1), patience.idle_ms) {
            return Err(Expired::Idle);
        }
        Ok(())
    }

    /// Returns when the connection has exceeded one of its timeouts.
    pub(crate) async fn expired(&self, patience: Patience) -> Expired {
        loop {
            tokio::time::sleep(patience.tick()).await;
            if let Err(expired) = self.check(patience) {
                return expired;
            }
        }
    }
}

/// For tests.
#[cfg(test)]
pub(super) const PATIENCE: Patience = Patience { idle_ms: 10_000, receive_ms: 1_000, send_ms: 2_000 };

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_limit() {
        let pass = |ms| tokio::time::advance(Duration::from_millis(ms));
        let vitals = Vitals::new();
        pass(9_000).await;
        assert_eq!(vitals.check(PATIENCE), Ok(()));
        pass(1_100).await;
        assert_eq!(vitals.check(PATIENCE), Err(Expired::Idle));

        vitals.request_begun();
        pass(600).await;
        vitals.request_begun();
        pass(600).await;
        assert_eq!(vitals.check(PATIENCE), Err(Expired::SlowRequest), "more bytes do not buy more time");

        vitals.request_whole();
        pass(50_000).await;
        assert_eq!(vitals.check(PATIENCE), Ok(()), "a connection that waits for a response is not idle");

        vitals.send_blocked();
        pass(2_100).await;
        assert_eq!(vitals.check(PATIENCE), Err(Expired::SlowReader));
        vitals.send_moved();
        vitals.request_done();
        assert_eq!(vitals.check(PATIENCE), Ok(()));
    }
}
