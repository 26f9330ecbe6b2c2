//! AlterPartitionReassignments and ListPartitionReassignments: with one broker no partition can move, so no
//! reassignment is ever in progress.

use std::collections::HashSet;
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::alter_partition_reassignments::{
    ReassignablePartition, ReassignablePartitionResponse, ReassignableTopic, ReassignableTopicResponse,
};
use pelton_wire::message::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map::Refused;
use crate::admin::Admin;

pub(crate) fn list(
    _: &RequestContext,
    _: ListPartitionReassignmentsRequest,
) -> Reply<ListPartitionReassignmentsResponse> {
    Reply::ready(ListPartitionReassignmentsResponse { error_message: None, ..Default::default() })
}

pub(crate) fn alter(
    admin: &Arc<Admin>,
    _: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> Reply<AlterPartitionReassignmentsResponse> {
    Reply::ready(AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        error_message: None,
        responses: request.topics.into_iter().map(|topic| alter_topic(admin, topic)).collect(),
        ..Default::default()
    })
}

fn alter_topic(admin: &Admin, asked: ReassignableTopic) -> ReassignableTopicResponse {
    let outcome = |wanted: &ReassignablePartition| {
        admin.partition(&asked.name, wanted.partition_index)?;
        check(wanted.replicas.as_deref(), admin.node_id())
    };
    let answer = |wanted: &ReassignablePartition| {
        let (error_code, error_message) = match outcome(wanted) {
            Ok(()) => (ErrorCode::NONE, None),
            Err(Refused { code, message }) => (code, Some(message)),
        };
        ReassignablePartitionResponse { partition_index: wanted.partition_index, error_code, error_message }
    };
    let partitions = asked.partitions.iter().map(answer).collect();
    ReassignableTopicResponse { name: asked.name, partitions }
}

/// Checks the replicas of a partition. Null cancels a reassignment, of which there is none.
fn check(replicas: Option<&[i32]>, node: i32) -> Result<(), Refused> {
    let Some(replicas) = replicas else {
        return Err(Refused::new(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, "the partition is not being moved"));
    };
    let refuse = |why: String| Err(Refused::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, why));
    if let Some(other) = replicas.iter().find(|replica| **replica != node) {
        return refuse(format!("there is no broker {other}; the only one is {node}"));
    }
    let mut seen = HashSet::new();
    if !replicas.iter().all(|replica| seen.insert(replica)) {
        return refuse(format!("broker {node} is named more than once"));
    }
    if replicas.is_empty() { refuse("a partition needs a replica".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_can_only_stay_where_it_is() {
        let code = |replicas: Option<&[i32]>| check(replicas, 1).map_err(|refused| refused.code);
        assert_eq!(code(Some(&[1])), Ok(()));
        assert_eq!(code(None), Err(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
        for bad in [&[][..], &[2], &[1, 2], &[1, 1], &[-1]] {
            assert_eq!(code(Some(bad)), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT), "{bad:?}");
        }
    }
}
