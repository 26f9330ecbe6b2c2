//! Who waits for a partition: producers for their appends to be durable, consumers for something to read.
//!
//! The journal's thread calls in here after each group, so nothing here blocks or allocates much.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::{DurableListener, StorageFailure};
use tokio::sync::Notify;

use super::Partition;
use super::acks::Acks;
use super::watermark::Watermark;
use crate::failure::Failure;

/// Which of the partitions that a consumer reads have something new, so that it need not look at all of them.
#[derive(Debug, Default)]
pub struct ReadyList {
    /// Their numbers in the consumer's list, each once.
    ready: Mutex<Vec<u32>>,
    changed: Notify,
}

impl ReadyList {
    /// Waits until there is something new since the last call. One caller is woken at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Wakes who waits, and who comes to wait next, without anything new.
    pub fn wake_all(&self) {
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The partitions with something new. The caller tells each one's [`Watch`] before it looks at the partition.
    pub fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.ready.lock())
    }
}

/// One partition's place in a [`ReadyList`].
#[derive(Debug)]
pub struct Watch {
    list: Arc<ReadyList>,
    number: u32,
    /// It is in the list already.
    is_listed: AtomicBool,
    over: AtomicBool,
}

impl Watch {
    /// Has the partition listed under `number` whenever there is something new.
    pub fn new(list: &Arc<ReadyList>, number: u32) -> Arc<Watch> {
        let (is_listed, over) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Watch { list: Arc::clone(list), number, is_listed, over })
    }

    /// The partition was taken from the list and will be looked at: what is new from now on is listed again.
    pub fn taken(&self) {
        self.is_listed.store(false, Ordering::SeqCst);
        // Either the look sees what is new, or whoever made it new sees that it is to be listed again.
        fence(Ordering::SeqCst);
    }

    /// Nobody reads the partition through this any more: it may forget it.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.is_listed.swap(true, Ordering::SeqCst) {
            self.list.ready.lock().push(self.number);
            self.list.changed.notify_one();
        }
    }
}

/// The offsets of a partition that others see, and who waits for them to move.
#[derive(Debug)]
pub struct Progress {
    watermark: Watermark,
    waiting: Mutex<Waiting>,
    failure: Failure,
    partition: OnceLock<Weak<Partition>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Appends not yet durable, by rising end offset.
    acks: VecDeque<(i64, Arc<Acks>)>,
    fetches: Vec<Arc<Watch>>,
    /// Fetches that were alive at the last look through the list.
    alive: usize,
    failed: bool,
}

/// Below this many entries a list of fetches is not looked through for ones that are over.
const FETCHES_KEPT: usize = 16;

impl Progress {
    pub fn new(high_watermark: i64, failure: Failure) -> Arc<Self> {
        Arc::new(Progress {
            watermark: Watermark::new(high_watermark),
            waiting: Mutex::default(),
            failure,
            partition: OnceLock::new(),
        })
    }

    /// Says whose progress this is; the log needs it before there is a partition.
    pub fn belongs_to(&self, partition: &Arc<Partition>) {
        // Set once, by the constructor of the partition.
        let _ = self.partition.set(Arc::downgrade(partition));
    }

    /// The offset up to which consumers may read.
    pub fn high_watermark(&self) -> i64 {
        self.watermark.get()
    }

    /// The same, with what the log was told of it.
    pub fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// Counts `acks` off once everything before `end_offset` is durable. The calls of one partition come in the order of
    /// its appends, because its log is locked meanwhile.
    pub fn on_durable(&self, end_offset: i64, acks: &Arc<Acks>) {
        acks.add();
        let mut waiting = self.waiting.lock();
        if self.high_watermark() >= end_offset {
            acks.complete();
        } else if waiting.failed {
            acks.fail();
        } else {
            // A duplicate waits for an offset before the last one in the queue.
            let at = waiting.acks.partition_point(|(end, _)| *end <= end_offset);
            waiting.acks.insert(at, (end_offset, Arc::clone(acks)));
        }
    }

    /// An append that ends at `end_offset` is as durable as its topic asks: moves the high watermark and answers who waited.
    /// If something before it waits for its sync, as a transaction's marker does, then so does this: nobody may see what
    /// comes after a marker before it is certain, and after a failure nothing becomes so. Readers are woken by
    /// [`Partition::publish`].
    pub fn acknowledge(&self, end_offset: i64) {
        let overtakes = {
            let waiting = self.waiting.lock();
            waiting.failed || waiting.acks.front().is_some_and(|(end, _)| *end < end_offset)
        };
        if !overtakes || Mutant::EarlyPassesMarker.is_on() {
            self.watermark.advance(end_offset);
            self.answer(end_offset);
        }
    }

    /// Acks what ends at or before `end_offset`. The high watermark is there already: an append that comes to wait meanwhile
    /// sees that, or is in the queue.
    fn answer(&self, end_offset: i64) {
        let mut waiting = self.waiting.lock();
        while let Some((_, acks)) = waiting.acks.pop_front_if(|(end, _)| *end <= end_offset) {
            acks.complete();
        }
    }

    /// Nothing that is not durable yet will ever be.
    pub fn storage_failed(&self, reason: &StorageFailure) {
        let acks = {
            let mut waiting = self.waiting.lock();
            waiting.failed = true;
            std::mem::take(&mut waiting.acks)
        };
        acks.iter().for_each(|(_, acks)| acks.fail());
        self.failure.raise(reason);
    }

    /// Has `fetch` told whenever there is something new.
    pub fn watch(&self, fetch: &Arc<Watch>) {
        let mut waiting = self.waiting.lock();
        if waiting.fetches.len() >= FETCHES_KEPT.max(2 * waiting.alive) {
            waiting.fetches.retain(|fetch| !fetch.is_over());
            waiting.alive = waiting.fetches.len();
        }
        waiting.fetches.push(Arc::clone(fetch));
    }

    /// Wakes the fetches without anything new: the partition is gone, or the broker stops.
    pub fn wake(&self) {
        self.waiting.lock().wake();
    }
}

impl Waiting {
    fn wake(&mut self) {
        self.fetches.retain(|fetch| {
            let alive = !fetch.is_over();
            if alive {
                fetch.wake();
            }
            alive
        });
        self.alive = self.fetches.len();
    }
}

impl DurableListener for Progress {
    fn durable(&self, end_offset: i64) {
        self.watermark.flush(end_offset);
        // Before who waits is answered, so that a transaction's end is seen by who was told of it. Absent while a log is
        // being recovered: nobody reads it then.
        if let Some(partition) = self.partition.get().and_then(Weak::upgrade) {
            partition.publish();
        }
        self.answer(end_offset);
    }

    fn failed(&self, reason: &StorageFailure) {
        self.storage_failed(reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn progress() -> (Arc<Progress>, Failure) {
        let failure = Failure::default();
        (Progress::new(0, failure.clone()), failure)
    }

    async fn is_done(acks: &Arc<Acks>) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, acks.wait()).await.is_ok()
    }

    #[tokio::test]
    async fn acks_come_with_the_offset_that_they_wait_for() {
        let (progress, _) = progress();
        let ends = [10, 20, 30].map(|end| {
            let acks = Acks::new();
            progress.on_durable(end, &acks);
            acks
        });
        progress.durable(20);
        assert_eq!(progress.high_watermark(), 20);
        let [first, second, third] = ends;
        assert!(is_done(&first).await && is_done(&second).await && !is_done(&third).await);
        let late = Acks::new();
        progress.on_durable(15, &late);
        assert!(is_done(&late).await, "what is durable already is answered at once");
        progress.durable(12);
        assert_eq!(progress.high_watermark(), 20, "it never goes back");
    }

    /// In a topic that is not synced for its producers, beside a transaction's marker, which is.
    #[tokio::test]
    async fn what_is_acknowledged_early_does_not_overtake_what_waits_for_its_sync() {
        let (progress, _) = progress();
        progress.acknowledge(5);
        assert_eq!((progress.high_watermark(), progress.watermark().flushed()), (5, 0));
        let (marker, after) = (Acks::new(), Acks::new());
        progress.on_durable(6, &marker);
        progress.on_durable(9, &after);
        progress.acknowledge(9);
        assert_eq!((progress.high_watermark(), progress.waiting.lock().acks.len()), (5, 2));
        progress.durable(9);
        assert!(is_done(&marker).await && is_done(&after).await);
        assert_eq!((progress.high_watermark(), progress.watermark().flushed()), (9, 9));
        progress.on_durable(12, &Acks::new());
        progress.acknowledge(12);
        assert_eq!(progress.high_watermark(), 12, "nothing waits any more");
        progress.on_durable(13, &Acks::new());
        let error = std::io::Error::other("the disk is gone");
        progress.failed(&StorageFailure::new("sync", Path::new("/data/journal"), error));
        progress.acknowledge(15);
        assert_eq!(progress.high_watermark(), 12, "nobody knows what became of it");
    }

    #[tokio::test]
    async fn a_failed_sync_fails_who_waits_and_who_comes() {
        let (progress, failure) = progress();
        let before = Acks::new();
        progress.on_durable(10, &before);
        let error = std::io::Error::other("the disk is gone");
        progress.failed(&StorageFailure::new("sync", Path::new("/data/journal"), error));
        assert!(before.wait().await.is_err());
        let after = Acks::new();
        progress.on_durable(20, &after);
        assert!(after.wait().await.is_err());
        assert!(failure.reason().is_some_and(|reason| reason.contains("the disk is gone")));
    }

    #[tokio::test]
    async fn fetches_are_told_and_forgotten() {
        let (progress, _) = progress();
        let list = Arc::new(ReadyList::default());
        let fetch = Watch::new(&list, 7);
        progress.watch(&fetch);
        progress.wake();
        progress.wake();
        list.changed().await;
        assert_eq!(list.take(), [7], "once, however often it was woken");
        fetch.taken();
        progress.wake();
        list.changed().await;
        assert_eq!(list.take(), [7]);
        for number in 0..10_000 {
            let over = Watch::new(&list, number);
            progress.watch(&over);
            over.finish();
        }
        assert!(progress.waiting.lock().fetches.len() <= FETCHES_KEPT + 1);
        fetch.taken();
        progress.wake();
        assert_eq!((list.take(), progress.waiting.lock().fetches.len()), (vec![7], 1));
    }
}
