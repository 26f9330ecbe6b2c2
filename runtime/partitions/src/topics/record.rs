//! The records of `__cluster_metadata-0`, and the facts that a replay of them gives.
//!
//! The partition is an ordinary log of ordinary record batches. A record's key says what it is about, its value what is
//! true of that from now on; the last record of a key wins, and a null value takes the thing away. So a snapshot is
//! just every live record once more, and replaying any record twice changes nothing.
//!
//! Integers are big-endian. `string` is a u32 length and UTF-8. The first byte of a value is its version.
//!
//! | what | key | value |
//! |---|---|---|
//! | topic | `1` u8, topic id (16 bytes) | `1` u8, partitions i32, created (ms) i64, name string, settings: count u32, then name string, text string each |
//! | producer ids | `2` u8 | `1` u8, first id that was never handed out i64 |
//!
//! A key or version that is not in this table was written by a later pelton: the replay stops with an error, because a
//! fact that is not understood cannot be kept. New facts come as new keys or new versions, and old ones stay readable.

use std::collections::BTreeMap;

use bytes::Bytes;
use pelton_wire::{DecodeError, Malformed, Reader, Writer};
use uuid::Uuid;

use crate::topic_config::Overrides;

const TOPIC: i8 = 1;
const PRODUCER_IDS: i8 = 2;
const VERSION: i8 = 1;

/// The facts of one topic, apart from its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    pub id: Uuid,
    pub name: String,
    pub partitions: i32,
    pub created_ms: i64,
    pub overrides: Overrides,
}

/// One change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The topic is there, with these facts.
    Topic(TopicFacts),
    /// The topic of this id is gone.
    TopicGone(Uuid),
    /// Producer ids below this may have been handed out.
    ProducerIds(i64),
}

/// Why a record of the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataRecordError {
    #[error(
        "it has {what} {found}, which this version of pelton does not know; start the version that wrote it"
    )]
    Unknown { what: &'static str, found: i64 },
    #[error("it is damaged: {0}")]
    Malformed(#[from] DecodeError),
}

impl From<Malformed> for MetadataRecordError {
    fn from(fact: Malformed) -> Self {
        MetadataRecordError::Malformed(DecodeError::from(fact).at("metadata", "record"))
    }
}

impl Change {
    /// Key and value of the record that says this.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = Writer::new();
        let mut value = Writer::new();
        value.i8(VERSION);
        let gone = match self {
            Change::Topic(facts) => {
                key.i8(TOPIC);
                key.put(facts.id.as_bytes());
                value.i32(facts.partitions);
                value.i64(facts.created_ms);
                put_string(&mut value, &facts.name);
                put_count(&mut value, facts.overrides.len());
                for (name, text) in &facts.overrides {
                    put_string(&mut value, name);
                    put_string(&mut value, text);
                }
                false
            }
            Change::TopicGone(id) => {
                key.i8(TOPIC);
                key.put(id.as_bytes());
                true
            }
            Change::ProducerIds(next) => {
                key.i8(PRODUCER_IDS);
                value.i64(*next);
                false
            }
        };
        (plain(key), (!gone).then(|| plain(value)))
    }

    /// Reads a record.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Change, MetadataRecordError> {
        let mut key = Reader::new(Bytes::copy_from_slice(key));
        match (key.i8()?, value) {
            (TOPIC, None) => Ok(Change::TopicGone(key.uuid()?)),
            (TOPIC, Some(value)) => topic(key.uuid()?, value).map(Change::Topic),
            (PRODUCER_IDS, Some(value)) => Ok(Change::ProducerIds(versioned(value)?.i64()?)),
            (kind, _) => Err(MetadataRecordError::Unknown { what: "key kind", found: kind.into() }),
        }
    }
}

fn plain(writer: Writer) -> Bytes {
    writer.into_bytes().expect("no external records and no frame, so no length to overflow")
}

fn put_count(w: &mut Writer, count: usize) {
    w.i32(i32::try_from(count).unwrap_or(i32::MAX));
}

fn put_string(w: &mut Writer, text: &str) {
    put_count(w, text.len());
    w.put(text.as_bytes());
}

fn versioned(value: &[u8]) -> Result<Reader, MetadataRecordError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(value));
    match reader.i8()? {
        VERSION => Ok(reader),
        other => Err(MetadataRecordError::Unknown { what: "value version", found: other.into() }),
    }
}

fn count(r: &mut Reader) -> Result<usize, MetadataRecordError> {
    let count = r.i32()?;
    usize::try_from(count).map_err(|_| Malformed::NegativeLength(count.into()).into())
}

fn string(r: &mut Reader) -> Result<String, MetadataRecordError> {
    let len = count(r)?;
    Ok(r.string(len)?)
}

fn topic(id: Uuid, value: &[u8]) -> Result<TopicFacts, MetadataRecordError> {
    let mut r = versioned(value)?;
    let (partitions, created_ms, name) = (r.i32()?, r.i64()?, string(&mut r)?);
    let mut overrides = Overrides::new();
    for _ in 0..count(&mut r)? {
        let name = string(&mut r)?;
        overrides.insert(name, string(&mut r)?);
    }
    Ok(TopicFacts { id, name, partitions, created_ms, overrides })
}

/// The facts that a replay of the metadata gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    topics: BTreeMap<Uuid, TopicFacts>,
    next_producer_id: i64,
    /// Records replayed or written since the last snapshot.
    records: usize,
}

impl Metadata {
    /// Takes in one record.
    pub fn apply(&mut self, change: &Change) {
        self.records += 1;
        match change {
            Change::Topic(facts) => {
                self.topics.insert(facts.id, facts.clone());
            }
            Change::TopicGone(id) => {
                self.topics.remove(id);
            }
            Change::ProducerIds(next) => self.next_producer_id = self.next_producer_id.max(*next),
        }
    }

    /// The topics, in the order of their ids.
    pub fn topics(&self) -> impl Iterator<Item = &TopicFacts> {
        self.topics.values()
    }

    /// The first producer id that was never handed out.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Whether so much of the log is out of date that it should be written anew. The floor keeps small brokers from
    /// rewriting at every start, the factor bounds the log to a few times its live records.
    pub fn wants_snapshot(&self) -> bool {
        const FLOOR: usize = 1000;
        const FACTOR: usize = 4;
        self.records > FLOOR.max(FACTOR * (self.topics.len() + 1))
    }

    /// Every live fact: the records of a new log.
    pub fn snapshot(&self) -> Vec<Change> {
        let topics = self.topics.values().cloned().map(Change::Topic);
        topics.chain([Change::ProducerIds(self.next_producer_id)]).collect()
    }

    /// The log now starts with a snapshot.
    pub fn snapshot_taken(&mut self) {
        self.records = self.topics.len() + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(n: u128) -> TopicFacts {
        TopicFacts {
            id: Uuid::from_u128(n),
            name: format!("topic-{n}"),
            partitions: 3,
            created_ms: 1_700_000_000_000,
            overrides: Overrides::from([
                ("retention.ms".into(), "-1".into()),
                ("cleanup.policy".into(), "compact".into()),
            ]),
        }
    }

    #[test]
    fn changes_survive_their_bytes() {
        for change in
            [Change::Topic(facts(7)), Change::TopicGone(Uuid::from_u128(9)), Change::ProducerIds(4000)]
        {
            let (key, value) = change.encode();
            assert_eq!(Change::decode(&key, value.as_deref()).unwrap(), change);
        }
    }

    #[test]
    fn the_bytes_of_version_1_are_fixed() {
        let mut topic = facts(7);
        topic.overrides.remove("retention.ms");
        let (key, value) = Change::Topic(topic).encode();
        assert_eq!(key, [&[1][..], &[0; 15], &[7]].concat());
        let expect = [
            &b"\x01\0\0\0\x03"[..],
            &1_700_000_000_000_i64.to_be_bytes(),
            b"\0\0\0\x07topic-7\0\0\0\x01\0\0\0\x0ecleanup.policy\0\0\0\x07compact",
        ]
        .concat();
        assert_eq!(value.unwrap(), expect);
        let (key, value) = Change::ProducerIds(2000).encode();
        assert_eq!((&key[..], &value.unwrap()[..]), (&[2][..], &[1, 0, 0, 0, 0, 0, 0, 0x07, 0xd0][..]));
    }

    #[test]
    fn what_a_later_version_wrote_is_refused() {
        let check = |key: &[u8], value: Option<&[u8]>, expect: &str| {
            let error = Change::decode(key, value).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&[9], Some(&[1]), "key kind 9");
        check(&[2], Some(&[2, 0]), "value version 2");
        check(&[2], None, "key kind 2");
        check(&[], None, "damaged");
        check(&[2], Some(&[1, 0]), "damaged");
        let (key, value) = Change::Topic(facts(1)).encode();
        let value = value.unwrap();
        for len in 1..value.len() {
            assert!(Change::decode(&key, Some(&value[..len])).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_snapshot_replays_to_the_same_state() {
        let mut state = Metadata::default();
        for n in 0..10 {
            state.apply(&Change::Topic(facts(n)));
        }
        for n in 0..2000 {
            state.apply(&Change::ProducerIds(n * 1000));
        }
        state.apply(&Change::TopicGone(Uuid::from_u128(3)));
        assert!(state.wants_snapshot());
        let mut replayed = Metadata::default();
        state.snapshot().iter().for_each(|change| replayed.apply(change));
        state.snapshot_taken();
        assert_eq!(replayed, state);
        assert!(!state.wants_snapshot());
        assert_eq!((replayed.topics().count(), replayed.next_producer_id()), (9, 1_999_000));
    }
}
