//! Frames on their way from the partitions to the journal's thread.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::admission::{Admission, Cost, wake};
use crate::error::SinkClosed;
use crate::error::StorageFailure;
use crate::sink::{Frame, FrameClass};

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
    pub(crate) fn cost(&self) -> Cost {
        match self {
            Entry::Frame(frame) => {
                let bytes = ENTRY_BYTES + frame.payload.len() as u64;
                match frame.class {
                    FrameClass::Client => Cost { data: bytes, internal: 0 },
                    FrameClass::Internal => Cost { data: 0, internal: bytes },
                }
            }
            Entry::Barrier(_) => Cost { data: 0, internal: ENTRY_BYTES },
        }
    }

    /// A client's frame that costs so many bytes.
    #[cfg(test)]
    pub(crate) fn for_tests(cost: usize) -> Entry {
        use crate::sink::{FrameKind, FrameMeta, testing::NoListener};

        let meta = FrameMeta {
            kind: FrameKind::Data,
            topic_id: uuid::Uuid::nil(),
            partition: 0,
            base_offset: 0,
            last_offset: 0,
            segment_base: 0,
            position: 0,
            leader_epoch: 0,
        };
        let payload = crate::sink::Payload::Other(vec![0; cost - ENTRY_BYTES as usize].into());
        let (class, listener) = (FrameClass::Client, std::sync::Arc::new(NoListener));
        Entry::Frame(Frame { meta, class, payload, written_through: false, file: None, listener })
    }
}

pub(crate) struct Queue {
    state: Mutex<State>,
    /// The journal's thread waits here for entries.
    filled: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    entries: VecDeque<Entry>,
    pub(super) admission: Admission,
    /// The journal's thread sleeps.
    idle: bool,
    pub(super) closed: Option<SinkClosed>,
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
    /// `max_bytes`: what permits may have waiting; `None`: they never wait.
    pub(crate) fn new(max_bytes: Option<u64>) -> Queue {
        let state = State { admission: Admission::new(max_bytes), ..State::default() };
        Queue { state: Mutex::new(state), filled: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Adds an entry. Never waits: an append for a client has a permit.
    pub(crate) fn push(&self, entry: Entry) -> Result<(), Box<Refused>> {
        let mut state = self.state.lock();
        if let Some(closed) = &state.closed {
            return Err(Box::new(Refused { closed: closed.clone(), entry }));
        }
        state.admission.entered(entry.cost());
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
    pub(crate) fn finished(&self, cost: Cost) {
        let wakers = self.state.lock().admission.finished(cost);
        wake(wakers);
    }

    /// True if so much of the broker's own waits that it should refuse more.
    pub(crate) fn is_behind(&self) -> bool {
        self.state.lock().admission.is_behind()
    }

    /// Refuses entries from now on. Those that are here are still taken, then `take` says `Stopped`.
    pub(crate) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(SinkClosed { reason: reason.to_owned() });
        }
        state.stop = true;
        let wakers = state.admission.wakers();
        drop(state);
        self.filled.notify_all();
        wake(wakers);
    }

    /// Bytes that were submitted and are not durable.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().admission.bytes()
    }
}

#[cfg(test)]
mod tests {
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
        out.iter().for_each(|entry| queue.finished(entry.cost()));
        assert_eq!(queue.bytes(), 0);
    }
}
