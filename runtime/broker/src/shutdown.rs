//! The signal that the broker stops.

use tokio::sync::watch;

/// The end that says it.
#[derive(Debug)]
pub(crate) struct StopSignal(watch::Sender<bool>);

impl StopSignal {
    pub(crate) fn new() -> Self {
        StopSignal(watch::Sender::new(false))
    }

    /// Says it. Saying it twice changes nothing.
    pub(crate) fn raise(&self) {
        self.0.send_replace(true);
    }

    /// An end that waits for it.
    pub(crate) fn listen(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }
}

/// An end that waits for it.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns when the broker stops, at once if it has begun to. Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        // A sender that is gone means that the broker is gone.
        drop(self.0.wait_for(|stopping| *stopping).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn late_listeners_hear_it_too() {
        let signal = StopSignal::new();
        let mut early = signal.listen();
        signal.raise();
        signal.raise();
        early.wait().await;
        signal.listen().wait().await;
    }
}
