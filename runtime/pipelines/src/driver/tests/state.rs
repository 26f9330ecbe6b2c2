//! Drivers of pipelines that keep state, over logs and disks that fail at every step.
//!
//! The crash points of a store beside its changelog: a transaction that is open (a, b) or whose end nobody heard of (c), a
//! commit that the store has not taken over (d, e), or not flushed (f), a damaged store (h), one that does not fit its changelog
//! (i) or was away for too long (j), a store that takes nothing (l). At every start a store must be the replay of its changelog
//! up to its position, and in the end each result is there once.

use std::sync::atomic::AtomicI64;

use pelton_streams::operator::scan::Wanted;
use pelton_streams::state::{
    Blob, ChangelogPosition, KeyRange, MemoryState, Position as StorePosition, StateBackend, StateBatch,
    StateError, StateReader, StoreIndex, StoreSpec, Visit,
};
use pelton_streams::state_tables::{StateRow, StateTable};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Records that one read gives at the most.
const READ_RECORDS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
    Marker,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp: i64,
    fate: Fate,
}

/// What goes wrong next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
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

const FAULTS: [Fault; 6] = [
    Fault::Flush,
    Fault::CommitRefused,
    Fault::CommitLost,
    Fault::CommitUnknown,
    Fault::StoreFull,
    Fault::StoreDamaged,
];

/// What one task's stores have on disk.
#[derive(Debug, Clone, Default)]
struct Content {
    stores: Vec<BTreeMap<Blob, Blob>>,
    position: StorePosition,
}

/// The broker and the disk.
#[derive(Default)]
struct World {
    logs: BTreeMap<(String, i32), Vec<Entry>>,
    committed: BTreeMap<(String, i32), i64>,
    topic_ids: BTreeMap<String, u8>,
    /// Steps until something goes wrong, and what.
    fault: Option<(u32, Fault)>,
    /// The ends of logs that can be read only after a wait.
    hidden: bool,
    stores: BTreeMap<TaskId, Content>,
    flushed: BTreeMap<TaskId, Content>,
    /// What is before was deleted.
    starts: BTreeMap<(String, i32), i64>,
    /// Stores that were removed.
    removed: u32,
    flushes: u32,
}

impl World {
    fn produce(&mut self, topic: &str, partition: i32, records: &[(&str, &str, i64)]) {
        let log = self.logs.entry((topic.to_owned(), partition)).or_default();
        for (key, value, timestamp) in records {
            let field = |text: &str| (text != "~").then(|| text.as_bytes().to_vec());
            let (key, value) = (field(key), field(value));
            log.push(Entry { key, value, timestamp: *timestamp, fate: Fate::Committed });
        }
    }

    /// Whether this is the moment.
    fn fails(&mut self, of: &[Fault]) -> Option<Fault> {
        let (left, fault) = self.fault.filter(|(_, fault)| of.contains(fault))?;
        self.fault = (left > 0).then(|| (left - 1, fault));
        (left == 0).then_some(fault)
    }

    fn decide(&mut self, fate: Fate) {
        for log in self.logs.values_mut().filter(|log| log.iter().any(|entry| entry.fate == Fate::Open)) {
            log.iter_mut().filter(|entry| entry.fate == Fate::Open).for_each(|entry| entry.fate = fate);
            log.push(Entry { key: None, value: None, timestamp: -1, fate: Fate::Marker });
        }
        self.hidden = true;
    }

    /// The process is gone, and what was not flushed with it.
    fn crash(&mut self) {
        self.stores.clone_from(&self.flushed);
    }

    fn committed_records(&self, topic: &str, partition: i32) -> Vec<String> {
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
    fn check_stores(&self, topology: &Topology) {
        for (task, content) in &self.stores {
            let graph = topology.sub_topologies[task.sub_topology].graph.as_ref().unwrap();
            for (index, store) in graph.stores.iter().enumerate() {
                let topic = topology.outputs[store.changelog].topic.clone();
                let log = self.logs.get(&(topic, task.partition)).map(Vec::as_slice).unwrap_or_default();
                let upto = content.position[index].offset as usize;
                assert!(upto <= log.len(), "a store is ahead of its changelog");
                let mut replay = BTreeMap::new();
                for entry in log[..upto].iter().filter(|entry| entry.fate == Fate::Committed) {
                    let key = Blob::from(entry.key.as_deref().unwrap());
                    match &entry.value {
                        Some(value) => replay.insert(key, Blob::from(&value[..])),
                        None => replay.remove(&key),
                    };
                }
                assert_eq!(content.stores[index], replay, "store {index} of {task:?}");
            }
        }
    }
}

type Shared = Arc<Mutex<World>>;

/// A store on the disk of the world.
struct DiskState {
    memory: MemoryState,
    world: Shared,
    task: TaskId,
}

impl StateBackend for DiskState {
    fn position(&self) -> &StorePosition {
        self.memory.position()
    }

    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError> {
        self.memory.multi_get(store, keys)
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        self.memory.range(store, range, visit)
    }

    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        {
            let mut world = self.world.lock();
            match world.fails(&[Fault::StoreFull, Fault::StoreDamaged]) {
                Some(Fault::StoreFull) => return Err(StateError::Full("no room".to_owned())),
                Some(_) => return Err(StateError::Corrupt("a bad checksum".to_owned())),
                None => {}
            }
            let content = world.stores.get_mut(&self.task).unwrap();
            for (store, changes) in content.stores.iter_mut().zip(&batch.changes) {
                for (key, value) in changes {
                    match value {
                        Some(value) => store.insert(key.clone(), value.clone()),
                        None => store.remove(key),
                    };
                }
            }
            content.position.clone_from(&batch.position);
        }
        self.memory.apply(batch)
    }

    fn flush(&mut self) -> Result<(), StateError> {
        let mut world = self.world.lock();
        world.flushes += 1;
        let content = world.stores[&self.task].clone();
        world.flushed.insert(self.task, content);
        Ok(())
    }

    fn reader(&self) -> Arc<dyn StateReader> {
        self.memory.reader()
    }
}

struct Disk(Shared);

impl TaskStores for Disk {
    fn open(&self, _: &str, task: TaskId, specs: &[StoreSpec]) -> Result<Box<dyn StateBackend>, StateError> {
        let empty = Content {
            stores: vec![BTreeMap::new(); specs.len()],
            position: vec![ChangelogPosition::default(); specs.len()],
        };
        let content = self.0.lock().stores.entry(task).or_insert(empty).clone();
        let mut memory = MemoryState::new(specs.len());
        let all =
            |store: BTreeMap<Blob, Blob>| store.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let changes = content.stores.into_iter().map(all).collect();
        memory.apply(StateBatch { changes, position: content.position })?;
        Ok(Box::new(DiskState { memory, world: Arc::clone(&self.0), task }))
    }

    fn remove(&self, _: &str, task: TaskId) -> Result<(), StateError> {
        let mut world = self.0.lock();
        world.stores.remove(&task);
        world.flushed.remove(&task);
        world.removed += 1;
        Ok(())
    }

    fn remove_all(&self, _: &str) -> Result<(), StateError> {
        unreachable!("it is not deleted")
    }

    fn remove_others(&self, _: &[&str]) -> Result<(), StateError> {
        unreachable!("nothing starts anew")
    }

    fn flush_interval_ms(&self) -> i64 {
        300_000
    }
}

struct SimIo {
    world: Shared,
    topology: Arc<Topology>,
    partitions: i32,
    told: bool,
    staged: Vec<(String, i32, Entry)>,
    stop: Arc<StopSignal>,
    board: Arc<StatusBoard>,
}

impl SimIo {
    /// Whoever reads stores sees what the committed records up to the offsets that they are told make.
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
            let entry = Entry { key, value, timestamp: record.timestamp, fate: Fate::Open };
            self.staged.push((self.topic(output), partition, entry));
        }
        Ok(())
    }
}

impl Source for SimIo {
    fn changes(&mut self) -> Result<Vec<Change>, IoError> {
        if std::mem::replace(&mut self.told, true) {
            return Ok(Vec::new());
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
        self.check_readers();
        Ok(self.read(&self.topology.sources[input.source].topic, input.partition, offset, records, false))
    }

    fn purge(&mut self, Input { source, partition }: Input, before: i64) -> Result<(), IoError> {
        let at = (self.topology.sources[source].topic.clone(), partition);
        let mut world = self.world.lock();
        assert!(before <= world.committed.get(&at).copied().unwrap_or(0), "what is not committed is deleted");
        world.starts.insert(at, before);
        Ok(())
    }

    fn wait(&self, positions: &[(Input, i64)], _: u64) {
        self.check_readers();
        let has_more = |(Input { source, partition }, next): &(Input, i64)| {
            let at = (self.topology.sources[*source].topic.clone(), *partition);
            let end = self.world.lock().logs.get(&at).map_or(0, Vec::len);
            *next < end as i64
        };
        // What one part of the pipeline has written the other one has to read.
        if !positions.iter().any(has_more) {
            self.stop.set();
        }
    }
}

impl Outputs for SimIo {
    fn flush(&mut self) -> Result<(), IoError> {
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
        self.world.lock().decide(Fate::Aborted);
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError> {
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
        world.decide(Fate::Committed);
        for (Input { source, partition }, offset) in offsets {
            let topic = self.topology.sources[*source].topic.clone();
            world.committed.insert((topic, *partition), *offset);
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
        let hidden = self.world.lock().hidden;
        Ok(self.read(&self.topic(output), partition, offset, records, hidden))
    }

    fn wait_changelog(&self, _: usize, _: i32, _: i64, _: u64) {
        self.world.lock().hidden = false;
    }
}

fn linked(nodes: &str) -> Arc<Topology> {
    let manifest =
        Manifest::parse(&format!("name='p'\ncommit={{interval_ms=5,records=5}}\n{nodes}")).unwrap();
    let known = |topic: &str| (!topic.starts_with("__")).then_some(2);
    Arc::new(Topology::link_over(&manifest, &BTreeMap::new(), &known).unwrap())
}

/// One driver, until all is read or something fails.
fn drive(
    world: &Shared,
    topology: &Arc<Topology>,
    partitions: i32,
    clock: &Arc<AtomicI64>,
) -> Result<(), DriverError> {
    let stop = Arc::new(StopSignal::default());
    let clock = Arc::clone(clock);
    let now_ms = move || clock.fetch_add(1, Ordering::Relaxed);
    let spec = DriverSpec {
        topology: Arc::clone(topology),
        guarantee: Guarantee::ExactlyOnce,
        commit: CommitSpec { interval_ms: 5, records: 5, ..CommitSpec::default() },
        factory: Arc::new(Factory(Arc::clone(&stop))),
        stores: Arc::new(Disk(Arc::clone(world))),
        board: StatusBoard::new(Arc::new(|| 7)),
        clock: Arc::new(now_ms),
        stop: Arc::clone(&stop),
    };
    let (topology, staged, board) = (Arc::clone(topology), Vec::new(), Arc::clone(&spec.board));
    let mut io = SimIo { world: Arc::clone(world), topology, partitions, told: false, staged, stop, board };
    let result = Driver::new(spec, &mut io).run();
    let id = TaskId { sub_topology: 0, partition: 0 };
    assert!(!io.board.readers().has(id), "a driver that has ended leaves its stores open");
    result
}

const COUNT: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\naggregate='count'\n\
                     [[sink]]\nfrom='n'\ntopic='out'\n";
const JOIN: &str = "[[source]]\nid='l'\ntopic='left'\npartitioner='murmur2'\n\
                    [[source]]\nid='r'\ntopic='right'\npartitioner='murmur2'\n\
                    [[node]]\nid='j'\nfrom='l'\njoin={with='r',within='3ms',kind='outer',left='l',right='r'}\n\
                    [[node]]\nid='d'\nfrom='j'\naggregate={n='count',of='distinct:json:r'}\n\
                    [[sink]]\nfrom='d'\ntopic='out'\n";

/// Records of a group are in both partitions.
const GROUP: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\ngroup_by='raw'\naggregate='count'\n\
                     [[sink]]\nfrom='n'\ntopic='out'\n";

/// Input of some keys, with times that mostly rise.
fn input(world: &mut World, topics: &[&str], random: &mut SmallRng) {
    let mut time = 0;
    for number in 0..60 {
        time += random.random_range(0..3);
        let key = ["a", "b", "c"][random.random_range(0..3)];
        let (value, partition) = (number.to_string(), i32::from(key == "b"));
        let topic = topics[random.random_range(0..topics.len())];
        world.produce(topic, partition, &[(key, &value, time)]);
    }
}

/// Whatever fails at whatever moment, what a pipeline writes is what it writes without failures.
#[test]
fn results_are_those_of_a_run_without_failures() {
    let clock = Arc::new(AtomicI64::new(1_000_000));
    for (nodes, topics) in [(COUNT, &["in"][..]), (JOIN, &["left", "right"])] {
        let topology = linked(nodes);
        let (mut damaged, mut results) = (0, 0);
        for seed in 0..150 {
            let mut random = SmallRng::seed_from_u64(seed);
            let [calm, stormy] = [(); 2].map(|()| {
                let mut world = World::default();
                input(&mut world, topics, &mut SmallRng::seed_from_u64(seed));
                Arc::new(Mutex::new(world))
            });
            drive(&calm, &topology, 2, &clock).unwrap();
            let mut failures = 0;
            loop {
                let fault = FAULTS[random.random_range(0..FAULTS.len())];
                // The first ones are sure to come.
                let steps = if failures < 5 { 0..2 } else { 0..20 };
                stormy.lock().fault = Some((random.random_range(steps), fault));
                // Some drivers take over and flush more often than others.
                clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
                let result = drive(&stormy, &topology, 2, &clock);
                stormy.lock().check_stores(&topology);
                match result {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
                failures += 1;
                if random.random_range(0..3) == 0 {
                    stormy.lock().crash();
                    stormy.lock().check_stores(&topology);
                }
            }
            damaged += stormy.lock().removed;
            for partition in 0..2 {
                // Two tasks write to a partition; the records of a key come from one of them.
                let out = |world: &Shared| {
                    let mut out = world.lock().committed_records("out", partition);
                    out.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
                    out
                };
                assert_eq!(out(&stormy), out(&calm), "partition {partition}, seed {seed}");
                results += out(&calm).len();
            }
        }
        assert!(damaged > 0 && results > 0, "{damaged} stores were damaged, and {results} results came");
    }
}

/// Records are counted by what is not their key, through a topic of the pipeline's own: each once, whatever fails.
#[test]
fn records_go_once_through_a_repartition_topic() {
    let (topology, clock) = (linked(GROUP), Arc::new(AtomicI64::new(1_000_000)));
    let topic = "__pelton_p-n-repartition";
    assert_eq!(topology.sources[1].topic, topic);
    let mut purged = 0;
    for seed in 0..150 {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = Shared::default();
        let mut counts = [0; 3];
        for number in 0..60 {
            let (group, partition) = (random.random_range(0..3), random.random_range(0..2));
            counts[group] += 1;
            world.lock().produce("in", partition, &[("k", &group.to_string(), number)]);
        }
        let mut failures = 0;
        loop {
            let fault = FAULTS[random.random_range(0..FAULTS.len())];
            let steps = if failures < 5 { 0..3 } else { 0..40 };
            world.lock().fault = Some((random.random_range(steps), fault));
            clock.fetch_add([0, 2_000, 400_000][random.random_range(0..3)], Ordering::Relaxed);
            let result = drive(&world, &topology, 2, &clock);
            world.lock().check_stores(&topology);
            match result {
                Ok(()) => break,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            failures += 1;
            if random.random_range(0..3) == 0 {
                world.lock().crash();
            }
        }
        let world = world.lock();
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in (0..2).flat_map(|partition| world.committed_records("out", partition)) {
            let (group, count) = record.split_once('@').unwrap().0.split_once('=').unwrap();
            seen.entry(group.to_owned()).or_default().push(count.to_owned());
        }
        for (group, count) in counts.iter().enumerate() {
            let expect: Vec<String> = (1..=*count).map(|n: u64| n.to_string()).collect();
            assert_eq!(seen.remove(&group.to_string()).unwrap_or_default(), expect, "seed {seed}");
        }
        for partition in 0..2 {
            let at = (topic.to_owned(), partition);
            // All of it is deleted in the end: the driver has ended in order.
            let end = world.logs.get(&at).map_or(0, Vec::len) as i64;
            assert_eq!(world.starts.get(&at).copied().unwrap_or(0), end, "seed {seed}");
            purged += end;
        }
    }
    assert!(purged > 0);
}

fn counted(world: &Shared) -> Vec<String> {
    world.lock().committed_records("out", 0)
}

/// A driver that has ended in order leaves its stores at the end, on disk: the next one has nothing to restore.
#[test]
fn a_stop_in_order_leaves_nothing_to_restore() {
    let (topology, clock) = (linked(COUNT), Arc::new(AtomicI64::new(1_000)));
    let world = Shared::default();
    world.lock().produce("in", 0, &[("a", "1", 1), ("b", "1", 2), ("a", "1", 3)]);
    drive(&world, &topology, 1, &clock).unwrap();
    world.lock().crash();
    world.lock().check_stores(&topology);
    let changelog = "__pelton_p-n-changelog".to_owned();
    let end = world.lock().logs[&(changelog, 0)].len() as i64;
    assert_eq!(world.lock().stores[&TaskId { sub_topology: 0, partition: 0 }].position[0].offset, end);
    assert_eq!(counted(&world), ["a=1@1", "b=1@2", "a=2@3"]);
}

/// A store that does not fit its changelog, or may have missed that keys were deleted, is made again.
#[test]
fn a_store_that_cannot_be_trusted_is_made_again() {
    let makes_again = |spoil: fn(&mut World, &AtomicI64)| {
        let (topology, clock) = (linked(COUNT), Arc::new(AtomicI64::new(1_000)));
        let world = Shared::default();
        world.lock().produce("in", 0, &[("a", "1", 1), ("a", "1", 3)]);
        drive(&world, &topology, 1, &clock).unwrap();
        spoil(&mut world.lock(), &clock);
        world.lock().produce("in", 0, &[("a", "1", 5)]);
        drive(&world, &topology, 1, &clock).unwrap();
        let removed = world.lock().removed;
        (removed, counted(&world).pop().unwrap())
    };
    assert_eq!(makes_again(|_, _| {}), (0, "a=3@5".to_owned()));
    let away = |_: &mut World, clock: &AtomicI64| {
        clock.fetch_add(86_500_000, Ordering::Relaxed);
    };
    assert_eq!(makes_again(away), (1, "a=3@5".to_owned()));
    let ahead = |world: &mut World, _: &AtomicI64| {
        world.stores.get_mut(&TaskId { sub_topology: 0, partition: 0 }).unwrap().position[0].offset = 1_000;
    };
    assert_eq!(makes_again(ahead), (1, "a=3@5".to_owned()));
    // Another topic of its name: what it says is what there is.
    let renewed = |world: &mut World, _: &AtomicI64| {
        let changelog = "__pelton_p-n-changelog".to_owned();
        world.topic_ids.insert(changelog.clone(), 2);
        world.logs.remove(&(changelog, 0));
    };
    assert_eq!(makes_again(renewed), (1, "a=1@5".to_owned()));
}

/// Records of a key may be in another partition than what is kept of them.
#[test]
fn a_topic_that_has_grown_stops_the_pipeline() {
    let (topology, clock) = (linked(COUNT), Arc::new(AtomicI64::new(1_000)));
    let world = Shared::default();
    world.lock().produce("in", 0, &[("a", "1", 1)]);
    let error = drive(&world, &topology, 3, &clock).unwrap_err();
    assert!(!error.is_transient());
    let text = error.to_string();
    assert!(
        text.starts_with(
            "topic `in` has 3 partitions now, and what the pipeline keeps of its records is in 2"
        ),
        "{text}"
    );
    assert_eq!(world.lock().committed, BTreeMap::new());
}
