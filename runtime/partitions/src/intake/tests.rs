//! Intakes over a simulated disk whose journal writes when it is told to, so every moment between an append and its sync can
//! be looked at.

use pelton_commitlog::storage::SimStorage;
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch};

use super::*;
use crate::partition::{PartitionAppendError, TxnMarker};
use crate::producer_id::ProducerIdentity;
use crate::topic_config::{Durability, Overrides, TopicConfig};
use crate::topics::tests::{Life, routed};
use crate::topics::{NewTopic, Topic};

const PRODUCER: ProducerIdentity = ProducerIdentity { id: 40, epoch: 0 };

/// Three partitions of an intake.
struct Rig {
    life: Life,
    intake: Arc<Topic>,
}

impl Rig {
    async fn start(disk: &SimStorage) -> Rig {
        let life = Life::start(disk);
        let topics = Arc::clone(&life.opened.topics);
        let topic = match topics.get("t") {
            Some(topic) => topic,
            None => {
                let new = NewTopic { name: "t".to_owned(), partitions: 3, overrides: routed() };
                let topics = Arc::clone(&topics);
                life.drive(async move { topics.create(new, 1).await }).await.expect("the disk works")
            }
        };
        let intake = topics.intake(&topic).unwrap().expect("the topic has an intake");
        Rig { life, intake }
    }

    /// Appends records of no producer, or of a transaction; the first offset.
    async fn append(&self, partition: usize, records: usize, transaction: Option<i32>) -> i64 {
        let partition = Arc::clone(&self.intake.local[partition]);
        let room = partition.room(1000).await.expect("the journal takes appends");
        let appended =
            partition.append_client(batch(records, transaction), &room, 1, Durability::Group, None);
        appended.expect("the partition takes records").base_offset
    }

    fn mark(&self, partition: usize, commit: bool) {
        let marker = TxnMarker { producer: PRODUCER, commit, coordinator_epoch: None };
        self.intake.local[partition].append_marker(marker, 1).expect("the partition takes markers");
    }

    async fn sync(&self) {
        let log_dir = Arc::clone(&self.life.opened.log_dir);
        self.life
            .drive(crate::blocking::run_blocking(move || log_dir.flush()))
            .await
            .expect("the disk works");
    }

    fn limits(&self) -> Vec<i64> {
        order_limits(&self.intake.local.iter().collect::<Vec<_>>())
    }
}

fn batch(records: usize, transaction: Option<i32>) -> CheckedBatch {
    let of_producer = |base_sequence| BatchOptions {
        producer_id: PRODUCER.id,
        producer_epoch: PRODUCER.epoch,
        base_sequence,
        transactional: true,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(transaction.map_or_else(BatchOptions::default, of_producer));
    for _ in 0..records {
        builder.append(1, Some(b"k"), Some(&[b'v'; 100]), &[]).unwrap();
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn offsets_say_in_which_order_batches_came_whatever_their_partition() {
    let disk = SimStorage::new();
    let rig = Rig::start(&disk).await;
    assert_eq!(rig.append(0, 2, None).await, 0);
    assert_eq!(rig.append(2, 1, None).await, 2);
    assert_eq!(rig.append(1, 3, None).await, 3);
    assert_eq!(rig.append(0, 1, None).await, 6);
    rig.sync().await;
    let (topics, log_dir) = (Arc::clone(&rig.life.opened.topics), Arc::clone(&rig.life.opened.log_dir));
    rig.life
        .drive(crate::blocking::run_blocking(move || {
            topics.close();
            log_dir.close().unwrap();
        }))
        .await;
    drop(rig);
    let rig = Rig::start(&disk).await;
    assert_eq!(rig.append(2, 1, None).await, 7, "a start goes on behind the largest end");
    let topics = Arc::clone(&rig.life.opened.topics);
    let grown = rig.life.drive(async move { topics.grow("t", 4).await }).await.unwrap();
    let intake = rig.life.opened.topics.intake(&grown).unwrap().unwrap();
    let rig = Rig { intake, ..rig };
    assert_eq!(rig.append(3, 1, None).await, 8, "a partition that is added joins");
}

#[tokio::test]
async fn what_is_not_durable_holds_back_all_that_is_behind_it_and_nothing_else_does() {
    let rig = Rig::start(&SimStorage::new()).await;
    assert_eq!(rig.limits(), [0; 3]);
    rig.append(0, 2, None).await;
    rig.append(1, 1, None).await;
    assert_eq!(rig.limits(), [0; 3], "the first record is on its way to the disk");
    rig.sync().await;
    assert_eq!(rig.limits(), [3; 3]);
    // Partition 2 has a hole before its first record.
    rig.append(2, 1, None).await;
    rig.append(0, 1, None).await;
    assert_eq!(rig.limits(), [3; 3]);
    rig.sync().await;
    assert_eq!(rig.limits(), [5; 3]);
    rig.append(1, 1, None).await;
    assert_eq!(rig.limits(), [5; 3], "the hole of partition 1 begins at 3, its record at 5");
    rig.sync().await;
    rig.append(1, 1, Some(0)).await;
    rig.sync().await;
    rig.mark(1, true);
    assert_eq!(rig.limits()[0], 7, "a marker on its way holds up no other partition");
    assert_eq!(rig.limits()[1], 6, "its own goes no further than what it decides");
    rig.sync().await;
    assert_eq!(rig.limits(), [7; 3]);
}

#[tokio::test]
async fn an_open_transaction_holds_back_its_own_partitions() {
    let rig = Rig::start(&SimStorage::new()).await;
    rig.append(0, 1, None).await;
    rig.append(0, 1, Some(0)).await;
    rig.append(1, 1, None).await;
    rig.append(1, 1, Some(0)).await;
    rig.append(2, 1, None).await;
    rig.sync().await;
    assert_eq!(rig.limits(), [1, 3, 5]);
    // The coordinator ends it in one partition after the other.
    rig.mark(1, true);
    rig.sync().await;
    assert_eq!(rig.limits(), [1, 1, 5], "what is decided there may belong behind what is not decided here");
    rig.mark(0, true);
    assert_eq!(rig.limits(), [1, 1, 5], "a marker counts when it is durable");
    rig.sync().await;
    assert_eq!(rig.limits(), [5; 3]);
}

#[tokio::test]
async fn what_is_not_routed_is_counted() {
    let rig = Rig::start(&SimStorage::new()).await;
    let intake = Arc::clone(rig.intake.local[0].intake().unwrap());
    let bytes = batch(100, None).len() as u64;
    for _ in 0..20 {
        rig.append(0, 100, None).await;
    }
    rig.append(1, 100, None).await;
    assert_eq!(intake.unrouted_bytes(), 21 * bytes);
    rig.intake.local[0].routed(100);
    assert!(intake.unrouted_bytes() <= 21 * bytes && intake.unrouted_bytes() > 12 * bytes, "in whole pieces");
    rig.intake.local[0].routed(2_000);
    assert_eq!(intake.unrouted_bytes(), bytes, "all of one partition");
    rig.intake.local[1].routed(2_100);
    assert_eq!(intake.unrouted_bytes(), 0);
    rig.intake.local[1].routed(3_000);
    assert_eq!(intake.unrouted_bytes(), 0);
}

#[tokio::test]
async fn a_copy_takes_no_offsets() {
    let rig = Rig::start(&SimStorage::new()).await;
    assert_eq!(rig.append(0, 1, Some(0)).await, 0);
    assert_eq!(rig.append(1, 1, None).await, 1);
    assert_eq!(rig.append(0, 1, Some(0)).await, 0);
    assert_eq!(rig.append(1, 1, None).await, 2);
    let room = rig.intake.local[0].room(1000).await.unwrap();
    let refused = rig.intake.local[0].append_client(batch(1, Some(7)), &room, 1, Durability::Group, None);
    assert!(matches!(refused, Err(PartitionAppendError::Log(_))), "{refused:?}");
    assert_eq!(rig.append(1, 1, None).await, 3, "nor does what is refused");
}

#[test]
fn an_intake_keeps_everything_and_is_synced() {
    let settings = TopicConfig::resolve(
        &Overrides::from([("retention.ms".into(), "5".into()), ("pelton.durability".into(), "os".into())]),
        &intake_settings(),
    );
    assert_eq!((settings.retention_ms, settings.retention_bytes), (None, None));
    assert!(settings.delete && !settings.compact && !settings.log_append_time);
    assert_eq!((settings.durability, settings.partitioner), (Durability::Group, None));
    let id = Uuid::from_u128(7);
    assert_eq!(owner_of(&intake_of(id)), Some(id));
    assert_eq!(owner_of("flights"), None);
    assert!(pelton_wire::topic_name::is_internal(&intake_of(id)));
}
