//! An answer that is made at most once in a while, however many ask for it: nobody who reaches the port can keep the broker
//! busy with making it.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// See the module.
pub(super) struct Kept<T> {
    time: Duration,
    /// Locked while it is made, so that others wait for the same.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Kept<T> {
    /// What is made is given out for `time`.
    pub(super) fn new(time: Duration) -> Kept<T> {
        Kept { time, last: Mutex::default() }
    }

    /// What was made last, or what `make` gives.
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
