//! Requests of transactional producers, and markers, that are out of the ordinary.

use bytes::Bytes;
use pelton_wire::ErrorCode;
use pelton_wire::message::produce::PartitionProduceData;
use pelton_wire::message::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use pelton_wire::message::*;
use pelton_wire::record::BatchOptions;

use crate::client::{Server, batch, produce};
use crate::transactions::*;

fn transactional(producer: Producer, value: &str) -> Bytes {
    let options = BatchOptions {
        producer_id: producer.0,
        producer_epoch: producer.1,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    batch(options, &[value])
}

/// As Apache Kafka 4.4 answers: a transactional id is asked about only for what is transactional.
#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_not_transactional_are_taken_with_any_transactional_id() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    let request = |id: &str, acks, batch| ProduceRequest {
        transactional_id: Some(id.into()),
        ..produce("t", 0, acks, batch)
    };
    let mut taken = 0;
    for version in [9, OLDER_PRODUCE, NEWER_PRODUCE] {
        for (id, acks) in [("unknown", -1), ("unknown", 1), (ID, -1)] {
            let request = request(id, acks, batch(BatchOptions::default(), &["plain"]));
            let answer =
                client.call(version, &request).await.responses.remove(0).partition_responses.remove(0);
            assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::NONE, taken), "{version} {id}");
            taken += 1;
        }
        let request = request("unknown", -1, transactional(producer, "none's"));
        let answer = client.call(version, &request).await.responses.remove(0).partition_responses.remove(0);
        assert_eq!(answer.error_code, ErrorCode::INVALID_PRODUCER_ID_MAPPING, "{version}");
    }
    // acks=1 waits for as much here as acks=all.
    let request = request(ID, 1, transactional(producer, "of the leader"));
    let answer = client.call(NEWER_PRODUCE, &request).await.responses.remove(0).partition_responses.remove(0);
    assert_eq!(answer.error_code, ErrorCode::NONE);
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut client, true).await.last().unwrap(), "of the leader");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_adds_its_partitions_to_the_transaction_in_one_record() {
    const PARTITIONS: i32 = 50;
    let server = Server::with(&[("transaction.state.log.num.partitions", "1")]).await;
    let mut client = server.client().await;
    client.create_topic("t", PARTITIONS, &[]).await;
    let producer = init(&mut client).await;
    let states = server.handle.broker().topics.get("__transaction_state").unwrap();
    let records = || states.partition(0).unwrap().log_end_offset();
    let before = records();
    let mut request = produce("t", 0, -1, Bytes::new());
    let index = |index| PartitionProduceData { index, records: Some(transactional(producer, "a")) };
    request.topic_data[0].partition_data = (0..PARTITIONS).map(index).collect();
    // And one that is not there, and one of another producer.
    request.topic_data[0].partition_data.push(index(PARTITIONS));
    request.topic_data[0].partition_data[7].records = Some(transactional((producer.0, 9), "fenced"));
    request.transactional_id = Some(ID.into());
    let answer = client.call(NEWER_PRODUCE, &request).await.responses.remove(0).partition_responses;
    for (at, partition) in answer.iter().enumerate() {
        let expect = match i32::try_from(at).unwrap() {
            7 => ErrorCode::INVALID_PRODUCER_EPOCH,
            PARTITIONS => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            _ => ErrorCode::NONE,
        };
        assert_eq!((partition.index, partition.error_code), (at as i32, expect));
    }
    assert_eq!(records() - before, 1);
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::NONE);
    let topic = server.handle.broker().topics.get("t").unwrap();
    for partition in &topic.local {
        let offsets = partition.offsets();
        let expect = if partition.index() == 7 { 0 } else { 2 };
        assert_eq!(
            (offsets.last_stable, offsets.high_watermark),
            (expect, expect),
            "the record and its marker"
        );
    }
}

/// As Apache Kafka 4.4 answers.
#[tokio::test(flavor = "multi_thread")]
async fn markers_of_an_older_coordinator_are_refused() {
    let server = Server::with(&[("offsets.topic.num.partitions", "1")]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "a").await, ErrorCode::NONE);
    assert_eq!(commit_offset(&mut client, NEWER_OFFSETS, producer, 1).await, ErrorCode::NONE);
    let marker = |topic: &str, producer_epoch, coordinator_epoch| WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: producer.0,
            producer_epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic { name: topic.into(), partition_indexes: vec![0] }],
            coordinator_epoch,
            ..Default::default()
        }],
    };
    for topic in ["t", "__consumer_offsets"] {
        for (epoch, coordinator_epoch, expect) in [
            (producer.1, 5, ErrorCode::NONE),
            (producer.1, 3, ErrorCode::TRANSACTION_COORDINATOR_FENCED),
            (producer.1, 5, ErrorCode::NONE),
            (producer.1 + 1, 6, ErrorCode::NONE),
            (producer.1, 6, ErrorCode::INVALID_PRODUCER_EPOCH),
        ] {
            let answer = client.call(1, &marker(topic, epoch, coordinator_epoch)).await;
            let code = answer.markers[0].topics[0].partitions[0].error_code;
            assert_eq!(code, expect, "{topic} {epoch} {coordinator_epoch}");
        }
    }
    // The broker's own coordinator was replaced by none: it still ends what its producers write.
    let next = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, next, 0, "b").await, ErrorCode::NONE);
    assert_eq!(commit_offset(&mut client, NEWER_OFFSETS, next, 2).await, ErrorCode::NONE);
    assert_eq!(end(&mut client, NEWER_END, next, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut client, true).await, ["b"]);
    assert_eq!(committed(&mut client, true).await, (ErrorCode::NONE, 2));
}
