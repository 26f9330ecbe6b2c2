//! The clock of deadlines: a thread that advances wasmtime's epoch.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::limits::EPOCH_TICK_MS;

/// Advances the epoch while a [`Ticking`] exists, and sleeps otherwise.
pub(crate) struct Ticker {
    state: Arc<State>,
}

type State = (Mutex<Ticks>, Condvar);

#[derive(Default)]
struct Ticks {
    wanted: usize,
    stopped: bool,
}

/// The epoch advances while this exists.
pub(crate) struct Ticking {
    ticker: Arc<Ticker>,
}

impl Ticker {
    /// Starts the thread, which ends with the ticker.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(engine: wasmtime::Engine) -> std::io::Result<Arc<Ticker>> {
        let state: Arc<State> = Arc::default();
        let shared = Arc::clone(&state);
        thread::Builder::new().name("plugin-epoch".to_owned()).spawn(move || {
            let (ticks, changed) = &*shared;
            loop {
                let idle = |ticks: &mut Ticks| ticks.wanted == 0 && !ticks.stopped;
                let ticks = changed.wait_while(ticks.lock().unwrap_or_else(PoisonError::into_inner), idle);
                if ticks.unwrap_or_else(PoisonError::into_inner).stopped {
                    return;
                }
                thread::sleep(Duration::from_millis(u64::from(EPOCH_TICK_MS)));
                engine.increment_epoch();
            }
        })?;
        Ok(Arc::new(Ticker { state }))
    }

    pub(crate) fn tick(self: &Arc<Self>) -> Ticking {
        self.change(|ticks| ticks.wanted += 1);
        Ticking { ticker: Arc::clone(self) }
    }

    fn change(&self, change: impl FnOnce(&mut Ticks)) {
        let (ticks, changed) = &*self.state;
        change(&mut ticks.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.change(|ticks| ticks.stopped = true);
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.ticker.change(|ticks| ticks.wanted -= 1);
    }
}
