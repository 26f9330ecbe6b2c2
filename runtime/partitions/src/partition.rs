//! The owner of one partition's log: the only caller of what changes it.
//!
//! The log sits behind a lock that only the methods here take, and never across an await. An append runs in the task of
//! the connection that brought it: a write to the page cache and a hand-over to the journal, a few microseconds. A task
//! of its own per partition would cost two hops between threads for each request and buy nothing, because the lock
//! already gives what an owner must: one change at a time, in an order that all readers see.
//!
//! Readers take no lock: they go by `LogReader` and the offsets.

pub mod acks;
pub mod clean;
pub mod delayed;
pub(crate) mod member;
mod open;
mod search;
mod watermark;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::producer_state::ProducerState;
use pelton_commitlog::{
    AppendError, AppendMeta, AppendOrigin, AppendPermit, Appended, ChangeError, Log, LogDir, LogReader,
    PartitionId, PermitWait, ReadError, Slice,
};
use pelton_wire::record::{
    BatchBuilder, BatchOptions, BuildError, CheckedBatch, EndTransactionMarker, end_transaction_batch,
};

use self::acks::{Acks, NotDurable};
use self::clean::CleaningSlot;
use self::delayed::{DelayedRequests, Watch};
pub use self::member::Intake;
use self::member::Member;
pub use self::open::PartitionCreateError;
pub use self::open::{OpenPartitions, ProducerLimits, log_config};
pub use self::search::{ReplayError, Replayed};
use self::watermark::{Relay, Watermark};
use crate::producer_id::ProducerIdentity;
use crate::topic_config::{Durability, TopicConfig};

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All that are durable.
    ReadUncommitted,
    /// Those before the first transaction that is still open; aborted ones are listed for the reader to leave out.
    ReadCommitted,
}

impl Isolation {
    /// Kafka's number for it.
    pub fn from_wire(level: i8) -> Option<Isolation> {
        match level {
            0 => Some(Isolation::ReadUncommitted),
            1 => Some(Isolation::ReadCommitted),
            _ => None,
        }
    }
}

/// The offsets of a partition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// First offset that may be read.
    pub log_start: i64,
    /// Up to here (exclusive) a read-committed reader may read.
    pub last_stable: i64,
    /// Up to here (exclusive) a read-uncommitted reader may read.
    pub high_watermark: i64,
    /// The offset that the next record gets.
    pub log_end: i64,
}

/// Why nothing was appended. After `Offline` only a restart tells whether it was.
#[derive(Debug, thiserror::Error)]
pub enum PartitionAppendError {
    /// The topic has been deleted.
    #[error("the partition has been deleted")]
    Gone,
    /// The partition's log cannot be trusted any more.
    #[error("the partition is offline since an earlier failure")]
    Offline,
    /// The rest of the disk is reserved for the broker's own records. Definite: nothing was written.
    #[error("the disk has less room than `pelton.disk.free.min`")]
    DiskLow,
    /// The log refused it.
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionReadError {
    /// The topic has been deleted.
    #[error("the partition has been deleted")]
    Gone,
    /// The log refused it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why the broker's own records were not appended. Nothing was written, unless the storage has failed.
#[derive(Debug, thiserror::Error)]
pub enum InternalAppendError {
    /// The records make no batch.
    #[error("the records make no batch: {0}")]
    Build(#[from] BuildError),
    /// The partition did not take them.
    #[error(transparent)]
    Append(#[from] PartitionAppendError),
}

/// A record of the broker's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalRecord {
    pub key: Option<Bytes>,
    /// The value; null deletes the key on a compacted topic.
    pub value: Option<Bytes>,
}

/// The end of a producer's transaction, as a partition records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxnMarker {
    pub producer: ProducerIdentity,
    pub commit: bool,
    /// Of the coordinator that sends it: one from an older coordinator is refused. `None` for the broker's own.
    pub coordinator_epoch: Option<i32>,
}

/// Records of the broker's own that have their place in the log and are not durable yet.
#[derive(Debug)]
pub struct InternalAppend {
    base_offset: i64,
    acks: Arc<Acks>,
}

impl InternalAppend {
    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Waits until they are durable; the offset of the first record.
    ///
    /// # Errors
    /// The storage failed. Whether they are in the log is known after a restart.
    pub async fn durable(self) -> Result<i64, NotDurable> {
        self.acks.wait().await.map(|()| self.base_offset)
    }
}

/// The records of a fetch, with the partition's offsets.
pub struct Fetched {
    pub slices: Vec<Slice>,
    pub bytes: u64,
    pub offsets: Offsets,
    /// Aborted transactions among these records: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
}

/// A partition. Shared by all that use it.
pub struct Partition {
    id: PartitionId,
    /// `None` once it is closed or deleted.
    log: Mutex<Option<Log>>,
    /// Held while files are removed, which needs no `log`. Taken before it.
    removing: Mutex<()>,
    reader: LogReader,
    delayed: Arc<DelayedRequests>,
    log_dir: Arc<LogDir>,
    gone: AtomicBool,
    offline: AtomicBool,
    cleaning: CleaningSlot,
    /// Set if its topic is the intake of another one.
    member: OnceLock<Member>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partition({})", self.id)
    }
}

/// On one broker there is one leader, whose epoch never changes: Kafka's first.
const LEADER_EPOCH: i32 = 0;

impl Partition {
    fn new(log: Log, delayed: Arc<DelayedRequests>, log_dir: Arc<LogDir>) -> Arc<Partition> {
        let (id, reader) = (log.id().clone(), log.reader());
        let log = Mutex::new(Some(log));
        let (gone, offline) = (AtomicBool::new(false), AtomicBool::new(false));
        let (removing, cleaning, member) = (Mutex::default(), CleaningSlot::default(), OnceLock::new());
        let partition =
            Partition { id, log, removing, reader, delayed, log_dir, gone, offline, cleaning, member };
        let partition = Arc::new(partition);
        partition.delayed.belongs_to(&partition);
        partition
    }

    /// Which partition this is.
    pub fn id(&self) -> &PartitionId {
        &self.id
    }

    /// Its number in its topic.
    pub fn index(&self) -> i32 {
        self.id.partition
    }

    /// The epoch of its leader, which is this broker.
    pub fn leader_epoch(&self) -> i32 {
        LEADER_EPOCH
    }

    pub fn offsets(&self) -> Offsets {
        let log = self.reader.offsets();
        let high_watermark = self.delayed.high_watermark();
        let unbounded = Mutant::StableIsWatermark.is_on();
        let last_stable = self.reader.last_stable_at(high_watermark);
        Offsets {
            log_start: log.log_start,
            last_stable: if unbounded { high_watermark } else { last_stable },
            high_watermark,
            log_end: log.log_end.max(high_watermark),
        }
    }

    /// First offset that may be read.
    pub fn log_start_offset(&self) -> i64 {
        self.reader.offsets().log_start
    }

    /// Up to here (exclusive) consumers may read.
    pub fn high_watermark(&self) -> i64 {
        self.delayed.high_watermark()
    }

    /// Up to here (exclusive) everything is on this broker's disk. In a topic that is not synced for its producers the
    /// high watermark may be above it.
    pub fn flushed_offset(&self) -> i64 {
        self.delayed.watermark().flushed()
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.reader.offsets().log_end
    }

    /// Up to here (exclusive) a reader of this isolation may read.
    pub fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_watermark(),
            Isolation::ReadCommitted => self.offsets().last_stable,
        }
    }

    /// A reader of the log below the broker's limits: it reads records that may not be durable yet.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// Wakes `fetch` when there are new records, when the log start moves, and when the partition is deleted.
    pub fn watch(&self, fetch: &Arc<Watch>) {
        self.delayed.watch(fetch);
    }

    /// Appends a checked batch of a client, for which there is room in the journal. `acks` counts it off once it is
    /// durable; a duplicate once its original is.
    pub fn append_client(
        &self,
        batch: CheckedBatch,
        _room: &AppendPermit,
        now_ms: i64,
        durability: Durability,
        acks: Option<&Arc<Acks>>,
    ) -> Result<Appended, PartitionAppendError> {
        if self.log_dir.space().is_low() {
            return Err(PartitionAppendError::DiskLow);
        }
        self.append(batch, AppendOrigin::Client, now_ms, durability, acks)
    }

    /// Room in the journal for appends of about `bytes` bytes, on this partition or another.
    pub fn room(&self, bytes: u64) -> PermitWait {
        self.log_dir.permit(bytes)
    }

    /// Appends records of the broker's own. They have their place in the log when this returns.
    ///
    /// # Errors
    /// Nothing was written, unless the storage has failed.
    pub fn append_records(
        &self,
        records: &[InternalRecord],
        now_ms: i64,
    ) -> Result<InternalAppend, InternalAppendError> {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in records {
            batch.append(now_ms, record.key.as_deref(), record.value.as_deref(), &[])?;
        }
        self.append_internal(batch.build()?, now_ms)
    }

    /// Appends records of the broker's own that are part of a client's transaction.
    ///
    /// # Errors
    /// As [`Partition::append_records`].
    pub fn append_transactional(
        &self,
        producer: ProducerIdentity,
        records: &[InternalRecord],
        now_ms: i64,
    ) -> Result<InternalAppend, InternalAppendError> {
        let (producer_id, producer_epoch) = (producer.id, producer.epoch);
        let options =
            BatchOptions { producer_id, producer_epoch, transactional: true, ..BatchOptions::default() };
        let mut batch = BatchBuilder::new(options);
        for record in records {
            batch.append(now_ms, record.key.as_deref(), record.value.as_deref(), &[])?;
        }
        self.append_internal(batch.build()?, now_ms)
    }

    /// Appends the marker that ends a producer's transaction.
    ///
    /// # Errors
    /// As [`Partition::append_records`].
    pub fn append_marker(
        &self,
        marker: TxnMarker,
        now_ms: i64,
    ) -> Result<InternalAppend, InternalAppendError> {
        let TxnMarker { producer, commit: committed, coordinator_epoch } = marker;
        let coordinator_epoch = match coordinator_epoch {
            Some(epoch) => epoch,
            // There is one coordinator, so none has replaced it, whatever an administrator's marker has claimed.
            None => {
                let log = self.lock()?;
                log.producers()
                    .get(producer.id)
                    .map_or(LEADER_EPOCH, |p| p.coordinator_epoch.max(LEADER_EPOCH))
            }
        };
        let marker = EndTransactionMarker { committed, coordinator_epoch };
        self.append_internal(end_transaction_batch(&marker, producer.id, producer.epoch, now_ms)?, now_ms)
    }

    /// Appends a batch of the broker's own. It is always synced, whatever the topic's durability.
    ///
    /// # Errors
    /// Nothing was written, unless the storage has failed.
    pub fn append_internal(
        &self,
        batch: CheckedBatch,
        now_ms: i64,
    ) -> Result<InternalAppend, InternalAppendError> {
        let acks = Acks::new();
        let durability = if Mutant::MarkersUnsynced.is_on() { Durability::Os } else { Durability::Group };
        let appended = self.append(batch, AppendOrigin::Coordinator, now_ms, durability, Some(&acks))?;
        Ok(InternalAppend { base_offset: appended.base_offset, acks })
    }

    fn append(
        &self,
        batch: CheckedBatch,
        origin: AppendOrigin,
        now_ms: i64,
        durability: Durability,
        acks: Option<&Arc<Acks>>,
    ) -> Result<Appended, PartitionAppendError> {
        let mut log = self.lock()?;
        let meta = AppendMeta { leader_epoch: LEADER_EPOCH, origin, now_ms };
        let (before, bytes) = (log.offsets().log_end, batch.len() as u64);
        let appended = log.append(batch, meta);
        if let Some(member) = self.member.get() {
            self.note_in_intake(member, &log, (before, bytes, origin), appended.as_ref().ok());
        }
        let appended = appended.map_err(|error| self.note(error))?;
        let end = appended.last_offset + 1;
        // Under the lock, so that acknowledgements are queued in the order of their offsets.
        let answered_early = appended.duplicate && Mutant::DuplicateBeforeOriginal.is_on();
        if let Some(acks) = acks.filter(|_| !answered_early) {
            self.delayed.delay_produce(end, acks);
        }
        if durability != Durability::Group || Mutant::WatermarkBeforeSync.is_on() {
            self.delayed.acknowledge(end);
        }
        Ok(appended)
    }

    /// Takes the log, unless it is gone or cannot be trusted. A panic while it is held takes the partition offline: a
    /// change that was made half is worse than none.
    fn lock(&self) -> Result<LockedLog<'_>, PartitionAppendError> {
        let log = self.log.lock();
        if self.offline.load(Ordering::Relaxed) {
            return Err(PartitionAppendError::Offline);
        }
        if log.is_none() || self.gone.load(Ordering::Relaxed) {
            return Err(PartitionAppendError::Gone);
        }
        Ok(LockedLog { log: Some(log), partition: self })
    }

    /// Looks at an error of the log: some mean that the whole storage is lost.
    fn note(&self, error: AppendError) -> AppendError {
        if let AppendError::Storage(failure) | AppendError::Latched(failure) = &error {
            self.delayed.storage_failed(failure);
        }
        error
    }

    /// Tells the log the high watermark and wakes fetches. A thread that holds the log does it when it lets the log go.
    pub fn publish(&self) {
        watermark::publish(self);
    }

    /// Gives the partition its topic's settings.
    pub fn configure(&self, config: &TopicConfig) {
        if let Ok(mut log) = self.lock() {
            let producers = ProducerLimits::of(log.config());
            log.set_config(log_config(config, producers));
        }
    }

    /// Moves the start of the log up to `before` and waits until that is durable; the start afterwards. Blocking.
    ///
    /// # Errors
    /// The offset lies above the high watermark, or the storage failed.
    pub fn delete_records(&self, before: i64) -> Result<i64, ChangeError> {
        let start = {
            let Ok(mut log) = self.lock() else { return Ok(self.log_start_offset()) };
            log.set_high_watermark(self.delayed.high_watermark());
            log.delete_records_before(before)?
        };
        // Fetches learn the new log start.
        self.delayed.wake();
        self.log_dir.flush()?;
        self.remove_files();
        Ok(start)
    }

    /// Lets go everything before an offset, files too. Blocking.
    ///
    /// # Errors
    /// As [`Partition::delete_records`].
    pub fn delete_before(&self, before: i64, now_ms: i64) -> Result<(), ChangeError> {
        self.delete_records(before)?;
        self.apply_retention(now_ms);
        Ok(())
    }

    /// Removes segments that are older or more than the topic keeps. Blocking.
    pub fn apply_retention(&self, now_ms: i64) {
        // What may have to be read is read before the log is held, which producers wait for.
        if let Err(error) = self.reader.learn_timestamps() {
            tracing::warn!(partition = %self.id, %error, "retention cannot read the timestamps of its segments; none is removed");
            return;
        }
        let applied = {
            let Ok(mut log) = self.lock() else { return };
            log.set_high_watermark(self.delayed.high_watermark());
            log.apply_retention(now_ms)
        };
        match applied {
            Ok(deleted) if deleted.is_empty() => {}
            Ok(deleted) => {
                tracing::info!(partition = %self.id, segments = deleted.len(), "retention removed segments");
                self.delayed.wake();
            }
            Err(error) => tracing::warn!(partition = %self.id, %error, "retention could not remove segments"),
        }
        self.remove_files();
    }

    /// Periodic work on the log: forgets expired producer ids, removes files. Blocking.
    pub fn housekeep(&self, now_ms: i64) {
        if let Ok(mut log) = self.lock() {
            log.housekeep(now_ms);
        }
        self.remove_files();
    }

    /// Removes the files of segments that have left the log for good. Appends go on meanwhile: only what goes is
    /// decided under the lock. Blocking.
    fn remove_files(&self) {
        let _removing = self.removing.lock();
        let removal = self.lock().ok().and_then(|mut log| log.removable());
        let Some(removal) = removal else { return };
        let removed = removal.run();
        if let Ok(mut log) = self.lock() {
            log.settle(removed);
        }
    }

    /// The producer state of the log; `None` once the partition is deleted.
    pub fn producers(&self) -> Option<Vec<(i64, ProducerState)>> {
        let log = self.lock().ok()?;
        let all = log.producers().all();
        Some(all.into_iter().map(|(id, known)| (id, known.clone())).collect())
    }

    /// Closes the log in order. Blocking.
    pub fn close(&self) {
        let _removing = self.removing.lock();
        if let Some(mut log) = self.log.lock().take() {
            log.set_high_watermark(self.delayed.high_watermark());
            if let Err(error) = log.close() {
                tracing::warn!(partition = %self.id, %error,
                    "the log was not closed cleanly; the next start recovers it");
            }
        }
    }

    /// Closes the log for good, since its topic is deleted, and wakes the fetches that wait for it. Blocking.
    fn retire(&self) {
        self.gone.store(true, Ordering::Release);
        // A removal that came to its end later would find the files of the next topic of this name.
        let _removing = self.removing.lock();
        drop(self.log.lock().take());
        self.delayed.wake();
    }
}

impl Relay for Partition {
    type Offset = AtomicI64;

    fn watermark(&self) -> &Watermark {
        self.delayed.watermark()
    }

    fn try_tell(&self) -> bool {
        let Some(mut log) = self.log.try_lock() else { return false };
        let high_watermark = self.delayed.watermark().take();
        if let Some(log) = log.as_mut() {
            log.set_high_watermark(high_watermark);
        }
        true
    }

    fn told(&self) {
        self.delayed.wake();
    }
}

struct LockedLog<'a> {
    /// Holds a log, until the drop.
    log: Option<MutexGuard<'a, Option<Log>>>,
    partition: &'a Partition,
}

const LOCKED: &str = "`Partition::lock` checked that there is a log, and only its holder could take it away";

impl std::ops::Deref for LockedLog<'_> {
    type Target = Log;
    fn deref(&self) -> &Log {
        self.log.as_deref().and_then(Option::as_ref).expect(LOCKED)
    }
}

impl std::ops::DerefMut for LockedLog<'_> {
    fn deref_mut(&mut self) -> &mut Log {
        self.log.as_deref_mut().and_then(Option::as_mut).expect(LOCKED)
    }
}

impl Drop for LockedLog<'_> {
    fn drop(&mut self) {
        let partition = self.partition;
        if std::thread::panicking() {
            partition.offline.store(true, Ordering::Relaxed);
            tracing::error!(partition = %partition.id, "a panic in its log took the partition offline until a restart");
        }
        drop(self.log.take());
        partition.publish();
    }
}
