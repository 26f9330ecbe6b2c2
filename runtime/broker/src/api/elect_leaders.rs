//! ElectLeaders: the one broker leads every partition, so no election is ever needed.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::elect_leaders::{PartitionResult, ReplicaElectionResult, TopicPartitions};
use pelton_wire::message::{ElectLeadersRequest, ElectLeadersResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map::Refused;
use super::support::once::each_once;
use crate::admin::Admin;
use crate::topics::Topic;

/// Kafka's numbers of elections: the preferred replica, or any.
const ELECTION_TYPES: [i8; 2] = [0, 1];

pub(crate) fn handle(
    admin: &Arc<Admin>,
    _: &RequestContext,
    request: ElectLeadersRequest,
) -> Reply<ElectLeadersResponse> {
    let known_type = ELECTION_TYPES.contains(&request.election_type);
    // An empty list is answered empty, whatever the election type.
    let refused = !known_type && request.topic_partitions.as_ref().is_none_or(|asked| !asked.is_empty());
    let results = match request.topic_partitions {
        Some(asked) => {
            let asked = each_once(asked, |topic| topic.topic.clone()).into_iter();
            asked.map(|topic| elect(admin, topic, known_type, request.election_type)).collect()
        }
        None if known_type => admin.list_topics().iter().map(nothing_to_do).collect(),
        None => Vec::new(),
    };
    Reply::ready(ElectLeadersResponse {
        // Before version 1 there is one election type, and no top-level error code.
        error_code: if refused { ErrorCode::INVALID_REQUEST } else { ErrorCode::NONE },
        replica_election_results: results,
        ..Default::default()
    })
}

/// A request for all partitions is answered with those that have a new leader: none.
fn nothing_to_do(topic: &Arc<Topic>) -> ReplicaElectionResult {
    ReplicaElectionResult { topic: topic.name.clone(), partition_result: Vec::new() }
}

fn elect(
    admin: &Admin,
    asked: TopicPartitions,
    known_type: bool,
    election_type: i8,
) -> ReplicaElectionResult {
    let refused = |partition: i32| match admin.partition(&asked.topic, partition) {
        _ if !known_type => {
            let why = format!("there is no election type {election_type}");
            Refused::new(ErrorCode::INVALID_REQUEST, why)
        }
        Err(not_here) => not_here.into(),
        Ok(_) => Refused::new(ErrorCode::ELECTION_NOT_NEEDED, "the only replica is the leader already"),
    };
    let results = each_once(asked.partitions, |partition| *partition).into_iter().map(|partition_id| {
        let Refused { code, message } = refused(partition_id);
        PartitionResult { partition_id, error_code: code, error_message: Some(message) }
    });
    ReplicaElectionResult { partition_result: results.collect(), topic: asked.topic }
}
