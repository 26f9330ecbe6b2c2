//! What an operator keeps of itself in its store: stream time, a counter, how far the store was cleaned.

use pelton_wire::mutant::Mutant;

use super::key::tag;
use super::{Context, OperatorError};
use crate::state::StoreIndex;

const KEY: [u8; 1] = [tag::META];
const VERSION: u8 = 1;
const BYTES: usize = 1 + 4 * 8;

/// No row has come yet.
pub(super) const NO_TIME: i64 = -1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    stream_time: i64,
    counter: i64,
    cleaned: [i64; 2],
}

/// Read from the store when it is needed first, written back at the end of each call if it changed.
#[derive(Debug)]
pub(super) struct Meta {
    store: StoreIndex,
    now: Kept,
    /// What the store has; none before it was read.
    stored: Option<Kept>,
}

impl Meta {
    pub(super) fn new(store: StoreIndex) -> Meta {
        let now = Kept { stream_time: NO_TIME, counter: 0, cleaned: [0; 2] };
        Meta { store, now, stored: None }
    }

    /// At the beginning of each call.
    pub(super) fn load(&mut self, cx: &mut Context<'_>) -> Result<(), OperatorError> {
        if self.stored.is_some() {
            return Ok(());
        }
        if let Some(blob) = cx.get(self.store, &KEY)? {
            self.now = decode(&blob).ok_or_else(|| OperatorError::damaged(self.store, &KEY))?;
        } else {
            self.now = Meta::new(self.store).now;
        }
        self.stored = Some(self.now);
        Ok(())
    }

    /// At the end of each call.
    pub(super) fn save(&mut self, cx: &mut Context<'_>) {
        if self.stored == Some(self.now) {
            return;
        }
        let mut bytes = [VERSION; BYTES];
        let stream_time = if Mutant::StreamTimeForgotten.is_on() { NO_TIME } else { self.now.stream_time };
        let fields = [stream_time, self.now.counter, self.now.cleaned[0], self.now.cleaned[1]];
        for (place, field) in bytes[1..].as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
        cx.put(self.store, &KEY, &bytes);
        self.stored = Some(self.now);
    }

    /// The state was rolled back: what is in memory says nothing any more.
    pub(super) fn reset(&mut self) {
        self.stored = None;
    }

    pub(super) fn stream_time(&self) -> i64 {
        self.now.stream_time
    }

    /// A row of this time has come. The stream time of before, if it is later now.
    pub(super) fn observe(&mut self, timestamp: i64) -> Option<i64> {
        let before = self.now.stream_time;
        self.now.stream_time = before.max(timestamp);
        (timestamp > before).then_some(before)
    }

    /// Another number each time.
    pub(super) fn next(&mut self) -> u64 {
        self.now.counter += 1;
        self.now.counter.cast_unsigned()
    }

    /// What the operator has noted with [`Meta::set_cleaned`]; 0 at first.
    pub(super) fn cleaned(&self, what: usize) -> i64 {
        self.now.cleaned[what]
    }

    pub(super) fn set_cleaned(&mut self, what: usize, up_to: i64) {
        self.now.cleaned[what] = up_to;
    }
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (version, fields) = bytes.split_first()?;
    let (fields, []) = fields.as_chunks::<8>() else { return None };
    let [stream_time, counter, a, b] = fields else { return None };
    (*version == VERSION).then_some(Kept {
        stream_time: i64::from_be_bytes(*stream_time),
        counter: i64::from_be_bytes(*counter),
        cleaned: [i64::from_be_bytes(*a), i64::from_be_bytes(*b)],
    })
}

/// The stream time that a store's operator had, for readers of the store.
pub(super) fn stream_time(meta: &[u8]) -> Option<i64> {
    Some(decode(meta)?.stream_time)
}

/// Where it is.
pub(super) const META_KEY: &[u8] = &KEY;
