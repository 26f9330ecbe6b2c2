//! What comes out of a run: counts, a hash of each record, and the records themselves where they are wanted.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;
use pelton_streams::RecordIn;
use serde::Serialize;

use super::OUTPUTS_MAX;
use super::replay_io::Taker;

/// Records that are shown of each kind of difference, of each topic.
pub(super) const SHOWN_MAX: usize = 5;
/// Bytes of a key or value that are shown.
const SHOWN_BYTES: usize = 512;

/// Headers of a record that are shown.
const HEADERS_SHOWN: usize = 16;

/// What came out for one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TopicOutput {
    pub records: u64,
    pub bytes: u64,
}

/// A record that is shown; what is no text has `\u{fffd}` in it, what is long is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownRecord {
    pub partition: i32,
    /// Which of the records of its partition it is, from 0.
    pub index: u64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub timestamp: i64,
    pub headers: Vec<(String, Option<String>)>,
    /// Headers that are not shown.
    pub more_headers: usize,
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned();
    if bytes.len() > SHOWN_BYTES { format!("{text}…") } else { text }
}

impl ShownRecord {
    pub(super) fn new(partition: i32, index: u64, record: &RecordIn<'_>) -> ShownRecord {
        ShownRecord {
            partition,
            index,
            key: record.key.map(shown),
            value: record.value.map(shown),
            timestamp: record.timestamp,
            headers: record
                .headers
                .take(HEADERS_SHOWN)
                .map(|(name, value)| (shown(name), value.map(shown)))
                .collect(),
            more_headers: record.headers.count().saturating_sub(HEADERS_SHOWN),
        }
    }
}

/// A hash of a record as it would be stored: the same in every process.
pub(super) fn hash(record: &RecordIn<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.key, record.value, record.timestamp).hash(&mut hasher);
    for header in record.headers {
        header.hash(&mut hasher);
    }
    hasher.finish()
}

/// A partition of a topic.
pub(super) type Place = (String, i32);

/// What is known of the records of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PartitionNotes {
    /// How many there are of each hash.
    pub(super) counts: HashMap<u64, u32>,
    pub(super) records: u64,
    /// Of all of them in their order.
    pub(super) sequence: u64,
}

/// What is known of all records of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(super) partitions: BTreeMap<Place, PartitionNotes>,
    /// Those that were wanted, the first ones of each topic.
    pub(super) kept: BTreeMap<String, Vec<ShownRecord>>,
}

/// Which records are kept as they are.
#[derive(Debug, Clone, Default)]
pub(crate) enum Wanted {
    #[default]
    None,
    /// Those that are not among these, as often as they are there.
    OtherThan(BTreeMap<Place, HashMap<u64, u32>>),
    /// Those that are among these, as often as they are there.
    These(BTreeMap<Place, HashMap<u64, u32>>),
}

impl Wanted {
    /// Records that another run has not had.
    pub(crate) fn other_than(notes: &Notes) -> Wanted {
        let counts = notes.partitions.iter().map(|(place, notes)| (place.clone(), notes.counts.clone()));
        Wanted::OtherThan(counts.collect())
    }

    /// Whether a record is one of them; it counts as had.
    fn takes(&mut self, place: &Place, hash: u64) -> bool {
        let (counts, is_wanted) = match self {
            Wanted::None => return false,
            Wanted::OtherThan(counts) => (counts, false),
            Wanted::These(counts) => (counts, true),
        };
        let left = counts.get_mut(place).and_then(|counts| counts.get_mut(&hash)).filter(|left| **left > 0);
        match left {
            Some(left) => {
                *left -= 1;
                is_wanted
            }
            None => !is_wanted,
        }
    }
}

/// Notes for a run, which its end takes back.
#[derive(Clone)]
pub(super) struct Noting(Arc<Mutex<(Noted, Wanted)>>);

impl Noting {
    pub(super) fn new(wanted: Wanted) -> Noting {
        Noting(Arc::new(Mutex::new((Noted::default(), wanted))))
    }

    pub(super) fn noted(&self) -> Noted {
        std::mem::take(&mut self.0.lock().0)
    }
}

impl Taker for Noting {
    fn take(&mut self, topic: &str, partition: i32, record: &RecordIn<'_>) -> Result<(), String> {
        let (noted, wanted) = &mut *self.0.lock();
        noted.note(topic, partition, record, wanted)
    }
}

/// What a run notes while it goes on.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) outputs: BTreeMap<String, TopicOutput>,
    pub(super) notes: Notes,
    /// In all topics.
    records: u64,
}

impl Noted {
    /// Notes a record for a topic. Of too many, none more.
    pub(super) fn note(
        &mut self,
        topic: &str,
        partition: i32,
        record: &RecordIn<'_>,
        wanted: &mut Wanted,
    ) -> Result<(), String> {
        if self.records >= OUTPUTS_MAX {
            return Err(format!(
                "more than {OUTPUTS_MAX} records came out, which is the most that is compared: replay a smaller range"
            ));
        }
        self.records += 1;
        let output = self.outputs.entry(topic.to_owned()).or_default();
        output.records += 1;
        output.bytes += record.bytes();
        let (hash, place) = (hash(record), (topic.to_owned(), partition));
        let is_wanted = wanted.takes(&place, hash);
        let notes = self.notes.partitions.entry(place).or_default();
        let index = notes.records;
        notes.records += 1;
        *notes.counts.entry(hash).or_default() += 1;
        let mut hasher = DefaultHasher::new();
        (notes.sequence, hash).hash(&mut hasher);
        notes.sequence = hasher.finish();
        if is_wanted {
            let kept = self.notes.kept.entry(topic.to_owned()).or_default();
            if kept.len() < SHOWN_MAX {
                kept.push(ShownRecord::new(partition, index, record));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use pelton_streams::batch::{Headers, OwnedBatch};

    use super::*;

    #[test]
    fn a_run_notes_so_many_records_and_says_so() {
        let record =
            RecordIn { offset: 0, timestamp: 1, key: None, value: None, headers: Headers::default() };
        let mut noted = Noted { records: OUTPUTS_MAX - 1, ..Noted::default() };
        assert_eq!(noted.note("out", 0, &record, &mut Wanted::None), Ok(()));
        let refused = noted.note("out", 0, &record, &mut Wanted::None).unwrap_err();
        assert!(refused.contains("more than 2000000 records"), "{refused}");
        assert_eq!(noted.outputs["out"].records, 1, "what is too much is not noted");
    }

    #[test]
    fn of_many_headers_some_are_shown() {
        let mut batch = OwnedBatch::new("t", 0);
        let record =
            RecordIn { offset: 0, timestamp: 1, key: None, value: None, headers: Headers::default() };
        batch.push(record, (0..20).map(|_| (&b"h"[..], Some(&b"v"[..])))).unwrap();
        let shown = ShownRecord::new(0, 0, &batch.as_batch().record(0).unwrap());
        assert_eq!((shown.headers.len(), shown.more_headers), (HEADERS_SHOWN, 4));
    }
}
