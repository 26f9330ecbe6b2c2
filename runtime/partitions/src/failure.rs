//! The one-way signal that the storage has failed for good and the process must end, so that a restart recovers from
//! what is known to be on disk.

use std::sync::Arc;

use pelton_commitlog::StorageFailure;
use tokio::sync::watch;

/// Shared by all that can see the storage fail. The first reason stays.
#[derive(Clone, Debug)]
pub struct Failure {
    reason: Arc<watch::Sender<Option<String>>>,
}

impl Default for Failure {
    fn default() -> Self {
        Failure { reason: Arc::new(watch::Sender::new(None)) }
    }
}

impl Failure {
    /// Says that the storage has failed for good.
    pub fn raise(&self, reason: &StorageFailure) {
        self.reason.send_if_modified(|first| {
            let news = first.is_none();
            if news {
                tracing::error!(%reason,
                    "the storage failed; the broker stops, since nothing it would acknowledge is safe");
                *first = Some(reason.to_string());
            }
            news
        });
    }

    /// Why the storage failed, if it has.
    pub fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits until the storage fails, and says why.
    pub async fn raised(&self) -> String {
        let mut changes = self.reason.subscribe();
        match changes.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The sender lives in `self`.
            Err(_) => std::future::pending().await,
        }
    }
}
