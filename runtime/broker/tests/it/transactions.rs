//! Transactions of both protocols, as a client that can send anything sees them.

use std::collections::VecDeque;

use pelton_wire::ErrorCode;
use pelton_wire::codec::Records;
use pelton_wire::message::add_partitions_to_txn::AddPartitionsToTxnTopic;
use pelton_wire::message::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use pelton_wire::message::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use pelton_wire::message::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use pelton_wire::message::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use pelton_wire::message::*;
use pelton_wire::record::{BatchOptions, BatchView, DecompressLimit, EndTransactionMarker, batches};

use crate::client::{Client, Server, batch, fetch, produce, until, versions_request};

pub(crate) const ID: &str = "tx";
/// The last versions of the older protocol.
pub(crate) const OLDER_PRODUCE: i16 = 11;
pub(crate) const OLDER_END: i16 = 4;
/// The versions of the newer one.
pub(crate) const NEWER_PRODUCE: i16 = 12;
pub(crate) const NEWER_END: i16 = 5;
pub(crate) const NEWER_OFFSETS: i16 = 5;

pub(crate) type Producer = (i64, i16);

pub(crate) async fn try_init(
    client: &mut Client,
    timeout_ms: i32,
    before: Producer,
) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        transaction_timeout_ms: timeout_ms,
        producer_id: before.0,
        producer_epoch: before.1,
    };
    client.call(4, &request).await
}

pub(crate) async fn init(client: &mut Client) -> Producer {
    let given = try_init(client, 60_000, (-1, -1)).await;
    assert_eq!(given.error_code, ErrorCode::NONE);
    (given.producer_id, given.producer_epoch)
}

pub(crate) fn adding(producer: Producer, topic: &str) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: ID.into(),
        v3_and_below_producer_id: producer.0,
        v3_and_below_producer_epoch: producer.1,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic { name: topic.into(), partitions: vec![0] }],
        ..Default::default()
    }
}

pub(crate) fn ending(producer: Producer, committed: bool) -> EndTxnRequest {
    let (producer_id, producer_epoch) = producer;
    EndTxnRequest { transactional_id: ID.into(), producer_id, producer_epoch, committed }
}

pub(crate) fn adding_offsets(producer: Producer) -> AddOffsetsToTxnRequest {
    let (producer_id, producer_epoch) = producer;
    AddOffsetsToTxnRequest { transactional_id: ID.into(), producer_id, producer_epoch, group_id: "g".into() }
}

pub(crate) fn committing(producer: Producer, offset: i64) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..Default::default()
    };
    TxnOffsetCommitRequest {
        transactional_id: ID.into(),
        group_id: "g".into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        topics: vec![TxnOffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition] }],
        ..Default::default()
    }
}

pub(crate) async fn add(client: &mut Client, producer: Producer, topic: &str) -> ErrorCode {
    let response = client.call(3, &adding(producer, topic)).await;
    response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
}

/// One record in a transactional batch.
pub(crate) async fn write(
    client: &mut Client,
    version: i16,
    producer: Producer,
    sequence: i32,
    value: &str,
) -> ErrorCode {
    let options = BatchOptions {
        producer_id: producer.0,
        producer_epoch: producer.1,
        base_sequence: sequence,
        transactional: true,
        ..BatchOptions::default()
    };
    let request =
        ProduceRequest { transactional_id: Some(ID.into()), ..produce("t", 0, -1, batch(options, &[value])) };
    let response = client.call(version, &request).await;
    response.responses[0].partition_responses[0].error_code
}

pub(crate) async fn end(
    client: &mut Client,
    version: i16,
    producer: Producer,
    commit: bool,
) -> (ErrorCode, Producer) {
    let response = client.call(version, &ending(producer, commit)).await;
    (response.error_code, (response.producer_id, response.producer_epoch))
}

/// What a client shows its user of partition 0 of `t`.
pub(crate) async fn seen(client: &mut Client, committed_only: bool) -> Vec<String> {
    let request = FetchRequest { isolation_level: i8::from(committed_only), ..fetch("t", 0, 0, 1 << 20, 0) };
    let mut response = client.call(11, &request).await;
    let data = response.responses.remove(0).partitions.remove(0);
    assert_eq!(data.error_code, ErrorCode::NONE);
    let mut aborted: VecDeque<_> = data.aborted_transactions.unwrap_or_default().into();
    let Some(Records::Bytes(bytes)) = &data.records else { panic!("no records") };
    let (mut skipped, mut values) = (Vec::new(), Vec::new());
    for view in batches(bytes) {
        let view: BatchView<'_> = view.unwrap();
        let header = *view.header();
        while aborted.front().is_some_and(|txn| txn.first_offset <= header.base_offset) {
            skipped.extend(aborted.pop_front().map(|txn| txn.producer_id));
        }
        let mut scratch = Vec::new();
        for record in view.records(&mut scratch, DecompressLimit::default()).unwrap() {
            let record = record.unwrap();
            if header.is_control() {
                EndTransactionMarker::parse(&record).unwrap();
                skipped.retain(|id| *id != header.producer_id);
            } else if !skipped.contains(&header.producer_id) {
                values.push(String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap());
            }
        }
    }
    values
}

pub(crate) async fn end_offset(client: &mut Client, isolation_level: i8) -> i64 {
    let partition = ListOffsetsPartition { partition_index: 0, timestamp: -1, ..Default::default() };
    let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![partition] };
    let request =
        ListOffsetsRequest { replica_id: -1, isolation_level, topics: vec![topic], ..Default::default() };
    client.call(7, &request).await.topics[0].partitions[0].offset
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_protocol_commits_and_aborts() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    assert_eq!(
        write(&mut client, OLDER_PRODUCE, producer, 0, "early").await,
        ErrorCode::TRANSACTION_ABORTABLE
    );
    assert_eq!(write(&mut client, 9, producer, 0, "early").await, ErrorCode::INVALID_TXN_STATE);
    assert_eq!(add(&mut client, producer, "nowhere").await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    for (round, commit) in [(0, true), (1, false), (2, true)] {
        assert_eq!(add(&mut client, producer, "t").await, ErrorCode::NONE);
        let before = seen(&mut client, true).await;
        assert_eq!(write(&mut client, 9, producer, round, &round.to_string()).await, ErrorCode::NONE);
        assert_eq!(seen(&mut client, true).await, before, "open transactions are not seen");
        assert_eq!(end_offset(&mut client, 1).await, i64::from(2 * round), "the last stable offset");
        assert_eq!(end_offset(&mut client, 0).await, i64::from(2 * round + 1));
        assert_eq!(end(&mut client, OLDER_END, producer, commit).await.0, ErrorCode::NONE);
        assert_eq!(end(&mut client, OLDER_END, producer, commit).await.0, ErrorCode::NONE, "repeated");
        assert_eq!(end(&mut client, OLDER_END, producer, !commit).await.0, ErrorCode::INVALID_TXN_STATE);
        assert_eq!(end_offset(&mut client, 1).await, i64::from(2 * round + 2), "the marker counts");
        assert_eq!(write(&mut client, 9, producer, round + 1, "late").await, ErrorCode::INVALID_TXN_STATE);
    }
    assert_eq!(seen(&mut client, true).await, ["0", "2"]);
    assert_eq!(seen(&mut client, false).await, ["0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_end_never_ends_a_later_transaction_of_the_newer_protocol() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let first = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, first, 0, "a").await, ErrorCode::NONE, "writing adds");
    let (code, second) = end(&mut client, NEWER_END, first, true).await;
    assert_eq!((code, second), (ErrorCode::NONE, (first.0, first.1 + 1)));
    assert_eq!(end(&mut client, NEWER_END, first, true).await, (ErrorCode::NONE, second), "repeated");
    assert_eq!(write(&mut client, NEWER_PRODUCE, first, 1, "x").await, ErrorCode::INVALID_PRODUCER_EPOCH);
    assert_eq!(write(&mut client, NEWER_PRODUCE, second, 0, "b").await, ErrorCode::NONE);
    for commit in [true, false] {
        let (code, _) = end(&mut client, NEWER_END, first, commit).await;
        assert_eq!(code, ErrorCode::PRODUCER_FENCED, "a copy that was under way for long");
    }
    assert_eq!(seen(&mut client, true).await, ["a"]);
    let (code, third) = end(&mut client, NEWER_END, second, false).await;
    assert_eq!((code, third.1), (ErrorCode::NONE, second.1 + 1));
    // Nothing was written: an abort all the same, with the next epoch.
    assert_eq!(end(&mut client, NEWER_END, third, false).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut client, true).await, ["a"]);
    assert_eq!(seen(&mut client, false).await, ["a", "b"]);
}

/// Some clients add partitions with the requests of the older protocol and end with that of the newer.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_end_is_answered_whichever_request_added_the_partition() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let first = init(&mut client).await;
    assert_eq!(add(&mut client, first, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, OLDER_PRODUCE, first, 0, "a").await, ErrorCode::NONE);
    for asked in ["first", "repeated"] {
        let expect = (ErrorCode::NONE, (first.0, first.1 + 1));
        assert_eq!(end(&mut client, NEWER_END, first, true).await, expect, "{asked}");
    }
}

/// What a producer drops in an abort may have come through. One that gives its sequences to new records is not told that
/// those are there; it aborts, and goes on in its next epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_of_an_aborted_transaction_is_not_taken_for_a_copy() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    assert_eq!(add(&mut client, producer, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, 9, producer, 0, "dropped").await, ErrorCode::NONE);
    assert_eq!(end(&mut client, OLDER_END, producer, false).await.0, ErrorCode::NONE);
    assert_eq!(add(&mut client, producer, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, 9, producer, 0, "new").await, ErrorCode::UNKNOWN_PRODUCER_ID);
    assert_eq!(end(&mut client, OLDER_END, producer, false).await.0, ErrorCode::NONE);
    let next = try_init(&mut client, 60_000, producer).await;
    assert_eq!((next.error_code, next.producer_epoch), (ErrorCode::NONE, producer.1 + 1));
    let producer = (next.producer_id, next.producer_epoch);
    assert_eq!(add(&mut client, producer, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, 9, producer, 0, "new").await, ErrorCode::NONE);
    assert_eq!(end(&mut client, OLDER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut client, true).await, ["new"]);
}

/// Records of an open transaction may be deleted, by request or by retention.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_stable_offset_is_not_before_the_log_start() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    for sequence in 0..3 {
        assert_eq!(write(&mut client, NEWER_PRODUCE, producer, sequence, "a").await, ErrorCode::NONE);
    }
    assert_eq!(end_offset(&mut client, 1).await, 0);
    let partition = DeleteRecordsPartition { partition_index: 0, offset: 2 };
    let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
    let deleted = client.call(2, &request).await;
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 2);
    assert_eq!((end_offset(&mut client, 1).await, end_offset(&mut client, 0).await), (2, 3));
    let read = FetchRequest { isolation_level: 1, ..fetch("t", 0, 2, 1 << 20, 0) };
    let data = client.call(11, &read).await.responses.remove(0).partitions.remove(0);
    assert_eq!((data.error_code, data.last_stable_offset), (ErrorCode::NONE, 2));
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(end_offset(&mut client, 1).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_a_name_is_refused_as_kafka_does() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    let nameless = TxnOffsetCommitRequest { group_id: String::new(), ..committing(producer, 1) };
    let answer = client.call(NEWER_OFFSETS, &nameless).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::INVALID_GROUP_ID);
    let options = BatchOptions {
        producer_id: producer.0,
        producer_epoch: producer.1,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    let answer = client.call(NEWER_PRODUCE, &produce("t", 0, -1, batch(options, &["a"]))).await;
    let refused = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(refused, ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_over_aborts_and_fences() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let old = init(&mut client).await;
    assert_eq!(add(&mut client, old, "t").await, ErrorCode::NONE);
    assert_eq!(write(&mut client, 9, old, 0, "open").await, ErrorCode::NONE);
    let new = init(&mut client).await;
    assert!(new.0 == old.0 && new.1 > old.1, "{old:?} {new:?}");
    assert_eq!(end_offset(&mut client, 1).await, 2, "what was open is aborted");
    assert_eq!(write(&mut client, 9, old, 1, "zombie").await, ErrorCode::INVALID_PRODUCER_EPOCH);
    assert_eq!(add(&mut client, old, "t").await, ErrorCode::PRODUCER_FENCED);
    assert_eq!(end(&mut client, OLDER_END, old, true).await.0, ErrorCode::PRODUCER_FENCED);
    assert_eq!(end(&mut client, 1, old, true).await.0, ErrorCode::INVALID_PRODUCER_EPOCH);
    let refused = try_init(&mut client, 60_000, old).await.error_code;
    assert_eq!(refused, ErrorCode::PRODUCER_FENCED, "it says who it was");
    assert_eq!(seen(&mut client, true).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_has_its_time() {
    let setting = ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "20");
    let server = Server::with(&[setting]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let code = try_init(&mut client, i32::MAX, (-1, -1)).await.error_code;
    assert_eq!(code, ErrorCode::INVALID_TRANSACTION_TIMEOUT);
    let given = try_init(&mut client, 100, (-1, -1)).await;
    let producer = (given.producer_id, given.producer_epoch);
    assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "slow").await, ErrorCode::NONE);
    until("readers wait for ever", async || end_offset(&mut client, 1).await > 0).await;
    // Before the client ends it, which raises the epoch too.
    let late = write(&mut client, NEWER_PRODUCE, producer, 1, "late").await;
    assert_eq!(late, ErrorCode::INVALID_PRODUCER_EPOCH);
    // As Apache Kafka 4.4 answers.
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::INVALID_TXN_STATE);
    let next = (producer.0, producer.1 + 1);
    assert_eq!(end(&mut client, NEWER_END, producer, false).await, (ErrorCode::NONE, next));
    assert_eq!(end(&mut client, OLDER_END, producer, true).await.0, ErrorCode::PRODUCER_FENCED);
    assert_eq!(seen(&mut client, true).await, [""; 0]);
}

/// As Apache Kafka 4.4 answers, in every version that says who the producer was.
#[tokio::test(flavor = "multi_thread")]
async fn who_timed_out_goes_on_and_who_was_taken_over_does_not() {
    let setting = ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "20");
    for (newer, version) in [(false, 3), (false, 4), (false, 5), (true, 3), (true, 4), (true, 5)] {
        let server = Server::with(&[setting]).await;
        let mut client = server.client().await;
        client.create_topic("t", 1, &[]).await;
        let ask = |before: Producer| InitProducerIdRequest {
            transactional_id: Some(ID.into()),
            transaction_timeout_ms: 100,
            producer_id: before.0,
            producer_epoch: before.1,
        };
        let mut producer = (-1, -1);
        for round in 0..2 {
            let given = client.call(version, &ask(producer)).await;
            assert_eq!((given.error_code, given.producer_epoch), (ErrorCode::NONE, round), "{version}");
            producer = (given.producer_id, given.producer_epoch);
            let produce = if newer { NEWER_PRODUCE } else { OLDER_PRODUCE };
            if !newer {
                assert_eq!(add(&mut client, producer, "t").await, ErrorCode::NONE);
            }
            assert_eq!(write(&mut client, produce, producer, 0, "slow").await, ErrorCode::NONE, "{version}");
            let marker = 2 * i64::from(round) + 2;
            until("readers wait for ever", async || end_offset(&mut client, 1).await >= marker).await;
        }
        let again = client.call(version, &ask(producer)).await;
        assert_eq!((again.error_code, again.producer_epoch), (ErrorCode::NONE, 2), "{version}: asked again");
        let taken = client.call(version, &ask((-1, -1))).await;
        assert_eq!((taken.error_code, taken.producer_epoch), (ErrorCode::NONE, 3), "{version}");
        let fenced = if version < 4 { ErrorCode::INVALID_PRODUCER_EPOCH } else { ErrorCode::PRODUCER_FENCED };
        assert_eq!(client.call(version, &ask(producer)).await.error_code, fenced, "{version}");
    }
}

pub(crate) async fn commit_offset(
    client: &mut Client,
    version: i16,
    producer: Producer,
    offset: i64,
) -> ErrorCode {
    client.call(version, &committing(producer, offset)).await.topics[0].partitions[0].error_code
}

pub(crate) async fn committed(client: &mut Client, require_stable: bool) -> (ErrorCode, i64) {
    let topic =
        OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
    let group =
        OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], require_stable, ..Default::default() };
    let mut answer = (ErrorCode::NONE, -1);
    // After a start the groups are read beside the first requests, which are told so.
    until("the groups are never there", async || {
        let group = client.call(8, &request).await.groups.remove(0);
        let loading = group.error_code == ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
        if !loading {
            let found = &group.topics[0].partitions[0];
            answer = (found.error_code, found.committed_offset);
        }
        !loading
    })
    .await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_count_once_their_transaction_is_committed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    assert_eq!(commit_offset(&mut client, 3, producer, 1).await, ErrorCode::INVALID_TXN_STATE);
    let add = adding_offsets(producer);
    for (offset, commit, expect) in [(10, true, 10), (20, false, 10), (30, true, 30)] {
        assert_eq!(client.call(3, &add).await.error_code, ErrorCode::NONE);
        let before = committed(&mut client, false).await;
        assert_eq!(commit_offset(&mut client, 3, producer, offset).await, ErrorCode::NONE);
        assert_eq!(committed(&mut client, true).await.0, ErrorCode::UNSTABLE_OFFSET_COMMIT);
        assert_eq!(committed(&mut client, false).await, before);
        assert_eq!(end(&mut client, OLDER_END, producer, commit).await.0, ErrorCode::NONE);
        assert_eq!(committed(&mut client, true).await, (ErrorCode::NONE, expect));
    }
    // The newer protocol adds the group by itself; and all of it outlives a restart, open ones as open.
    assert_eq!(commit_offset(&mut client, NEWER_OFFSETS, producer, 40).await, ErrorCode::NONE);
    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    assert_eq!(committed(&mut client, true).await.0, ErrorCode::UNSTABLE_OFFSET_COMMIT);
    assert_eq!(committed(&mut client, false).await, (ErrorCode::NONE, 30));
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(committed(&mut client, true).await, (ErrorCode::NONE, 40));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_listed_and_described_and_outlive_a_restart() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "open").await, ErrorCode::NONE);
    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    let ask = DescribeTransactionsRequest { transactional_ids: vec![ID.into(), "other".into()] };
    let described = client.call(0, &ask).await.transaction_states;
    assert_eq!(described[1].error_code, ErrorCode::TRANSACTIONAL_ID_NOT_FOUND);
    let one = &described[0];
    assert_eq!((one.error_code, one.transaction_state.as_str()), (ErrorCode::NONE, "Ongoing"));
    assert_eq!((one.producer_id, one.producer_epoch), producer);
    assert_eq!((one.topics[0].topic.as_str(), &one.topics[0].partitions[..]), ("t", &[0][..]));
    assert!(one.transaction_start_time_ms > 0);
    for (states, expect) in [(vec![], 1), (vec!["Ongoing"], 1), (vec!["Empty", "Odd"], 0)] {
        let state_filters = states.iter().map(|state| (*state).to_owned()).collect();
        let listed = client.call(1, &ListTransactionsRequest { state_filters, ..Default::default() }).await;
        assert_eq!(listed.transaction_states.len(), expect, "{states:?}");
        assert_eq!(
            listed.unknown_state_filters,
            states.iter().copied().filter(|s| *s == "Odd").collect::<Vec<_>>()
        );
    }
    for (pattern, expect) in [("t.", Ok(1)), ("t", Ok(0)), ("(", Err(ErrorCode::INVALID_REGULAR_EXPRESSION))]
    {
        let transactional_id_pattern = Some(pattern.to_owned());
        let request = ListTransactionsRequest { transactional_id_pattern, ..Default::default() };
        let listed = client.call(2, &request).await;
        let found = if listed.error_code.is_ok() {
            Ok(listed.transaction_states.len())
        } else {
            Err(listed.error_code)
        };
        assert_eq!(found, expect, "{pattern}");
    }
    assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 1, "still open").await, ErrorCode::NONE);
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(seen(&mut client, true).await, ["open", "still open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_protocol_is_a_finalized_feature() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let response = client.call(4, &versions_request()).await;
    let feature = &response.finalized_features[0];
    assert_eq!((feature.name.as_str(), feature.max_version_level), ("transaction.version", 2));
    assert!(response.finalized_features_epoch >= 0, "clients use a feature only then");
}
