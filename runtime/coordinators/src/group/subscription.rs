//! The part of a consumer's protocol metadata that the coordinator reads: which topics it is subscribed to. Kafka's
//! `ConsumerProtocolSubscription`: a version, then an array of topic names, then fields that later versions added.

use bytes::{Buf, Bytes};

/// The topics of a subscription; `None` when the bytes are not one.
pub(super) fn topics(metadata: Bytes) -> Option<Vec<String>> {
    let mut bytes = metadata;
    let version = bytes.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    // A name takes two bytes at least: a count beyond that is not one.
    if count > bytes.remaining() / 2 {
        return None;
    }
    (0..count).map(|_| string(&mut bytes)).collect()
}

fn string(bytes: &mut Bytes) -> Option<String> {
    let len = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    if len > bytes.remaining() {
        return None;
    }
    String::from_utf8(bytes.split_to(len).into()).ok()
}

/// A version 0 subscription, for tests.
#[cfg(test)]
pub(super) fn of(topics: &[&str]) -> Bytes {
    use bytes::BufMut;
    let mut bytes = bytes::BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len().try_into().unwrap());
    for topic in topics {
        bytes.put_i16(topic.len().try_into().unwrap());
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_from_any_version_and_nothing_from_other_bytes() {
        let check = |bytes: &[u8], expect: Option<&[&str]>| {
            let expect = expect.map(|topics| topics.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
            assert_eq!(topics(Bytes::copy_from_slice(bytes)), expect, "{bytes:?}");
        };
        check(&of(&["a", "bb"]), Some(&["a", "bb"]));
        check(&of(&[]), Some(&[]));
        check(b"\0\x03\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0later", Some(&["t"]));
        check(b"", None);
        check(b"\0", None);
        check(b"\xff\xff\0\0\0\0", None);
        check(b"\0\0\x7f\xff\xff\xff", None);
        check(b"\0\0\xff\xff\xff\xff", None);
        check(b"\0\0\0\0\0\x01\0\x05ab", None);
        check(b"\0\0\0\0\0\x01\xff\xff", None);
        check(b"\0\0\0\0\0\x01\0\x01\xff", None);
    }
}
