//! OffsetFetch: committed offsets of groups; -1 without an error if there is none, or no such group.

use std::collections::HashSet;
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use pelton_wire::message::{OffsetFetchRequest, OffsetFetchResponse};
use uuid::Uuid;

use super::context::RequestContext;
use super::parts::GroupParts;
use super::reply::Reply;
use crate::group::types::{FetchRequest, FetchedOffset};

/// First version with an error for the whole request.
const GROUP_ERROR_SINCE: i16 = 2;
/// First version that asks about many groups.
const BATCHED_SINCE: i16 = 8;
/// First version that names topics by id.
const TOPIC_IDS_SINCE: i16 = 10;

/// Kafka's value for no committed offset, and for an unknown leader epoch.
const NONE: i64 = -1;
const NO_EPOCH: i32 = -1;

pub(crate) fn handle(
    parts: &Arc<GroupParts>,
    cx: &RequestContext,
    request: OffsetFetchRequest,
) -> Reply<OffsetFetchResponse> {
    let (parts, version) = (Arc::clone(parts), cx.version);
    cx.later(async move {
        let OffsetFetchRequest { group_id, topics, groups, require_stable } = request;
        if version >= BATCHED_SINCE {
            // A group that is named often is answered once.
            let mut whole = HashSet::new();
            let groups: Vec<_> = groups
                .into_iter()
                .filter(|group| group.topics.is_some() || whole.insert(group.group_id.clone()))
                .collect();
            let mut answers = Vec::with_capacity(groups.len());
            for group in groups {
                answers.push(fetch(&parts, group, version, require_stable).await);
            }
            return OffsetFetchResponse { groups: answers, ..Default::default() };
        }
        let named = |name, partition_indexes| OffsetFetchRequestTopics {
            name,
            topic_id: Uuid::nil(),
            partition_indexes,
        };
        let topics =
            topics.map(|topics| topics.into_iter().map(|t| named(t.name, t.partition_indexes)).collect());
        let group = OffsetFetchRequestGroup { group_id, topics, ..Default::default() };
        one_group(fetch(&parts, group, version, require_stable).await, version)
    })
}

async fn fetch(
    parts: &GroupParts,
    wanted: OffsetFetchRequestGroup,
    version: i16,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let OffsetFetchRequestGroup { group_id, topics, .. } = wanted;
    let (known, unknown) = match topics {
        Some(topics) => {
            let (known, unknown) = resolve(parts, topics, version);
            (Some(known), unknown)
        }
        None => (None, Vec::new()),
    };
    // Answered in the request's shape, with the error of the whole group.
    let asked = known.clone().unwrap_or_default();
    let request = FetchRequest { topics: known, require_stable };
    match parts.groups.fetch(&group_id, request).await {
        Ok(fetched) => {
            let topics = fetched.into_iter().filter_map(|(name, offsets)| {
                let partitions = offsets.into_iter().map(partition).collect();
                answer(parts, &name, partitions, version)
            });
            OffsetFetchResponseGroup {
                group_id,
                topics: topics.chain(unknown).collect(),
                error_code: ErrorCode::NONE,
            }
        }
        Err(error) => {
            let failed =
                |index: &i32| OffsetFetchResponsePartitions { error_code: error.code(), ..nothing(*index) };
            let topics = asked.into_iter().filter_map(|(name, partitions)| {
                answer(parts, &name, partitions.iter().map(failed).collect(), version)
            });
            OffsetFetchResponseGroup { group_id, topics: topics.collect(), error_code: error.code() }
        }
    }
}

type Known = Vec<(Arc<str>, Vec<i32>)>;

/// The names of topics requested by id, and the answers for unknown ids. Offsets are kept by name, so those of a
/// deleted topic can still be fetched by name.
fn resolve(
    parts: &GroupParts,
    topics: Vec<OffsetFetchRequestTopics>,
    version: i16,
) -> (Known, Vec<OffsetFetchResponseTopics>) {
    let (mut known, mut unknown) = (Vec::with_capacity(topics.len()), Vec::new());
    for topic in topics {
        if version < TOPIC_IDS_SINCE {
            known.push((Arc::from(topic.name), topic.partition_indexes));
        } else if let Some(found) = parts.topics.by_id(topic.topic_id) {
            known.push((Arc::from(&*found.name), topic.partition_indexes));
        } else {
            let missing = |index| OffsetFetchResponsePartitions {
                error_code: ErrorCode::UNKNOWN_TOPIC_ID,
                ..nothing(index)
            };
            let partitions = topic.partition_indexes.into_iter().map(missing).collect();
            unknown.push(OffsetFetchResponseTopics {
                topic_id: topic.topic_id,
                partitions,
                ..Default::default()
            });
        }
    }
    (known, unknown)
}

/// By id, a deleted topic cannot be named and is left out.
fn answer(
    parts: &GroupParts,
    name: &str,
    partitions: Vec<OffsetFetchResponsePartitions>,
    version: i16,
) -> Option<OffsetFetchResponseTopics> {
    let topic_id = if version < TOPIC_IDS_SINCE { Uuid::nil() } else { parts.topics.get(name)?.id };
    Some(OffsetFetchResponseTopics { name: name.to_owned(), topic_id, partitions })
}

fn nothing(partition_index: i32) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: NONE,
        committed_leader_epoch: NO_EPOCH,
        metadata: Some(String::new()),
        error_code: ErrorCode::NONE,
    }
}

fn partition(fetched: FetchedOffset) -> OffsetFetchResponsePartitions {
    match fetched.result {
        Ok(Some(value)) => OffsetFetchResponsePartitions {
            committed_offset: value.offset,
            committed_leader_epoch: value.leader_epoch,
            metadata: Some(value.metadata),
            ..nothing(fetched.partition)
        },
        Ok(None) => nothing(fetched.partition),
        Err(error) => {
            OffsetFetchResponsePartitions { error_code: error.code(), ..nothing(fetched.partition) }
        }
    }
}

/// The answer in the shape of versions that ask about one group.
fn one_group(group: OffsetFetchResponseGroup, version: i16) -> OffsetFetchResponse {
    let partition = |p: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: p.partition_index,
        committed_offset: p.committed_offset,
        committed_leader_epoch: p.committed_leader_epoch,
        metadata: p.metadata,
        error_code: p.error_code,
    };
    let topic = |t: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: t.name,
        partitions: t.partitions.into_iter().map(partition).collect(),
    };
    // Later versions have the error once for the group; these repeat it for each partition.
    let topics = if group.error_code.is_ok() || version < GROUP_ERROR_SINCE {
        group.topics.into_iter().map(topic).collect()
    } else {
        Vec::new()
    };
    OffsetFetchResponse { topics, error_code: group.error_code, ..Default::default() }
}
