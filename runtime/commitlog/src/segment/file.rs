//! The `.log` file of a segment that is, or just was, appended to: what of it is on the file system already, and what
//! only memory and the journal have.
//!
//! An append leaves the bytes here, and a checkpoint writes what is durable in the journal, in large pieces that go past
//! the page cache. So a file never holds what the journal does not, and each byte is copied once instead of twice.
//! Whoever reads sees one file: what is not written comes from memory. Room is reserved ahead, so that a full disk shows
//! at the append, before anything is promised.
//!
//! A topic that is not synced for its producers is *written through* instead: they rely on the page cache of a
//! process that is killed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::Segment;
use crate::storage::AlignedBuf;
use crate::storage::PIECE_BYTES;
use crate::storage::{DIRECT_ALIGN, File};

/// From so many bytes on a checkpoint writes them past the page cache. Below, opening another handle costs more than the
/// cache does.
const DIRECT_MIN_BYTES: u64 = 64 << 10;
/// Room that is reserved at once: as much as the segment has already, within these. Small for the many logs that get
/// little, large enough that a busy one asks rarely.
const RESERVE_MIN_BYTES: u64 = 16 << 10;
const RESERVE_MAX_BYTES: u64 = 16 << 20;
/// A read that would hand out more pieces of memory than this gets one copy of them.
const PIECES_MAX: usize = 256;

const BLOCK: u64 = DIRECT_ALIGN as u64;

/// See the module.
pub struct SegmentFile {
    file: Arc<dyn File>,
    /// Held while the file is written to or cut.
    writing: Mutex<()>,
    state: Mutex<State>,
    /// The same as in `state`, for readers of what has long been written.
    written: AtomicU64,
    /// Something went through the page cache since the last sync.
    is_cached: AtomicBool,
}

struct State {
    /// What is not in the file, or not all of it: whole batches, one after the other, the last one ends the segment.
    runs: VecDeque<Run>,
    /// The file has everything below.
    written: u64,
    /// Everything below is durable in the file, and the journal's checkpoint lies behind it.
    synced: u64,
    /// Where the segment ends.
    end: u64,
    /// There is room on the disk for everything below.
    reserved: u64,
    /// How often it was cut.
    cuts: u64,
    /// Nothing is appended any more: this segment lets go of the file once all of it is durable.
    finished: Option<Weak<Segment>>,
}

struct Run {
    position: u64,
    bytes: Bytes,
}

impl Run {
    fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// The part of it in `from..to`.
    fn part(&self, from: u64, to: u64) -> Bytes {
        let start = from.saturating_sub(self.position) as usize;
        let end = (to.min(self.end()) - self.position) as usize;
        self.bytes.slice(start..end)
    }
}

/// Where the bytes of a range are.
pub(crate) struct Pieces {
    /// So many bytes at the beginning of the range are in this file.
    pub(crate) file: Option<(Arc<dyn File>, u64)>,
    /// The rest.
    pub(crate) memory: Vec<Bytes>,
}

impl SegmentFile {
    /// A file that has `len` bytes of whole batches, all of them durable.
    pub(crate) fn new(file: Arc<dyn File>, len: u64) -> SegmentFile {
        let state = State {
            runs: VecDeque::new(),
            written: len,
            synced: len,
            end: len,
            reserved: len,
            cuts: 0,
            finished: None,
        };
        SegmentFile {
            file,
            writing: Mutex::new(()),
            state: Mutex::new(state),
            written: len.into(),
            is_cached: AtomicBool::new(false),
        }
    }

    /// Takes room for an append of `len` bytes. Nothing has changed if that fails.
    pub(crate) fn reserve(&self, len: u64) -> io::Result<()> {
        let (end, reserved) = {
            let state = self.state.lock();
            (state.end, state.reserved)
        };
        let need = end + len;
        if need <= reserved {
            return Ok(());
        }
        let wanted = need + end.clamp(RESERVE_MIN_BYTES, RESERVE_MAX_BYTES);
        let got = match self.file.reserve(reserved, wanted - reserved) {
            Ok(()) => wanted,
            // Asking again and again would not help: a full disk shows at the checkpoint then, which waits for room.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => u64::MAX,
            Err(_) => {
                self.file.reserve(reserved, need - reserved)?;
                need
            }
        };
        self.state.lock().reserved = got;
        Ok(())
    }

    /// Adds a batch behind the last one, in memory.
    pub(crate) fn push(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        let position = state.end;
        state.end += bytes.len() as u64;
        state.runs.push_back(Run { position, bytes });
    }

    /// Adds a batch behind the last one, in the file. After a failure some of its bytes may be there.
    pub(crate) fn write_through(&self, bytes: &[u8]) -> io::Result<()> {
        // Only if the topic was synced for its producers until now.
        self.write_out(u64::MAX)?;
        let position = self.state.lock().end;
        self.is_cached.store(true, Ordering::Release);
        self.file.write_all_at(bytes, position)?;
        let mut state = self.state.lock();
        state.end = position + bytes.len() as u64;
        self.note_written(&mut state, position + bytes.len() as u64);
        Ok(())
    }

    /// Cuts away what a write left behind the last batch.
    pub(crate) fn cut_leftovers(&self) -> io::Result<()> {
        let end = self.state.lock().end;
        self.cut_to(end)
    }

    /// Makes the segment end at `position`, where a batch ends.
    pub(crate) fn cut_to(&self, position: u64) -> io::Result<()> {
        let _writing = self.writing.lock();
        {
            let mut state = self.state.lock();
            while state.runs.pop_back_if(|run| run.end() > position).is_some() {}
            state.end = position;
            state.written = state.written.min(position);
            state.synced = state.synced.min(position);
            state.reserved = 0;
            state.cuts += 1;
            state.finished = None;
            self.written.store(state.written, Ordering::Release);
        }
        // It may be shorter, if a checkpoint has not got that far.
        if self.file.len()? > position {
            self.file.set_len(position)?;
        }
        Ok(())
    }

    /// Writes what is in memory and lies below `to`, which is durable in the journal. It is not durable in the file before the
    /// next `sync_data`. What fails can be done again.
    pub fn write_out(&self, to: u64) -> io::Result<()> {
        let _writing = self.writing.lock();
        let (from, parts): (u64, Vec<Bytes>) = {
            let state = self.state.lock();
            let from = state.written;
            if to <= from {
                // A frame from before a cut, behind which other batches are written already.
                return Ok(());
            }
            let below = state.runs.iter().take_while(|run| run.position < to);
            (from, below.map(|run| run.part(from, to)).collect())
        };
        let len: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if len == 0 {
            return Ok(());
        }
        let mut source = Source { parts: &parts, part: 0, at: 0 };
        write_range(&self.file, from, from + len, &mut source, &self.is_cached)?;
        let mut state = self.state.lock();
        self.note_written(&mut state, from + len);
        Ok(())
    }

    fn note_written(&self, state: &mut State, to: u64) {
        state.written = to;
        while state.runs.pop_front_if(|run| run.end() <= to).is_some() {}
        if state.runs.is_empty() {
            state.runs = VecDeque::new();
        }
        // The file first, then what leads readers to it.
        self.written.store(to, Ordering::Release);
    }

    /// Everything below `to` is durable in the file, and the journal's checkpoint lies behind it: no start replays it.
    pub(crate) fn note_synced(&self, to: u64) {
        let mut state = self.state.lock();
        state.synced = state.synced.max(to.min(state.written));
        self.let_go_if_done(state);
    }

    /// Whether something of it is behind the journal's checkpoint.
    pub(crate) fn is_in_checkpoint(&self) -> bool {
        self.state.lock().synced > 0
    }

    /// Nothing is appended to `segment` any more.
    pub(crate) fn finish(&self, segment: &Arc<Segment>) {
        let mut state = self.state.lock();
        state.finished = Some(Arc::downgrade(segment));
        self.let_go_if_done(state);
    }

    fn let_go_if_done(&self, mut state: MutexGuard<'_, State>) {
        if state.synced < state.end {
            return;
        }
        let Some(segment) = state.finished.take() else { return };
        let (cuts, is_roomy) = (state.cuts, state.reserved > state.end);
        drop(state);
        if is_roomy {
            self.give_back_room(cuts);
        }
        if let Some(segment) = segment.upgrade() {
            segment.let_go_of_file(self);
        }
    }

    /// Gives back what was reserved and not used, unless the segment was cut since and is appended to again.
    fn give_back_room(&self, cuts: u64) {
        let _writing = self.writing.lock();
        let end = {
            let state = self.state.lock();
            if state.cuts != cuts {
                return;
            }
            state.end
        };
        // The same length as before: if this fails, room is lost and nothing else.
        if let Err(error) = self.file.set_len(end) {
            tracing::warn!(%error, "the room that a finished segment had reserved is not given back");
        }
    }

    /// The segment is no part of the log any more: nothing is written to it.
    pub(crate) fn discard(&self) {
        let mut state = self.state.lock();
        state.runs = VecDeque::new();
        state.finished = None;
    }

    /// Where the `len` bytes at `position` are. `None`: they are no part of the segment any more.
    pub(crate) fn pieces(&self, position: u64, len: u64) -> Option<Pieces> {
        let end = position + len;
        if end <= self.written.load(Ordering::Acquire) {
            return Some(Pieces { file: Some((self.file.clone(), len)), memory: Vec::new() });
        }
        let state = self.state.lock();
        let in_file = state.written.clamp(position, end) - position;
        let from = position + in_file;
        let first = state.runs.partition_point(|run| run.end() <= from);
        let runs = state.runs.range(first..).take_while(|run| run.position < end);
        let mut memory: Vec<Bytes> = runs.map(|run| run.part(from, end)).collect();
        drop(state);
        let in_memory: u64 = memory.iter().map(|part| part.len() as u64).sum();
        if in_file + in_memory != len {
            return None;
        }
        if memory.len() > PIECES_MAX {
            memory = vec![memory.concat().into()];
        }
        Some(Pieces { file: (in_file > 0).then(|| (self.file.clone(), in_file)), memory })
    }

    /// Whether a sync has anything to write back that [`SegmentFile::write_out`] has not.
    pub(crate) fn take_cached(&self) -> bool {
        self.is_cached.swap(false, Ordering::AcqRel)
    }
}

impl File for SegmentFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let written = self.written.load(Ordering::Acquire);
        if position < written {
            let len = (written - position).min(buf.len() as u64) as usize;
            return self.file.read_at(&mut buf[..len], position);
        }
        let state = self.state.lock();
        let first = state.runs.partition_point(|run| run.end() <= position);
        match state.runs.get(first).filter(|run| run.position <= position) {
            Some(run) => {
                let part = run.part(position, position + buf.len() as u64);
                buf[..part.len()].copy_from_slice(&part);
                Ok(part.len())
            }
            // Written meanwhile, or the end.
            None if position < state.written => {
                let len = (state.written - position).min(buf.len() as u64) as usize;
                drop(state);
                self.file.read_at(&mut buf[..len], position)
            }
            None => Ok(0),
        }
    }

    fn write_all_at(&self, _buf: &[u8], _position: u64) -> io::Result<()> {
        Err(io::Error::other("a segment is only appended to"))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_back(&self, position: u64, len: u64) -> io::Result<()> {
        self.file.write_back(position, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().end)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.cut_to(len)
    }

    /// Not all bytes are behind a descriptor.
    fn will_need(&self, position: u64, len: u64) {
        self.file.will_need(position, len);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Bytes that are handed out one after the other.
struct Source<'a> {
    parts: &'a [Bytes],
    part: usize,
    at: usize,
}

impl Source<'_> {
    /// Adds the next `len` bytes to `into`. There are as many.
    fn take(&mut self, mut len: usize, into: &mut AlignedBuf) {
        while len > 0 {
            let part = &self.parts[self.part];
            let end = part.len().min(self.at + len);
            into.extend(&part[self.at..end]);
            len -= end - self.at;
            if end == part.len() {
                self.part += 1;
                self.at = 0;
            } else {
                self.at = end;
            }
        }
    }
}

/// Writes `from..to`: the whole blocks past the page cache if they are many, the rest through it.
fn write_range(
    file: &Arc<dyn File>,
    from: u64,
    to: u64,
    source: &mut Source<'_>,
    is_cached: &AtomicBool,
) -> io::Result<()> {
    PIECE.with_borrow_mut(|buf| {
        buf.clear();
        write_pieces(file, from..to, source, is_cached, buf)
    })
}

thread_local! {
    /// What a thread that writes to segments gathers bytes in: it writes many files, and new memory costs as much as the copy.
    static PIECE: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::zeroed(PIECE_BYTES));
}

fn write_pieces(
    file: &Arc<dyn File>,
    Range { start: from, end: to }: Range<u64>,
    source: &mut Source<'_>,
    is_cached: &AtomicBool,
    buf: &mut AlignedBuf,
) -> io::Result<()> {
    let mut at = from;
    let last_block = to - to % BLOCK;
    // No direct I/O here, or no descriptor for it now: the page cache does it as well.
    let direct = if last_block.saturating_sub(from) >= DIRECT_MIN_BYTES { file.direct().ok() } else { None };
    if let Some(direct) = direct {
        // The first block may begin with what was written before.
        let first_block = from - from % BLOCK;
        let head = (from - first_block) as usize;
        if head > 0 {
            let mut before = [0; DIRECT_ALIGN];
            crate::storage::read_exact_at(&**file, &mut before[..head], first_block)?;
            buf.extend(&before[..head]);
        }
        let mut block = first_block;
        while block < last_block {
            let len = (last_block - block).min(PIECE_BYTES as u64) as usize;
            source.take(len - buf.len(), buf);
            direct.write_all_at(buf.as_slice(), block)?;
            block += len as u64;
            buf.clear();
        }
        at = last_block;
    }
    if to - at > PIECE_BYTES as u64 {
        // Less than a piece is written back by the sync alone.
        is_cached.store(true, Ordering::Release);
    }
    while at < to {
        let len = (to - at).min(PIECE_BYTES as u64) as usize;
        source.take(len, buf);
        file.write_all_at(buf.as_slice(), at)?;
        at += len as u64;
        buf.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
