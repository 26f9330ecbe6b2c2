//! Which leader wrote from which offset on: a short list, kept in memory and in the text file
//! `leader-epoch-checkpoint`.

/// The leader of this epoch appended from this offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// Leader epoch.
    pub epoch: i32,
    /// Offset of its first record.
    pub start_offset: i64,
}

/// Answer to "where does this epoch end": the epoch that was found, and one past its last offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest known epoch that is not above the one asked for.
    pub epoch: i32,
    /// First offset of the next larger epoch, or the log end.
    pub end_offset: i64,
}

/// The epochs of a log, both epochs and offsets strictly increasing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

const VERSION: &str = "0";

impl LeaderEpochs {
    /// The epoch of the last record, `None` before the first.
    pub(crate) fn latest(&self) -> Option<i32> {
        self.entries.last().map(|e| e.epoch)
    }

    /// All epochs, oldest first.
    pub(crate) fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// Notes that `epoch` starts at `offset`, unless it is known. True if something changed. Entries that
    /// contradict the new one (a larger epoch, or a start at or after `offset`) belong to a divergent past
    /// and go.
    pub(crate) fn assign(&mut self, epoch: i32, start_offset: i64) -> bool {
        if epoch < 0 || self.latest() == Some(epoch) {
            return false;
        }
        self.entries.retain(|e| e.epoch < epoch && e.start_offset < start_offset);
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// Where `epoch` ends, as `OffsetForLeaderEpoch` asks (KIP-101, KIP-279). `None` if the log cannot know.
    pub(crate) fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<EpochEnd> {
        let latest = self.latest()?;
        if epoch < 0 || epoch > latest {
            return None;
        }
        let after = self.entries.partition_point(|e| e.epoch <= epoch);
        let end_offset = self.entries.get(after).map_or(log_end, |e| e.start_offset);
        // Before the first known epoch: the log was cut there, so the asked epoch ends where the first
        // starts.
        let epoch = after.checked_sub(1).map_or(epoch, |found| self.entries[found].epoch);
        Some(EpochEnd { epoch, end_offset })
    }

    /// Forgets epochs that start at or after the new end of the log. True if something changed.
    pub(crate) fn truncate_from_end(&mut self, log_end: i64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|e| e.start_offset < log_end);
        self.entries.len() != before
    }

    /// Forgets epochs that end before the new start of the log; the one that spans it starts there. True if
    /// something changed.
    pub(crate) fn truncate_from_start(&mut self, log_start: i64) -> bool {
        let spanning = self.entries.partition_point(|e| e.start_offset <= log_start);
        let Some(spanning) = spanning.checked_sub(1) else { return false };
        let first = &mut self.entries[spanning];
        let changed = spanning > 0 || first.start_offset != log_start;
        first.start_offset = log_start;
        self.entries.drain(..spanning);
        changed
    }

    /// Kafka's text: version, number of entries, then `epoch offset` lines.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.entries.len());
        for EpochStart { epoch, start_offset } in &self.entries {
            text.push_str(&format!("{epoch} {start_offset}\n"));
        }
        text
    }

    /// Reads [`LeaderEpochs::to_text`]; says what is wrong with anything else.
    pub(crate) fn from_text(text: &str) -> Result<LeaderEpochs, String> {
        let mut lines = text.lines();
        let version = lines.next().unwrap_or_default();
        if version != VERSION {
            return Err(format!("version is `{version}`, expected `{VERSION}`"));
        }
        let count = lines.next().unwrap_or_default();
        let count: usize = count.parse().map_err(|_| format!("number of entries is `{count}`"))?;
        let mut epochs = LeaderEpochs::default();
        for line in lines {
            let parsed = line.split_once(' ').and_then(|(e, o)| Some((e.parse().ok()?, o.parse().ok()?)));
            let Some((epoch, start_offset)) = parsed else {
                return Err(format!("line `{line}` is no entry"));
            };
            let known = epochs.entries.len();
            epochs.assign(epoch, start_offset);
            if epochs.entries.len() != known + 1 {
                return Err(format!("entry `{line}` does not follow the one before it"));
            }
        }
        match epochs.entries.len() {
            found if found == count => Ok(epochs),
            found => Err(format!("there are {found} entries, expected {count}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in entries {
            assert!(epochs.assign(*epoch, *start));
        }
        epochs
    }

    #[test]
    fn epochs_end_where_the_next_one_starts() {
        let log = epochs(&[(2, 10), (5, 20), (6, 30)]);
        let cases = [(-1, None), (0, Some((0, 10))), (2, Some((2, 20))), (3, Some((2, 20)))];
        let more = [(5, Some((5, 30))), (6, Some((6, 44))), (7, None)];
        for (epoch, expect) in cases.into_iter().chain(more) {
            let found = log.end_offset_for(epoch, 44).map(|e| (e.epoch, e.end_offset));
            assert_eq!(found, expect, "epoch {epoch}");
        }
        assert_eq!(LeaderEpochs::default().end_offset_for(0, 44), None);
    }

    #[test]
    fn cutting_either_end_cuts_epochs() {
        for (end, left) in [(44, 3), (30, 2), (29, 2), (20, 1), (10, 0)] {
            let mut log = epochs(&[(2, 10), (5, 20), (6, 30)]);
            assert_eq!(log.truncate_from_end(end), left != 3);
            assert_eq!(log.entries.len(), left, "end {end}");
        }
        for (start, first) in [(5, (2, 10)), (10, (2, 10)), (15, (2, 15)), (20, (5, 20)), (99, (6, 99))] {
            let mut log = epochs(&[(2, 10), (5, 20), (6, 30)]);
            assert_eq!(log.truncate_from_start(start), first != (2, 10));
            assert_eq!((log.entries[0].epoch, log.entries[0].start_offset), first, "start {start}");
        }
    }

    #[test]
    fn a_contradicting_epoch_replaces_a_divergent_past() {
        let mut log = epochs(&[(2, 10), (5, 20)]);
        assert!(!log.assign(5, 25));
        assert!(!log.assign(-1, 25));
        assert!(log.assign(6, 15));
        assert_eq!(log, epochs(&[(2, 10), (6, 15)]));
    }

    #[test]
    fn the_file_is_kafkas() {
        let log = epochs(&[(0, 0), (3, 120)]);
        assert_eq!(log.to_text(), "0\n2\n0 0\n3 120\n");
        assert_eq!(LeaderEpochs::from_text(&log.to_text()), Ok(log));
        for bad in [
            "",
            "1\n0\n",
            "0\n",
            "0\n2\n0 0\n",
            "0\n1\nx\n",
            "0\n2\n3 0\n2 9\n",
            "0\n2\n2 9\n3 9\n",
            "0\n1\n-1 0\n",
        ] {
            assert!(LeaderEpochs::from_text(bad).is_err(), "{bad:?}");
        }
    }
}
