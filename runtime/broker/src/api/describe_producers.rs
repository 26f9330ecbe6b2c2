//! DescribeProducers: the producer state of partitions.

use std::collections::HashSet;
use std::sync::Arc;

use pelton_wire::message::describe_producers::{PartitionResponse, ProducerState, TopicResponse};
use pelton_wire::message::{DescribeProducersRequest, DescribeProducersResponse};

use super::context::RequestContext;
use super::reply::Reply;
use crate::topics::{NotHere, Topics};

pub(crate) fn handle(
    topics: &Arc<Topics>,
    _cx: &RequestContext,
    request: DescribeProducersRequest,
) -> Reply<DescribeProducersResponse> {
    // A partition can have thousands of producers, so one that is named often is answered once.
    let mut seen = HashSet::new();
    let results = request.topics.into_iter().map(|asked| {
        // Clients write to the intake of a topic that has one.
        let topic = topics.written_to(&asked.name);
        let id = topic.as_ref().map(|topic| topic.id);
        let new = |index: &i32| id.is_none_or(|id| seen.insert((id, *index)));
        let partitions = asked.partition_indexes.into_iter().filter(new).map(|partition_index| {
            let partition = topic.as_ref().ok_or(NotHere::UnknownTopic);
            let partition = partition.and_then(|topic| topic.partition(partition_index));
            // A partition that is gone has left its topic.
            let known = partition.and_then(|it| it.producers().ok_or(NotHere::UnknownPartition));
            match known {
                Ok(known) => PartitionResponse {
                    partition_index,
                    active_producers: known.iter().map(|(id, known)| state(*id, known)).collect(),
                    ..Default::default()
                },
                Err(not_here) => {
                    PartitionResponse { partition_index, error_code: not_here.code(), ..Default::default() }
                }
            }
        });
        TopicResponse { partitions: partitions.collect(), name: asked.name }
    });
    Reply::ready(DescribeProducersResponse { topics: results.collect(), ..Default::default() })
}

/// The state of one producer.
fn state(producer_id: i64, known: &pelton_commitlog::producer_state::ProducerState) -> ProducerState {
    ProducerState {
        producer_id,
        producer_epoch: known.epoch.into(),
        last_sequence: known.batches.back().map_or(-1, |batch| batch.last_sequence),
        last_timestamp: known.last_write_ms,
        coordinator_epoch: known.coordinator_epoch,
        current_txn_start_offset: known.current_txn_first_offset.unwrap_or(-1),
    }
}
