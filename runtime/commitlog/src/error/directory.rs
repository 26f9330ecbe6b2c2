//! What can go wrong with a data directory.

use std::path::PathBuf;

use uuid::Uuid;

use super::{Corruption, OpenError, SinkClosed, StorageFailure};
use crate::id::PartitionId;

/// Why a data directory could not be opened. Unless it is `Storage`, nothing that was durable has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenDirError {
    /// Another server has it.
    #[error("`{}` is locked: another server uses this data directory. Stop it, or give this one another --data-dir", .0.display())]
    Locked(PathBuf),
    /// A newer version wrote it.
    #[error("`{}` has format version {found}, this pelton knows up to {known}. Start the newer version again, or use another --data-dir", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this binary reads.
        known: u32,
    },
    /// `meta.properties` cannot be understood.
    #[error("`{}` cannot be used: {what}. Restore it from a copy", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The directory is another node's.
    #[error(
        "this data directory belongs to node {found}, and this is node {expected}. Set node.id = {found}, or use another --data-dir"
    )]
    WrongNode {
        /// The node in `meta.properties`.
        found: i32,
        /// The node in the configuration.
        expected: i32,
    },
    /// There are partitions, but no `meta.properties`.
    #[error("`{}` holds partitions but no `meta.properties`: it is no data directory of pelton, or the file was lost. Restore it, or use an empty directory", .0.display())]
    NotOurs(PathBuf),
    /// A partition's directory is gone.
    #[error("the partition directory `{}` is missing. Put it back; or, to lose what was in it, restore an older copy of the whole data directory", .0.display())]
    PartitionMissing(PathBuf),
    /// Bytes that were acknowledged are damaged. Nothing was cut.
    #[error(
        "{0}. Acknowledged records would be lost by going on, so nothing was cut. Copy the data directory, then restore it from a backup"
    )]
    Journal(Corruption),
    /// A partition could not be opened.
    #[error("partition {0}: {1}")]
    Partition(PartitionId, #[source] OpenError),
    /// The disk failed or is full.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}

impl From<Corruption> for OpenDirError {
    fn from(corruption: Corruption) -> OpenDirError {
        OpenDirError::Journal(corruption)
    }
}

/// Why a partition was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// There is no such partition.
    #[error("no partition {partition} of topic id {topic_id}")]
    Unknown {
        /// The topic's id.
        topic_id: Uuid,
        /// The partition's number.
        partition: i32,
    },
    /// The journal takes nothing more.
    #[error(transparent)]
    Closed(#[from] SinkClosed),
    /// The disk failed. Whether the partition is gone shows after the next start.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
    /// The partition is gone for good, and its directory is still there.
    #[error(
        "the deleted partition's directory goes when the next partition of its name is created, or at the next start: {0}"
    )]
    Directory(#[source] StorageFailure),
}

/// Why a directory was not closed in order. Nothing that was acknowledged is lost; the next start recovers.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The disk is too full for the last checkpoint.
    #[error("not marked as clean: {0}")]
    NotClean(StorageFailure),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}
