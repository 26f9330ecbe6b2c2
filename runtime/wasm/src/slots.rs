//! How many instances may run at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pelton_streams::InstantiateError;

use crate::ticker::{Ticker, Ticking};

/// The instances of all plugins, counted against their limit.
pub(crate) struct Slots {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

/// The right of one instance to run. It keeps the epoch advancing, so that the instance's deadline comes.
pub(crate) struct Slot {
    taken: Arc<AtomicUsize>,
    _ticking: Ticking,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Slots {
        Slots { taken: Arc::default(), limit }
    }

    /// How many instances have one.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`InstantiateError::TooMany`] at the limit.
    pub(crate) fn take(&self, ticker: &Arc<Ticker>) -> Result<Slot, InstantiateError> {
        let limit = self.limit;
        let one_more = |taken: usize| (taken < limit).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Slot { taken: Arc::clone(&self.taken), _ticking: ticker.tick() }),
            Err(_) => Err(InstantiateError::TooMany { limit }),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
