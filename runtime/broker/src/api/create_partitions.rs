//! CreatePartitions: adds partitions to topics.

use std::collections::HashSet;
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use pelton_wire::message::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::context::RequestContext;
use super::create_topics::duplicates;
use super::reply::Reply;
use super::support::error_map::Refused;
use crate::admin::Admin;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: CreatePartitionsRequest,
) -> Reply<CreatePartitionsResponse> {
    let admin = Arc::clone(admin);
    cx.in_order(async move {
        let twice = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
        let mut told = HashSet::new();
        let mut results: Vec<CreatePartitionsTopicResult> = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let outcome = if !twice.contains(&topic.name) {
                grow(&admin, &topic, request.validate_only).await
            } else if !told.insert(topic.name.clone()) {
                continue;
            } else {
                let why = "the topic is named more than once in the request";
                Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
            };
            results.push(result(topic.name, outcome));
        }
        CreatePartitionsResponse { results, ..Default::default() }
    })
}

async fn grow(admin: &Admin, wanted: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refused> {
    let have = admin.check_partitions(&wanted.name, wanted.count)?;
    if let Some(assignments) = &wanted.assignments {
        check_assignments(assignments, wanted.count - have, admin.node_id())?;
    }
    if !validate_only {
        admin.create_partitions(&wanted.name, wanted.count).await?;
    }
    Ok(())
}

fn check_assignments(
    assignments: &[CreatePartitionsAssignment],
    added: i32,
    node: i32,
) -> Result<(), Refused> {
    let why = if i32::try_from(assignments.len()) != Ok(added) {
        format!("{added} partitions would be added, but {} assignments were given", assignments.len())
    } else if let Some(bad) = assignments.iter().find(|a| a.broker_ids != [node]) {
        format!("a partition is assigned to brokers {:?}; the only broker is {node}", bad.broker_ids)
    } else {
        return Ok(());
    };
    Err(Refused::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, why))
}

fn result(name: String, outcome: Result<(), Refused>) -> CreatePartitionsTopicResult {
    match outcome {
        Ok(()) => CreatePartitionsTopicResult { name, ..Default::default() },
        Err(Refused { code, message }) => {
            CreatePartitionsTopicResult { name, error_code: code, error_message: Some(message) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_name_each_new_partition() {
        let check = |brokers: &[&[i32]], added: i32, expect: bool| {
            let assignments: Vec<_> =
                brokers.iter().map(|ids| CreatePartitionsAssignment { broker_ids: ids.to_vec() }).collect();
            assert_eq!(check_assignments(&assignments, added, 1).is_ok(), expect, "{brokers:?}");
        };
        check(&[&[1], &[1]], 2, true);
        check(&[&[1]], 2, false);
        check(&[&[1], &[2]], 2, false);
        check(&[&[1], &[1, 1]], 2, false);
    }
}
