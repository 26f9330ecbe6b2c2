//! Fetch sessions (KIP-227): what a consumer has named once is not named again, and what has not changed is not told again.

use std::collections::BTreeMap;

use pelton_wire::ErrorCode;
use pelton_wire::message::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use pelton_wire::message::delete_topics::DeleteTopicState;
use pelton_wire::message::fetch::{FetchPartition, FetchTopic, ForgottenTopic, PartitionData};
use pelton_wire::message::{DeleteRecordsRequest, DeleteTopicsRequest, FetchRequest, FetchResponse};
use pelton_wire::record::BatchOptions;

use crate::client::{Client, Server, batch, records, values};
use crate::transactions;

const VERSION: i16 = 12;
const MAX_BYTES: i32 = 1 << 20;

/// A consumer of a topic `t` with a session.
struct Consumer {
    client: Client,
    id: i32,
    epoch: i32,
    isolation_level: i8,
    max_bytes: i32,
    max_wait_ms: i32,
    min_bytes: i32,
}

impl Consumer {
    async fn new(server: &Server) -> Consumer {
        let client = server.client().await;
        let (isolation_level, max_wait_ms, min_bytes) = (0, 0, 1);
        Consumer { client, id: 0, epoch: 0, isolation_level, max_bytes: MAX_BYTES, max_wait_ms, min_bytes }
    }

    fn request(&self, named: &[(i32, i64)], forgotten: &[i32]) -> FetchRequest {
        let partition = |(partition, fetch_offset): &(i32, i64)| FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            partition_max_bytes: MAX_BYTES,
            ..Default::default()
        };
        let partitions: Vec<_> = named.iter().map(partition).collect();
        let topic = FetchTopic { topic: "t".into(), partitions, ..Default::default() };
        let left = ForgottenTopic { topic: "t".into(), partitions: forgotten.to_vec(), ..Default::default() };
        FetchRequest {
            max_wait_ms: self.max_wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            isolation_level: self.isolation_level,
            session_id: self.id,
            session_epoch: self.epoch,
            topics: if named.is_empty() { Vec::new() } else { vec![topic] },
            forgotten_topics_data: if forgotten.is_empty() { Vec::new() } else { vec![left] },
            ..Default::default()
        }
    }

    async fn send(&mut self, named: &[(i32, i64)], forgotten: &[i32]) -> i32 {
        let request = self.request(named, forgotten);
        self.client.send(VERSION, &request).await
    }

    async fn receive(&mut self, correlation_id: i32) -> Vec<PartitionData> {
        let response = self.client.receive::<FetchRequest>(VERSION, correlation_id).await;
        self.take(response)
    }

    fn take(&mut self, response: FetchResponse) -> Vec<PartitionData> {
        assert_eq!(response.error_code, ErrorCode::NONE);
        assert!(self.epoch == 0 || response.session_id == self.id, "{}", response.session_id);
        self.id = response.session_id;
        self.epoch += 1;
        assert!(response.responses.len() <= 1);
        response.responses.into_iter().flat_map(|topic| topic.partitions).collect()
    }

    /// What is told of each partition: error, high watermark, log start and values.
    async fn fetch(&mut self, named: &[(i32, i64)], forgotten: &[i32]) -> Vec<PartitionData> {
        let sent = self.send(named, forgotten).await;
        self.receive(sent).await
    }
}

/// By partition: its high watermark and what it has.
fn told(answer: &[PartitionData]) -> Vec<(i32, i64, Vec<String>)> {
    let all = answer.iter().map(|data| {
        assert_eq!(data.error_code, ErrorCode::NONE);
        (data.partition_index, data.high_watermark, values(data))
    });
    all.collect()
}

fn one(partition: i32, high_watermark: i64, values: &[&str]) -> (i32, i64, Vec<String>) {
    (partition, high_watermark, values.iter().map(|value| (*value).to_owned()).collect())
}

async fn start(partitions: i32) -> (Server, Client, Consumer) {
    let server = Server::start().await;
    let mut writer = server.client().await;
    writer.create_topic("t", partitions, &[]).await;
    let consumer = Consumer::new(&server).await;
    (server, writer, consumer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_tells_what_has_changed() {
    let (_server, mut writer, mut consumer) = start(3).await;
    writer.append("t", 0, &["a"]).await;
    let first = consumer.fetch(&[(0, 0), (1, 0), (2, 0)], &[]).await;
    assert_eq!(told(&first), [one(0, 1, &["a"]), one(1, 0, &[]), one(2, 0, &[])], "everything, at first");
    assert!(consumer.id > 0);
    assert_eq!(told(&consumer.fetch(&[], &[]).await), [one(0, 1, &["a"])], "it was not read");
    assert_eq!(told(&consumer.fetch(&[(0, 1)], &[]).await), [], "nothing is new");
    writer.append("t", 2, &["b"]).await;
    assert_eq!(told(&consumer.fetch(&[], &[]).await), [one(2, 1, &["b"])]);

    consumer.max_wait_ms = 15_000;
    let waiting = consumer.send(&[(2, 1)], &[]).await;
    consumer.client.still_waits().await;
    writer.append("t", 1, &["c"]).await;
    assert_eq!(told(&consumer.receive(waiting).await), [one(1, 1, &["c"])]);

    // What is left out is not told, and when it comes back it is told like the first time.
    consumer.max_wait_ms = 0;
    writer.append("t", 0, &["d"]).await;
    assert_eq!(told(&consumer.fetch(&[(1, 1)], &[0]).await), []);
    assert_eq!(told(&consumer.fetch(&[(0, 1)], &[]).await), [one(0, 2, &["d"])]);
    assert_eq!(told(&consumer.fetch(&[(0, 2)], &[]).await), []);
    assert_eq!(told(&consumer.fetch(&[(0, 2)], &[1]).await), []);
    assert_eq!(told(&consumer.fetch(&[(1, 1)], &[]).await), [one(1, 1, &[])], "it is new to the session");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_opened_and_closed_by_their_epochs() {
    let (server, _writer, mut consumer) = start(1).await;
    let check = async |consumer: &mut Consumer, version: i16, request: FetchRequest, expect: ErrorCode| {
        let response = consumer.client.call(version, &request).await;
        assert_eq!((response.error_code, response.session_id, response.responses.len()), (expect, 0, 0));
    };
    let (not_found, invalid) =
        (ErrorCode::FETCH_SESSION_ID_NOT_FOUND, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    consumer.fetch(&[(0, 0)], &[]).await;
    let next = consumer.request(&[], &[]);
    check(
        &mut consumer,
        VERSION,
        FetchRequest { session_id: next.session_id ^ 1, ..next.clone() },
        not_found,
    )
    .await;
    check(&mut consumer, VERSION, FetchRequest { session_id: 0, ..next.clone() }, not_found).await;
    check(&mut consumer, VERSION, FetchRequest { session_epoch: 2, ..next.clone() }, invalid).await;
    // Topics by id, in a session that has them by name.
    check(&mut consumer, 13, next.clone(), ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR).await;
    consumer.fetch(&[], &[]).await;
    check(&mut consumer, VERSION, next, invalid).await;

    // A new session closes the one before, and so does a fetch that wants none.
    let old = consumer.request(&[], &[]);
    consumer.epoch = 0;
    let request = consumer.request(&[(0, 0)], &[]);
    let response = consumer.client.call(VERSION, &request).await;
    assert!(response.session_id != 0 && response.session_id != consumer.id);
    check(&mut consumer, VERSION, old, not_found).await;
    (consumer.id, consumer.epoch) = (response.session_id, 1);
    let last = FetchRequest { session_epoch: -1, ..consumer.request(&[(0, 0)], &[]) };
    let response = consumer.client.call(VERSION, &last).await;
    assert_eq!((response.error_code, response.session_id, response.responses.len()), (ErrorCode::NONE, 0, 1));
    let after = consumer.request(&[], &[]);
    check(&mut consumer, VERSION, after, not_found).await;

    // One that leaves out all it has is over.
    let mut consumer = Consumer::new(&server).await;
    consumer.fetch(&[(0, 0)], &[]).await;
    let request = consumer.request(&[], &[0]);
    check(&mut consumer, VERSION, request.clone(), ErrorCode::NONE).await;
    check(&mut consumer, VERSION, FetchRequest { session_epoch: 2, ..request }, not_found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_bounded() {
    let settings =
        [("max.incremental.fetch.session.cache.slots", "2"), ("pelton.fetch.session.partitions.max", "5")];
    let server = Server::with(&settings).await;
    server.client().await.create_topic("t", 10, &[]).await;
    let named: Vec<(i32, i64)> = (0..10).map(|partition| (partition, 0)).collect();
    let session = async |partitions: usize| {
        let mut consumer = Consumer::new(&server).await;
        assert_eq!(consumer.fetch(&named[..partitions], &[]).await.len(), partitions);
        consumer
    };
    assert_eq!(session(6).await.id, 0, "larger than all may be");
    let mut first = session(3).await;
    assert_ne!(first.id, 0);
    assert_eq!(session(3).await.id, 0, "no room for as many");
    assert_ne!(session(2).await.id, 0);
    assert_eq!(session(1).await.id, 0, "no room for one more");
    // It grows beyond what there is room for, and is over.
    let grown = first.request(&named[3..4], &[]);
    let response = first.client.call(VERSION, &grown).await;
    assert_eq!(response.error_code, ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    assert_ne!(session(3).await.id, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_request_of_a_session_ends_the_one_that_waits() {
    let (server, _writer, mut consumer) = start(1).await;
    consumer.fetch(&[(0, 0)], &[]).await;
    consumer.max_wait_ms = 15_000;
    let waiting = consumer.send(&[], &[]).await;
    consumer.client.still_waits().await;
    let mut other = Consumer { client: server.client().await, id: consumer.id, epoch: 2, ..consumer };
    other.max_wait_ms = 0;
    assert_eq!(told(&other.fetch(&[], &[]).await), []);
    let response = consumer.client.receive::<FetchRequest>(VERSION, waiting).await;
    assert_eq!(response.error_code, ErrorCode::INVALID_FETCH_SESSION_EPOCH);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_log_begins_and_ends_is_told_once() {
    let (_server, mut writer, mut consumer) = start(2).await;
    consumer.isolation_level = 1;
    let producer = transactions::init(&mut writer).await;
    assert_eq!(consumer.fetch(&[(0, 0), (1, 0)], &[]).await.len(), 2);
    // Of an open transaction the end of the log is told, and no records.
    assert_eq!(transactions::add(&mut writer, producer, "t").await, ErrorCode::NONE);
    assert_eq!(transactions::write(&mut writer, 9, producer, 0, "open").await, ErrorCode::NONE);
    consumer.max_wait_ms = 300;
    assert_eq!(told(&consumer.fetch(&[], &[]).await), [one(0, 1, &[])], "though it waits for records");
    consumer.max_wait_ms = 0;
    assert_eq!(told(&consumer.fetch(&[], &[]).await), []);
    assert_eq!(transactions::end(&mut writer, 3, producer, true).await.0, ErrorCode::NONE);
    let answer = told(&consumer.fetch(&[], &[]).await);
    assert_eq!((answer.len(), answer[0].1, &*answer[0].2[0]), (1, 2, "open"));
    assert_eq!(told(&consumer.fetch(&[(0, 2)], &[]).await), []);

    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 2 }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let deleted = writer.call(2, &DeleteRecordsRequest { topics, timeout_ms: 1000 }).await;
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 2);
    let answer = consumer.fetch(&[], &[]).await;
    assert_eq!((answer.len(), answer[0].partition_index, answer[0].log_start_offset), (1, 0, 2));
    assert_eq!(told(&consumer.fetch(&[], &[]).await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_made_anew_is_told() {
    let (_server, mut writer, mut consumer) = start(1).await;
    consumer.fetch(&[(0, 0)], &[]).await;
    consumer.max_wait_ms = 15_000;
    let waiting = consumer.send(&[], &[]).await;
    consumer.client.still_waits().await;
    let topics = vec![DeleteTopicState { name: Some("t".into()), ..Default::default() }];
    let deleted =
        writer.call(6, &DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }).await;
    assert_eq!(deleted.responses[0].error_code, ErrorCode::NONE);
    let answer = consumer.receive(waiting).await;
    assert_eq!(answer[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let again = consumer.fetch(&[], &[]).await;
    assert_eq!(again[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "as long as it is so");
    writer.create_topic("t", 1, &[]).await;
    writer.append("t", 0, &["new"]).await;
    assert_eq!(told(&consumer.fetch(&[], &[]).await), [one(0, 1, &["new"])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_take_turns_and_min_bytes_counts_all_of_them() {
    let (_server, mut writer, mut consumer) = start(3).await;
    let value = "x".repeat(1000);
    for partition in 0..3 {
        for _ in 0..3 {
            writer.append("t", partition, &[&value]).await;
        }
    }
    consumer.max_bytes = 500;
    let mut offsets = [0; 3];
    let mut order = Vec::new();
    let mut named: Vec<(i32, i64)> = (0..3).map(|partition| (partition, 0)).collect();
    for _ in 0..9 {
        let answer = consumer.fetch(&named, &[]).await;
        let full: Vec<_> = answer.iter().filter(|data| !records(data).is_empty()).collect();
        assert_eq!(full.len(), 1, "one batch is more than was asked for");
        let partition = full[0].partition_index;
        offsets[partition as usize] += 1;
        order.push(partition);
        named = vec![(partition, offsets[partition as usize])];
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);

    consumer.max_bytes = MAX_BYTES;
    assert_eq!(told(&consumer.fetch(&named, &[]).await), []);
    (consumer.min_bytes, consumer.max_wait_ms) = (2000, 15_000);
    let waiting = consumer.send(&[], &[]).await;
    writer.append("t", 2, &[&value]).await;
    consumer.client.still_waits().await;
    writer.append("t", 0, &[&value]).await;
    let mut answer = told(&consumer.receive(waiting).await);
    answer.sort();
    assert_eq!(answer, [one(0, 4, &[&value]), one(2, 4, &[&value])]);
}

/// Whatever is named, left out and read when, each record comes once.
#[tokio::test(flavor = "multi_thread")]
async fn every_record_comes_once_in_any_session() {
    const PARTITIONS: i32 = 8;
    let (_server, mut writer, mut consumer) = start(PARTITIONS).await;
    let mut state = 0x9e37_79b9_u32;
    let mut below = |end: u32| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state % end
    };
    let mut written: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let mut read: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    // By partition: the offset that the session has, if it has the partition, and how far it was read.
    let mut known: BTreeMap<i32, i64> = BTreeMap::new();
    for round in 0..1500 {
        let last = round >= 1400;
        for i in 0..if last { 0 } else { below(3) } {
            let (partition, value) = (below(PARTITIONS as u32) as i32, format!("{round}-{i}"));
            let options = BatchOptions::default();
            let result = writer.produce("t", partition, -1, batch(options, &[&value])).await;
            assert_eq!(result.error_code, ErrorCode::NONE);
            written.entry(partition).or_default().push(value);
        }
        if below(100) == 0 && !last {
            // As a client does after a failure.
            consumer.epoch = 0;
            known.clear();
        }
        let next = |read: &BTreeMap<i32, Vec<String>>, partition: i32| {
            read.get(&partition).map_or(0, Vec::len) as i64
        };
        let (mut named, mut forgotten) = (Vec::new(), Vec::new());
        for partition in 0..PARTITIONS {
            let offset = next(&read, partition);
            match known.get(&partition) {
                Some(at) if *at != offset => named.push((partition, offset)),
                Some(_) if below(10) == 0 && !last && known.len() > 1 => {
                    forgotten.push(partition);
                    known.remove(&partition);
                    continue;
                }
                None if known.is_empty() || last || below(4) == 0 => named.push((partition, offset)),
                Some(_) | None => continue,
            }
            known.insert(partition, offset);
        }
        consumer.max_bytes = [100, 1000, MAX_BYTES][below(3) as usize];
        for data in consumer.fetch(&named, &forgotten).await {
            assert_eq!(data.error_code, ErrorCode::NONE);
            let partition = data.partition_index;
            assert!(known.contains_key(&partition), "it was left out");
            let of = read.entry(partition).or_default();
            let records = records(&data);
            if below(4) == 0 && !last {
                // The consumer is busy with something else, and asks for it again.
                continue;
            }
            for (offset, value) in records {
                assert_eq!(offset, of.len() as i64, "records come in order, from where it has read to");
                of.push(value);
            }
        }
    }
    assert_eq!(read, written);
}
