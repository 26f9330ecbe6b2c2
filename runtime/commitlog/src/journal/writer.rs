//! The journal's own thread: forms groups from what waits, writes them one after the other, and tells the listeners.
//! While one group is written the next one collects, so that groups grow with the load and need no timer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::admission::Cost;
use super::group::{FRAME_HEADER_BYTES, FrameHeader, GROUP_HEADER_BYTES, GroupBuilder, GroupPlace};
use super::queue::{Barrier, Entry, Taken};
use super::slot::JournalPoint;
use super::tracker::{DurableFrame, Notice};
use super::{Journal, Told, closed_failure};
use crate::error::StorageFailure;
use crate::sink::{Frame, FrameKind, FrameMeta};

/// Forms and writes groups.
pub(crate) struct Writer {
    journal: Arc<Journal>,
    builder: GroupBuilder,
    /// Taken from the queue, not yet in a group.
    backlog: VecDeque<Entry>,
    /// Payload bytes of the first frame of the backlog that earlier groups hold.
    written_part: usize,
    group: Group,
    next: JournalPoint,
    last_start: Option<Instant>,
}

/// What is in the builder.
#[derive(Default)]
struct Group {
    frames: Vec<DurableFrame>,
    barriers: Vec<Barrier>,
    /// Cost of the entries that end in this group.
    cost: Cost,
}

/// What [`Writer::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wrote,
    Idle,
    Stopped,
}

impl Writer {
    pub(crate) fn new(journal: Arc<Journal>) -> Writer {
        let next = journal.tracker.lock().durable();
        Writer {
            journal,
            builder: GroupBuilder::new(),
            backlog: VecDeque::new(),
            written_part: 0,
            group: Group::default(),
            next,
            last_start: None,
        }
    }

    /// Writes groups until the journal is closed or fails.
    pub(crate) fn run(mut self) {
        let guard = FailIfUnwinding(self.journal.clone());
        while !matches!(self.step(true), Ok(Step::Stopped) | Err(_)) {}
        drop(guard);
    }

    /// Writes one group, of what waits. With `wait`, sleeps until there is something. A failure is final, and everybody has heard of it.
    pub(crate) fn step(&mut self, wait: bool) -> Result<Step, StorageFailure> {
        if self.backlog.is_empty() {
            match self.journal.queue.take(&mut self.backlog, wait) {
                Taken::Entries => {}
                Taken::Nothing => return Ok(Step::Idle),
                Taken::Stopped => return Ok(Step::Stopped),
            }
        }
        self.keep_the_gap();
        self.fill();
        match self.check_latch().and_then(|()| self.write()) {
            Ok(notices) => {
                self.tell(notices);
                Ok(Step::Wrote)
            }
            Err(failure) => {
                self.fail(&failure);
                Err(failure)
            }
        }
    }

    /// The journal may have failed elsewhere (a checkpoint): then no further group is written.
    fn check_latch(&self) -> Result<(), StorageFailure> {
        self.journal.failure().map_or(Ok(()), Err)
    }

    /// Waits for the rest of `commit_gap` since the last group began. The first group after a pause is not held up.
    fn keep_the_gap(&mut self) {
        let gap = self.journal.settings.commit_gap;
        if gap.is_zero() {
            return;
        }
        if let Some(left) = self.last_start.and_then(|start| gap.checked_sub(start.elapsed())) {
            std::thread::sleep(left);
        }
        self.last_start = Some(Instant::now());
    }

    /// Puts as much into the builder as fits into a group.
    fn fill(&mut self) {
        loop {
            if self.backlog.is_empty() && self.journal.queue.take(&mut self.backlog, false) != Taken::Entries
            {
                return;
            }
            let fits = match self.backlog.front() {
                None | Some(Entry::Barrier(_)) => true,
                Some(Entry::Frame(frame)) => {
                    let left = frame.payload.len() - self.written_part;
                    self.builder.total_bytes_with(left) <= self.journal.settings.group_max_bytes
                }
            };
            if !fits {
                if self.builder.frame_count() == 0 {
                    self.add_part();
                }
                return;
            }
            let Some(entry) = self.backlog.pop_front() else { return };
            self.group.cost += entry.cost();
            match entry {
                Entry::Barrier(done) => self.group.barriers.push(done),
                Entry::Frame(frame) => {
                    let from = std::mem::take(&mut self.written_part);
                    let end = frame.payload.len();
                    self.add(&frame, from, end);
                }
            }
        }
    }

    /// Fills a whole group with the next part of the first frame, which is larger than a group.
    fn add_part(&mut self) {
        let part = self.journal.settings.group_max_bytes - GROUP_HEADER_BYTES - FRAME_HEADER_BYTES;
        if let Some(Entry::Frame(frame)) = self.backlog.pop_front() {
            let from = self.written_part;
            self.add(&frame, from, from + part);
            self.written_part = from + part;
            self.backlog.push_front(Entry::Frame(frame));
        }
    }

    fn add(&mut self, frame: &Frame, from: usize, to: usize) {
        let more = to < frame.payload.len();
        let part = &frame.payload.bytes()[from..to];
        let meta = FrameMeta { position: frame.meta.position + from as u64, ..frame.meta };
        let written_through = frame.written_through;
        self.builder.push(&FrameHeader { meta, more, written_through }, part, frame.payload.crc32c(from..to));
        let is_create = meta.kind == FrameKind::PartitionCreate;
        let topic = is_create.then(|| String::from_utf8_lossy(frame.payload.bytes()).into());
        self.group.frames.push(DurableFrame {
            meta,
            len: part.len() as u64,
            more,
            written_through,
            topic,
            file: frame.file.clone(),
            listener: frame.listener.clone(),
        });
    }

    /// Writes the group; it is durable when this returns.
    fn write(&mut self) -> Result<Vec<Notice>, StorageFailure> {
        if self.builder.frame_count() == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.builder.total_bytes() as u64;
        let reserved = self.journal.reserve(bytes, self.next.lsn)?;
        let group = self.builder.seal(&GroupPlace {
            directory_id: self.journal.directory_id,
            epoch: self.journal.epoch,
            lsn: self.next.lsn,
            number: self.next.group,
            durable_lsn: self.next.lsn,
        });
        let start = Instant::now();
        reserved.file.file.write(group, reserved.position)?;
        let took = start.elapsed();
        self.next = JournalPoint {
            lsn: self.next.lsn + bytes,
            group: self.next.group + 1,
            file: reserved.file.number,
            position: reserved.position + bytes,
        };
        let (notices, dirty_files) = {
            let mut tracker = self.journal.tracker.lock();
            let notices = tracker.apply(std::mem::take(&mut self.group.frames), self.next);
            (notices, tracker.dirty_files())
        };
        self.journal.group_done(self.next.lsn, took, dirty_files);
        self.builder.clear();
        Ok(notices)
    }

    fn tell(&mut self, notices: Vec<Notice>) {
        self.journal.queue.finished(std::mem::take(&mut self.group.cost));
        for notice in notices {
            notice.listener.durable(notice.end_offset);
        }
        for done in self.group.barriers.drain(..) {
            done(Ok(()));
        }
    }

    /// Latches, and fails every waiting frame, in the order in which they came.
    fn fail(&mut self, failure: &StorageFailure) {
        self.journal.fail(failure);
        let group = std::mem::take(&mut self.group);
        let mut told = Told::default();
        for frame in &group.frames {
            told.tell(&frame.listener, failure);
        }
        for done in group.barriers {
            done(Err(failure.clone()));
        }
        self.journal.fail_waiting(std::mem::take(&mut self.backlog), told, failure);
    }
}

/// A thread that panics (a listener of ours could) must not leave everybody else waiting for ever.
pub(crate) struct FailIfUnwinding(pub(crate) Arc<Journal>);

impl Drop for FailIfUnwinding {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = closed_failure("a thread of the journal panicked");
            self.0.fail(&failure);
            self.0.fail_waiting(VecDeque::new(), Told::default(), &failure);
        }
    }
}
