//! Reading a segment batch by batch with its checksums, for recovery.

use std::path::Path;

use pelton_wire::record::{BatchError, BatchView, HEADER_BYTES};

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
            self.view(position, len)?.verify_crc().map_err(|e| self.bad(position, &e))?;
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
        BatchView::new_unchecked_crc(bytes).map_err(|e| self.bad(position, &e))
    }

    fn bad(&self, position: u64, error: &BatchError) -> Fault {
        Corruption::new(self.path, position, error.to_string()).into()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{OpenMode, SimStorage, Storage};
    use crate::testkit::batch;

    /// Scans these bytes, and says the offsets found and where the first bad batch is, if one is.
    fn check(bytes: &[u8], expect: &[i64], bad_at: Option<u64>) {
        let disk = SimStorage::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let path = Path::new("/d/f");
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let mut scanner = Scanner::new(&*file, path, 0, bytes.len() as u64, 0);
        let mut found = Vec::new();
        let stopped = loop {
            match scanner.next() {
                Ok(Some(scanned)) => found.push(scanned.found.header.base_offset),
                Ok(None) => break None,
                Err(Fault::Corrupt(corruption)) => break Some(corruption.position),
                Err(Fault::Storage(failure)) => panic!("{failure}"),
            }
        };
        assert_eq!((&found[..], stopped), (expect, bad_at));
        assert_eq!(scanner.position(), bad_at.unwrap_or(bytes.len() as u64));
    }

    fn stored(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (offset, size) in sizes.iter().enumerate() {
            let mut one = batch(1, *size, 0).bytes().to_vec();
            one[..8].copy_from_slice(&(offset as i64).to_be_bytes());
            starts.push(bytes.len());
            bytes.extend(one);
        }
        (bytes, starts)
    }

    #[test]
    fn batches_of_all_sizes_are_found_and_bad_ones_too() {
        let (bytes, starts) = stored(&[10, 600_000, MAX_HELD_BYTES + 1000, 10, WINDOW_BYTES, 10]);
        check(&bytes, &[0, 1, 2, 3, 4, 5], None);
        for (number, start) in starts.iter().enumerate() {
            let before: Vec<i64> = (0..number as i64).collect();
            for at in [start + 17, start + 61] {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                check(&bad, &before, Some(*start as u64));
            }
        }
    }

    #[test]
    fn a_cut_batch_and_an_offset_that_falls_are_bad() {
        let (bytes, starts) = stored(&[10, 10, 10]);
        for cut in [1, 60, 61, bytes.len() - starts[2] - 1] {
            check(&bytes[..starts[2] + cut], &[0, 1], Some(starts[2] as u64));
        }
        let mut falling = bytes.clone();
        falling[starts[2] + 7] = 1;
        check(&falling, &[0, 1], Some(starts[2] as u64));
        check(&[], &[], None);
    }
}
