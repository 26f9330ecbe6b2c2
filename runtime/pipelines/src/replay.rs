//! Runs a revision over a range of the log again, without writing anything: by the same driver as a pipeline's, over the stored
//! records, with stores in memory that begin with nothing. What comes out is noted and compared with what another revision makes
//! of the same range.
//!
//! A replay is a function of the records, the revision and the range: one thread, whatever the manifest says; the time of day is
//! the largest timestamp that was read so far, so nothing in a plugin or a timer sees another clock; what a language's runtime
//! asks of clocks and randomness has one answer always (`wasm::host`). What is not of the range is not there: offsets,
//! stores and timers of before, and timers on the clock that are due behind its end. Global tables are read as they are now.

mod differ;
mod outputs;
mod replay_io;
mod shadow;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use pelton_streams::manifest::{CommitSpec, Guarantee};
use pelton_streams::state::{MemoryBudget, StateError};
use pelton_streams::{PluginFactory, Topology};
use serde::Serialize;

pub use self::differ::{Difference, TopicDifference};
pub(crate) use self::outputs::Wanted;
use self::outputs::{Noted, Notes, Noting};
pub use self::outputs::{ShownRecord, TopicOutput};
use self::replay_io::{Mode, ReplayIo};
pub(crate) use self::shadow::Shadow;
pub use self::shadow::{ShadowReport, ShadowSide};
use crate::driver::{DriverError, DriverSpec};
use crate::globals::Globals;
use crate::io::{ReplayPartition, StopSignal};
use crate::lanes::Lane;
use crate::runner::thread_cpu;
use crate::status::{StatusBoard, Totals};
use crate::stores::MemoryStores;

/// Records that one replay reads, in all of its topics but those of tables, which have to fit into memory.
pub const RECORDS_MAX: u64 = 1_000_000;
/// Records that one run of a replay makes: the hash of each is kept.
pub const OUTPUTS_MAX: u64 = 2_000_000;
/// Shadows that run at once.
pub const SHADOWS_MAX: usize = 8;
/// Memory for the stores of a run, and as much for what is between the parts of a pipeline.
pub const MEMORY_MAX: u64 = 256 << 20;
/// What all replays and shadows of a server take of that together.
pub const ALL_MEMORY_MAX: u64 = 512 << 20;
/// How long a replay may take: below the two minutes that the command line waits.
pub const TIME_MAX_MS: u64 = 100_000;

/// What is read of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayRange {
    pub topic: String,
    pub partition: i32,
    pub from: i64,
    /// Behind the last offset.
    pub to: i64,
}

/// What a run needs.
pub(crate) struct ReplaySpec {
    pub(crate) topology: Arc<Topology>,
    pub(crate) commit: CommitSpec,
    pub(crate) factory: Arc<dyn PluginFactory>,
    pub(crate) globals: Arc<dyn Globals>,
    /// By topic: its partitions and what is read of each.
    pub(crate) ranges: Arc<Ranges>,
    /// The partitions of topics that are written to.
    pub(crate) partitions: Vec<u32>,
    /// [`ALL_MEMORY_MAX`].
    pub(crate) memory: Arc<MemoryBudget>,
}

/// When a replay ends that has not come to the end of its range.
pub(crate) struct Ending {
    /// Nobody waits for it any more.
    pub(crate) asked: Arc<StopSignal>,
    pub(crate) at: Instant,
}

impl Ending {
    fn why(&self) -> String {
        if self.asked.is_set() {
            return "it was stopped: who asked for it is gone, or the server stops".to_owned();
        }
        format!("the replay has taken {TIME_MAX_MS} ms, which is the most: replay a smaller range")
    }
}

/// What a run failed with. The bound of its stores is no setting.
fn failure_text(error: &DriverError) -> String {
    match error {
        DriverError::State { error: StateError::Memory { limit }, .. } => format!(
            "what its nodes keep would take more than {limit} bytes, which is the most ({MEMORY_MAX} for a run, {ALL_MEMORY_MAX} \
             for all replays and shadows of the server)"
        ),
        error => error.to_string(),
    }
}

impl ReplaySpec {
    /// A driver of all tasks, on one thread.
    fn driver(
        &self,
        board: &Arc<StatusBoard>,
        clock: Arc<dyn crate::Clock>,
        stop: Arc<StopSignal>,
        memory: &Arc<MemoryBudget>,
    ) -> DriverSpec {
        DriverSpec {
            topology: Arc::clone(&self.topology),
            lane: Lane::ONLY,
            // Nothing is written, so nothing can be half written.
            guarantee: Guarantee::ExactlyOnce,
            commit: self.commit,
            factory: Arc::clone(&self.factory),
            board: Arc::clone(board),
            clock,
            stop,
            stores: Arc::new(MemoryStores { memory: Arc::clone(memory) }),
            globals: Arc::clone(&self.globals),
            cpu: thread_cpu,
        }
    }
}

/// What is read: by topic, a partition after the other.
pub(crate) type Ranges = BTreeMap<String, Vec<(ReplayRange, Box<dyn ReplayPartition>)>>;

/// What a run has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Why it ended before the end of the range, if it did.
    pub failure: Option<String>,
    pub records_in: u64,
    pub skipped: u64,
    pub dead_lettered: u64,
    /// Calls of plugins, those that failed among them.
    pub calls: u64,
    pub failed_calls: u64,
    /// Offsets of the range that retention deleted before they were read.
    pub deleted_unread: u64,
    /// What came out, by topic.
    pub outputs: BTreeMap<String, TopicOutput>,
    /// The most that its stores took.
    pub state_bytes: u64,
    /// What it took. The only one of these figures that is another one each time.
    pub elapsed_ms: u64,
}

/// What came out of a run.
pub(crate) struct Run {
    pub(crate) report: RunReport,
    pub(crate) notes: Notes,
}

/// The time of a replay: of the newest record that was read, and of what was waited for since.
#[derive(Debug, Default)]
struct ReplayClock(AtomicI64);

impl ReplayClock {
    fn see(&self, ms: i64) {
        self.0.fetch_max(ms, Ordering::Relaxed);
    }

    /// Timestamps are whatever somebody has written.
    fn pass(&self, ms: i64) {
        let later = |now: i64| Some(now.saturating_add(ms));
        // It always is another one.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

impl crate::Clock for ReplayClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs a revision over the range. `wanted` are records that are to be kept as they are. Blocking.
pub(crate) fn run(spec: &ReplaySpec, ending: &Ending, wanted: Wanted) -> Run {
    let began = Instant::now();
    let clock = Arc::new(ReplayClock::default());
    let stop = StopSignal::until(&ending.asked, ending.at);
    let memory = MemoryBudget::within(&spec.memory, MEMORY_MAX);
    let driver_clock: Arc<dyn crate::Clock> = clock.clone();
    let board = StatusBoard::new(Arc::clone(&driver_clock));
    let noting = Noting::new(wanted);
    let taker = Box::new(noting.clone());
    let mut io = ReplayIo::new(spec, Mode::Ranges, Arc::clone(&stop), clock, taker);
    let driver = spec.driver(&board, driver_clock, stop, &memory);
    let ended = crate::runner::run_guarded(driver, &mut io);
    let Totals { records_in, skipped, dead_lettered, calls, failed_calls, .. } = board.snapshot().totals;
    let failure = match ended {
        Err(error) => Some(failure_text(&error)),
        Ok(()) => io.why_stopped().or_else(|| (!io.has_ended()).then(|| ending.why())),
    };
    let Noted { outputs, notes, .. } = noting.noted();
    let report = RunReport {
        failure,
        records_in,
        skipped,
        dead_lettered,
        calls,
        failed_calls,
        deleted_unread: io.tally().deleted_unread(),
        outputs,
        state_bytes: memory.most(),
        elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    Run { report, notes }
}

/// Two revisions over one range: what each has come to, and where they differ.
pub(crate) fn compare(
    before: &ReplaySpec,
    after: &ReplaySpec,
    ending: &Ending,
) -> (RunReport, RunReport, Difference) {
    let first = run(before, ending, Wanted::default());
    let second = run(after, ending, Wanted::other_than(&first.notes));
    let mut difference = differ::difference(&first.notes, &second.notes);
    // What only the first one has is known by its hash: another run of it has the records.
    if let Some(missing) = difference.missing()
        && first.report.failure.is_none()
    {
        differ::show_missing(&mut difference, &run(before, ending, missing).notes);
    }
    (first.report, second.report, difference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    #[test]
    fn the_clock_stops_at_the_end_of_time() {
        let clock = ReplayClock::default();
        clock.see(i64::MAX - 1);
        clock.pass(5);
        assert_eq!(clock.now_ms(), i64::MAX);
        clock.see(3);
        assert_eq!(clock.now_ms(), i64::MAX);
    }
}
