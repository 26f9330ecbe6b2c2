//! Records of the coordinators' topics that this program cannot read: what another program wrote there.

use bytes::Bytes;
use pelton_broker::{Broker, Config, Deps};
use pelton_partitions::partition::InternalRecord;
use pelton_wire::ErrorCode;

use crate::client::Server;
use crate::transactions::*;

const OFFSETS: &str = "__consumer_offsets";
const TRANSACTIONS: &str = "__transaction_state";

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// The key of the offset that group `g` has committed for partition 0 of `t`.
fn offset_key() -> Vec<u8> {
    [&[0, 1][..], &string("g"), &string("t"), &[0, 0, 0, 0]].concat()
}

fn group_key() -> Vec<u8> {
    [&[0, 2][..], &string("g")].concat()
}

fn transaction_key() -> Vec<u8> {
    [&[0, 0][..], &string(ID)].concat()
}

/// A broker of one partition per coordinator, with a group and a transactional id, and one more record.
async fn with_record(topic: &str, key: Option<Vec<u8>>, value: Vec<u8>) -> std::sync::Arc<tempfile::TempDir> {
    let one = [("offsets.topic.num.partitions", "1"), ("transaction.state.log.num.partitions", "1")];
    let server = Server::with(&one).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let producer = init(&mut client).await;
    assert_eq!(write(&mut client, NEWER_PRODUCE, producer, 0, "a").await, ErrorCode::NONE);
    assert_eq!(commit_offset(&mut client, 5, producer, 7).await, ErrorCode::NONE);
    assert_eq!(end(&mut client, NEWER_END, producer, true).await.0, ErrorCode::NONE);
    assert_eq!(committed(&mut client, true).await, (ErrorCode::NONE, 7));
    let record = InternalRecord { key: key.map(Bytes::from), value: Some(value.into()) };
    let topic = server.handle.broker().topics.get(topic).unwrap();
    topic.partition(0).unwrap().append_records(&[record], 1).unwrap().durable().await.unwrap();
    server.handle.shutdown().await.unwrap();
    server.dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_stops_at_what_it_cannot_read_and_says_what_to_do() {
    let newer = b"\0\x63and more".to_vec();
    for (what, topic, key, value) in [
        ("a newer transaction", TRANSACTIONS, Some(transaction_key()), newer.clone()),
        ("a cut transaction", TRANSACTIONS, Some(transaction_key()), vec![0, 1, 0]),
        ("a cut transactional id", TRANSACTIONS, Some(vec![0, 0, 0, 9, b't']), newer.clone()),
        ("a transaction of nobody", TRANSACTIONS, None, newer.clone()),
        ("a newer offset", OFFSETS, Some(offset_key()), newer.clone()),
        ("a cut offset", OFFSETS, Some(offset_key()), vec![0, 3, 0]),
        ("a newer group", OFFSETS, Some(group_key()), newer.clone()),
        ("a cut group id", OFFSETS, Some(vec![0, 2, 0, 9, b'g']), newer.clone()),
        ("an offset of nobody", OFFSETS, None, newer),
    ] {
        let dir = with_record(topic, key, value).await;
        let path = dir.path().to_str().unwrap().to_owned();
        for attempt in ["first", "second"] {
            let pairs = [("data.dir", path.as_str()), ("listen", "127.0.0.1:0"), ("http.listen", "off")];
            let config = Config::from_pairs(pairs).unwrap();
            let error = Broker::start(config, Deps::default()).await.err();
            let error = error.unwrap_or_else(|| panic!("{what}: it starts")).to_string();
            let named = error.contains(&format!("`{topic}-0`")) && error.contains("offset ");
            assert!(named && error.contains("Start the version"), "{what}, {attempt}: {error}");
        }
    }
}

/// Kafka leaves them out too.
#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_records_that_other_programs_write_are_left_out() {
    for topic in [TRANSACTIONS, OFFSETS] {
        let dir = with_record(topic, Some(b"\0\x63of another kind".to_vec()), b"\0\x01".to_vec()).await;
        let server = Server::in_dir(dir, &[]).await;
        let mut client = server.client().await;
        assert_eq!(committed(&mut client, true).await, (ErrorCode::NONE, 7), "{topic}");
        let next = try_init(&mut client, 60_000, (-1, -1)).await;
        assert_eq!((next.error_code, next.producer_epoch), (ErrorCode::NONE, 2), "{topic}");
    }
}
