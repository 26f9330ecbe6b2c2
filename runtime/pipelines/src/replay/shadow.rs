//! Two revisions beside the live pipeline, on what comes in: the one that is live once more, and the one that may take its place.
//! Both begin at the same offsets with nothing kept, write nothing, and are compared record by record, in any order: each
//! record of one of them waits until the other one has made it, too. What both have made costs no memory any more.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::Mutex;
use pelton_streams::RecordIn;
use pelton_streams::state::MemoryBudget;
use serde::Serialize;

use super::differ::TopicDifference;
use super::outputs::{SHOWN_MAX, ShownRecord, TopicOutput, hash};
use super::replay_io::{Mode, ReplayIo, Taker};
use super::{MEMORY_MAX, ReplayClock, ReplaySpec};
use crate::Clock;
use crate::io::StopSignal;
use crate::status::{PipelineState, StatusBoard, TaskStatus, Totals};

/// Records of one side that wait for the other one; more of them are counted and not compared.
const WAITING_MAX: usize = 200_000;

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
    shown: ShownRecord,
}

/// What has come out of both.
#[derive(Default)]
struct Compared {
    /// By topic, partition and hash.
    surplus: HashMap<(String, i32, u64), Surplus>,
    came: u64,
    outputs: [BTreeMap<String, TopicOutput>; 2],
    /// Records that came when too many were waiting.
    uncompared: u64,
}

impl Compared {
    fn take(&mut self, side: Side, topic: &str, partition: i32, record: &RecordIn<'_>) {
        let output = self.outputs[side as usize].entry(topic.to_owned()).or_default();
        output.records += 1;
        output.bytes += record.bytes();
        let index = output.records - 1;
        self.came += 1;
        let place = (topic.to_owned(), partition, hash(record));
        let is_full = self.surplus.len() >= WAITING_MAX;
        match self.surplus.entry(place) {
            Entry::Occupied(mut known) if known.get().side == side => known.get_mut().count += 1,
            Entry::Occupied(mut known) if known.get().count > 1 => known.get_mut().count -= 1,
            Entry::Occupied(known) => drop(known.remove()),
            Entry::Vacant(_) if is_full => self.uncompared += 1,
            Entry::Vacant(free) => {
                let shown = ShownRecord::new(partition, index, record);
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
            if first.len() < SHOWN_MAX {
                first.push(surplus.shown.clone());
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
    fn take(&mut self, topic: &str, partition: i32, record: &RecordIn<'_>) {
        self.compared.lock().take(self.side, topic, partition, record);
    }
}

/// One of the two while it runs.
struct Running {
    board: Arc<StatusBoard>,
    memory: Arc<MemoryBudget>,
    failure: Arc<Mutex<Option<String>>>,
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
    /// Records that were not compared, since too many waited.
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
        let memory = MemoryBudget::new(MEMORY_MAX);
        let failure = Arc::new(Mutex::new(None));
        let taker = Box::new(SideTaker { side, compared: Arc::clone(compared) });
        let seen = Arc::new(ReplayClock::default());
        let mut io = ReplayIo::new(&spec, Mode::Live, Arc::clone(stop), seen, taker);
        let driver = spec.driver(&board, Arc::clone(clock), Arc::clone(stop), &memory);
        let (shown, reason) = (Arc::clone(&board), Arc::clone(&failure));
        let work = move || {
            if let Err(error) = crate::runner::run_guarded(driver, &mut io) {
                *reason.lock() = Some(error.to_string());
                shown.set_state(PipelineState::Failed, None);
            }
        };
        let thread = std::thread::Builder::new().name("shadow".to_owned()).spawn(work)?;
        Ok(Running { board, memory, failure, thread: Some(thread) })
    }

    fn report(&self, outputs: BTreeMap<String, TopicOutput>) -> ShadowSide {
        let status = self.board.snapshot();
        let Totals { records_in, skipped, dead_lettered, calls, failed_calls, .. } = status.totals;
        ShadowSide {
            failure: self.failure.lock().clone(),
            records_in,
            skipped,
            dead_lettered,
            calls,
            failed_calls,
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
        assert_eq!(compared.outputs[0]["out"], compared.outputs[1]["out"]);
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let mut compared = Compared::default();
        for n in 0..WAITING_MAX + 10 {
            take(&mut compared, Side::After, &[&n.to_string()]);
        }
        assert_eq!((compared.surplus.len(), compared.uncompared), (WAITING_MAX, 10));
        assert_eq!(compared.difference()["out"].first_only_after.len(), SHOWN_MAX);
    }
}
