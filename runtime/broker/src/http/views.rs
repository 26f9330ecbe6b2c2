//! What the broker holds, as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::HttpState;
use super::reply::Refusal;
use crate::group::lag::lag;

#[derive(Debug, Serialize)]
pub(super) struct TopicView {
    name: String,
    id: String,
    internal: bool,
    partitions: Vec<PartitionView>,
}

#[derive(Debug, Serialize)]
struct PartitionView {
    partition: i32,
    log_start: i64,
    high_watermark: i64,
    last_stable: i64,
    log_end: i64,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupView {
    group: String,
    state: String,
    members: usize,
    offsets: Vec<OffsetView>,
}

#[derive(Debug, Serialize)]
struct OffsetView {
    topic: String,
    partition: i32,
    committed: i64,
    /// Absent when the partition is gone.
    log_end: Option<i64>,
    lag: Option<i64>,
}

pub(super) async fn ready(State(state): State<Arc<HttpState>>) -> Result<&'static str, Refusal> {
    state.supervisor().map(|_| "ready\n")
}

pub(super) async fn topics(State(state): State<Arc<HttpState>>) -> Json<Vec<TopicView>> {
    let mut topics = state.broker.topics.list();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let view = topics.iter().map(|topic| TopicView {
        name: topic.name.clone(),
        id: topic.id.to_string(),
        internal: topic.is_internal(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| {
                let offsets = partition.offsets();
                PartitionView {
                    partition: partition.index(),
                    log_start: offsets.log_start,
                    high_watermark: offsets.high_watermark,
                    last_stable: offsets.last_stable,
                    log_end: offsets.log_end,
                }
            })
            .collect(),
    });
    Json(view.collect())
}

pub(super) async fn groups(State(state): State<Arc<HttpState>>) -> Json<Vec<GroupView>> {
    let mut groups = state.broker.groups.committed().await;
    groups.sort_by(|a, b| a.group.group_id.cmp(&b.group.group_id));
    let view = groups.into_iter().map(|group| GroupView {
        group: group.group.group_id.to_string(),
        state: group.group.state.to_string(),
        members: group.members,
        offsets: group
            .committed
            .into_iter()
            .map(|(at, committed)| {
                let topic = state.broker.topics.get(&at.topic);
                let end = topic.and_then(|topic| Some(topic.partition(at.partition)?.high_watermark()));
                OffsetView {
                    topic: at.topic.to_string(),
                    partition: at.partition,
                    committed,
                    log_end: end,
                    lag: end.map(|end| lag(committed, end)),
                }
            })
            .collect(),
    });
    Json(view.collect())
}
