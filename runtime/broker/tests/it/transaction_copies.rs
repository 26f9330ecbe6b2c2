//! Copies of requests: what a network delivers after its client has gone on. And what a start finds half done.

use std::io::ErrorKind;
use std::sync::Arc;

use pelton_broker::BrokerHandle;
use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::Call;
use pelton_wire::ErrorCode;
use pelton_wire::message::{DescribeTransactionsRequest, InitProducerIdRequest, Request};

use crate::client::{Client, Server, frame, until};
use crate::storage::start_with;
use crate::transactions::*;

/// The frame of a request, as a network may keep it.
fn held_back<Q: Request>(version: i16, correlation_id: i32, request: &Q) -> Vec<u8> {
    frame(Q::KEY, version, correlation_id, request)
}

/// A transaction with a record and an offset in it, of the older protocol and as librdkafka does it: the transaction
/// coordinator, the group's coordinator and the partition are asked over a connection each.
async fn older_transaction(clients: &mut [Client; 3], producer: Producer, number: i32) {
    let [coordinator, group, leader] = clients;
    assert_eq!(add(coordinator, producer, "t").await, ErrorCode::NONE);
    assert_eq!(write(leader, 9, producer, number, &number.to_string()).await, ErrorCode::NONE);
    assert_eq!(coordinator.call(3, &adding_offsets(producer)).await.error_code, ErrorCode::NONE);
    assert_eq!(commit_offset(group, 3, producer, number.into()).await, ErrorCode::NONE);
}

async fn three(server: &Server) -> [Client; 3] {
    [server.client().await, server.client().await, server.client().await]
}

/// Every kind of copy that could do harm to the transaction after the one that it is from.
fn copies(producer: Producer) -> Vec<(&'static str, Vec<u8>)> {
    // As high as any: it is the connection that gives them away.
    let id = i32::MAX / 2;
    vec![
        ("commit", held_back(OLDER_END, id, &ending(producer, true))),
        ("abort", held_back(OLDER_END, id, &ending(producer, false))),
        ("an old abort", held_back(0, id, &ending(producer, false))),
        ("partition", held_back(3, id, &adding(producer, "u"))),
        ("group", held_back(3, id, &adding_offsets(producer))),
        ("offsets", held_back(3, id, &committing(producer, 0))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_an_older_connection_is_refused() {
    for (what, copy) in copies((0, 0)).into_iter().map(|(what, _)| what).zip(0..) {
        let server = Server::start().await;
        let mut before = three(&server).await;
        before[0].create_topic("t", 1, &[]).await;
        before[0].create_topic("u", 1, &[]).await;
        let producer = init(&mut before[0]).await;
        older_transaction(&mut before, producer, 0).await;
        // The answer is lost; the client connects anew, asks again, and goes on.
        assert_eq!(end(&mut before[0], OLDER_END, producer, true).await.0, ErrorCode::NONE);
        let mut now = three(&server).await;
        assert_eq!(end(&mut now[0], OLDER_END, producer, true).await.0, ErrorCode::NONE, "{what}: again");
        older_transaction(&mut now, producer, 1).await;

        let (_, bytes) = copies(producer).swap_remove(copy);
        let late = &mut before[usize::from(what == "offsets")];
        // The same bytes prove nothing, however often they come.
        for _ in 0..2 {
            late.send_bytes(&bytes).await;
            let answer = late.receive_frame().await.expect("an answer, for whom it may concern");
            let code = if what == "offsets" {
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
            } else {
                ErrorCode::CONCURRENT_TRANSACTIONS
            };
            assert!(answer.windows(2).any(|bytes| bytes == code.0.to_be_bytes()), "{what}: {answer:?}");
        }

        assert_eq!(seen(&mut now[0], true).await, ["0"], "{what}");
        assert_eq!(committed(&mut now[0], false).await, (ErrorCode::NONE, 0), "{what}");
        assert_eq!(end(&mut now[0], OLDER_END, producer, true).await.0, ErrorCode::NONE, "{what}");
        assert_eq!(seen(&mut now[0], true).await, ["0", "1"], "{what}");
        assert_eq!(committed(&mut now[0], true).await, (ErrorCode::NONE, 1), "{what}");
        // Nothing was opened after the end either.
        let ask = DescribeTransactionsRequest { transactional_ids: vec![ID.into()] };
        let state = now[0].call(0, &ask).await.transaction_states.remove(0).transaction_state;
        assert_eq!(state, "CompleteCommit", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_a_passed_correlation_id_is_refused() {
    let server = Server::start().await;
    let mut clients = three(&server).await;
    clients[0].create_topic("t", 1, &[]).await;
    let producer = init(&mut clients[0]).await;
    older_transaction(&mut clients, producer, 0).await;
    let id = clients[0].send(OLDER_END, &ending(producer, true)).await;
    let answer = clients[0].receive::<pelton_wire::message::EndTxnRequest>(OLDER_END, id).await;
    assert_eq!(answer.error_code, ErrorCode::NONE);
    older_transaction(&mut clients, producer, 1).await;
    for passed in [id, id - 1] {
        clients[0].send_bytes(&held_back(OLDER_END, passed, &ending(producer, false))).await;
        assert_eq!(clients[0].receive_frame().await, None, "hung up on");
        // The client, had it been one, connects anew and is heard.
        clients[0] = server.client().await;
        assert_eq!(add(&mut clients[0], producer, "t").await, ErrorCode::NONE);
    }
    assert_eq!(end(&mut clients[0], OLDER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut clients[0], true).await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_use_a_connection_for_each_concern_and_take_over_on_any() {
    let server = Server::start().await;
    // The youngest for the coordinator, the oldest for the group: no order among them is asked for.
    let [group, leader, coordinator] = three(&server).await;
    let mut clients = [coordinator, group, leader];
    let mut early = server.client().await;
    clients[0].create_topic("t", 1, &[]).await;
    let mut producer = init(&mut server.client().await).await;
    for number in 0..3 {
        older_transaction(&mut clients, producer, number).await;
        assert_eq!(end(&mut clients[0], OLDER_END, producer, true).await.0, ErrorCode::NONE);
    }
    // Another process, which has been connected for longer, takes over.
    producer = init(&mut early).await;
    clients[0] = early;
    older_transaction(&mut clients, producer, 0).await;
    assert_eq!(end(&mut clients[0], OLDER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut clients[0], true).await, ["0", "1", "2", "0"]);
    // One request to take over takes over once.
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
    };
    let id = clients[0].send(4, &request).await;
    let second = clients[0].receive::<InitProducerIdRequest>(4, id).await;
    assert_eq!(second.producer_epoch, producer.1 + 1);
    clients[0].send_bytes(&held_back(4, id, &request)).await;
    assert_eq!(clients[0].receive_frame().await, None, "hung up on");
}

/// Whether a request is to be sent again; counts those.
fn is_refused(code: ErrorCode, again: ErrorCode, refused: &mut u32) -> bool {
    assert!(code.is_ok() || code == again, "{code}");
    *refused += u32::from(code.is_err());
    code.is_err()
}

/// As kafka-go does: each request takes whichever connection is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_uses_several_connections_at_a_time_gets_through() {
    let server = Server::start().await;
    let mut clients = three(&server).await;
    clients[0].create_topic("t", 1, &[]).await;
    let producer = init(&mut clients[0]).await;
    let (later, loads) = (ErrorCode::CONCURRENT_TRANSACTIONS, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    let mut refused = 0;
    for number in 0..6 {
        // Another connection for each of them, and other ones in the next round.
        let [first, second, third] = [0, 1, 2].map(|turn| (number + turn) as usize % clients.len());
        while is_refused(add(&mut clients[first], producer, "t").await, later, &mut refused) {}
        let written = write(&mut clients[second], 9, producer, number, &number.to_string()).await;
        assert_eq!(written, ErrorCode::NONE);
        let adding = adding_offsets(producer);
        while is_refused(clients[second].call(3, &adding).await.error_code, later, &mut refused) {}
        let offset = number.into();
        while is_refused(commit_offset(&mut clients[third], 3, producer, offset).await, loads, &mut refused) {
        }
        while is_refused(end(&mut clients[third], OLDER_END, producer, true).await.0, later, &mut refused) {}
    }
    assert_eq!(seen(&mut clients[0], true).await, ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(committed(&mut clients[0], true).await, (ErrorCode::NONE, 5));
    assert!((6..=24).contains(&refused), "each request is refused once at most: {refused}");
}

/// What remains with the older protocol, as `broker/src/txn/mod.rs` says: nothing tells a copy that comes on a connection
/// younger than the client's, which no client but a network in between makes. A restart of the broker changes nothing about
/// it: the numbers of connections start anew, and so do the connections. The newer protocol refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_a_younger_connection_ends_what_is_open_with_the_older_protocol_alone() {
    for restart in [false, true] {
        let mut server = Server::start().await;
        let mut clients = three(&server).await;
        clients[0].create_topic("t", 1, &[]).await;
        let producer = init(&mut clients[0]).await;
        older_transaction(&mut clients, producer, 0).await;
        assert_eq!(end(&mut clients[0], OLDER_END, producer, true).await.0, ErrorCode::NONE);
        if restart {
            drop(clients);
            server = server.restart(&[]).await;
            clients = three(&server).await;
        }
        older_transaction(&mut clients, producer, 1).await;
        let mut younger = server.client().await;
        assert_eq!(end(&mut younger, OLDER_END, producer, true).await.0, ErrorCode::NONE);
        assert_eq!(seen(&mut younger, true).await, ["0", "1"], "committed before its client said so");
        // Its client hears of it: what it writes next is refused.
        let code = write(&mut clients[2], 9, producer, 2, "torn off").await;
        assert_eq!(code, ErrorCode::INVALID_TXN_STATE);
        let code = end(&mut clients[0], OLDER_END, producer, false).await.0;
        assert_eq!(code, ErrorCode::CONCURRENT_TRANSACTIONS, "taken for the older of two");
        let code = end(&mut clients[0], OLDER_END, producer, false).await.0;
        assert_eq!(code, ErrorCode::INVALID_TXN_STATE);
    }
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let first = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, first, 0, "0").await, ErrorCode::NONE);
    let (_, second) = end(&mut client, NEWER_END, first, true).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, second, 0, "1").await, ErrorCode::NONE);
    let code = end(&mut server.client().await, NEWER_END, first, true).await.0;
    assert_eq!(code, ErrorCode::PRODUCER_FENCED);
    assert_eq!(seen(&mut client, true).await, ["0"]);
}

async fn start_on(disk: &SimStorage) -> BrokerHandle {
    let partitions = [("offsets.topic.num.partitions", "3"), ("transaction.state.log.num.partitions", "3")];
    start_with(Arc::new(disk.clone()), &partitions).await
}

/// Every marker for `t` finds the disk full, for as long as a test lasts.
fn no_room_for_markers(disk: &SimStorage) {
    for _ in 0..1000 {
        disk.fail_after(Some(Call::Reserve), "/t-0/00000000000000000000.log", 0, ErrorKind::StorageFull);
    }
}

fn stable(handle: &BrokerHandle) -> bool {
    let offsets = handle.broker().topics.get("t").unwrap().partition(0).unwrap().offsets();
    offsets.last_stable == offsets.high_watermark
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_before_a_crash_has_ended_when_the_broker_is_ready() {
    for (commit, full_at_start) in [(true, false), (false, false), (true, true)] {
        let disk = SimStorage::new();
        disk.set_room_max(Some(8 << 10));
        let handle = start_on(&disk).await;
        let mut client = Client::connect(handle.addr()).await;
        client.create_topic("t", 1, &[]).await;
        client.create_topic("other", 1, &[]).await;
        let producer = init(&mut client).await;
        assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "decided").await, ErrorCode::NONE);
        assert_eq!(commit_offset(&mut client, 5, producer, 7).await, ErrorCode::NONE);
        no_room_for_markers(&disk);
        let code = end(&mut client, NEWER_END, producer, commit).await.0;
        assert_eq!(code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        // With this the decision is durable too.
        client.append("other", 0, &["sync"]).await;
        drop(client);
        if full_at_start {
            // In order, so that the start has nothing else to write there.
            handle.shutdown().await.unwrap();
        } else {
            disk.cut_power();
            drop(handle);
            disk.crash(1);
        }
        let handle = start_on(&disk).await;
        assert_eq!(stable(&handle), !full_at_start);
        disk.clear_faults();
        until("nobody tries again", async || stable(&handle)).await;
        let mut client = Client::connect(handle.addr()).await;
        let (records, offset): (&[&str], _) = if commit { (&["decided"], 7) } else { (&[], -1) };
        assert_eq!(seen(&mut client, true).await, records);
        assert_eq!(committed(&mut client, true).await, (ErrorCode::NONE, offset));
        assert_eq!(end(&mut client, NEWER_END, producer, commit).await.0, ErrorCode::NONE, "asked again");
        handle.shutdown().await.unwrap();
    }
}
