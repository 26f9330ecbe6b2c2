//! Reading a segment batch by batch with its checksums, for recovery.

use std::path::Path;

use pelton_wire::record::{BatchView, HEADER_BYTES};

use crate::error::{Corruption, Fault, IoContext};
use crate::segment::{Found, HeaderReader};
use crate::storage::{File, read_exact_at};

/// Bytes read at once: large enough that the disk, not the calls, sets the speed.
const WINDOW_BYTES: usize = 512 << 10;
/// A batch larger than this is checked in pieces instead of being held in memory as a whole.
const MAX_HELD_BYTES: usize = 8 << 20;
/// Where the part of a batch starts that its checksum covers.
const CRC_COVERS_FROM: u64 = 21;

/// Reads every batch of a range of a file and checks it.
pub(crate) struct Scanner<'a> {
    file: &'a dyn File,
    path: &'a Path,
    position: u64,
    end: u64,
    /// Offset that the next batch must have at least.
    next_offset: i64,
    window: Vec<u8>,
    window_start: u64,
}

/// A batch whose checksum is right.
pub(crate) struct Scanned<'s> {
    pub(crate) found: Found,
    /// The whole batch, unless it is very large.
    pub(crate) view: Option<BatchView<'s>>,
}

impl<'a> Scanner<'a> {
    /// Scans from `position` to `end`; the first batch has `next_offset` or a later one.
    pub(crate) fn new(
        file: &'a dyn File,
        path: &'a Path,
        position: u64,
        end: u64,
        next_offset: i64,
    ) -> Scanner<'a> {
        Scanner { file, path, position, end, next_offset, window: Vec::new(), window_start: 0 }
    }

    /// Position after the last batch that was given out.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last batch that was given out.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The next batch; `None` at the end; `Fault::Corrupt` where no good batch is.
    pub(crate) fn next(&mut self) -> Result<Option<Scanned<'_>>, Fault> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let found = match self.window_at(position, HEADER_BYTES)? {
            Some(_) => HeaderReader::check(self.window_from(position), position, self.end, self.path)?,
            None => HeaderReader::new(self.file, self.path, self.end).at(position)?,
        };
        if found.header.base_offset < self.next_offset {
            let what =
                format!("offset {} where {} or more is due", found.header.base_offset, self.next_offset);
            return Err(Corruption::new(self.path, position, what).into());
        }
        let len = found.header.total_len();
        let held = len <= MAX_HELD_BYTES;
        if held {
            self.window_at(position, len)?;
        } else {
            self.check_in_pieces(&found)?;
        }
        self.position = found.end();
        self.next_offset = found.header.next_offset();
        let view = if held { Some(self.view(position, len)?) } else { None };
        Ok(Some(Scanned { found, view }))
    }

    fn view(&self, position: u64, len: usize) -> Result<BatchView<'_>, Fault> {
        let bytes = self.window_from(position).get(..len).unwrap_or_default();
        BatchView::check(bytes).map_err(|e| Corruption::new(self.path, position, e.to_string()).into())
    }

    fn window_from(&self, position: u64) -> &[u8] {
        let start = position.checked_sub(self.window_start).unwrap_or(u64::MAX);
        usize::try_from(start).ok().and_then(|start| self.window.get(start..)).unwrap_or_default()
    }

    /// Makes the window hold `len` bytes from `position`. `None` if the range ends before.
    fn window_at(&mut self, position: u64, len: usize) -> Result<Option<()>, Fault> {
        if self.end - position < len as u64 {
            return Ok(None);
        }
        if self.window_from(position).len() < len {
            let size = (self.end - position).min(len.max(WINDOW_BYTES) as u64) as usize;
            self.window.resize(size, 0);
            self.window_start = position;
            read_exact_at(self.file, &mut self.window, position).at("read", self.path)?;
        }
        Ok(Some(()))
    }

    fn check_in_pieces(&mut self, found: &Found) -> Result<(), Fault> {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        let mut piece = vec![0; WINDOW_BYTES];
        let mut position = found.position + CRC_COVERS_FROM;
        while position < found.end() {
            let len = (found.end() - position).min(WINDOW_BYTES as u64) as usize;
            read_exact_at(self.file, &mut piece[..len], position).at("read", self.path)?;
            digest.update(&piece[..len]);
            position += len as u64;
        }
        let (stored, computed) = (found.header.crc, digest.finalize() as u32);
        if stored != computed {
            let what = format!("checksum `{stored:08x}` in the batch, `{computed:08x}` computed");
            return Err(Corruption::new(self.path, found.position, what).into());
        }
        Ok(())
    }
}
