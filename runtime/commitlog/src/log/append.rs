//! Appending one batch.

use bytes::Bytes;
use pelton_wire::record::{BatchHeader, CheckedBatch, EndTransactionMarker, hole_batch};

use super::Log;
use crate::error::{AppendError, Fault, IoContext, StorageFailure};
use crate::marker::parse_marker;
use crate::mutant::Mutant;
use crate::names::LEADER_EPOCH_CHECKPOINT;
use crate::producer_state::{AppendOrigin, Check};
use crate::sink::{Frame, FrameClass, FrameKind, FrameMeta, Payload, SyncLater};

/// Relative offsets and positions are 32-bit numbers, of which Kafka uses the positive half.
const MAX_RELATIVE: i64 = i32::MAX as i64;

/// What an append needs to know besides the batch.
#[derive(Clone, Copy, Debug)]
pub struct AppendMeta {
    /// The leader's epoch, written into the batch.
    pub leader_epoch: i32,
    /// Who appends.
    pub origin: AppendOrigin,
    /// The broker's clock, ms.
    pub now_ms: i64,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record. The append is durable once the listener was told of `last_offset + 1`.
    pub last_offset: i64,
    /// Largest timestamp of the batch, ms.
    pub max_timestamp: i64,
    /// The batch was there already: these are the offsets it got the first time. They may be acknowledged
    /// once *they* are durable.
    pub duplicate: bool,
}

/// What a batch is to the transaction state.
enum BatchKind {
    Data,
    Marker(EndTransactionMarker),
    /// A control batch of another type: takes offsets, changes nothing.
    OtherControl,
}

impl Log {
    /// Appends one record batch: assigns its base offset and leader epoch, in a copy of the bytes if somebody else holds them
    /// too. The broker has validated its records: inner offsets, timestamps, size.
    ///
    /// Idempotent producers are checked in Kafka's order (see [`crate::producer_state`]). When this returns,
    /// the batch is handed to the journal, and in the page cache if the log is written through; nobody may see it before it
    /// is durable.
    pub fn append(&mut self, batch: CheckedBatch, meta: AppendMeta) -> Result<Appended, AppendError> {
        if let Some(reason) = &self.latched {
            return Err(AppendError::Latched(reason.clone()));
        }
        let kind = batch_kind(&batch, meta.origin)?;
        let header = *batch.header();
        let appended = self.append_unlatched(batch, &kind, meta);
        match &appended {
            Err(AppendError::Storage(failure)) => self.latch(failure.clone()),
            Err(error) if error.is_passing() && meta.origin == AppendOrigin::Client => {
                self.producers.refuse(&header);
            }
            _ => {}
        }
        appended
    }

    fn append_unlatched(
        &mut self,
        batch: CheckedBatch,
        kind: &BatchKind,
        meta: AppendMeta,
    ) -> Result<Appended, AppendError> {
        let header = batch.header();
        if meta.origin == AppendOrigin::Coordinator && self.sink.is_behind() {
            return Err(AppendError::Behind);
        }
        if let Some(there) = self.check(header, kind, meta)? {
            return Ok(there);
        }
        self.cut_leftovers()?;
        if let Some(sequence) = self
            .sequence
            .as_ref()
            .filter(|_| meta.origin == AppendOrigin::Client && !Mutant::OffsetsApart.is_on())
        {
            // Whatever comes of this batch, no other one gets these offsets.
            let base_offset = sequence.take(self.offsets().log_end, i64::from(header.last_offset_delta) + 1);
            self.fill_up_to(base_offset, meta)?;
        }
        self.put(batch, kind, meta)
    }

    /// Takes the offsets below `base_offset` with batches that have no records.
    fn fill_up_to(&mut self, base_offset: i64, meta: AppendMeta) -> Result<(), AppendError> {
        loop {
            let hole = base_offset - self.offsets().log_end;
            if hole <= 0 {
                return Ok(());
            }
            let hole = hole_batch(i32::try_from(hole).unwrap_or(i32::MAX));
            let hole = hole.map_err(|error| AppendError::InvalidBatch(error.to_string()))?;
            self.put(hole, &BatchKind::Data, meta)?;
        }
    }

    /// Puts a batch that may be appended at the end of the log.
    fn put(
        &mut self,
        batch: CheckedBatch,
        kind: &BatchKind,
        meta: AppendMeta,
    ) -> Result<Appended, AppendError> {
        let header = batch.header();
        let base_offset = self.offsets().log_end;
        let last_offset = base_offset
            .checked_add(i64::from(header.last_offset_delta))
            .filter(|last| *last < i64::MAX)
            .ok_or_else(|| AppendError::InvalidBatch("no offsets are left".to_owned()))?;
        self.load_active()?;
        if self.must_roll(header, last_offset, meta.now_ms) {
            self.roll(meta.now_ms)?;
        }
        self.enter_epoch(meta.leader_epoch, base_offset)?;
        if matches!(kind, BatchKind::Marker(marker) if !marker.committed) {
            // What can fail comes before the marker, which cannot be taken back.
            self.active.segment.prepare_aborted(self.shared.io()).map_err(Fault::from)?;
        }

        let stored = batch.placed(base_offset, meta.leader_epoch);
        let max_timestamp = stored.header().max_timestamp;
        let position = self.place(stored.bytes())?;
        self.note(stored.header(), kind, position, meta.now_ms);
        self.shared.tail.push(base_offset, last_offset, stored.bytes().clone());
        self.submit(stored, meta.origin, position)?;
        Ok(Appended { base_offset, last_offset, max_timestamp, duplicate: false })
    }

    /// Whether the batch may be appended; a duplicate is answered with where it is.
    fn check(
        &self,
        header: &BatchHeader,
        kind: &BatchKind,
        meta: AppendMeta,
    ) -> Result<Option<Appended>, AppendError> {
        let (producer_id, producer_epoch) = (header.producer_id, header.producer_epoch);
        let current_epoch = self.shared.epochs.read().latest().unwrap_or(-1);
        if meta.leader_epoch < current_epoch {
            return Err(AppendError::LeaderEpochFenced { leader_epoch: meta.leader_epoch, current_epoch });
        }
        let check = match kind {
            BatchKind::Data => self.producers.check(header, meta.origin, self.config.producers_max),
            BatchKind::Marker(m) => {
                self.producers.check_marker(producer_id, producer_epoch, m.coordinator_epoch)
            }
            BatchKind::OtherControl => Check::New,
        };
        match check {
            Check::New => Ok(None),
            Check::Duplicate(batch) => Ok(Some(Appended {
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
                max_timestamp: batch.timestamp,
                duplicate: true,
            })),
            Check::OutOfOrderSequence { last_sequence } => Err(AppendError::OutOfOrderSequence {
                producer_id,
                producer_epoch,
                first_sequence: header.base_sequence,
                last_sequence,
            }),
            Check::SequenceOfEnded { last_sequence } => Err(AppendError::SequenceOfEnded {
                producer_id,
                producer_epoch,
                first_sequence: header.base_sequence,
                last_sequence,
            }),
            Check::InvalidProducerEpoch { current_epoch } => {
                Err(AppendError::InvalidProducerEpoch { producer_id, producer_epoch, current_epoch })
            }
            Check::InvalidTxnState => Err(AppendError::InvalidTxnState { producer_id }),
            Check::AfterRefused => Err(AppendError::AfterRefused { producer_id }),
            Check::TooManyProducers => Err(AppendError::TooManyProducers { max: self.config.producers_max }),
            Check::CoordinatorFenced { current_epoch } => {
                let coordinator_epoch = match kind {
                    BatchKind::Marker(marker) => marker.coordinator_epoch,
                    BatchKind::Data | BatchKind::OtherControl => -1,
                };
                Err(AppendError::CoordinatorFenced { producer_id, coordinator_epoch, current_epoch })
            }
        }
    }

    /// Kafka's rule: size, age by the first batch's timestamp (or by creation where it has none), a full
    /// index, or a relative offset that does not fit.
    fn must_roll(&self, header: &BatchHeader, last_offset: i64, now_ms: i64) -> bool {
        let active = &self.active;
        if active.position == 0 {
            return false;
        }
        let bytes = header.total_len() as u64;
        let limit = self.config.segment_bytes.min(MAX_RELATIVE as u64);
        let age_ms = match active.first_timestamp {
            Some(first) if header.max_timestamp >= 0 => header.max_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(active.created_ms),
        };
        active.position + bytes > limit
            || age_ms > self.config.segment_ms
            || active.segment.indexes_are_full(self.config.segment_index_bytes)
            || last_offset - active.segment.base_offset > MAX_RELATIVE
    }

    /// Notes the start of a leader epoch before its first append.
    fn enter_epoch(&mut self, epoch: i32, start_offset: i64) -> Result<(), AppendError> {
        if epoch < 0 || self.shared.epochs.read().latest() == Some(epoch) {
            return Ok(());
        }
        let before = self.shared.epochs.read().clone();
        self.shared.epochs.write().assign(epoch, start_offset);
        self.write_epochs().map_err(|failure| {
            // The next append tries again: an epoch that is in batches only may be found too late by
            // recovery.
            *self.shared.epochs.write() = before;
            Fault::from(failure).into()
        })
    }

    /// Replaces `leader-epoch-checkpoint`. Not synced: recovery finds epochs in the batches.
    pub(super) fn write_epochs(&self) -> Result<(), StorageFailure> {
        let path = self.shared.dir.join(LEADER_EPOCH_CHECKPOINT);
        let text = self.shared.epochs.read().to_text();
        drop(crate::metadata::replace_small(&*self.shared.storage, &path, text.as_bytes())?);
        self.sink.sync_later(SyncLater::Named(path));
        self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
        Ok(())
    }

    /// Puts the batch behind the last one. What a failed write leaves is cut away, so that the log can go
    /// on when there is room again; any other failure of a write is final.
    fn place(&mut self, stored: &Bytes) -> Result<u64, AppendError> {
        let position = self.active.position;
        let path = self.active.segment.path();
        if !self.config.write_through {
            if !Mutant::RoomNotTaken.is_on() {
                self.active
                    .file
                    .reserve(stored.len() as u64)
                    .at("take room for", path)
                    .map_err(Fault::from)?;
            }
            self.active.file.push(stored.clone());
            return Ok(position);
        }
        let Err(failure) = self.active.file.write_through(stored).at("write", path) else {
            return Ok(position);
        };
        self.active.must_cut = true;
        if !failure.is_passing() {
            return Err(AppendError::Storage(failure));
        }
        self.cut_leftovers()?;
        Err(Fault::from(failure).into())
    }

    fn cut_leftovers(&mut self) -> Result<(), AppendError> {
        if self.active.must_cut {
            let path = self.active.segment.path();
            self.active.file.cut_leftovers().at("cut", path).map_err(AppendError::Storage)?;
            self.active.must_cut = false;
            // No frame speaks of this: should the segment be finished now, a crash could bring the bytes back
            // for good.
            self.sink.sync_later(SyncLater::File(self.active.file.clone()));
        }
        Ok(())
    }

    /// Takes the batch at `position` into indexes, producer state and offsets.
    fn note(&mut self, header: &BatchHeader, kind: &BatchKind, position: u64, now_ms: i64) {
        let io = self.shared.io();
        let active = &mut self.active;
        let segment = &active.segment;
        active.position = position + header.total_len() as u64;
        if position == 0 {
            active.first_timestamp = (header.max_timestamp >= 0).then_some(header.max_timestamp);
        }
        let largest = segment.note_timestamp(header);
        let builder = active.indexes.as_mut().expect("loaded before every append");
        let new = builder.add(segment.base_offset, position, header, largest);
        segment.publish(active.position, now_ms);
        segment.add_entries(io, &new);
        match kind {
            BatchKind::Data => self.producers.record(header, now_ms),
            BatchKind::Marker(marker) => self.note_marker(header, marker, now_ms),
            BatchKind::OtherControl => {}
        }
        self.producers.keep_at_most(self.config.producers_max);
        self.bytes_since_snapshot += header.total_len() as u64;
        // The bound of read_committed readers first, then the offsets that it bounds.
        self.shared.offsets.set_first_unstable(self.producers.first_unstable_offset());
        self.shared.offsets.set_log_end(header.next_offset());
        self.snapshot_if_due();
    }

    fn note_marker(&mut self, header: &BatchHeader, marker: &EndTransactionMarker, now_ms: i64) {
        let (committed, coordinator_epoch) = (marker.committed, marker.coordinator_epoch);
        let Some(txn) = self.producers.record_marker(header, committed, coordinator_epoch, now_ms) else {
            return;
        };
        if !txn.aborted || Mutant::AbortedNotIndexed.is_on() {
            return;
        }
        let entry = self.producers.aborted_entry(&txn);
        match self.active.segment.add_aborted(self.shared.io(), entry) {
            Ok((file, is_new)) => {
                self.sink.sync_later(SyncLater::File(file));
                if is_new && !Mutant::AbortedNameUnsynced.is_on() {
                    self.sink.sync_later(SyncLater::Dir(self.shared.dir.clone()));
                }
            }
            // The marker is in the log already. A reader that missed the entry would show aborted records, so
            // the log stops here; recovery writes the entry from the marker.
            Err(failure) => self.latch(failure),
        }
    }

    fn submit(
        &mut self,
        batch: CheckedBatch,
        origin: AppendOrigin,
        position: u64,
    ) -> Result<(), AppendError> {
        let header = batch.header();
        let frame = Frame {
            meta: FrameMeta {
                kind: FrameKind::Data,
                topic_id: self.shared.id.topic_id,
                partition: self.shared.id.partition,
                base_offset: header.base_offset,
                last_offset: header.last_offset(),
                segment_base: self.active.segment.base_offset,
                position,
                leader_epoch: header.partition_leader_epoch,
            },
            class: match origin {
                AppendOrigin::Client => FrameClass::Client,
                AppendOrigin::Coordinator => FrameClass::Internal,
            },
            payload: Payload::Batch(batch),
            written_through: self.config.write_through,
            file: Some(self.active.file.clone()),
            listener: self.listener.clone(),
        };
        self.sink.submit(frame)?;
        Ok(())
    }
}

/// What kind of batch this is. Clients write data only.
fn batch_kind(batch: &CheckedBatch, origin: AppendOrigin) -> Result<BatchKind, AppendError> {
    if !batch.header().is_control() {
        return Ok(BatchKind::Data);
    }
    if origin == AppendOrigin::Client {
        return Err(AppendError::InvalidBatch("clients do not write control batches".to_owned()));
    }
    match parse_marker(&batch.view()).map_err(AppendError::InvalidBatch)? {
        Some(marker) => Ok(BatchKind::Marker(marker)),
        None => Ok(BatchKind::OtherControl),
    }
}
