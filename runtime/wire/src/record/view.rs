//! Whole batches, borrowed.

use super::compression::DecompressLimit;
use super::crc::crc32c;
use super::header::{BatchError, BatchHeader, CRC_COVERS_FROM, HEADER_BYTES};
use super::records::{RecordError, Records};

/// Exactly one batch, borrowed from a buffer. Header and length are checked; the checksum is if it came from
/// [`BatchView::check`].
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Borrows `bytes` as one batch after checking header, length and checksum. Anything after the batch is an
    /// error.
    pub fn check(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let view = BatchView::new_unchecked_crc(bytes)?;
        view.verify_crc()?;
        Ok(view)
    }

    /// As [`BatchView::check`] without computing the checksum, for bytes that were verified before.
    pub fn new_unchecked_crc(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let (total, have) = (header.total_len(), bytes.len());
        match total.cmp(&have) {
            std::cmp::Ordering::Equal => Ok(BatchView { header, bytes }),
            std::cmp::Ordering::Greater => Err(BatchError::Truncated { total, have }),
            std::cmp::Ordering::Less => Err(BatchError::Trailing { total, have }),
        }
    }

    /// A batch that was checked before, with its header.
    pub(super) fn of_checked(header: BatchHeader, bytes: &'a [u8]) -> BatchView<'a> {
        BatchView { header, bytes }
    }

    /// Computes the checksum and compares it with the one in the header.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c(&self.bytes[CRC_COVERS_FROM..]);
        match self.header.crc {
            stored if stored == computed => Ok(()),
            stored => Err(BatchError::Crc { stored, computed }),
        }
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header: the records, compressed as the header says.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The records, in order. A compressed batch is decompressed into `scratch` (which is cleared) within `limit`;
    /// an uncompressed one is borrowed and leaves `scratch` alone.
    pub fn records<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        limit: DecompressLimit,
    ) -> Result<Records<'s>, RecordError>
    where
        'a: 's,
    {
        Ok(Records::new(&self.header, self.decompressed(scratch, limit)?))
    }

    /// The records as one block of uncompressed bytes; see [`BatchView::records`].
    pub fn decompressed<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        limit: DecompressLimit,
    ) -> Result<&'s [u8], RecordError>
    where
        'a: 's,
    {
        if !self.is_compressed()? {
            return Ok(self.payload());
        }
        scratch.clear();
        self.decompress_onto(scratch, limit)?;
        Ok(scratch)
    }

    /// Appends the uncompressed records to `out`, which is as it was after an error.
    pub(super) fn decompress_onto(
        &self,
        out: &mut Vec<u8>,
        limit: DecompressLimit,
    ) -> Result<(), RecordError> {
        let payload = self.payload();
        if self.is_compressed()? {
            self.header.codec()?.decompress(payload, limit.max_bytes, out)?;
        } else {
            out.extend_from_slice(payload);
        }
        Ok(())
    }

    /// Whether there are bytes to decompress: a batch that compaction has emptied has none, whatever its codec.
    fn is_compressed(&self) -> Result<bool, RecordError> {
        Ok(self.header.codec()?.is_compressed() && !self.payload().is_empty())
    }
}

/// The whole batches of `bytes`, one after another: the content of a fetch response or of a part of a segment.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0, failed: false }
}

/// Iterator over the whole batches of a buffer; see [`batches`]. A batch cut off at the end of the buffer ends it
/// quietly, as a fetch may cut one; bytes that are no batch are an error, after which nothing more comes.
/// Checksums are not computed: [`BatchView::verify_crc`] does.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl Batches<'_> {
    /// Bytes of the batches that were given out: where the next one, the cut one, or the garbage starts.
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.position..];
        if self.failed || rest.len() < HEADER_BYTES {
            return None;
        }
        let header = match BatchHeader::parse(rest) {
            Ok(header) => header,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        let bytes = rest.get(..header.total_len())?;
        self.position += bytes.len();
        Some(Ok(BatchView { header, bytes }))
    }
}
