//! A partition of an intake: what it shares with the others, and what it knows of records that are not routed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use pelton_commitlog::{AppendOrigin, Appended, Log, OffsetSequence};

use super::Partition;

/// A piece of what is not routed is counted as a whole: how large, about, in bytes.
const PIECE_BYTES: u64 = 64 << 10;

/// What the partitions of an intake share.
#[derive(Debug)]
pub struct Intake {
    sequence: Arc<OffsetSequence>,
    /// Bytes that are not routed.
    unrouted: AtomicU64,
}

impl Default for Intake {
    fn default() -> Intake {
        Intake { sequence: Arc::new(OffsetSequence::starting_at(0)), unrouted: AtomicU64::new(0) }
    }
}

impl Intake {
    /// Bytes that clients have written and that are not routed yet, as they are stored.
    pub fn unrouted_bytes(&self) -> u64 {
        self.unrouted.load(Ordering::Relaxed)
    }
}

/// A partition's part in its intake.
#[derive(Debug)]
pub(crate) struct Member {
    intake: Arc<Intake>,
    state: Mutex<MemberState>,
}

#[derive(Debug, Default)]
struct MemberState {
    /// Offsets that have no records: holes and markers. From the high watermark on, in order.
    empty: VecDeque<(i64, i64)>,
    /// What is not routed: the offset behind each piece, and its bytes.
    pieces: VecDeque<(i64, u64)>,
}

impl Member {
    fn new(intake: Arc<Intake>, end: i64, bytes: u64) -> Member {
        let member = Member { intake, state: Mutex::default() };
        // Which of them are routed is known when the router begins.
        member.add(end, bytes);
        member
    }

    fn add(&self, end: i64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let pieces = &mut self.state.lock().pieces;
        match pieces.back_mut().filter(|(_, has)| *has < PIECE_BYTES) {
            Some(piece) => *piece = (end, piece.1 + bytes),
            None => pieces.push_back((end, bytes)),
        }
        self.intake.unrouted.fetch_add(bytes, Ordering::Relaxed);
    }

    /// An append went from `before` to `end`; its records, if it has any, begin at `records`.
    pub(crate) fn appended(&self, (before, records, end): (i64, i64, i64), bytes: u64, durable: i64) {
        self.add(end, bytes);
        let empty = &mut self.state.lock().empty;
        while empty.front().is_some_and(|(_, to)| *to <= durable) {
            empty.pop_front();
        }
        if records > before {
            match empty.back_mut().filter(|(_, to)| *to == before) {
                Some((_, to)) => *to = records,
                None => empty.push_back((before, records)),
            }
        }
    }

    fn routed(&self, before: i64) {
        let pieces = &mut self.state.lock().pieces;
        while pieces.front().is_some_and(|(end, _)| *end <= before) {
            if let Some((_, bytes)) = pieces.pop_front() {
                self.intake.unrouted.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    /// The first record that is not durable, if there is one.
    fn first_pending(&self, durable: i64, log_end: i64) -> Option<i64> {
        let mut at = durable;
        for &(from, to) in &self.state.lock().empty {
            if from <= at && at < to {
                at = to;
            }
        }
        (at < log_end).then_some(at)
    }
}

/// What there is of a partition at one moment.
pub(crate) struct Moment {
    /// Nobody reads on behind this: a transaction is open there, or the end is.
    pub(crate) stable: i64,
    /// The first record that is not durable, if there is one.
    pub(crate) pending: Option<i64>,
    /// Transactions that are open, or whose marker is not durable: first offset and producer.
    pub(crate) undecided: Vec<(i64, i64)>,
}

impl Partition {
    /// Makes it a partition of an intake, which it stays.
    pub(crate) fn join(&self, intake: &Arc<Intake>) {
        if self.member().is_some() {
            return;
        }
        self.with_log(|log| {
            log.share_offsets(Arc::clone(&intake.sequence));
            let (end, bytes) = (log.offsets().log_end, self.reader().size_bytes());
            self.set_member(Member::new(Arc::clone(intake), end, bytes));
        });
    }

    /// The intake that it is a partition of.
    pub fn intake(&self) -> Option<&Arc<Intake>> {
        self.member().map(|member| &member.intake)
    }

    /// The router has done what is before this offset.
    pub fn routed(&self, before: i64) {
        if let Some(member) = self.member() {
            member.routed(before);
        }
    }

    /// None once the partition is gone.
    pub(crate) fn moment(&self) -> Option<Moment> {
        let member = self.member()?;
        self.with_log(|log| {
            let durable = self.high_watermark();
            Moment {
                stable: self.reader().last_stable_at(durable),
                pending: member.first_pending(durable, log.offsets().log_end),
                undecided: log.producers().undecided().collect(),
            }
        })
    }

    /// Of transactions that are undecided elsewhere, the first one that is decided here: it has written here behind where it
    /// begins, and is not open.
    pub(crate) fn decided_of(&self, undecided: &[(usize, i64, i64)], own: usize) -> Option<i64> {
        let decided = self.with_log(|log| {
            let producers = log.producers();
            let is_open = |producer: i64| producers.undecided().any(|(_, open)| open == producer);
            let wrote_behind = |producer: i64, first: i64| {
                let last = producers.get(producer).and_then(|state| state.batches.back());
                last.is_some_and(|batch| batch.base_offset > first)
            };
            let others = undecided.iter().filter(|(held, ..)| *held != own);
            let decided =
                others.filter(|(_, first, producer)| wrote_behind(*producer, *first) && !is_open(*producer));
            decided.map(|(_, first, _)| *first).min()
        });
        decided.flatten()
    }
}

/// Where the next batch of an intake goes.
pub(crate) fn next_of(intake: &Intake) -> i64 {
    intake.sequence.next()
}

impl Partition {
    /// Tells the intake of an append that was tried. Even a refused one may have left a hole.
    pub(super) fn note_in_intake(
        &self,
        member: &Member,
        log: &Log,
        (before, bytes, origin): (i64, u64, AppendOrigin),
        appended: Option<&Appended>,
    ) {
        let end = log.offsets().log_end;
        let of_client = appended.filter(|it| origin == AppendOrigin::Client && !it.duplicate);
        let (records, bytes) = of_client.map_or((end, 0), |it| (it.base_offset, bytes));
        member.appended((before, records, end), bytes, self.delayed.high_watermark());
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.member.get()
    }

    pub(crate) fn set_member(&self, member: Member) {
        // It keeps the one that it has.
        drop(self.member.set(member));
    }

    /// Looks at the log while nothing is appended; none once it is gone.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> Option<T> {
        self.lock().ok().map(|mut log| look(&mut log))
    }
}
