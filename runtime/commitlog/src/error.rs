//! What can go wrong, one enum per operation. Texts follow "failed to ...".

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::NotOpened;

mod directory;

pub use directory::{CloseError, DeleteError, OpenDirError};

/// A call to the disk that failed: which one, on what, and why. Cheap to clone, because one failure can end
/// many waiting requests.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action} `{}`: {source}", path.display())]
pub struct StorageFailure {
    /// What was tried: "write", "sync", "open", ...
    pub action: &'static str,
    /// The file or directory.
    pub path: Arc<Path>,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}

impl StorageFailure {
    /// A failure of `action` on `path`.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> StorageFailure {
        StorageFailure { action, path: path.into(), source: Arc::new(source) }
    }

    /// True if the disk, a quota or a file-size limit is used up: room may come back.
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// True if the process or the machine has run out of something that comes back: descriptors, memory. The call has
    /// then done nothing, or as much of a write as the caller finds out.
    pub fn is_short(&self) -> bool {
        use rustix::io::Errno;

        let short = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOBUFS];
        let errno = NotOpened::errno(&self.source).map(Errno::from_raw_os_error);
        errno.is_some_and(|errno| short.contains(&errno)) || self.source.kind() == io::ErrorKind::OutOfMemory
    }

    /// True if what failed may be tried again later: the disk has not failed.
    pub fn is_passing(&self) -> bool {
        self.is_full() || self.is_short()
    }
}

/// Called once, when a directory fails.
pub type FailureHook = Arc<dyn Fn(&StorageFailure) + Send + Sync>;

/// Adds what was tried, and on which path, to an `io::Result`.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StorageFailure>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, StorageFailure> {
        self.map_err(|source| StorageFailure::new(action, path, source))
    }
}

/// Bytes of a file that cannot be what the log wrote, in a place where a crash cannot explain them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is corrupt at byte {position}: {what}", path.display())]
pub struct Corruption {
    /// The damaged file.
    pub path: PathBuf,
    /// First byte that makes no sense.
    pub position: u64,
    /// What was expected or found there.
    pub what: String,
}

impl Corruption {
    pub(crate) fn new(path: &Path, position: u64, what: impl Into<String>) -> Corruption {
        Corruption { path: path.to_owned(), position, what: what.into() }
    }
}

/// The journal takes no more frames: it failed, or the log directory is closing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("journal takes no more frames: {reason}")]
pub struct SinkClosed {
    /// Why, for the operator.
    pub reason: String,
}

/// Why a partition could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is a partition in that directory already.
    #[error("partition directory `{}` already exists", .0.display())]
    Exists(PathBuf),
    /// No directory can be named so.
    #[error("`{topic}` with partition {partition} cannot be the name of a directory")]
    Name {
        /// The topic.
        topic: String,
        /// The partition's number.
        partition: i32,
    },
    /// The disk is full.
    #[error("disk full: {0}")]
    Full(StorageFailure),
    /// The disk failed.
    #[error(transparent)]
    Storage(StorageFailure),
    /// The journal takes nothing more.
    #[error(transparent)]
    Closed(#[from] SinkClosed),
}

impl From<StorageFailure> for CreateError {
    fn from(failure: StorageFailure) -> CreateError {
        if failure.is_full() { CreateError::Full(failure) } else { CreateError::Storage(failure) }
    }
}

/// Why a partition could not be opened. Nothing was cut or deleted when this is `Corrupt`.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Bytes that were durable are damaged or missing.
    #[error(
        "{0}; nothing was cut. Restore the file from a copy, or move the partition directory away to go on without it"
    )]
    Corrupt(Corruption),
    /// The directory belongs to another topic than expected.
    #[error("`{}` belongs to topic id {found}, expected {expected}", path.display())]
    WrongTopic {
        /// The file that says so.
        path: PathBuf,
        /// The id in the file.
        found: uuid::Uuid,
        /// The id that was asked for.
        expected: uuid::Uuid,
    },
    /// The disk failed or is full.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}

impl From<Corruption> for OpenError {
    fn from(corruption: Corruption) -> OpenError {
        OpenError::Corrupt(corruption)
    }
}

/// Why a batch was not appended. Every variant is definite: the batch is not in the log and will not appear,
/// except `Closed` and `Latched`, after which only reopening tells.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not exactly one well-formed record batch.
    #[error("not one valid record batch: {0}")]
    InvalidBatch(String),
    /// The sequence does not follow the last one of this producer (Kafka: `OUT_OF_ORDER_SEQUENCE_NUMBER`).
    #[error(
        "sequence {first_sequence} of producer {producer_id} epoch {producer_epoch} does not follow {last_sequence}"
    )]
    OutOfOrderSequence {
        /// Producer.
        producer_id: i64,
        /// Its epoch in the refused batch.
        producer_epoch: i16,
        /// First sequence of the refused batch.
        first_sequence: i32,
        /// Last sequence the log knows of, -1 for none.
        last_sequence: i32,
    },
    /// The sequence is that of a record in a transaction that has ended: the producer has lost its place, and goes on in
    /// its next epoch. Kafka has no such case: it takes the batch for a copy, or for one that is out of order.
    #[error(
        "sequence {first_sequence} of producer {producer_id} epoch {producer_epoch} was used in a transaction that has ended, the \
         last one is {last_sequence}: abort, and go on in the next epoch"
    )]
    SequenceOfEnded {
        /// Producer.
        producer_id: i64,
        /// Its epoch in the refused batch.
        producer_epoch: i16,
        /// First sequence of the refused batch.
        first_sequence: i32,
        /// Last sequence the log knows of.
        last_sequence: i32,
    },
    /// The producer's epoch is older than one already seen (Kafka: `INVALID_PRODUCER_EPOCH`).
    #[error("epoch {producer_epoch} of producer {producer_id} is older than {current_epoch}")]
    InvalidProducerEpoch {
        /// Producer.
        producer_id: i64,
        /// Its epoch in the refused batch.
        producer_epoch: i16,
        /// The epoch that the log knows.
        current_epoch: i16,
    },
    /// A batch outside a transaction while the producer has one open (Kafka: `INVALID_TXN_STATE`).
    #[error("producer {producer_id} sent a batch outside its open transaction")]
    InvalidTxnState {
        /// Producer.
        producer_id: i64,
    },
    /// The log remembers as many producers as it may, and each of them has a transaction open. Room comes back when one
    /// of them ends.
    #[error("{max} producers have a transaction open in this partition, which are as many as it remembers")]
    TooManyProducers {
        /// `pelton.partition.producers.max`
        max: usize,
    },
    /// A marker of a coordinator that has been replaced (Kafka: `TRANSACTION_COORDINATOR_FENCED`).
    #[error(
        "marker of coordinator epoch {coordinator_epoch} for producer {producer_id}, but {current_epoch} was seen"
    )]
    CoordinatorFenced {
        /// Producer.
        producer_id: i64,
        /// Epoch in the refused marker.
        coordinator_epoch: i32,
        /// The epoch that the log knows.
        current_epoch: i32,
    },
    /// A leader epoch below the last one of this log: the writer is not the leader any more.
    #[error("leader epoch {leader_epoch} is older than {current_epoch}")]
    LeaderEpochFenced {
        /// Epoch of the refused append.
        leader_epoch: i32,
        /// Last epoch of the log.
        current_epoch: i32,
    },
    /// An earlier batch of the producer was refused for a while, and comes first when it is sent again.
    #[error("an earlier batch of producer {producer_id} was refused, and has to come first")]
    AfterRefused {
        /// Producer.
        producer_id: i64,
    },
    /// So many of the broker's own records wait for the journal that it takes no more of them now.
    #[error("the journal is too far behind: the disk is slow, or stands still")]
    Behind,
    /// The disk is full. The write was cut back, and the log goes on as soon as there is room.
    #[error("disk full: {0}")]
    Full(StorageFailure),
    /// A call failed before anything was written, which is not the failure of a disk that has what it was given: no
    /// descriptor or memory was left, a file could not be opened. The log goes on.
    #[error("nothing was written: {0}")]
    Unavailable(StorageFailure),
    /// The disk failed. The log is latched from now on.
    #[error(transparent)]
    Storage(StorageFailure),
    /// The active segment is damaged.
    #[error(transparent)]
    Corrupt(Corruption),
    /// The log failed earlier and takes nothing until it is reopened.
    #[error("log is closed to writes since an earlier failure: {0}")]
    Latched(StorageFailure),
    /// The journal takes nothing more.
    #[error(transparent)]
    Closed(#[from] SinkClosed),
}

impl AppendError {
    /// True if nothing is wrong with the batch, and the same batch may be taken later.
    pub fn is_passing(&self) -> bool {
        match self {
            AppendError::TooManyProducers { .. }
            | AppendError::AfterRefused { .. }
            | AppendError::Behind
            | AppendError::Full(_)
            | AppendError::Unavailable(_) => true,
            AppendError::InvalidBatch(_)
            | AppendError::OutOfOrderSequence { .. }
            | AppendError::SequenceOfEnded { .. }
            | AppendError::InvalidProducerEpoch { .. }
            | AppendError::InvalidTxnState { .. }
            | AppendError::CoordinatorFenced { .. }
            | AppendError::LeaderEpochFenced { .. }
            | AppendError::Storage(_)
            | AppendError::Corrupt(_)
            | AppendError::Latched(_)
            | AppendError::Closed(_) => false,
        }
    }
}

/// Why a change that is not an append (roll, truncate, delete records, retention, close) failed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The offset lies outside of what the operation may touch.
    #[error("offset {offset} is outside of {low}..={high}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: i64,
        /// Lowest allowed.
        low: i64,
        /// Highest allowed.
        high: i64,
    },
    /// The file is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The disk failed or is full.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
    /// The log failed earlier and takes nothing until it is reopened.
    #[error("log is closed to writes since an earlier failure: {0}")]
    Latched(StorageFailure),
    /// What is to be cut is being replaced by the cleaner. Try again.
    #[error("a cleaned segment is taking its place: try again")]
    Swapping,
    /// The journal takes nothing more.
    #[error(transparent)]
    Closed(#[from] SinkClosed),
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Below the log start or above the log end (Kafka: `OFFSET_OUT_OF_RANGE`).
    #[error("offset {offset} is outside of {log_start}..={log_end}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: i64,
        /// First offset that is kept.
        log_start: i64,
        /// Offset that the next record gets.
        log_end: i64,
    },
    /// The file is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}

/// Why bytes of a segment could not be used, before it is known what for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    #[error(transparent)]
    Storage(#[from] StorageFailure),
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> ReadError {
        match fault {
            Fault::Corrupt(corruption) => ReadError::Corrupt(corruption),
            Fault::Storage(failure) => ReadError::Storage(failure),
        }
    }
}

impl From<Fault> for ChangeError {
    fn from(fault: Fault) -> ChangeError {
        match fault {
            Fault::Corrupt(corruption) => ChangeError::Corrupt(corruption),
            Fault::Storage(failure) => ChangeError::Storage(failure),
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> OpenError {
        match fault {
            Fault::Corrupt(corruption) => OpenError::Corrupt(corruption),
            Fault::Storage(failure) => OpenError::Storage(failure),
        }
    }
}
