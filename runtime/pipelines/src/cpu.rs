//! What the drivers of a pipeline use of the processor, and may use.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The CPU of a pipeline's drivers, seen and set from outside.
#[derive(Debug, Default)]
pub(crate) struct CpuUse {
    /// Percent of a core that all of them have; 0: no limit.
    percent: AtomicU32,
    used_us: AtomicU64,
    rested_us: AtomicU64,
}

impl CpuUse {
    pub(crate) fn set_percent(&self, percent: Option<u32>) {
        self.percent.store(percent.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn percent(&self) -> Option<u32> {
        Some(self.percent.load(Ordering::Relaxed)).filter(|percent| *percent > 0)
    }

    /// What drivers have used, and how long they have rested because of their share.
    pub(crate) fn so_far(&self) -> (Duration, Duration) {
        let us = |cell: &AtomicU64| Duration::from_micros(cell.load(Ordering::Relaxed));
        (us(&self.used_us), us(&self.rested_us))
    }

    pub(crate) fn add(&self, used_us: u64, rested_us: u64) {
        self.used_us.fetch_add(used_us, Ordering::Relaxed);
        self.rested_us.fetch_add(rested_us, Ordering::Relaxed);
    }
}
