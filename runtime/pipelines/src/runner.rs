//! The threads of one pipeline, one for each of its lanes: they run drivers, and start each of them again after a failure that
//! may pass.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use cpu_time::ThreadTime;
use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use pelton_streams::manifest::{CommitSpec, Guarantee, MAX_THREADS};
use pelton_streams::{PluginFactory, Topology};

use super::driver::{CpuUs, Driver, DriverError, DriverSpec};
use super::globals::Globals;
use super::io::{IoFactory, PipelineIo, StopSignal};
use super::status::{FailureStatus, PipelineState, StatusBoard};
use super::stores::TaskStores;
use crate::Clock;
use crate::lanes::Lane;
use crate::logs::PipelineLog;

/// What a pipeline's thread needs.
pub(super) struct RunnerSpec {
    pub(super) name: String,
    pub(super) topology: Arc<Topology>,
    /// Its lanes.
    pub(super) threads: u32,
    pub(super) guarantee: Guarantee,
    pub(super) commit: CommitSpec,
    pub(super) factory: Arc<dyn PluginFactory>,
    pub(super) io: Arc<dyn IoFactory>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stores: Arc<dyn TaskStores>,
    pub(super) globals: Arc<dyn Globals>,
}

/// A pipeline's threads, or its place while it does not run.
pub(super) struct Runner {
    /// What it runs, or would run; none if that cannot be known.
    topology: Option<Arc<Topology>>,
    board: Arc<StatusBoard>,
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// A pipeline that does not run.
    pub(super) fn idle(
        (clock, log): (Arc<dyn Clock>, PipelineLog),
        topology: Option<Arc<Topology>>,
        state: PipelineState,
        reason: Option<String>,
        before: Option<&StatusBoard>,
    ) -> Runner {
        let at_ms = clock.now_ms();
        let board = StatusBoard::of_lanes(clock, 1, before, log);
        let failure = reason.map(|reason| FailureStatus {
            reason,
            kind: "deployment",
            topic: None,
            partition: None,
            offset: None,
            at_ms,
        });
        board.set_state(state, failure);
        Runner { topology, board, stop: Arc::default(), thread: None }
    }

    /// Starts it; `before` has what was counted of it until now.
    pub(super) fn start(spec: RunnerSpec, log: PipelineLog, before: Option<&StatusBoard>) -> Runner {
        let board = StatusBoard::of_lanes(Arc::clone(&spec.clock), spec.threads, before, log);
        let stop = Arc::new(StopSignal::default());
        let topology = Some(Arc::clone(&spec.topology));
        let thread = {
            let (board, stop) = (Arc::clone(&board), Arc::clone(&stop));
            let name = thread_name(&spec.name, 0);
            std::thread::Builder::new().name(name).spawn(move || supervise(&spec, &board, &stop))
        };
        match thread {
            Ok(thread) => Runner { topology, board, stop, thread: Some(thread) },
            Err(error) => {
                let failure = no_thread(&error, 0);
                board.set_state(PipelineState::Failed, Some(failure));
                Runner { topology, board, stop, thread: None }
            }
        }
    }

    pub(super) fn topology(&self) -> Option<&Arc<Topology>> {
        self.topology.as_ref()
    }

    pub(super) fn board(&self) -> &Arc<StatusBoard> {
        &self.board
    }

    /// Tells the drivers to stop at their next commit.
    pub(super) fn signal(&self) {
        self.stop.set();
    }

    /// Tells the drivers to stop, and gives the thread that waits for all of them, to be waited for.
    pub(super) fn halt(&mut self) -> Option<JoinHandle<()>> {
        self.signal();
        self.thread.take()
    }
}

/// Runs the lanes until the pipeline is stopped, or one of them fails for good.
fn supervise(spec: &RunnerSpec, board: &Arc<StatusBoard>, stop: &Arc<StopSignal>) {
    if !fence(spec, board, stop) {
        return;
    }
    let failed: Mutex<Option<FailureStatus>> = Mutex::default();
    let fail = |failure: FailureStatus| {
        failed.lock().get_or_insert(failure);
        // The others end at a commit.
        stop.set();
    };
    let run = |lane: Lane| {
        if let Some(failure) = run_lane(spec, lane, board, stop) {
            fail(failure);
        }
    };
    std::thread::scope(|scope| {
        let mut lanes = Lane::all(spec.threads);
        let first = lanes.next();
        for lane in lanes {
            let name = thread_name(&spec.name, lane.number);
            let spawned = std::thread::Builder::new().name(name).spawn_scoped(scope, move || run(lane));
            if let Err(error) = spawned {
                fail(no_thread(&error, spec.clock.now_ms()));
            }
        }
        first.into_iter().for_each(run);
    });
    // Until all of them have ended, the pipeline may commit.
    if let Some(failure) = failed.into_inner() {
        board.set_state(PipelineState::Failed, Some(failure));
    }
}

/// Ends what lanes have left that this pipeline had before: all of them, or those that it has no more if its only one fences its
/// own. False if it is to stop.
fn fence(spec: &RunnerSpec, board: &StatusBoard, stop: &StopSignal) -> bool {
    let own = u32::from(spec.threads == 1);
    let mut backoff = Duration::ZERO;
    while !stop.is_set() {
        if Mutant::LanesLeftOpen.is_on() {
            return true;
        }
        let Err(error) = spec.io.fence(&spec.name, own..MAX_THREADS) else { return true };
        let (pipeline, error) = (&spec.name, DriverError::Io(error));
        backoff = next_backoff(backoff, 0);
        tracing::warn!(pipeline, %error, ?backoff, "what the pipeline left open is not ended yet; it tries again");
        board.set_state(PipelineState::Retrying, Some(error.status(spec.clock.now_ms())));
        sleep_or_stop(stop, backoff);
    }
    false
}

/// Runs one lane until it is stopped; why it ends if it fails for good.
fn run_lane(
    spec: &RunnerSpec,
    lane: Lane,
    board: &Arc<StatusBoard>,
    stop: &Arc<StopSignal>,
) -> Option<FailureStatus> {
    let mut backoff = Duration::ZERO;
    let stop = &StopSignal::of_lane(stop);
    while !stop.is_set() {
        let driver = DriverSpec {
            topology: Arc::clone(&spec.topology),
            lane,
            guarantee: spec.guarantee,
            commit: spec.commit,
            factory: Arc::clone(&spec.factory),
            board: Arc::clone(board),
            clock: Arc::clone(&spec.clock),
            stop: Arc::clone(stop),
            stores: Arc::clone(&spec.stores),
            globals: Arc::clone(&spec.globals),
            cpu: thread_cpu,
        };
        let began_ms = spec.clock.now_ms();
        let mut io = spec.io.open(&spec.topology, lane.number, spec.guarantee, Arc::clone(stop));
        let Err(error) = run_guarded(driver, &mut *io) else { return None };
        let (pipeline, lane_number) = (&spec.name, lane.number);
        // Read-committed consumers of its outputs would wait for the open transaction.
        if let Err(error) = io.abandon() {
            tracing::warn!(pipeline, lane = lane_number, %error, "the open transaction could not be aborted; the next start of the pipeline aborts it");
        }
        let status = error.status(spec.clock.now_ms());
        if !error.is_transient() {
            tracing::error!(pipeline, lane = lane_number, %error, "the pipeline stops");
            return Some(status);
        }
        let most = if error.waits_for_topic() { TOPIC_BACKOFF_MAX } else { RESTART_BACKOFF_MAX };
        backoff = next_backoff(backoff, spec.clock.now_ms().saturating_sub(began_ms)).min(most);
        if error.waits_for_memory() {
            backoff = RESTART_BACKOFF_MAX;
        }
        tracing::warn!(pipeline, lane = lane_number, %error, ?backoff, "the pipeline waits and tries again");
        board.set_lane(lane, PipelineState::Retrying, Some(status));
        sleep_or_stop(stop, backoff);
    }
    None
}

/// What the calling thread has used since, in microseconds.
pub(super) fn thread_cpu() -> CpuUs {
    let start = ThreadTime::now();
    Box::new(move || u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// As the system shows it, which cuts longer names.
fn thread_name(pipeline: &str, lane: u32) -> String {
    let number = if lane == 0 { String::new() } else { lane.to_string() };
    format!("pipe{number}-{pipeline}").chars().take(15).collect()
}

fn no_thread(error: &std::io::Error, at_ms: i64) -> FailureStatus {
    let reason = format!("its thread does not start: {error}");
    FailureStatus { reason, kind: "start", topic: None, partition: None, offset: None, at_ms }
}

/// How long a driver that failed for a passing reason waits before it starts again: doubled each time.
const RESTART_BACKOFF: Duration = Duration::from_millis(500);
/// The longest such wait.
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest wait for a topic to be created: looking for one costs nothing.
const TOPIC_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// How long to wait after a driver that ran for so long: twice as long as before, unless it was well for some time.
fn next_backoff(before: Duration, ran_ms: i64) -> Duration {
    let was_well = u128::try_from(ran_ms).is_ok_and(|ms| ms >= RESTART_BACKOFF_MAX.as_millis());
    if was_well { RESTART_BACKOFF } else { (before * 2).clamp(RESTART_BACKOFF, RESTART_BACKOFF_MAX) }
}

/// A panic here is a bug of ours, and must not take the broker with it: the pipeline stops and says so.
pub(super) fn run_guarded(spec: DriverSpec, io: &mut dyn PipelineIo) -> Result<(), DriverError> {
    let run = std::panic::AssertUnwindSafe(|| Driver::new(spec, io).run());
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(DriverError::Bug(text.unwrap_or_else(|| "no message".to_owned())))
    })
}

/// Waits without a runtime of its own: a pipeline's thread is no worker of the broker's.
fn sleep_or_stop(stop: &StopSignal, time: Duration) {
    const SLICE: Duration = Duration::from_millis(50);
    let mut left = time;
    while !stop.is_set() && !left.is_zero() {
        let slice = left.min(SLICE);
        std::thread::sleep(slice);
        left -= slice;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_was_well_starts_again_soon() {
        let mut waited = Duration::ZERO;
        let mut check = |ran_ms, expect_ms| {
            waited = next_backoff(waited, ran_ms);
            assert_eq!(waited, Duration::from_millis(expect_ms), "after {ran_ms} ms");
        };
        check(0, 500);
        check(10, 1_000);
        check(29_999, 2_000);
        check(30_000, 500);
        for expect_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            check(5, expect_ms);
        }
        check(-1, 30_000);
    }
}
