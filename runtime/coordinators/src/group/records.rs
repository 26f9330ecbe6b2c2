//! The records of `__consumer_offsets`, byte for byte as Kafka writes and reads them.
//!
//! | record | key | value |
//! |---|---|---|
//! | committed offset | i16 1 (0 in old logs), string group, string topic, i32 partition | versions 0 to 4 |
//! | group | i16 2, string group | versions 0 to 4 |
//!
//! A record without a value deletes. Written are the versions that every Kafka since 2.3 reads: an offset as version 3,
//! or 1 when it has an expiry of its own; a group as version 3. Version 4 has compact strings and tagged fields.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::offsets::CommittedOffset;
use super::types::{GroupId, GroupRecord, TopicPartition};

const OFFSET_KEY: i16 = 1;
const OFFSET_KEY_OLD: i16 = 0;
const GROUP_KEY: i16 = 2;
/// First version with compact strings and tagged fields, of both values.
const FLEXIBLE: i16 = 4;

/// The members of a group and its generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// −1 in records of version 0 and 1.
    pub state_since_ms: i64,
    pub members: Vec<MemberMetadata>,
}

/// One member with its assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// A field is longer than its length prefix can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field of {bytes} bytes does not fit into a record of `__consumer_offsets`")]
pub(super) struct TooLong {
    bytes: usize,
}

/// Why a record does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record ends within a field")]
    Truncated,
    #[error("a string is not UTF-8, or a length is negative or beyond the record")]
    Malformed,
    #[error("its value has version {0}, which is newer than this program")]
    Version(i16),
}

/// The thing that a key names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Offset {
        group: GroupId,
        at: TopicPartition,
    },
    Group(GroupId),
    /// A kind of record that other coordinators write.
    Other(i16),
}

/// The key and value of a record.
pub(super) fn encode(record: &GroupRecord) -> Result<(Bytes, Option<Bytes>), TooLong> {
    let mut key = BytesMut::new();
    let value = match record {
        GroupRecord::Offset { group, at, value } => {
            key.put_i16(OFFSET_KEY);
            put_string(&mut key, group)?;
            put_string(&mut key, &at.topic)?;
            key.put_i32(at.partition);
            value.as_ref().map(offset_value).transpose()?
        }
        GroupRecord::Metadata { group, value } => {
            key.put_i16(GROUP_KEY);
            put_string(&mut key, group)?;
            value.as_ref().map(group_value).transpose()?
        }
    };
    Ok((key.freeze(), value))
}

fn offset_value(value: &CommittedOffset) -> Result<Bytes, TooLong> {
    let mut out = BytesMut::new();
    // Version 1 alone has a place for an expiry.
    out.put_i16(if value.expire_timestamp_ms.is_some() { 1 } else { 3 });
    out.put_i64(value.offset);
    if value.expire_timestamp_ms.is_none() {
        out.put_i32(value.leader_epoch);
    }
    put_string(&mut out, &value.metadata)?;
    out.put_i64(value.commit_timestamp_ms);
    if let Some(at) = value.expire_timestamp_ms {
        out.put_i64(at);
    }
    Ok(out.freeze())
}

fn group_value(value: &GroupMetadata) -> Result<Bytes, TooLong> {
    let mut out = BytesMut::new();
    out.put_i16(3);
    put_string(&mut out, &value.protocol_type)?;
    out.put_i32(value.generation);
    put_nullable(&mut out, value.protocol.as_deref())?;
    put_nullable(&mut out, value.leader.as_deref())?;
    out.put_i64(value.state_since_ms);
    out.put_i32(i32::try_from(value.members.len()).map_err(|_| TooLong { bytes: value.members.len() })?);
    for member in &value.members {
        put_string(&mut out, &member.member_id)?;
        put_nullable(&mut out, member.group_instance_id.as_deref())?;
        put_string(&mut out, &member.client_id)?;
        put_string(&mut out, &member.client_host)?;
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription)?;
        put_bytes(&mut out, &member.assignment)?;
    }
    Ok(out.freeze())
}

fn put_string(out: &mut BytesMut, text: &str) -> Result<(), TooLong> {
    out.put_i16(i16::try_from(text.len()).map_err(|_| TooLong { bytes: text.len() })?);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) -> Result<(), TooLong> {
    match text {
        Some(text) => put_string(out, text),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) -> Result<(), TooLong> {
    out.put_i32(i32::try_from(bytes.len()).map_err(|_| TooLong { bytes: bytes.len() })?);
    out.put_slice(bytes);
    Ok(())
}

/// The thing that a record's key names.
pub(super) fn decode_key(key: Bytes) -> Result<Key, RecordError> {
    let mut fields = Fields { bytes: key, flexible: false };
    match fields.i16()? {
        OFFSET_KEY_OLD | OFFSET_KEY => {
            let group = Arc::from(fields.string()?);
            let topic = Arc::from(fields.string()?);
            Ok(Key::Offset { group, at: TopicPartition { topic, partition: fields.i32()? } })
        }
        GROUP_KEY => Ok(Key::Group(Arc::from(fields.string()?))),
        other => Ok(Key::Other(other)),
    }
}

/// The value of an offset record that is at `record_offset` in its log.
pub(super) fn decode_offset(value: Bytes, record_offset: i64) -> Result<CommittedOffset, RecordError> {
    let (mut fields, version) = Fields::versioned(value)?;
    let offset = fields.i64()?;
    let leader_epoch = if version >= 3 { fields.i32()? } else { -1 };
    let metadata = fields.string()?;
    let commit_timestamp_ms = fields.i64()?;
    let expire_timestamp_ms = if version == 1 { Some(fields.i64()?).filter(|at| *at >= 0) } else { None };
    Ok(CommittedOffset {
        offset,
        leader_epoch,
        metadata,
        commit_timestamp_ms,
        expire_timestamp_ms,
        record_offset,
    })
}

/// The value of a group record.
pub(super) fn decode_group(value: Bytes) -> Result<GroupMetadata, RecordError> {
    let (mut fields, version) = Fields::versioned(value)?;
    let protocol_type = fields.string()?;
    let generation = fields.i32()?;
    let protocol = fields.nullable_string()?;
    let leader = fields.nullable_string()?;
    let state_since_ms = if version >= 2 { fields.i64()? } else { -1 };
    let count = fields.count()?;
    let members = (0..count).map(|_| member(&mut fields, version)).collect::<Result<_, _>>()?;
    Ok(GroupMetadata { protocol_type, generation, protocol, leader, state_since_ms, members })
}

fn member(fields: &mut Fields, version: i16) -> Result<MemberMetadata, RecordError> {
    let member_id = fields.string()?;
    let group_instance_id = if version >= 3 { fields.nullable_string()? } else { None };
    let client_id = fields.string()?;
    let client_host = fields.string()?;
    let rebalance = if version >= 1 { Some(fields.i32()?) } else { None };
    let session_timeout_ms = fields.i32()?;
    let subscription = fields.bytes()?;
    let assignment = fields.bytes()?;
    fields.tags()?;
    Ok(MemberMetadata {
        member_id,
        group_instance_id,
        client_id,
        client_host,
        // Before there was a time-out of its own, the session's was used.
        rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}

/// Reads fields one after the other, never past the end.
struct Fields {
    bytes: Bytes,
    flexible: bool,
}

impl Fields {
    fn versioned(bytes: Bytes) -> Result<(Fields, i16), RecordError> {
        let mut fields = Fields { bytes, flexible: false };
        let version = fields.i16()?;
        if !(0..=FLEXIBLE).contains(&version) {
            return Err(RecordError::Version(version));
        }
        fields.flexible = version >= FLEXIBLE;
        Ok((fields, version))
    }

    fn i16(&mut self) -> Result<i16, RecordError> {
        self.bytes.try_get_i16().map_err(|_| RecordError::Truncated)
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        self.bytes.try_get_i32().map_err(|_| RecordError::Truncated)
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        self.bytes.try_get_i64().map_err(|_| RecordError::Truncated)
    }

    fn uvarint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.bytes.try_get_u8().map_err(|_| RecordError::Truncated)?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError::Malformed)
    }

    /// A length, or `None` for null.
    fn len(&mut self, wide: bool) -> Result<Option<usize>, RecordError> {
        let len = match (self.flexible, wide) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        match len {
            -1 => Ok(None),
            _ => usize::try_from(len).map(Some).map_err(|_| RecordError::Malformed),
        }
    }

    fn take(&mut self, len: usize) -> Result<Bytes, RecordError> {
        if len > self.bytes.remaining() {
            return Err(RecordError::Truncated);
        }
        Ok(self.bytes.split_to(len))
    }

    fn nullable_string(&mut self) -> Result<Option<String>, RecordError> {
        let Some(len) = self.len(false)? else { return Ok(None) };
        let bytes = self.take(len)?;
        String::from_utf8(bytes.into()).map(Some).map_err(|_| RecordError::Malformed)
    }

    fn string(&mut self) -> Result<String, RecordError> {
        self.nullable_string()?.ok_or(RecordError::Malformed)
    }

    fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let len = self.len(true)?.ok_or(RecordError::Malformed)?;
        self.take(len)
    }

    /// A count of members, each of which takes more than one byte.
    fn count(&mut self) -> Result<usize, RecordError> {
        let count = self.len(true)?.ok_or(RecordError::Malformed)?;
        if count > self.bytes.remaining() { Err(RecordError::Truncated) } else { Ok(count) }
    }

    /// Skips fields that later programs have added.
    fn tags(&mut self) -> Result<(), RecordError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()?;
            self.take(usize::try_from(len).map_err(|_| RecordError::Malformed)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
