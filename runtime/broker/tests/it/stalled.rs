//! A disk that stands still holds up who waits for it, and nobody else.

use std::io::ErrorKind;
use std::sync::Arc;

use pelton_broker::BrokerHandle;
use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::Call;
use pelton_wire::ErrorCode;
use pelton_wire::message::*;
use pelton_wire::record::BatchOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, batch, produce, until, values};
use crate::gate::{Gate, GatedDisk, Holding, Waits};
use crate::groups::{commit, member, topic_id};
use crate::storage::start_with;
use crate::transactions::{NEWER_END, NEWER_PRODUCE, ending, init, write};

/// Far more than the threads of the runtime.
const PRODUCERS: usize = 12;
/// So that one request fills the journal's queue.
const PENDING_MAX: &str = "1048576";
/// One for each of two partitions.
const RECORD_BYTES: usize = 600 << 10;

struct Stalled {
    handle: BrokerHandle,
    disk: SimStorage,
    gate: Arc<Gate>,
    /// For the token of HTTP, which is not on the broker's disk.
    _dir: tempfile::TempDir,
}

impl Stalled {
    async fn start() -> Stalled {
        let (disk, gate) = (SimStorage::new(), Gate::new());
        let gated = GatedDisk::new(&disk, Waits::JournalWrites, &gate);
        let dir = tempfile::tempdir().unwrap();
        let settings = [
            ("data.dir", dir.path().to_str().unwrap()),
            ("pelton.journal.pending.max.bytes", PENDING_MAX),
            ("http.listen", "127.0.0.1:0"),
            ("group.initial.rebalance.delay.ms", "0"),
            ("offsets.topic.num.partitions", "1"),
        ];
        let handle = start_with(Arc::new(gated), &settings).await;
        let mut client = Client::connect(handle.addr()).await;
        client.create_topic("t", 2, &[]).await;
        Stalled { handle, disk, gate, _dir: dir }
    }

    /// Producers that have sent more than may wait. The disk stands still until the gate is let go.
    async fn flood(&self) -> (Holding, Vec<(Client, [i32; 2])>) {
        let held = self.gate.hold();
        let partition = self.handle.broker().topics.get("t").unwrap().partition(1).unwrap().clone();
        let before = partition.log_end_offset();
        let request = large_request();
        let mut producers = Vec::new();
        for _ in 0..PRODUCERS {
            let mut client = Client::connect(self.handle.addr()).await;
            let sent = [client.send(9, &request).await, client.send(9, &request).await];
            producers.push((client, sent));
        }
        until("nothing is appended", async || partition.log_end_offset() > before).await;
        (held, producers)
    }
}

fn large_request() -> ProduceRequest {
    let value = "x".repeat(RECORD_BYTES);
    let mut request = produce("t", 0, -1, batch(BatchOptions::default(), &[&value]));
    let second = produce("t", 1, -1, batch(BatchOptions::default(), &[&value]));
    request.topic_data[0].partition_data.extend(second.topic_data.into_iter().flat_map(|t| t.partition_data));
    request
}

async fn healthz(handle: &BrokerHandle) -> String {
    let address = handle.http_addr().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(20), read).await.expect("no answer in time").unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_the_broker_answers_while_the_disk_stands_still() {
    let stalled = Stalled::start().await;
    let handle = &stalled.handle;
    let mut grouped = Client::connect(handle.addr()).await;
    let member_id = member(&mut grouped, "g").await;
    let t = topic_id(&mut grouped, "t").await;
    let mut transactional = Client::connect(handle.addr()).await;
    let producer = init(&mut transactional).await;
    assert_eq!(
        write(&mut transactional, NEWER_PRODUCE, producer, 0, "in a transaction").await,
        ErrorCode::NONE
    );
    let (held, producers) = stalled.flood().await;

    // The coordinators append too, and wait for the disk without holding up a thread.
    let mut commits = Vec::new();
    for offset in 0..20 {
        let mut client = Client::connect(handle.addr()).await;
        let sent = client.send(10, &commit(&format!("standalone-{offset}"), t, 0, offset)).await;
        commits.push((client, sent));
    }
    let ended = transactional.send(NEWER_END, &ending(producer, true)).await;

    let beat = HeartbeatRequest { group_id: "g".into(), generation_id: 1, member_id, ..Default::default() };
    for _ in 0..3 {
        let mut newcomer = Client::connect(handle.addr()).await;
        assert_eq!(newcomer.call(2, &ApiVersionsRequest::default()).await.error_code, ErrorCode::NONE);
        assert_eq!(grouped.call(4, &beat).await.error_code, ErrorCode::NONE);
        assert!(healthz(handle).await.starts_with("HTTP/1.1 200"));
        let seen = newcomer.fetch("t", 0, 0, 1 << 20).await;
        assert_eq!(values(&seen), ["in a transaction"], "what is durable is read");
    }
    transactional.still_waits().await;
    drop(held);
    let mut places = Vec::new();
    for (mut client, sent) in producers {
        for id in sent {
            let answer = client.receive::<ProduceRequest>(9, id).await;
            for partition in &answer.responses[0].partition_responses {
                assert_eq!(partition.error_code, ErrorCode::NONE);
                places.push((partition.index, partition.base_offset));
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 4 * PRODUCERS, "each has its place");
    for (mut client, id) in commits {
        let answer = client.receive::<OffsetCommitRequest>(10, id).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::NONE);
    }
    assert_eq!(transactional.receive::<EndTxnRequest>(NEWER_END, ended).await.error_code, ErrorCode::NONE);
    stalled.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_ends_the_wait_for_room() {
    let stalled = Stalled::start().await;
    let (held, producers) = stalled.flood().await;
    stalled.disk.fail_after(Some(Call::WriteSync), "journal", 0, ErrorKind::Other);
    drop(held);
    for (mut client, sent) in producers {
        for id in sent {
            let answer = client.receive::<ProduceRequest>(9, id).await;
            for partition in &answer.responses[0].partition_responses {
                assert_eq!(partition.error_code, ErrorCode::KAFKA_STORAGE_ERROR);
            }
        }
    }
    assert!(stalled.handle.failure().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_gives_its_room_back() {
    let stalled = Stalled::start().await;
    let (held, producers) = stalled.flood().await;
    drop(producers);
    drop(held);
    let mut client = Client::connect(stalled.handle.addr()).await;
    for _ in 0..PRODUCERS {
        let answer = client.call(9, &large_request()).await;
        assert_eq!(answer.responses[0].partition_responses[1].error_code, ErrorCode::NONE);
    }
    stalled.handle.shutdown().await.unwrap();
}
