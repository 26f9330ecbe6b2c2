//! How far a store has read a partition, and what that is worth when the store is opened again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use pelton_wire::mutant::Mutant;

use super::{MARK_TAG, STORE};
use crate::state::{KeyRange, StateError, StateView};

/// How far a store has read one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The topic: one made again under the same name is another one.
    pub topic_id: [u8; 16],
    /// The offset that is read next.
    pub next_offset: i64,
    /// The last moment (ms since the epoch) at which the store had all that the partition had; before the first such
    /// moment, when the first record was read. Tombstones that were there then, and later ones, outlast it by
    /// `delete.retention.ms`.
    pub as_of_ms: i64,
}

const VERSION: u8 = 1;
const MARK_BYTES: usize = 33;

impl Mark {
    pub(super) fn encode(self) -> [u8; MARK_BYTES] {
        let mut bytes = [VERSION; MARK_BYTES];
        bytes[1..17].copy_from_slice(&self.topic_id);
        bytes[17..25].copy_from_slice(&self.next_offset.to_be_bytes());
        bytes[25..].copy_from_slice(&self.as_of_ms.to_be_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Mark> {
        let bytes: &[u8; MARK_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
        let mut topic_id = [0; 16];
        topic_id.copy_from_slice(&bytes[1..17]);
        (bytes[0] == VERSION).then(|| Mark { topic_id, next_offset: number(17), as_of_ms: number(25) })
    }
}

pub(super) fn mark_key(partition: u32) -> [u8; 5] {
    let mut key = [MARK_TAG; 5];
    key[1..].copy_from_slice(&partition.to_be_bytes());
    key
}

/// The marks in a view, by partition.
///
/// # Errors
/// The store cannot be read, or a later version wrote it.
pub fn marks_of(view: &dyn StateView) -> Result<BTreeMap<u32, Mark>, StateError> {
    let mut marks = BTreeMap::new();
    let mut unknown = false;
    let range = KeyRange { from: &[MARK_TAG], to: Some(&[MARK_TAG + 1]), reverse: false };
    view.range(STORE, range, &mut |key, value| {
        let partition = key.get(1..).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        match (partition, Mark::decode(value)) {
            (Some(partition), Some(mark)) => drop(marks.insert(partition, mark)),
            _ => unknown = true,
        }
        ControlFlow::Continue(())
    })?;
    if unknown {
        return Err(StateError::Corrupt("a mark of a partition has an unknown layout".to_owned()));
    }
    Ok(marks)
}

/// A partition as its log is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Its topic.
    pub topic_id: [u8; 16],
    /// The first offset that can be read.
    pub start: i64,
    /// The offset that the next record gets.
    pub end: i64,
    /// `delete.retention.ms` of the topic.
    pub delete_retention_ms: i64,
}

/// What a store that was opened does about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It has never read the partition: it begins at the start of the log.
    Begin,
    /// It goes on from here.
    Resume(Mark),
    /// It cannot be trusted, and is made again from an empty one.
    Rebuild(Rebuild),
}

/// Why a store is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rebuild {
    /// The topic was deleted, and another one has its name.
    #[error("the topic was deleted and created again")]
    OtherTopic,
    /// Compaction may have removed tombstones that the store never saw: deleted keys would come back.
    #[error(
        "the store last had all of partition {partition} {away_ms} ms ago, and the topic keeps tombstones for \
         {retention_ms} ms (`delete.retention.ms`)"
    )]
    Away {
        /// The partition.
        partition: u32,
        /// How long ago.
        away_ms: i64,
        /// The topic's setting.
        retention_ms: i64,
    },
    /// The same, since it was restored for too long.
    #[error(
        "the store was behind partition {partition} for {behind_ms} ms, and the topic keeps tombstones for {retention_ms} ms \
         (`delete.retention.ms`)"
    )]
    Slow {
        /// The partition.
        partition: u32,
        /// For how long.
        behind_ms: i64,
        /// The topic's setting.
        retention_ms: i64,
    },
    /// Records were deleted that the store has not read.
    #[error(
        "the store was to go on at offset {next} of partition {partition}, and the log begins at {start} now"
    )]
    LostStart {
        /// The partition.
        partition: u32,
        /// Where the store was.
        next: i64,
        /// The first offset there is.
        start: i64,
    },
    /// The log has lost records that the store has.
    #[error("the store was to go on at offset {next} of partition {partition}, and the log ends at {end}")]
    LostEnd {
        /// The partition.
        partition: u32,
        /// Where the store was.
        next: i64,
        /// Where the log ends.
        end: i64,
    },
}

/// What to do about a partition, by the mark that a store has of it.
pub fn opening(partition: u32, mark: Option<Mark>, log: &LogState, now_ms: i64) -> Opening {
    let Some(mark) = mark else { return Opening::Begin };
    let next = mark.next_offset;
    let away_ms = now_ms.saturating_sub(mark.as_of_ms);
    let rebuild = if mark.topic_id != log.topic_id && !Mutant::OtherTopicTrusted.is_on() {
        Rebuild::OtherTopic
    } else if next < log.start {
        Rebuild::LostStart { partition, next, start: log.start }
    } else if next > log.end {
        Rebuild::LostEnd { partition, next, end: log.end }
    } else if away_ms > log.delete_retention_ms && !Mutant::LongAwayTrusted.is_on() {
        Rebuild::Away { partition, away_ms, retention_ms: log.delete_retention_ms }
    } else {
        return Opening::Resume(mark);
    };
    Opening::Rebuild(rebuild)
}
