//! Drivers over a whole broker, on a disk that fails on command.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::Call;
use pelton_streams::testing::{TestRecord, write};
use pelton_streams::{
    BatchIn, BatchOut, Digest, InstanceSpec, InstantiateError, LoadError, Manifest, Plugin, PluginError,
    PluginFactory, PluginInfo,
};

use std::time::Duration;

use pelton_streams::manifest::MAX_THREADS;
use pelton_streams::manifest::values::Start;
use pelton_wire::record::Columns;

use super::committer::commit_of;
use super::*;
use crate::broker::{Broker, BrokerHandle, Deps};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::group::types::{OffsetToCommit, TopicPartition};
use crate::partition::{InternalRecord, Replayed, TxnMarker};
use crate::producer_id::ProducerIdentity;
use crate::topic_config::TopicConfig;
use crate::topics::NewTopic;
use pelton_pipelines::digest_of;
use pelton_pipelines::io::Position;

mod places;

/// Many times what a failed driver waits before it begins anew.
const PATIENCE: Duration = Duration::from_secs(10);

const MANIFEST: &str = "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n\
    [[node]]\nid = \"n\"\nfrom = \"s\"\nplugin = \"any\"\n[[sink]]\nfrom = \"n\"\ntopic = \"out\"\n";

/// Passes everything on.
struct PassOn;

impl Plugin for PassOn {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        Ok(BatchOut { source: (0..batch.records().count() as u32).collect(), ..BatchOut::default() })
    }
}

#[derive(Default)]
struct Factory(Mutex<BTreeSet<Digest>>);

impl PluginFactory for Factory {
    fn load(&self, digest: &Digest, component: &[u8]) -> Result<PluginInfo, LoadError> {
        self.0.lock().insert(*digest);
        let (world, bytes) = (pelton_streams::World::Transform, component.len() as u64);
        Ok(PluginInfo { digest: *digest, world, manifest: None, bytes })
    }

    fn loaded(&self) -> Vec<Digest> {
        self.0.lock().iter().copied().collect()
    }

    fn instantiate(&self, _: &Digest, _: &InstanceSpec) -> Result<Box<dyn Plugin>, InstantiateError> {
        Ok(Box::new(PassOn))
    }

    fn unload(&self, digest: &Digest) {
        self.0.lock().remove(digest);
    }
}

/// A broker with the topics `in` and `out`.
struct Lab {
    handle: BrokerHandle,
}

impl Lab {
    async fn start(disk: &SimStorage) -> Lab {
        let pairs = [
            ("data.dir", "/data"),
            ("listen", "127.0.0.1:0"),
            ("http.listen", "off"),
            ("pelton.journal.max.bytes", "33554432"),
            ("pelton.disk.free.min", "0"),
            ("offsets.topic.num.partitions", "1"),
            ("transaction.state.log.num.partitions", "1"),
        ];
        let factory: Arc<dyn PluginFactory> = Arc::new(Factory::default());
        let deps = Deps { storage: Arc::new(disk.clone()), plugins: Some(factory), ..Deps::default() };
        let lab = Lab { handle: Broker::start(Config::from_pairs(pairs).unwrap(), deps).await.unwrap() };
        lab.broker().groups.loaded().await.unwrap();
        for (name, partitions) in [("in", 2), ("out", 1)] {
            if lab.broker().topics.get(name).is_none() {
                let new = NewTopic { name: name.to_owned(), partitions, overrides: Default::default() };
                lab.broker().topics.create(new, 1).await.unwrap();
            }
        }
        lab
    }

    fn broker(&self) -> &Broker {
        self.handle.broker()
    }

    fn partition(&self, topic: &str, index: i32) -> Arc<Partition> {
        Arc::clone(self.broker().topics.get(topic).unwrap().partition(index).unwrap())
    }

    fn io_factory(&self) -> BrokerIoFactory {
        let broker = self.broker();
        BrokerIoFactory {
            topics: Arc::clone(&broker.topics),
            groups: broker.groups.clone(),
            transactions: broker.transactions.clone(),
            clock: Arc::clone(&broker.clock),
            runtime: Handle::current(),
            topic_defaults: TopicConfig::resolve(&Default::default(), &Default::default()),
        }
    }

    fn io(&self) -> Box<dyn PipelineIo> {
        self.io_of(0)
    }

    fn io_of(&self, lane: u32) -> Box<dyn PipelineIo> {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let plugins = Factory::default().load(&digest_of(b"pass on"), b"pass on").unwrap();
        let plugins = BTreeMap::from([("n".to_owned(), plugins)]);
        let topology = Arc::new(Topology::link(&manifest, &plugins).unwrap());
        let mut io = self.io_factory().open(&topology, lane, Guarantee::ExactlyOnce, Arc::default());
        io.changes().unwrap();
        io
    }

    /// A record in `in`, durable.
    async fn feed(&self, index: i32, value: &str) {
        let appended = self.partition("in", index).append_records(&[record(value)], now_ms()).unwrap();
        appended.durable().await.unwrap();
    }

    /// What a read-committed consumer sees of `out`, by the markers.
    fn committed(&self) -> Vec<String> {
        committed_in(&self.partition("out", 0)).into_iter().map(|(_, value)| value).collect()
    }

    fn nothing_is_open(&self) -> bool {
        let offsets = self.partition("out", 0).offsets();
        offsets.last_stable == offsets.log_end
    }
}

/// What a read-committed consumer sees of a partition that pipelines alone write to.
fn committed_in(partition: &Partition) -> Vec<(i64, String)> {
    let end = partition.offsets().last_stable;
    let (mut open, mut values) = (BTreeMap::<i64, Vec<(i64, String)>>::new(), Vec::new());
    let met = |met: Replayed<'_>| match met {
        Replayed::Record { offset, producer_id, value, .. } => {
            let producer_id = producer_id.expect("outputs are transactional");
            let value = String::from_utf8(value.unwrap().to_vec()).unwrap();
            open.entry(producer_id).or_default().push((offset, value));
        }
        Replayed::Marker { producer_id, commit } => {
            let ended = open.remove(&producer_id).unwrap_or_default();
            values.extend(ended.into_iter().filter(|(offset, _)| commit && *offset < end));
        }
    };
    partition.replay_until(0, end, met).unwrap();
    values.sort();
    values
}

/// The last stable offset moves a moment after a marker is durable.
async fn until(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "readers wait for ever");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What is older than a week goes while a test runs.
fn now_ms() -> i64 {
    SystemClock.now_ms()
}

fn record(value: &str) -> InternalRecord {
    InternalRecord { key: None, value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn input(partition: i32) -> Input {
    Input { source: 0, partition }
}

/// Begins as a driver does, and gives out `values` without committing them.
fn begin_and_append(io: &mut dyn PipelineIo, values: &[&str]) {
    io.begin().unwrap();
    for value in values {
        write(io, &[(0, 0, TestRecord { timestamp: now_ms(), ..TestRecord::value(*value) })]).unwrap();
        io.flush().unwrap();
    }
}

/// Drivers have a thread of their own, which may wait.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_open_is_aborted_by_the_next_driver() {
    for crash in [false, true] {
        let disk = SimStorage::new();
        let mut lab = Lab::start(&disk).await;
        let mut cut_off = lab.io();
        on_a_thread(move || begin_and_append(&mut *cut_off, &["a", "b"])).await;
        assert!(!lab.nothing_is_open(), "the rig: nothing was left open");
        if crash {
            // With this the outputs are durable too.
            lab.feed(0, "sync").await;
            disk.cut_power();
            drop(lab);
            disk.crash(3);
            lab = Lab::start(&disk).await;
        }
        let mut next = lab.io();
        on_a_thread(move || {
            assert!(!next.position(input(0), Start::Earliest).unwrap().committed);
            begin_and_append(&mut *next, &["a"]);
            let ticket = next.commit(&[(input(0), 1)]).unwrap();
            ticket.blocking_recv().unwrap().unwrap();
            let position = next.position(input(0), Start::Earliest).unwrap();
            assert_eq!(position, Position { offset: 1, committed: true, renewed: false });
        })
        .await;
        until(|| lab.nothing_is_open()).await;
        assert_eq!(lab.committed(), ["a"]);
        lab.handle.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_fails_leaves_nothing_open() {
    let lab = Lab::start(&SimStorage::new()).await;
    let mut failed = lab.io();
    on_a_thread(move || {
        begin_and_append(&mut *failed, &["a"]);
        failed.abandon().unwrap();
        // Should it go on all the same, it is fenced.
        failed.commit(&[(input(0), 1)]).unwrap_err();
    })
    .await;
    until(|| lab.nothing_is_open()).await;
    assert_eq!(lab.committed(), [""; 0]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_was_replaced_commits_no_offsets() {
    let lab = Lab::start(&SimStorage::new()).await;
    let (mut replaced, mut next) = (lab.io(), lab.io());
    on_a_thread(move || {
        // Without any output, so that there is no transaction.
        let commit = |io: &mut dyn PipelineIo, offset| {
            io.commit(&[(input(0), offset)]).unwrap().blocking_recv().unwrap()
        };
        replaced.begin().unwrap();
        commit(&mut *replaced, 1).unwrap();
        next.begin().unwrap();
        commit(&mut *replaced, 2).unwrap_err();
        let committed = |offset| Position { offset, committed: true, renewed: false };
        assert_eq!(next.position(input(0), Start::Earliest).unwrap(), committed(1));
        commit(&mut *next, 3).unwrap();
        assert_eq!(next.position(input(0), Start::Earliest).unwrap(), committed(3));
    })
    .await;
    lab.handle.shutdown().await.unwrap();
}

/// A pipeline that had more lanes: what those have left is aborted before anybody reads, and what is on its way from them comes
/// to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_are_gone_are_fenced() {
    let lab = Lab::start(&SimStorage::new()).await;
    let (mut idle, mut gone) = (lab.io_of(1), lab.io_of(2));
    let (factory, mut next) = (lab.io_factory(), lab.io());
    let open = lab.partition("out", 0);
    on_a_thread(move || {
        idle.begin().unwrap();
        begin_and_append(&mut *gone, &["a"]);
        let offsets = open.offsets();
        assert!(offsets.last_stable < offsets.log_end, "the rig: nothing was left open");
        factory.fence("p", 1..MAX_THREADS).unwrap();
        gone.commit(&[(input(1), 1)]).unwrap_err();
        let late = idle.commit(&[(input(0), 1)]).unwrap();
        late.blocking_recv().unwrap().unwrap_err();
        next.begin().unwrap();
        for partition in 0..2 {
            assert!(!next.position(input(partition), Start::Earliest).unwrap().committed);
        }
    })
    .await;
    until(|| lab.nothing_is_open()).await;
    assert_eq!(lab.committed(), [""; 0]);

    let known = lab.broker().transactions.list();
    let known: Vec<String> = known.iter().map(|txn| txn.id.to_string()).collect();
    assert_eq!(
        known,
        ["pelton.p", "pelton.p#1", "pelton.p#2"],
        "the first lane has the name of the group, and fencing makes no ids"
    );
    lab.handle.shutdown().await.unwrap();
}

/// Who starts a pipeline ends what lanes have left that it has no more: readers of what is committed would wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_starts_ends_what_earlier_lanes_have_left() {
    let lab = Lab::start(&SimStorage::new()).await;
    let mut gone = lab.io_of(2);
    on_a_thread(move || begin_and_append(&mut *gone, &["a"])).await;
    let supervisor = lab.broker().supervisor().unwrap();
    supervisor.push(Bytes::from_static(b"pass on")).await.unwrap();
    let plugins = BTreeMap::from([("n".to_owned(), digest_of(b"pass on"))]);
    for (manifest, value) in [(MANIFEST.to_owned(), "b"), (format!("threads = 2\n{MANIFEST}"), "c")] {
        supervisor.deploy(&manifest, &plugins).await.unwrap();
        lab.feed(0, value).await;
    }
    until_given(&lab, &["b".to_owned(), "c".to_owned()]).await;
    until(|| lab.nothing_is_open()).await;
    lab.handle.shutdown().await.unwrap();
}

/// Lanes do not fence each other: each ends its own transaction, in the same partitions.
#[tokio::test(flavor = "multi_thread")]
async fn lanes_commit_for_themselves() {
    let lab = Lab::start(&SimStorage::new()).await;
    let (mut first, mut second) = (lab.io_of(0), lab.io_of(1));
    on_a_thread(move || {
        let commit = |io: &mut dyn PipelineIo, partition, offset| {
            io.commit(&[(input(partition), offset)]).unwrap().blocking_recv().unwrap().unwrap();
        };
        begin_and_append(&mut *first, &["a"]);
        begin_and_append(&mut *second, &["b"]);
        commit(&mut *first, 0, 1);
        second.abandon().unwrap();
        begin_and_append(&mut *second, &["c"]);
        commit(&mut *second, 1, 7);
        let position = |partition| first.position(input(partition), Start::Earliest).unwrap().offset;
        assert_eq!((position(0), position(1)), (1, 7));
    })
    .await;
    until(|| lab.nothing_is_open()).await;
    assert_eq!(lab.committed(), ["a", "c"]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn input_counts_once_it_is_committed() {
    let lab = Lab::start(&SimStorage::new()).await;
    let (partition, io) = (lab.partition("in", 0), lab.io());
    let producer = ProducerIdentity { id: 9, epoch: 0 };
    let read = || {
        let mut records = Columns::new();
        let filled = io.fill(input(0), 0, &mut records).unwrap();
        (filled, records.offsets().to_vec())
    };
    for (round, commit) in [(0, true), (1, false)] {
        let open = partition.append_transactional(producer, &[record("x")], now_ms()).unwrap();
        open.durable().await.unwrap();
        let (filled, _) = read();
        assert_eq!((filled.next_offset, filled.end_offset), (2 * round, 2 * round), "it is open");
        partition
            .append_marker(TxnMarker { producer, commit, coordinator_epoch: None }, now_ms())
            .unwrap()
            .durable()
            .await
            .unwrap();
        until(|| read().0.end_offset == 2 * round + 2).await;
        let (filled, offsets) = read();
        assert_eq!(filled.next_offset, filled.end_offset);
        assert_eq!(offsets, [0], "what was aborted is passed over");
    }
    lab.handle.shutdown().await.unwrap();
}

async fn until_given(lab: &Lab, expect: &[String]) {
    let started = Instant::now();
    loop {
        let mut found = lab.committed();
        found.sort();
        if found == expect {
            return;
        }
        if found.len() > expect.len() || started.elapsed() > PATIENCE {
            let status = lab.broker().supervisor().unwrap().pipeline("p").unwrap().status;
            let offsets = [("in", 0), ("in", 1), ("out", 0)].map(|(t, i)| lab.partition(t, i).offsets());
            panic!("{found:?} was given out, not {expect:?}; {status:?} {offsets:?}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whichever write of a transaction finds the disk full, all of it comes, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_any_write_loses_and_doubles_nothing() {
    let disk = SimStorage::new();
    disk.set_room_max(Some(8 << 10));
    let lab = Lab::start(&disk).await;
    let supervisor = lab.broker().supervisor().unwrap();
    supervisor.push(Bytes::from_static(b"pass on")).await.unwrap();
    let plugins = BTreeMap::from([("n".to_owned(), digest_of(b"pass on"))]);
    supervisor.deploy(MANIFEST, &plugins).await.unwrap();
    let mut expect = Vec::new();
    // Of a transaction: open, decided, ended; offsets and their marker; output and its marker.
    for (file, writes) in [("__transaction_state-0", 3), ("__consumer_offsets-0", 2), ("/out-0", 2)] {
        for skip in 0..writes {
            // One that is awaited, so that the next commit is alone.
            for fails in [false, true] {
                if fails {
                    let log = format!("{file}/00000000000000000000.log");
                    disk.fail_after(Some(Call::Reserve), &log, skip, ErrorKind::StorageFull);
                }
                let value = format!("{:02} {file} {skip}", expect.len());
                lab.feed(i32::from(fails), &value).await;
                expect.push(value);
                until_given(&lab, &expect).await;
            }
            disk.clear_faults();
            // A pipeline that has failed waits longer and longer: this one begins anew.
            supervisor.set_paused("p", true).await.unwrap();
            supervisor.set_paused("p", false).await.unwrap();
        }
    }
    supervisor.set_paused("p", true).await.unwrap();
    until(|| lab.nothing_is_open()).await;
    let io = lab.io();
    let positions = on_a_thread(move || {
        [0, 1].map(|partition| io.position(input(partition), Start::Earliest).unwrap().offset)
    });
    assert_eq!(positions.await, [7, 7], "all of it is committed");
    lab.handle.shutdown().await.unwrap();
}

/// The log starts behind the first record of a transaction that is still open.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_starts_where_an_open_transaction_was_cut() {
    let lab = Lab::start(&SimStorage::new()).await;
    let partition = lab.partition("in", 0);
    let producer = ProducerIdentity { id: 7, epoch: 0 };
    let open = partition.append_transactional(producer, &[record("a"), record("b"), record("c")], now_ms());
    open.unwrap().durable().await.unwrap();
    partition.delete_before(2, now_ms()).unwrap();
    let io = lab.io();
    on_a_thread(move || {
        for start in [Start::Earliest, Start::Latest, Start::Offset(0), Start::Offset(9), Start::Timestamp(0)]
        {
            let position = io.position(input(0), start).unwrap();
            assert_eq!(position, Position { offset: 2, committed: false, renewed: false }, "{start:?}");
        }
    })
    .await;
    lab.handle.shutdown().await.unwrap();
}

/// A crash may come between the deletion of a topic and that of its offsets, and a commit may come after both.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_an_earlier_topic_means_nothing() {
    let lab = Lab::start(&SimStorage::new()).await;
    let broker = lab.broker();
    for value in ["a", "b", "c"] {
        lab.feed(0, value).await;
    }
    let mut before = lab.io();
    let before = on_a_thread(move || {
        before.begin().unwrap();
        before.commit(&[(input(0), 2)]).unwrap().blocking_recv().unwrap().unwrap();
        assert_eq!(before.position(input(0), Start::Earliest).unwrap().offset, 2);
        before
    });
    let mut before = before.await;
    broker.topics.delete(broker.topics.get("in").unwrap().id).await.unwrap();
    let new = NewTopic { name: "in".to_owned(), partitions: 1, overrides: Default::default() };
    broker.topics.create(new, 1).await.unwrap();
    for value in ["d", "e", "f"] {
        lab.feed(0, value).await;
    }
    let next = lab.io();
    on_a_thread(move || {
        // The driver that goes on says the same as one that starts.
        let changes = before.changes().unwrap();
        let renewed = [Change::Revoked { source: 0 }, Change::Assigned { source: 0, partitions: 0..1 }];
        assert!(changes.ends_with(&renewed), "{changes:?}");
        assert_eq!(before.changes().unwrap(), []);
        for io in [&before, &next] {
            for start in [Start::Earliest, Start::Latest] {
                let position = io.position(input(0), start).unwrap();
                assert_eq!(position, Position { offset: 0, committed: false, renewed: true }, "{start:?}");
            }
        }
        assert_eq!(next.fill(input(0), 0, &mut Columns::new()).unwrap().next_offset, 3);
    })
    .await;
    // Who sets an offset by hand means the topic that there is.
    let at = TopicPartition { topic: "in".into(), partition: 0 };
    let by_hand = OffsetToCommit { at, offset: 1, leader_epoch: -1, metadata: String::new() };
    let io = lab.io();
    broker.groups.commit("pelton.p", commit_of(vec![by_hand])).await.unwrap().remove(0).unwrap();
    on_a_thread(move || {
        let position = io.position(input(0), Start::Earliest).unwrap();
        assert_eq!(position, Position { offset: 1, committed: true, renewed: false });
    })
    .await;
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_change_are_followed() {
    let lab = Lab::start(&SimStorage::new()).await;
    let broker = lab.broker();
    let mut io = lab.io();
    assert_eq!(io.changes().unwrap(), [], "nothing has changed");
    broker.topics.grow("in", 4).await.unwrap();
    let output = Change::Output { output: 0, partitions: 1 };
    assert_eq!(io.changes().unwrap(), [output.clone(), Change::Assigned { source: 0, partitions: 2..4 }]);
    broker.topics.grow("out", 3).await.unwrap();
    assert_eq!(io.changes().unwrap(), [Change::Output { output: 0, partitions: 3 }]);
    broker.topics.delete(broker.topics.get("in").unwrap().id).await.unwrap();
    let output = Change::Output { output: 0, partitions: 3 };
    assert_eq!(io.changes().unwrap(), [output, Change::Revoked { source: 0 }]);
    broker.topics.delete(broker.topics.get("out").unwrap().id).await.unwrap();
    for _ in 0..2 {
        assert_eq!(io.changes().unwrap_err(), IoError::NoOutput { topic: "out".to_owned() });
    }
    let new = NewTopic { name: "out".to_owned(), partitions: 1, overrides: Default::default() };
    broker.topics.create(new, 1).await.unwrap();
    assert_eq!(io.changes().unwrap_err(), IoError::OutputRenewed { topic: "out".to_owned() });
    assert_eq!(lab.io().changes().unwrap(), [], "the next driver knows the new one");
    lab.handle.shutdown().await.unwrap();
}
