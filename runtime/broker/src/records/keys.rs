//! What `__pelton_idempotency` remembers: which requests with an idempotency key were written, and what they were answered.
//!
//! | | bytes |
//! |---|---|
//! | key | version 1 u8, id of the topic 16, the key of the request (UTF-8) |
//! | value | version 1 u8, when it was written (ms) i64, SHA-256 of the request 32, the answer (JSON) |
//!
//! Integers are big-endian. A record is in the transaction of the records that it is about. The topic is compacted and keeps
//! records for a little longer than [`KEPT_MS`]; in memory there is where each answer is, not the answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::Written;

pub(super) const TOPIC: &str = "__pelton_idempotency";
/// How long a key is remembered.
pub(super) const KEPT_MS: i64 = 24 * 60 * 60 * 1000;
/// Keys that are remembered at once: some 200 bytes of memory each.
pub(super) const KEYS_MAX: usize = 1_000_000;
/// Longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 255;

const VERSION: u8 = 1;

/// Why a request with a key was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyRefused {
    #[error(
        "the idempotency key `{0}` was sent with another request to this topic within a day: each request has its own key"
    )]
    Reused(String),
    #[error(
        "{KEYS_MAX} idempotency keys were sent within a day, and no more are remembered: try again later, or without a key"
    )]
    TooMany,
}

/// A topic, and the key of a request.
pub(super) type KeyId = (Uuid, Arc<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) at_ms: i64,
    pub(super) digest: [u8; 32],
    /// Where its answer is.
    pub(super) offset: i64,
}

/// The keys of the last day.
#[derive(Debug, Default)]
pub(super) struct Keys {
    known: HashMap<KeyId, Known>,
    by_age: BTreeSet<(i64, KeyId)>,
}

impl Keys {
    pub(super) fn get(&self, id: &KeyId) -> Option<Known> {
        self.known.get(id).copied()
    }

    pub(super) fn is_full(&self) -> bool {
        self.known.len() >= KEYS_MAX
    }

    pub(super) fn insert(&mut self, id: KeyId, known: Known) {
        if let Some(before) = self.known.insert(id.clone(), known) {
            self.by_age.remove(&(before.at_ms, id.clone()));
        }
        self.by_age.insert((known.at_ms, id));
    }

    /// Forgets what is older than a day.
    pub(super) fn expire(&mut self, now_ms: i64) {
        while let Some((at_ms, id)) = self.by_age.first().cloned() {
            if at_ms.saturating_add(KEPT_MS) > now_ms {
                return;
            }
            self.by_age.pop_first();
            self.known.remove(&id);
        }
    }
}

pub(super) fn key_bytes((topic, key): &KeyId) -> Vec<u8> {
    [&[VERSION][..], topic.as_bytes(), key.as_bytes()].concat()
}

pub(super) fn value_bytes(at_ms: i64, digest: &[u8; 32], written: &Written) -> Vec<u8> {
    let answer = serde_json::to_vec(written).unwrap_or_default();
    [&[VERSION][..], &at_ms.to_be_bytes(), digest, &answer].concat()
}

/// What a record says; none if a later version has written it, or it is damaged.
pub(super) fn parse_key(bytes: &[u8]) -> Option<KeyId> {
    let (version, rest) = bytes.split_first()?;
    let (topic, key) = rest.split_first_chunk::<16>()?;
    (*version == VERSION).then_some(())?;
    Some((Uuid::from_bytes(*topic), std::str::from_utf8(key).ok()?.into()))
}

/// When it was written, the digest of the request, and the answer.
pub(super) fn parse_value(bytes: &[u8]) -> Option<(i64, [u8; 32], &[u8])> {
    let (version, rest) = bytes.split_first()?;
    let (at_ms, rest) = rest.split_first_chunk::<8>()?;
    let (digest, answer) = rest.split_first_chunk::<32>()?;
    (*version == VERSION).then_some((i64::from_be_bytes(*at_ms), *digest, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Place;

    fn id(key: &str) -> KeyId {
        (Uuid::from_u128(7), key.into())
    }

    #[test]
    fn a_key_is_known_for_a_day() {
        let mut keys = Keys::default();
        let known = |at_ms| Known { at_ms, digest: [1; 32], offset: at_ms };
        keys.insert(id("a"), known(10));
        keys.insert(id("b"), known(20));
        keys.insert(id("a"), known(30));
        keys.expire(10 + KEPT_MS);
        assert_eq!(keys.get(&id("a")), Some(known(30)), "it was written again since");
        keys.expire(20 + KEPT_MS);
        assert_eq!((keys.get(&id("a")), keys.get(&id("b"))), (Some(known(30)), None));
        keys.expire(30 + KEPT_MS);
        assert!(keys.known.is_empty() && keys.by_age.is_empty());
    }

    #[test]
    fn the_bytes_of_version_1_are_fixed() {
        let written = Written { records: vec![Place { partition: 3, offset: 9 }], tickets: false };
        assert_eq!(key_bytes(&id("k")), [&[1][..], &[0; 15], &[7], b"k"].concat());
        let value = value_bytes(258, &[5; 32], &written);
        let answer = br#"{"records":[{"partition":3,"offset":9}]}"#;
        assert_eq!(value, [&[1][..], &[0, 0, 0, 0, 0, 0, 1, 2], &[5; 32], answer].concat());
        assert_eq!(parse_key(&key_bytes(&id("k"))), Some(id("k")));
        assert_eq!(parse_value(&value), Some((258, [5; 32], &answer[..])));
        let tickets: Written = serde_json::from_slice(br#"{"records":[],"tickets":true}"#).unwrap();
        assert!(tickets.tickets);
        for len in 0..17 {
            assert_eq!(parse_key(&key_bytes(&id("k"))[..len]), None, "{len}");
            assert_eq!(parse_value(&value[..len]), None, "{len}");
        }
        assert_eq!(parse_key(&[2; 20]), None);
        assert_eq!(parse_value(&[2; 60]), None);
    }
}
