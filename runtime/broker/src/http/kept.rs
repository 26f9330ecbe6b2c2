//! A cached answer: made at most once per interval however many clients ask, so that no client can keep the broker
//! busy.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// A value that is cached for a time.
pub(super) struct Kept<T> {
    time: Duration,
    /// Locked while the value is made, so that concurrent requests wait for the same one.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Kept<T> {
    /// Caches values for `time`.
    pub(super) fn new(time: Duration) -> Kept<T> {
        Kept { time, last: Mutex::default() }
    }

    /// The cached value, or a new one by `make`.
    pub(super) async fn get(&self, make: impl Future<Output = T>) -> T {
        let mut last = self.last.lock().await;
        if let Some((at, kept)) = &*last
            && at.elapsed() < self.time
        {
            return kept.clone();
        }
        let made = make.await;
        *last = Some((Instant::now(), made.clone()));
        made
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_made_once_in_a_while() {
        let (kept, made) = (Kept::new(Duration::from_secs(1)), Cell::new(0));
        let make = || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            made.set(made.get() + 1);
            made.get()
        };
        let got = tokio::join!(kept.get(make()), kept.get(make()), kept.get(make()));
        assert_eq!(got, (1, 1, 1), "who asks meanwhile gets the same");
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(kept.get(make()).await, 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(kept.get(make()).await, 2);
    }
}
