//! A stretch of a topic on its way into a store.

use std::collections::BTreeMap;

use pelton_wire::mutant::Mutant;
use pelton_wire::record::Columns;

use super::mark::{Mark, mark_key};
use super::rows::row_key;
use crate::operator::envelope;
use crate::state::{Blob, ChangelogPosition, Changes, StateBatch};

/// Memory that a change costs besides its bytes: two reference counts and its place.
const CHANGE_BYTES: usize = 64;

/// What became of records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records with a key and a value.
    pub puts: u64,
    /// Records with a key and no value.
    pub tombstones: u64,
    /// Records without a key. They are of no row, and are dropped.
    pub null_keys: u64,
}

/// Changes that were read and not handed to the store. One is used again and again.
#[derive(Debug, Default)]
pub struct Chunk {
    /// In the order of the log.
    changes: Changes,
    bytes: usize,
    counts: Counts,
    scratch: Vec<u8>,
}

impl Chunk {
    /// Adds records, in the order of the log.
    pub fn take(&mut self, records: &Columns) {
        let data = records.data();
        for (index, timestamp) in records.timestamps().iter().enumerate() {
            let Some(key) = records.keys().get(data, index) else {
                self.counts.null_keys += 1;
                continue;
            };
            let value = records.values().get(data, index).map(|value| {
                envelope::encode(&mut self.scratch, *timestamp, value);
                Blob::from(&self.scratch[..])
            });
            if value.is_none() && Mutant::TombstonePassed.is_on() {
                continue;
            }
            match &value {
                Some(_) => self.counts.puts += 1,
                None => self.counts.tombstones += 1,
            }
            let key = Blob::from(row_key(key));
            self.bytes += key.len() + value.as_ref().map_or(0, |value| value.len()) + CHANGE_BYTES;
            self.changes.push((key, value));
        }
    }

    /// Memory of what is in it.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What became of all records since the last [`Chunk::finish`].
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Forgets what is in it.
    pub fn clear(&mut self) {
        *self = Chunk { scratch: std::mem::take(&mut self.scratch), ..Chunk::default() };
    }

    /// What a store takes over: the last change of each key, and how far each partition was read with them.
    pub fn finish(&mut self, marks: &BTreeMap<u32, Mark>) -> StateBatch {
        let mut rows = std::mem::take(&mut self.changes);
        self.clear();
        // The last of each key comes first, and stays.
        rows.reverse();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows.dedup_by(|later, first| later.0 == first.0);
        // Marks sort before rows.
        let mut changes: Changes = marks
            .iter()
            .filter(|_| !Mutant::MarksNotWritten.is_on())
            .map(|(partition, mark)| {
                let ahead = i64::from(Mutant::MarkAhead.is_on());
                let mark = Mark { next_offset: mark.next_offset + ahead, ..*mark };
                (Blob::from(&mark_key(*partition)[..]), Some(Blob::from(&mark.encode()[..])))
            })
            .collect();
        changes.append(&mut rows);
        StateBatch { changes: vec![changes], position: vec![total(marks)] }
    }
}

/// What the backend itself is told: how far all partitions were read together.
fn total(marks: &BTreeMap<u32, Mark>) -> ChangelogPosition {
    ChangelogPosition {
        topic_id: marks.values().next().map_or([0; 16], |mark| mark.topic_id),
        offset: marks.values().fold(0, |sum, mark| sum.saturating_add(mark.next_offset)),
        caught_up_ms: marks.values().map(|mark| mark.as_of_ms).min().unwrap_or(0),
    }
}
