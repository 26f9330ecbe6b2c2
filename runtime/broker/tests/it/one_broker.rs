//! What tools ask of any Kafka: the answers of one with a single broker, no authorizer, no quotas and no tiered storage.

use pelton_wire::ErrorCode;
use pelton_wire::message::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use pelton_wire::message::create_acls::AclCreation;
use pelton_wire::message::delete_acls::DeleteAclsFilter;
use pelton_wire::message::describe_client_quotas::ComponentData;
use pelton_wire::message::describe_configs::{DescribeConfigsResource, DescribeConfigsResult};
use pelton_wire::message::describe_log_dirs::DescribableLogDirTopic;
use pelton_wire::message::describe_quorum::{PartitionData, TopicData};
use pelton_wire::message::describe_user_scram_credentials::UserName;
use pelton_wire::message::elect_leaders::TopicPartitions;
use pelton_wire::message::update_features::FeatureUpdateKey;
use pelton_wire::message::{describe_quorum, *};

use crate::client::{Client, Server, versions_request};

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authorizer_there_are_no_acls() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in 1..=3 {
        let described = client.call(version, &DescribeAclsRequest::default()).await;
        assert_eq!((described.error_code, described.resources.len()), (ErrorCode::SECURITY_DISABLED, 0));
        let creations = vec![AclCreation::default(); 2];
        let created = client.call(version, &CreateAclsRequest { creations }).await;
        let codes: Vec<_> = created.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::SECURITY_DISABLED; 2]);
        let filters = vec![DeleteAclsFilter::default()];
        let deleted = client.call(version, &DeleteAclsRequest { filters }).await;
        assert_eq!(deleted.filter_results[0].error_code, ErrorCode::SECURITY_DISABLED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_stay_where_they_are() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    let listed = client.call(0, &ListPartitionReassignmentsRequest::default()).await;
    assert_eq!((listed.error_code, listed.topics.len()), (ErrorCode::NONE, 0));

    let partition = |partition_index, replicas: Option<&[i32]>| ReassignablePartition {
        partition_index,
        replicas: replicas.map(<[i32]>::to_vec),
    };
    let partitions = vec![
        partition(0, Some(&[1])),
        partition(1, None),
        partition(1, Some(&[2])),
        partition(2, Some(&[1])),
    ];
    let topics = vec![
        ReassignableTopic { name: "t".into(), partitions },
        ReassignableTopic { name: "x".into(), partitions: vec![partition(0, Some(&[1]))] },
    ];
    let altered = client.call(1, &AlterPartitionReassignmentsRequest { topics, ..Default::default() }).await;
    let codes = altered.responses.iter().flat_map(|topic| &topic.partitions).map(|p| p.error_code);
    assert_eq!(
        codes.collect::<Vec<_>>(),
        [
            ErrorCode::NONE,
            ErrorCode::NO_REASSIGNMENT_IN_PROGRESS,
            ErrorCode::INVALID_REPLICA_ASSIGNMENT,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_elected_already() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    let of = |topic: &str, partitions: &[i32]| TopicPartitions {
        topic: topic.into(),
        partitions: partitions.to_vec(),
    };
    let ask = |election_type, topic_partitions| ElectLeadersRequest {
        election_type,
        topic_partitions,
        ..Default::default()
    };
    for election_type in [0, 1] {
        let some = Some(vec![of("t", &[0, 7]), of("x", &[0])]);
        let answer = client.call(2, &ask(election_type, some)).await;
        assert_eq!(answer.error_code, ErrorCode::NONE);
        let all = answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
        let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        assert_eq!(
            all.map(|p| p.error_code).collect::<Vec<_>>(),
            [ErrorCode::ELECTION_NOT_NEEDED, unknown, unknown]
        );
        let answer = client.call(2, &ask(election_type, None)).await;
        assert!(answer.replica_election_results.iter().all(|topic| topic.partition_result.is_empty()));
    }
    assert_eq!(
        client.call(2, &ask(2, Some(Vec::new()))).await.error_code,
        ErrorCode::NONE,
        "nothing was asked"
    );
    let answer = client.call(2, &ask(2, Some(vec![of("t", &[0])]))).await;
    let result = &answer.replica_election_results[0].partition_result[0];
    assert_eq!(
        (answer.error_code, result.error_code),
        (ErrorCode::INVALID_REQUEST, ErrorCode::INVALID_REQUEST)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_has_one_voter() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    let ask = |topic: &str, partition_index| DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: topic.into(),
            partitions: vec![PartitionData { partition_index }],
        }],
    };
    for version in 0..=2 {
        let answer = client.call(version, &ask("__cluster_metadata", 0)).await;
        let quorum = &answer.topics[0].partitions[0];
        assert_eq!((quorum.error_code, quorum.leader_id), (ErrorCode::NONE, 1));
        assert_eq!((quorum.current_voters.len(), quorum.observers.len()), (1, 0));
        let voter = &quorum.current_voters[0];
        assert!(quorum.high_watermark > 0, "the topic is in the metadata");
        assert_eq!((voter.replica_id, voter.log_end_offset), (1, quorum.high_watermark));
        let nodes: Vec<_> = answer
            .nodes
            .iter()
            .map(|node: &describe_quorum::Node| (node.node_id, node.listeners[0].port))
            .collect();
        let here = [(1, server.handle.addr().port())];
        assert_eq!(nodes, if version < 2 { &[][..] } else { &here });
    }
    for other in [ask("t", 0), ask("__cluster_metadata", 1)] {
        let answer = client.call(2, &other).await;
        let code = answer.topics[0].partitions[0].error_code;
        assert_eq!((code, answer.nodes.len()), (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_quotas_and_no_passwords() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in [0, 1] {
        let any_user = ComponentData { entity_type: "user".into(), match_type: 2, r#match: None };
        let request = DescribeClientQuotasRequest { components: vec![any_user], strict: false };
        let answer = client.call(version, &request).await;
        assert_eq!((answer.error_code, answer.entries), (ErrorCode::NONE, Some(Vec::new())));
        let unknown = ComponentData { entity_type: "planet".into(), match_type: 2, r#match: None };
        let request = DescribeClientQuotasRequest { components: vec![unknown], strict: false };
        let answer = client.call(version, &request).await;
        assert_eq!((answer.error_code, answer.entries), (ErrorCode::UNSUPPORTED_VERSION, None));
    }
    let user = |name: &str| UserName { name: name.into() };
    let users = Some(vec![user("a"), user("b"), user("a")]);
    let answer = client.call(0, &DescribeUserScramCredentialsRequest { users }).await;
    let codes: Vec<_> = answer.results.iter().map(|result| (&*result.user, result.error_code)).collect();
    assert_eq!(codes, [("a", ErrorCode::DUPLICATE_RESOURCE), ("b", ErrorCode::RESOURCE_NOT_FOUND)]);
    let answer = client.call(0, &DescribeUserScramCredentialsRequest { users: None }).await;
    assert_eq!((answer.error_code, answer.results.len()), (ErrorCode::NONE, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn features_stay_as_they_are() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let ask = |feature: &str, max_version_level| UpdateFeaturesRequest {
        feature_updates: vec![FeatureUpdateKey {
            feature: feature.into(),
            max_version_level,
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in 1..=2 {
        let answer = client.call(version, &ask("transaction.version", 2)).await;
        let listed = usize::from(version < 2);
        assert_eq!((answer.error_code, answer.results.len()), (ErrorCode::NONE, listed));
        for (feature, level) in [("transaction.version", 1), ("share.version", 1)] {
            let answer = client.call(version, &ask(feature, level)).await;
            assert_eq!(answer.error_code, ErrorCode::INVALID_UPDATE_VERSION, "{feature} {level}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_that_have_settings() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let mut list = async |version, types: &[i8]| {
        let request = ListConfigResourcesRequest { resource_types: types.to_vec() };
        let answer = client.call(version, &request).await;
        let found =
            answer.config_resources.into_iter().filter(|found| !found.resource_name.starts_with("__"));
        (answer.error_code, found.map(|found| (found.resource_type, found.resource_name)).collect::<Vec<_>>())
    };
    let all = vec![(8, "1".to_owned()), (4, "1".to_owned()), (2, "t".to_owned())];
    assert_eq!(list(1, &[]).await, (ErrorCode::NONE, all.clone()));
    assert_eq!(list(1, &[2]).await, (ErrorCode::NONE, all[2..].to_vec()));
    assert_eq!(list(1, &[16, 32]).await, (ErrorCode::NONE, Vec::new()));
    assert_eq!(list(1, &[2, 64]).await, (ErrorCode::UNSUPPORTED_VERSION, Vec::new()));
    // Version 0 knows subscriptions to client metrics alone.
    assert_eq!(list(0, &[]).await, (ErrorCode::NONE, Vec::new()));
}

async fn describe(client: &mut Client, kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let configuration_keys = keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
    let resource =
        DescribeConfigsResource { resource_type: kind, resource_name: name.into(), configuration_keys };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    client.call(4, &request).await.results.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_described_under_kafkas_keys() {
    let server = Server::with(&[("num.partitions", "3")]).await;
    let mut client = server.client().await;
    let keys = ["broker.id", "num.partitions", "default.replication.factor", "log.dirs", "message.max.bytes"];
    let described = describe(&mut client, 4, "1", Some(&keys)).await;
    let mut values: Vec<_> =
        described.configs.iter().map(|c| (c.name.as_str(), c.value.as_deref().unwrap())).collect();
    values.sort_unstable();
    let logs = server.dir.path().join("topics");
    assert_eq!(
        values,
        [
            ("broker.id", "1"),
            ("default.replication.factor", "1"),
            ("log.dirs", logs.to_str().unwrap()),
            ("message.max.bytes", "1048588"),
            ("num.partitions", "3"),
        ]
    );
    let listeners = describe(&mut client, 4, "1", Some(&["advertised.listeners"])).await;
    let here = format!("PLAINTEXT://{}", server.handle.addr());
    assert_eq!(listeners.configs[0].value.as_deref(), Some(&*here));

    let names = describe(&mut client, 4, "1", None).await.configs;
    let unique: std::collections::BTreeSet<_> = names.iter().map(|config| &config.name).collect();
    assert_eq!(unique.len(), names.len(), "a key is told twice");

    // Of what a cluster sets for all brokers, nothing is set.
    for (kind, name, settings) in [(4, "", 0), (8, "1", 0), (16, "sub", 3), (32, "g", 0)] {
        let described = describe(&mut client, kind, name, None).await;
        assert_eq!((described.error_code, described.configs.len()), (ErrorCode::NONE, settings), "{kind}");
    }
    for (kind, name) in [(4, "2"), (8, ""), (8, "2"), (16, ""), (32, ""), (64, "x")] {
        let described = describe(&mut client, kind, name, None).await;
        assert_eq!(described.error_code, ErrorCode::INVALID_REQUEST, "{kind} {name}");
    }
}

/// A mirror copies what can be written; of a setting that only this broker has, it must not try.
#[tokio::test(flavor = "multi_thread")]
async fn own_settings_are_read_only_to_tools() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[("pelton.durability", "interval"), ("retention.ms", "5")]).await;
    let described = describe(&mut client, 2, "t", None).await;
    let read_only = described.configs.iter().filter(|c| c.read_only).map(|c| (&*c.name, c.value.as_deref()));
    let own = [
        ("pelton.durability", Some("interval")),
        ("pelton.intake.max.bytes", Some("268435456")),
        ("pelton.partitioner", Some("")),
        ("pelton.partitioner.config", Some("")),
        ("pelton.partitioner.on.error", Some("fail")),
    ];
    assert_eq!(read_only.collect::<Vec<_>>(), own);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_say_how_large_the_disk_is() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    let topic = DescribableLogDirTopic { topic: "t".into(), partitions: vec![1, 9] };
    let answer = client.call(4, &DescribeLogDirsRequest { topics: Some(vec![topic]) }).await;
    let dir = &answer.results[0];
    assert_eq!(dir.topics[0].partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(), [1]);
    assert!(
        0 < dir.usable_bytes && dir.usable_bytes <= dir.total_bytes,
        "{} of {}",
        dir.usable_bytes,
        dir.total_bytes
    );
    let path = std::path::Path::new(&dir.log_dir);
    assert!(path.is_absolute() && path.join("t-1").is_dir(), "{}", dir.log_dir);
}

/// Java's clients of Kafka 3 end with an exception at a feature whose lowest version is 0 (KAFKA-17011).
#[tokio::test(flavor = "multi_thread")]
async fn old_clients_see_no_feature_that_starts_at_0() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (version, expect) in
        [(0, &[][..]), (3, &[]), (4, &[("transaction.version", 0, 2)]), (5, &[("transaction.version", 0, 2)])]
    {
        let request = if version < 3 { ApiVersionsRequest::default() } else { versions_request() };
        let answer = client.call(version, &request).await;
        assert_eq!(answer.error_code, ErrorCode::NONE);
        let features = answer.supported_features.iter().map(|f| (&*f.name, f.min_version, f.max_version));
        assert_eq!(features.collect::<Vec<_>>(), expect, "version {version}");
    }
}
