//! A disk that fails: what clients are told, and that nothing acknowledged is lost.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pelton_broker::{Broker, BrokerHandle, Config, Deps};
use pelton_commitlog::storage::sim::Call;
use pelton_commitlog::storage::{SimStorage, Storage};
use pelton_wire::ErrorCode;
use pelton_wire::message::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use pelton_wire::message::{DeleteRecordsRequest, DeleteTopicsRequest};
use pelton_wire::record::BatchOptions;

use crate::client::{Client, batch, values};
use crate::gate::{Gate, GatedDisk, Waits};

async fn start(disk: &SimStorage) -> BrokerHandle {
    start_on(Arc::new(disk.clone())).await
}

pub(crate) async fn start_on(storage: Arc<dyn Storage>) -> BrokerHandle {
    start_with(storage, &[]).await
}

/// A broker over a disk of its own, with these settings too.
pub(crate) async fn start_with(storage: Arc<dyn Storage>, more: &[(&str, &str)]) -> BrokerHandle {
    let pairs = [
        ("data.dir", "/data"),
        ("listen", "127.0.0.1:0"),
        ("http.listen", "off"),
        ("pelton.journal.max.bytes", "33554432"),
        ("pelton.disk.free.min", "0"),
    ];
    let deps = Deps { storage, ..Deps::default() };
    let own = pairs.into_iter().filter(|(key, _)| more.iter().all(|(other, _)| other != key));
    let config = Config::from_pairs(own.chain(more.iter().copied())).unwrap();
    Broker::start(config, deps).await.unwrap()
}

async fn produce(client: &mut Client, value: &str) -> (ErrorCode, i64) {
    let result = client.produce("t", 0, -1, batch(BatchOptions::default(), &[value])).await;
    (result.error_code, result.base_offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_is_told_and_is_final() {
    let disk = SimStorage::new();
    let handle = start(&disk).await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[]).await;
    assert_eq!(produce(&mut client, "safe").await, (ErrorCode::NONE, 0));
    disk.fail_after(Some(Call::WriteSync), "journal", 0, ErrorKind::Other);
    assert_eq!(produce(&mut client, "unknown").await, (ErrorCode::KAFKA_STORAGE_ERROR, -1));
    let reason = tokio::time::timeout(Duration::from_secs(10), handle.failed()).await.unwrap();
    assert!(reason.contains("journal"), "{reason}");
    assert_eq!(produce(&mut client, "refused").await, (ErrorCode::KAFKA_STORAGE_ERROR, -1));
    assert_eq!(
        values(&client.fetch("t", 0, 0, 1000).await),
        ["safe"],
        "what was not acknowledged is not shown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_not_final() {
    let disk = SimStorage::new();
    let handle = start(&disk).await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[]).await;
    disk.set_room_max(Some(8 << 10));
    assert_eq!(produce(&mut client, "before").await, (ErrorCode::NONE, 0));
    disk.fail_after(Some(Call::Reserve), "t-0", 0, ErrorKind::StorageFull);
    assert_eq!(produce(&mut client, "no room").await, (ErrorCode::KAFKA_STORAGE_ERROR, -1));
    assert_eq!(produce(&mut client, "after").await, (ErrorCode::NONE, 1));
    assert_eq!(values(&client.fetch("t", 0, 0, 1000).await), ["before", "after"]);
    assert_eq!(handle.failure(), None);
    handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    for seed in 0..20 {
        let disk = SimStorage::new();
        let handle = start(&disk).await;
        let mut client = Client::connect(handle.addr()).await;
        client.create_topic("t", 1, &[]).await;
        // The topic, then a few appends, then the lights go out at one of the next syncs.
        disk.cut_power_at_sync_point(disk.sync_points() + 1 + seed % 7);
        let mut acknowledged = Vec::new();
        for i in 0..10 {
            let value = format!("value {i}");
            match produce(&mut client, &value).await {
                (ErrorCode::NONE, offset) => acknowledged.push((offset, value)),
                (code, _) => assert_eq!(code, ErrorCode::KAFKA_STORAGE_ERROR),
            }
        }
        assert!(acknowledged.len() < 10, "the cut came too late to show anything");
        drop(client);
        drop(handle);
        disk.crash(seed);

        let handle = start(&disk).await;
        let mut client = Client::connect(handle.addr()).await;
        let found = crate::client::records(&client.fetch("t", 0, 0, 1 << 20).await);
        assert_eq!(found[..acknowledged.len()], acknowledged[..], "seed {seed}");
        handle.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_do_not_wait_for_files_to_be_removed() {
    let disk = SimStorage::new();
    let gate = Gate::new();
    let held = gate.hold();
    let handle = start_on(Arc::new(GatedDisk::new(&disk, Waits::Removals, &gate))).await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[("segment.bytes", "100")]).await;
    for i in 0..5 {
        assert_eq!(produce(&mut client, &format!("value {i}")).await, (ErrorCode::NONE, i));
    }
    let mut other = Client::connect(handle.addr()).await;
    let deleting = tokio::spawn(async move {
        let partition = DeleteRecordsPartition { partition_index: 0, offset: 3 };
        let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
        other.call(2, &request).await.topics[0].partitions[0].low_watermark
    });
    gate.until_one_waits().await;
    assert_eq!(produce(&mut client, "meanwhile").await, (ErrorCode::NONE, 5));
    assert_eq!(values(&client.fetch("t", 0, 3, 1000).await), ["value 3", "value 4", "meanwhile"]);
    // A topic of the same name, made anew, must not lose its files to the old one.
    let deleted = tokio::spawn(async move {
        let request = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
        assert_eq!(client.call(5, &request).await.responses[0].error_code, ErrorCode::NONE);
        client.create_topic("t", 1, &[]).await;
        assert_eq!(produce(&mut client, "new").await, (ErrorCode::NONE, 0));
        client
    });
    let is_gone = async {
        while handle.broker().topics.get("t").is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), is_gone)
        .await
        .expect("it goes, and waits with coming back");
    drop(held);
    assert_eq!(deleting.await.unwrap(), 3);
    let mut client = deleted.await.unwrap();
    assert_eq!(values(&client.fetch("t", 0, 0, 1000).await), ["new"]);
    handle.shutdown().await.unwrap();
    assert!(disk.exists(Path::new("/data/topics/t-0/00000000000000000000.log")).unwrap());
}
