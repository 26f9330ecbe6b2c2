//! Reads the journal after a crash: every group from the checkpoint to the end, and whether that end can be
//! what a crash left behind or must be damage (FORMAT.md, "Start").

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::GROUP_MAX_BYTES;
use super::group::{BadFrame, FrameHeader, GROUP_HEADER_BYTES, GroupHeader, decode_frames};
use super::ring_file::RingFile;
use super::slot::{JournalPoint, Slot};
use crate::error::OpenDirError;
use crate::error::{Corruption, StorageFailure};
use crate::mutant::Mutant;
use crate::storage::{AlignedBuf, DIRECT_ALIGN};
use pelton_wire::record::crc32c;

/// Bytes of one read.
const WINDOW_BYTES: usize = 1 << 20;
/// A group that did not fit into this much went to another file.
const MOVED_ON_BYTES: u64 = 2 * GROUP_MAX_BYTES as u64;

/// A position in the journal from which the next group is read.
pub(crate) struct Scan<'a> {
    files: &'a [Arc<RingFile>],
    directory_id: Uuid,
    epoch: u64,
    next: JournalPoint,
    durable_lsn: u64,
    /// The group header at position 0 of each file.
    heads: Vec<Option<GroupHeader>>,
    window: Window,
}

/// The bytes that were read last.
struct Window {
    buf: AlignedBuf,
    file: u32,
    position: u64,
    len: usize,
}

/// The frames of one group.
pub(crate) type Frames = Vec<(FrameHeader, Bytes)>;

impl<'a> Scan<'a> {
    /// Starts at the checkpoint of `slot`.
    pub(crate) fn start(slot: &Slot, files: &'a [Arc<RingFile>]) -> Result<Scan<'a>, OpenDirError> {
        for (number, len) in &slot.ring_files {
            let found = files.iter().find(|file| file.number == *number).map(|file| file.len);
            if found != Some(*len) {
                let what = match found {
                    None => format!("the checkpoint names `journal-{number}`, which is missing"),
                    Some(found) => {
                        format!("the checkpoint names `journal-{number}` with {len} bytes, it has {found}")
                    }
                };
                let path = files.first().map_or_else(Default::default, |file| file.file.path().to_owned());
                return Err(Corruption::new(&path.with_file_name("checkpoint"), 0, what).into());
            }
        }
        let window = Window { buf: AlignedBuf::new(), file: 0, position: 0, len: 0 };
        let mut scan = Scan {
            files,
            directory_id: slot.directory_id,
            epoch: slot.epoch,
            next: slot.point,
            durable_lsn: slot.durable_lsn,
            heads: Vec::new(),
            window,
        };
        scan.heads = files.iter().map(|file| scan.header_at(file, 0)).collect::<Result<_, _>>()?;
        // The heads were read one block each: the groups behind them want larger reads.
        scan.window.len = 0;
        Ok(scan)
    }

    /// Where the next group would be: after the last call that gave `None`, the end of the journal.
    pub(crate) fn point(&self) -> JournalPoint {
        self.next
    }

    /// The frames of the next group, or `None` where the journal ends.
    pub(crate) fn next(&mut self) -> Result<Option<Frames>, OpenDirError> {
        let here = self.file(self.next.file).cloned();
        if let Some(file) = here
            && let Some(frames) = self.group_at(&file, self.next.position)?
        {
            return Ok(Some(frames));
        }
        let lsn = self.next.lsn;
        let moved_on =
            self.heads.iter().position(|head| head.is_some_and(|h| h.epoch == self.epoch && h.lsn == lsn));
        match moved_on.map(|index| self.files[index].clone()) {
            Some(file) => self.group_at(&file, 0),
            None => Ok(None),
        }
    }

    /// Refuses if the end of the journal cannot be what a crash left behind. Call after `next` gave `None`.
    pub(crate) fn check_end(&mut self) -> Result<(), OpenDirError> {
        let end = self.next;
        let at_end = self.file(end.file).cloned();
        let path = at_end
            .as_ref()
            .or(self.files.first())
            .map_or_else(Default::default, |f| f.file.path().to_owned());
        if end.lsn < self.durable_lsn {
            let what = format!(
                "the journal ends at lsn {}, but everything below {} was durable at the last checkpoint",
                end.lsn, self.durable_lsn
            );
            return Err(Corruption::new(&path, end.position, what).into());
        }
        let mut later = self.heads.iter().flatten().find(|head| self.is_later(head)).copied();
        let left = at_end.as_ref().map_or(0, |file| file.len.saturating_sub(end.position));
        if let (None, Some(file)) = (later, &at_end) {
            later = self.find_later(file, end.position)?;
        }
        if later.is_none() && left < MOVED_ON_BYTES {
            for file in self.files {
                if later.is_none() && file.number != end.file {
                    later = self.find_later(file, 0)?;
                }
            }
        }
        match later {
            None => Ok(()),
            Some(group) => {
                let what = format!(
                    "the group at lsn {} is damaged, although the one at lsn {} was written after it was durable",
                    end.lsn, group.lsn
                );
                Err(Corruption::new(&path, end.position, what).into())
            }
        }
    }

    fn file(&self, number: u32) -> Option<&Arc<RingFile>> {
        self.files.iter().find(|file| file.number == number)
    }

    /// A group of this epoch that was submitted when everything up to the end of the scan, and more, was durable.
    fn is_later(&self, header: &GroupHeader) -> bool {
        header.directory_id == self.directory_id && header.epoch == self.epoch && header.lsn > self.next.lsn
    }

    fn find_later(&mut self, file: &RingFile, from: u64) -> Result<Option<GroupHeader>, StorageFailure> {
        let mut at = from;
        while at + (DIRECT_ALIGN as u64) <= file.len {
            if let Some(header) = self.header_at(file, at)?
                && self.is_later(&header)
            {
                return Ok(Some(header));
            }
            at += DIRECT_ALIGN as u64;
        }
        Ok(None)
    }

    fn header_at(&mut self, file: &RingFile, position: u64) -> Result<Option<GroupHeader>, StorageFailure> {
        let window =
            if position == 0 && self.heads.len() < self.files.len() { DIRECT_ALIGN } else { WINDOW_BYTES };
        let bytes = self.window.bytes(file, position, DIRECT_ALIGN, window)?;
        Ok(GroupHeader::decode(bytes).filter(|header| header.directory_id == self.directory_id))
    }

    /// The group at this place if it is the one that comes next; then the scan moves behind it.
    fn group_at(&mut self, file: &RingFile, position: u64) -> Result<Option<Frames>, OpenDirError> {
        let Some(header) = self.header_at(file, position)? else { return Ok(None) };
        let expected = (header.epoch == self.epoch || Mutant::OldEpochJoined.is_on())
            && header.lsn == self.next.lsn
            && header.number == self.next.group;
        let total = header.total_bytes();
        if !expected || total as u64 > file.len - position {
            return Ok(None);
        }
        let bytes = self.window.bytes(file, position, total, WINDOW_BYTES)?;
        let end = GROUP_HEADER_BYTES + header.payload_len as usize;
        let Some(payload) = bytes.get(GROUP_HEADER_BYTES..end) else { return Ok(None) };
        if crc32c(payload) != header.payload_crc && !Mutant::TornGroupAccepted.is_on() {
            return Ok(None);
        }
        let payload = Bytes::copy_from_slice(payload);
        let frames = decode_frames(&header, &payload).map_err(|bad: BadFrame| {
            let what = format!("the group at lsn {} cannot be read: {bad}", header.lsn);
            Corruption::new(file.file.path(), position, what)
        })?;
        self.next = JournalPoint {
            lsn: header.lsn.saturating_add(total as u64),
            group: header.number.saturating_add(1),
            file: file.number,
            position: position + total as u64,
        };
        Ok(Some(frames))
    }
}

impl Window {
    /// `len` bytes at `position`, fewer if the file ends before; reads `ahead` bytes at once.
    fn bytes(
        &mut self,
        file: &RingFile,
        position: u64,
        len: usize,
        ahead: usize,
    ) -> Result<&[u8], StorageFailure> {
        let inside = self.file == file.number && position >= self.position;
        let skip = usize::try_from(position.wrapping_sub(self.position)).unwrap_or(usize::MAX);
        if !inside || skip.checked_add(len).is_none_or(|end| end > self.len) {
            let want = ahead.max(len.next_multiple_of(DIRECT_ALIGN)) as u64;
            let left = file.len.saturating_sub(position);
            let read = usize::try_from(want.min(left)).expect("a window fits into memory") / DIRECT_ALIGN
                * DIRECT_ALIGN;
            self.buf = AlignedBuf::zeroed(read);
            self.len = file.file.read(&mut self.buf, position)?;
            (self.file, self.position) = (file.number, position);
            return Ok(&self.buf.as_slice()[..self.len.min(len)]);
        }
        Ok(&self.buf.as_slice()[skip..skip + len])
    }
}
