//! Going from batch to batch through a file by headers alone.

use std::path::Path;

use pelton_wire::record::{BatchHeader, HEADER_BYTES};

use super::Found;
use crate::error::{Corruption, Fault, IoContext};
use crate::storage::File;

/// Bytes read at once: some headers of small batches, little waste between large ones.
const WINDOW_BYTES: usize = 4096;

/// Reads batch headers of one file.
pub(crate) struct HeaderReader<'a> {
    file: &'a dyn File,
    path: &'a Path,
    /// Nothing at or beyond is looked at.
    end: u64,
    window: [u8; WINDOW_BYTES],
    window_start: u64,
    window_len: usize,
}

impl<'a> HeaderReader<'a> {
    pub(crate) fn new(file: &'a dyn File, path: &'a Path, end: u64) -> HeaderReader<'a> {
        HeaderReader { file, path, end, window: [0; WINDOW_BYTES], window_start: 0, window_len: 0 }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The batch at `position`, which must lie inside the file as a whole.
    pub(crate) fn at(&mut self, position: u64) -> Result<Found, Fault> {
        let (end, path) = (self.end, self.path);
        HeaderReader::check(self.bytes_at(position)?, position, end, path)
    }

    /// The batch whose header `bytes` starts with, at `position` of a file that ends at `end`.
    pub(crate) fn check(bytes: &[u8], position: u64, end: u64, path: &Path) -> Result<Found, Fault> {
        let corrupt = |what: String| Corruption::new(path, position, what);
        let header = BatchHeader::parse(bytes).map_err(|e| corrupt(e.to_string()))?;
        let left = end.saturating_sub(position);
        if header.total_len() as u64 > left {
            return Err(
                corrupt(format!("the batch is {} bytes long, {left} are left", header.total_len())).into()
            );
        }
        Ok(Found { position, header })
    }

    /// The first batch at or after `position` that is `wanted`.
    pub(crate) fn first_from(
        &mut self,
        mut position: u64,
        wanted: impl Fn(&Found) -> bool,
    ) -> Result<Option<Found>, Fault> {
        while position < self.end {
            let found = self.at(position)?;
            if wanted(&found) {
                return Ok(Some(found));
            }
            position = found.end();
        }
        Ok(None)
    }

    /// Every batch at or after `position`.
    pub(crate) fn each_from(&mut self, position: u64, mut act: impl FnMut(&Found)) -> Result<(), Fault> {
        let mut next = position;
        while next < self.end {
            let found = self.at(next)?;
            act(&found);
            next = found.end();
        }
        Ok(())
    }

    /// The last batch from `first` on that ends at or before position `limit` and below offset `up_to`;
    /// `first` at least.
    pub(crate) fn last_before(&mut self, first: Found, limit: u64, up_to: i64) -> Result<Found, Fault> {
        let mut last = first;
        while last.end() < self.end.min(limit) {
            let next = self.at(last.end())?;
            if next.header.base_offset <= last.header.last_offset() {
                let what =
                    format!("offset {} follows {}", next.header.base_offset, last.header.last_offset());
                return Err(self.corrupt(next.position, what));
            }
            if next.end() > limit || next.header.last_offset() >= up_to {
                break;
            }
            last = next;
        }
        Ok(last)
    }

    fn bytes_at(&mut self, position: u64) -> Result<&[u8], Fault> {
        if position.saturating_add(HEADER_BYTES as u64) > self.end {
            let left = self.end.saturating_sub(position);
            return Err(
                self.corrupt(position, format!("{left} bytes are left, a batch header has {HEADER_BYTES}"))
            );
        }
        let inside = position >= self.window_start
            && position + HEADER_BYTES as u64 <= self.window_start + self.window_len as u64;
        if !inside {
            self.fill(position)?;
        }
        let start = (position - self.window_start) as usize;
        self.window[..self.window_len]
            .get(start..start + HEADER_BYTES)
            .ok_or_else(|| self.corrupt(position, "the file is shorter than the log"))
    }

    fn fill(&mut self, position: u64) -> Result<(), Fault> {
        let wanted = (self.end - position).min(WINDOW_BYTES as u64) as usize;
        self.window_start = position;
        self.window_len = 0;
        while self.window_len < wanted {
            let place = position + self.window_len as u64;
            match self.file.read_at(&mut self.window[self.window_len..wanted], place).at("read", self.path)? {
                0 => break,
                n => self.window_len += n,
            }
        }
        Ok(())
    }

    fn corrupt(&self, position: u64, what: impl Into<String>) -> Fault {
        Corruption::new(self.path, position, what).into()
    }
}
