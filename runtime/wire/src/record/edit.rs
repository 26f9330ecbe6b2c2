//! Changes that a broker makes inside a batch that it was sent.

use super::crc::crc32c;
use super::header::{
    BatchError, BatchHeader, CRC_COVERS_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES, TimestampType,
};
use super::view::BatchView;

/// One whole batch that may be changed in place. Header and length are checked, the checksum is not.
#[derive(Debug)]
pub struct BatchMut<'a> {
    header: BatchHeader,
    bytes: &'a mut [u8],
}

impl<'a> BatchMut<'a> {
    /// Borrows `bytes`, which must be exactly one batch.
    pub fn new(bytes: &'a mut [u8]) -> Result<BatchMut<'a>, BatchError> {
        let header = *BatchView::new_unchecked_crc(bytes)?.header();
        Ok(BatchMut { header, bytes })
    }

    /// The same for bytes that have this header.
    pub(super) fn of_checked(header: BatchHeader, bytes: &'a mut [u8]) -> BatchMut<'a> {
        BatchMut { header, bytes }
    }

    /// The header as it now is.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Sets the offset of the first record and the epoch of the leader that appends the batch. Both lie outside the
    /// checksum.
    pub fn set_place(&mut self, base_offset: i64, partition_leader_epoch: i32) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = partition_leader_epoch;
        let header = self.header.encode();
        self.bytes[..CRC_COVERS_FROM].copy_from_slice(&header[..CRC_COVERS_FROM]);
    }

    /// Gives all records the timestamp `append_time` (ms), as `message.timestamp.type=LogAppendTime` asks, and
    /// computes the checksum anew.
    pub fn set_log_append_time(&mut self, append_time: i64) {
        self.header.set_timestamp_type(TimestampType::LogAppendTime);
        self.header.max_timestamp = append_time;
        self.seal();
    }

    /// Corrects the largest timestamp (ms) of a batch whose timestamps its producer set, and computes the checksum
    /// anew.
    pub fn set_max_timestamp(&mut self, max_timestamp: i64) {
        self.header.max_timestamp = max_timestamp;
        self.seal();
    }

    fn write_header(&mut self) {
        self.bytes[..HEADER_BYTES].copy_from_slice(&self.header.encode());
    }

    fn seal(&mut self) {
        self.write_header();
        self.header.crc = seal(self.bytes);
    }
}

/// Computes the checksum of the batch in `bytes`, writes it into the header and returns it.
pub(super) fn seal(bytes: &mut [u8]) -> u32 {
    const CRC_AT: usize = LENGTH_PREFIX_BYTES + 5;
    let crc = crc32c(&bytes[CRC_COVERS_FROM..]);
    bytes[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    crc
}
