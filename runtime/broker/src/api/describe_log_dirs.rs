//! DescribeLogDirs: the one directory, and how much each partition takes in it.

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use pelton_wire::message::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use crate::reply::{Reply, RequestContext};

pub(crate) fn handle(cx: &RequestContext, request: DescribeLogDirsRequest) -> Reply<DescribeLogDirsResponse> {
    let wanted = |topic: &str, partition: i32| {
        request.topics.as_ref().is_none_or(|topics| {
            topics.iter().any(|asked| asked.topic == topic && asked.partitions.contains(&partition))
        })
    };
    let mut topics = Vec::new();
    for topic in cx.broker.topics.list() {
        let partitions: Vec<_> = topic
            .partitions
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
    let log_dir = cx.broker.log_dir.path().display().to_string();
    let result = DescribeLogDirsResult { error_code: ErrorCode::NONE, log_dir, topics, ..Default::default() };
    Reply::ready(DescribeLogDirsResponse { results: vec![result], ..Default::default() })
}
