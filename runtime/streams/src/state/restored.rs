//! Changes of one store on their way from its changelog: bytes in one buffer, however many keys there are.

use std::sync::Arc;

use pelton_wire::mutant::Mutant;

use super::{Blob, Changes};

/// Marks a change that deletes its key.
const DELETED: u32 = u32::MAX;

/// A stretch of a changelog, the last change of each key. One is filled and emptied again and again.
#[derive(Debug, Default)]
pub struct Restored {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    is_sorted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first bytes of the key, which mostly say which of two comes first.
    prefix: u64,
    at: usize,
    key: u32,
    /// Bytes of the value behind the key, or [`DELETED`].
    value: u32,
}

impl Entry {
    fn key(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at..self.at + self.key as usize]
    }

    fn value(self, bytes: &[u8]) -> Option<&[u8]> {
        let from = self.at + self.key as usize;
        (self.value != DELETED).then(|| &bytes[from..from + self.value as usize])
    }
}

fn prefix(key: &[u8]) -> u64 {
    let mut prefix = [0; 8];
    let len = key.len().min(8);
    prefix[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(prefix)
}

impl Restored {
    /// Adds a change, in the order of the log. No value deletes the key. False: it is too large for any store.
    #[must_use]
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).ok().filter(|len| *len != DELETED);
        let (Some(key_len), Some(value_len)) = (len(key), value.map_or(Some(DELETED), len)) else {
            return false;
        };
        let entry = Entry { prefix: prefix(key), at: self.bytes.len(), key: key_len, value: value_len };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.entries.push(entry);
        self.is_sorted = false;
        true
    }

    /// Memory of what is in it.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Changes in it; of a key that was changed several times, all of them until they are sorted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps the last change of each key, in the order of the keys.
    pub fn sort(&mut self) {
        if std::mem::replace(&mut self.is_sorted, true) {
            return;
        }
        let bytes = &self.bytes;
        // Of one key, the later one comes first, and stays.
        self.entries.sort_unstable_by(|a, b| {
            let keys = || a.key(bytes).cmp(b.key(bytes));
            a.prefix.cmp(&b.prefix).then_with(keys).then_with(|| b.at.cmp(&a.at))
        });
        self.entries.dedup_by(|later, first| later.key(bytes) == first.key(bytes));
    }

    /// The changes; sorted if they were.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries.iter().map(|entry| (entry.key(&self.bytes), entry.value(&self.bytes)))
    }

    /// The same as others take them.
    pub fn to_changes(&self) -> Changes {
        let blob = |bytes: &[u8]| -> Blob { Arc::from(bytes) };
        self.iter().map(|(key, value)| (blob(key), value.map(blob))).collect()
    }

    /// Forgets what is in it, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.is_sorted = false;
    }
}

/// A restore may take this long however short `delete.retention.ms` is, or it would be begun again for ever.
const RESTORE_MIN_MS: i64 = 60_000;

/// For how long a store that is being restored was not at the end of its topic, if that is longer than the topic keeps what
/// says that a key is deleted: it may have read a value, and never see that it was deleted. It is to be made again.
pub fn late_restore(was_at_end_ms: i64, delete_retention_ms: i64, now_ms: i64) -> Option<i64> {
    let behind_ms = now_ms.saturating_sub(was_at_end_ms);
    let is_late = behind_ms > delete_retention_ms.max(RESTORE_MIN_MS);
    (is_late && !Mutant::SlowRestoreTrusted.is_on()).then_some(behind_ms)
}
