//! The memory of records that are not done: one budget for all partitions that one lane gives to a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What all partitions of a node have together, in one lane: `deliver.bytes`.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: AtomicU64,
}

impl Room {
    /// So many bytes.
    pub fn new(limit: u64) -> Arc<Room> {
        Arc::new(Room { limit, used: AtomicU64::new(0) })
    }

    /// What is taken of it.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one partition has of it. It is given back when the partition goes.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Share {
    pub(super) fn of(room: &Arc<Room>) -> Share {
        Share { room: Arc::clone(room), bytes: 0 }
    }

    /// Whether so many bytes more can be taken. A partition that has none can always take a record, however large it is: what
    /// others have must not hold it up for ever.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.bytes == 0 || self.room.used().saturating_add(bytes) <= self.room.limit
    }

    /// Whether it is worth it to read more: what does not fit is read again.
    pub(super) fn has_half(&self) -> bool {
        self.bytes == 0 || self.room.used() <= self.room.limit / 2
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.room.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}
