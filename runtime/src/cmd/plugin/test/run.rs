//! Gives a case to a plugin as the broker does: the component in wasmtime, called by the task of a pipeline that has it as its only
//! node, over stores in memory. What comes out is kept; nothing is judged here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pelton_streams::batch::{Headers, RecordIn};
use pelton_streams::limits::{LimitsSpec, MAX_DEADLINE_MS};
use pelton_streams::log::{LogLevel, LogSink};
use pelton_streams::manifest::stores::StoreGrant;
use pelton_streams::manifest::{NodeSpec, SinkPartitioner, SinkSpec};
use pelton_streams::node_state::whole::{self, BeginError, Entry, SetTimer};
use pelton_streams::operator::{NoTables, TimerDomain};
use pelton_streams::state::{MemoryState, StateError, StateLimits};
use pelton_streams::task::{
    NO_RECORD, Outside, Plugins, RecordError, StepError, StepOutput, Task, TaskFailure, TaskId, TaskInput,
};
use pelton_streams::topology::TopologyError;
use pelton_streams::world::Place;
use pelton_streams::{
    Emissions, InstanceSpec, InstantiateError, Manifest, OwnedBatch, PluginError, PluginFactory, PluginInfo,
    PluginLimits, Refused, Sink, Topology,
};

use super::fixture::{Case, Failed, Given, Step, TimerOn, entry_row, items, timer_row};
use super::fold;
use super::row::{Cell, Content, Header, Row};

/// The node, and the component's name in the pipeline.
const NODE: &str = "plugin";
/// Rounds of timers on the clock within one step: those that are due can set others that are.
const MAX_ROUNDS: usize = 10_000;

/// What came of a step.
#[derive(Debug, Default)]
pub(super) struct Came {
    /// What was emitted: that of the first output, then that of the others.
    pub(super) output: Vec<Row>,
    /// Of a partitioner, for each record that it could place.
    pub(super) placed: Vec<u32>,
    pub(super) failures: Vec<Row>,
    /// All stores of the step's partition afterwards.
    pub(super) stores: BTreeMap<String, Vec<Row>>,
    pub(super) timers: Vec<Row>,
    /// Of an aggregator, the value behind each record, or of each two groups that have met.
    pub(super) values: Vec<Row>,
    /// Lines of its log.
    pub(super) log: Vec<String>,
    /// The task has stopped: nothing comes after it.
    pub(super) stopped: bool,
    /// What becomes `output` once the step is over, with the index of the output.
    pub(super) emitted: Vec<(usize, Row)>,
}

impl Came {
    pub(super) fn fails(&mut self, failed: &Failed) {
        self.stopped |= failed.stops;
        self.failures.push(failed.came());
    }
}

/// What came of a case.
#[derive(Debug)]
pub(super) enum CaseCame {
    /// The plugin, or what its plugin.toml says, refuses the settings.
    Refused(String),
    /// Of each step up to the one that stopped.
    Steps(Vec<Came>),
}

/// A case that cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{0}")]
    Link(#[from] TopologyError),
    #[error("{0}")]
    Begin(#[from] BeginError),
    #[error("{0}")]
    Start(InstantiateError),
    #[error("the records of a step do not fit into a batch")]
    TooLarge,
    #[error("what it keeps cannot be read: {0}")]
    State(#[from] StateError),
}

/// A component that was loaded.
pub(super) struct Component<'e> {
    pub(super) engine: &'e dyn PluginFactory,
    pub(super) info: PluginInfo,
}

/// The lines of the plugin since they were asked for last.
#[derive(Default)]
pub(super) struct Lines(Mutex<Vec<String>>);

impl Lines {
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LogSink for Lines {
    fn write(&self, level: LogLevel, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{level}: {text}"));
    }
}

impl Component<'_> {
    /// Runs a case with a new instance.
    ///
    /// # Errors
    /// It cannot be run.
    pub(super) fn run(
        &self,
        case: &Case,
        stores: &BTreeMap<String, StoreGrant>,
    ) -> Result<CaseCame, RunError> {
        let lines = Arc::new(Lines::default());
        let ran = match self.info.world.spec().place {
            Place::Aggregate => fold::run(self, case, &lines),
            Place::Node | Place::Topic | Place::End | Place::Upgrade => self.run_task(case, stores, &lines),
        };
        match ran {
            Err(RunError::Link(TopologyError::Config { error, .. })) => {
                Ok(CaseCame::Refused(error.to_string()))
            }
            Err(RunError::Start(InstantiateError::Refused(text))) => Ok(CaseCame::Refused(text)),
            Err(RunError::Start(InstantiateError::Config(error))) => Ok(CaseCame::Refused(error.to_string())),
            other => other,
        }
    }

    /// How an instance runs. A test says nothing about how fast the machine is: the deadline is the longest that there is.
    pub(super) fn spec(
        &self,
        config: Vec<(String, String)>,
        limits: PluginLimits,
        lines: &Arc<Lines>,
    ) -> InstanceSpec {
        let limits = PluginLimits { deadline_ms: MAX_DEADLINE_MS, ..limits };
        InstanceSpec { config, limits, log: Arc::clone(lines) as Arc<dyn LogSink> }
    }

    fn run_task(
        &self,
        case: &Case,
        stores: &BTreeMap<String, StoreGrant>,
        lines: &Arc<Lines>,
    ) -> Result<CaseCame, RunError> {
        let mut rig = Rig::new(self, case, stores, lines)?;
        let mut all: Vec<Came> = Vec::with_capacity(case.steps.len());
        for step in &case.steps {
            let mut came = rig.step(step, &case.topic)?;
            came.log = lines.take();
            let stopped = came.stopped;
            all.push(came);
            if stopped {
                break;
            }
        }
        Ok(CaseCame::Steps(all))
    }
}

/// A pipeline of the plugin alone: a node with a sink for each of its outputs, or a sink that it places the records of. What cannot
/// be processed is left out, and told.
fn manifest(info: &PluginInfo, case: &Case, stores: &BTreeMap<String, StoreGrant>) -> Manifest {
    let is_partitioner = info.world.spec().place == Place::Topic;
    let node = "[[node]]\nid = 'plugin'\nfrom = 'in'\nplugin = 'plugin'\non_error = { policy = 'skip' }\n";
    let sink = "[[sink]]\nfrom = 'plugin'\ntopic = 'pelton-test-0'\n";
    let placed = "[[sink]]\nfrom = 'in'\ntopic = 'pelton-test-0'\npartitioner = 'plugin'\non_error = { policy = 'skip' }\n";
    let rest = if is_partitioner { placed.to_owned() } else { format!("{node}{sink}") };
    let text = format!("name = 'test'\n[[source]]\nid = 'in'\ntopic = 'in'\n{rest}");
    let mut manifest = Manifest::parse(&text).expect("this is a manifest");
    let config: BTreeMap<String, toml::Value> = case.config.clone().into_iter().collect();
    manifest.sources.iter_mut().for_each(|source| source.topic.clone_from(&case.topic));
    for NodeSpec { config: own, stores: given, .. } in &mut manifest.nodes {
        (*own, *given) = (config.clone(), stores.clone());
    }
    for SinkSpec { partitioner, .. } in &mut manifest.sinks {
        if let SinkPartitioner::Plugin(plugin) = partitioner {
            plugin.config.clone_from(&config);
        }
    }
    if let Some(first) = manifest.sinks.first().filter(|_| !is_partitioner).cloned() {
        let more = |(i, name): (usize, &String)| {
            let (from, topic) = (format!("{NODE}:{name}"), format!("pelton-test-{i}"));
            SinkSpec { from, topic, ..first.clone() }
        };
        manifest.sinks = output_names(info).iter().enumerate().map(more).collect();
    }
    manifest
}

/// The names of a plugin's outputs.
pub(super) fn output_names(info: &PluginInfo) -> Vec<String> {
    let main = || vec![pelton_streams::plugin_manifest::DEFAULT_OUTPUT_NAME.to_owned()];
    info.manifest.as_ref().map_or_else(main, |manifest| manifest.outputs.clone())
}

/// The tasks of a case, one for each partition that a step names, and the one instance that they share.
struct Rig {
    topology: Arc<Topology>,
    outputs: Vec<String>,
    plugins: Plugins,
    tasks: BTreeMap<u32, Running>,
    clock: i64,
    before: BTreeMap<String, Vec<Entry>>,
}

struct Running {
    task: Task,
    next_offset: i64,
}

/// Where a step ended early.
enum Stopped {
    Task,
    Run(RunError),
}

impl Rig {
    fn new(
        of: &Component<'_>,
        case: &Case,
        stores: &BTreeMap<String, StoreGrant>,
        lines: &Arc<Lines>,
    ) -> Result<Rig, RunError> {
        let info = &of.info;
        let names = [NODE.to_owned(), SinkSpec::plugin_id("pelton-test-0")];
        let plugins = names.map(|name| (name, info.clone())).into_iter().collect();
        let topology = Topology::link(&manifest(info, case, stores), &plugins)?;
        let mut plugins = Plugins::default();
        for (i, node) in topology.nodes.iter().enumerate() {
            let spec = of.spec(node.config.clone(), node.limits, lines);
            plugins.set(i, of.engine.instantiate(&info.digest, &spec).map_err(RunError::Start)?);
        }
        for (i, _, plugin) in topology.partitioners() {
            let spec = of.spec(plugin.config.clone(), plugin.limits, lines);
            let instance = of.engine.instantiate_partitioner(&info.digest, &spec).map_err(RunError::Start)?;
            plugins.set_partitioner(i, instance);
        }
        let topology = Arc::new(topology);
        let (outputs, before) = (output_names(info), case.before.clone());
        Ok(Rig { topology, outputs, plugins, tasks: BTreeMap::new(), clock: 0, before })
    }

    /// The task of a partition, which is made when it is first named. Partition 0 begins with what the case says.
    fn open(&mut self, partition: u32) -> Result<(), RunError> {
        if self.tasks.contains_key(&partition) {
            return Ok(());
        }
        let id = TaskId { sub_topology: 0, partition: partition.cast_signed() };
        let graph = self.topology.sub_topologies[0].graph.as_ref();
        let stores = graph.map_or(0, |graph| graph.stores.len());
        let counts = vec![1; self.topology.outputs.len()];
        let task = Task::new(id, Arc::clone(&self.topology), &counts);
        let mut task = task.with_stores(Box::new(MemoryState::new(stores)), StateLimits::default());
        task.set_clock(self.clock);
        if let Some(state) = task.stores().filter(|_| partition == 0) {
            for (store, entries) in &self.before {
                whole::begin_with(&self.topology, 0, state, store, entries)?;
            }
        }
        self.tasks.insert(partition, Running { task, next_offset: 0 });
        Ok(())
    }

    fn step(&mut self, step: &Step, topic: &str) -> Result<Came, RunError> {
        let mut came = Came::default();
        self.open(step.partition)?;
        let done = self.advance(step, &mut came).and_then(|()| self.give(step, topic, &mut came));
        match done {
            Ok(()) | Err(Stopped::Task) => {}
            Err(Stopped::Run(error)) => return Err(error),
        }
        // In which order records of different topics are written means nothing.
        came.emitted.sort_by_key(|(output, _)| *output);
        came.output = came.emitted.drain(..).map(|(_, row)| row).collect();
        self.look(step.partition, &mut came)?;
        Ok(came)
    }

    /// The clock goes on, for all tasks.
    fn advance(&mut self, step: &Step, came: &mut Came) -> Result<(), Stopped> {
        let Some(clock) = step.clock.as_ref().map(|clock| *clock.get_ref()) else { return Ok(()) };
        self.clock = clock;
        for running in self.tasks.values_mut() {
            running.task.set_clock(clock);
            let mut rounds = 0;
            while running.task.next_tick().map_err(stopped)?.is_some_and(|next| next <= clock) {
                if rounds == MAX_ROUNDS {
                    let reason = format!("timers that are due set others that are due, {MAX_ROUNDS} times");
                    came.fails(&Failed { reason, stops: true, ..Failed::default() });
                    return Err(Stopped::Task);
                }
                rounds += 1;
                let mut to = Kept::new(&self.topology, &self.outputs);
                made(&mut running.task, &mut self.plugins, &mut to, came, Task::tick)?;
            }
        }
        Ok(())
    }

    /// A batch comes, and is given until all of it is done.
    fn give(&mut self, step: &Step, topic: &str, came: &mut Came) -> Result<(), Stopped> {
        let Rig { topology, outputs, plugins, tasks, .. } = self;
        let Some(Running { task, next_offset }) = tasks.get_mut(&step.partition) else { return Ok(()) };
        if let Some(partitions) = step.partitions {
            (0..topology.outputs.len()).for_each(|output| task.set_output_partitions(output, partitions));
        }
        let input = items(&step.input);
        let offsets = offsets(input, *next_offset);
        let end = offsets.last().map_or(*next_offset, |last| last + 1);
        let mut to = Kept::new(topology, outputs);
        while *next_offset < end {
            let rest = offsets.partition_point(|offset| offset < next_offset);
            let batch = batch(topic, step.partition, &input[rest..], &offsets[rest..]);
            let batch = batch.ok_or(Stopped::Run(RunError::TooLarge))?;
            let inputs = [TaskInput { source: 0, batch: batch.as_batch(), end_offset: end, more: false }];
            let done = made(task, plugins, &mut to, came, |task, outside| task.process(&inputs, outside))?;
            *next_offset = done.positions.first().map_or(*next_offset, |(_, next)| *next);
        }
        while task.is_behind().map_err(stopped)? {
            made(task, plugins, &mut to, came, |task, outside| task.process(&[], outside))?;
        }
        Ok(())
    }

    /// What the task of a partition keeps now.
    fn look(&mut self, partition: u32, came: &mut Came) -> Result<(), RunError> {
        let Some(Running { task, .. }) = self.tasks.get_mut(&partition) else { return Ok(()) };
        let Some(state) = task.stores() else { return Ok(()) };
        let whole = whole::read(&self.topology, 0, state)?;
        let bytes = Content::Bytes;
        let row = |entry: Entry| entry_row(bytes(entry.key), entry.start, bytes(entry.value));
        let rows = |entries: Vec<Entry>| entries.into_iter().map(row).collect();
        came.stores = whole.stores.into_iter().map(|(store, entries)| (store, rows(entries))).collect();
        let timer = |SetTimer { domain, name, at }| timer_row(timer_on(domain), bytes(name), at);
        came.timers = whole.timers.into_iter().map(timer).collect();
        Ok(())
    }
}

fn stopped(error: StateError) -> Stopped {
    Stopped::Run(error.into())
}

fn timer_on(domain: TimerDomain) -> TimerOn {
    match domain {
        TimerDomain::StreamTime => TimerOn::Stream,
        TimerDomain::WallClock => TimerOn::Clock,
    }
}

/// Has a task do something, again at once if it asks for that, and notes what comes of it.
fn made(
    task: &mut Task,
    plugins: &mut Plugins,
    to: &mut Kept<'_>,
    came: &mut Came,
    mut act: impl FnMut(&mut Task, &mut Outside<'_>) -> Result<StepOutput, StepError>,
) -> Result<StepOutput, Stopped> {
    loop {
        let sink: &mut dyn Sink = &mut *to;
        let mut outside =
            Outside { plugins: &mut *plugins, sink, globals: &NoTables, interrupted: &|| false };
        match act(task, &mut outside) {
            Ok(done) => {
                to.hand_over(came);
                done.notices.iter().for_each(|notice| came.fails(&told(&notice.failure, false)));
                return Ok(done);
            }
            Err(StepError::Retry { .. }) => {}
            Err(StepError::Failed(failure)) => {
                came.fails(&told(&failure, true));
                return Err(Stopped::Task);
            }
        }
    }
}

/// A failure, in the words of a fixture.
fn told(failure: &TaskFailure, stops: bool) -> Failed {
    let (timer, error) = match &failure.error {
        RecordError::Timer { timer, error } => (Some(timer.clone()), Some(error)),
        RecordError::Plugin(error) | RecordError::Partitioner { error, .. } => (None, Some(error)),
        RecordError::Refused { .. }
        | RecordError::Row(_)
        | RecordError::State(_)
        | RecordError::Global(_) => (None, None),
    };
    Failed {
        offset: (failure.offset != NO_RECORD).then_some(failure.offset),
        last: (failure.last_offset != failure.offset).then_some(failure.last_offset),
        timer,
        kind: Some(failure.error.kind().to_owned()),
        reason: error.map_or_else(|| failure.error.to_string(), reason),
        stops,
        ..Failed::default()
    }
}

/// Why, in the plugin's own words where it has said something.
pub(super) fn reason(error: &PluginError) -> String {
    match error {
        PluginError::Reject(rejected) => rejected.first().map_or(String::new(), |one| one.reason.clone()),
        PluginError::Retry(reason) | PluginError::Fatal(reason) => reason.clone(),
        other => other.to_string(),
    }
}

/// The offset of each record: that which it says, or the next one.
fn offsets(input: &[Given], mut next: i64) -> Vec<i64> {
    let offset = |record: &Given| {
        let offset = record.offset.map_or(next, |offset| offset.max(next));
        next = offset + 1;
        offset
    };
    input.iter().map(offset).collect()
}

fn batch(topic: &str, partition: u32, input: &[Given], offsets: &[i64]) -> Option<OwnedBatch> {
    let mut batch = OwnedBatch::new(topic, partition);
    for (record, &offset) in input.iter().zip(offsets) {
        let parts = RecordIn {
            offset,
            timestamp: record.timestamp,
            key: record.key.as_ref().map(Content::bytes),
            value: record.value.as_ref().map(Content::bytes),
            headers: Headers::default(),
        };
        let headers = record.headers.iter();
        let headers =
            headers.map(|Header(name, value)| (name.as_bytes(), value.as_ref().map(Content::bytes)));
        batch.push(parts, headers).ok()?;
    }
    Some(batch)
}

/// Keeps what topics are given.
struct Kept<'a> {
    topology: &'a Topology,
    outputs: &'a [String],
    /// The output of each, and in which order they came.
    rows: Vec<(usize, Row)>,
    placed: Vec<(i64, u32)>,
}

impl<'a> Kept<'a> {
    fn new(topology: &'a Topology, outputs: &'a [String]) -> Kept<'a> {
        Kept { topology, outputs, rows: Vec::new(), placed: Vec::new() }
    }

    /// What was kept of a step that has succeeded. Of a failed one nothing was.
    fn hand_over(&mut self, came: &mut Came) {
        came.emitted.append(&mut self.rows);
        self.placed.sort_unstable();
        came.placed.extend(self.placed.drain(..).map(|(_, partition)| partition));
    }

    fn row(&self, output: usize, record: &RecordIn<'_>) -> Row {
        let content = |bytes: &[u8]| Content::Bytes(bytes.to_vec());
        let header = |(name, value): (&[u8], Option<&[u8]>)| {
            Header(String::from_utf8_lossy(name).into_owned(), value.map(content))
        };
        let headers: Vec<Header> = record.headers.map(header).collect();
        let to = self.outputs.get(output).filter(|_| output > 0);
        Row::default()
            .with("key", record.key.map(content).map(Cell::Content))
            .with("value", record.value.map(content).map(Cell::Content))
            .with("timestamp", (record.timestamp != 0).then_some(Cell::Number(record.timestamp)))
            .with("headers", (!headers.is_empty()).then_some(Cell::Headers(headers)))
            .with("to", to.map(|to| Cell::Text(to.clone())))
    }
}

impl Sink for Kept<'_> {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        for emitted in records.iter() {
            // What changes in stores is looked at in the stores.
            if self.topology.outputs[emitted.output].changelog_of.is_some() {
                continue;
            }
            let row = self.row(emitted.output, &emitted.record);
            self.rows.push((emitted.output, row));
            self.placed.push((emitted.record.offset, emitted.partition.cast_unsigned()));
        }
        Ok(())
    }
}

/// The limits of a plugin where no pipeline says others.
pub(super) fn own_limits(info: &PluginInfo) -> PluginLimits {
    let own = info.manifest.as_ref().map(|manifest| manifest.limits).unwrap_or_default();
    PluginLimits::resolve(&LimitsSpec::default(), &own).unwrap_or_default()
}
