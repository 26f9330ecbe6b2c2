use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pelton_streams::manifest::values::Start;
use pelton_streams::{Emissions, Emitted, Manifest, RecordIn, Refusal, Refused, Sink, Topology};
use pelton_wire::record::{BatchBuilder, BatchMut, BatchOptions, BatchView, DecompressLimit, Select};
use tokio::sync::oneshot;

use super::obedient::{Factory, obedient};
use super::*;
use crate::globals::NoGlobals;
use crate::io::{Change, ChangelogEnds, Changelogs, Committer, Outputs, Position, Source, Ticket};
use crate::status::PipelineState;
use crate::stores::MemoryStores;

mod deliveries;
mod lanes;
mod refusals;
mod state;
mod topics;

/// What the fake broker takes at most.
const MAX_RECORD_BYTES: usize = 1_000;
/// It appends so many records at once.
const APPEND_RECORDS: usize = 4;

/// What happened to the fake broker, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// The values of a batch that was appended to the sink.
    Append(Vec<String>),
    Commit(i32, i64),
}

#[derive(Default)]
struct World {
    input: BTreeMap<i32, Vec<Bytes>>,
    ends: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    events: Vec<Event>,
    /// Batches that are appended before one fails.
    appends_left: Option<usize>,
    refuse_commits: bool,
    /// Commits are taken, and fail before they are durable.
    lose_commits: bool,
    /// Commits are durable once there is nothing to read, or the disk is full.
    slow_commits: bool,
    in_flight: Option<oneshot::Sender<Result<(), IoError>>>,
    /// Written and not appended: topic and value.
    written: Vec<(&'static str, String)>,
    /// How often the input topic was created; `None`: it is not there.
    created: Option<u32>,
    /// The output topic is not there.
    no_output: bool,
    /// What happens when all input is read; the last wait ends the test.
    at_rest: Vec<fn(&mut World)>,
    /// What is in the open transaction of the driver that began last.
    open: Vec<Event>,
    /// It is not over before this is committed, for calls may be under way.
    until: Option<BTreeMap<i32, i64>>,
}

impl World {
    fn produce(&mut self, partition: i32, values: &[&str]) {
        let end = self.ends.entry(partition).or_insert(0);
        self.input.entry(partition).or_default();
        if values.is_empty() {
            return;
        }
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for value in values {
            builder.append(1_000, None, Some(value.as_bytes()), &[]).unwrap();
        }
        let mut batch = builder.finish().unwrap().to_vec();
        BatchMut::new(&mut batch).unwrap().set_place(*end, 0);
        self.input.entry(partition).or_default().push(batch.into());
        *end += values.len() as i64;
    }

    /// The commit in flight is durable.
    fn sync(&mut self) {
        if let Some(sender) = self.in_flight.take() {
            sender.send(Ok(())).unwrap();
        }
    }

    fn values(&self) -> Vec<String> {
        let appends = self.events.iter().filter_map(|event| match event {
            Event::Append(values) => Some(values.clone()),
            Event::Commit(..) => None,
        });
        appends.flatten().collect()
    }
}

struct FakeIo {
    world: Arc<Mutex<World>>,
    /// The input topic that it knows, and how many partitions of it.
    known: Option<(u32, i32)>,
    guarantee: Guarantee,
    stop: Arc<StopSignal>,
}

impl Sink for FakeIo {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let why = |record: RecordIn<'_>| match record.value {
            Some(b"unwanted") => Some(Refusal::NoKey),
            Some(large) if large.len() > MAX_RECORD_BYTES => {
                Some(Refusal::TooLarge { bytes: large.len(), codec: "none", max: MAX_RECORD_BYTES })
            }
            _ => None,
        };
        let refused =
            |(index, emitted): (usize, Emitted<'_>)| Some(Refused { index, why: why(emitted.record)? });
        let refused: Vec<Refused> = records.iter().enumerate().filter_map(refused).collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        let written = |emitted: Emitted<'_>| {
            let value = String::from_utf8(emitted.record.value.unwrap().to_vec()).unwrap();
            (["out", "dead"][emitted.output], value)
        };
        self.world.lock().written.extend(records.iter().map(written));
        Ok(())
    }
}

impl Source for FakeIo {
    fn changes(&mut self) -> Result<Vec<Change>, IoError> {
        let world = self.world.lock();
        if world.no_output {
            return Err(IoError::NoOutput { topic: "out".to_owned() });
        }
        let mut changes = vec![Change::Output { output: 0, partitions: 1 }];
        let known = self.known.take();
        if known.is_some_and(|(created, _)| Some(created) != world.created) {
            changes.push(Change::Revoked { source: 0 });
        }
        let Some(created) = world.created else { return Ok(changes) };
        let before = known.filter(|(known, _)| *known == created).map_or(0, |(_, partitions)| partitions);
        let now = world.input.len() as i32;
        if before < now {
            changes.push(Change::Assigned { source: 0, partitions: before..now });
        }
        self.known = Some((created, now));
        Ok(changes)
    }

    fn position(&self, Input { partition, .. }: Input, start: Start) -> Result<Position, IoError> {
        let (world, renewed) = (self.world.lock(), false);
        if let Some(&offset) = world.committed.get(&partition) {
            return Ok(Position { offset, committed: true, renewed });
        }
        let offset = if start == Start::Latest { world.ends[&partition] } else { 0 };
        Ok(Position { offset, committed: false, renewed })
    }

    fn fill(
        &self,
        Input { partition, .. }: Input,
        offset: i64,
        records: &mut Columns,
    ) -> Result<Filled, IoError> {
        let mut world = self.world.lock();
        if world.created != self.known.map(|(created, _)| created) {
            return Err(IoError::NoPartition { topic: "in".to_owned(), partition });
        }
        let (mut next_offset, end_offset) = (offset, world.ends[&partition]);
        for batch in &world.input[&partition] {
            let view = BatchView::check(batch).unwrap();
            if view.header().next_offset() > offset {
                let select = Select { from_offset: offset, headers: true };
                records.append(&view, select, DecompressLimit::STORED).unwrap();
                next_offset = view.header().next_offset();
            }
        }
        if records.is_empty() {
            world.sync();
            // There is nothing up to the end, or a hole.
            next_offset = end_offset;
        }
        Ok(Filled { next_offset, end_offset, deleted_unread: false })
    }

    fn order_limits(&self, inputs: &[Input]) -> Result<Vec<i64>, IoError> {
        Ok(vec![i64::MAX; inputs.len()])
    }

    fn purge(&mut self, _: Input, _: i64) -> Result<(), IoError> {
        unreachable!("it reads no topic of its own")
    }

    fn wait(&self, _positions: &[(Input, i64)], _timeout_ms: u64) {
        let mut world = self.world.lock();
        if world.until.as_ref().is_some_and(|until| *until != world.committed) {
            drop(world);
            std::thread::yield_now();
        } else if world.at_rest.is_empty() {
            // All input is read: the test is over.
            self.stop.set();
        } else {
            world.at_rest.remove(0)(&mut world);
        }
    }
}

impl Outputs for FakeIo {
    fn flush(&mut self) -> Result<(), IoError> {
        let mut world = self.world.lock();
        let written = std::mem::take(&mut world.written);
        for batch in written.chunk_by(|a, b| a.0 == b.0).flat_map(|one| one.chunks(APPEND_RECORDS)) {
            if world.appends_left == Some(0) {
                world.sync();
                return Err(IoError::Unavailable("disk full".to_owned()));
            }
            world.appends_left = world.appends_left.map(|left| left - 1);
            let text = |(topic, value): &(&str, String)| match *topic {
                "dead" => format!("dead {value}"),
                _ => value.clone(),
            };
            let appended = Event::Append(batch.iter().map(text).collect());
            match self.guarantee {
                Guarantee::ExactlyOnce => world.open.push(appended),
                Guarantee::AtLeastOnce => world.events.push(appended),
            }
        }
        Ok(())
    }
}

impl Committer for FakeIo {
    fn begin(&mut self) -> Result<(), IoError> {
        let mut world = self.world.lock();
        world.open.clear();
        world.written.clear();
        Ok(())
    }

    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError> {
        let mut world = self.world.lock();
        let (sender, ticket) = oneshot::channel();
        if world.refuse_commits {
            return Err(IoError::Unavailable("no coordinator".to_owned()));
        }
        let open = std::mem::take(&mut world.open);
        if world.lose_commits {
            sender.send(Err(IoError::Unavailable("the storage failed".to_owned()))).unwrap();
            return Ok(ticket);
        }
        world.events.extend(open);
        for (Input { partition, .. }, offset) in offsets {
            world.committed.insert(*partition, *offset);
            world.events.push(Event::Commit(*partition, *offset));
        }
        world.in_flight = Some(sender);
        if !world.slow_commits || world.appends_left == Some(0) {
            world.sync();
        }
        Ok(ticket)
    }

    fn abandon(&mut self) -> Result<(), IoError> {
        unreachable!("a driver leaves this to who started it")
    }
}

impl Changelogs for FakeIo {
    fn changelog(&self, _: usize, _: i32) -> Result<ChangelogEnds, IoError> {
        unreachable!("these pipelines keep nothing")
    }

    fn fill_changelog(&self, _: usize, _: i32, _: i64, _: &mut Columns) -> Result<Filled, IoError> {
        unreachable!("these pipelines keep nothing")
    }

    fn wait_changelog(&self, _: usize, _: i32, _: i64, _: u64) {
        unreachable!("these pipelines keep nothing")
    }
}

fn topology(start: &str, on_error: &str) -> (Arc<Topology>, CommitSpec) {
    let text = format!(
        "name = \"p\"\nguarantee = \"at-least-once\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\nstart = \"{start}\"\n\
         [[node]]\nid = \"n\"\nfrom = \"s\"\nplugin = \"obedient\"\non_error = {on_error}\n\
         [[sink]]\nfrom = \"n\"\ntopic = \"out\"\n"
    );
    let manifest = Manifest::parse(&text).unwrap();
    let topology = Topology::link(
        &manifest,
        &BTreeMap::from([("n".to_owned(), obedient(pelton_streams::World::Transform))]),
    )
    .unwrap();
    (Arc::new(topology), manifest.commit)
}

fn run(world: &Arc<Mutex<World>>, on_error: &str) -> (Result<(), DriverError>, Arc<StatusBoard>) {
    run_from("earliest", Guarantee::AtLeastOnce, world, on_error)
}

fn run_exactly_once(world: &Arc<Mutex<World>>, on_error: &str) -> Result<(), DriverError> {
    run_from("earliest", Guarantee::ExactlyOnce, world, on_error).0
}

fn run_from(
    start: &str,
    guarantee: Guarantee,
    world: &Arc<Mutex<World>>,
    on_error: &str,
) -> (Result<(), DriverError>, Arc<StatusBoard>) {
    let (topology, commit) = topology(start, on_error);
    let board = StatusBoard::new(Arc::new(|| 7));
    let stop = Arc::new(StopSignal::default());
    let spec = DriverSpec {
        topology,
        lane: Lane::ONLY,
        guarantee,
        commit,
        factory: Arc::new(Factory(Arc::clone(&stop))),
        stores: Arc::new(MemoryStores::default()),
        globals: Arc::new(NoGlobals),
        cpu: || Box::new(|| 0),
        board: Arc::clone(&board),
        clock: Arc::new(|| 5_000),
        stop: Arc::clone(&stop),
    };
    let mut io = FakeIo { world: Arc::clone(world), known: None, guarantee, stop };
    (Driver::new(spec, &mut io).run(), board)
}

const FAIL: &str = "{ policy = \"fail\" }";

fn world(input: &[(i32, &[&str])]) -> Arc<Mutex<World>> {
    let mut world = World { created: Some(1), ..World::default() };
    for (partition, values) in input {
        world.produce(*partition, values);
    }
    Arc::new(Mutex::new(world))
}

#[test]
fn everything_goes_through_once_and_is_committed() {
    let world = world(&[(0, &["a", "drop", "b"]), (1, &["c"]), (0, &["d"])]);
    let (result, board) = run(&world, FAIL);
    result.unwrap();
    let mut values = world.lock().values();
    values.sort();
    assert_eq!(values, ["a", "b", "c", "d"]);
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 4), (1, 1)]));
    let status = board.snapshot();
    assert_eq!((status.totals.records_in, status.totals.records_out), (5, 4));
    assert!(status.tasks.iter().all(|task| task.lag == 0), "{status:?}");
}

/// What is written while the pipeline is paused is not passed over, even if it had not read anything before.
#[test]
fn latest_is_where_the_end_was_at_first() {
    let world = world(&[(0, &["before"])]);
    run_from("latest", Guarantee::AtLeastOnce, &world, FAIL).0.unwrap();
    assert_eq!(world.lock().events, [Event::Commit(0, 1)]);
    world.lock().produce(0, &["paused"]);
    run_from("latest", Guarantee::AtLeastOnce, &world, FAIL).0.unwrap();
    let paused = Event::Append(vec!["paused".to_owned()]);
    assert_eq!(world.lock().events, [Event::Commit(0, 1), paused, Event::Commit(0, 2)]);
}

#[test]
fn offsets_never_overtake_their_outputs() {
    let world = world(&[]);
    for i in 0..200 {
        let name = i.to_string();
        world.lock().produce(0, &[&name]);
    }
    run(&world, FAIL).0.unwrap();
    let mut appended = 0;
    for event in &world.lock().events {
        match event {
            Event::Append(values) => appended += values.len() as i64,
            Event::Commit(_, offset) => {
                assert!(*offset <= appended, "{offset} is committed, {appended} are appended")
            }
        }
    }
    assert_eq!(appended, 200);
}

#[test]
fn a_record_that_fails_stops_the_pipeline_exactly_there() {
    let world = world(&[(0, &["a", "b"]), (0, &["c", "trap", "d"])]);
    let (result, _) = run(&world, FAIL);
    let error = result.unwrap_err();
    let status = error.status(9);
    assert_eq!(
        (status.topic.as_deref(), status.partition, status.offset),
        (Some("in"), Some(0), Some(3)),
        "{error}"
    );
    assert_eq!(status.kind, "trapped");
    assert!(!error.is_transient());
    assert_eq!(world.lock().values(), ["a", "b", "c"]);
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 3)]), "the next start begins at the bad record");
}

#[test]
fn a_dead_letter_keeps_its_bytes_and_the_others_go_on() {
    let world = world(&[(0, &["a", "trap", "b"])]);
    let (result, board) = run(&world, "{ policy = \"dead-letter\", topic = \"dead\" }");
    result.unwrap();
    let mut values = world.lock().values();
    values.sort();
    assert_eq!(values, ["a", "b", "dead trap"]);
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 3)]));
    assert_eq!(board.snapshot().totals.dead_lettered, 1);
    assert!(
        board.log_since(0).0.iter().any(|line| line.line.text.contains("offset 1")),
        "the log names the record"
    );
}

#[test]
fn a_full_disk_commits_nothing_that_was_not_stored() {
    let world = world(&[(0, &["a"]), (1, &["b"])]);
    world.lock().appends_left = Some(1);
    let (result, _) = run(&world, FAIL);
    assert!(result.unwrap_err().is_transient());
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 1)]));
    // There is room again: the rest comes, and nothing twice.
    world.lock().appends_left = None;
    run(&world, FAIL).0.unwrap();
    assert_eq!(world.lock().values(), ["a", "b"]);
}

#[test]
fn without_a_commit_everything_comes_again() {
    let world = world(&[(0, &["a", "b"])]);
    world.lock().refuse_commits = true;
    assert!(run(&world, FAIL).0.unwrap_err().is_transient());
    world.lock().refuse_commits = false;
    run(&world, FAIL).0.unwrap();
    assert_eq!(world.lock().values(), ["a", "b", "a", "b"], "at least once");
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 2)]));
}

#[test]
fn a_restart_begins_inside_a_stored_batch() {
    let world = world(&[(0, &["a", "b", "c"])]);
    world.lock().committed.insert(0, 1);
    run(&world, FAIL).0.unwrap();
    assert_eq!(world.lock().values(), ["b", "c"]);
}

#[test]
fn calls_of_a_step_that_fails_are_counted() {
    let world = world(&[(0, &["trap"])]);
    let (_, board) = run(&world, FAIL);
    let totals = board.snapshot().totals;
    assert_eq!((totals.calls, totals.failed_calls), (1, 1));
}

#[test]
fn a_stop_does_not_wait_for_the_search_of_a_bad_record() {
    let mut values = vec!["fine"; 100];
    values[70] = "late and stopped";
    let world = world(&[(0, &values)]);
    let (result, board) = run(&world, FAIL);
    result.unwrap();
    assert_eq!(board.snapshot().totals.calls, 1, "no call is begun after the stop");
    assert_eq!(world.lock().committed.get(&0), None);
}

#[test]
fn exactly_once_outputs_and_offsets_are_one_transaction() {
    let world = world(&[(0, &["a", "drop", "b"]), (1, &["c"]), (0, &["d"])]);
    run_exactly_once(&world, FAIL).unwrap();
    let world = world.lock();
    let mut values = world.values();
    values.sort();
    assert_eq!(values, ["a", "b", "c", "d"]);
    assert_eq!(world.committed, BTreeMap::from([(0, 4), (1, 1)]));
    assert!(world.open.is_empty(), "nothing is left in an open transaction");
}

/// Whatever call fails, a new driver gives the rest, and no reader sees anything twice.
#[test]
fn exactly_once_a_broker_that_fails_at_any_append_doubles_nothing() {
    let values: Vec<String> = (0..60).map(|n| format!("value {n:02} {}", "x".repeat(200))).collect();
    for (fails_at, slow) in (0..40).flat_map(|at| [(at, false), (at, true)]) {
        let world = world(&[]);
        world.lock().slow_commits = slow;
        for (i, value) in values.iter().enumerate() {
            world.lock().produce((i % 3) as i32, &[value]);
        }
        world.lock().appends_left = Some(fails_at);
        let failed = run_exactly_once(&world, FAIL);
        if let Err(error) = failed {
            assert!(error.is_transient(), "{error}");
        }
        world.lock().appends_left = None;
        run_exactly_once(&world, FAIL).unwrap();
        let mut seen = world.lock().values();
        seen.sort();
        assert_eq!(seen, values, "after a failure at append {fails_at}, commits are slow: {slow}");
    }
}

#[test]
fn exactly_once_a_commit_that_fails_shows_nothing() {
    let world = world(&[(0, &["a", "b"])]);
    for at_once in [true, false] {
        world.lock().refuse_commits = at_once;
        world.lock().lose_commits = !at_once;
        assert!(run_exactly_once(&world, FAIL).unwrap_err().is_transient());
        assert!(world.lock().values().is_empty());
    }
    world.lock().lose_commits = false;
    run_exactly_once(&world, FAIL).unwrap();
    assert_eq!(world.lock().values(), ["a", "b"]);
}

#[test]
fn exactly_once_a_failing_record_neither_loses_nor_doubles_its_neighbours() {
    let world = world(&[(0, &["a", "b"]), (1, &["x", "y"]), (0, &["c", "trap", "d"])]);
    let error = run_exactly_once(&world, FAIL).unwrap_err();
    assert_eq!(error.status(9).offset, Some(3), "{error}");
    let mut values = world.lock().values();
    values.sort();
    assert_eq!(values, ["a", "b", "c", "x", "y"]);
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 3), (1, 2)]));
    // Started again, it stops at the same record, and nothing comes twice.
    run_exactly_once(&world, FAIL).unwrap_err();
    assert_eq!(world.lock().values().len(), 5);
}
