//! Asking for what a pipeline keeps while it runs. An answer comes from one view of the stores of each task that was asked,
//! and says which offsets of their inputs it reflects: of what is committed, and exactly that.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use pelton_streams::Topology;
use pelton_streams::operator::scan::Wanted;
use pelton_streams::state::{StateError, StateView, StoreKind};
use pelton_streams::state_tables::{Holds, StatePage, StateRow, StateTable, WindowRows};
use pelton_streams::task::TaskId;
use serde::Serialize;

use super::Supervisor;
use crate::readers::Offsets;
use crate::status::{PipelineState, StatusBoard};

/// Why what a pipeline keeps gives no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StateAskError {
    #[error("no pipeline keeps a table `{0}`")]
    Unknown(String),
    #[error("`{0}` is what a node works with, and has no rows that could be asked for")]
    Internal(String),
    #[error("pipeline `{pipeline}` is {}, and what it keeps can be read while it runs{}", .state.name(),
        .reason.as_ref().map_or(String::new(), |reason| format!(": {reason}")))]
    NotRunning { pipeline: String, state: PipelineState, reason: Option<String> },
    #[error(
        "table `{table}` is being restored: {next} of {end} records of the changelog of partition {partition} are done"
    )]
    Restoring { table: String, partition: i32, next: i64, end: i64 },
    #[error(
        "table `{0}` has a result for each window of a key: ask for the windows of a key, or for a range"
    )]
    HasWindows(String),
    #[error(
        "table `{0}` has the open windows of a key as one entry, so single changes cannot be followed: follow a table of its \
         results, or read their topic"
    )]
    NotFollowed(String),
    #[error("table `{0}` has no windows")]
    NoWindows(String),
    #[error(
        "table `{table}` reflects topic {topic}, partition {partition} up to offset {offset} and not {wanted} yet"
    )]
    Behind { table: String, topic: String, partition: i32, offset: i64, wanted: i64 },
    #[error("table `{table}` is made of {}; an offset to wait for names one of them and a partition, as TOPIC:PARTITION:OFFSET", .topics.join(", "))]
    WhichOffset { table: String, topics: Vec<String> },
    #[error("the store of table `{table}` cannot be read: {error}")]
    Store { table: String, error: StateError },
}

/// An offset that an answer must reflect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedOffset {
    /// None: the only topic that there is.
    pub topic: Option<String>,
    /// None: that of the key that is asked for, or the only one.
    pub partition: Option<i32>,
    pub offset: i64,
}

/// A look-up by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateFound {
    pub row: Option<StateRow>,
    /// The last offsets that the answer reflects.
    pub offsets: Offsets,
}

/// Rows in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRows {
    pub page: StatePage,
    /// The last offsets that they reflect.
    pub offsets: Offsets,
}

/// Windows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowsAnswer {
    pub windows: WindowRows,
    /// The last offsets that they reflect.
    pub offsets: Offsets,
}

/// A table that a pipeline keeps, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateTableDescription {
    /// `PIPELINE/STORE`.
    pub name: String,
    /// What the manifest calls it besides.
    pub table: Option<String>,
    pub pipeline: String,
    /// `rows`, `results` or `windows`.
    pub holds: &'static str,
    /// The topic that has its changes.
    pub topic: String,
    pub scope: &'static str,
    /// Where its rows are.
    pub store: StoreKind,
    /// `live` if every partition can be read, `restoring`, or `waiting`.
    pub state: &'static str,
    /// What the pipeline is doing.
    pub pipeline_state: PipelineState,
    pub stores: Vec<StateTableStore>,
}

/// The part of a table that one task keeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateTableStore {
    /// The partition.
    pub store: String,
    pub state: &'static str,
    pub bytes: u64,
    /// Entries, about.
    pub keys: u64,
    /// What it is made of.
    pub partitions: Vec<StateTablePartition>,
}

/// How far a store reflects a partition that its task reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StateTablePartition {
    pub topic: String,
    pub partition: i32,
    /// The last offset that it reflects; -1 for none.
    pub offset: i64,
    /// The last offset that could be read when the pipeline looked last.
    pub end: i64,
    pub behind: i64,
}

/// A store of a pipeline, all partitions together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    pub pipeline: String,
    pub store: String,
    pub bytes: u64,
    /// About.
    pub keys: u64,
    /// Records of its changelog that are read before its tasks go on.
    pub to_restore: u64,
}

/// A table of a pipeline that was found.
pub(super) struct Asked {
    pipeline: String,
    /// As it was asked for.
    pub(super) name: String,
    pub(super) topology: Arc<Topology>,
    pub(super) board: Arc<StatusBoard>,
    pub(super) table: StateTable,
}

impl Asked {
    pub(super) fn task(&self, partition: i32) -> TaskId {
        TaskId { sub_topology: self.table.sub_topology, partition }
    }

    /// Has a task's stores read.
    pub(super) fn read<T>(
        &self,
        partition: i32,
        offsets: &mut Offsets,
        read: impl FnOnce(&dyn StateView) -> Result<T, StateError>,
    ) -> Result<T, StateAskError> {
        let found = self.board.readers().read(self.task(partition), |view, inputs| {
            let found = read(view)?;
            for (topic, partitions) in inputs {
                let last = partitions.iter().map(|(partition, next)| (*partition, next - 1));
                offsets.entry(topic.clone()).or_default().extend(last);
            }
            Ok(found)
        });
        let found = found.ok_or_else(|| self.not_open(partition))?;
        found.map_err(|error| StateAskError::Store { table: self.name.clone(), error })
    }

    /// Why a task's stores are not open.
    pub(super) fn not_open(&self, partition: i32) -> StateAskError {
        let status = self.board.snapshot();
        if !matches!(status.state, PipelineState::Starting | PipelineState::Running) {
            let (pipeline, state) = (self.pipeline.clone(), status.state);
            let reason = status.failure.map(|failure| failure.reason);
            return StateAskError::NotRunning { pipeline, state, reason };
        }
        let is_this = |store: &&crate::status::StoreStatus| {
            store.store == self.table.store && store.partition == partition
        };
        let (next, end) = status.stores.iter().find(is_this).map_or((0, 0), |store| (store.next, store.end));
        StateAskError::Restoring { table: self.name.clone(), partition, next, end }
    }
}

impl Supervisor {
    /// Whether a pipeline keeps a table of that name: `PIPELINE/STORE`, or what a manifest calls it.
    pub fn has_state_table(&self, name: &str) -> bool {
        self.asked(name).is_ok()
    }

    pub(super) fn asked(&self, name: &str) -> Result<Asked, StateAskError> {
        let inner = self.inner.lock();
        let (of, store) = name.split_once('/').map_or((None, None), |(of, store)| (Some(of), Some(store)));
        let is_asked = |table: &StateTable| match store {
            Some(store) => table.store == store,
            None => table.table.as_deref() == Some(name),
        };
        for (pipeline, runner) in inner.runners.iter().filter(|(name, _)| of.is_none_or(|of| of == *name)) {
            let Some(topology) = runner.topology() else { continue };
            let Some(table) = topology.state_tables().into_iter().find(is_asked) else { continue };
            if table.holds == Holds::Internal {
                return Err(StateAskError::Internal(name.to_owned()));
            }
            let (topology, board) = (Arc::clone(topology), Arc::clone(runner.board()));
            return Ok(Asked { pipeline: pipeline.clone(), name: name.to_owned(), topology, board, table });
        }
        Err(StateAskError::Unknown(name.to_owned()))
    }

    /// The partitions whose tasks may have a key, or all of them.
    pub(super) fn partitions_asked(&self, asked: &Asked, key: Option<&[u8]>) -> Vec<i32> {
        let (partitions, _) = self.partitions_of(&asked.topology, asked.table.sub_topology);
        let one = key.and_then(|key| asked.table.partition_of(key, partitions));
        one.map_or_else(|| (0..i32::try_from(partitions).unwrap_or(i32::MAX)).collect(), |one| vec![one])
    }

    /// The row or result of a key. Blocking.
    ///
    /// # Errors
    /// The table cannot be read, or there is none.
    pub fn state_get(&self, name: &str, key: &[u8]) -> Result<StateFound, StateAskError> {
        let asked = self.asked(name)?;
        if matches!(asked.table.holds, Holds::Windows { .. }) {
            return Err(StateAskError::HasWindows(name.to_owned()));
        }
        let mut found = StateFound { row: None, offsets: Offsets::new() };
        for partition in self.partitions_asked(&asked, Some(key)) {
            let row = asked.read(partition, &mut found.offsets, |view| asked.table.get(view, key))?;
            found.row = later(found.row, row);
        }
        Ok(found)
    }

    /// About `limit` windows of a key that begin within a time. Blocking.
    ///
    /// # Errors
    /// As [`Supervisor::state_get`].
    pub fn state_windows(
        &self,
        name: &str,
        key: &[u8],
        starts: RangeInclusive<i64>,
        limit: usize,
    ) -> Result<WindowsAnswer, StateAskError> {
        let asked = self.asked(name)?;
        if !matches!(asked.table.holds, Holds::Windows { .. }) {
            return Err(StateAskError::NoWindows(name.to_owned()));
        }
        let (mut offsets, mut parts) = (Offsets::new(), Vec::new());
        for partition in self.partitions_asked(&asked, Some(key)) {
            let windows = |view: &dyn StateView| asked.table.windows(view, key, starts.clone(), limit);
            parts.push(asked.read(partition, &mut offsets, windows)?);
        }
        Ok(WindowsAnswer { windows: WindowRows::together(parts, limit), offsets })
    }

    /// At most `limit` rows of a range. Blocking.
    ///
    /// # Errors
    /// As [`Supervisor::state_get`].
    pub fn state_scan(&self, name: &str, wanted: &Wanted, limit: usize) -> Result<StateRows, StateAskError> {
        let asked = self.asked(name)?;
        let has_windows = matches!(asked.table.holds, Holds::Windows { .. });
        if !has_windows && wanted.starts != Wanted::default().starts {
            return Err(StateAskError::NoWindows(name.to_owned()));
        }
        let partitions = self.partitions_asked(&asked, None);
        let mut offsets = Offsets::new();
        let mut parts = Vec::with_capacity(partitions.len());
        for partition in &partitions {
            let part = |view: &dyn StateView| asked.table.part(view, wanted, limit, partitions.len());
            parts.push(asked.read(*partition, &mut offsets, part)?);
        }
        let page = asked.table.page(parts, limit);
        let page = page.map_err(|error| StateAskError::Store { table: name.to_owned(), error })?;
        Ok(StateRows { page, offsets })
    }

    /// Every store of every pipeline that runs, or would. Blocking.
    pub fn store_metrics(&self) -> Vec<StoreMetrics> {
        let mut stores = Vec::new();
        for (pipeline, runner) in &self.inner.lock().runners {
            let tables = runner.topology().map(|topology| topology.state_tables()).unwrap_or_default();
            let board = runner.board();
            stores.extend(tables.into_iter().map(|table| (pipeline.clone(), Arc::clone(board), table)));
        }
        let metrics = |(pipeline, board, table): (String, Arc<StatusBoard>, StateTable)| {
            let mut metrics = StoreMetrics { pipeline, store: table.store, ..StoreMetrics::default() };
            for size in board.readers().sizes(table.sub_topology, table.index) {
                (metrics.bytes, metrics.keys) = (metrics.bytes + size.bytes, metrics.keys + size.keys);
            }
            let status = board.snapshot();
            let restored =
                status.stores.iter().filter(|store| store.store == metrics.store && store.restoring);
            metrics.to_restore = restored.map(|store| (store.end - store.next).max(0).unsigned_abs()).sum();
            metrics
        };
        stores.into_iter().map(metrics).collect()
    }

    /// Every table that a pipeline keeps, by name. Blocking.
    pub fn state_tables(&self) -> Vec<StateTableDescription> {
        let mut names = Vec::new();
        for (pipeline, runner) in &self.inner.lock().runners {
            let tables = runner.topology().map(|topology| topology.state_tables()).unwrap_or_default();
            let tables = tables.into_iter().filter(|table| table.holds != Holds::Internal);
            names.extend(tables.map(|table| format!("{pipeline}/{}", table.store)));
        }
        // What was taken away meanwhile is left out.
        names.iter().filter_map(|name| self.describe_state_table(name).ok()).collect()
    }

    /// One of them. Blocking.
    ///
    /// # Errors
    /// There is none.
    pub fn describe_state_table(&self, name: &str) -> Result<StateTableDescription, StateAskError> {
        let asked = self.asked(name)?;
        let status = asked.board.snapshot();
        let graph = asked.topology.sub_topologies[asked.table.sub_topology].graph.as_ref();
        let used = graph.map(|graph| &graph.stores[asked.table.index]);
        let changelog = used.map(|used| used.changelog);
        let stores: Vec<StateTableStore> = self
            .partitions_asked(&asked, None)
            .into_iter()
            .map(|partition| store_of(&asked, &status, partition))
            .collect();
        let any = |state| stores.iter().any(|store| store.state == state);
        let state = if stores.is_empty() || any(WAITING) {
            WAITING
        } else if any(RESTORING) {
            RESTORING
        } else {
            LIVE
        };
        Ok(StateTableDescription {
            name: format!("{}/{}", asked.pipeline, asked.table.store),
            table: asked.table.table.clone(),
            pipeline: asked.pipeline.clone(),
            holds: asked.table.holds.name(),
            topic: changelog.map_or_else(String::new, |output| asked.topology.outputs[output].topic.clone()),
            scope: "partitioned",
            store: used.map(|used| used.spec.kind).unwrap_or_default(),
            state,
            pipeline_state: status.state,
            stores,
        })
    }
}

const LIVE: &str = "live";
const RESTORING: &str = "restoring";
const WAITING: &str = "waiting";

fn store_of(asked: &Asked, status: &crate::status::PipelineStatus, partition: i32) -> StateTableStore {
    let mut offsets = Offsets::new();
    let is_open = asked.read(partition, &mut offsets, |_| Ok(())).is_ok();
    let restoring = status
        .stores
        .iter()
        .any(|store| store.store == asked.table.store && store.partition == partition && store.restoring);
    let state = match (is_open, restoring) {
        (true, _) => LIVE,
        (false, true) => RESTORING,
        (false, false) => WAITING,
    };
    let size = asked.board.readers().size(asked.task(partition), asked.table.index).unwrap_or_default();
    let ends: BTreeMap<(&str, i32), i64> =
        status.tasks.iter().map(|task| ((task.topic.as_str(), task.partition), task.end - 1)).collect();
    let partitions = offsets.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|(partition, offset)| {
            let end = ends.get(&(topic.as_str(), *partition)).copied().unwrap_or(*offset).max(*offset);
            let (topic, partition, offset) = (topic.clone(), *partition, *offset);
            StateTablePartition { topic, partition, offset, end, behind: end - offset }
        })
    });
    let partitions = partitions.collect();
    StateTableStore { store: partition.to_string(), state, bytes: size.bytes, keys: size.keys, partitions }
}

/// A key that two tasks have (its topic has grown, or its producers placed it differently) has the later row.
fn later(a: Option<StateRow>, b: Option<StateRow>) -> Option<StateRow> {
    match (a, b) {
        (Some(a), Some(b)) if a.timestamp > b.timestamp => Some(a),
        (a, None) => a,
        (_, b) => b,
    }
}
