//! Two revisions beside the live pipeline, on what comes in: the one that is live once more, and the one that may take its place.
//! Both begin at the same offsets with nothing kept, write nothing, and are compared record by record, in any order: each
//! record of one of them waits until the other one has made it, too. What both have made costs no memory any more. A side that
//! has made much that the other one has not reads nothing while it is ahead of it, so that what waits is what differs.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pelton_streams::RecordIn;
use pelton_streams::state::MemoryBudget;
use serde::Serialize;

use super::differ::TopicDifference;
use super::outputs::{SHOWN_MAX, ShownRecord, TopicOutput, hash};
use super::replay_io::{Mode, ReplayIo, Taker, Tally};
use super::{MEMORY_MAX, ReplayClock, ReplaySpec, failure_text};
use crate::Clock;
use crate::io::StopSignal;
use crate::status::{PipelineState, StatusBoard, TaskStatus, Totals};

/// Records that wait for the other side; once there are more of them, no others are compared.
const WAITING_MAX: usize = 200_000;
/// With so many of its own, a side reads nothing while it is ahead of the other one.
const AHEAD_MAX: usize = WAITING_MAX / 2;
/// Records that wait and are kept whole, to be shown, of each topic and side: mostly the other side makes them, too.
const CANDIDATES_MAX: usize = 64;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// Records of one hash that one side has made more often than the other one.
struct Surplus {
    side: Side,
    count: u64,
    /// The first of them, in the order in which they came.
    came: u64,
    /// That one, if it may be shown.
    shown: Option<Box<ShownRecord>>,
}

/// What has come out of both.
#[derive(Default)]
struct Compared {
    /// By topic, partition and hash.
    surplus: HashMap<(String, i32, u64), Surplus>,
    came: u64,
    outputs: [BTreeMap<String, TopicOutput>; 2],
    /// How many of `surplus` are of each side.
    waiting: [usize; 2],
    /// How many of them are kept whole, by topic.
    candidates: [HashMap<String, usize>; 2],
    /// Records that came when too many had been waiting.
    uncompared: u64,
    /// How far each side has read, by topic and partition.
    read: [BTreeMap<(String, i32), i64>; 2],
    /// A side that makes nothing any more.
    ended: [bool; 2],
}

impl Compared {
    /// Whether a side reads on. Of the two, one always does: they are not both ahead.
    fn may_read(&self, side: Side) -> bool {
        let (own, other) = (side as usize, 1 - side as usize);
        if self.waiting[own] < AHEAD_MAX || self.ended[other] {
            return true;
        }
        let both = self.read[own].iter().filter_map(|(at, own)| Some((*own, *self.read[other].get(at)?)));
        let (own, other) = both
            .fold((0_i128, 0_i128), |(own, other), (at, is)| (own + i128::from(at), other + i128::from(is)));
        own <= other
    }

    fn take(&mut self, side: Side, topic: &str, partition: i32, record: &RecordIn<'_>) {
        let output = self.outputs[side as usize].entry(topic.to_owned()).or_default();
        output.records += 1;
        output.bytes += record.bytes();
        let index = output.records - 1;
        self.came += 1;
        let place = (topic.to_owned(), partition, hash(record));
        // From then on: what was not compared would be missing when the other side makes it.
        let is_full = self.uncompared > 0 || self.surplus.len() >= WAITING_MAX;
        match self.surplus.entry(place) {
            Entry::Occupied(mut known) if known.get().side == side => known.get_mut().count += 1,
            Entry::Occupied(mut known) if known.get().count > 1 => known.get_mut().count -= 1,
            Entry::Occupied(known) => {
                let gone = known.remove();
                self.waiting[gone.side as usize] -= 1;
                if gone.shown.is_some()
                    && let Some(count) = self.candidates[gone.side as usize].get_mut(topic)
                {
                    *count -= 1;
                }
            }
            Entry::Vacant(_) if is_full => self.uncompared += 1,
            Entry::Vacant(free) => {
                let candidates = self.candidates[side as usize].entry(topic.to_owned()).or_default();
                let shown = *candidates < CANDIDATES_MAX;
                let shown = shown.then(|| Box::new(ShownRecord::new(partition, index, record)));
                *candidates += usize::from(shown.is_some());
                self.waiting[side as usize] += 1;
                free.insert(Surplus { side, count: 1, came: self.came, shown });
            }
        }
    }

    fn difference(&self) -> BTreeMap<String, TopicDifference> {
        let mut waiting: Vec<(&String, &Surplus)> =
            self.surplus.iter().map(|((topic, ..), surplus)| (topic, surplus)).collect();
        waiting.sort_unstable_by_key(|(_, surplus)| surplus.came);
        let mut topics: BTreeMap<String, TopicDifference> = BTreeMap::new();
        for (topic, surplus) in waiting {
            let found = topics.entry(topic.clone()).or_default();
            let (count, first) = match surplus.side {
                Side::Before => (&mut found.only_before, &mut found.first_only_before),
                Side::After => (&mut found.only_after, &mut found.first_only_after),
            };
            *count += surplus.count;
            if first.len() < SHOWN_MAX
                && let Some(shown) = &surplus.shown
            {
                first.push((**shown).clone());
            }
        }
        topics
    }
}

/// What one side makes goes to what both are compared by.
struct SideTaker {
    side: Side,
    compared: Arc<Mutex<Compared>>,
}

impl Taker for SideTaker {
    fn take(&mut self, topic: &str, partition: i32, record: &RecordIn<'_>) -> Result<(), String> {
        self.compared.lock().take(self.side, topic, partition, record);
        Ok(())
    }

    fn may_read(&self) -> bool {
        self.compared.lock().may_read(self.side)
    }

    fn has_read(&self, topic: &str, partition: i32, next: i64) {
        let read = &mut self.compared.lock().read[self.side as usize];
        if let Some(known) = read.get_mut(&(topic.to_owned(), partition)) {
            *known = next.max(*known);
        }
    }
}

/// One of the two while it runs.
struct Running {
    board: Arc<StatusBoard>,
    memory: Arc<MemoryBudget>,
    failure: Arc<Mutex<Option<String>>>,
    tally: Arc<Tally>,
    began: Instant,
    /// How long it has run, once it has ended.
    ran: Arc<Mutex<Option<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

/// Two revisions that run beside the live one, until this is dropped.
pub(crate) struct Shadow {
    stop: Arc<StopSignal>,
    compared: Arc<Mutex<Compared>>,
    sides: [Running; 2],
    began: Instant,
}

/// What one side has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShadowSide {
    /// Why it does not go on, if it does not.
    pub failure: Option<String>,
    pub records_in: u64,
    pub skipped: u64,
    pub dead_lettered: u64,
    pub calls: u64,
    pub failed_calls: u64,
    /// Offsets that retention deleted before they were read.
    pub deleted_unread: u64,
    /// How long it was at work, as against waiting for records: with `records_in`, what a record takes.
    pub busy_ms: u64,
    /// What came out, by topic.
    pub outputs: BTreeMap<String, TopicOutput>,
    /// What its stores take, and the most that they took.
    pub state_bytes: u64,
    pub state_bytes_most: u64,
    /// How far it is in each partition.
    pub tasks: Vec<TaskStatus>,
}

/// What two revisions have come to by now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ShadowReport {
    pub running_ms: u64,
    pub before: ShadowSide,
    pub after: ShadowSide,
    /// By topic: what only one of them has made by now. While they are not equally far, that is what the other one makes next.
    pub topics: BTreeMap<String, TopicDifference>,
    /// Records that were not compared, since too many had been waiting. The differences are those of the records before.
    pub uncompared: u64,
    /// Both have read the same.
    pub level: bool,
}

impl Shadow {
    /// Starts both. Their ranges have no ends.
    ///
    /// # Errors
    /// A thread does not start.
    pub(crate) fn start(specs: [ReplaySpec; 2], clock: &Arc<dyn Clock>) -> std::io::Result<Shadow> {
        let stop = Arc::new(StopSignal::default());
        let compared = Arc::new(Mutex::new(Compared::default()));
        let [before, after] = specs;
        let start = |side, spec| Running::start(side, spec, clock, &stop, &compared);
        let first = start(Side::Before, before)?;
        let second = match start(Side::After, after) {
            Ok(second) => second,
            Err(error) => {
                stop.set();
                return Err(error);
            }
        };
        Ok(Shadow { stop, compared, sides: [first, second], began: Instant::now() })
    }

    /// The boards of both.
    pub(crate) fn boards(&self) -> [Arc<StatusBoard>; 2] {
        [&self.sides[0], &self.sides[1]].map(|side| Arc::clone(&side.board))
    }

    pub(crate) fn report(&self) -> ShadowReport {
        let compared = self.compared.lock();
        let [before, after] = [Side::Before, Side::After]
            .map(|side| self.sides[side as usize].report(compared.outputs[side as usize].clone()));
        let at = |side: &ShadowSide| -> Vec<(String, i32, i64)> {
            side.tasks.iter().map(|task| (task.topic.clone(), task.partition, task.committed)).collect()
        };
        ShadowReport {
            running_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            level: at(&before) == at(&after),
            before,
            after,
            topics: compared.difference(),
            uncompared: compared.uncompared,
        }
    }

    /// Tells both to stop, and gives their threads, to be waited for.
    pub(crate) fn halt(&mut self) -> Vec<JoinHandle<()>> {
        self.stop.set();
        self.sides.iter_mut().filter_map(|side| side.thread.take()).collect()
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.stop.set();
    }
}

impl Running {
    fn start(
        side: Side,
        spec: ReplaySpec,
        clock: &Arc<dyn Clock>,
        stop: &Arc<StopSignal>,
        compared: &Arc<Mutex<Compared>>,
    ) -> std::io::Result<Running> {
        let board = StatusBoard::new(Arc::clone(clock));
        let memory = MemoryBudget::within(&spec.memory, MEMORY_MAX);
        let sources = spec.topology.sources.iter().filter_map(|source| spec.ranges.get(&source.topic));
        let begins = sources.flatten().map(|(range, _)| ((range.topic.clone(), range.partition), range.from));
        compared.lock().read[side as usize] = begins.collect();
        let failure = Arc::new(Mutex::new(None));
        let taker = Box::new(SideTaker { side, compared: Arc::clone(compared) });
        let seen = Arc::new(ReplayClock::default());
        let mut io = ReplayIo::new(&spec, Mode::Live, Arc::clone(stop), seen, taker);
        let driver = spec.driver(&board, Arc::clone(clock), Arc::clone(stop), &memory);
        let (shown, reason, both) = (Arc::clone(&board), Arc::clone(&failure), Arc::clone(compared));
        let (tally, began, ran) = (Arc::clone(io.tally()), Instant::now(), Arc::new(Mutex::new(None)));
        let took = Arc::clone(&ran);
        let work = move || {
            let ended = crate::runner::run_guarded(driver, &mut io);
            *took.lock() = Some(began.elapsed());
            both.lock().ended[side as usize] = true;
            if let Err(error) = ended {
                *reason.lock() = Some(failure_text(&error));
                shown.set_state(PipelineState::Failed, None);
            }
        };
        let thread = std::thread::Builder::new().name("shadow".to_owned()).spawn(work)?;
        Ok(Running { board, memory, failure, tally, began, ran, thread: Some(thread) })
    }

    fn report(&self, outputs: BTreeMap<String, TopicOutput>) -> ShadowSide {
        let status = self.board.snapshot();
        let Totals { records_in, skipped, dead_lettered, calls, failed_calls, .. } = status.totals;
        let ran = self.ran.lock().unwrap_or_else(|| self.began.elapsed());
        let busy = ran.saturating_sub(self.tally.rested());
        ShadowSide {
            failure: self.failure.lock().clone(),
            records_in,
            skipped,
            dead_lettered,
            calls,
            failed_calls,
            deleted_unread: self.tally.deleted_unread(),
            busy_ms: u64::try_from(busy.as_millis()).unwrap_or(u64::MAX),
            outputs,
            state_bytes: self.memory.used(),
            state_bytes_most: self.memory.most(),
            tasks: status.tasks,
        }
    }
}

#[cfg(test)]
mod tests {
    use pelton_streams::batch::Headers;

    use super::*;

    fn take(compared: &mut Compared, side: Side, values: &[&str]) {
        for value in values {
            let value = Some(value.as_bytes());
            let record = RecordIn { offset: 0, timestamp: 1, key: None, value, headers: Headers::default() };
            compared.take(side, "out", 0, &record);
        }
    }

    #[test]
    fn records_wait_for_the_other_side_and_cost_nothing_once_it_has_them() {
        let mut compared = Compared::default();
        take(&mut compared, Side::Before, &["a", "b", "a"]);
        assert_eq!(compared.difference()["out"].only_before, 3);
        take(&mut compared, Side::After, &["a", "c", "b"]);
        let found = compared.difference().remove("out").unwrap();
        let value = |shown: &[ShownRecord]| shown[0].value.clone().unwrap();
        assert_eq!((found.only_before, found.only_after), (1, 1));
        assert_eq!(
            (value(&found.first_only_before), value(&found.first_only_after)),
            ("a".into(), "c".into())
        );
        take(&mut compared, Side::After, &["a"]);
        take(&mut compared, Side::Before, &["c"]);
        assert!(compared.difference().is_empty() && compared.surplus.is_empty());
        assert_eq!(compared.waiting, [0, 0]);
        assert_eq!(compared.outputs[0]["out"], compared.outputs[1]["out"]);
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let mut compared = Compared::default();
        for n in 0..WAITING_MAX + 10 {
            take(&mut compared, Side::After, &[&n.to_string()]);
        }
        assert_eq!((compared.surplus.len(), compared.uncompared), (WAITING_MAX, 10));
        let found = compared.difference().remove("out").unwrap();
        assert_eq!((found.only_after, found.first_only_after.len()), (WAITING_MAX as u64, SHOWN_MAX));
        let whole = compared.surplus.values().filter(|surplus| surplus.shown.is_some()).count();
        assert_eq!(whole, CANDIDATES_MAX, "the others are a hash");
        // The last ten come from the other side as well: nobody knows any more that they are the same.
        let last = (WAITING_MAX..WAITING_MAX + 10).map(|n| n.to_string());
        take(&mut compared, Side::Before, &["0"]);
        last.for_each(|value| take(&mut compared, Side::Before, &[&value]));
        let found = compared.difference().remove("out").unwrap();
        assert_eq!((found.only_before, found.only_after), (0, WAITING_MAX as u64 - 1));
        assert_eq!(compared.uncompared, 20);
    }

    /// One side waits for the other while it has much that the other one has not, unless that makes nothing any more.
    #[test]
    fn a_side_that_is_far_ahead_reads_nothing() {
        let mut compared = Compared::default();
        let at = |offset: i64| BTreeMap::from([(("in".to_owned(), 0), offset), (("in".to_owned(), 1), 0)]);
        compared.read = [at(0), at(AHEAD_MAX as i64)];
        let reads = |compared: &Compared| [Side::Before, Side::After].map(|side| compared.may_read(side));
        for n in 0..AHEAD_MAX - 1 {
            take(&mut compared, Side::After, &[&n.to_string()]);
        }
        assert_eq!(reads(&compared), [true, true]);
        take(&mut compared, Side::After, &["one more"]);
        assert_eq!(reads(&compared), [true, false]);
        // Both have read the same: what waits is what differs.
        compared.read[0] = at(AHEAD_MAX as i64);
        assert_eq!(reads(&compared), [true, true]);
        compared.read[0] = at(1);
        assert_eq!(reads(&compared), [true, false]);
        compared.ended[0] = true;
        assert_eq!(reads(&compared), [true, true]);
        compared.ended[0] = false;
        for n in 0..AHEAD_MAX - 1 {
            take(&mut compared, Side::Before, &[&n.to_string()]);
        }
        assert_eq!(reads(&compared), [true, true], "it has caught up with what waited");
    }
}
