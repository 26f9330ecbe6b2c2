//! Where the next group goes: the files of the ring, which of them are free, and when one becomes free again.
//! Decides only; [`super::ring_file`] touches the files.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ring_file::RingFile;
use super::slot::{JournalPoint, RING_FILES_MAX};

/// The files of the ring. Groups fill the active file from its beginning; a file whose groups are all below the
/// checkpoint is free.
pub(crate) struct Ring {
    active: Option<Active>,
    /// Full, in the order of their groups.
    used: VecDeque<Used>,
    free: VecDeque<Arc<RingFile>>,
    capacity: u64,
    highest_number: u32,
}

struct Active {
    file: Arc<RingFile>,
    position: u64,
}

struct Used {
    file: Arc<RingFile>,
    /// Where its last group ended.
    end_lsn: u64,
}

/// A place for one group.
pub(crate) struct Reserved {
    pub(crate) file: Arc<RingFile>,
    pub(crate) position: u64,
}

impl Ring {
    /// A ring whose files are all free.
    pub(crate) fn new(files: impl IntoIterator<Item = Arc<RingFile>>) -> Ring {
        let mut ring = Ring {
            active: None,
            used: VecDeque::new(),
            free: VecDeque::new(),
            capacity: 0,
            highest_number: 0,
        };
        for file in files {
            ring.add(file);
        }
        ring
    }

    /// Adds a free file.
    pub(crate) fn add(&mut self, file: Arc<RingFile>) {
        assert!(self.file_count() < RING_FILES_MAX, "the owner asks `may_grow` first");
        self.capacity += file.len;
        self.highest_number = self.highest_number.max(file.number);
        self.free.push_back(file);
    }

    /// Bytes of all files.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes that cannot be written before another checkpoint.
    pub(crate) fn used_bytes(&self) -> u64 {
        let used: u64 = self.used.iter().map(|used| used.file.len).sum();
        used + self.active.as_ref().map_or(0, |active| active.position)
    }

    pub(crate) fn file_count(&self) -> usize {
        self.used.len() + self.free.len() + usize::from(self.active.is_some())
    }

    /// The number that the next new file gets.
    pub(crate) fn next_number(&self) -> u32 {
        self.highest_number.saturating_add(1)
    }

    /// Number and length of every file, by number.
    pub(crate) fn files(&self) -> Vec<(u32, u64)> {
        let active = self.active.iter().map(|active| &active.file);
        let mut files: Vec<_> = active
            .chain(self.used.iter().map(|used| &used.file))
            .chain(&self.free)
            .map(|file| (file.number, file.len))
            .collect();
        files.sort_unstable();
        files
    }

    /// A place for a group of `bytes` that begins at `lsn`, or `None` if a checkpoint must free a file first.
    pub(crate) fn reserve(&mut self, bytes: u64, lsn: u64) -> Option<Reserved> {
        let fits = self.active.as_ref().is_some_and(|active| active.file.len - active.position >= bytes);
        if !fits {
            self.retire_active(lsn);
            let fitting = self.free.iter().position(|file| file.len >= bytes)?;
            let file = self.free.remove(fitting)?;
            self.active = Some(Active { file, position: 0 });
        }
        let active = self.active.as_mut()?;
        let reserved = Reserved { file: active.file.clone(), position: active.position };
        active.position += bytes;
        Some(reserved)
    }

    fn retire_active(&mut self, end_lsn: u64) {
        match self.active.take() {
            Some(active) if active.position == 0 => self.free.push_front(active.file),
            Some(active) => self.used.push_back(Used { file: active.file, end_lsn }),
            None => {}
        }
    }

    /// Frees the files below the checkpoint at `x`. True if there was one.
    pub(crate) fn release(&mut self, x: &JournalPoint) -> bool {
        let before = self.free.len();
        while self.used.front().is_some_and(|used| used.end_lsn <= x.lsn) {
            self.free.extend(self.used.pop_front().map(|used| used.file));
        }
        self.free.len() > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(lens: &[u64]) -> Ring {
        Ring::new((1..).zip(lens).map(|(number, len)| Arc::new(RingFile::for_tests(number, *len))))
    }

    fn point(lsn: u64) -> JournalPoint {
        JournalPoint { lsn, ..JournalPoint::default() }
    }

    /// Reserves at the given lsn and answers (file, position).
    fn take(ring: &mut Ring, bytes: u64, lsn: u64) -> Option<(u32, u64)> {
        ring.reserve(bytes, lsn).map(|r| (r.file.number, r.position))
    }

    #[test]
    fn fills_files_in_turn_and_reuses_what_a_checkpoint_freed() {
        let mut ring = ring(&[100, 100]);
        assert_eq!(take(&mut ring, 60, 0), Some((1, 0)));
        assert_eq!(take(&mut ring, 40, 60), Some((1, 60)));
        assert_eq!(take(&mut ring, 60, 100), Some((2, 0)));
        assert_eq!(ring.used_bytes(), 160);
        assert_eq!(take(&mut ring, 60, 160), None);
        assert!(!ring.release(&point(99)), "its last group ends at 100");
        assert_eq!(take(&mut ring, 60, 160), None);
        assert!(ring.release(&point(100)));
        assert_eq!(take(&mut ring, 60, 160), Some((1, 0)));
        assert!(ring.release(&point(220)));
        assert_eq!((ring.used_bytes(), ring.capacity()), (60, 200));
        assert_eq!(ring.files(), [(1, 100), (2, 100)]);
    }

    #[test]
    fn one_file_alone_is_reused_when_everything_in_it_is_checkpointed() {
        let mut ring = ring(&[100]);
        assert_eq!(take(&mut ring, 70, 0), Some((1, 0)));
        assert_eq!(take(&mut ring, 70, 70), None);
        assert!(ring.release(&point(70)));
        assert_eq!(take(&mut ring, 70, 70), Some((1, 0)));
    }

    #[test]
    fn a_group_takes_the_first_free_file_that_is_large_enough() {
        let mut ring = ring(&[10, 100]);
        assert_eq!(take(&mut ring, 50, 0), Some((2, 0)));
        ring.add(Arc::new(RingFile::for_tests(ring.next_number(), 200)));
        assert_eq!(take(&mut ring, 60, 50), Some((3, 0)));
        assert_eq!(ring.next_number(), 4);
        assert_eq!(ring.file_count(), 3);
    }
}
