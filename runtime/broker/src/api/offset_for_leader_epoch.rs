//! OffsetForLeaderEpoch: the end offset of a leader epoch, by which consumers detect truncation (KIP-320).

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use pelton_wire::message::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map;
use crate::topics::Topics;

pub(crate) fn handle(
    topics: &Arc<Topics>,
    _cx: &RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> Reply<OffsetForLeaderEpochResponse> {
    let results = request.topics.into_iter().map(|wanted| {
        let partitions = wanted.partitions.iter().map(|partition| {
            let found = find(topics, &wanted.topic, partition);
            let (error_code, (leader_epoch, end_offset)) = match found {
                Ok(end) => (ErrorCode::NONE, end),
                Err(code) => (code, (-1, -1)),
            };
            EpochEndOffset { error_code, partition: partition.partition, leader_epoch, end_offset }
        });
        OffsetForLeaderTopicResult { partitions: partitions.collect(), topic: wanted.topic }
    });
    Reply::ready(OffsetForLeaderEpochResponse { topics: results.collect(), ..Default::default() })
}

/// The largest epoch up to the one asked about, and where it ended; -1 for both if there is none.
fn find(topics: &Topics, topic: &str, wanted: &OffsetForLeaderPartition) -> Result<(i32, i64), ErrorCode> {
    let partition = topics.partition(topic, wanted.partition)?;
    error_map::leader_epoch(wanted.current_leader_epoch, partition.leader_epoch())?;
    Ok(partition.epoch_end(wanted.leader_epoch).unwrap_or((-1, -1)))
}
