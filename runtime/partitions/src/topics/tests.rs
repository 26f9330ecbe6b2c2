//! Creations, growth and deletions over a disk that fails at each of their calls in turn. Nothing here has a thread of
//! its own: the journal writes when it is told to.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::Call;
use pelton_commitlog::{LogDirConfig, Threads};
use pelton_wire::ErrorCode;
use uuid::Uuid;

use super::{NewTopic, NotHere, TopicError, Topics};
use crate::clock::ManualClock;
use crate::data_dir::{self, Environment, Opened, Settings};
use crate::failure::Failure;
use crate::partition::{InternalRecord, ProducerLimits, Replayed};
use crate::topic_config::Overrides;

const NAME: &str = "t";
const CALLS: [Call; 12] = [
    Call::Open,
    Call::Read,
    Call::Write,
    Call::WriteSync,
    Call::Sync,
    Call::SyncDir,
    Call::SetLen,
    Call::Reserve,
    Call::Rename,
    Call::Remove,
    Call::CreateDir,
    Call::Ask,
];

/// One life of a catalogue.
pub(crate) struct Life {
    pub(crate) opened: Opened,
    failure: Failure,
}

impl Life {
    pub(crate) fn start(disk: &SimStorage) -> Life {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let new_id = || Uuid::from_u64_pair(NEXT_ID.fetch_add(1, Ordering::Relaxed), u64::MAX);
        let failure = Failure::default();
        let raise = failure.clone();
        let log_dir = LogDirConfig {
            threads: Threads::ByHand,
            journal_first_file_bytes: 32 << 10,
            journal_max_bytes: 64 << 10,
            disk_free_min: 0,
            on_failure: Arc::new(move |reason| raise.raise(reason)),
            ..LogDirConfig::default()
        };
        let settings = Settings {
            path: "/data".into(),
            log_dir,
            producers: ProducerLimits { expiration_ms: 86_400_000, max: 1000 },
            topic_defaults: Overrides::new(),
            max_partitions: 100,
        };
        let environment = Environment {
            clock: Arc::new(ManualClock::new(1)),
            storage: Arc::new(disk.clone()),
            new_id: Arc::new(new_id),
            failure: failure.clone(),
        };
        let opened = data_dir::open(settings, environment).expect("it starts");
        Life { opened, failure }
    }

    /// Lets the journal write until `work` is done.
    pub(crate) async fn drive<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let work = tokio::spawn(work);
        while !work.is_finished() {
            tokio::task::yield_now().await;
            // A failure reaches the work through what it waits for.
            drop(self.opened.log_dir.step());
            std::thread::yield_now();
        }
        work.await.unwrap()
    }

    fn has_failed(&self) -> bool {
        self.failure.reason().is_some() || self.opened.log_dir.failure().is_some()
    }

    /// Writes to every partition of the topic and reads it again.
    async fn use_topic(&self, partitions: usize) {
        let topic = self.opened.topics.get(NAME).expect("the topic is there");
        assert_eq!(topic.local.len(), partitions);
        for partition in &topic.local {
            let value = format!("{}", partition.index());
            let record = InternalRecord { key: None, value: Some(value.clone().into()) };
            let base = partition.append_records(&[record], 1).expect("the partition takes records");
            self.drive(base.durable()).await.expect("the disk works");
            let mut last = None;
            let take = |met: Replayed<'_>| {
                if let Replayed::Record { value, .. } = met {
                    last = value.map(<[u8]>::to_vec);
                }
            };
            partition.replay(0, take).expect("the partition reads");
            assert_eq!(last, Some(value.into_bytes()));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Create,
    Grow,
    Delete,
}

/// A change of a topic, which may have an intake.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Change {
    kind: Kind,
    routed: bool,
}

pub(crate) fn routed() -> Overrides {
    Overrides::from([("pelton.partitioner".to_owned(), "murmur2".to_owned())])
}

impl Change {
    fn creation(self) -> Change {
        Change { kind: Kind::Create, ..self }
    }

    async fn make(self, topics: Arc<Topics>) -> Result<(), TopicError> {
        match self.kind {
            Kind::Create => {
                let overrides = if self.routed { routed() } else { Overrides::new() };
                let new = NewTopic { name: NAME.into(), partitions: 2, overrides };
                topics.create(new, 1).await.map(drop)
            }
            Kind::Grow => topics.grow(NAME, 4).await.map(drop),
            Kind::Delete => {
                let topic = topics.get(NAME).ok_or_else(|| TopicError::Unknown(NAME.into()))?;
                topics.delete(topic.id).await.map(drop)
            }
        }
    }

    /// Brings the topic to where the change leads, whatever an earlier attempt has come to, and uses its name.
    async fn complete(self, life: &Life) {
        let topics = Arc::clone(&life.opened.topics);
        let partitions = |topics: &Topics| topics.get(NAME).map(|topic| topic.local.len());
        let (done, before) = match self.kind {
            Kind::Create => (Some(2), None),
            Kind::Grow => (Some(4), Some(2)),
            Kind::Delete => (None, Some(2)),
        };
        let now = partitions(&topics);
        assert!(now == done || now == before, "{now:?}");
        if now != done {
            let made = life.drive(self.make(Arc::clone(&topics))).await;
            made.expect("the disk works again");
        }
        match done {
            Some(count) => life.use_topic(count).await,
            None => {
                let made = life.drive(self.creation().make(topics)).await;
                made.expect("the name of a deleted topic is free");
                life.use_topic(2).await;
            }
        }
        self.check_intakes(life).await;
    }

    /// The topic has its intake, with as many partitions at least; what a failure has left can be removed.
    async fn check_intakes(self, life: &Life) {
        let topics = &life.opened.topics;
        let topic = topics.get(NAME).expect("the topic is there");
        let intake = topics.intake(&topic).expect("a topic has the intake that it should have");
        assert_eq!(intake.is_some(), self.routed);
        if let Some(intake) = &intake {
            assert!(intake.partition_count >= topic.partition_count);
            assert!(intake.local.iter().all(|partition| partition.intake().is_some()));
        }
        for left in topics.list().iter().filter(|left| crate::intake::owner_of(&left.name).is_some()) {
            let (topics, id) = (Arc::clone(topics), left.id);
            let deleted = life.drive(async move { topics.delete_orphan(id).await }).await;
            deleted.expect("the disk works");
        }
        let count = topics.list().len();
        assert_eq!(count, if self.routed { 2 } else { 1 }, "an orphan goes, an intake in use stays");
    }
}

fn in_a_life<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(work)
}

/// A disk with what must be there before a change.
fn disk_before(change: Change) -> SimStorage {
    let disk = SimStorage::new();
    in_a_life(async {
        let life = Life::start(&disk);
        if change.kind != Kind::Create {
            let made = life.drive(change.creation().make(Arc::clone(&life.opened.topics))).await;
            made.unwrap();
        }
        let (topics, log_dir) = (Arc::clone(&life.opened.topics), Arc::clone(&life.opened.log_dir));
        life.drive(crate::blocking::run_blocking(move || {
            topics.close();
            log_dir.close().unwrap();
        }))
        .await;
    });
    disk
}

/// What a change at whose call number `skip` the disk fails leaves behind. False when it has no such call.
fn fails_at(change: Change, before: &SimStorage, skip: u64, kind: ErrorKind, crash: Option<u64>) -> bool {
    let disk = before.fork();
    let calls = |disk: &SimStorage| CALLS.iter().map(|call| disk.calls(*call)).sum::<u64>();
    let fired = in_a_life(async {
        let life = Life::start(&disk);
        let calls_before = calls(&disk);
        disk.fail_after(None, "", skip, kind);
        let outcome = life.drive(change.make(Arc::clone(&life.opened.topics))).await;
        let fired = calls(&disk) - calls_before > skip;
        disk.clear_faults();
        assert!(fired || outcome.is_ok(), "{outcome:?}");
        if crash.is_none() && !life.has_failed() {
            change.complete(&life).await;
        }
        fired
    });
    if let Some(seed) = crash {
        disk.cut_power();
        disk.crash(seed);
    }
    in_a_life(async {
        let life = Life::start(&disk);
        change.complete(&life).await;
    });
    fired
}

#[test]
fn a_change_that_fails_half_way_leaves_the_name_usable() {
    let kinds = [Kind::Create, Kind::Grow, Kind::Delete];
    for (kind, routed) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let change = Change { kind, routed };
        let before = disk_before(change);
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            for crash in [None, Some(1), Some(2)] {
                let failed = (0..).take_while(|skip| {
                    println!("{change:?} fails at call {skip} with {kind}, then crashes: {crash:?}");
                    fails_at(change, &before, *skip, kind, crash)
                });
                let failed = failed.count();
                assert!(failed > 5, "{change:?} has more calls than {failed}");
            }
        }
    }
}

#[tokio::test]
async fn a_partition_that_another_broker_leads_is_not_here() {
    let life = Life::start(&SimStorage::new());
    let topics = &life.opened.topics;
    let new = NewTopic { name: NAME.to_owned(), partitions: 3, overrides: Overrides::new() };
    let create = {
        let topics = Arc::clone(topics);
        async move { topics.create(new, 1).await }
    };
    let topic = life.drive(create).await.expect("the disk works");
    assert!((0..3).all(|index| topics.partition(NAME, index).is_ok_and(|found| found.index() == index)));
    topics.adopt(topic.facts(), vec![Arc::clone(&topic.local[0]), Arc::clone(&topic.local[2])]);
    let not_here = |topic: &str, index: i32| topics.partition(topic, index).map(|found| found.index());
    assert_eq!([0, 2].map(|index| not_here(NAME, index)), [Ok(0), Ok(2)]);
    assert_eq!(not_here(NAME, 1), Err(NotHere::NotLeader));
    assert_eq!([-1, 3].map(|index| not_here(NAME, index)), [Err(NotHere::UnknownPartition); 2]);
    assert_eq!(not_here("another", 0), Err(NotHere::UnknownTopic));
    assert_eq!(NotHere::NotLeader.code(), ErrorCode::NOT_LEADER_OR_FOLLOWER);
}
