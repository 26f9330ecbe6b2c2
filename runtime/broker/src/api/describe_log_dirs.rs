//! DescribeLogDirs: the one log directory, the size of each partition in it, and the free space.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use pelton_wire::message::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::context::RequestContext;
use super::parts::Cluster;
use super::reply::Reply;
use crate::admin::Admin;

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    admin: &Arc<Admin>,
    _: &RequestContext,
    request: DescribeLogDirsRequest,
) -> Reply<DescribeLogDirsResponse> {
    let asked = request.topics.as_ref().map(|topics| {
        let mut asked: HashMap<&str, HashSet<i32>> = HashMap::new();
        for topic in topics {
            asked.entry(&topic.topic).or_default().extend(&topic.partitions);
        }
        asked
    });
    let wanted = |topic: &str, partition: i32| {
        let asked = asked.as_ref();
        asked.is_none_or(|asked| asked.get(topic).is_some_and(|asked| asked.contains(&partition)))
    };
    let mut topics = Vec::new();
    for topic in admin.list_topics() {
        let partitions: Vec<_> = topic
            .local
            .iter()
            .filter(|partition| wanted(&topic.name, partition.index()))
            .map(|partition| DescribeLogDirsPartition {
                partition_index: partition.index(),
                partition_size: i64::try_from(partition.reader().size_bytes()).unwrap_or(i64::MAX),
                ..Default::default()
            })
            .collect();
        if !partitions.is_empty() {
            topics.push(DescribeLogDirsTopic { name: topic.name.clone(), partitions });
        }
    }
    let (log_dir, space) = (&cluster.log_dir, cluster.log_dir.space());
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let result = DescribeLogDirsResult {
        error_code: ErrorCode::NONE,
        log_dir: log_dir.topics_path().display().to_string(),
        topics,
        total_bytes: bytes(space.total_bytes()),
        usable_bytes: bytes(space.free_bytes()),
    };
    Reply::ready(DescribeLogDirsResponse { results: vec![result], ..Default::default() })
}
