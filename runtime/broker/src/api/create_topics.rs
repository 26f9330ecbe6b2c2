//! CreateTopics: creates topics, or only validates them.

use std::collections::HashSet;
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
};
use pelton_wire::message::{CreateTopicsRequest, CreateTopicsResponse};
use uuid::Uuid;

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map::Refused;
use crate::admin::Admin;
use crate::topic_config::Overrides;

/// Kafka's value for "the broker's default".
const DEFAULT: i32 = -1;

pub(crate) fn handle(
    admin: &Arc<Admin>,
    cx: &RequestContext,
    request: CreateTopicsRequest,
) -> Reply<CreateTopicsResponse> {
    let admin = Arc::clone(admin);
    cx.in_order(async move {
        let twice = duplicates(request.topics.iter().map(|topic| topic.name.as_str()));
        let room = admin.max_partitions();
        // Refused at once: each answer has all settings of its topic, and the topics could not all be created.
        let too_many = request.topics.len() > room as usize;
        let mut told = HashSet::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let name = topic.name.clone();
            if twice.contains(&name) {
                if told.insert(name.clone()) {
                    let why = "the topic is named more than once in the request";
                    topics.push(result(name, Err(Refused::new(ErrorCode::INVALID_REQUEST, why))));
                }
                continue;
            }
            let made = if too_many {
                let why = format!("the request has more topics than `pelton.max.partitions` ({room})");
                Err(Refused::new(ErrorCode::POLICY_VIOLATION, why))
            } else {
                create(&admin, topic, request.validate_only).await
            };
            topics.push(result(name, made));
        }
        CreateTopicsResponse { topics, ..Default::default() }
    })
}

/// The names that the request has more than once.
pub(super) fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<String> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

struct Made {
    id: Uuid,
    partitions: i32,
    configs: Vec<CreatableTopicConfigs>,
}

async fn create(admin: &Admin, topic: CreatableTopic, validate_only: bool) -> Result<Made, Refused> {
    let Wanted { name, partitions, overrides } = checked(topic, admin.node_id())?;
    let created = admin.create_topic(name, partitions, overrides, validate_only).await?;
    let configs = admin.settings(&created.overrides).map(|effective| CreatableTopicConfigs {
        name: effective.setting.name.to_owned(),
        value: Some(effective.value().to_owned()),
        read_only: effective.setting.is_own(),
        config_source: effective.source().code(),
        ..Default::default()
    });
    Ok(Made { id: created.id, partitions: created.partitions, configs: configs.collect() })
}

/// A requested topic, without Kafka's special values.
struct Wanted {
    name: String,
    /// `None`: `num.partitions`.
    partitions: Option<i32>,
    overrides: Overrides,
}

/// Checks replication factor and assignments: every replica is on the one broker.
fn checked(topic: CreatableTopic, node: i32) -> Result<Wanted, Refused> {
    let partitions = if topic.assignments.is_empty() {
        check_replicas(topic.replication_factor)?;
        Some(topic.num_partitions).filter(|partitions| *partitions != DEFAULT)
    } else {
        if topic.num_partitions != DEFAULT || i32::from(topic.replication_factor) != DEFAULT {
            let why =
                "with manual assignments, the number of partitions and the replication factor must be -1";
            return Err(Refused::new(ErrorCode::INVALID_REQUEST, why));
        }
        Some(check_assignments(&topic.assignments, node)?)
    };
    let mut overrides = Overrides::new();
    for config in topic.configs {
        let Some(value) = config.value else {
            let why = format!("the setting `{}` has no value", config.name);
            return Err(Refused::new(ErrorCode::INVALID_CONFIG, why));
        };
        overrides.insert(config.name, value);
    }
    Ok(Wanted { name: topic.name, partitions, overrides })
}

fn check_replicas(factor: i16) -> Result<(), Refused> {
    let why = match factor {
        -1 | 1 => return Ok(()),
        ..=0 => "the replication factor must be larger than 0, or -1 for the default".to_owned(),
        _ => format!(
            "replication factor {factor} is larger than the number of brokers, which is 1; use 1 or -1"
        ),
    };
    Err(Refused::new(ErrorCode::INVALID_REPLICATION_FACTOR, why))
}

/// The number of partitions in manual assignments.
fn check_assignments(assignments: &[CreatableReplicaAssignment], node: i32) -> Result<i32, Refused> {
    let mut indexes: Vec<i32> = assignments.iter().map(|a| a.partition_index).collect();
    indexes.sort_unstable();
    let refuse = |why: String| Err(Refused::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, why));
    if !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
        return refuse("the assigned partitions must be numbered from 0 without gaps".to_owned());
    }
    match assignments.iter().find(|a| a.broker_ids != [node]) {
        Some(bad) => refuse(format!(
            "partition {} is assigned to brokers {:?}; the only broker is {node}",
            bad.partition_index, bad.broker_ids
        )),
        None => Ok(i32::try_from(indexes.len()).unwrap_or(i32::MAX)),
    }
}

fn result(name: String, made: Result<Made, Refused>) -> CreatableTopicResult {
    match made {
        Ok(Made { id, partitions, configs }) => CreatableTopicResult {
            name,
            topic_id: id,
            error_message: None,
            num_partitions: partitions,
            replication_factor: 1,
            configs: Some(configs),
            ..Default::default()
        },
        Err(Refused { code, message }) => CreatableTopicResult {
            name,
            error_code: code,
            error_message: Some(message),
            ..Default::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_wire::message::create_topics::CreatableTopicConfig;

    fn topic(partitions: i32, replicas: i16) -> CreatableTopic {
        CreatableTopic {
            name: "t".into(),
            num_partitions: partitions,
            replication_factor: replicas,
            ..Default::default()
        }
    }

    fn assigned(to: &[(i32, &[i32])]) -> CreatableTopic {
        let assignments = to.iter().map(|(index, brokers)| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: brokers.to_vec(),
        });
        CreatableTopic { assignments: assignments.collect(), ..topic(-1, -1) }
    }

    fn check(topic: CreatableTopic, expect: Result<Option<i32>, ErrorCode>) {
        let text = format!("{topic:?}");
        let got = checked(topic, 1).map(|new| new.partitions).map_err(|refused| refused.code);
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn counts_replicas_and_assignments() {
        check(topic(3, 1), Ok(Some(3)));
        check(topic(-1, -1), Ok(None));
        check(topic(3, 3), Err(ErrorCode::INVALID_REPLICATION_FACTOR));
        check(topic(3, 0), Err(ErrorCode::INVALID_REPLICATION_FACTOR));
        check(topic(3, -2), Err(ErrorCode::INVALID_REPLICATION_FACTOR));
        check(assigned(&[(1, &[1]), (0, &[1])]), Ok(Some(2)));
        check(assigned(&[(1, &[1]), (2, &[1])]), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
        check(assigned(&[(0, &[1]), (0, &[1])]), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
        check(assigned(&[(0, &[1, 2])]), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
        check(assigned(&[(0, &[])]), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
        let both = CreatableTopic { num_partitions: 1, ..assigned(&[(0, &[1])]) };
        check(both, Err(ErrorCode::INVALID_REQUEST));
        let config = CreatableTopicConfig { name: "retention.ms".into(), value: None };
        check(CreatableTopic { configs: vec![config], ..topic(1, 1) }, Err(ErrorCode::INVALID_CONFIG));
    }

    #[test]
    fn names_that_come_twice() {
        assert_eq!(duplicates(["a", "b", "a", "a"].into_iter()), HashSet::from(["a".to_owned()]));
    }
}
