//! The requests of a transactional producer, as the broker's handlers ask them of the coordinators.

use pelton_commitlog::AppendError;
use pelton_coordinators::group::error::code_of;
use pelton_coordinators::group::types::{
    CommitRequest, MemberIdentity, NO_GENERATION, OffsetToCommit, TopicPartition,
};
use pelton_coordinators::txn::Transactions;
use pelton_coordinators::txn::coordinator::TransactionalWrite;
use pelton_coordinators::txn::error::TxnError;
use pelton_coordinators::txn::origin::{RequestKind, RequestOrigin};
use pelton_coordinators::txn::state::Protocol;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::acks::Acks;
use pelton_partitions::partition::{Partition, PartitionAppendError};
use pelton_partitions::producer_id::ProducerIdentity;
use pelton_partitions::same_journal::SameJournal;
use pelton_partitions::topic_config::Durability;
use pelton_wire::ErrorCode;
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch};

use crate::core::Core;

pub(crate) const TIMEOUT_MS: i32 = 60_000;

/// One request, with all that it needs.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
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
pub(crate) struct Who {
    pub(crate) id: String,
    pub(crate) newer: bool,
    pub(crate) producer: ProducerIdentity,
    pub(crate) place: RequestOrigin,
}

/// What came back; `NETWORK_EXCEPTION` for a connection that was closed.
pub(crate) type Told = (ErrorCode, ProducerIdentity);

/// One request of a producer, on its way through the coordinators.
struct Request {
    transactions: Transactions,
    journal: SameJournal,
    who: Who,
    now_ms: i64,
}

/// Makes a request, which is begun when it is first polled.
pub(crate) fn begin(core: &Core, who: Who, ask: Ask) -> impl Future<Output = Told> + Send + 'static {
    let target = match &ask {
        Ask::Write { topic, partition, .. } => core.topics.partition(topic, *partition).ok(),
        _ => None,
    };
    let (groups, now_ms) = (core.groups.clone(), core.clock.now_ms());
    let (transactions, journal) = (core.transactions.clone(), core.topics.same_journal());
    let request = Request { transactions, journal, who, now_ms };
    async move {
        let told = match ask {
            Ask::Init { before } => return request.init(before).await,
            Ask::End { commit } => return request.end(commit).await,
            Ask::AddPartition { topic, partition } => {
                request.add(RequestKind::AddPartitions, at(topic, partition)).await
            }
            Ask::AddOffsets => {
                groups.ensure_topic().await.expect("the topic is there");
                let at = request.transactions.offsets_partition(&group_of(&request.who.id));
                request.add(RequestKind::AddOffsets, at).await
            }
            Ask::Write { topic, partition, sequence, value } => {
                let batch = request.batch(sequence, &value);
                request.write(at(topic, partition), &target.expect("the topic is there"), batch).await
            }
            Ask::CommitOffset { offset } => request.commit_offset(offset).await,
        };
        (told, request.who.producer)
    }
}

fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition }
}

fn code<T>(outcome: Result<T, TxnError>) -> ErrorCode {
    outcome.map_or_else(TxnError::code, |_| ErrorCode::NONE)
}

impl Request {
    fn protocol(&self) -> Protocol {
        if self.who.newer { Protocol::EpochPerTransaction } else { Protocol::Classic }
    }

    fn origin(&self) -> Option<RequestOrigin> {
        Some(self.who.place)
    }

    async fn init(&self, before: Option<ProducerIdentity>) -> Told {
        match self.transactions.init(&self.who.id, before, TIMEOUT_MS, self.origin()).await {
            Ok(producer) => (ErrorCode::NONE, producer),
            Err(error) => (error.code(), self.who.producer),
        }
    }

    async fn add(&self, kind: RequestKind, at: TopicPartition) -> ErrorCode {
        let asked = (kind, self.origin());
        code(self.transactions.add(&self.who.id, self.who.producer, vec![at], asked).await)
    }

    async fn end(&self, commit: bool) -> Told {
        let Who { id, producer, .. } = &self.who;
        match self.transactions.end(id, *producer, commit, self.protocol(), self.origin()).await {
            Ok(next) => (ErrorCode::NONE, if self.who.newer { next } else { *producer }),
            Err(error) => (error.code(), *producer),
        }
    }

    /// Holds the transaction until the batch has its place in the log.
    async fn write(&self, at: TopicPartition, partition: &Partition, batch: CheckedBatch) -> ErrorCode {
        let Ok(room) = partition.room(batch.len() as u64).await else {
            return ErrorCode::KAFKA_STORAGE_ERROR;
        };
        let mut held = match self.transactions.lock(&self.who.id).await {
            Ok(held) => held,
            Err(error) => return error.code(),
        };
        let write = TransactionalWrite { producer: self.who.producer, at };
        let verdict =
            self.transactions.allow(&mut held, vec![write], self.protocol(), self.journal).remove(0);
        match verdict {
            Ok(()) => {}
            // Nothing was written, and the client drops what it wanted to write.
            Err(TxnError::NotAvailable | TxnError::Concurrent) => return ErrorCode::NOT_ENOUGH_REPLICAS,
            Err(error) => return error.code_before_fenced(),
        }
        let acks = Acks::new();
        let appended = partition.append_client(batch, &room, self.now_ms, Durability::Group, Some(&acks));
        drop(held);
        match appended {
            Ok(_) => acks.wait().await.map_or(ErrorCode::KAFKA_STORAGE_ERROR, |()| ErrorCode::NONE),
            Err(error) => refused(&error),
        }
    }

    fn batch(&self, sequence: i32, value: &str) -> CheckedBatch {
        let options = BatchOptions {
            producer_id: self.who.producer.id,
            producer_epoch: self.who.producer.epoch,
            base_sequence: sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let mut batch = BatchBuilder::new(options);
        batch.append(1_000_000, None, Some(value.as_bytes()), &[]).unwrap();
        batch.build().unwrap()
    }

    async fn commit_offset(&self, offset: i64) -> ErrorCode {
        let Who { id, producer, .. } = &self.who;
        let offset = OffsetToCommit { at: at("a", 0), offset, leader_epoch: -1, metadata: String::new() };
        let commit = CommitRequest {
            who: MemberIdentity {
                member_id: String::new(),
                group_instance_id: None,
                generation_id: NO_GENERATION,
            },
            retention_ms: None,
            knows_group_id_not_found: false,
            transaction: None,
            offsets: vec![offset],
        };
        let (group, protocol) = (group_of(id), self.protocol());
        let committed =
            self.transactions.commit_offsets(id, &group, commit, *producer, protocol, self.origin());
        match committed.await {
            Ok(Ok(results)) => code_of(&results[0]),
            Ok(Err(error)) => error.code(),
            Err(error) => error.code_before_fenced(),
        }
    }
}

fn refused(error: &PartitionAppendError) -> ErrorCode {
    match error {
        PartitionAppendError::Log(AppendError::InvalidProducerEpoch { .. }) => {
            ErrorCode::INVALID_PRODUCER_EPOCH
        }
        PartitionAppendError::DiskLow | PartitionAppendError::Offline => ErrorCode::KAFKA_STORAGE_ERROR,
        PartitionAppendError::Log(
            AppendError::Full(_)
            | AppendError::Unavailable(_)
            | AppendError::AfterRefused { .. }
            | AppendError::Storage(_)
            | AppendError::Latched(_)
            | AppendError::Closed(_),
        ) => ErrorCode::KAFKA_STORAGE_ERROR,
        // What a client must not meet: only copies do.
        _ => ErrorCode::UNKNOWN_SERVER_ERROR,
    }
}

/// The group whose offsets a producer commits: one of its own.
pub(crate) fn group_of(id: &str) -> String {
    format!("group-of-{id}")
}
