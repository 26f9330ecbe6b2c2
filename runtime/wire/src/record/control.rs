//! Control records, which brokers write between the data: above all the markers that end transactions.

use super::builder::{BatchBuilder, BatchOptions, BuildError};
use super::checked::CheckedBatch;
use super::records::Record;

/// Version of keys and values that are written here.
const VERSION: i16 = 0;

/// The type in the key of a control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// Ends an aborted transaction.
    Abort,
    /// Ends a committed transaction.
    Commit,
    /// A new leader of a raft quorum.
    LeaderChange,
    /// Start of a raft snapshot.
    SnapshotHeader,
    /// End of a raft snapshot.
    SnapshotFooter,
    /// Version of the raft protocol.
    KraftVersion,
    /// Voters of a raft quorum.
    KraftVoters,
    /// A type that is not known here. Readers skip it.
    Unknown(i16),
}

impl ControlType {
    /// The type with this id.
    pub fn from_id(id: i16) -> ControlType {
        match id {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            2 => ControlType::LeaderChange,
            3 => ControlType::SnapshotHeader,
            4 => ControlType::SnapshotFooter,
            5 => ControlType::KraftVersion,
            6 => ControlType::KraftVoters,
            id => ControlType::Unknown(id),
        }
    }

    /// Kafka's id of it.
    pub fn id(self) -> i16 {
        match self {
            ControlType::Abort => 0,
            ControlType::Commit => 1,
            ControlType::LeaderChange => 2,
            ControlType::SnapshotHeader => 3,
            ControlType::SnapshotFooter => 4,
            ControlType::KraftVersion => 5,
            ControlType::KraftVoters => 6,
            ControlType::Unknown(id) => id,
        }
    }
}

/// Why a record is not a control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The key is null or has less than its four bytes.
    #[error("the key of a control record has {0} bytes, at least 4 are needed")]
    Key(usize),
    /// The value of a marker is null or has less than its six bytes.
    #[error("the value of an end-of-transaction marker has {0} bytes, at least 6 are needed")]
    Value(usize),
    /// A negative version.
    #[error("negative control record version `{0}`")]
    Version(i16),
    /// The marker of a transaction was expected.
    #[error("control record of type `{0:?}` instead of an end-of-transaction marker")]
    NotMarker(ControlType),
}

/// The key of a control record. Versions above 0 may add fields behind the ones known here, which are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// What the record says.
    pub control_type: ControlType,
}

impl ControlRecord {
    /// Reads the key of a record of a control batch.
    pub fn parse(record: &Record<'_>) -> Result<ControlRecord, ControlError> {
        let key = record.key.unwrap_or_default();
        let Some([a, b, c, d]) = key.first_chunk() else {
            return Err(ControlError::Key(key.len()));
        };
        check_version(i16::from_be_bytes([*a, *b]))?;
        Ok(ControlRecord { control_type: ControlType::from_id(i16::from_be_bytes([*c, *d])) })
    }

    /// The bytes of the key.
    pub fn encode_key(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (VERSION.to_be_bytes(), self.control_type.id().to_be_bytes());
        [a, b, c, d]
    }
}

/// The marker that ends a transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Whether it committed.
    pub committed: bool,
    /// Epoch of the coordinator that ended it. A partition refuses the marker of an older coordinator.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Reads key and value of a record of a control batch.
    pub fn parse(record: &Record<'_>) -> Result<EndTransactionMarker, ControlError> {
        let committed = match ControlRecord::parse(record)?.control_type {
            ControlType::Commit => true,
            ControlType::Abort => false,
            other => return Err(ControlError::NotMarker(other)),
        };
        let value = record.value.unwrap_or_default();
        let Some([a, b, epoch @ ..]) = value.first_chunk::<6>() else {
            return Err(ControlError::Value(value.len()));
        };
        check_version(i16::from_be_bytes([*a, *b]))?;
        Ok(EndTransactionMarker { committed, coordinator_epoch: i32::from_be_bytes(*epoch) })
    }

    fn control_type(&self) -> ControlType {
        if self.committed { ControlType::Commit } else { ControlType::Abort }
    }
}

/// The batch that holds one marker, to be appended to a partition of the transaction. `timestamp` in ms.
pub fn end_transaction_batch(
    marker: &EndTransactionMarker,
    producer_id: i64,
    producer_epoch: i16,
    timestamp: i64,
) -> Result<CheckedBatch, BuildError> {
    let key = ControlRecord { control_type: marker.control_type() }.encode_key();
    let mut value = [0; 6];
    value[..2].copy_from_slice(&VERSION.to_be_bytes());
    value[2..].copy_from_slice(&marker.coordinator_epoch.to_be_bytes());
    let options = BatchOptions {
        producer_id,
        producer_epoch,
        transactional: true,
        control: true,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::with_capacity(options, 32);
    builder.append(timestamp, Some(&key), Some(&value), &[])?;
    builder.build()
}

fn check_version(version: i16) -> Result<(), ControlError> {
    if version < 0 { Err(ControlError::Version(version)) } else { Ok(()) }
}
