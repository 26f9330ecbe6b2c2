//! One timer for all waits of a connection. Most waits end long before their deadline, and an entry in tokio's timer
//! wheel for each request would cost more than the request. The connection's one entry stays where it is until it
//! fires, and only then moves on to the deadline of the current wait.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

/// The timer of a connection. Only the connection's task uses it.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTimer {
    sleep: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl ConnectionTimer {
    /// The result of `work`, or `None` once `deadline` has passed.
    pub(crate) async fn until<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_passed(deadline, cx).map(|()| None),
        })
        .await
    }

    /// Ready if `deadline` has passed; otherwise the task is woken then at the latest.
    fn poll_passed(&self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.sleep.lock();
        let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_kept_whatever_the_order() {
        let (timer, start) = (ConnectionTimer::default(), Instant::now());
        let wait = async |ms: u64, work_ms: u64| {
            let work = tokio::time::sleep(Duration::from_millis(work_ms));
            let done = timer.until(start + Duration::from_millis(ms), work).await.is_some();
            (done, start.elapsed().as_millis())
        };
        let all = tokio::join!(wait(30, 1000), wait(10, 1000), wait(20, 1000), wait(1000, 15), wait(0, 1000));
        assert_eq!(all, ((false, 30), (false, 10), (false, 20), (true, 15), (false, 0)));
        // The entry is in the past now.
        assert_eq!(wait(50, 1000).await, (false, 50));
        assert_eq!(wait(40, 1000).await, (false, 50), "passed already");
        assert_eq!(wait(5_000, 10).await, (true, 60));
        assert_eq!(wait(100, 1000).await, (false, 100));
    }
}
