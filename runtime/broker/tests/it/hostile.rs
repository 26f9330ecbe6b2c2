//! Clients that send what they should not. Each loses its own connection at most.

use bytes::Bytes;
use pelton_wire::codec::Reader;
use pelton_wire::message::describe_configs::DescribeConfigsResource;
use pelton_wire::message::describe_log_dirs::DescribableLogDirTopic;
use pelton_wire::message::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use pelton_wire::message::metadata::MetadataRequestTopic;
use pelton_wire::message::offset_fetch::OffsetFetchRequestGroup;
use pelton_wire::message::{describe_producers, describe_quorum, elect_leaders, *};
use pelton_wire::{ApiKey, ErrorCode};

use crate::client::{Server, frame, versions_request};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_close_only_their_own_connection() {
    let server = Server::start().await;
    let mut witness = server.client().await;
    witness.create_topic("t", 1, &[]).await;
    let length = |len: i32, rest: &[u8]| [&len.to_be_bytes()[..], rest].concat();
    let metadata_bomb = [&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff][..], &[0x7f, 0xff, 0xff, 0xff]].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a huge length", length(i32::MAX, b"")),
        ("a negative length", length(-5, b"xxxxx")),
        ("an empty frame", length(0, b"")),
        ("two bytes", length(2, b"\0\x03")),
        ("an unknown key", length(10, &[0x03, 0xe7, 0, 0, 0, 0, 0, 1, 0xff, 0xff])),
        ("an unknown version of Metadata", length(10, &[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff])),
        ("Produce 0, which is advertised and not served", length(10, &[0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff])),
        ("a count that nothing stands behind", length(14, &metadata_bomb)),
        ("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let mut client = server.client().await;
        client.send_bytes(&bytes).await;
        assert!(client.receive_frame().await.is_none(), "{what}");
        witness.append("t", 0, &["unharmed"]).await;
    }
    let mut half = server.client().await;
    half.send_bytes(&length(100, b"only this much")).await;
    drop(half);
    witness.append("t", 0, &["unharmed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_truncation_of_a_request_is_survived() {
    let server = Server::start().await;
    let request = frame(ApiKey::Fetch, 12, 1, &crate::client::fetch("some-topic", 0, 0, 1000, 0));
    let body = &request[4..];
    for len in 1..body.len() {
        let mut client = server.client().await;
        let cut = [&(len as i32).to_be_bytes()[..], &body[..len]].concat();
        client.send_bytes(&cut).await;
        assert!(client.receive_frame().await.is_none(), "cut at {len}");
    }
    server.client().await.call(3, &versions_request()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.send_bytes(&[0, 0, 0, 10, 0, 18, 0, 127, 0, 0, 0, 7, 0xff, 0xff]).await;
    let frame: Bytes = client.receive_frame().await.unwrap();
    assert_eq!(frame[..4], [0, 0, 0, 7]);
    let response = ApiVersionsResponse::decode(&mut Reader::new(frame.slice(4..)), 0).unwrap();
    assert_eq!(response.error_code, ErrorCode::UNSUPPORTED_VERSION);
    // A client that takes the list for final must not take what else is there for what it can speak.
    let keys: Vec<_> = response.api_keys.iter().map(|api| (api.api_key, api.min_version)).collect();
    assert_eq!(keys, [(ApiKey::ApiVersions as i16, 0)]);
    assert!(response.api_keys[0].max_version >= 5);
    let response = client.call(3, &versions_request()).await;
    let produce = response.api_keys.iter().find(|api| api.api_key == 0).unwrap();
    assert_eq!(produce.min_version, 0, "old librdkafka sends nothing compressed otherwise");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let server = Server::with(&[("max.connections", "3")]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        client.call(3, &versions_request()).await;
        clients.push(client);
    }
    let mut fourth = server.client().await;
    fourth.send(3, &versions_request()).await;
    assert!(fourth.receive_frame().await.is_none());
    drop(clients.pop());
    loop {
        // The broker notices the closed connection a moment later.
        let mut again = server.client().await;
        again.send(3, &versions_request()).await;
        if again.receive_frame().await.is_some() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_connections_are_closed() {
    let settings = [("connections.max.idle.ms", "200"), ("pelton.request.receive.timeout.ms", "200")];
    let server = Server::with(&settings).await;
    let mut idle = server.client().await;
    idle.call(3, &versions_request()).await;
    assert!(idle.receive_frame().await.is_none());
    let mut slow = server.client().await;
    slow.send_bytes(&[0, 0, 1, 0, 0, 18]).await;
    assert!(slow.receive_frame().await.is_none());
}

/// A name is a few bytes of a request, and its answer kilobytes of memory: no short request may cost gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_often_is_told_once() {
    const TIMES: usize = 1000;
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 3, &[]).await;

    let topic = MetadataRequestTopic { name: Some("t".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic; TIMES]), ..Default::default() };
    assert_eq!(client.call(12, &request).await.topics.len(), 1);

    let resource = |configuration_keys| DescribeConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configuration_keys,
    };
    let mut resources = vec![resource(None); TIMES];
    resources.extend([resource(Some(Vec::new())), resource(Some(vec!["retention.ms".into()]))]);
    let response = client.call(4, &DescribeConfigsRequest { resources, ..Default::default() }).await;
    let settings: Vec<usize> = response.results.iter().map(|result| result.configs.len()).collect();
    assert!(matches!(settings[..], [all, 1] if all > 1), "{settings:?}");

    let request = DescribeGroupsRequest { groups: vec!["g".into(); TIMES], ..Default::default() };
    assert_eq!(client.call(6, &request).await.groups.len(), 1);

    let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group; TIMES], ..Default::default() };
    assert_eq!(client.call(9, &request).await.groups.len(), 1);

    let topic = describe_producers::TopicRequest { name: "t".into(), partition_indexes: vec![1; TIMES] };
    let response = client.call(0, &DescribeProducersRequest { topics: vec![topic.clone(), topic] }).await;
    assert_eq!(response.topics.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [1, 0]);

    let topic = DescribableLogDirTopic { topic: "t".into(), partitions: vec![1; TIMES] };
    let request = DescribeLogDirsRequest { topics: Some(vec![topic; 3]) };
    assert_eq!(client.call(4, &request).await.results[0].topics[0].partitions.len(), 1);

    let topic = elect_leaders::TopicPartitions { topic: "t".into(), partitions: vec![1; TIMES] };
    let request = ElectLeadersRequest { topic_partitions: Some(vec![topic; 3]), ..Default::default() };
    let results = client.call(2, &request).await.replica_election_results;
    assert_eq!(results.iter().map(|topic| topic.partition_result.len()).collect::<Vec<_>>(), [1]);

    let partitions = vec![describe_quorum::PartitionData { partition_index: 0 }; TIMES];
    let topic = describe_quorum::TopicData { topic_name: "__cluster_metadata".into(), partitions };
    let response = client.call(2, &DescribeQuorumRequest { topics: vec![topic; 3] }).await;
    assert_eq!(response.topics.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [1]);

    let subscription = |i: usize| DescribeConfigsResource {
        resource_type: 16,
        resource_name: format!("{i}"),
        configuration_keys: None,
    };
    let resources = (0..5 * TIMES).map(subscription).collect();
    let response = client.call(4, &DescribeConfigsRequest { resources, ..Default::default() }).await;
    assert!(response.results.iter().all(|result| result.configs.is_empty()));
}

/// The work of a request grows with its length, not with the square of it, which would take minutes here.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_many_changes_is_soon_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let change = |i: usize| AlterableConfig { name: format!("setting-{i}"), ..Default::default() };
    let configs = (0..100_000).map(change).collect();
    let resource = AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_eq!(client.call(1, &request).await.responses[0].error_code, ErrorCode::INVALID_CONFIG);
}

/// Claims of 16 MiB each, of which almost nothing comes, beside clients that mean it.
#[tokio::test(flavor = "multi_thread")]
async fn claims_take_nothing_from_others() {
    const CLAIM: i32 = 16 * 1024 * 1024;
    let server = Server::with(&[("queued.max.request.bytes", "16777216")]).await;
    let mut witness = server.client().await;
    witness.create_topic("t", 1, &[]).await;
    let mut claims = Vec::new();
    for sent in [0, 10, 100_000, 100_000, 100_000, 100_000] {
        let mut client = server.client().await;
        client.send_bytes(&[&CLAIM.to_be_bytes()[..], &vec![0; sent]].concat()).await;
        claims.push(client);
    }
    witness.append("t", 0, &[&"x".repeat(900_000)]).await;
    witness.call(3, &versions_request()).await;
}
