//! Cleaning a partition of a compacted topic, by the thread of [`crate::cleaner`]. It reads and writes files without the
//! log; what producers wait for is held for as long as it takes to swap a few pointers.

use parking_lot::Mutex;
use pelton_commitlog::{
    CleanError, CleanJob, CleanReport, Compaction, Dirt, Pace, ReadError, Replacement, clean,
};

use super::Partition;

/// What the cleaner has done to a partition since the start, and what it will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cleaning {
    /// Part of what can be cleaned now that is dirty, from 0 to 1, when the cleaner last looked.
    pub dirty_ratio: f64,
    /// Cleans that came to their end.
    pub runs: u64,
    /// When the last one ended (ms).
    pub last_run_ms: Option<i64>,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub records_read: u64,
    pub records_written: u64,
    /// Why it is not cleaned any more before a restart.
    pub uncleanable: Option<String>,
}

/// Absent until the cleaner has looked at the partition: most partitions are of topics that are not compacted.
pub(super) type CleaningSlot = Mutex<Option<Box<Cleaning>>>;

/// The limits of a clean that are the same for all partitions.
pub struct CleanLimits<'a> {
    /// The broker's clock (ms).
    pub now_ms: i64,
    /// `log.cleaner.dedupe.buffer.size`.
    pub map_bytes: usize,
    /// A secret of the process.
    pub hash_key: [u8; 16],
    pub pace: &'a mut dyn Pace,
}

impl Partition {
    /// What the cleaner has done here; `None` if it has never looked.
    pub fn cleaning(&self) -> Option<Cleaning> {
        self.cleaning.lock().as_deref().cloned()
    }

    fn note_cleaning(&self, change: impl FnOnce(&mut Cleaning)) {
        change(self.cleaning.lock().get_or_insert_default());
    }

    /// What there is to clean. Blocking.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn dirt(&self, compaction: &Compaction, now_ms: i64) -> Result<Dirt, ReadError> {
        let dirt = self.reader.dirt(compaction, now_ms)?;
        self.note_cleaning(|cleaning| cleaning.dirty_ratio = dirt.ratio());
        Ok(dirt)
    }

    /// Cleans it. Blocking, for as long as the disk and the pace take.
    ///
    /// # Errors
    /// The log is as good as before, and what is lasting is noted: the partition is not to be cleaned again.
    pub fn clean(
        &self,
        dirt: &Dirt,
        compaction: &Compaction,
        limits: CleanLimits<'_>,
    ) -> Result<CleanReport, CleanError> {
        let CleanLimits { now_ms, map_bytes, hash_key, pace } = limits;
        let (log, producers) = {
            let Ok(log) = self.lock() else { return Err(CleanError::Stopped) };
            (log.config().clone(), log.active_producers())
        };
        let job = CleanJob { compaction: *compaction, log, producers, now_ms, map_bytes, hash_key, pace };
        let result = clean(&self.reader, dirt, job, &mut |replacement| self.swap(replacement));
        match &result {
            Ok(report) => self.note_cleaning(|cleaning| {
                cleaning.runs += 1;
                cleaning.last_run_ms = Some(now_ms);
                cleaning.bytes_read += report.bytes_read;
                cleaning.bytes_written += report.bytes_written;
                cleaning.records_read += report.records_read;
                cleaning.records_written += report.records_written;
            }),
            Err(error) => {
                if let CleanError::Final(failure) = error {
                    self.delayed.storage_failed(failure);
                }
                if error.is_lasting() {
                    self.note_uncleanable(error.to_string());
                }
            }
        }
        result
    }

    /// Says why the partition is not to be cleaned any more.
    pub fn note_uncleanable(&self, reason: String) {
        self.note_cleaning(|cleaning| cleaning.uncleanable = Some(reason));
    }

    fn swap(&self, replacement: Replacement) -> Result<(), CleanError> {
        // Nobody removes files meanwhile, or gives the directory's name to another topic.
        let _removing = self.removing.lock();
        let begun = match self.lock() {
            Ok(mut log) => log.begin_swap(replacement),
            // Its directory may be another topic's by now, where nothing is ours.
            Err(_) => return Err(CleanError::Stopped),
        };
        let swapped = match begun {
            Ok(swap) => swap.run(),
            Err(replacement) => return Err(replacement.refused()),
        };
        if let Ok(mut log) = self.lock() {
            log.settle_swap(&swapped);
        }
        swapped.finish()
    }
}
