//! Frames on their way from the partitions to the journal's thread.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::error::StorageFailure;
use crate::sink::{Frame, SinkClosed};

/// Called once everything that was submitted before is durable, or never will be.
pub(crate) type Barrier = Box<dyn FnOnce(Result<(), StorageFailure>) + Send>;

pub(crate) enum Entry {
    Frame(Frame),
    Barrier(Barrier),
}

/// An entry that came too late.
pub(crate) struct Refused {
    pub(crate) closed: SinkClosed,
    pub(crate) entry: Entry,
}

/// What an entry costs in memory besides its payload, about; it bounds the number of tiny entries.
const ENTRY_BYTES: u64 = 256;

impl Entry {
    pub(crate) fn cost(&self) -> u64 {
        match self {
            Entry::Frame(frame) => ENTRY_BYTES + frame.payload.len() as u64,
            Entry::Barrier(_) => ENTRY_BYTES,
        }
    }
}

pub(crate) struct Queue {
    state: Mutex<State>,
    /// The journal's thread waits here for entries.
    filled: Condvar,
    /// Submitters wait here for room.
    room: Condvar,
    /// `None`: submitters never wait (nobody would make room while they do).
    max_bytes: Option<u64>,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// Cost of all entries that are not yet durable, taken ones included.
    bytes: u64,
    /// The journal's thread sleeps.
    idle: bool,
    closed: Option<SinkClosed>,
    /// The journal's thread should end once it has written what is here.
    stop: bool,
}

/// What [`Queue::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Entries,
    Nothing,
    /// Nothing, and nothing will come.
    Stopped,
}

impl Queue {
    pub(crate) fn new(max_bytes: Option<u64>) -> Queue {
        Queue { state: Mutex::default(), filled: Condvar::new(), room: Condvar::new(), max_bytes }
    }

    /// Adds an entry. Waits while too much is under way.
    pub(crate) fn push(&self, entry: Entry) -> Result<(), Box<Refused>> {
        let mut state = self.state.lock();
        while state.closed.is_none() && self.max_bytes.is_some_and(|max| state.bytes >= max) {
            self.room.wait(&mut state);
        }
        if let Some(closed) = &state.closed {
            return Err(Box::new(Refused { closed: closed.clone(), entry }));
        }
        state.bytes += entry.cost();
        state.entries.push_back(entry);
        if std::mem::take(&mut state.idle) {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits to the end of `into`; with `wait`, sleeps until there is something.
    pub(crate) fn take(&self, into: &mut VecDeque<Entry>, wait: bool) -> Taken {
        let mut state = self.state.lock();
        loop {
            if !state.entries.is_empty() {
                if into.is_empty() {
                    // Hands the empty buffer back, so that neither side allocates.
                    std::mem::swap(into, &mut state.entries);
                } else {
                    into.append(&mut state.entries);
                }
                return Taken::Entries;
            }
            if state.stop {
                return Taken::Stopped;
            }
            if !wait {
                return Taken::Nothing;
            }
            state.idle = true;
            self.filled.wait(&mut state);
            state.idle = false;
        }
    }

    /// Entries of this cost are durable.
    pub(crate) fn finished(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.bytes -= bytes;
        if self.max_bytes.is_some_and(|max| state.bytes < max) {
            drop(state);
            self.room.notify_all();
        }
    }

    /// Refuses entries from now on. Those that are here are still taken, then `take` says `Stopped`.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(SinkClosed { reason: reason.to_owned() });
        }
        state.stop = true;
        drop(state);
        self.filled.notify_all();
        self.room.notify_all();
    }

    /// Bytes that were submitted and are not durable.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn barrier() -> Entry {
        Entry::Barrier(Box::new(|_| {}))
    }

    #[test]
    fn entries_come_out_in_order_and_a_closed_queue_is_drained() {
        let queue = Queue::new(None);
        let mut out = VecDeque::new();
        assert_eq!(queue.take(&mut out, false), Taken::Nothing);
        for _ in 0..3 {
            assert!(queue.push(barrier()).is_ok());
        }
        queue.close("test");
        queue.close("later reasons do not replace the first");
        let refused = queue.push(barrier()).expect_err("the queue is closed");
        assert_eq!(refused.closed.reason, "test");
        assert_eq!(queue.take(&mut out, true), Taken::Entries);
        assert_eq!((out.len(), queue.bytes()), (3, 3 * ENTRY_BYTES));
        assert_eq!(queue.take(&mut out, true), Taken::Stopped);
        queue.finished(3 * ENTRY_BYTES);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_full_queue_holds_submitters_back_until_entries_are_durable() {
        let queue = Arc::new(Queue::new(Some(2 * ENTRY_BYTES)));
        for _ in 0..2 {
            assert!(queue.push(barrier()).is_ok());
        }
        let submitter = std::thread::spawn({
            let queue = queue.clone();
            move || queue.push(barrier()).is_ok()
        });
        let mut out = VecDeque::new();
        assert_eq!(queue.take(&mut out, true), Taken::Entries);
        assert_eq!(out.len(), 2, "the third waits although the first two were taken");
        queue.finished(ENTRY_BYTES);
        assert!(submitter.join().unwrap());
        assert_eq!(queue.take(&mut out, true), Taken::Entries);
        assert_eq!(out.len(), 3);
    }

    #[test]
    fn closing_wakes_a_submitter_that_waits() {
        let queue = Arc::new(Queue::new(Some(1)));
        assert!(queue.push(barrier()).is_ok());
        let submitter = std::thread::spawn({
            let queue = queue.clone();
            move || queue.push(barrier()).is_err()
        });
        queue.close("test");
        assert!(submitter.join().unwrap());
    }
}
