//! What can be known of a pipeline from outside: written by its driver, read by HTTP and metrics.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use pelton_streams::log::LogLevel;
use pelton_streams::meter::{CallCounts, CallMeter};
use pelton_streams::operator::Counts;
use pelton_streams::task::{Calls, StepCounts};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::Clock;
use crate::cpu::CpuUse;
use crate::lanes::Lane;
use crate::limits::PipelineLimits;
use crate::logs::{DEFAULT_LINES_PER_SECOND, PipelineLog, Said};
use crate::readers::StateReaders;

mod instance;

pub(crate) use instance::InstanceLog;

/// What a pipeline is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineState {
    /// Loading plugins, finding positions.
    Starting,
    /// Processing, or waiting for records.
    Running,
    /// Waiting to try again after a failure that may pass.
    Retrying,
    /// Stopped by a user.
    Paused,
    /// Stopped by a failure; `failure` says which. `resume` tries again at the same record.
    Failed,
}

impl PipelineState {
    /// Every state, for metrics.
    pub const ALL: [PipelineState; 5] = [
        PipelineState::Starting,
        PipelineState::Running,
        PipelineState::Retrying,
        PipelineState::Paused,
        PipelineState::Failed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            PipelineState::Starting => "starting",
            PipelineState::Running => "running",
            PipelineState::Retrying => "retrying",
            PipelineState::Paused => "paused",
            PipelineState::Failed => "failed",
        }
    }
}

/// One task's progress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TaskStatus {
    pub topic: String,
    pub partition: i32,
    /// The lane that runs it.
    pub lane: u32,
    /// The next offset to be processed after a restart now.
    pub committed: i64,
    /// The end of the partition when it was last read.
    pub end: i64,
    /// Records between the two.
    pub lag: i64,
    /// How its records are given to a plugin that acts on the outside, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryStatus>,
}

/// What a plugin that acts on the outside has of a partition. Records that were read and are not committed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryStatus {
    pub node: String,
    /// Not done.
    pub unfinished: u64,
    /// Those of them that are given now.
    pub given: u64,
    /// Those of them that were not done when they were given, and wait to be given again.
    pub retrying: u64,
    /// Done, behind one that is not.
    pub ahead: u64,
}

/// One store's progress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreStatus {
    pub store: String,
    pub partition: i32,
    /// The topic that has its changes.
    pub changelog: String,
    /// It is being brought up to the end of its changelog; the task waits.
    pub restoring: bool,
    /// Changes that were read from the changelog when the task began.
    pub restored: u64,
    /// How far along the changelog it was then, and what had to be reached.
    pub next: i64,
    pub end: i64,
}

/// What a built-in operator has not let through, or has met. Counted as [`Totals`] are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DroppedStatus {
    pub null_key: u64,
    pub null_value: u64,
    pub null_field: u64,
    pub no_time: u64,
    /// Records, and windows that were closed when one came.
    pub late: u64,
    pub late_windows: u64,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub unmatched: u64,
    /// Answers to what a foreign-key join had asked for, and did not want any more when they came.
    pub stale: u64,
}

impl DroppedStatus {
    /// Why, and how many, for metrics.
    pub fn by_reason(&self) -> [(&'static str, u64); 10] {
        [
            ("null-key", self.null_key),
            ("null-value", self.null_value),
            ("null-field", self.null_field),
            ("no-time", self.no_time),
            ("late", self.late),
            ("late-windows", self.late_windows),
            ("duplicate", self.duplicates),
            ("out-of-order", self.out_of_order),
            ("unmatched", self.unmatched),
            ("stale", self.stale),
        ]
    }

    fn merge(&mut self, other: DroppedStatus) {
        let DroppedStatus {
            null_key,
            null_value,
            null_field,
            no_time,
            late,
            late_windows,
            duplicates,
            out_of_order,
            unmatched,
            stale,
        } = other;
        self.null_key += null_key;
        self.null_value += null_value;
        self.null_field += null_field;
        self.no_time += no_time;
        self.late += late;
        self.late_windows += late_windows;
        self.duplicates += duplicates;
        self.out_of_order += out_of_order;
        self.unmatched += unmatched;
        self.stale += stale;
    }

    pub(super) fn add(&mut self, counts: Counts) {
        let Counts {
            null_key,
            null_value,
            no_time,
            late,
            late_windows,
            duplicates,
            out_of_order,
            unmatched,
            stale,
            null_field,
        } = counts;
        self.null_key += null_key;
        self.null_value += null_value;
        self.null_field += null_field;
        self.no_time += no_time;
        self.late += late;
        self.late_windows += late_windows;
        self.duplicates += duplicates;
        self.out_of_order += out_of_order;
        self.unmatched += unmatched;
        self.stale += stale;
    }
}

/// What was counted since the server started, or since the pipeline was deployed if that was later: pauses, other revisions and
/// failures begin nothing anew. Records are counted once they are committed, so that what is done again counts once; calls
/// count when they are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub records_in: u64,
    pub records_out: u64,
    pub bytes_out: u64,
    pub skipped: u64,
    pub dead_lettered: u64,
    /// Dropped, because the dead-letter topic did not take them.
    pub undeliverable: u64,
    pub calls: u64,
    pub failed_calls: u64,
    /// Records that were to be given again to a plugin that acts on the outside, each time.
    pub retries: u64,
    pub commits: u64,
}

impl Totals {
    pub(super) fn add(&mut self, counts: &StepCounts) {
        self.records_in += counts.records_in;
        self.records_out += counts.records_out;
        self.bytes_out += counts.bytes_out;
        self.skipped += counts.skipped;
        self.dead_lettered += counts.dead_lettered;
        self.undeliverable += counts.undeliverable;
    }

    pub(super) fn add_calls(&mut self, calls: Calls) {
        self.calls += calls.made;
        self.failed_calls += calls.failed;
    }

    /// Both together.
    fn plus(self, other: Totals) -> Totals {
        Totals {
            records_in: self.records_in + other.records_in,
            records_out: self.records_out + other.records_out,
            bytes_out: self.bytes_out + other.bytes_out,
            skipped: self.skipped + other.skipped,
            dead_lettered: self.dead_lettered + other.dead_lettered,
            undeliverable: self.undeliverable + other.undeliverable,
            calls: self.calls + other.calls,
            failed_calls: self.failed_calls + other.failed_calls,
            retries: self.retries + other.retries,
            commits: self.commits + other.commits,
        }
    }
}

/// What a lane has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) totals: Totals,
    /// By built-in node.
    pub(super) dropped: BTreeMap<String, DroppedStatus>,
}

impl Counted {
    fn add(&mut self, other: &Counted) {
        self.totals = self.totals.plus(other.totals);
        for (node, dropped) in &other.dropped {
            self.dropped.entry(node.clone()).or_default().merge(*dropped);
        }
    }
}

/// What one lane of a pipeline is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    pub lane: u32,
    pub state: PipelineState,
    pub failure: Option<FailureStatus>,
}

/// Why a pipeline stopped or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureStatus {
    /// In a sentence, with the record that it happened at.
    pub reason: String,
    /// `trapped`, `deadline`, …, or `io`.
    pub kind: &'static str,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub at_ms: i64,
}

/// A copy of all that is known.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineStatus {
    /// The least that any of its lanes is doing.
    pub state: PipelineState,
    /// Its lanes, if it has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneStatus>,
    pub tasks: Vec<TaskStatus>,
    pub totals: Totals,
    /// What tasks keep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<StoreStatus>,
    /// By built-in node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, DroppedStatus>,
    /// Calls of plugins since it started, by node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, CallCounts>,
    /// Lines that were not kept since it started, because there were too many a second.
    #[serde(skip_serializing_if = "is_zero")]
    pub log_lines_dropped: u64,
    /// CPU that its drivers have used since it started, in milliseconds, and how long they have rested because of
    /// `limits.cpu_percent`.
    pub cpu_ms: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub rested_ms: u64,
    pub failure: Option<FailureStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Shared between a driver and those who ask.
pub struct StatusBoard {
    inner: Mutex<Inner>,
    /// Tells of a change of the state. Set under the lock of `inner`.
    state: watch::Sender<PipelineState>,
    /// The stores of the driver's tasks.
    readers: Arc<StateReaders>,
    log: PipelineLog,
    cpu: CpuUse,
    /// By node.
    meters: Mutex<BTreeMap<String, Arc<CallMeter>>>,
    clock: Arc<dyn Clock>,
}

struct Inner {
    state: PipelineState,
    tasks: BTreeMap<(String, i32), TaskStatus>,
    stores: BTreeMap<(String, i32), StoreStatus>,
    failure: Option<FailureStatus>,
    lanes: Vec<LaneStatus>,
    /// By lane.
    counted: Vec<Counted>,
    /// What the pipeline had counted before.
    before: Counted,
}

impl Inner {
    /// What a pipeline is doing, by its lanes: the least that any of them is, and why if that is a bad one.
    fn aggregate(&mut self) {
        let first = |state| self.lanes.iter().find(|lane| lane.state == state);
        let found = first(PipelineState::Retrying).or_else(|| first(PipelineState::Starting));
        let found = found.or_else(|| self.lanes.first());
        if let Some(LaneStatus { state, failure, .. }) = found {
            (self.state, self.failure) = (*state, failure.clone());
        }
    }

    fn counted(&self) -> Counted {
        let mut all = self.before.clone();
        self.counted.iter().for_each(|counted| all.add(counted));
        all
    }
}

impl StatusBoard {
    /// Of something with one lane whose lines are not kept.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<StatusBoard> {
        StatusBoard::of_lanes(clock, 1, None, PipelineLog::passing())
    }

    /// Of a pipeline with so many lanes, which goes on counting where it was `before`.
    pub(super) fn of_lanes(
        clock: Arc<dyn Clock>,
        lanes: u32,
        before: Option<&StatusBoard>,
        log: PipelineLog,
    ) -> Arc<StatusBoard> {
        let starting = |lane| LaneStatus { lane, state: PipelineState::Starting, failure: None };
        let inner = Inner {
            state: PipelineState::Starting,
            tasks: BTreeMap::new(),
            stores: BTreeMap::new(),
            failure: None,
            lanes: (0..lanes).map(starting).collect(),
            counted: (0..lanes).map(|_| Counted::default()).collect(),
            before: before.map(|board| board.inner.lock().counted()).unwrap_or_default(),
        };
        let state = watch::Sender::new(inner.state);
        Arc::new(StatusBoard {
            inner: Mutex::new(inner),
            state,
            readers: Arc::default(),
            log,
            cpu: CpuUse::default(),
            meters: Mutex::default(),
            clock,
        })
    }

    /// The stores of the driver's tasks, for who reads them.
    pub fn readers(&self) -> &Arc<StateReaders> {
        &self.readers
    }

    pub fn snapshot(&self) -> PipelineStatus {
        let inner = self.inner.lock();
        let (used, rested) = self.cpu.so_far();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let Counted { totals, dropped } = inner.counted();
        PipelineStatus {
            state: inner.state,
            lanes: if inner.lanes.len() > 1 { inner.lanes.clone() } else { Vec::new() },
            tasks: inner.tasks.values().cloned().collect(),
            totals,
            stores: inner.stores.values().cloned().collect(),
            dropped,
            calls: self.meters.lock().iter().map(|(node, meter)| (node.clone(), meter.counts())).collect(),
            log_lines_dropped: self.log.all_refused(),
            cpu_ms: ms(used),
            rested_ms: ms(rested),
            failure: inner.failure.clone(),
        }
    }

    pub fn state(&self) -> PipelineState {
        self.inner.lock().state
    }

    /// The state of the pipeline as a whole, and why if it is a bad one. A running pipeline has no failure.
    pub fn set_state(&self, state: PipelineState, failure: Option<FailureStatus>) {
        let mut inner = self.inner.lock();
        self.note(failure.as_ref());
        for lane in &mut inner.lanes {
            (lane.state, lane.failure) = (state, None);
        }
        inner.state = state;
        inner.failure = failure;
        self.state.send_replace(state);
    }

    /// The state of one lane.
    pub(super) fn set_lane(&self, lane: Lane, state: PipelineState, failure: Option<FailureStatus>) {
        let mut inner = self.inner.lock();
        self.note(failure.as_ref());
        let Some(status) = inner.lanes.get_mut(lane.number as usize) else { return };
        (status.state, status.failure) = (state, failure);
        inner.aggregate();
        self.state.send_replace(inner.state);
    }

    /// Why a lane does not go on, if it does not.
    pub(super) fn lane_failure(&self, lane: Lane) -> Option<FailureStatus> {
        self.inner.lock().lanes.get(lane.number as usize)?.failure.clone()
    }

    fn note(&self, failure: Option<&FailureStatus>) {
        let Some(failure) = failure else { return };
        let (node, none) = (Arc::from("pelton"), Arc::from(""));
        let topic = failure.topic.as_deref().map_or_else(|| Arc::clone(&none), Arc::from);
        let (partition, offset) = (failure.partition.unwrap_or(-1), failure.offset.unwrap_or(-1));
        let level = LogLevel::Error;
        let said = Said { node: &node, plugin: &none, topic: &topic, partition, offset, level };
        self.log.put(self.clock.now_ms(), &said, &failure.reason);
    }

    /// What counts the calls of a node's plugin.
    pub(crate) fn meter(&self, node: &str) -> Arc<CallMeter> {
        Arc::clone(self.meters.lock().entry(node.to_owned()).or_default())
    }

    /// What its drivers use, and may use.
    pub(crate) fn cpu(&self) -> &CpuUse {
        &self.cpu
    }

    /// What an operator says that holds while it runs.
    pub(crate) fn limit(&self, limits: &PipelineLimits) {
        self.cpu.set_percent(limits.cpu_percent);
        self.log.set_rate(limits.log_lines.unwrap_or(DEFAULT_LINES_PER_SECOND));
    }

    pub(crate) fn log(&self) -> &PipelineLog {
        &self.log
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The state, once the pipeline has started, or after `patience`.
    pub async fn started(&self, patience: Duration) -> PipelineState {
        let mut changes = self.state.subscribe();
        let started = changes.wait_for(|state| *state != PipelineState::Starting);
        // The sender is this board's own, so only the time can be over.
        let _ = tokio::time::timeout(patience, started).await;
        self.state()
    }

    pub(super) fn set_task(&self, task: TaskStatus) {
        self.inner.lock().tasks.insert((task.topic.clone(), task.partition), task);
    }

    /// A topic is not read any more by a lane.
    pub(super) fn remove_tasks(&self, lane: Lane, topic: &str) {
        self.inner.lock().tasks.retain(|(of, _), task| of != topic || task.lane != lane.number);
    }

    pub(super) fn set_store(&self, store: StoreStatus) {
        self.inner.lock().stores.insert((store.store.clone(), store.partition), store);
    }

    /// What a lane has counted by now.
    pub(super) fn set_counted(&self, lane: Lane, counted: &Counted) {
        if let Some(known) = self.inner.lock().counted.get_mut(lane.number as usize) {
            known.clone_from(counted);
        }
    }

    /// What a lane had counted when its driver ended: the next one goes on with it.
    pub(super) fn counted(&self, lane: Lane) -> Counted {
        self.inner.lock().counted.get(lane.number as usize).cloned().unwrap_or_default()
    }
}
