//! Requests that wait for a partition: a produce for its records to be durable, a fetch for something to read.
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

    /// Wakes the fetch that waits, and the next one, without anything new.
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

    /// The partition was taken from the list and is looked at next: later records list it again.
    pub fn taken(&self) {
        self.is_listed.store(false, Ordering::SeqCst);
        // Either the look sees the new records, or their append sees that the partition is to be listed again.
        fence(Ordering::SeqCst);
    }

    /// No fetch reads the partition through this any more: the partition may forget it.
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

/// The watermarks of a partition, and the requests that wait for them to move.
#[derive(Debug)]
pub struct DelayedRequests {
    watermark: Watermark,
    queues: Mutex<Queues>,
    failure: Failure,
    partition: OnceLock<Weak<Partition>>,
}

#[derive(Debug, Default)]
struct Queues {
    /// Appends not yet durable, by rising end offset.
    acks: VecDeque<(i64, Arc<Acks>)>,
    fetches: Vec<Arc<Watch>>,
    /// Fetches that were alive at the last look through the list.
    alive: usize,
    failed: bool,
}

/// Below this many entries a list of fetches is not looked through for ones that are over.
const FETCHES_KEPT: usize = 16;

impl DelayedRequests {
    pub fn new(high_watermark: i64, failure: Failure) -> Arc<Self> {
        Arc::new(DelayedRequests {
            watermark: Watermark::new(high_watermark),
            queues: Mutex::default(),
            failure,
            partition: OnceLock::new(),
        })
    }

    /// Says which partition they wait for; the log needs it before there is a partition.
    pub fn belongs_to(&self, partition: &Arc<Partition>) {
        // Set once, by the constructor of the partition.
        let _ = self.partition.set(Arc::downgrade(partition));
    }

    /// The offset up to which consumers may read.
    pub fn high_watermark(&self) -> i64 {
        self.watermark.get()
    }

    /// The watermarks of the partition.
    pub fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// Counts `acks` off once everything before `end_offset` is durable. The calls of one partition come in the order
    /// of its appends, because its log is locked meanwhile.
    pub fn delay_produce(&self, end_offset: i64, acks: &Arc<Acks>) {
        acks.add();
        let mut queues = self.queues.lock();
        if self.high_watermark() >= end_offset {
            acks.complete();
        } else if queues.failed {
            acks.fail();
        } else {
            // A duplicate waits for an offset before the last one in the queue.
            let at = queues.acks.partition_point(|(end, _)| *end <= end_offset);
            queues.acks.insert(at, (end_offset, Arc::clone(acks)));
        }
    }

    /// An append that ends at `end_offset` is as durable as its topic asks: moves the high watermark and acks. If an
    /// append before it waits for its sync, as a transaction's marker does, then so does this: no reader may see what
    /// comes after a marker before it is certain, and after a failure nothing becomes so. Readers are woken by
    /// [`Partition::publish`].
    pub fn acknowledge(&self, end_offset: i64) {
        let overtakes = {
            let queues = self.queues.lock();
            queues.failed || queues.acks.front().is_some_and(|(end, _)| *end < end_offset)
        };
        if !overtakes || Mutant::EarlyPassesMarker.is_on() {
            self.watermark.advance(end_offset);
            self.answer(end_offset);
        }
    }

    /// Acks what ends at or before `end_offset`. The high watermark is there already: an append that comes to wait
    /// meanwhile sees that, or is in the queue.
    fn answer(&self, end_offset: i64) {
        let mut queues = self.queues.lock();
        while let Some((_, acks)) = queues.acks.pop_front_if(|(end, _)| *end <= end_offset) {
            acks.complete();
        }
    }

    /// Nothing that is not durable yet will ever be.
    pub fn storage_failed(&self, reason: &StorageFailure) {
        let acks = {
            let mut queues = self.queues.lock();
            queues.failed = true;
            std::mem::take(&mut queues.acks)
        };
        acks.iter().for_each(|(_, acks)| acks.fail());
        self.failure.raise(reason);
    }

    /// Wakes `fetch` whenever there is something new.
    pub fn watch(&self, fetch: &Arc<Watch>) {
        let mut queues = self.queues.lock();
        if queues.fetches.len() >= FETCHES_KEPT.max(2 * queues.alive) {
            queues.fetches.retain(|fetch| !fetch.is_over());
            queues.alive = queues.fetches.len();
        }
        queues.fetches.push(Arc::clone(fetch));
    }

    /// Wakes the fetches without anything new: the partition is gone, or the broker stops.
    pub fn wake(&self) {
        self.queues.lock().wake();
    }
}

impl Queues {
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

impl DurableListener for DelayedRequests {
    fn durable(&self, end_offset: i64) {
        self.watermark.flush(end_offset);
        // Before producers are acked, so that a producer can read the transaction whose commit was acked. `None` during
        // recovery, when the partition has no readers.
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

    fn fresh() -> (Arc<DelayedRequests>, Failure) {
        let failure = Failure::default();
        (DelayedRequests::new(0, failure.clone()), failure)
    }

    async fn is_done(acks: &Arc<Acks>) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, acks.wait()).await.is_ok()
    }

    #[tokio::test]
    async fn acks_come_with_the_offset_that_they_wait_for() {
        let (delayed, _) = fresh();
        let ends = [10, 20, 30].map(|end| {
            let acks = Acks::new();
            delayed.delay_produce(end, &acks);
            acks
        });
        delayed.durable(20);
        assert_eq!(delayed.high_watermark(), 20);
        let [first, second, third] = ends;
        assert!(is_done(&first).await && is_done(&second).await && !is_done(&third).await);
        let late = Acks::new();
        delayed.delay_produce(15, &late);
        assert!(is_done(&late).await, "what is durable already is answered at once");
        delayed.durable(12);
        assert_eq!(delayed.high_watermark(), 20, "it never goes back");
    }

    /// In a topic that is not synced for its producers, beside a transaction's marker, which is.
    #[tokio::test]
    async fn what_is_acknowledged_early_does_not_overtake_what_waits_for_its_sync() {
        let (delayed, _) = fresh();
        delayed.acknowledge(5);
        assert_eq!((delayed.high_watermark(), delayed.watermark().flushed()), (5, 0));
        let (marker, after) = (Acks::new(), Acks::new());
        delayed.delay_produce(6, &marker);
        delayed.delay_produce(9, &after);
        delayed.acknowledge(9);
        assert_eq!((delayed.high_watermark(), delayed.queues.lock().acks.len()), (5, 2));
        delayed.durable(9);
        assert!(is_done(&marker).await && is_done(&after).await);
        assert_eq!((delayed.high_watermark(), delayed.watermark().flushed()), (9, 9));
        delayed.delay_produce(12, &Acks::new());
        delayed.acknowledge(12);
        assert_eq!(delayed.high_watermark(), 12, "nothing waits any more");
        delayed.delay_produce(13, &Acks::new());
        let error = std::io::Error::other("the disk is gone");
        delayed.failed(&StorageFailure::new("sync", Path::new("/data/journal"), error));
        delayed.acknowledge(15);
        assert_eq!(delayed.high_watermark(), 12, "nobody knows what became of it");
    }

    #[tokio::test]
    async fn a_failed_sync_fails_who_waits_and_who_comes() {
        let (delayed, failure) = fresh();
        let before = Acks::new();
        delayed.delay_produce(10, &before);
        let error = std::io::Error::other("the disk is gone");
        delayed.failed(&StorageFailure::new("sync", Path::new("/data/journal"), error));
        assert!(before.wait().await.is_err());
        let after = Acks::new();
        delayed.delay_produce(20, &after);
        assert!(after.wait().await.is_err());
        assert!(failure.reason().is_some_and(|reason| reason.contains("the disk is gone")));
    }

    #[tokio::test]
    async fn fetches_are_told_and_forgotten() {
        let (delayed, _) = fresh();
        let list = Arc::new(ReadyList::default());
        let fetch = Watch::new(&list, 7);
        delayed.watch(&fetch);
        delayed.wake();
        delayed.wake();
        list.changed().await;
        assert_eq!(list.take(), [7], "once, however often it was woken");
        fetch.taken();
        delayed.wake();
        list.changed().await;
        assert_eq!(list.take(), [7]);
        for number in 0..10_000 {
            let over = Watch::new(&list, number);
            delayed.watch(&over);
            over.finish();
        }
        assert!(delayed.queues.lock().fetches.len() <= FETCHES_KEPT + 1);
        fetch.taken();
        delayed.wake();
        assert_eq!((list.take(), delayed.queues.lock().fetches.len()), (vec![7], 1));
    }
}
