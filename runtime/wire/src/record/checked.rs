//! A batch whose header and checksum have been checked, as a type.

use bytes::{Bytes, BytesMut};

use super::crc::{combine, crc32c};
use super::edit::BatchMut;
use super::header::{BatchError, BatchHeader, CRC_COVERS_FROM};
use super::view::BatchView;

/// One whole batch: its length, header and checksum have been checked, or it was built here. The header is parsed once
/// and goes with the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl CheckedBatch {
    /// Checks that `bytes` are exactly one batch, checksum included.
    pub fn check(bytes: Bytes) -> Result<CheckedBatch, BatchError> {
        let header = *BatchView::check(&bytes)?.header();
        Ok(CheckedBatch { header, bytes })
    }

    /// A batch that was just sealed.
    pub(super) fn sealed(header: BatchHeader, bytes: Bytes) -> CheckedBatch {
        CheckedBatch { header, bytes }
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Bytes of the whole batch.
    #[expect(clippy::len_without_is_empty, reason = "a batch has a header, so it is never empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The batch, to read its records.
    pub fn view(&self) -> BatchView<'_> {
        BatchView::of_checked(self.header, &self.bytes)
    }

    /// A copy in memory of its own, which does not keep the request's frame alive.
    #[must_use]
    pub fn detached(&self) -> CheckedBatch {
        CheckedBatch { header: self.header, bytes: Bytes::copy_from_slice(&self.bytes) }
    }

    /// The batch with the timestamp `append_time` (ms) for all its records, as `message.timestamp.type=LogAppendTime`
    /// asks.
    #[must_use]
    pub fn with_log_append_time(self, append_time: i64) -> CheckedBatch {
        self.edited(|batch| batch.set_log_append_time(append_time))
    }

    /// The batch with its largest timestamp (ms) corrected, where its producer got it wrong.
    #[must_use]
    pub fn with_max_timestamp(self, max_timestamp: i64) -> CheckedBatch {
        self.edited(|batch| batch.set_max_timestamp(max_timestamp))
    }

    fn edited(self, edit: impl FnOnce(&mut BatchMut<'_>)) -> CheckedBatch {
        let mut bytes = self.bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
        let mut batch = BatchMut::of_checked(self.header, &mut bytes);
        edit(&mut batch);
        let header = *batch.header();
        CheckedBatch { header, bytes: bytes.freeze() }
    }

    /// The batch with this base offset and leader epoch, set in place, or in a copy if the bytes are shared.
    #[must_use]
    pub fn placed(self, base_offset: i64, partition_leader_epoch: i32) -> CheckedBatch {
        self.edited(|batch| batch.set_place(base_offset, partition_leader_epoch))
    }

    /// The CRC-32C of all bytes of the batch. It is computed from the batch's own checksum, which covers nearly all of
    /// them, and not from the bytes: so bytes that were damaged after the check do not match it.
    pub fn crc32c(&self) -> u32 {
        let uncovered = crc32c(&self.bytes[..CRC_COVERS_FROM]);
        combine(uncovered, self.header.crc, self.len() - CRC_COVERS_FROM)
    }
}

impl From<CheckedBatch> for Bytes {
    fn from(batch: CheckedBatch) -> Bytes {
        batch.bytes
    }
}
