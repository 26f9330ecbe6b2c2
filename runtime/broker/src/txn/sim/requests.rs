//! The requests of a transactional producer, sent to the broker's handlers.

use pelton_wire::ErrorCode;
use pelton_wire::message::add_partitions_to_txn::AddPartitionsToTxnTopic;
use pelton_wire::message::produce::{PartitionProduceData, TopicProduceData};
use pelton_wire::message::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use pelton_wire::message::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest,
    TxnOffsetCommitRequest,
};
use pelton_wire::record::{BatchBuilder, BatchOptions};

use super::core::Core;
use crate::producer_id::ProducerIdentity;
use crate::txn::origin::RequestOrigin;

pub(super) const TIMEOUT_MS: i32 = 60_000;

/// One request, with all that it needs.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// As nobody yet, or as who the producer has been (KIP-360).
    Init {
        before: Option<ProducerIdentity>,
    },
    AddPartition {
        topic: &'static str,
        partition: i32,
    },
    AddOffsets,
    Write {
        topic: &'static str,
        partition: i32,
        sequence: i32,
        value: String,
    },
    CommitOffset {
        offset: i64,
    },
    End {
        commit: bool,
    },
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Who {
    pub(super) id: String,
    pub(super) newer: bool,
    pub(super) producer: ProducerIdentity,
    pub(super) place: RequestOrigin,
}

/// What came back; `NETWORK_EXCEPTION` for a connection that was closed.
pub(super) type Told = (ErrorCode, ProducerIdentity);

/// Begins a request, as the connection's task would: what must happen in order has happened when this returns.
pub(super) fn begin(core: &Core, who: Who, ask: Ask) -> impl Future<Output = Told> + Send + 'static {
    let version = |older: i16, newer: i16| if who.newer { newer } else { older };
    let place = who.place;
    let (transactional_id, producer) = (who.id.clone(), who.producer);
    let (producer_id, producer_epoch) = (producer.id, producer.epoch);
    let group_id = group_of(&who.id);
    let told = move |code: Option<ErrorCode>| (code.unwrap_or(ErrorCode::NETWORK_EXCEPTION), producer);
    let reply: std::pin::Pin<Box<dyn Future<Output = Told> + Send>> = match ask {
        Ask::Init { before } => {
            let request = init(transactional_id, before);
            let reply = core.ask(version(4, 4), place, &request);
            Box::pin(async move {
                reply.await.map_or(told(None), |r| {
                    (r.error_code, ProducerIdentity { id: r.producer_id, epoch: r.producer_epoch })
                })
            })
        }
        Ask::AddPartition { topic, partition } => {
            let request = add_partition(&who, topic, partition);
            let reply = core.ask(version(3, 3), place, &request);
            Box::pin(async move {
                let result = reply.await.map(|r| r.results_by_topic_v3_and_below);
                told(result.map(|topics| topics[0].results_by_partition[0].partition_error_code))
            })
        }
        Ask::AddOffsets => {
            let request = AddOffsetsToTxnRequest { transactional_id, producer_id, producer_epoch, group_id };
            let reply = core.ask(version(3, 3), place, &request);
            Box::pin(async move { told(reply.await.map(|r| r.error_code)) })
        }
        Ask::Write { topic, partition, sequence, value } => {
            let request = write(&who, topic, partition, sequence, &value);
            let reply = core.ask(version(9, 12), place, &request);
            Box::pin(
                async move { told(reply.await.map(|r| r.responses[0].partition_responses[0].error_code)) },
            )
        }
        Ask::CommitOffset { offset } => {
            let request = commit_offset(&who, group_id, offset);
            let reply = core.ask(version(3, 5), place, &request);
            Box::pin(async move { told(reply.await.map(|r| r.topics[0].partitions[0].error_code)) })
        }
        Ask::End { commit } => {
            let request = EndTxnRequest { transactional_id, producer_id, producer_epoch, committed: commit };
            let reply = core.ask(version(3, 5), place, &request);
            let newer = who.newer;
            Box::pin(async move {
                reply.await.map_or(told(None), |r| {
                    let next = ProducerIdentity { id: r.producer_id, epoch: r.producer_epoch };
                    (r.error_code, if newer && r.error_code.is_ok() { next } else { producer })
                })
            })
        }
    };
    reply
}

/// The group whose offsets a producer commits: one of its own.
pub(super) fn group_of(id: &str) -> String {
    format!("group-of-{id}")
}

fn init(transactional_id: String, before: Option<ProducerIdentity>) -> InitProducerIdRequest {
    let ProducerIdentity { id: producer_id, epoch: producer_epoch } =
        before.unwrap_or(ProducerIdentity { id: -1, epoch: -1 });
    InitProducerIdRequest {
        transactional_id: Some(transactional_id),
        transaction_timeout_ms: TIMEOUT_MS,
        producer_id,
        producer_epoch,
    }
}

fn add_partition(who: &Who, topic: &str, partition: i32) -> AddPartitionsToTxnRequest {
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: who.id.clone(),
        v3_and_below_producer_id: who.producer.id,
        v3_and_below_producer_epoch: who.producer.epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: topic.into(),
            partitions: vec![partition],
        }],
        ..Default::default()
    }
}

fn write(who: &Who, topic: &str, partition: i32, sequence: i32, value: &str) -> ProduceRequest {
    let options = BatchOptions {
        producer_id: who.producer.id,
        producer_epoch: who.producer.epoch,
        base_sequence: sequence,
        transactional: true,
        ..BatchOptions::default()
    };
    let mut batch = BatchBuilder::new(options);
    batch.append(1_000_000, None, Some(value.as_bytes()), &[]).unwrap();
    let data = PartitionProduceData { index: partition, records: Some(batch.finish().unwrap()) };
    ProduceRequest {
        transactional_id: Some(who.id.clone()),
        acks: -1,
        timeout_ms: i32::MAX,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![data],
            ..Default::default()
        }],
    }
}

fn commit_offset(who: &Who, group_id: String, committed_offset: i64) -> TxnOffsetCommitRequest {
    let partition =
        TxnOffsetCommitRequestPartition { partition_index: 0, committed_offset, ..Default::default() };
    TxnOffsetCommitRequest {
        transactional_id: who.id.clone(),
        group_id,
        producer_id: who.producer.id,
        producer_epoch: who.producer.epoch,
        topics: vec![TxnOffsetCommitRequestTopic { name: "a".into(), partitions: vec![partition] }],
        ..Default::default()
    }
}
