//! Fetch: waiting, limits, and readers that catch up.

use std::time::{Duration, Instant};

use pelton_wire::ErrorCode;
use pelton_wire::message::fetch::FetchTopic;
use pelton_wire::message::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use pelton_wire::message::metadata::MetadataRequestTopic;
use pelton_wire::message::{FetchRequest, ListOffsetsRequest, MetadataRequest};
use pelton_wire::record::{BatchOptions, Codec};

use crate::client::{Server, batch, batch_at, fetch, records, values};

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_woken_by_data() {
    let server = Server::start().await;
    let (mut reader, mut writer) = (server.client().await, server.client().await);
    writer.create_topic("t", 2, &[]).await;
    let waiting = reader.send(11, &fetch("t", 0, 0, 1 << 20, 15_000)).await;
    reader.still_waits().await;
    let started = Instant::now();
    writer.append("t", 0, &["news"]).await;
    let response = reader.receive::<FetchRequest>(11, waiting).await;
    assert!(started.elapsed() < Duration::from_secs(2), "not after half of its wait");
    assert_eq!(values(&response.responses[0].partitions[0]), ["news"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn min_bytes_and_the_end_of_the_wait() {
    let server = Server::start().await;
    let (mut reader, mut writer) = (server.client().await, server.client().await);
    writer.create_topic("t", 1, &[]).await;
    let patient = FetchRequest { min_bytes: 1000, ..fetch("t", 0, 0, 1 << 20, 15_000) };
    let waiting = reader.send(11, &patient).await;
    writer.append("t", 0, &["small"]).await;
    writer.append("t", 0, &[&"x".repeat(1000)]).await;
    let response = reader.receive::<FetchRequest>(11, waiting).await;
    assert_eq!(records(&response.responses[0].partitions[0]).len(), 2);

    let started = Instant::now();
    let response = reader.call(11, &fetch("t", 0, 2, 1 << 20, 300)).await;
    assert!(started.elapsed() >= Duration::from_millis(300), "nothing came, so it waits");
    let data = &response.responses[0].partitions[0];
    assert_eq!((data.error_code, records(data).len(), data.high_watermark), (ErrorCode::NONE, 0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_answered_at_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    client.append("t", 0, &["a"]).await;
    let check = async |client: &mut crate::client::Client, request: FetchRequest, expect: ErrorCode| {
        let started = Instant::now();
        let response = client.call(11, &request).await;
        assert_eq!(response.responses[0].partitions[0].error_code, expect);
        assert!(started.elapsed() < Duration::from_secs(5));
    };
    check(&mut client, fetch("t", 0, 2, 1000, 15_000), ErrorCode::OFFSET_OUT_OF_RANGE).await;
    check(&mut client, fetch("t", 0, -1, 1000, 15_000), ErrorCode::OFFSET_OUT_OF_RANGE).await;
    check(&mut client, fetch("t", 7, 0, 1000, 15_000), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).await;
    check(&mut client, fetch("x", 0, 0, 1000, 15_000), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).await;
    let epoch = |epoch: i32| {
        let mut request = fetch("t", 0, 0, 1000, 15_000);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        request
    };
    check(&mut client, epoch(1000), ErrorCode::UNKNOWN_LEADER_EPOCH).await;
    let session = FetchRequest { session_id: 5, session_epoch: 1, ..fetch("t", 0, 0, 1000, 0) };
    assert_eq!(client.call(11, &session).await.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_named_often_is_answered_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    client.append("t", 0, &["a"]).await;
    let mut request = fetch("t", 0, 0, 1 << 20, 0);
    let named = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = vec![named.clone(); 5000];
    request.topics.push(FetchTopic { partitions: vec![named], ..request.topics[0].clone() });
    let response = client.call(11, &request).await;
    assert_eq!(response.responses.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [1]);
    assert_eq!(values(&response.responses[0].partitions[0]), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_by_id() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    client.append("t", 0, &["a"]).await;
    let topics = Some(vec![MetadataRequestTopic { name: Some("t".into()), ..Default::default() }]);
    let metadata = client.call(12, &MetadataRequest { topics, ..Default::default() }).await;
    let by_id = |id| {
        let mut request = fetch("", 0, 0, 1000, 1000);
        request.topics = vec![FetchTopic { topic_id: id, ..request.topics.remove(0) }];
        request
    };
    let response = client.call(16, &by_id(metadata.topics[0].topic_id)).await;
    assert_eq!(values(&response.responses[0].partitions[0]), ["a"]);
    let response = client.call(16, &by_id(uuid::Uuid::from_u128(99))).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
}

/// Small segments, every codec, batches of all sizes: every record must come exactly once whatever the size of the fetch,
/// from memory and, after a restart, from files.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_catches_up_gets_every_record_once() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[("segment.bytes", "300000")]).await;
    let codecs = [Codec::None, Codec::Lz4, Codec::Zstd, Codec::Gzip, Codec::Snappy];
    let mut expect: Vec<(i64, String)> = Vec::new();
    for i in 0..200_usize {
        let sent: Vec<String> =
            (0..1 + i % 17).map(|j| format!("{i}-{j}-{}", "y".repeat((i * 37 + j * 91) % 3000))).collect();
        let refs: Vec<&str> = sent.iter().map(String::as_str).collect();
        let batch = batch(BatchOptions { codec: codecs[i % 5], ..Default::default() }, &refs);
        let base = client.produce("t", 0, 1, batch).await.base_offset;
        expect.extend((base..).zip(sent));
    }
    let server = catch_up(server, &expect).await.restart(&[]).await;
    catch_up(server, &expect).await;
}

async fn catch_up(server: Server, expect: &[(i64, String)]) -> Server {
    let mut client = server.client().await;
    for size in (10..=23).map(|power| 1 << power) {
        let (mut got, mut next, mut fetches) = (Vec::new(), 0, 0);
        while next < expect.len() as i64 {
            let data = client.fetch("t", 0, next, size).await;
            assert_eq!(data.error_code, ErrorCode::NONE);
            let more = records(&data);
            assert!(!more.is_empty(), "a fetch of {size} bytes at {next} must get on");
            got.extend(more.into_iter().filter(|(offset, _)| *offset >= next));
            next = got.last().unwrap().0 + 1;
            fetches += 1;
        }
        assert!(got == expect, "fetches of {size} bytes");
        assert!(fetches >= expect.len() as i32 / 2_000 || size > 1 << 20);
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_over_partitions() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 3, &[]).await;
    for partition in 0..3 {
        client.append("t", partition, &[&"z".repeat(5000)]).await;
    }
    let mut request = fetch("t", 0, 0, 100, 1000);
    let first = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..3)
        .map(|partition| pelton_wire::message::fetch::FetchPartition {
            partition,
            partition_max_bytes: 6000,
            ..first.clone()
        })
        .collect();
    let counts = async |client: &mut crate::client::Client, max_bytes: i32| {
        let request = FetchRequest { max_bytes, ..request.clone() };
        let response = client.call(11, &request).await;
        response.responses[0].partitions.iter().map(|p| records(p).len()).collect::<Vec<_>>()
    };
    assert_eq!(counts(&mut client, 1).await, [1, 0, 0], "one batch goes out whole, however small the limit");
    assert_eq!(counts(&mut client, 11_000).await, [1, 1, 0]);
    assert_eq!(counts(&mut client, 50_000).await, [1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_by_time() {
    let server = Server::start().await;
    let mut client = server.client().await;
    // Records of 1970: without this the first round of retention may delete them while they are asked for.
    client.create_topic("t", 1, &[("segment.bytes", "2000"), ("retention.ms", "-1")]).await;
    for i in 0..50 {
        let sent = batch_at(BatchOptions::default(), 1_000_000 + i * 1000, &["a", "b", "c"]);
        assert_eq!(client.produce("t", 0, -1, sent).await.base_offset, i * 3);
    }
    let check = async |client: &mut crate::client::Client, timestamp: i64, offset: i64| {
        assert_eq!(client.offset_at("t", 0, timestamp).await, (ErrorCode::NONE, offset), "{timestamp}");
    };
    check(&mut client, -1, 150).await;
    check(&mut client, -2, 0).await;
    check(&mut client, -3, 149).await;
    check(&mut client, -4, 0).await;
    check(&mut client, 0, 0).await;
    check(&mut client, 1_000_000, 0).await;
    check(&mut client, 1_000_001, 1).await;
    check(&mut client, 1_000_003, 3).await;
    check(&mut client, 1_030_002, 92).await;
    check(&mut client, 1_049_002, 149).await;
    check(&mut client, 1_049_003, -1).await;
    assert_eq!(client.offset_at("t", 1, 0).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(client.offset_at("t", 0, -9).await.0, ErrorCode::INVALID_REQUEST);

    // Each look-up by time may unpack a batch: a partition is looked up once a request, as in Kafka.
    let asked = ListOffsetsPartition { timestamp: 1_000_001, ..Default::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![asked.clone(), asked] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let response = client.call(7, &request).await;
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|found| found.error_code).collect();
    assert_eq!(codes, [ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_REQUEST]);
}

/// The limit holds for what is taken: what was taken under a higher one stays readable.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_unpacks_to_much_is_found_by_time() {
    let server = Server::with(&[("pelton.decompression.max.bytes", "134217728")]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[("retention.ms", "-1")]).await;
    let value = "much ".repeat(14 << 20);
    let sent = batch_at(BatchOptions { codec: Codec::Lz4, ..BatchOptions::default() }, 1_000_000, &[&value]);
    assert_eq!(client.produce("t", 0, -1, sent).await.error_code, ErrorCode::NONE);
    let server = server.restart(&[]).await;
    assert_eq!(server.client().await.offset_at("t", 0, 999_999).await, (ErrorCode::NONE, 0));
}
