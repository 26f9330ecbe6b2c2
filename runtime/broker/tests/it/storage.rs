//! A disk that fails: what clients are told, and that nothing acknowledged is lost.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use pelton_broker::{Broker, BrokerHandle, Config, Deps};
use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::Call;
use pelton_wire::ErrorCode;
use pelton_wire::record::BatchOptions;

use crate::client::{Client, batch, values};

async fn start(disk: &SimStorage) -> BrokerHandle {
    let pairs = [
        ("data.dir", "/data"),
        ("listen", "127.0.0.1:0"),
        ("http.listen", "off"),
        ("pelton.journal.max.bytes", "33554432"),
        ("pelton.disk.free.min", "0"),
    ];
    let deps = Deps { storage: Arc::new(disk.clone()), ..Deps::default() };
    Broker::start(Config::from_pairs(pairs).unwrap(), deps).await.unwrap()
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
    assert_eq!(produce(&mut client, "before").await, (ErrorCode::NONE, 0));
    disk.fail_after(Some(Call::Write), "t-0", 0, ErrorKind::StorageFull);
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
