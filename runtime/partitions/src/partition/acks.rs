//! What an acknowledgement waits for: a number of appends, on any partitions, to become durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

/// The storage failed before the appends were durable. Whether they are in the log is not known until it is reopened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage failed before the append was durable")]
pub struct NotDurable;

/// Appends that one answer waits for. Partitions count them off as they become durable.
#[derive(Debug)]
pub struct Acks {
    // One more than the appends while the handler still adds some, so that it cannot reach 0 early.
    open: AtomicU32,
    failed: AtomicBool,
    changed: Notify,
}

impl Acks {
    /// Waits for nothing yet; call [`Acks::wait`] after the last append.
    pub fn new() -> Arc<Self> {
        Arc::new(Acks { open: AtomicU32::new(1), failed: AtomicBool::new(false), changed: Notify::new() })
    }

    /// One more append to wait for.
    pub fn add(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One append is durable.
    pub fn complete(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }

    /// One append will never be known to be durable.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Release);
        self.complete();
    }

    /// Waits until every append that was added is durable. Only one caller may wait.
    pub async fn wait(&self) -> Result<(), NotDurable> {
        self.complete();
        while self.open.load(Ordering::Acquire) != 0 {
            self.changed.notified().await;
        }
        if self.failed.load(Ordering::Acquire) { Err(NotDurable) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_for_every_append() {
        let acks = Acks::new();
        acks.add();
        acks.add();
        acks.complete();
        let waiting = tokio::spawn({
            let acks = Arc::clone(&acks);
            async move { acks.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        acks.complete();
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn one_failure_fails_the_answer_after_all_are_known() {
        let acks = Acks::new();
        acks.add();
        acks.add();
        acks.fail();
        acks.complete();
        assert_eq!(acks.wait().await, Err(NotDurable));
    }

    #[tokio::test]
    async fn nothing_to_wait_for() {
        assert_eq!(Acks::new().wait().await, Ok(()));
    }
}
