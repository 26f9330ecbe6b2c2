//! A broker and a disk in memory for drivers of pipelines that keep state, which fail at the moment that a test wants.
//!
//! Logs have transactions and markers; what is committed can be read after a wait. Stores are maps that lose what was not
//! flushed when the process crashes, or those of a factory that the test has.

#![expect(clippy::unwrap_used, reason = "tests alone use this, and fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use pelton_streams::manifest::values::Start;
use pelton_streams::manifest::{CommitSpec, Guarantee, PluginRef};
use pelton_streams::operator::scan::Wanted;
use pelton_streams::state::{Blob, Position as StorePosition, StateError};
use pelton_streams::state_tables::{StateRow, StateTable};
use pelton_streams::task::TaskId;
use pelton_streams::{Emissions, Emitted, Manifest, Refused, Sink, Topology, World as PluginWorld};
use pelton_wire::record::{
    BatchBuilder, BatchMut, BatchOptions, BatchView, Columns, DecompressLimit, Select,
};
use tokio::sync::oneshot;

use super::obedient::{Factory, obedient};
use super::{Driver, DriverError, DriverSpec};
use crate::globals::NoGlobals;
use crate::io::{
    Change, ChangelogEnds, Changelogs, Committer, Filled, Input, IoError, Outputs, Position, Source,
    StopSignal, Ticket,
};
use crate::lanes::Lane;
use crate::status::StatusBoard;
use crate::stores::TaskStores;

/// Records that one read gives at the most.
const READ_RECORDS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Open,
    Committed,
    Aborted,
    Marker,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
    pub fate: Fate,
    /// Whose transaction it is of.
    pub lane: u32,
}

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Some of what is flushed is appended, and then the disk is full.
    Flush,
    /// The commit is not decided.
    CommitRefused,
    /// The commit is decided, and lost before it is durable.
    CommitLost,
    /// The commit is durable, and nobody hears of it.
    CommitUnknown,
    /// A store takes nothing.
    StoreFull,
    /// A store is found to be damaged.
    StoreDamaged,
}

pub const FAULTS: [Fault; 6] = [
    Fault::Flush,
    Fault::CommitRefused,
    Fault::CommitLost,
    Fault::CommitUnknown,
    Fault::StoreFull,
    Fault::StoreDamaged,
];

/// What one task's stores have on disk.
#[derive(Debug, Clone, Default)]
pub struct Content {
    pub stores: Vec<BTreeMap<Blob, Blob>>,
    pub position: StorePosition,
}

/// The broker and the disk.
#[derive(Default)]
pub struct World {
    pub logs: BTreeMap<(String, i32), Vec<Entry>>,
    pub committed: BTreeMap<(String, i32), i64>,
    pub topic_ids: BTreeMap<String, u8>,
    /// Steps until something goes wrong, and what.
    pub fault: Option<(u32, Fault)>,
    /// The ends of logs that can be read only after a wait.
    pub hidden: bool,
    pub stores: BTreeMap<TaskId, Content>,
    pub flushed: BTreeMap<TaskId, Content>,
    /// What is before was deleted.
    pub starts: BTreeMap<(String, i32), i64>,
    /// Stores that were removed.
    pub removed: u32,
    pub flushes: u32,
    /// The first commit is durable when this is the number of times that topics were looked at, and the topic of the first
    /// source is gone then.
    pub revoked_at: Option<u32>,
    pub looks: u32,
    held: Option<oneshot::Sender<Result<(), IoError>>>,
    /// How far the clock goes on with each read of a changelog.
    pub restore_ms: i64,
    /// Stores that are open: no two drivers may have the same.
    opened: BTreeSet<TaskId>,
    /// Which lane reads what, since the pipeline began.
    reading: BTreeMap<(String, i32), u32>,
    /// Called when something goes wrong: what a test wants to see of that moment.
    pub at_fault: Option<Box<dyn FnMut() + Send>>,
}

impl World {
    pub fn produce(&mut self, topic: &str, partition: i32, records: &[(&str, &str, i64)]) {
        let log = self.logs.entry((topic.to_owned(), partition)).or_default();
        for (key, value, timestamp) in records {
            let field = |text: &str| (text != "~").then(|| text.as_bytes().to_vec());
            let (key, value) = (field(key), field(value));
            log.push(Entry { key, value, timestamp: *timestamp, fate: Fate::Committed, lane: 0 });
        }
    }

    /// Whether this is the moment.
    fn fails(&mut self, of: &[Fault]) -> Option<Fault> {
        let (left, fault) = self.fault.filter(|(_, fault)| of.contains(fault))?;
        self.fault = (left > 0).then(|| (left - 1, fault));
        if left > 0 {
            return None;
        }
        if let Some(at_fault) = &mut self.at_fault {
            at_fault();
        }
        Some(fault)
    }

    /// For stores that a test has: whether one that is about to take something over, or has just done so, fails now.
    pub fn store_fails(&mut self) -> Result<(), StateError> {
        match self.fails(&[Fault::StoreFull, Fault::StoreDamaged]) {
            Some(Fault::StoreFull) => Err(StateError::Full("no room".to_owned())),
            Some(_) => Err(StateError::Corrupt("a bad checksum".to_owned())),
            None => Ok(()),
        }
    }

    /// Ends the open transaction of a lane, or of all.
    pub fn decide(&mut self, lane: Option<u32>, fate: Fate) {
        let is_open = |entry: &Entry| entry.fate == Fate::Open && lane.is_none_or(|lane| lane == entry.lane);
        for log in self.logs.values_mut().filter(|log| log.iter().any(is_open)) {
            log.iter_mut().filter(|entry| is_open(entry)).for_each(|entry| entry.fate = fate);
            let lane = lane.unwrap_or(0);
            log.push(Entry { key: None, value: None, timestamp: -1, fate: Fate::Marker, lane });
        }
        self.hidden = true;
    }

    /// The process is gone, and what was not flushed with it.
    pub fn crash(&mut self) {
        self.stores.clone_from(&self.flushed);
    }

    pub fn committed_records(&self, topic: &str, partition: i32) -> Vec<String> {
        let text = |field: &Option<Vec<u8>>| {
            field
                .as_ref()
                .map_or("~".to_owned(), |bytes| bytes.escape_ascii().to_string().replace("\\\"", "\""))
        };
        let log = self.logs.get(&(topic.to_owned(), partition)).map(Vec::as_slice).unwrap_or_default();
        let committed = log.iter().filter(|entry| entry.fate == Fate::Committed);
        committed
            .map(|entry| format!("{}={}@{}", text(&entry.key), text(&entry.value), entry.timestamp))
            .collect()
    }

    /// Every store is the replay of its changelog up to its position.
    pub fn check_stores(&self, topology: &Topology) {
        for (task, content) in &self.stores {
            let graph = topology.sub_topologies[task.sub_topology].graph.as_ref().unwrap();
            for (index, store) in graph.stores.iter().enumerate() {
                let topic = &topology.outputs[store.changelog].topic;
                let replay = self.replay(topic, task.partition, content.position[index].offset);
                assert_eq!(content.stores[index], replay, "store {index} of {task:?}");
            }
        }
    }

    /// What is committed of a changelog up to an offset, by key.
    pub fn replay(&self, topic: &str, partition: i32, end: i64) -> BTreeMap<Blob, Blob> {
        let log = self.logs.get(&(topic.to_owned(), partition)).map(Vec::as_slice).unwrap_or_default();
        let end = usize::try_from(end).unwrap();
        assert!(end <= log.len(), "a store is ahead of its changelog");
        let mut replay = BTreeMap::new();
        for entry in log[..end].iter().filter(|entry| entry.fate == Fate::Committed) {
            let key = Blob::from(entry.key.as_deref().unwrap());
            match &entry.value {
                Some(value) => replay.insert(key, Blob::from(&value[..])),
                None => replay.remove(&key),
            };
        }
        replay
    }
}

/// What all see.
pub type Shared = Arc<Mutex<World>>;

struct SimIo {
    world: Shared,
    topology: Arc<Topology>,
    partitions: i32,
    told: bool,
    staged: Vec<(String, i32, Entry)>,
    stop: Arc<StopSignal>,
    board: Arc<StatusBoard>,
    lane: u32,
    /// None: it is the only one.
    baton: Option<Arc<Baton>>,
    clock: Arc<AtomicI64>,
}

impl SimIo {
    /// Another lane may do something now.
    fn pause(&self) {
        if let Some(baton) = &self.baton {
            baton.pass(self.lane);
        }
    }

    /// Others may have something to read.
    fn wrote(&self) {
        if let Some(baton) = &self.baton {
            baton.wrote();
        }
    }

    /// Of a store `n`, which counts the records of `in` by key: whoever reads it sees what the committed records up to the
    /// offsets that they are told make.
    fn check_readers(&self) {
        let is_asked = |table: &StateTable| table.store == "n" && table.sub_topology == 0;
        let Some(table) = self.topology.state_tables().into_iter().find(is_asked) else { return };
        // A changelog that was created again says less than there was.
        if !self.world.lock().topic_ids.is_empty() {
            return;
        }
        for partition in 0..self.partitions {
            let id = TaskId { sub_topology: 0, partition };
            let read = self.board.readers().read(id, |view, inputs| {
                let part = table.part(view, &Wanted::default(), 1_000, 1)?;
                Ok((table.page(vec![part], 1_000)?.rows, inputs["in"][&partition]))
            });
            let Some(read) = read else { continue };
            let (rows, next) = read.unwrap();
            let world = self.world.lock();
            let committed = world.committed.get(&("in".to_owned(), partition)).copied().unwrap_or(0);
            assert!(next <= committed, "what is not committed is read: {next} of {committed}");
            let mut counts = BTreeMap::new();
            let log = world.logs.get(&("in".to_owned(), partition)).map(Vec::as_slice).unwrap_or_default();
            for entry in &log[..next as usize] {
                *counts.entry(entry.key.clone().unwrap()).or_insert(0) += 1;
            }
            let counts: Vec<_> = counts.into_iter().map(|(key, n)| (key, n.to_string())).collect();
            let seen = |row: StateRow| (row.key, String::from_utf8(row.value.unwrap()).unwrap());
            assert_eq!(rows.into_iter().map(seen).collect::<Vec<_>>(), counts, "up to offset {next}");
        }
    }

    fn topic(&self, output: usize) -> String {
        self.topology.outputs[output].topic.clone()
    }

    /// Records from an offset on, up to the first of an open transaction.
    fn read(&self, topic: &str, partition: i32, offset: i64, records: &mut Columns, hidden: bool) -> Filled {
        let world = self.world.lock();
        let start = world.starts.get(&(topic.to_owned(), partition)).copied().unwrap_or(0);
        assert!(start <= offset, "what was not read of {topic} is deleted");
        let log = world.logs.get(&(topic.to_owned(), partition)).map(Vec::as_slice).unwrap_or_default();
        let open = log.iter().position(|entry| entry.fate == Fate::Open).unwrap_or(log.len());
        let end = if hidden { open.min(offset as usize) } else { open };
        let from = offset as usize;
        let to = end.min(from + READ_RECORDS);
        for (at, entry) in log.iter().enumerate().take(to).skip(from) {
            if entry.fate != Fate::Committed {
                continue;
            }
            let mut builder = BatchBuilder::new(BatchOptions::default());
            builder.append(entry.timestamp, entry.key.as_deref(), entry.value.as_deref(), &[]).unwrap();
            let mut batch = builder.finish().unwrap().to_vec();
            BatchMut::new(&mut batch).unwrap().set_place(at as i64, 0);
            let select = Select { from_offset: offset, headers: true };
            records.append(&BatchView::check(&batch).unwrap(), select, DecompressLimit::STORED).unwrap();
        }
        Filled { next_offset: to.max(from) as i64, end_offset: end as i64, deleted_unread: false }
    }
}

impl Sink for SimIo {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        for Emitted { output, partition, record } in records.iter() {
            let field = |field: Option<&[u8]>| field.map(<[u8]>::to_vec);
            let (key, value) = (field(record.key), field(record.value));
            let lane = self.lane;
            let entry = Entry { key, value, timestamp: record.timestamp, fate: Fate::Open, lane };
            self.staged.push((self.topic(output), partition, entry));
        }
        Ok(())
    }
}

impl Source for SimIo {
    fn changes(&mut self) -> Result<Vec<Change>, IoError> {
        if std::mem::replace(&mut self.told, true) {
            let mut world = self.world.lock();
            world.looks += 1;
            if world.revoked_at != Some(world.looks) {
                return Ok(Vec::new());
            }
            if let Some(held) = world.held.take() {
                held.send(Ok(())).unwrap();
            }
            return Ok(vec![Change::Revoked { source: 0 }]);
        }
        let partitions = self.partitions.unsigned_abs();
        let outputs = (0..self.topology.outputs.len()).map(|output| {
            let is_changelog = self.topology.outputs[output].changelog_of.is_some();
            Change::Output { output, partitions: if is_changelog { 2 } else { partitions } }
        });
        let sources = 0..self.topology.sources.len();
        let sources = sources.map(|source| Change::Assigned { source, partitions: 0..self.partitions });
        Ok(outputs.chain(sources).collect())
    }

    fn position(&self, Input { source, partition }: Input, _: Start) -> Result<Position, IoError> {
        let topic = self.topology.sources[source].topic.clone();
        let committed = self.world.lock().committed.get(&(topic, partition)).copied();
        Ok(Position { offset: committed.unwrap_or(0), committed: committed.is_some(), renewed: false })
    }

    fn fill(&self, input: Input, offset: i64, records: &mut Columns) -> Result<Filled, IoError> {
        self.pause();
        self.check_readers();
        let at = (self.topology.sources[input.source].topic.clone(), input.partition);
        let reads = *self.world.lock().reading.entry(at).or_insert(self.lane);
        assert_eq!(reads, self.lane, "two lanes read {input:?}");
        Ok(self.read(&self.topology.sources[input.source].topic, input.partition, offset, records, false))
    }

    fn order_limits(&self, inputs: &[Input]) -> Result<Vec<i64>, IoError> {
        Ok(vec![i64::MAX; inputs.len()])
    }

    fn purge(&mut self, Input { source, partition }: Input, before: i64) -> Result<(), IoError> {
        let at = (self.topology.sources[source].topic.clone(), partition);
        let mut world = self.world.lock();
        assert!(before <= world.committed.get(&at).copied().unwrap_or(0), "what is not committed is deleted");
        world.starts.insert(at, before);
        Ok(())
    }

    fn wait(&self, positions: &[(Input, i64)], _: u64) {
        self.pause();
        self.check_readers();
        let has_more = |(Input { source, partition }, next): &(Input, i64)| {
            let at = (self.topology.sources[*source].topic.clone(), *partition);
            let end = self.world.lock().logs.get(&at).map_or(0, Vec::len);
            *next < end as i64
        };
        // What one part of the pipeline has written the other one has to read.
        let done = !positions.iter().any(has_more);
        if done && self.baton.as_ref().is_none_or(|baton| baton.rests(self.lane)) {
            self.stop.set();
        }
    }
}

impl Outputs for SimIo {
    fn flush(&mut self) -> Result<(), IoError> {
        self.pause();
        self.wrote();
        self.check_readers();
        let mut world = self.world.lock();
        let staged = std::mem::take(&mut self.staged);
        let fails = !staged.is_empty() && world.fails(&[Fault::Flush]).is_some();
        let appended = if fails { staged.len() / 2 } else { staged.len() };
        for (topic, partition, entry) in staged.into_iter().take(appended) {
            world.logs.entry((topic, partition)).or_default().push(entry);
        }
        if fails { Err(IoError::Unavailable("disk full".to_owned())) } else { Ok(()) }
    }
}

impl Committer for SimIo {
    fn begin(&mut self) -> Result<(), IoError> {
        self.world.lock().decide(Some(self.lane), Fate::Aborted);
        self.wrote();
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError> {
        self.pause();
        self.wrote();
        let mut world = self.world.lock();
        let (sender, ticket) = oneshot::channel();
        let fault = world.fails(&[Fault::CommitRefused, Fault::CommitLost, Fault::CommitUnknown]);
        let unheard = || IoError::Unavailable("nobody answered".to_owned());
        match fault {
            Some(Fault::CommitRefused) => return Err(unheard()),
            Some(Fault::CommitLost) => {
                sender.send(Err(unheard())).unwrap();
                return Ok(ticket);
            }
            _ => {}
        }
        world.decide(Some(self.lane), Fate::Committed);
        for (Input { source, partition }, offset) in offsets {
            let topic = self.topology.sources[*source].topic.clone();
            world.committed.insert((topic, *partition), *offset);
        }
        if world.revoked_at.is_some_and(|at| world.looks < at) {
            world.held = Some(sender);
            return Ok(ticket);
        }
        sender.send(if fault.is_some() { Err(unheard()) } else { Ok(()) }).unwrap();
        Ok(ticket)
    }

    fn abandon(&mut self) -> Result<(), IoError> {
        unreachable!("a driver leaves this to who started it")
    }
}

impl Changelogs for SimIo {
    fn changelog(&self, output: usize, partition: i32) -> Result<ChangelogEnds, IoError> {
        let (world, topic) = (self.world.lock(), self.topic(output));
        let id = world.topic_ids.get(&topic).copied().unwrap_or(1);
        let end = world.logs.get(&(topic, partition)).map_or(0, Vec::len) as i64;
        Ok(ChangelogEnds { topic_id: [id; 16], start: 0, end, delete_retention_ms: 86_400_000 })
    }

    fn fill_changelog(
        &self,
        output: usize,
        partition: i32,
        offset: i64,
        records: &mut Columns,
    ) -> Result<Filled, IoError> {
        self.pause();
        let (hidden, took_ms) = {
            let world = self.world.lock();
            (world.hidden, world.restore_ms)
        };
        self.clock.fetch_add(took_ms, Ordering::Relaxed);
        Ok(self.read(&self.topic(output), partition, offset, records, hidden))
    }

    fn wait_changelog(&self, _: usize, _: i32, _: i64, _: u64) {
        self.world.lock().hidden = false;
    }
}

pub fn linked(nodes: &str) -> Arc<Topology> {
    let manifest =
        Manifest::parse(&format!("name='p'\ncommit={{interval_ms=5,records=5}}\n{nodes}")).unwrap();
    let plugin = |node: &pelton_streams::manifest::NodeSpec| {
        let world = match &node.plugin {
            PluginRef::Name(name) if name == "timers" => PluginWorld::TransformTimer,
            _ if node.stores.is_empty() => PluginWorld::Transform,
            _ => PluginWorld::TransformState,
        };
        (node.id.clone(), obedient(world))
    };
    let aggregating = manifest.operators.iter().filter(|node| node.plugin.is_some());
    let aggregating = aggregating.map(|node| (node.id.clone(), obedient(PluginWorld::Aggregator)));
    let plugins = manifest.nodes.iter().map(plugin).chain(aggregating).collect();
    let known = |topic: &str| (!topic.starts_with("__")).then_some(2);
    Arc::new(Topology::link_over(&manifest, &plugins, &known).unwrap())
}

/// One driver, until all is read or something fails.
pub fn drive(
    world: &Shared,
    topology: &Arc<Topology>,
    partitions: i32,
    clock: &Arc<AtomicI64>,
) -> Result<(), DriverError> {
    drive_with(hasty(), Arc::new(Disk(Arc::clone(world))), world, topology, partitions, clock)
}

/// Commits of a few records.
pub fn hasty() -> CommitSpec {
    CommitSpec { interval_ms: 5, records: 5, ..CommitSpec::default() }
}

/// The same, with stores that the test has.
pub fn drive_with(
    commit: CommitSpec,
    stores: Arc<dyn TaskStores>,
    world: &Shared,
    topology: &Arc<Topology>,
    partitions: i32,
    clock: &Arc<AtomicI64>,
) -> Result<(), DriverError> {
    {
        // As who starts a pipeline does: there may have been several lanes before.
        let mut world = world.lock();
        world.reading.clear();
        world.decide(None, Fate::Aborted);
    }
    let (lane, baton, stop) = (Lane::ONLY, None, Arc::new(StopSignal::default()));
    let board = StatusBoard::new(Arc::new(|| 7));
    let run = Run { lane, baton, stop, board, commit, stores };
    run.drive(world, topology, partitions, clock)
}

/// One run of a driver.
struct Run {
    lane: Lane,
    baton: Option<Arc<Baton>>,
    stop: Arc<StopSignal>,
    board: Arc<StatusBoard>,
    commit: CommitSpec,
    stores: Arc<dyn TaskStores>,
}

impl Run {
    fn drive(
        self,
        world: &Shared,
        topology: &Arc<Topology>,
        partitions: i32,
        clock: &Arc<AtomicI64>,
    ) -> Result<(), DriverError> {
        let Run { lane, baton, stop, board, commit, stores } = self;
        let (clock, of_driver) = (Arc::clone(clock), Arc::clone(clock));
        let now_ms = move || of_driver.fetch_add(1, Ordering::Relaxed);
        let spec = DriverSpec {
            topology: Arc::clone(topology),
            lane,
            guarantee: Guarantee::ExactlyOnce,
            commit,
            factory: Arc::new(Factory(Arc::clone(&stop))),
            stores,
            globals: Arc::new(NoGlobals),
            cpu: || Box::new(|| 0),
            board: Arc::clone(&board),
            clock: Arc::new(now_ms),
            stop: Arc::clone(&stop),
        };
        let (world, topology, staged) = (Arc::clone(world), Arc::clone(topology), Vec::new());
        let lane_number = lane.number;
        let mut io = SimIo {
            world,
            topology,
            partitions,
            told: false,
            staged,
            stop,
            board,
            lane: lane_number,
            baton,
            clock,
        };
        let result = Driver::new(spec, &mut io).run();
        let left = (0..partitions).map(|partition| TaskId { sub_topology: 0, partition });
        let left = left.filter(|task| lane.has(*task) && io.board.readers().has(*task)).count();
        assert_eq!(left, 0, "a driver that has ended leaves its stores open");
        result
    }
}

mod disk;
mod lanes;

pub use self::disk::Disk;
use self::lanes::Baton;
pub use self::lanes::{Failing, drive_lanes};
