//! Produce: what is taken, what is refused, and with which code.

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_producers::TopicRequest;
use pelton_wire::message::metadata::MetadataRequestTopic;
use pelton_wire::message::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use pelton_wire::message::{
    DescribeProducersRequest, EndTxnRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest,
    WriteTxnMarkersRequest,
};
use pelton_wire::record::{BatchOptions, CheckedBatch, Codec};

use crate::client::{Client, Server, batch, batch_at, fetch, produce, records, values};
use crate::transactions::{NEWER_END, NEWER_PRODUCE};

#[tokio::test(flavor = "multi_thread")]
async fn every_codec_and_acks_reads_back() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let mut expect = Vec::new();
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        for acks in [1, -1] {
            let sent = [format!("{codec} {acks} first"), format!("{codec} {acks} second")];
            let batch = batch(BatchOptions { codec, ..Default::default() }, &[&sent[0], &sent[1]]);
            let result = client.produce("t", 0, acks, batch).await;
            assert_eq!((result.error_code, result.base_offset), (ErrorCode::NONE, expect.len() as i64));
            expect.extend(sent);
        }
    }
    let data = client.fetch("t", 0, 0, 1 << 20).await;
    assert_eq!(values(&data), expect);
    assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (20, 20, 0));
    let inside = client.fetch("t", 0, 3, 1 << 20).await;
    assert_eq!(records(&inside)[0].0, 2, "an offset inside a batch gives the whole batch");
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_0_has_no_answer_and_an_error_closes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    client.send(9, &produce("t", 0, 0, batch(BatchOptions::default(), &["quiet"]))).await;
    // The next answer on the connection is that of the fetch.
    let response = client.call(11, &fetch("t", 0, 0, 1 << 20, 10_000)).await;
    assert_eq!(values(&response.responses[0].partitions[0]), ["quiet"]);
    client.send(9, &produce("nowhere", 0, 0, batch(BatchOptions::default(), &["lost"]))).await;
    assert!(client.receive_frame().await.is_none(), "the connection is closed");
}

async fn refused(client: &mut Client, request: &ProduceRequest, expect: ErrorCode) {
    let response = client.call(9, request).await;
    let got = &response.responses[0].partition_responses[0];
    assert_eq!((got.error_code, got.base_offset), (expect, -1), "{:?}", got.error_message);
    assert!(got.error_message.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[("max.message.bytes", "2000")]).await;
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    let plain = || batch(BatchOptions::default(), &["v"]);
    refused(&mut client, &produce("t", 9, -1, plain()), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).await;
    refused(&mut client, &produce("t", -1, -1, plain()), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).await;
    refused(&mut client, &produce("nowhere", 0, -1, plain()), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).await;
    refused(&mut client, &produce("t", 0, 2, plain()), ErrorCode::INVALID_REQUIRED_ACKS).await;
    refused(&mut client, &produce("compacted", 0, -1, plain()), ErrorCode::INVALID_RECORD).await;
    let large = batch(BatchOptions::default(), &[&"x".repeat(2000)]);
    refused(&mut client, &produce("t", 0, -1, large), ErrorCode::MESSAGE_TOO_LARGE).await;
    let internal = produce("__cluster_metadata", 0, -1, plain());
    refused(&mut client, &internal, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION).await;
    let options = BatchOptions {
        producer_id: 1,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    let transactional = produce("t", 0, -1, batch(options, &["v"]));
    let transactional = ProduceRequest { transactional_id: Some("x".into()), ..transactional };
    refused(&mut client, &transactional, ErrorCode::INVALID_PRODUCER_ID_MAPPING).await;
    let mut flipped = plain().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    refused(&mut client, &produce("t", 0, -1, flipped.into()), ErrorCode::CORRUPT_MESSAGE).await;
    assert_eq!(client.append("t", 0, &["still works"]).await, 0, "nothing refused was written");
}

/// Kafka takes the smaller of `min.insync.replicas` and the number of replicas (KAFKA-15583).
#[tokio::test(flavor = "multi_thread")]
async fn one_replica_is_enough_where_there_is_one() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("copies", 1, &[("min.insync.replicas", "2")]).await;
    assert_eq!(client.append("copies", 0, &["v"]).await, 0);
}

/// A value of millions of equal bytes is a few hundred bytes of zstd: what it unpacks to is bounded, not by how much.
#[tokio::test(flavor = "multi_thread")]
async fn dull_records_are_taken() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("dull", 1, &[]).await;
    for (codec, offset) in [(Codec::Gzip, 0), (Codec::Zstd, 1)] {
        let options = BatchOptions { codec, ..BatchOptions::default() };
        let result = client.produce("dull", 0, -1, batch(options, &[&"x".repeat(15_000_000)])).await;
        assert_eq!((result.error_code, result.base_offset), (ErrorCode::NONE, offset), "{codec}");
    }
}

/// Batch `first..first + count` of a producer.
fn sequenced(producer_id: i64, epoch: i16, first: i32, count: usize) -> BatchOptions {
    let _ = count;
    BatchOptions { producer_id, producer_epoch: epoch, base_sequence: first, ..Default::default() }
}

/// What producing the first batch of a producer is answered.
async fn first_of(client: &mut Client, producer_id: i64) -> ErrorCode {
    let batch = batch_at(sequenced(producer_id, 0, 0, 1), now(), &["v"]);
    client.produce("t", 0, -1, batch).await.error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_id_that_nobody_was_given_is_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let refused = ErrorCode::INVALID_PRODUCER_ID_MAPPING;
    assert_eq!(first_of(&mut client, 0).await, refused, "none was given yet");
    let given = client.producer_id().await;
    assert_eq!(first_of(&mut client, given).await, ErrorCode::NONE);
    for invented in [given + 1_000_000, i64::MAX] {
        assert_eq!(first_of(&mut client, invented).await, refused);
        let topic = WritableTxnMarkerTopic { name: "t".into(), partition_indexes: vec![0] };
        let producer_id = invented;
        let marker = WritableTxnMarker { producer_id, topics: vec![topic], ..Default::default() };
        let request = WriteTxnMarkersRequest { markers: vec![marker] };
        let answer = client.call(1, &request).await;
        assert_eq!(answer.markers[0].topics[0].partitions[0].error_code, refused);
    }
    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    assert_eq!(first_of(&mut client, given).await, ErrorCode::NONE, "given before the restart: a copy");
    assert_eq!(first_of(&mut client, given + 1_000_000).await, refused);
    let next = client.producer_id().await;
    assert!(next > given, "no id is given twice");
    assert_eq!(first_of(&mut client, next).await, ErrorCode::NONE);
}

/// In a data directory of a version that took any id.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_id_that_is_in_a_log_is_given_to_no_other() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let known = 7_000_000;
    let topic = server.handle.broker().topics.get("t").unwrap();
    let written = batch_at(sequenced(known, 0, 0, 1), now(), &["v"]);
    topic
        .partition(0)
        .unwrap()
        .append_internal(CheckedBatch::check(written).unwrap(), now())
        .unwrap()
        .durable()
        .await
        .unwrap();
    drop(topic);
    assert_eq!(first_of(&mut client, known).await, ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    let next = batch_at(sequenced(known, 0, 1, 1), now(), &["v"]);
    assert_eq!(client.produce("t", 0, -1, next).await.error_code, ErrorCode::NONE);
    assert_eq!(first_of(&mut client, known + 1).await, ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(client.producer_id().await, known + 1);
    let server = server.restart(&[]).await;
    assert!(server.client().await.producer_id().await > known + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_remembers_so_many_producers() {
    let server = Server::with(&[("pelton.partition.producers.max", "3")]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(client.producer_id().await);
        assert_eq!(first_of(&mut client, *ids.last().unwrap()).await, ErrorCode::NONE);
    }
    let topic = TopicRequest { name: "t".into(), partition_indexes: vec![0] };
    let described = client.call(0, &DescribeProducersRequest { topics: vec![topic] }).await;
    let known = &described.topics[0].partitions[0].active_producers;
    assert_eq!(known.iter().map(|p| p.producer_id).collect::<Vec<_>>(), ids[7..]);
    let is_copy = batch_at(sequenced(ids[9], 0, 0, 1), now(), &["v"]);
    assert_eq!(client.produce("t", 0, -1, is_copy).await.base_offset, 9, "the newest are known");
    // Transactions hold their place.
    let mut ending = Vec::new();
    for id in ["a", "b", "c"] {
        let transactional_id = Some(id.to_owned());
        let init = InitProducerIdRequest {
            transactional_id: transactional_id.clone(),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
        };
        let producer_id = client.call(4, &init).await.producer_id;
        let transactional = BatchOptions { transactional: true, ..sequenced(producer_id, 0, 0, 1) };
        let written = produce("t", 0, -1, batch_at(transactional, now(), &["v"]));
        let written = client.call(NEWER_PRODUCE, &ProduceRequest { transactional_id, ..written }).await;
        assert_eq!(written.responses[0].partition_responses[0].error_code, ErrorCode::NONE);
        let transactional_id = id.to_owned();
        ending.push(EndTxnRequest { transactional_id, producer_id, producer_epoch: 0, committed: true });
    }
    let late = client.producer_id().await;
    assert_eq!(first_of(&mut client, late).await, ErrorCode::NOT_ENOUGH_REPLICAS, "retriable");
    assert_eq!(client.call(NEWER_END, &ending[1]).await.error_code, ErrorCode::NONE);
    assert_eq!(first_of(&mut client, late).await, ErrorCode::NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_get_their_first_offset() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let pid = client.producer_id().await;
    let other = client.producer_id().await;
    assert_ne!(other, pid);
    let send = async |client: &mut Client, epoch: i16, first: i32| {
        let batch = batch_at(sequenced(pid, epoch, first, 2), now(), &["a", "b"]);
        let result = client.produce("t", 0, -1, batch).await;
        (result.error_code, result.base_offset)
    };
    for i in 0..6 {
        assert_eq!(send(&mut client, 0, 2 * i).await, (ErrorCode::NONE, i64::from(2 * i)));
    }
    for i in 1..6 {
        assert_eq!(
            send(&mut client, 0, 2 * i).await,
            (ErrorCode::NONE, i64::from(2 * i)),
            "one of the last five"
        );
    }
    assert_eq!(
        send(&mut client, 0, 0).await.0,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        "the sixth is forgotten"
    );
    assert_eq!(send(&mut client, 0, 14).await.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, "a gap");
    assert_eq!(
        send(&mut client, 1, 5).await.0,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        "a new epoch starts at 0"
    );
    assert_eq!(send(&mut client, 1, 0).await, (ErrorCode::NONE, 12));
    assert_eq!(send(&mut client, 0, 12).await.0, ErrorCode::INVALID_PRODUCER_EPOCH);
    let data = client.fetch("t", 0, 0, 1 << 20).await;
    assert_eq!(records(&data).len(), 14);

    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    assert_eq!(
        send(&mut client, 1, 0).await,
        (ErrorCode::NONE, 12),
        "the last batch is known after a restart"
    );
    assert_eq!(send(&mut client, 1, 2).await, (ErrorCode::NONE, 14));
    assert!(client.producer_id().await > other, "ids are not given out twice");
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn append_time_is_answered_and_stored() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let before = now();
    let result = client.produce("t", 0, -1, batch_at(BatchOptions::default(), 1, &["a", "b"])).await;
    assert!(result.log_append_time_ms >= before);
    assert_eq!(client.offset_at("t", 0, before).await, (ErrorCode::NONE, 0));
    assert_eq!(client.offset_at("t", 0, result.log_append_time_ms + 1).await, (ErrorCode::NONE, -1));
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_creates_topics_unless_told_not_to() {
    let server = Server::with(&[("num.partitions", "3")]).await;
    let mut client = server.client().await;
    let ask = |name: &str, allow: bool| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]),
        allow_auto_topic_creation: allow,
        ..Default::default()
    };
    let response = client.call(12, &ask("new", false)).await;
    assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let response = client.call(12, &ask("new", true)).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].partitions.len()), (ErrorCode::NONE, 3));
    assert_eq!(response.brokers[0].port, i32::from(server.handle.addr().port()));
    let id = response.topics[0].topic_id;
    assert!(!id.is_nil());
    let response = client.call(12, &ask("in valid", true)).await;
    assert_eq!(response.topics[0].error_code, ErrorCode::INVALID_TOPIC_EXCEPTION);
    let by_id = MetadataRequestTopic { topic_id: id, name: None };
    let request = MetadataRequest { topics: Some(vec![by_id]), ..Default::default() };
    assert_eq!(client.call(12, &request).await.topics[0].name.as_deref(), Some("new"));

    let server = Server::with(&[("auto.create.topics.enable", "false")]).await;
    let response = server.client().await.call(12, &ask("new", true)).await;
    assert_eq!(response.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}
