//! Pipelining: requests of one connection are answered in their order, whatever they are.

use std::time::{Duration, Instant};

use pelton_wire::message::{ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest};
use pelton_wire::record::BatchOptions;
use pelton_wire::{ApiKey, ErrorCode};

use crate::client::{Server, batch, fetch, frame, produce, values, versions_request};

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let mut sent = Vec::new();
    for round in 0..50_i64 {
        let batch = batch(BatchOptions::default(), &[&format!("value {round}")]);
        sent.push((client.send(9, &produce("t", 0, -1, batch)).await, round));
        sent.push((client.send(12, &MetadataRequest::default()).await, -1));
    }
    for (correlation_id, round) in sent {
        if round < 0 {
            client.receive::<MetadataRequest>(12, correlation_id).await;
            continue;
        }
        let response = client.receive::<ProduceRequest>(9, correlation_id).await;
        let result = &response.responses[0].partition_responses[0];
        assert_eq!((result.error_code, result.base_offset), (ErrorCode::NONE, round), "appended in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_does_not_hold_up_the_append_behind_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let waiting = client.send(11, &fetch("t", 0, 0, 1 << 20, 15_000)).await;
    let appended = client.send(9, &produce("t", 0, -1, batch(BatchOptions::default(), &["own"]))).await;
    let started = Instant::now();
    let response = client.receive::<FetchRequest>(11, waiting).await;
    assert_eq!(values(&response.responses[0].partitions[0]), ["own"]);
    client.receive::<ProduceRequest>(9, appended).await;
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_wait_are_still_answered() {
    let server = Server::with(&[("pelton.max.pipelined.requests", "3")]).await;
    let mut client = server.client().await;
    let frames: Vec<u8> =
        (0..500).flat_map(|id| frame(ApiKey::ApiVersions, 3, id, &versions_request())).collect();
    client.send_bytes(&frames).await;
    for id in 0..500 {
        client.receive::<ApiVersionsRequest>(3, id).await;
    }
}
