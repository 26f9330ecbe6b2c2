//! The first and last offsets of partitions, for `topic describe` and for lag.

use super::{Client, check};
use crate::report::{Exit, Failure};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::message::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use pelton_wire::message::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponseTopic};
use std::collections::BTreeMap;

/// Kafka's special timestamps of ListOffsets.
pub(crate) const LATEST: i64 = -1;
pub(crate) const EARLIEST: i64 = -2;

/// Metadata of one topic; an error if it does not exist.
pub(crate) fn topic(client: &mut Client, name: &str) -> anyhow::Result<MetadataResponseTopic> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let response = client.send(&request)?;
    let found = response.topics.into_iter().find(|topic| topic.name.as_deref() == Some(name));
    let missing = |topic: &MetadataResponseTopic| topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let topic = found.filter(|topic| !missing(topic));
    let topic = topic.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("topic `{name}` does not exist"))
            .hint("`pelton topic list` shows the topics")
    })?;
    check(topic.error_code, &format!("describe topic `{name}`"))?;
    Ok(topic)
}

/// The offset at a special timestamp ([`LATEST`], [`EARLIEST`]) of each of these partitions.
pub(crate) fn offsets(
    client: &mut Client,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let wanted = partitions
        .iter()
        .map(|&partition_index| ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp })
        .collect();
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: topic.to_owned(), partitions: wanted }],
        ..Default::default()
    };
    let mut found = BTreeMap::new();
    for partition in client.send(&request)?.topics.into_iter().flat_map(|topic| topic.partitions) {
        check(
            partition.error_code,
            &format!("look up offsets of `{topic}` [{}]", partition.partition_index),
        )?;
        found.insert(partition.partition_index, partition.offset);
    }
    Ok(found)
}
