//! OffsetFetch: how far groups have read. Nothing committed, or no such group, is −1 and no error.

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

/// What stands for an offset that was never committed, or an epoch that is not known.
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
            // All that a group has committed is told once, however often it is asked for.
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
    // In the request's shape, to be answered with an error for the whole group.
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

/// The names of topics that are asked about by id, and the answers for ids that name none. Offsets are kept by name, so a
/// name that is no topic any more can still be asked about.
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

/// By id, a topic that is gone has no name to be told by: it is left out.
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
    // Later versions tell it once; the partitions of a request that failed as a whole are not theirs to judge.
    let topics = if group.error_code.is_ok() || version < GROUP_ERROR_SINCE {
        group.topics.into_iter().map(topic).collect()
    } else {
        Vec::new()
    };
    OffsetFetchResponse { topics, error_code: group.error_code, ..Default::default() }
}
