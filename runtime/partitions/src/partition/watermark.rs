//! The high watermark, and how the log hears of it.
//!
//! The journal's thread moves it and then tells the log, for which it only ever *tries* the log's lock: the holder of
//! the log may be waiting for the journal. A holder that lets go tells the log too. So that no move is lost between the
//! two, each of them puts a fence between what it did and what it looks at: either the journal's thread finds the log
//! free, or the holder, which let go after that, finds the high watermark moved.

use std::sync::atomic::{AtomicI64, Ordering, fence};

/// An offset that several threads see, and that only rises.
pub trait Rising {
    fn get(&self) -> i64;
    fn raise(&self, to: i64);
}

impl Rising for AtomicI64 {
    fn get(&self) -> i64 {
        self.load(Ordering::Acquire)
    }

    fn raise(&self, to: i64) {
        self.fetch_max(to, Ordering::AcqRel);
    }
}

/// The flushed offset, the high watermark, and the high watermark that the log knows.
#[derive(Debug)]
pub struct Watermark<A = AtomicI64> {
    /// Up to here everything is on this broker's disk.
    flushed: A,
    /// Up to here everything is as durable as its topic asks, and consumers may read.
    high: A,
    told: A,
}

impl Watermark {
    /// Of a log that knows it.
    pub fn new(offset: i64) -> Watermark {
        Watermark { flushed: offset.into(), high: offset.into(), told: offset.into() }
    }
}

impl<A: Rising> Watermark<A> {
    /// The offset up to which consumers may read.
    pub fn get(&self) -> i64 {
        self.high.get()
    }

    /// Up to here everything is on this broker's disk.
    pub fn flushed(&self) -> i64 {
        self.flushed.get()
    }

    /// Everything before `end_offset` is on this broker's disk. It has the only replica, whose flushed offset is what
    /// moves the high watermark.
    pub fn flush(&self, end_offset: i64) {
        self.flushed.raise(end_offset);
        self.advance(end_offset);
    }

    pub fn advance(&self, end_offset: i64) {
        self.high.raise(end_offset);
    }

    /// Whether the log does not know it yet.
    fn is_ahead(&self) -> bool {
        self.high.get() > self.told.get()
    }

    /// The offset, which the caller tells the log now: it holds it.
    pub fn take(&self) -> i64 {
        let high = self.high.get();
        self.told.raise(high);
        high
    }
}

/// What [`publish`] goes between.
pub(super) trait Relay {
    /// The atomics of the watermark.
    type Offset: Rising;

    fn watermark(&self) -> &Watermark<Self::Offset>;
    /// Tells the log, unless another thread holds it: then `false`.
    fn try_tell(&self) -> bool;
    /// The log knows it now.
    fn told(&self);

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// Tells the log of the high watermark. Called after the watermark was moved, and after the log was let go.
pub(super) fn publish(relay: &impl Relay) {
    loop {
        relay.fence();
        if !relay.watermark().is_ahead() || !relay.try_tell() {
            return;
        }
        relay.told();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loom::sync::atomic::AtomicI64 as ModelI64;
    use loom::sync::{Arc, Mutex};

    impl Rising for ModelI64 {
        fn get(&self) -> i64 {
            self.load(Ordering::Acquire)
        }

        fn raise(&self, to: i64) {
            self.fetch_max(to, Ordering::AcqRel);
        }
    }

    /// A partition whose log knows its high watermark, and nothing else.
    struct Model {
        watermark: Watermark<ModelI64>,
        log: Mutex<i64>,
    }

    impl Relay for Model {
        type Offset = ModelI64;

        fn watermark(&self) -> &Watermark<ModelI64> {
            &self.watermark
        }

        fn try_tell(&self) -> bool {
            let Ok(mut log) = self.log.try_lock() else { return false };
            *log = (*log).max(self.watermark.take());
            true
        }

        fn told(&self) {}

        fn fence(&self) {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    /// Every order in which two threads can run, those with few switches of three threads (all take a minute), and
    /// every older value that the memory model lets them see.
    #[test]
    fn the_log_hears_of_every_move_whoever_holds_it() {
        for (holders, switches) in [(1, None), (2, Some(3))] {
            let mut model = loom::model::Builder::new();
            model.preemption_bound = switches;
            model.check(move || {
                let [flushed, high, told] = [0; 3].map(ModelI64::new);
                let watermark = Watermark { flushed, high, told };
                let model = Arc::new(Model { watermark, log: Mutex::new(0) });
                let mut threads = Vec::new();
                for _ in 0..holders {
                    let model = Arc::clone(&model);
                    threads.push(loom::thread::spawn(move || {
                        drop(model.log.lock().unwrap());
                        publish(&*model);
                    }));
                }
                for end_offset in 1..=3 - holders {
                    model.watermark.advance(end_offset);
                    publish(&*model);
                }
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert_eq!(*model.log.lock().unwrap(), model.watermark.get());
            });
        }
    }
}
