//! What a stop and a start keep.

use std::time::{Duration, Instant};

use pelton_broker::{Broker, Config, Deps};
use pelton_wire::message::{FetchRequest, MetadataRequest};

use crate::client::{Server, fetch, records, values};

#[tokio::test(flavor = "multi_thread")]
async fn topics_settings_and_records_are_kept() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("kept", 2, &[("segment.bytes", "1000")]).await;
    client.create_topic("gone", 1, &[]).await;
    for i in 0..40 {
        client.append("kept", 1, &[&format!("value {i} {}", "x".repeat(100))]).await;
    }
    let gone =
        pelton_wire::message::DeleteTopicsRequest { topic_names: vec!["gone".into()], ..Default::default() };
    assert!(client.call(5, &gone).await.responses[0].error_code.is_ok());
    let everything = MetadataRequest { topics: None, ..Default::default() };
    let before = client.call(12, &everything).await;

    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    let after = client.call(12, &everything).await;
    assert_eq!((&after.topics, &after.cluster_id), (&before.topics, &before.cluster_id));
    assert_eq!(after.topics.len(), 1);
    assert_eq!(records(&client.fetch("kept", 1, 0, 1 << 20).await).len(), 40);
    assert_eq!(client.append("kept", 1, &["next"]).await, 40);
    assert_eq!(client.append("kept", 0, &["first"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_is_under_way() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let waiting = client.send(11, &fetch("t", 0, 0, 1000, 60_000)).await;
    client.send(12, &MetadataRequest::default()).await;
    client.still_waits().await;
    let started = Instant::now();
    let stopping = tokio::spawn(async move { server.handle.shutdown().await });
    let response = client.receive::<FetchRequest>(11, waiting).await;
    assert!(values(&response.responses[0].partitions[0]).is_empty());
    assert!(client.receive_frame().await.is_some(), "the request behind it, too");
    assert!(client.receive_frame().await.is_none(), "then the connection is closed");
    stopping.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_and_a_port_in_use_are_refused() {
    let server = Server::start().await;
    let dir = server.dir.path().to_str().unwrap().to_owned();
    let config =
        Config::from_pairs([("data.dir", dir.as_str()), ("listen", "127.0.0.1:0"), ("http.listen", "off")])
            .unwrap();
    let error = Broker::start(config, Deps::default()).await.err().unwrap().to_string();
    assert!(error.contains(&dir), "{error}");
    let other = tempfile::tempdir().unwrap();
    let listen = server.handle.addr().to_string();
    let pairs =
        [("data.dir", other.path().to_str().unwrap()), ("listen", listen.as_str()), ("http.listen", "off")];
    let error =
        Broker::start(Config::from_pairs(pairs).unwrap(), Deps::default()).await.err().unwrap().to_string();
    assert!(error.contains(&listen), "{error}");
}
