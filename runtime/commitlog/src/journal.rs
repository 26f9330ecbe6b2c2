//! One ordered journal per log directory: what makes appends of all partitions durable with one write per group.
//! FORMAT.md has its bytes and its crash cases. It never looks into a batch, and never calls into a `Log`: only listeners.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use uuid::Uuid;

use crate::error::{FailureHook, SinkClosed, StorageFailure};
use crate::sink::{DurableListener, Frame, FrameSink, Lsn, SyncLater};

pub(crate) mod admission;
pub(crate) mod group;
pub(crate) mod queue;
pub(crate) mod ring;
pub(crate) mod ring_file;
pub(crate) mod scan;
pub(crate) mod slot;
pub(crate) mod slot_file;
pub(crate) mod tracker;
pub(crate) mod writer;

use queue::{Barrier, Entry, Queue, Refused};
use ring::{Reserved, Ring};
use slot::{JournalPoint, PartitionEnd};
use tracker::Tracker;

/// Bytes of the largest group that any version has written, in the ring. 2 MiB: a disk writes that at full speed.
pub(crate) const GROUP_MAX_BYTES: usize = 2 << 20;
/// A group of this size holds a header, a frame and part of a batch.
pub(crate) const GROUP_MIN_BYTES: usize = 2 * crate::storage::DIRECT_ALIGN;
/// Files with unsynced bytes that make a checkpoint due: each is a descriptor that is kept open for it.
const DIRTY_FILES_MAX: usize = 4096;
/// Dirty files for each of which a checkpoint is allowed to come later, up to [`CHECKPOINT_SCALE_MAX`] times: a sync of a
/// file costs the same however little it has to write, so many partitions want fewer checkpoints.
const DIRTY_FILES_PER_SCALE: usize = 256;
/// How many times `checkpoint_bytes` lie between two checkpoints at most: what a restart reads again grows with it.
const CHECKPOINT_SCALE_MAX: usize = 4;

/// How many times `checkpoint_bytes` may lie between two checkpoints.
fn checkpoint_scale(dirty_files: usize) -> u64 {
    dirty_files.div_ceil(DIRTY_FILES_PER_SCALE).clamp(1, CHECKPOINT_SCALE_MAX) as u64
}

/// The settings of a journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalSettings {
    /// Bytes of a group in the ring, [`GROUP_MIN_BYTES`] to [`GROUP_MAX_BYTES`], whole blocks.
    pub(crate) group_max_bytes: usize,
    /// Bytes of clients that may be submitted and not durable.
    pub(crate) pending_max_bytes: u64,
    /// Least time between the starts of two groups.
    pub(crate) commit_gap: Duration,
    /// Bytes of journal that make a checkpoint due.
    pub(crate) checkpoint_bytes: u64,
    /// Bytes of journal that no checkpoint covers, at most: so much memory may be waiting to be written to segments.
    pub(crate) unwritten_max_bytes: u64,
    /// The ring grows up to this.
    pub(crate) max_bytes: u64,
}

/// What the journal asks for work that it cannot go on without: checkpoints, ring files.
pub(crate) trait Helpers: Send + Sync {
    /// A checkpoint is due. With `urgent` the journal waits for it.
    fn checkpoint_due(&self, urgent: bool);
    /// The ring should get another file.
    fn grow(&self);
}

/// The journal, as everybody but its own thread sees it.
pub(crate) struct Journal {
    pub(crate) directory_id: Uuid,
    pub(crate) epoch: u64,
    pub(crate) settings: JournalSettings,
    pub(crate) queue: Arc<Queue>,
    pub(crate) tracker: Mutex<Tracker>,
    ring: Mutex<Ring>,
    ring_changed: Condvar,
    later: Mutex<Vec<SyncLater>>,
    /// Where the last group ended.
    durable_lsn: AtomicU64,
    /// Where the last checkpoint is.
    checkpoint_lsn: AtomicU64,
    failure: OnceLock<StorageFailure>,
    on_failure: FailureHook,
    helpers: OnceLock<Weak<dyn Helpers>>,
    groups: AtomicU64,
    write_nanos: AtomicU64,
    waits_for_room: AtomicU64,
}

impl Journal {
    /// A journal that goes on at `start`, with an empty ring below it, and knows no partition yet. `threads`: permits may be waited for, because another thread writes.
    pub(crate) fn new(
        (directory_id, epoch): (Uuid, u64),
        start: JournalPoint,
        ring: Ring,
        settings: JournalSettings,
        (threads, on_failure): (bool, FailureHook),
    ) -> Journal {
        Journal {
            directory_id,
            epoch,
            queue: Arc::new(Queue::new(threads.then_some(settings.pending_max_bytes))),
            tracker: Mutex::new(Tracker::new([], start)),
            ring: Mutex::new(ring),
            ring_changed: Condvar::new(),
            later: Mutex::default(),
            durable_lsn: AtomicU64::new(start.lsn),
            checkpoint_lsn: AtomicU64::new(start.lsn),
            failure: OnceLock::new(),
            on_failure,
            helpers: OnceLock::new(),
            groups: AtomicU64::new(0),
            write_nanos: AtomicU64::new(0),
            waits_for_room: AtomicU64::new(0),
            settings,
        }
    }

    /// The partitions that recovery found. Before anything is submitted.
    pub(crate) fn set_ends(&self, ends: Vec<PartitionEnd>) {
        let mut tracker = self.tracker.lock();
        *tracker = Tracker::new(ends, tracker.durable());
    }

    /// Sets what makes checkpoints and ring files; without it none are made. Weak, because helpers hold the journal.
    pub(crate) fn set_helpers(&self, helpers: Weak<dyn Helpers>) {
        // Set once by the directory that owns the journal; a second call would be its bug and changes nothing.
        let _ = self.helpers.set(helpers);
    }

    /// Calls `done` once everything submitted so far is durable, from the journal's thread; or at once if the journal failed.
    pub(crate) fn barrier(&self, done: Barrier) {
        let Err(refused) = self.queue.push(Entry::Barrier(done)) else { return };
        if let Refused { closed, entry: Entry::Barrier(done) } = *refused {
            done(Err(self.failure().unwrap_or_else(|| closed_failure(&closed.reason))));
        }
    }

    /// Why the journal failed, if it did.
    pub(crate) fn failure(&self) -> Option<StorageFailure> {
        self.failure.get().cloned()
    }

    /// Latches: no frame is accepted any more, and none that waits will ever be called durable.
    pub(crate) fn fail(&self, failure: &StorageFailure) {
        if self.failure.set(failure.clone()).is_err() {
            return;
        }
        tracing::error!(%failure, "the journal failed: nothing is acknowledged any more");
        self.queue.close(&failure.to_string());
        drop(self.ring.lock());
        self.ring_changed.notify_all();
        (self.on_failure)(failure);
    }

    /// Stops without failing anybody's hook: what was not durable never will be.
    pub(crate) fn abandon(&self) {
        if self.failure.set(closed_failure("the log directory was dropped")).is_ok() {
            self.queue.close("the log directory was dropped");
            drop(self.ring.lock());
            self.ring_changed.notify_all();
        }
    }

    /// True if a group may be written at `lsn` before the next checkpoint.
    fn is_bounded(&self, bytes: u64, lsn: u64) -> bool {
        let uncovered = lsn.saturating_sub(self.checkpoint_lsn.load(Ordering::Acquire));
        uncovered == 0 || uncovered + bytes <= self.settings.unwritten_max_bytes
    }

    /// A place for a group, or `None` if a checkpoint must make room first.
    fn try_reserve(&self, bytes: u64, lsn: u64) -> Option<Reserved> {
        if !self.is_bounded(bytes, lsn) {
            return None;
        }
        let mut ring = self.ring.lock();
        let reserved = ring.reserve(bytes, lsn);
        let (used, capacity) = (ring.used_bytes(), ring.capacity());
        drop(ring);
        if used > capacity / 2 {
            self.ask_to_grow();
        }
        reserved
    }

    /// A place for a group, as soon as a checkpoint has made room.
    fn reserve(&self, bytes: u64, lsn: u64) -> Result<Reserved, StorageFailure> {
        if let Some(reserved) = self.try_reserve(bytes, lsn) {
            return Ok(reserved);
        }
        self.waits_for_room.fetch_add(1, Ordering::Relaxed);
        self.ask_to_grow();
        if let Some(helpers) = self.helpers() {
            helpers.checkpoint_due(true);
        }
        let mut ring = self.ring.lock();
        loop {
            if self.is_bounded(bytes, lsn)
                && let Some(reserved) = ring.reserve(bytes, lsn)
            {
                return Ok(reserved);
            }
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            self.ring_changed.wait(&mut ring);
        }
    }

    fn helpers(&self) -> Option<Arc<dyn Helpers>> {
        self.helpers.get().and_then(Weak::upgrade)
    }

    fn ask_to_grow(&self) {
        if let Some(helpers) = self.helpers() {
            helpers.grow();
        }
    }

    /// A group is durable up to `lsn`; its write took `took`.
    fn group_done(&self, lsn: u64, took: Duration, dirty_files: usize) {
        self.write_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.durable_lsn.store(lsn, Ordering::Release);
        self.groups.fetch_add(1, Ordering::Relaxed);
        let since = lsn - self.checkpoint_lsn.load(Ordering::Acquire);
        let capacity = self.ring.lock().capacity();
        let wanted = self.settings.checkpoint_bytes.saturating_mul(checkpoint_scale(dirty_files));
        let every = wanted.min(capacity / 4).min(self.settings.unwritten_max_bytes / 2);
        if since < every && dirty_files < DIRTY_FILES_MAX {
            return;
        }
        if let Some(helpers) = self.helpers() {
            helpers.checkpoint_due(false);
            if capacity / 4 < wanted {
                helpers.grow();
            }
        }
    }

    /// The slot for `point` is durable: frees what lies below.
    pub(crate) fn checkpoint_done(&self, point: &JournalPoint) {
        self.with_ring(|ring| {
            self.checkpoint_lsn.store(point.lsn, Ordering::Release);
            ring.release(point);
        });
    }

    /// Runs `change` on the ring, and wakes the journal's thread if it waits for room.
    pub(crate) fn with_ring<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let result = change(&mut self.ring.lock());
        self.ring_changed.notify_all();
        result
    }

    /// Gives back what was taken and could not be synced now.
    pub(crate) fn put_back_later(&self, items: Vec<SyncLater>) {
        self.later.lock().extend(items);
    }

    /// Takes what [`FrameSink::sync_later`] collected.
    pub(crate) fn take_later(&self) -> Vec<SyncLater> {
        std::mem::take(&mut self.later.lock())
    }

    /// True if more than half of what there is room for waits for a checkpoint: it should hurry.
    pub(crate) fn is_pressed(&self) -> bool {
        let uncovered =
            self.durable_lsn.load(Ordering::Acquire) - self.checkpoint_lsn.load(Ordering::Acquire);
        let ring = self.ring.lock();
        uncovered > self.settings.unwritten_max_bytes / 2 || ring.used_bytes() > ring.capacity() / 2
    }

    /// True if there is something that no checkpoint covers.
    pub(crate) fn is_dirty(&self) -> bool {
        self.durable_lsn.load(Ordering::Acquire) > self.checkpoint_lsn.load(Ordering::Acquire)
            || !self.later.lock().is_empty()
    }

    pub(crate) fn stats(&self) -> JournalStats {
        let (ring_bytes, ring_used_bytes) = {
            let ring = self.ring.lock();
            (ring.capacity(), ring.used_bytes())
        };
        JournalStats {
            groups: self.groups.load(Ordering::Relaxed),
            write_time: Duration::from_nanos(self.write_nanos.load(Ordering::Relaxed)),
            durable_lsn: self.durable_lsn.load(Ordering::Acquire),
            checkpoint_lsn: self.checkpoint_lsn.load(Ordering::Acquire),
            pending_bytes: self.queue.bytes(),
            ring_bytes,
            ring_used_bytes,
            waits_for_room: self.waits_for_room.load(Ordering::Relaxed),
        }
    }

    /// Fails everything in `entries` and everything that still waits. Each listener hears it once.
    fn fail_waiting(&self, mut entries: VecDeque<Entry>, mut told: Told, failure: &StorageFailure) {
        // The queue is closed: what is in it now is all there will ever be.
        self.queue.take(&mut entries, false);
        for entry in entries {
            match entry {
                Entry::Barrier(done) => done(Err(failure.clone())),
                Entry::Frame(frame) => told.tell(&frame.listener, failure),
            }
        }
    }
}

/// The listeners that have heard of a failure.
#[derive(Default)]
struct Told(HashSet<usize>, Vec<Arc<dyn DurableListener>>);

impl Told {
    fn tell(&mut self, listener: &Arc<dyn DurableListener>, failure: &StorageFailure) {
        if self.0.insert(Arc::as_ptr(listener).addr()) {
            listener.failed(failure);
            // Kept, so that no other listener gets its address meanwhile.
            self.1.push(listener.clone());
        }
    }
}

impl FrameSink for Journal {
    fn submit(&self, frame: Frame) -> Result<Lsn, SinkClosed> {
        match self.queue.push(Entry::Frame(frame)) {
            Ok(()) => Ok(Lsn(self.durable_lsn.load(Ordering::Acquire))),
            Err(refused) => Err(refused.closed),
        }
    }

    fn is_behind(&self) -> bool {
        self.queue.is_behind()
    }

    fn sync_later(&self, item: SyncLater) {
        let waiting = {
            let mut later = self.later.lock();
            later.push(item);
            later.len()
        };
        if waiting.is_multiple_of(DIRTY_FILES_MAX)
            && let Some(helpers) = self.helpers()
        {
            helpers.checkpoint_due(false);
        }
    }
}

/// What the journal has done and holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Groups written since the start.
    pub groups: u64,
    /// Time that their writes took, in sum.
    pub write_time: Duration,
    /// Journal bytes that are durable, since the directory was made.
    pub durable_lsn: u64,
    /// Journal bytes whose segments are durable.
    pub checkpoint_lsn: u64,
    /// Bytes submitted and not durable.
    pub pending_bytes: u64,
    /// Bytes of all ring files.
    pub ring_bytes: u64,
    /// Bytes of the ring that a checkpoint has to free.
    pub ring_used_bytes: u64,
    /// Times that a group had to wait for a checkpoint.
    pub waits_for_room: u64,
}

/// The failure that waiters hear when the journal was closed in order.
fn closed_failure(reason: &str) -> StorageFailure {
    StorageFailure::new("write", std::path::Path::new("journal"), std::io::Error::other(reason.to_owned()))
}

#[cfg(test)]
mod tests;
