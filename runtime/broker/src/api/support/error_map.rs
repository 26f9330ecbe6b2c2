//! Internal errors as Kafka's error codes. Each operation has one exhaustive match, so that a new error cannot be
//! forgotten.
//!
//! Clients take some codes to mean that nothing was written. `UNKNOWN_SERVER_ERROR` for an append that may have
//! happened makes clients send it again under a new sequence, so no append ever ends in it.

use pelton_commitlog::{AppendError, ChangeError, ReadError};
use pelton_wire::ErrorCode;

use crate::admin::{AdminError, DeleteRecordsError};
use crate::partition::acks::NotDurable;
use crate::partition::{InternalAppendError, PartitionAppendError, PartitionReadError};
use crate::topics::metadata_log::MetadataWriteError;
use crate::topics::{NameError, NotHere, TopicError};

/// An error code and the text that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Refused { code, message: message.into() }
    }
}

impl From<TopicError> for Refused {
    fn from(error: TopicError) -> Self {
        Refused { code: topic(&error), message: error.to_string() }
    }
}

impl From<NotHere> for Refused {
    fn from(not_here: NotHere) -> Self {
        Refused { code: not_here.code(), message: not_here.to_string() }
    }
}

impl From<AdminError> for Refused {
    fn from(error: AdminError) -> Self {
        let code = match &error {
            AdminError::Topic(error) => topic(error),
            AdminError::Partitioner(_) | AdminError::NoPipelines(_) => ErrorCode::INVALID_CONFIG,
            AdminError::UnknownId(_) => ErrorCode::UNKNOWN_TOPIC_ID,
            AdminError::Internal(_) => ErrorCode::INVALID_REQUEST,
            AdminError::DeletionDisabled => ErrorCode::TOPIC_DELETION_DISABLED,
        };
        Refused { code, message: error.to_string() }
    }
}

/// Deleting the records at the start of a partition.
pub(crate) fn delete_records(error: &DeleteRecordsError) -> ErrorCode {
    match error {
        DeleteRecordsError::NotHere(not_here) => not_here.code(),
        DeleteRecordsError::Internal => ErrorCode::INVALID_TOPIC_EXCEPTION,
        DeleteRecordsError::Compacted => ErrorCode::POLICY_VIOLATION,
        DeleteRecordsError::OutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        DeleteRecordsError::Change(error) => change(error),
    }
}

/// Creating, growing, configuring or deleting a topic.
pub(crate) fn topic(error: &TopicError) -> ErrorCode {
    match error {
        TopicError::Exists(_) => ErrorCode::TOPIC_ALREADY_EXISTS,
        TopicError::Unknown(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        TopicError::Name(
            NameError::Empty
            | NameError::Dots
            | NameError::TooLong(_)
            | NameError::Characters
            | NameError::Internal(_)
            | NameError::Collides(_),
        ) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        TopicError::Config(_) => ErrorCode::INVALID_CONFIG,
        TopicError::PartitionCount { .. } => ErrorCode::INVALID_PARTITIONS,
        TopicError::TooManyPartitions { .. } => ErrorCode::POLICY_VIOLATION,
        TopicError::Create(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        TopicError::Write(error) => metadata_write(error),
        TopicError::Stopping => ErrorCode::BROKER_NOT_AVAILABLE,
    }
}

fn metadata_write(error: &MetadataWriteError) -> ErrorCode {
    match error {
        MetadataWriteError::Build(_) => ErrorCode::INVALID_CONFIG,
        MetadataWriteError::Append(error) => internal_append(error),
        MetadataWriteError::NotDurable(NotDurable) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// Appending to a topic of the broker's own.
pub(crate) fn internal_append(error: &InternalAppendError) -> ErrorCode {
    match error {
        InternalAppendError::Build(_) => ErrorCode::INVALID_RECORD,
        InternalAppendError::Append(error) => partition_append(error),
    }
}

/// Appending to a partition.
pub(crate) fn partition_append(error: &PartitionAppendError) -> ErrorCode {
    match error {
        PartitionAppendError::Gone => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        PartitionAppendError::Offline | PartitionAppendError::DiskLow => ErrorCode::KAFKA_STORAGE_ERROR,
        PartitionAppendError::Log(error) => append(error),
    }
}

fn append(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::InvalidBatch(_) => ErrorCode::CORRUPT_MESSAGE,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER,
        // librdkafka, which sends such requests, aborts and bumps its epoch on this code; the one above is fatal to it.
        AppendError::SequenceOfEnded { .. } => ErrorCode::UNKNOWN_PRODUCER_ID,
        // As Kafka answers a Produce, not PRODUCER_FENCED: the producer may have bumped the epoch itself.
        AppendError::InvalidProducerEpoch { .. } => ErrorCode::INVALID_PRODUCER_EPOCH,
        // The end of a transaction makes room. Retriable for every client, and says that nothing was written.
        AppendError::TooManyProducers { .. } => ErrorCode::NOT_ENOUGH_REPLICAS,
        AppendError::InvalidTxnState { .. } => ErrorCode::INVALID_TXN_STATE,
        AppendError::CoordinatorFenced { .. } => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
        AppendError::LeaderEpochFenced { .. } => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        // The condition may pass, and this code is retriable for every client.
        AppendError::AfterRefused { .. }
        | AppendError::Behind
        | AppendError::Full(_)
        | AppendError::Unavailable(_)
        | AppendError::Corrupt(_)
        | AppendError::Storage(_)
        | AppendError::Latched(_)
        | AppendError::Closed(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// Reading from a partition.
pub(crate) fn read(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::OffsetOutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        ReadError::Corrupt(_) | ReadError::Storage(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// Reading from a partition that may have been deleted.
pub(crate) fn partition_read(error: &PartitionReadError) -> ErrorCode {
    match error {
        PartitionReadError::Gone => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        PartitionReadError::Read(error) => read(error),
    }
}

/// Changing a log other than by appending.
pub(crate) fn change(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::OffsetOutOfRange { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        // Clients try this again.
        ChangeError::Swapping => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ChangeError::Corrupt(_)
        | ChangeError::Storage(_)
        | ChangeError::Latched(_)
        | ChangeError::Closed(_) => ErrorCode::KAFKA_STORAGE_ERROR,
    }
}

/// Compares the leader epoch that a client knows (-1: none) with the partition's (KIP-320).
pub(crate) fn leader_epoch(asked: i32, current: i32) -> Result<(), ErrorCode> {
    match asked {
        ..0 => Ok(()),
        _ if asked < current => Err(ErrorCode::FENCED_LEADER_EPOCH),
        _ if asked > current => Err(ErrorCode::UNKNOWN_LEADER_EPOCH),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_epochs() {
        assert_eq!(leader_epoch(-1, 3), Ok(()));
        assert_eq!(leader_epoch(3, 3), Ok(()));
        assert_eq!(leader_epoch(2, 3), Err(ErrorCode::FENCED_LEADER_EPOCH));
        assert_eq!(leader_epoch(4, 3), Err(ErrorCode::UNKNOWN_LEADER_EPOCH));
    }
}
