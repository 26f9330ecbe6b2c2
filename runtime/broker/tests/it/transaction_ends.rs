//! Ends of transactions in a race, and ends of epochs.

use std::sync::Arc;
use std::time::Duration;

use pelton_broker::BrokerHandle;
use pelton_commitlog::storage::SimStorage;
use pelton_wire::ErrorCode;
use pelton_wire::message::InitProducerIdRequest;

use crate::client::{Client, Server};
use crate::storage::start_on;
use crate::transactions::*;

/// The last epoch that a producer is given.
const LAST_EPOCH: i16 = i16::MAX - 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_and_a_time_out_agree_on_who_was_first() {
    const ROUNDS: u64 = 24;
    const TIMEOUT_MS: i32 = 40;
    let setting = ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1");
    let server = Server::with(&[setting]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    for (version, produce) in [(OLDER_END, OLDER_PRODUCE), (NEWER_END, NEWER_PRODUCE)] {
        let mut outcomes = [0, 0];
        for round in 0..ROUNDS {
            let given = try_init(&mut client, TIMEOUT_MS, (-1, -1)).await;
            let producer = (given.producer_id, given.producer_epoch);
            if version == OLDER_END {
                assert_eq!(add(&mut client, producer, "t").await, ErrorCode::NONE);
            }
            let value = format!("{version} {round}");
            match write(&mut client, produce, producer, 0, &value).await {
                ErrorCode::NONE => {}
                // The machine was slower than the time-out.
                ErrorCode::INVALID_PRODUCER_EPOCH => {
                    assert!(!seen(&mut client, true).await.contains(&value), "{value} was refused");
                    continue;
                }
                other => panic!("{value}: {other}"),
            }
            // From long before its time to long after it.
            tokio::time::sleep(Duration::from_millis(round * 80 / ROUNDS)).await;
            let code = end(&mut client, version, producer, true).await.0;
            let there = seen(&mut client, true).await.contains(&value);
            match code {
                ErrorCode::NONE => assert!(there, "{value} was committed"),
                ErrorCode::PRODUCER_FENCED if version == OLDER_END => {
                    assert!(!there, "{value} was aborted")
                }
                ErrorCode::INVALID_TXN_STATE if version == NEWER_END => {
                    assert!(!there, "{value} was aborted")
                }
                other => panic!("{value}: {other}"),
            }
            outcomes[usize::from(there)] += 1;
        }
        assert!(outcomes.iter().all(|count| *count > 0), "no race: {outcomes:?}");
    }
}

/// A broker whose syncs cost nothing: epochs are many.
async fn quick() -> BrokerHandle {
    start_on(Arc::new(SimStorage::new())).await
}

/// Uses epochs up to this one.
async fn use_epochs(client: &mut Client, up_to: i16) -> Producer {
    const WINDOW: usize = 100;
    let mut producer = init(client).await;
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
    };
    while producer.1 < up_to {
        let mut asked = Vec::new();
        for _ in 0..WINDOW.min(usize::from((up_to - producer.1).unsigned_abs())) {
            asked.push(client.send(4, &request).await);
        }
        for id in asked {
            let given = client.receive::<InitProducerIdRequest>(4, id).await;
            assert_eq!((given.error_code, given.producer_epoch), (ErrorCode::NONE, producer.1 + 1));
            producer = (given.producer_id, given.producer_epoch);
        }
    }
    producer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_protocol_goes_on_with_a_new_producer_id_after_the_last_epoch() {
    let handle = quick().await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[]).await;
    let mut producer = use_epochs(&mut client, LAST_EPOCH - 1).await;
    let first = producer;
    let mut values = Vec::new();
    for (number, epoch) in [(0, LAST_EPOCH - 1), (1, LAST_EPOCH), (2, 0), (3, 1)] {
        assert_eq!(producer.1, epoch);
        assert_eq!(producer.0 == first.0, epoch > 1, "a new id from epoch 0 on");
        let value = number.to_string();
        assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, &value).await, ErrorCode::NONE);
        values.push(value);
        let (code, next) = end(&mut client, NEWER_END, producer, true).await;
        assert_eq!(code, ErrorCode::NONE);
        assert_eq!(end(&mut client, NEWER_END, producer, true).await, (ErrorCode::NONE, next), "repeated");
        assert_eq!(seen(&mut client, true).await, values);
        producer = next;
    }
    // Who has the id before is told so.
    let code = write(&mut client, NEWER_PRODUCE, (first.0, LAST_EPOCH), 1, "x").await;
    assert_eq!(code, ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_protocol_goes_on_with_a_new_producer_id_after_the_last_epoch() {
    let handle = quick().await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[]).await;
    let last = use_epochs(&mut client, LAST_EPOCH).await;
    for number in 0..2 {
        assert_eq!(add(&mut client, last, "t").await, ErrorCode::NONE);
        assert_eq!(write(&mut client, 9, last, number, "last").await, ErrorCode::NONE);
        assert_eq!(end(&mut client, OLDER_END, last, true).await.0, ErrorCode::NONE);
    }
    // Even with a transaction open.
    assert_eq!(add(&mut client, last, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, 9, last, 2, "open").await, ErrorCode::NONE);
    let given = try_init(&mut client, 60_000, last).await;
    assert_eq!((given.error_code, given.producer_epoch), (ErrorCode::NONE, 0));
    assert_ne!(given.producer_id, last.0);
    let again = try_init(&mut client, 60_000, last).await;
    assert_eq!((again.producer_id, again.producer_epoch), (given.producer_id, 0), "asked again");
    let next = (given.producer_id, given.producer_epoch);
    assert_eq!(add(&mut client, next, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, 9, next, 0, "next").await, ErrorCode::NONE);
    assert_eq!(end(&mut client, OLDER_END, next, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut client, true).await, ["last", "last", "next"]);
    assert_eq!(end(&mut client, OLDER_END, last, true).await.0, ErrorCode::INVALID_PRODUCER_ID_MAPPING);
    handle.shutdown().await.unwrap();
}
