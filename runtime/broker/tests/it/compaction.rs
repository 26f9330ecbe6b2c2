//! Topics are compacted while the broker serves them, and those that cannot be do not stop the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pelton_partitions::partition::Partition;
use pelton_partitions::partition::clean::Cleaning;
use pelton_wire::ErrorCode;
use pelton_wire::codec::Records;
use pelton_wire::message::IncrementalAlterConfigsRequest;
use pelton_wire::message::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use pelton_wire::record::{BatchBuilder, BatchOptions, Codec, batches};

use crate::client::{Client, Server, records, until};

const QUICK: [(&str, &str); 3] = [
    ("log.cleaner.backoff.ms", "10"),
    ("pelton.checkpoint.interval.ms", "20"),
    ("pelton.log.tail.cache.bytes", "0"),
];
const COMPACTED: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("segment.bytes", "2000"), ("min.cleanable.dirty.ratio", "0")];

fn keyed(codec: Codec, pairs: &[(String, String)]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for (key, value) in pairs {
        builder.append(1_000, Some(key.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

/// Writes values of a few keys, most of them superseded; the last value of each.
async fn fill(client: &mut Client, topic: &str, rounds: usize) -> BTreeMap<String, String> {
    let mut table = BTreeMap::new();
    for round in 0..rounds {
        let pairs: Vec<_> =
            (0..5).map(|n| (format!("key-{n}"), format!("{round}-{n}-{}", "x".repeat(50)))).collect();
        let codec = if round % 2 == 0 { Codec::None } else { Codec::Lz4 };
        let result = client.produce(topic, 0, -1, keyed(codec, &pairs)).await;
        assert_eq!(result.error_code, ErrorCode::NONE);
        table.extend(pairs);
    }
    table
}

/// What a consumer from the beginning reads, in small fetches: records with their offsets.
async fn read(client: &mut Client, topic: &str) -> Vec<(i64, String)> {
    let (mut at, mut all) = (0, Vec::new());
    loop {
        let data = client.fetch(topic, 0, at, 500).await;
        assert_eq!(data.error_code, ErrorCode::NONE);
        all.extend(records(&data).into_iter().filter(|(offset, _)| *offset >= at));
        let Some(Records::Bytes(bytes)) = &data.records else { panic!("a fetch has records") };
        // As consumers do: on behind the last batch, which may have lost its last records.
        let Some(last) = batches(bytes).last() else {
            assert_eq!(at, data.high_watermark, "nothing was found before the end");
            return all;
        };
        at = last.unwrap().header().next_offset();
    }
}

fn partition(server: &Server, topic: &str) -> Arc<Partition> {
    server.handle.broker().topics.partition(topic, 0).unwrap()
}

fn cleaning(server: &Server, topic: &str) -> Cleaning {
    partition(server, topic).cleaning().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_from_the_beginning_finds_the_last_value_of_each_key() {
    let server = Server::with(&QUICK).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &COMPACTED).await;
    client.create_topic("kept", 1, &[("segment.bytes", "2000")]).await;
    let table = fill(&mut client, "t", 60).await;
    fill(&mut client, "kept", 20).await;
    // A clean ends at the last checkpoint's place in the journal, so it takes as many as there are checkpoints meanwhile:
    // only what is left to read tells that the last of them has been.
    let mut found = Vec::new();
    until("it is compacted", async || {
        found = read(&mut client, "t").await;
        found.len() < 100
    })
    .await;
    let values: Vec<&String> = found.iter().rev().take(5).rev().map(|(_, value)| value).collect();
    assert_eq!(values, table.values().collect::<Vec<_>>());
    assert_eq!(found.last().unwrap().0, 299, "offsets never change");
    assert_eq!(read(&mut client, "kept").await.len(), 100);
    assert_eq!(partition(&server, "kept").cleaning(), None);
    // And so it is after a start.
    let server = server.restart(&QUICK).await;
    let mut client = server.client().await;
    assert_eq!(read(&mut client, "t").await.last().unwrap().0, 299);
    server.handle.shutdown().await.unwrap();
}

async fn set(client: &mut Client, topic: &str, name: &str, value: &str) {
    let config = AlterableConfig { name: name.into(), config_operation: 0, value: Some(value.into()) };
    let resource =
        AlterConfigsResource { resource_type: 2, resource_name: topic.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_eq!(client.call(1, &request).await.responses[0].error_code, ErrorCode::NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_hold_from_the_next_look_on() {
    let server = Server::with(&QUICK).await;
    let mut client = server.client().await;
    let lazy = [("cleanup.policy", "compact"), ("segment.bytes", "2000"), ("min.cleanable.dirty.ratio", "1")];
    client.create_topic("t", 1, &lazy).await;
    fill(&mut client, "t", 30).await;
    until("it is dirty", async || cleaning(&server, "t").dirty_ratio == 1.0).await;
    assert_eq!(cleaning(&server, "t").runs, 0, "not more than the ratio");
    set(&mut client, "t", "min.cleanable.dirty.ratio", "0.5").await;
    until("it is compacted", async || cleaning(&server, "t").runs > 0).await;
    server.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_compacted_says_why_and_stops_no_other() {
    let off = [QUICK[1], QUICK[2], ("log.cleaner.enable", "false")];
    let server = Server::with(&off).await;
    let mut client = server.client().await;
    for topic in ["rotten", "sound"] {
        client.create_topic(topic, 1, &COMPACTED).await;
        fill(&mut client, topic, 40).await;
    }
    let dir = Arc::clone(&server.dir);
    server.handle.shutdown().await.unwrap();
    let path = dir.path().join("topics/rotten-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let server = Server::in_dir(dir, &QUICK).await;
    until("the sound one is compacted", async || cleaning(&server, "sound").runs > 0).await;
    until("the other one says why not", async || cleaning(&server, "rotten").uncleanable.is_some()).await;
    let reason = cleaning(&server, "rotten").uncleanable.unwrap();
    assert!(reason.contains("rotten-0/00000000000000000000.log") && reason.contains("corrupt"), "{reason}");
    server.handle.shutdown().await.unwrap();
}
