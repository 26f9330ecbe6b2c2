//! Topics and groups as JSON. Lists are summaries in pages; the details of one topic or group are asked for by name.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::HttpState;
use super::intake::RoutingView;
use super::reply::Refusal;
use crate::group::service;
use crate::topics::Topic;
use pelton_partitions::partition::clean::Cleaning;

/// Entries of a page without `limit`, and most entries of a page.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// A page of a list: at most `limit` names after `after`.
#[derive(Debug, Deserialize)]
pub(super) struct PageQuery {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

impl PageQuery {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX)
    }
}

type Asked = Result<Query<PageQuery>, QueryRejection>;
type Name = Result<Path<String>, PathRejection>;
type Answer<T> = Result<Json<T>, Refusal>;

/// The `after` of the next page, if there may be one.
fn next<'a>(names: impl ExactSizeIterator<Item = &'a str>, limit: usize) -> Option<String> {
    if names.len() < limit { None } else { names.last().map(str::to_owned) }
}

#[derive(Debug, Serialize)]
pub(super) struct TopicPage {
    topics: Vec<TopicSummary>,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct TopicSummary {
    name: String,
    id: String,
    internal: bool,
    partitions: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct TopicView {
    name: String,
    id: String,
    internal: bool,
    partitions: Vec<PartitionView>,
    /// Absent for a topic without a partitioner of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<RoutingView>,
}

#[derive(Debug, Serialize)]
struct PartitionView {
    partition: i32,
    log_start: i64,
    high_watermark: i64,
    last_stable: i64,
    log_end: i64,
    /// Absent for a partition that is not compacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    cleaning: Option<CleaningView>,
}

/// What the cleaner has done to a partition since the start.
#[derive(Debug, Serialize)]
struct CleaningView {
    dirty_ratio: f64,
    runs: u64,
    last_run_ms: Option<i64>,
    bytes_read: u64,
    bytes_written: u64,
    records_read: u64,
    records_written: u64,
    /// Why it is not cleaned any more before a restart.
    uncleanable: Option<String>,
}

impl From<Cleaning> for CleaningView {
    fn from(cleaning: Cleaning) -> CleaningView {
        let Cleaning {
            dirty_ratio,
            runs,
            last_run_ms,
            bytes_read,
            bytes_written,
            records_read,
            records_written,
            uncleanable,
        } = cleaning;
        CleaningView {
            dirty_ratio,
            runs,
            last_run_ms,
            bytes_read,
            bytes_written,
            records_read,
            records_written,
            uncleanable,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct GroupPage {
    groups: Vec<GroupSummary>,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct GroupSummary {
    group: String,
    state: &'static str,
    members: usize,
    /// Number of committed offsets.
    offsets: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct GroupView {
    group: String,
    state: &'static str,
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

pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(state): State<Arc<HttpState>>) -> Result<&'static str, Refusal> {
    state.supervisor().map(|_| "ready\n")
}

pub(super) async fn topics(State(state): State<Arc<HttpState>>, asked: Asked) -> Answer<TopicPage> {
    let Query(asked) = asked?;
    let limit = asked.limit();
    let topics = state.parts.admin.list_topics();
    let page = topics.iter().filter(|topic| topic.name > asked.after).take(limit);
    let summary = |topic: &Arc<Topic>| TopicSummary {
        name: topic.name.clone(),
        id: topic.id.to_string(),
        internal: topic.is_internal(),
        partitions: usize::try_from(topic.partition_count).unwrap_or(0),
    };
    let topics: Vec<TopicSummary> = page.map(summary).collect();
    let next = next(topics.iter().map(|topic| topic.name.as_str()), limit);
    Ok(Json(TopicPage { topics, next }))
}

pub(super) async fn topic(State(state): State<Arc<HttpState>>, name: Name) -> Answer<TopicView> {
    let Path(name) = name?;
    let topic = state.parts.admin.topic(&name);
    let topic = topic.ok_or_else(|| Refusal::not_found(format!("there is no topic `{name}`")))?;
    let partitions = topic.local.iter().map(|partition| {
        let offsets = partition.offsets();
        PartitionView {
            partition: partition.index(),
            log_start: offsets.log_start,
            high_watermark: offsets.high_watermark,
            last_stable: offsets.last_stable,
            log_end: offsets.log_end,
            cleaning: partition.cleaning().map(CleaningView::from),
        }
    });
    Ok(Json(TopicView {
        name: topic.name.clone(),
        id: topic.id.to_string(),
        internal: topic.is_internal(),
        partitions: partitions.collect(),
        routing: state.parts.admin.routing(&topic).map(RoutingView::from),
    }))
}

pub(super) async fn groups(State(state): State<Arc<HttpState>>, asked: Asked) -> Answer<GroupPage> {
    let Query(asked) = asked?;
    let limit = asked.limit();
    let summaries = state.parts.admin.group_page(&asked.after, limit).await;
    let summary = |group: service::GroupSummary| GroupSummary {
        group: group.group.group_id.to_string(),
        state: group.group.state,
        members: group.members,
        offsets: group.offsets,
    };
    let groups: Vec<GroupSummary> = summaries.into_iter().map(summary).collect();
    let next = next(groups.iter().map(|group| group.group.as_str()), limit);
    Ok(Json(GroupPage { groups, next }))
}

pub(super) async fn group(State(state): State<Arc<HttpState>>, name: Name) -> Answer<GroupView> {
    let Path(name) = name?;
    let admin = &state.parts.admin;
    let described = admin.describe_group(&name).await?;
    let described = described.ok_or_else(|| Refusal::not_found(format!("there is no group `{name}`")))?;
    let positions = admin.group_positions(&name).await?;
    let offsets = positions.iter().map(|position| OffsetView {
        topic: position.at.topic.to_string(),
        partition: position.at.partition,
        committed: position.committed,
        log_end: position.high_watermark,
        lag: position.lag(),
    });
    Ok(Json(GroupView {
        group: name,
        state: described.state,
        members: described.members.len(),
        offsets: offsets.collect(),
    }))
}
