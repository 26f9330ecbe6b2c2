//! Creating, growing, describing and deleting.

use pelton_wire::ErrorCode;
use pelton_wire::message::create_partitions::CreatePartitionsTopic;
use pelton_wire::message::create_topics::{CreatableTopic, CreatableTopicConfig};
use pelton_wire::message::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use pelton_wire::message::delete_topics::DeleteTopicState;
use pelton_wire::message::describe_topic_partitions::{Cursor, TopicRequest};
use pelton_wire::message::metadata::MetadataRequestTopic;
use pelton_wire::message::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use pelton_wire::message::*;

use crate::client::{Server, records};

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions: 1, replication_factor: 1, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_topics() {
    let server = Server::with(&[("num.partitions", "4"), ("pelton.max.partitions", "20")]).await;
    let mut client = server.client().await;
    let config =
        |name: &str, value: &str| vec![CreatableTopicConfig { name: name.into(), value: Some(value.into()) }];
    let topics = vec![
        topic("plain"),
        CreatableTopic { num_partitions: -1, replication_factor: -1, ..topic("defaults") },
        CreatableTopic { num_partitions: 0, ..topic("none") },
        CreatableTopic { replication_factor: 3, ..topic("copies") },
        CreatableTopic { configs: config("retention.msec", "1"), ..topic("config") },
        CreatableTopic { configs: config("retention.ms", "soon"), ..topic("value") },
        CreatableTopic { configs: config("retention.ms", "1000"), ..topic("good") },
        topic("bad name"),
        topic("twice"),
        topic("twice"),
        topic("__mine"),
        topic("__consumer_offsets"),
        CreatableTopic { num_partitions: 100, ..topic("many") },
    ];
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let response = client.call(7, &request).await;
    let codes: Vec<_> = response.topics.iter().map(|t| (t.name.as_str(), t.error_code)).collect();
    assert_eq!(
        codes,
        [
            ("plain", ErrorCode::NONE),
            ("defaults", ErrorCode::NONE),
            ("none", ErrorCode::INVALID_PARTITIONS),
            ("copies", ErrorCode::INVALID_REPLICATION_FACTOR),
            ("config", ErrorCode::INVALID_CONFIG),
            ("value", ErrorCode::INVALID_CONFIG),
            ("good", ErrorCode::NONE),
            ("bad name", ErrorCode::INVALID_TOPIC_EXCEPTION),
            ("twice", ErrorCode::INVALID_REQUEST),
            ("__mine", ErrorCode::NONE),
            ("__consumer_offsets", ErrorCode::INVALID_TOPIC_EXCEPTION),
            ("many", ErrorCode::POLICY_VIOLATION),
        ]
    );
    assert_eq!((response.topics[1].num_partitions, response.topics[1].replication_factor), (4, 1));
    let configs = response.topics[6].configs.as_ref().unwrap();
    let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));

    let again = CreateTopicsRequest { topics: vec![topic("plain")], ..Default::default() };
    assert_eq!(client.call(7, &again).await.topics[0].error_code, ErrorCode::TOPIC_ALREADY_EXISTS);
    let topics = (0..21).map(|i| topic(&format!("dry-{i}"))).collect();
    let check = CreateTopicsRequest { topics, validate_only: true, ..Default::default() };
    let refused = client.call(7, &check).await.topics;
    assert!(refused.iter().all(|topic| topic.error_code == ErrorCode::POLICY_VIOLATION), "{refused:?}");
    let check = CreateTopicsRequest { topics: vec![topic("dry")], validate_only: true, ..Default::default() };
    assert_eq!(client.call(7, &check).await.topics[0].error_code, ErrorCode::NONE);
    assert_eq!(client.call(7, &check).await.topics[0].error_code, ErrorCode::NONE, "it was not created");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_again_is_empty_and_has_another_id() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut ids = Vec::new();
    for round in 0..3 {
        client.create_topic("t", 2, &[]).await;
        assert_eq!(client.append("t", 1, &["x"]).await, 0, "round {round}");
        let everything = MetadataRequest { topics: None, ..Default::default() };
        let id = client.call(12, &everything).await.topics[0].topic_id;
        assert!(!ids.contains(&id));
        ids.push(id);
        let by_id = DeleteTopicState { name: None, topic_id: id };
        let request = DeleteTopicsRequest { topics: vec![by_id], ..Default::default() };
        let response = client.call(6, &request).await;
        assert_eq!(
            (response.responses[0].error_code, response.responses[0].name.as_deref()),
            (ErrorCode::NONE, Some("t"))
        );
        assert_eq!(client.call(6, &request).await.responses[0].error_code, ErrorCode::UNKNOWN_TOPIC_ID);
        assert_eq!(client.fetch("t", 1, 0, 100).await.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }
    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    assert_eq!(client.append("t", 0, &["x"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_partitions() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    client.append("t", 0, &["kept"]).await;
    let grow = async |client: &mut crate::client::Client, name: &str, count: i32| {
        let wanted = CreatePartitionsTopic { name: name.into(), count, assignments: None };
        let request = CreatePartitionsRequest { topics: vec![wanted], ..Default::default() };
        client.call(3, &request).await.results[0].error_code
    };
    assert_eq!(grow(&mut client, "t", 2).await, ErrorCode::INVALID_PARTITIONS);
    assert_eq!(grow(&mut client, "t", 1).await, ErrorCode::INVALID_PARTITIONS);
    assert_eq!(grow(&mut client, "x", 1).await, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(grow(&mut client, "t", 5).await, ErrorCode::NONE);
    assert_eq!(client.append("t", 4, &["new"]).await, 0);
    assert_eq!(records(&client.fetch("t", 0, 0, 1000).await).len(), 1);
    let server = server.restart(&[]).await;
    assert_eq!(server.client().await.append("t", 4, &["more"]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_records() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    client.create_topic("compacted", 1, &[("cleanup.policy", "compact")]).await;
    for i in 0..10 {
        client.append("t", 0, &[&format!("{i}")]).await;
    }
    let delete = async |client: &mut crate::client::Client, topic: &str, offset: i64| {
        let partition = DeleteRecordsPartition { partition_index: 0, offset };
        let topic = DeleteRecordsTopic { name: topic.into(), partitions: vec![partition] };
        let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1000 };
        let response = client.call(2, &request).await;
        let result = &response.topics[0].partitions[0];
        (result.error_code, result.low_watermark)
    };
    assert_eq!(delete(&mut client, "t", 4).await, (ErrorCode::NONE, 4));
    assert_eq!(delete(&mut client, "t", 2).await, (ErrorCode::NONE, 4), "it never goes back");
    assert_eq!(delete(&mut client, "t", 11).await.0, ErrorCode::OFFSET_OUT_OF_RANGE);
    assert_eq!(delete(&mut client, "x", 1).await.0, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(delete(&mut client, "compacted", 0).await.0, ErrorCode::POLICY_VIOLATION);
    assert_eq!(client.fetch("t", 0, 3, 1000).await.error_code, ErrorCode::OFFSET_OUT_OF_RANGE);
    assert_eq!(records(&client.fetch("t", 0, 4, 1000).await).len(), 6);
    assert_eq!(client.offset_at("t", 0, -2).await, (ErrorCode::NONE, 4));
    let server = server.restart(&[]).await;
    let mut client = server.client().await;
    assert_eq!(
        client.offset_at("t", 0, -2).await,
        (ErrorCode::NONE, 4),
        "a restart does not bring them back"
    );
    assert_eq!(delete(&mut client, "t", -1).await, (ErrorCode::NONE, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn describing() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("a", 3, &[]).await;
    client.create_topic("b", 2, &[]).await;
    let cluster = client.call(1, &DescribeClusterRequest { endpoint_type: 1, ..Default::default() }).await;
    assert_eq!((cluster.brokers.len(), cluster.brokers[0].port), (1, i32::from(server.handle.addr().port())));
    let wrong = client.call(1, &DescribeClusterRequest { endpoint_type: 2, ..Default::default() }).await;
    assert_eq!(wrong.error_code, ErrorCode::MISMATCHED_ENDPOINT_TYPE);

    let mut pages = Vec::new();
    let mut cursor: Option<Cursor> = None;
    loop {
        let request =
            DescribeTopicPartitionsRequest { response_partition_limit: 2, cursor, ..Default::default() };
        let page = client.call(0, &request).await;
        pages.extend(page.topics.iter().flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|p| format!("{}-{}", topic.name.as_deref().unwrap(), p.partition_index))
        }));
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, ["a-0", "a-1", "a-2", "b-0", "b-1"]);
    let unknown = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "x".into() }],
        ..Default::default()
    };
    assert_eq!(client.call(0, &unknown).await.topics[0].error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);

    client.append("a", 0, &["x", "y"]).await;
    // Partition 1 is empty, and led all the same.
    for (partition, epoch, expect) in
        [(0, 0, (ErrorCode::NONE, 0, 2)), (1, 0, (ErrorCode::NONE, 0, 0)), (1, 1, (ErrorCode::NONE, -1, -1))]
    {
        let asked = OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch: epoch };
        let topic = OffsetForLeaderTopic { topic: "a".into(), partitions: vec![asked] };
        let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
        let response = client.call(4, &request).await;
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expect, "{partition} {epoch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_without_a_value_are_refused() {
    use pelton_wire::message::{alter_configs, describe_configs, incremental_alter_configs};
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[("retention.ms", "5000")]).await;
    let null = "Null value not supported for : segment.bytes";
    // Operations: 0 sets, 1 deletes, 2 appends, 3 subtracts.
    for (operation, expect) in [(0, Some(null)), (1, None), (2, Some(null)), (3, Some(null))] {
        let changes = [("segment.bytes", operation, None), ("max.message.bytes", 0, Some("1000"))];
        let configs = changes.map(|(name, config_operation, value): (_, _, Option<&str>)| {
            let value = value.map(Into::into);
            incremental_alter_configs::AlterableConfig { name: name.into(), config_operation, value }
        });
        let resource = incremental_alter_configs::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: configs.into(),
        };
        for validate_only in [true, false] {
            let request = IncrementalAlterConfigsRequest { resources: vec![resource.clone()], validate_only };
            let got = &client.call(1, &request).await.responses[0];
            let code = if expect.is_some() { ErrorCode::INVALID_REQUEST } else { ErrorCode::NONE };
            assert_eq!((got.error_code, got.error_message.as_deref()), (code, expect), "{operation}");
        }
    }
    let configs = [("retention.ms", Some("1")), ("segment.bytes", None)].map(|(name, value)| {
        alter_configs::AlterableConfig { name: name.into(), value: value.map(Into::into) }
    });
    let resource = alter_configs::AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configs: configs.into(),
    };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    let got = &client.call(2, &request).await.responses[0];
    assert_eq!((got.error_code, got.error_message.as_deref()), (ErrorCode::INVALID_REQUEST, Some(null)));
    let resource = describe_configs::DescribeConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configuration_keys: Some(vec!["retention.ms".into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let described = client.call(4, &request).await;
    assert_eq!(described.results[0].configs[0].value.as_deref(), Some("5000"), "half of it was done");
}

/// A tool that deletes what this version does not know has what it wants (KIP-894); one that sets it has not.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_setting_can_be_deleted() {
    use pelton_wire::message::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let mut alter = async |operation, retention: &str| {
        let change = |name: &str, config_operation, value: Option<&str>| AlterableConfig {
            name: name.into(),
            config_operation,
            value: value.map(Into::into),
        };
        let unknown = change("no.such.setting", operation, (operation == SET).then_some("1"));
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: vec![unknown, change("retention.ms", SET, Some(retention))],
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        client.call(1, &request).await.responses[0].error_code
    };
    assert_eq!(alter(DELETE, "5000").await, ErrorCode::NONE);
    assert_eq!(alter(SET, "6000").await, ErrorCode::INVALID_CONFIG);
    let topic = server.handle.broker().topics.get("t").unwrap();
    assert_eq!(topic.config.retention_ms, Some(5000), "the valid change was made, the other not");
}

/// Canaries and schema registries name their topics so.
#[tokio::test(flavor = "multi_thread")]
async fn underscores_make_no_topic_special() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let wanted = MetadataRequestTopic { name: Some("__canary".into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![wanted]), ..Default::default() };
    let created = client.call(12, &request).await.topics.remove(0);
    assert_eq!((created.error_code, created.is_internal), (ErrorCode::NONE, false));
    assert_eq!(client.append("__canary", 0, &["v"]).await, 0);
    let state = DeleteTopicState { name: Some("__canary".into()), ..Default::default() };
    let request = DeleteTopicsRequest { topics: vec![state], ..Default::default() };
    assert_eq!(client.call(6, &request).await.responses[0].error_code, ErrorCode::NONE);
}
