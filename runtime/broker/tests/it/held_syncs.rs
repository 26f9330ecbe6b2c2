//! While the journal's sync is held, nobody is told of anything that a crash could undo.

use std::sync::Arc;

use pelton_broker::BrokerHandle;
use pelton_commitlog::storage::SimStorage;
use pelton_wire::ErrorCode;
use pelton_wire::message::{EndTxnRequest, InitProducerIdRequest, ProduceRequest};
use pelton_wire::record::BatchOptions;

use crate::client::{Client, batch, produce, until, values};
use crate::gate::{Gate, GatedDisk, Waits};
use crate::storage::start_on;
use crate::transactions::{ID, NEWER_END, NEWER_PRODUCE, end_offset, ending, init, seen, write};

async fn start() -> (BrokerHandle, Arc<Gate>) {
    let gate = Gate::new();
    let disk = GatedDisk::new(&SimStorage::new(), Waits::JournalWrites, &gate);
    (start_on(Arc::new(disk)).await, gate)
}

async fn until_log_end(handle: &BrokerHandle, end: i64) {
    let topic = handle.broker().topics.get("t").unwrap();
    until("it is never appended", async || topic.partition(0).unwrap().log_end_offset() >= end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_told_and_seen_after_its_sync() {
    let (handle, gate) = start().await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[]).await;
    let producer_id = client.producer_id().await;
    let sequenced = |base_sequence: i32| {
        let options =
            BatchOptions { producer_id, producer_epoch: 0, base_sequence, ..BatchOptions::default() };
        produce("t", 0, -1, batch(options, &[&base_sequence.to_string()]))
    };
    assert_eq!(client.call(9, &sequenced(0)).await.responses[0].partition_responses[0].base_offset, 0);
    let mut again = Client::connect(handle.addr()).await;
    let mut reader = Client::connect(handle.addr()).await;
    let held = gate.hold();
    let asked = client.send(9, &sequenced(1)).await;
    until_log_end(&handle, 2).await;
    // A client that asks anew on another connection, and then goes on: so it is known that both were appended.
    let repeated = [again.send(9, &sequenced(1)).await, again.send(9, &sequenced(2)).await];
    until_log_end(&handle, 3).await;
    client.still_waits().await;
    again.still_waits().await;
    assert_eq!(values(&reader.fetch("t", 0, 0, 1 << 20).await), ["0"], "what may be lost is not shown");
    drop(held);
    let offset = |response: pelton_wire::message::ProduceResponse| {
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ErrorCode::NONE);
        partition.base_offset
    };
    assert_eq!(offset(client.receive::<ProduceRequest>(9, asked).await), 1);
    for (id, expect) in repeated.into_iter().zip([1, 2]) {
        assert_eq!(offset(again.receive::<ProduceRequest>(9, id).await), expect);
    }
    assert_eq!(values(&reader.fetch("t", 0, 0, 1 << 20).await), ["0", "1", "2"]);
    handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_and_seen_after_its_sync() {
    for commit in [true, false] {
        let (handle, gate) = start().await;
        let mut client = Client::connect(handle.addr()).await;
        client.create_topic("t", 1, &[]).await;
        let producer = init(&mut client).await;
        assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "a").await, ErrorCode::NONE);
        let mut again = Client::connect(handle.addr()).await;
        let mut reader = Client::connect(handle.addr()).await;
        let held = gate.hold();
        let asked = client.send(NEWER_END, &ending(producer, commit)).await;
        until_log_end(&handle, 2).await;
        let repeated = again.send(NEWER_END, &ending(producer, commit)).await;
        assert_eq!(end_offset(&mut reader, 1).await, 0, "the last stable offset waits for the marker");
        assert_eq!(seen(&mut reader, true).await, [""; 0]);
        client.still_waits().await;
        again.still_waits().await;
        drop(held);
        for (client, id) in [(&mut client, asked), (&mut again, repeated)] {
            let answer = client.receive::<EndTxnRequest>(NEWER_END, id).await;
            assert_eq!((answer.error_code, answer.producer_epoch), (ErrorCode::NONE, producer.1 + 1));
        }
        assert_eq!(end_offset(&mut reader, 1).await, 2);
        let expect: &[&str] = if commit { &["a"] } else { &[] };
        assert_eq!(seen(&mut reader, true).await, expect);
        handle.shutdown().await.unwrap();
    }
}

/// Where producers do not wait for a sync, transactions do: what a producer is told at once must not show a transaction
/// that a crash could undo.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_acknowledgement_does_not_show_an_end_before_its_sync() {
    let (handle, gate) = start().await;
    let mut client = Client::connect(handle.addr()).await;
    client.create_topic("t", 1, &[("pelton.durability", "os")]).await;
    let producer = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "a").await, ErrorCode::NONE);
    let mut plain = Client::connect(handle.addr()).await;
    let mut reader = Client::connect(handle.addr()).await;
    let held = gate.hold();
    let early = produce("t", 0, -1, batch(BatchOptions::default(), &["early"]));
    let asked = client.send(NEWER_END, &ending(producer, true)).await;
    until_log_end(&handle, 2).await;
    let told = plain.call(9, &early).await.responses[0].partition_responses[0].error_code;
    assert_eq!(told, ErrorCode::NONE, "no sync is waited for");
    until_log_end(&handle, 3).await;
    assert_eq!((end_offset(&mut reader, 0).await, end_offset(&mut reader, 1).await), (1, 0));
    drop(held);
    let ended = client.receive::<EndTxnRequest>(NEWER_END, asked).await.error_code;
    assert_eq!(ended, ErrorCode::NONE);
    assert_eq!(seen(&mut reader, true).await[0], "a");
    // What was told early is seen with the marker's sync, or with the next one.
    until("it is never seen", async || seen(&mut reader, true).await == ["a", "early"]).await;
    handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_is_told_after_its_sync() {
    let (handle, gate) = start().await;
    let mut client = Client::connect(handle.addr()).await;
    let producer = init(&mut client).await;
    let held = gate.hold();
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
    };
    let asked = client.send(4, &request).await;
    gate.until_one_waits().await;
    client.still_waits().await;
    drop(held);
    let given = client.receive::<InitProducerIdRequest>(4, asked).await;
    assert_eq!((given.error_code, given.producer_epoch), (ErrorCode::NONE, producer.1 + 1));
    handle.shutdown().await.unwrap();
}
