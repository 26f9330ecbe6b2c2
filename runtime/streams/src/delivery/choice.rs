//! Which records are given next.

use std::collections::HashSet;

use pelton_wire::mutant::Mutant;

use super::body::Body;
use super::{Delivery, Entry, MAX_CALL_BYTES, State};

/// What is chosen so far.
struct Chosen {
    indexes: Vec<usize>,
    bytes: u64,
    most: usize,
}

impl Chosen {
    fn new(most: u32) -> Chosen {
        Chosen { indexes: Vec::new(), bytes: 0, most: most as usize }
    }

    /// Takes a record if it fits beside the others; false: the call is full.
    fn take(&mut self, index: usize, entry: &Entry) -> bool {
        let fits = self.indexes.len() < self.most && self.bytes.saturating_add(entry.bytes) <= MAX_CALL_BYTES;
        if !fits && !self.indexes.is_empty() {
            return false;
        }
        self.indexes.push(index);
        self.bytes = self.bytes.saturating_add(entry.bytes);
        true
    }
}

impl Delivery {
    /// The first records that are not done, in order, up to one that has to wait.
    pub(super) fn choose_in_order(&self, now_ms: i64) -> Vec<usize> {
        let mut chosen = Chosen::new(self.spec.batch);
        for (index, entry) in self.window.iter().enumerate() {
            match &entry.state {
                State::Done(_) => continue,
                State::Given(_) => break,
                State::Waiting(_) if entry.not_before_ms > now_ms => break,
                State::Waiting(_) if entry.alone && !chosen.indexes.is_empty() => break,
                State::Waiting(_) => {}
            }
            if !chosen.take(index, entry) || entry.alone {
                break;
            }
        }
        chosen.indexes
    }

    /// Of each key the first record that is not done, unless it has to wait; and records without a key.
    pub(super) fn choose_by_key(&self, now_ms: i64) -> Vec<usize> {
        let mut chosen = Chosen::new(self.spec.batch);
        let mut taken: HashSet<&[u8], foldhash::fast::RandomState> = HashSet::default();
        for (index, entry) in self.window.iter().enumerate() {
            let (body, is_given): (&Body, bool) = match &entry.state {
                State::Done(_) => continue,
                State::Given(body) => (body, true),
                State::Waiting(body) => (body, false),
            };
            // Whatever becomes of this one, those behind it with its key wait.
            let is_first = body.key.as_deref().is_none_or(|key| taken.insert(key));
            let is_first = is_first || Mutant::KeysPassEachOther.is_on();
            if is_given || !is_first || entry.not_before_ms > now_ms {
                continue;
            }
            if entry.alone {
                if chosen.indexes.is_empty() {
                    return vec![index];
                }
                continue;
            }
            if !chosen.take(index, entry) {
                break;
            }
        }
        chosen.indexes
    }
}
