//! Tables over HTTP, in memory: what is created, asked, followed, and what a restart and a new topic do to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pelton_broker::{Broker, BrokerHandle, Config, Deps};
use pelton_partitions::partition::{InternalRecord, Partition, TxnMarker};
use pelton_partitions::producer_id::ProducerIdentity;
use pelton_pipelines::slow::SlowFactory;
use pelton_streams::PluginFactory;
use pelton_wire::message::{DeleteTopicsRequest, InitProducerIdRequest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, until};

const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that keeps tables.
struct Lab {
    handle: BrokerHandle,
    dir: tempfile::TempDir,
}

impl Lab {
    async fn start() -> Lab {
        Lab::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(dir: tempfile::TempDir) -> Lab {
        let path = dir.path().to_str().unwrap();
        let pairs = [
            ("data.dir", path),
            ("listen", "127.0.0.1:0"),
            ("http.listen", "127.0.0.1:0"),
            ("pelton.journal.max.bytes", "33554432"),
        ];
        let plugins: Option<Arc<dyn PluginFactory>> = Some(SlowFactory::new());
        let config = Config::from_pairs(pairs).unwrap();
        let handle = Broker::start(config, Deps { plugins, ..Deps::default() }).await.unwrap();
        Lab { handle, dir }
    }

    async fn restart(self) -> Lab {
        self.handle.shutdown().await.unwrap();
        Lab::start_in(self.dir).await
    }

    async fn client(&self) -> Client {
        Client::connect(self.handle.addr()).await
    }

    async fn compacted(&self, topic: &str, partitions: i32) {
        self.client().await.create_topic(topic, partitions, &[("cleanup.policy", "compact")]).await;
    }

    fn partition(&self, topic: &str, partition: i32) -> Arc<Partition> {
        self.handle.broker().topics.partition(topic, partition).unwrap()
    }

    /// Appends records of one partition. The offset of the last one.
    async fn put(&self, topic: &str, partition: i32, records: &[(&str, Option<&str>)]) -> i64 {
        let records: Vec<InternalRecord> = records.iter().map(|(key, value)| record(key, *value)).collect();
        let append = self.partition(topic, partition).append_records(&records, 5).unwrap();
        append.durable().await.unwrap() + records.len() as i64 - 1
    }

    fn http(&self) -> SocketAddr {
        self.handle.http_addr().unwrap()
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        request(self.http(), &format!("GET {target}"), "", "").await
    }

    async fn change(&self, line: &str, body: &Value) -> (u16, Value) {
        let token = std::fs::read_to_string(self.dir.path().join("http.token")).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        request(self.http(), line, &format!("Authorization: Bearer {}\r\n", token.trim()), &body).await
    }

    async fn create(&self, name: &str, topic: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let mut table = json!({ "name": name, "topic": topic, "store": "memory" });
        for (key, value) in more {
            table[*key] = json!(value);
        }
        self.change("POST /v1/tables", &table).await
    }

    /// The answer to a read once the table reflects an offset.
    async fn read(&self, target: &str, min_offset: i64) -> Value {
        // A key may be in any partition: each of them must have been read once.
        let name = target.trim_start_matches("/v1/tables/").split('/').next().unwrap();
        let table = format!("/v1/tables/{name}");
        until("the table is live", async || self.get(&table).await.1["state"] == "live").await;
        let also = if target.contains('?') { '&' } else { '?' };
        let (status, answer) =
            self.get(&format!("{target}{also}min_offset=0:{min_offset}&timeout_ms=20000")).await;
        assert_eq!(status, 200, "{target}: {answer}");
        answer
    }
}

fn record(key: &str, value: Option<&str>) -> InternalRecord {
    let bytes = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
    InternalRecord { key: Some(bytes(key)), value: value.map(bytes) }
}

async fn send(address: SocketAddr, line: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream
}

/// The answer to a request that is not chunked.
async fn request(address: SocketAddr, line: &str, headers: &str, body: &str) -> (u16, Value) {
    let mut stream = send(address, line, headers, body).await;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("{line}: {answer}")))
}

/// Server-sent events of one connection.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn open(address: SocketAddr, target: &str) -> Events {
        Events { stream: send(address, &format!("GET {target}"), "", "").await, text: String::new() }
    }

    /// The next event with its data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            // Chunks are parted at events, so that the sizes between them are lines that no event has.
            if let Some(at) = self.text.find("event: ")
                && let Some(end) = self.text[at..].find("\n\n")
            {
                let event = self.text[at..at + end].to_owned();
                self.text.drain(..at + end + 2);
                let (kind, data) = event.split_once("\ndata: ").unwrap();
                return (kind["event: ".len()..].to_owned(), serde_json::from_str(data).unwrap());
            }
            let mut bytes = [0; 4096];
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes)).await.unwrap().unwrap();
            assert!(read > 0, "the connection ended after {}", self.text);
            self.text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_key_and_by_range() {
    let lab = Lab::start().await;
    lab.compacted("planes", 1).await;
    let rows = [("a/b", Some("{\"n\": 1}")), ("a c", Some("2")), ("b", Some("no json")), ("é", Some("[]"))];
    lab.put("planes", 0, &rows).await;
    let last = lab.put("planes", 0, &[("b", Some("\"3\"")), ("gone", Some("0")), ("gone", None)]).await;
    let (status, created) = lab.create("planes", "planes", &[("value", "json"), ("scope", "global")]).await;
    assert_eq!((status, &created["scope"], &created["partitions"]), (200, &json!("global"), &json!(1)));
    let found = lab.read("/v1/tables/planes/records/a%2Fb", last).await;
    let expect = json!({ "table": "planes", "offsets": { "0": last }, "key": "a/b", "value": { "n": 1 }, "timestamp": 5 });
    assert_eq!(found, expect);
    for (target, value) in [
        ("records?key=a+c", json!(2)),
        ("records?key=base64:YSBj", json!(2)),
        ("records/a%20c", json!(2)),
        ("records/%C3%A9", json!([])),
        ("records/b", json!("3")),
    ] {
        let (status, found) = lab.get(&format!("/v1/tables/planes/{target}")).await;
        assert_eq!((status, &found["value"]), (200, &value), "{target}: {found}");
    }
    let (status, missing) = lab.get("/v1/tables/planes/records/gone").await;
    assert_eq!((status, &missing["offsets"]["0"]), (404, &json!(last)), "{missing}");
    let keys = |page: &Value| -> Vec<String> {
        page["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["key"].as_str().unwrap().to_owned())
            .collect()
    };
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let (status, page) = lab.get(&format!("/v1/tables/planes/records?limit=3{token}")).await;
        assert_eq!((status, &page["offsets"]["0"]), (200, &json!(last)));
        seen.extend(keys(&page));
        let Some(next) = page["next"].as_str() else { break };
        token = format!("&page={next}");
    }
    assert_eq!(seen, ["a c", "a/b", "b", "é"]);
    for (range, expect) in [
        ("prefix=a", vec!["a c", "a/b"]),
        ("from=a/&to=c", vec!["a/b", "b"]),
        ("from=z", vec!["é"]),
        ("to=a", vec![]),
    ] {
        let (_, page) = lab.get(&format!("/v1/tables/planes/records?{range}")).await;
        assert_eq!(keys(&page), expect, "{range}");
    }
    let (status, metrics) = {
        let mut stream = send(lab.http(), "GET /metrics", "", "").await;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (200, text)
    };
    assert_eq!(status, 200);
    for line in [
        "pelton_table_state{table=\"planes\",state=\"live\"} 1",
        "pelton_table_records_behind{table=\"planes\",partition=\"0\"} 0",
        "pelton_table_restored_ratio{table=\"planes\",partition=\"0\"} 1",
        "pelton_table_keys{table=\"planes\",store=\"global\"} 4",
        "pelton_table_puts_total{table=\"planes\"} 6",
        "pelton_table_tombstones_total{table=\"planes\"} 1",
    ] {
        assert!(metrics.contains(line), "no `{line}` in {metrics}");
    }
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_the_reason() {
    let lab = Lab::start().await;
    lab.client().await.create_topic("plain", 1, &[]).await;
    lab.compacted("t", 2).await;
    let refused = |(status, answer): (u16, Value), expect: u16, word: &str| {
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == expect && error.contains(word), "{status}: {answer}, not {expect} {word}");
    };
    refused(lab.create("a", "nowhere", &[]).await, 422, "`nowhere` does not exist");
    refused(lab.create("a", "plain", &[]).await, 422, "not compacted");
    refused(lab.create("a", "__pelton_deployments", &[]).await, 422, "server's own");
    refused(lab.create("A", "t", &[]).await, 422, "a-z");
    refused(lab.create("a", "t", &[("store", "rocksdb")]).await, 422, "no tables on disk");
    refused(lab.create("a", "t", &[("scope", "wide")]).await, 400, "wide");
    refused(lab.create("a", "t", &[("colour", "red")]).await, 400, "colour");
    let without = request(lab.http(), "POST /v1/tables", "", "{}").await;
    refused(without, 401, "Bearer");
    assert_eq!(lab.create("a", "t", &[]).await.0, 200);
    refused(lab.create("a", "t", &[]).await, 409, "already");
    let end = lab.put("t", 0, &[("k", Some("v"))]).await;
    lab.read("/v1/tables/a/records/k", end).await;
    for (target, status, word) in [
        ("b", 404, "no table `b`"),
        ("b/records/k", 404, "no table `b`"),
        ("a/records?limti=3", 400, "limti"),
        ("a/records?page=%21", 400, "page"),
        ("a/records?key=base64:!", 400, "base64"),
        // Which of the two partitions?
        ("a/records/k?min_offset=3", 400, "min_offset"),
        ("a/records/k?min_offset=9:0", 400, "no partition 9"),
        ("a/records/k?min_offset=0:1&timeout_ms=1", 503, "and not 1 yet"),
    ] {
        refused(lab.get(&format!("/v1/tables/{target}")).await, status, word);
    }
    let behind = lab.get("/v1/tables/a/records?min_offset=0:7&timeout_ms=1").await.1;
    assert_eq!(
        (&behind["partition"], &behind["offset"], &behind["wanted"]),
        (&json!(0), &json!(0), &json!(7))
    );
    assert_eq!(lab.change("DELETE /v1/tables/a", &Value::Null).await.0, 200);
    refused(lab.change("DELETE /v1/tables/a", &Value::Null).await, 404, "no table `a`");
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_or_aborted_is_never_seen() {
    let lab = Lab::start().await;
    lab.compacted("t", 1).await;
    let before = lab.put("t", 0, &[("k", Some("before"))]).await;
    assert_eq!(lab.create("t", "t", &[]).await.0, 200);
    lab.read("/v1/tables/t/records/k", before).await;
    let partition = lab.partition("t", 0);
    let mut client = lab.client().await;
    for (commit, expect) in [(false, "before"), (true, "written")] {
        let init = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let id = client.call(4, &init).await.producer_id;
        let producer = ProducerIdentity { id, epoch: 0 };
        let open = partition.append_transactional(producer, &[record("k", Some("written"))], 5).unwrap();
        let offset = open.durable().await.unwrap();
        // Other records behind it wait for its end, too.
        let behind = lab.put("t", 0, &[("other", Some("x"))]).await;
        let (_, found) = lab.get("/v1/tables/t/records/k").await;
        assert_eq!(found["value"], "before", "{found}");
        let (status, waits) =
            lab.get(&format!("/v1/tables/t/records/k?min_offset={offset}&timeout_ms=50")).await;
        assert_eq!(status, 503, "{waits}");
        let marker = TxnMarker { producer, commit, coordinator_epoch: None };
        partition.append_marker(marker, 5).unwrap().durable().await.unwrap();
        let found = lab.read("/v1/tables/t/records/k", behind).await;
        assert_eq!(found["value"], expect, "{found}");
    }
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_there_after_a_restart_and_follow_their_topic_s_name() {
    let lab = Lab::start().await;
    lab.compacted("t", 2).await;
    lab.put("t", 1, &[("k", Some("old"))]).await;
    assert_eq!(lab.create("kept", "t", &[("partitioner", "murmur2")]).await.0, 200);
    assert_eq!(lab.create("deleted", "t", &[]).await.0, 200);
    assert_eq!(lab.change("DELETE /v1/tables/deleted", &Value::Null).await.0, 200);
    let lab = lab.restart().await;
    let (_, tables) = lab.get("/v1/tables").await;
    let names: Vec<_> = tables.as_array().unwrap().iter().map(|table| table["name"].clone()).collect();
    assert_eq!(names, [json!("kept")]);
    until("the table is live", async || lab.get("/v1/tables/kept").await.1["state"] == "live").await;
    let (status, page) = lab.get("/v1/tables/kept/records").await;
    assert_eq!((status, page["records"].as_array().map(Vec::len)), (200, Some(1)), "{page}");
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
    assert!(lab.client().await.call(5, &delete).await.responses[0].error_code.is_ok());
    until("it says that its topic is gone", async || lab.get("/v1/tables/kept/records").await.0 == 503).await;
    lab.compacted("t", 1).await;
    let end = lab.put("t", 0, &[("k", Some("new"))]).await;
    until("the new topic is read", async || lab.get("/v1/tables/kept/records/k").await.1["value"] == "new")
        .await;
    let page = lab.read("/v1/tables/kept/records", end).await;
    assert_eq!(page["offsets"], json!({ "0": end }));
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_rows_and_then_each_change_in_order() {
    let lab = Lab::start().await;
    lab.compacted("t", 1).await;
    let end = lab.put("t", 0, &[("a", Some("1")), ("b", Some("2"))]).await;
    assert_eq!(lab.create("t", "t", &[("value", "json")]).await.0, 200);
    lab.read("/v1/tables/t/records", end).await;
    let mut events = Events::open(lab.http(), "/v1/tables/t/follow").await;
    assert_eq!(events.next().await, ("begin".into(), json!({ "offsets": { "0": end } })));
    for (key, value) in [("a", 1), ("b", 2)] {
        assert_eq!(
            events.next().await,
            ("row".into(), json!({ "key": key, "value": value, "timestamp": 5 }))
        );
    }
    assert_eq!(events.next().await, ("current".into(), json!({})));
    let mut one = Events::open(lab.http(), "/v1/tables/t/follow?key=b").await;
    while one.next().await.0 != "current" {}
    let mut rows: BTreeMap<String, i64> = BTreeMap::new();
    for i in 0..50 {
        let value = i.to_string();
        lab.put("t", 0, &[("a", Some(&value)), ("a", None), ("b", Some(&value))]).await;
    }
    for i in 0..150_i64 {
        let (kind, change) = events.next().await;
        assert_eq!((kind.as_str(), change["offset"].as_i64()), ("change", Some(end + 1 + i)));
        let value = (i % 3 != 1).then_some(i / 3);
        assert_eq!(change["value"].as_i64(), value, "{change}");
        match value {
            Some(value) => drop(rows.insert(change["key"].as_str().unwrap().to_owned(), value)),
            None => drop(rows.remove("a")),
        }
    }
    assert_eq!(rows, BTreeMap::from([("b".to_owned(), 49)]));
    for i in 0..50 {
        assert_eq!(one.next().await.1["value"], i);
    }
    // It is told why there is no more.
    let (changed, ()) = tokio::join!(lab.change("DELETE /v1/tables/t", &Value::Null), async {
        let (kind, end) = events.next().await;
        assert!(kind == "end" && end["reason"].is_string(), "{kind} {end}");
    });
    assert_eq!(changed.0, 200);
    lab.handle.shutdown().await.unwrap();
}
