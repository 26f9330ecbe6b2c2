//! ListOffsets: earliest and latest offsets, or the first record from a timestamp on.

use std::collections::HashSet;
use std::sync::Arc;

use pelton_commitlog::{ReadError, TimestampOffset};
use pelton_wire::ErrorCode;
use pelton_wire::message::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use pelton_wire::message::{ListOffsetsRequest, ListOffsetsResponse};

use super::context::RequestContext;
use super::reply::Reply;
use super::support::error_map;
use crate::blocking::run_blocking;
use crate::partition::Isolation;
use crate::topics::Topics;

/// Kafka's special timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The result. Offset and timestamp are -1 if no record was found, which is no error.
#[derive(Clone, Copy, Debug)]
struct Found {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

/// First version whose response has a leader epoch.
const LEADER_EPOCH_SINCE: i16 = 4;
const NO_EPOCH: i32 = -1;

const NOTHING: Found = Found { offset: -1, timestamp: -1, leader_epoch: NO_EPOCH };

pub(crate) fn handle(
    topics: &Arc<Topics>,
    cx: &RequestContext,
    request: ListOffsetsRequest,
) -> Reply<ListOffsetsResponse> {
    let Some(isolation) = Isolation::from_wire(request.isolation_level) else {
        return Reply::ready(answer(&request, cx.version, |_, _| Err(ErrorCode::INVALID_REQUEST)));
    };
    let needs_disk =
        |partition: &ListOffsetsPartition| partition.timestamp >= 0 || partition.timestamp == MAX_TIMESTAMP;
    let version = cx.version;
    if request.topics.iter().flat_map(|topic| &topic.partitions).any(needs_disk) {
        let topics = Arc::clone(topics);
        return cx.later(run_blocking(move || {
            answer(&request, version, |topic, partition| find(&topics, topic, partition, isolation))
        }));
    }
    Reply::ready(answer(&request, version, |topic, partition| find(topics, topic, partition, isolation)))
}

fn answer(
    request: &ListOffsetsRequest,
    version: i16,
    find: impl Fn(&str, &ListOffsetsPartition) -> Result<Found, ErrorCode>,
) -> ListOffsetsResponse {
    let twice = named_twice(request);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let found = if twice.contains(&(topic.name.as_str(), partition.partition_index)) {
                Err(ErrorCode::INVALID_REQUEST)
            } else {
                find(&topic.name, partition)
            };
            let (error_code, found) = match found {
                Ok(found) => (ErrorCode::NONE, found),
                Err(code) => (code, NOTHING),
            };
            ListOffsetsPartitionResponse {
                partition_index: partition.partition_index,
                error_code,
                timestamp: found.timestamp,
                offset: found.offset,
                leader_epoch: if version < LEADER_EPOCH_SINCE { NO_EPOCH } else { found.leader_epoch },
            }
        });
        ListOffsetsTopicResponse { name: topic.name.clone(), partitions: partitions.collect() }
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
}

/// The partitions that a request names more than once. They are refused, as in Kafka: a look-up by timestamp may
/// decompress a batch, so a short request could keep a thread busy for hours.
fn named_twice(request: &ListOffsetsRequest) -> HashSet<(&str, i32)> {
    let mut seen = HashSet::new();
    let all = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index))
    });
    all.filter(|named| !seen.insert(*named)).collect()
}

fn find(
    topics: &Topics,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, ErrorCode> {
    let partition = topics.partition(topic, wanted.partition_index)?;
    error_map::leader_epoch(wanted.current_leader_epoch, partition.leader_epoch())?;
    let at = |offset: i64| Found { offset, leader_epoch: partition.leader_epoch(), ..NOTHING };
    match wanted.timestamp {
        LATEST => Ok(at(partition.readable_end(isolation))),
        EARLIEST | EARLIEST_LOCAL => Ok(at(partition.log_start_offset())),
        // There is no tiered storage.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(NOTHING),
        MAX_TIMESTAMP => found(partition.max_timestamp(partition.readable_end(isolation))),
        from @ 0.. => found(partition.first_from(from, partition.readable_end(isolation))),
        _ => Err(ErrorCode::INVALID_REQUEST),
    }
}

fn found(found: Result<Option<TimestampOffset>, ReadError>) -> Result<Found, ErrorCode> {
    match found {
        Ok(Some(TimestampOffset { offset, timestamp, leader_epoch })) => {
            Ok(Found { offset, timestamp, leader_epoch })
        }
        Ok(None) => Ok(NOTHING),
        Err(error) => Err(error_map::read(&error)),
    }
}
