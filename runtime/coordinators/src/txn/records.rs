//! The records of `__transaction_state`, byte for byte as Kafka writes and reads them.
//!
//! | | fields |
//! |---|---|
//! | key | i16 0, string transactional id |
//! | value, version 0 | i16 0, i64 producer id, i16 epoch, i32 time-out ms, i8 state, nullable array of (string topic, array of i32 partition), i64 updated ms, i64 start ms |
//! | value, version 1 | the same with compact strings and arrays and tagged fields: 0 previous producer id (i64), 1 next producer id (i64), 2 `transaction.version` of the client (i16) |
//!
//! A record without a value deletes. Version 1 is written, as Kafka does from `transaction.version=1` on.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::state::{NO_EPOCH, NO_PRODUCER_ID, Transaction, TxnState};
use crate::group::types::TopicPartition;
use pelton_partitions::producer_id::ProducerIdentity;

const KEY: i16 = 0;
/// First version with compact strings and tagged fields.
const FLEXIBLE: i16 = 1;
const PREVIOUS_PRODUCER_ID: u32 = 0;
const NEXT_PRODUCER_ID: u32 = 1;
const CLIENT_VERSION: u32 = 2;
/// Longest transactional id that a key can hold, in bytes.
pub(super) const ID_BYTES_MAX: usize = i16::MAX as usize;

/// Why a record does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record ends within a field")]
    Truncated,
    #[error("a string is not UTF-8, a length is beyond the record, or a state has no name")]
    Malformed,
    #[error("its value has version {0}, which is newer than this program")]
    Version(i16),
}

/// The key of a transactional id, which has at most [`ID_BYTES_MAX`] bytes.
pub(super) fn encode_key(id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + id.len());
    out.put_i16(KEY);
    out.put_u16(id.len() as u16);
    out.put_slice(id.as_bytes());
    out.freeze()
}

/// The thing that a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A transactional id.
    Transaction(Arc<str>),
    /// A kind of record that other coordinators write.
    Other(i16),
}

/// The thing that a record's key names.
pub(super) fn decode_key(mut key: &[u8]) -> Result<Key, RecordError> {
    let version = key.try_get_i16().map_err(|_| RecordError::Truncated)?;
    if version != KEY {
        return Ok(Key::Other(version));
    }
    let len = key.try_get_u16().map_err(|_| RecordError::Truncated)?;
    string(&mut key, usize::from(len)).map(|id| Key::Transaction(id.into()))
}

/// The value of a transaction.
pub(super) fn encode_value(txn: &Transaction) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(FLEXIBLE);
    out.put_i64(txn.producer.id);
    out.put_i16(txn.producer.epoch);
    out.put_i32(txn.timeout_ms);
    out.put_i8(txn.state as i8);
    if txn.state == TxnState::Empty {
        put_varint(&mut out, 0);
    } else {
        put_partitions(&mut out, &txn.partitions);
    }
    out.put_i64(txn.updated_ms);
    out.put_i64(txn.start_ms);
    let mut tags: Vec<(u32, Bytes)> = Vec::new();
    for (tag, id) in
        [(PREVIOUS_PRODUCER_ID, txn.previous_producer_id), (NEXT_PRODUCER_ID, txn.next_producer_id)]
    {
        if id != NO_PRODUCER_ID {
            tags.push((tag, Bytes::copy_from_slice(&id.to_be_bytes())));
        }
    }
    if txn.client_version != 0 {
        tags.push((CLIENT_VERSION, Bytes::copy_from_slice(&txn.client_version.to_be_bytes())));
    }
    put_varint(&mut out, tags.len() as u32);
    for (tag, data) in tags {
        put_varint(&mut out, tag);
        put_varint(&mut out, data.len() as u32);
        out.put_slice(&data);
    }
    out.freeze()
}

fn put_partitions(out: &mut BytesMut, partitions: &BTreeSet<TopicPartition>) {
    let topics = by_topic(partitions);
    put_varint(out, topics.len() as u32 + 1);
    for (topic, indexes) in topics {
        put_varint(out, topic.len() as u32 + 1);
        out.put_slice(topic.as_bytes());
        put_varint(out, indexes.len() as u32 + 1);
        indexes.iter().for_each(|index| out.put_i32(*index));
        put_varint(out, 0);
    }
}

/// Partitions by topic, both in order.
pub fn by_topic(partitions: &BTreeSet<TopicPartition>) -> Vec<(&str, Vec<i32>)> {
    let mut topics: Vec<(&str, Vec<i32>)> = Vec::new();
    for at in partitions {
        match topics.last_mut() {
            Some((topic, indexes)) if *topic == &*at.topic => indexes.push(at.partition),
            _ => topics.push((&at.topic, vec![at.partition])),
        }
    }
    topics
}

/// The transaction of a key and its value.
pub(super) fn decode_value(id: Arc<str>, mut value: &[u8]) -> Result<Transaction, RecordError> {
    let from = &mut value;
    let version = from.try_get_i16().map_err(|_| RecordError::Truncated)?;
    if !(0..=FLEXIBLE).contains(&version) {
        return Err(RecordError::Version(version));
    }
    let flexible = version == FLEXIBLE;
    let short = |_| RecordError::Truncated;
    let producer_id = from.try_get_i64().map_err(short)?;
    let epoch = from.try_get_i16().map_err(short)?;
    let timeout_ms = from.try_get_i32().map_err(short)?;
    let number = from.try_get_i8().map_err(short)?;
    let state =
        TxnState::ALL.into_iter().find(|state| *state as i8 == number).ok_or(RecordError::Malformed)?;
    let partitions = partitions(from, flexible)?;
    let updated_ms = from.try_get_i64().map_err(short)?;
    let start_ms = from.try_get_i64().map_err(short)?;
    let mut txn = Transaction {
        id,
        producer: ProducerIdentity { id: producer_id, epoch },
        previous_producer_id: NO_PRODUCER_ID,
        next_producer_id: NO_PRODUCER_ID,
        last_epoch: NO_EPOCH,
        timeout_ms,
        state,
        partitions,
        start_ms,
        updated_ms,
        client_version: 0,
    };
    if flexible {
        tags(from, |tag, mut data| {
            match tag {
                PREVIOUS_PRODUCER_ID => txn.previous_producer_id = data.try_get_i64().map_err(short)?,
                NEXT_PRODUCER_ID => txn.next_producer_id = data.try_get_i64().map_err(short)?,
                CLIENT_VERSION => txn.client_version = data.try_get_i16().map_err(short)?,
                // Of a newer version, which says by this that it can be passed over.
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(txn)
}

fn partitions(from: &mut &[u8], flexible: bool) -> Result<BTreeSet<TopicPartition>, RecordError> {
    let mut all = BTreeSet::new();
    for _ in 0..array_len(from, flexible)? {
        let len = if flexible {
            (varint(from)? as usize).checked_sub(1).ok_or(RecordError::Malformed)?
        } else {
            usize::from(from.try_get_u16().map_err(|_| RecordError::Truncated)?)
        };
        let topic: Arc<str> = string(from, len)?.into();
        for _ in 0..array_len(from, flexible)? {
            let partition = from.try_get_i32().map_err(|_| RecordError::Truncated)?;
            all.insert(TopicPartition { topic: Arc::clone(&topic), partition });
        }
        if flexible {
            tags(from, |_, _| Ok(()))?;
        }
    }
    Ok(all)
}

/// Elements of an array; a null one has none. What is counted has to come, so nothing is allocated for a claim.
fn array_len(from: &mut &[u8], flexible: bool) -> Result<u32, RecordError> {
    if flexible {
        return Ok(varint(from)?.saturating_sub(1));
    }
    let len = from.try_get_i32().map_err(|_| RecordError::Truncated)?;
    Ok(u32::try_from(len).unwrap_or(0))
}

fn tags(
    from: &mut &[u8],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    for _ in 0..varint(from)? {
        let (tag, len) = (varint(from)?, varint(from)? as usize);
        let data = from.split_off(..len).ok_or(RecordError::Truncated)?;
        each(tag, data)?;
    }
    Ok(())
}

fn string<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a str, RecordError> {
    let bytes = from.split_off(..len).ok_or(RecordError::Truncated)?;
    std::str::from_utf8(bytes).map_err(|_| RecordError::Malformed)
}

fn put_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint(from: &mut &[u8]) -> Result<u32, RecordError> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let byte = from.try_get_u8().map_err(|_| RecordError::Truncated)?;
        value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RecordError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Transaction {
        let at = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
        Transaction {
            previous_producer_id: 9,
            state: TxnState::Ongoing,
            partitions: [at("a", 1), at("a", 3), at("b", 0)].into(),
            start_ms: 5,
            client_version: 2,
            ..Transaction::new("tx".into(), 7, 60_000, 6)
        }
    }

    #[test]
    fn a_value_is_kafkas() {
        let mut expect = b"\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0\xea\x60\x01".to_vec();
        expect.extend(b"\x03\x02a\x03\0\0\0\x01\0\0\0\x03\0\x02b\x02\0\0\0\0\0");
        expect.extend(b"\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x05");
        expect.extend(b"\x02\0\x08\0\0\0\0\0\0\0\x09\x02\x02\0\x02");
        assert_eq!(encode_value(&example()), expect);
        assert_eq!(encode_key("tx"), b"\0\0\0\x02tx"[..]);
    }

    #[test]
    fn what_is_written_is_read() {
        let example = example();
        let empty = Transaction::new("tx".into(), 7, 60_000, 6);
        for txn in [example.clone(), empty, Transaction { next_producer_id: 3, ..example }] {
            assert_eq!(decode_key(&encode_key(&txn.id)), Ok(Key::Transaction(Arc::clone(&txn.id))));
            assert_eq!(decode_value(Arc::clone(&txn.id), &encode_value(&txn)), Ok(txn));
        }
    }

    #[test]
    fn version_0_is_read() {
        let mut value = b"\0\0\0\0\0\0\0\0\0\x07\0\x02\0\0\xea\x60\x04".to_vec();
        value.extend(b"\0\0\0\x01\0\x01a\0\0\0\x01\0\0\0\x03");
        value.extend(b"\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x05");
        let txn = decode_value("tx".into(), &value).unwrap();
        assert_eq!((txn.producer.epoch, txn.state, txn.start_ms), (2, TxnState::CompleteCommit, 5));
        assert_eq!(by_topic(&txn.partitions), [("a", vec![3])]);
        value[16..21].copy_from_slice(b"\0\xff\xff\xff\xff");
        assert!(decode_value("tx".into(), &value).is_ok_and(|txn| txn.partitions.is_empty()));
    }

    #[test]
    fn damage_is_an_error() {
        let whole = encode_value(&example());
        for len in 0..whole.len() {
            assert!(decode_value("tx".into(), &whole[..len]).is_err(), "{len} bytes");
        }
        let mut bad = whole.to_vec();
        bad[16] = 77;
        assert_eq!(decode_value("tx".into(), &bad), Err(RecordError::Malformed));
        assert_eq!(decode_value("tx".into(), b"\0\x09"), Err(RecordError::Version(9)));
        assert_eq!(decode_key(b"\0\x05"), Ok(Key::Other(5)));
        assert_eq!(decode_key(b"\0"), Err(RecordError::Truncated));
        assert_eq!(decode_key(b"\0\0\0\x09ab"), Err(RecordError::Truncated));
    }
}
