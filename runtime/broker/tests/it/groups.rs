//! Consumer groups through the socket: every API in every version, and what outlives a restart.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use pelton_wire::ErrorCode;
use pelton_wire::message::join_group::JoinGroupRequestProtocol;
use pelton_wire::message::leave_group::MemberIdentity;
use pelton_wire::message::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use pelton_wire::message::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use pelton_wire::message::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use pelton_wire::message::sync_group::SyncGroupRequestAssignment;
use pelton_wire::message::*;
use uuid::Uuid;

use crate::client::{Client, Server, until};

const SETTINGS: &[(&str, &str)] =
    &[("group.initial.rebalance.delay.ms", "0"), ("offsets.topic.num.partitions", "3")];

/// A subscription to the topic `t`, as consumers write it.
fn subscription() -> Bytes {
    Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff")
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: subscription() }],
        ..Default::default()
    }
}

/// Joins as the only member, the way that clients of this version do.
async fn joined(client: &mut Client, group: &str, version: i16) -> JoinGroupResponse {
    let first = client.call(version, &join(group, "")).await;
    if version < 4 {
        return first;
    }
    assert_eq!(first.error_code, ErrorCode::MEMBER_ID_REQUIRED);
    client.call(version, &join(group, &first.member_id)).await
}

/// A stable group of one member: its id.
pub(crate) async fn member(client: &mut Client, group: &str) -> String {
    let joined = joined(client, group, 9).await;
    let assignments = vec![SyncGroupRequestAssignment {
        member_id: joined.member_id.clone(),
        assignment: Bytes::from_static(b"all"),
    }];
    let sync = SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments,
        ..Default::default()
    };
    assert_eq!(client.call(5, &sync).await.assignment, "all");
    joined.member_id
}

pub(crate) async fn topic_id(client: &mut Client, name: &str) -> Uuid {
    let everything = MetadataRequest { topics: None, ..Default::default() };
    let topics = client.call(12, &everything).await.topics;
    topics.into_iter().find(|t| t.name.as_deref() == Some(name)).unwrap().topic_id
}

/// From outside of any generation.
pub(crate) fn commit(
    group: &str,
    id: Uuid,
    partition_index: i32,
    committed_offset: i64,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index,
        committed_offset,
        committed_metadata: Some("note".into()),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic { name: "t".into(), topic_id: id, partitions: vec![partition] };
    OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..Default::default() }
}

fn fetch(group: &str, id: Uuid, version: i16) -> OffsetFetchRequest {
    let partition_indexes = vec![0, 1];
    if version < 8 {
        let topics = vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes }];
        return OffsetFetchRequest { group_id: group.into(), topics: Some(topics), ..Default::default() };
    }
    let topics = vec![OffsetFetchRequestTopics { name: "t".into(), topic_id: id, partition_indexes }];
    let group =
        OffsetFetchRequestGroup { group_id: group.into(), topics: Some(topics), ..Default::default() };
    OffsetFetchRequest { groups: vec![group], ..Default::default() }
}

/// Offset, epoch, text and error of each partition.
type Fetched = Vec<(i64, i32, String, ErrorCode)>;

fn fetched(response: OffsetFetchResponse, version: i16) -> (ErrorCode, Fetched) {
    if version < 8 {
        let partitions = response.topics.into_iter().flat_map(|t| t.partitions);
        let all = partitions
            .map(|p| (p.committed_offset, p.committed_leader_epoch, p.metadata.unwrap(), p.error_code));
        return (response.error_code, all.collect());
    }
    let group = response.groups.into_iter().next().unwrap();
    let partitions = group.topics.into_iter().flat_map(|t| t.partitions);
    let all =
        partitions.map(|p| (p.committed_offset, p.committed_leader_epoch, p.metadata.unwrap(), p.error_code));
    (group.error_code, all.collect())
}

const COORDINATOR: RangeInclusive<i16> = 0..=6;
const JOIN: RangeInclusive<i16> = 0..=9;
const HEARTBEAT: RangeInclusive<i16> = 0..=4;
const LEAVE: RangeInclusive<i16> = 0..=5;
const SYNC: RangeInclusive<i16> = 0..=5;
const COMMIT: RangeInclusive<i16> = 2..=10;
const FETCH: RangeInclusive<i16> = 1..=10;
const DESCRIBE: RangeInclusive<i16> = 0..=6;
const LIST: RangeInclusive<i16> = 0..=5;
const DELETE: RangeInclusive<i16> = 0..=2;

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_is_the_broker_of_the_metadata() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    let port = i32::from(server.handle.addr().port());
    for version in COORDINATOR {
        for (key_type, expect) in
            [(0, ErrorCode::NONE), (1, ErrorCode::NONE), (7, ErrorCode::INVALID_REQUEST)]
        {
            if version == 0 && key_type > 0 {
                continue;
            }
            let (node, host, port) = if expect.is_ok() { (1, "127.0.0.1", port) } else { (-1, "", -1) };
            let keys = vec!["a".to_owned(), "b".to_owned()];
            if version < 4 {
                let request = FindCoordinatorRequest { key: "a".into(), key_type, ..Default::default() };
                let response = client.call(version, &request).await;
                let found = (response.error_code, response.node_id, &*response.host, response.port);
                assert_eq!(found, (expect, node, host, port), "version {version}");
                continue;
            }
            let request =
                FindCoordinatorRequest { coordinator_keys: keys.clone(), key_type, ..Default::default() };
            let response = client.call(version, &request).await;
            assert_eq!(response.coordinators.len(), 2);
            for (coordinator, key) in response.coordinators.iter().zip(keys) {
                let found =
                    (coordinator.error_code, coordinator.node_id, &*coordinator.host, coordinator.port);
                assert_eq!(
                    (found, &coordinator.key),
                    ((expect, node, host, port), &key),
                    "version {version}"
                );
            }
        }
    }
    let everything = MetadataRequest { topics: None, ..Default::default() };
    let topics = client.call(12, &everything).await.topics;
    let offsets = topics.iter().find(|t| t.name.as_deref() == Some("__consumer_offsets")).unwrap();
    assert!(offsets.is_internal);
    assert_eq!(offsets.partitions.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_every_version_join_and_leave() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    for version in JOIN {
        let group = format!("group-{version}");
        let joined = joined(&mut client, &group, version).await;
        assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::NONE, 1), "version {version}");
        assert_eq!((joined.leader.as_str(), joined.members.len()), (joined.member_id.as_str(), 1));
        assert!(joined.member_id.starts_with("it-"), "the client's name is in its id");
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        assert_eq!(joined.members[0].metadata, subscription());
        let sync_version = version.min(*SYNC.end());
        let assignments = vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"mine"),
        }];
        let sync = SyncGroupRequest {
            group_id: group.clone(),
            generation_id: 1,
            member_id: joined.member_id.clone(),
            protocol_type: (sync_version >= 5).then(|| "consumer".to_owned()),
            protocol_name: (sync_version >= 5).then(|| "range".to_owned()),
            assignments,
            ..Default::default()
        };
        let synced = client.call(sync_version, &sync).await;
        assert_eq!((synced.error_code, &*synced.assignment), (ErrorCode::NONE, &b"mine"[..]));
        if sync_version >= 5 {
            assert_eq!(synced.protocol_type.as_deref(), Some("consumer"));
        }
        let heartbeat = |generation_id| HeartbeatRequest {
            group_id: group.clone(),
            generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        let heartbeat_version = version.min(*HEARTBEAT.end());
        assert_eq!(client.call(heartbeat_version, &heartbeat(1)).await.error_code, ErrorCode::NONE);
        let stale = client.call(heartbeat_version, &heartbeat(0)).await.error_code;
        assert_eq!(stale, ErrorCode::ILLEGAL_GENERATION);
        leave(&mut client, &group, &joined.member_id, version.min(*LEAVE.end())).await;
        let gone = client.call(heartbeat_version, &heartbeat(1)).await.error_code;
        assert_eq!(gone, ErrorCode::UNKNOWN_MEMBER_ID);
    }
}

async fn leave(client: &mut Client, group: &str, member: &str, version: i16) {
    for expect in [ErrorCode::NONE, ErrorCode::UNKNOWN_MEMBER_ID] {
        if version < 3 {
            let request =
                LeaveGroupRequest { group_id: group.into(), member_id: member.into(), ..Default::default() };
            assert_eq!(client.call(version, &request).await.error_code, expect);
            continue;
        }
        let members = vec![MemberIdentity { member_id: member.into(), ..Default::default() }];
        let request = LeaveGroupRequest { group_id: group.into(), members, ..Default::default() };
        let response = client.call(version, &request).await;
        assert_eq!((response.error_code, response.members[0].error_code), (ErrorCode::NONE, expect));
        assert_eq!(response.members[0].member_id, member);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_can_be_told_in_every_version() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    for version in JOIN {
        let request = JoinGroupRequest { session_timeout_ms: 1, ..join("g", "") };
        let refused = client.call(version, &request).await;
        assert_eq!((refused.error_code, refused.generation_id), (ErrorCode::INVALID_SESSION_TIMEOUT, -1));
        assert_eq!(refused.protocol_name.is_none(), version >= 7, "version {version}");
    }
    for version in SYNC {
        let named = |name: &str| (version >= 5).then(|| name.to_owned());
        let request = SyncGroupRequest {
            group_id: "g".into(),
            protocol_type: named("consumer"),
            protocol_name: named("range"),
            ..Default::default()
        };
        assert_eq!(client.call(version, &request).await.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    }
    for version in LEAVE {
        let response = client.call(version, &LeaveGroupRequest::default()).await;
        assert_eq!(response.error_code, ErrorCode::INVALID_GROUP_ID);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_every_version_come_back() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    client.create_topic("t", 2, &[]).await;
    let id = topic_id(&mut client, "t").await;
    let nothing = || (-1, -1, String::new(), ErrorCode::NONE);
    for version in FETCH {
        let response = client.call(version, &fetch("nobody", id, version)).await;
        let expect = (ErrorCode::NONE, vec![nothing(), nothing()]);
        assert_eq!(fetched(response, version), expect, "a group that is not there, version {version}");
    }
    for (offset, version) in (100..).zip(COMMIT) {
        let mut request = commit("g", id, 0, offset);
        if version >= 6 {
            request.topics[0].partitions[0].committed_leader_epoch = 0;
        }
        let response = client.call(version, &request).await;
        assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::NONE, "version {version}");
        for fetch_version in FETCH {
            let response = client.call(fetch_version, &fetch("g", id, fetch_version)).await;
            let epoch = if version >= 6 && fetch_version >= 5 { 0 } else { -1 };
            let expect = vec![(offset, epoch, "note".to_owned(), ErrorCode::NONE), nothing()];
            assert_eq!(
                fetched(response, fetch_version),
                (ErrorCode::NONE, expect),
                "{version} {fetch_version}"
            );
            if fetch_version >= 2 {
                let mut all = fetch("g", id, fetch_version);
                all.topics = if fetch_version < 8 { None } else { all.topics };
                all.groups.iter_mut().for_each(|group| group.topics = None);
                let (code, found) = fetched(client.call(fetch_version, &all).await, fetch_version);
                assert_eq!((code, found.len(), found[0].0), (ErrorCode::NONE, 1, offset));
            }
        }
        let missing = commit("g", Uuid::from_u128(7), 9, 1);
        let code = client.call(version, &missing).await.topics[0].partitions[0].error_code;
        let by_id = ErrorCode::UNKNOWN_TOPIC_ID;
        assert_eq!(code, if version >= 10 { by_id } else { ErrorCode::UNKNOWN_TOPIC_OR_PARTITION });
        let stale = OffsetCommitRequest {
            generation_id_or_member_epoch: 3,
            member_id: "m".into(),
            ..commit("nobody", id, 0, 1)
        };
        let code = client.call(version, &stale).await.topics[0].partitions[0].error_code;
        let known = ErrorCode::GROUP_ID_NOT_FOUND;
        assert_eq!(
            code,
            if version >= 9 { known } else { ErrorCode::ILLEGAL_GENERATION },
            "version {version}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_described_and_deleted_in_every_version() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let id = topic_id(&mut client, "t").await;
    let member = member(&mut client, "live").await;
    client.call(9, &commit("simple", id, 0, 5)).await;
    for version in LIST {
        let response = client.call(version, &ListGroupsRequest::default()).await;
        let groups: Vec<_> = response.groups.iter().map(|g| (&*g.group_id, &*g.protocol_type)).collect();
        assert_eq!(
            (response.error_code, &groups[..]),
            (ErrorCode::NONE, &[("live", "consumer"), ("simple", "")][..])
        );
        if version >= 4 {
            assert_eq!(response.groups[0].group_state, "Stable");
            let request = ListGroupsRequest { states_filter: vec!["empty".into()], ..Default::default() };
            let filtered = client.call(version, &request).await.groups;
            assert_eq!((filtered.len(), &*filtered[0].group_id), (1, "simple"));
        }
        if version >= 5 {
            assert_eq!(response.groups[0].group_type, "classic");
            let request = ListGroupsRequest { types_filter: vec!["consumer".into()], ..Default::default() };
            assert!(client.call(version, &request).await.groups.is_empty());
        }
    }
    for version in DESCRIBE {
        let groups = vec!["live".to_owned(), "nobody".to_owned()];
        let request = DescribeGroupsRequest { groups, include_authorized_operations: version >= 3 };
        let response = client.call(version, &request).await;
        let live = &response.groups[0];
        let told = (&*live.group_state, &*live.protocol_type, &*live.protocol_data, live.error_code);
        assert_eq!(told, ("Stable", "consumer", "range", ErrorCode::NONE), "version {version}");
        let one = &live.members[0];
        assert_eq!((&*one.member_id, &*one.client_id, &*one.client_host), (&*member, "it", "/127.0.0.1"));
        assert_eq!((&one.member_metadata, &*one.member_assignment), (&subscription(), &b"all"[..]));
        assert_eq!(live.authorized_operations == i32::MIN, version < 3);
        let missing = &response.groups[1];
        let expect = if version >= 6 { ErrorCode::GROUP_ID_NOT_FOUND } else { ErrorCode::NONE };
        assert_eq!((&*missing.group_state, missing.error_code), ("Dead", expect), "version {version}");
        assert_eq!(missing.error_message.is_some(), version >= 6);
    }
    for version in DELETE {
        client.call(9, &commit("simple", id, 0, 5)).await;
        let groups_names = vec!["live".to_owned(), "simple".to_owned(), "nobody".to_owned()];
        let response = client.call(version, &DeleteGroupsRequest { groups_names }).await;
        let codes: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [ErrorCode::NON_EMPTY_GROUP, ErrorCode::NONE, ErrorCode::GROUP_ID_NOT_FOUND]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_deleted_for_topics_that_nobody_reads() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    client.create_topic("other", 1, &[]).await;
    let id = topic_id(&mut client, "t").await;
    client.call(9, &commit("g", id, 0, 5)).await;
    let mut other = commit("g", id, 0, 6);
    other.topics[0].name = "other".into();
    client.call(9, &other).await;
    member(&mut client, "g").await;
    let topics = ["t", "other", "missing"].map(|name| OffsetDeleteRequestTopic {
        name: name.into(),
        partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
    });
    let request = OffsetDeleteRequest { group_id: "g".into(), topics: topics.into() };
    let response = client.call(0, &request).await;
    let codes: Vec<_> = response.topics.iter().map(|t| t.partitions[0].error_code).collect();
    let (subscribed, missing) = (ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!((response.error_code, codes), (ErrorCode::NONE, vec![subscribed, ErrorCode::NONE, missing]));
    let nobody = OffsetDeleteRequest { group_id: "nobody".into(), ..request };
    assert_eq!(client.call(0, &nobody).await.error_code, ErrorCode::GROUP_ID_NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_offsets_outlive_a_restart() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    client.create_topic("t", 1, &[]).await;
    let id = topic_id(&mut client, "t").await;
    let member = member(&mut client, "g").await;
    let own = OffsetCommitRequest {
        generation_id_or_member_epoch: 1,
        member_id: member.clone(),
        ..commit("g", id, 0, 77)
    };
    assert!(client.call(9, &own).await.topics[0].partitions[0].error_code.is_ok());
    client.call(9, &commit("deleted", id, 0, 1)).await;
    client.call(2, &DeleteGroupsRequest { groups_names: vec!["deleted".into()] }).await;

    // The number of partitions stays what it was: groups are placed by it.
    let server = server.restart(&[("offsets.topic.num.partitions", "50")]).await;
    let mut client = server.client().await;
    let heartbeat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: 1,
        member_id: member.clone(),
        ..Default::default()
    };
    let mut beat = ErrorCode::NONE;
    until("the groups are never there", async || {
        beat = client.call(4, &heartbeat).await.error_code;
        beat != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
    })
    .await;
    assert_eq!(beat, ErrorCode::NONE);
    let (_, found) = fetched(client.call(8, &fetch("g", id, 8)).await, 8);
    assert_eq!(found[0].0, 77);
    // Each partition of the groups' topic is read by itself, and a list needs all of them.
    let mut list = ListGroupsResponse::default();
    until("the groups are never all there", async || {
        list = client.call(5, &ListGroupsRequest::default()).await;
        list.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS
    })
    .await;
    assert_eq!((list.error_code, list.groups.len()), (ErrorCode::NONE, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_takes_its_offsets_along() {
    let server = Server::with(SETTINGS).await;
    let mut client = server.client().await;
    for round in 0..2 {
        client.create_topic("t", 1, &[]).await;
        let id = topic_id(&mut client, "t").await;
        let (_, found) = fetched(client.call(8, &fetch("g", id, 8)).await, 8);
        assert_eq!(found[0].0, -1, "round {round}: nothing of the topic before it");
        client.call(9, &commit("g", id, 0, 5)).await;
        let request = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
        assert!(client.call(5, &request).await.responses[0].error_code.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_parked_members() {
    let server = Server::with(&[("group.initial.rebalance.delay.ms", "60000")]).await;
    let mut client = server.client().await;
    let told = client.call(9, &join("g", "")).await;
    let waiting = client.send(9, &join("g", &told.member_id)).await;
    client.still_waits().await;
    let started = std::time::Instant::now();
    let stopping = tokio::spawn(async move { server.handle.shutdown().await });
    let refused = client.receive::<JoinGroupRequest>(9, waiting).await;
    assert_eq!(refused.error_code, ErrorCode::COORDINATOR_NOT_AVAILABLE);
    stopping.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(4));
}

/// What Kafka checks before it looks for the group.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_name_too_little() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let sync = SyncGroupRequest { group_id: "g".into(), member_id: "m".into(), ..Default::default() };
    assert_eq!(client.call(5, &sync).await.error_code, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    assert_eq!(client.call(4, &sync).await.error_code, ErrorCode::UNKNOWN_MEMBER_ID);
    assert_eq!(client.call(0, &OffsetDeleteRequest::default()).await.error_code, ErrorCode::INVALID_GROUP_ID);
    let nobody = AddOffsetsToTxnRequest { group_id: "g".into(), ..Default::default() };
    assert_eq!(client.call(3, &nobody).await.error_code, ErrorCode::INVALID_REQUEST);
    assert_eq!(client.call(5, &EndTxnRequest::default()).await.error_code, ErrorCode::INVALID_REQUEST);
}
