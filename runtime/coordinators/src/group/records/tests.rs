//! Golden bytes: what is here was laid out by hand from Kafka's schemas, and never changes.

use super::*;

/// Bytes written as hexadecimal digits, with spaces between fields.
fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect::<Vec<u8>>()
        .into()
}

fn at() -> TopicPartition {
    TopicPartition { topic: Arc::from("flights"), partition: 3 }
}

fn offset() -> CommittedOffset {
    CommittedOffset {
        offset: 258,
        leader_epoch: 5,
        metadata: "hé".to_owned(),
        commit_timestamp_ms: 0x0102_0304_0506,
        expire_timestamp_ms: None,
        record_offset: 9,
    }
}

fn group() -> GroupMetadata {
    GroupMetadata {
        protocol_type: "consumer".to_owned(),
        generation: 2,
        protocol: Some("range".to_owned()),
        leader: Some("m-1".to_owned()),
        state_since_ms: 1000,
        members: vec![MemberMetadata {
            member_id: "m-1".to_owned(),
            group_instance_id: Some("i".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: 300_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[1, 2]),
            assignment: Bytes::from_static(&[3]),
        }],
    }
}

const OFFSET_KEY_HEX: &str = "0001 0001 67 0007 666c6967687473 00000003";
const OFFSET_V3_HEX: &str = "0003 0000000000000102 00000005 0003 68c3a9 0000010203040506";
const GROUP_KEY_HEX: &str = "0002 0001 67";
const GROUP_V3_HEX: &str =
    "0003 0008 636f6e73756d6572 00000002 0005 72616e6765 0003 6d2d31 00000000000003e8 00000001
    0003 6d2d31 0001 69 0001 63 000a 2f3132372e302e302e31 000493e0 0000afc8 00000002 0102 00000001 03";

#[test]
fn records_are_written_as_kafka_writes_them() {
    let g: GroupId = Arc::from("g");
    let offset_record = |value| GroupRecord::Offset { group: g.clone(), at: at(), value };
    let group_record = |value| GroupRecord::Metadata { group: g.clone(), value };
    let expiring = CommittedOffset { expire_timestamp_ms: Some(7), ..offset() };
    let empty = GroupMetadata { protocol: None, leader: None, members: vec![], ..group() };
    for (record, key, value) in [
        (offset_record(Some(offset())), OFFSET_KEY_HEX, Some(OFFSET_V3_HEX)),
        (
            offset_record(Some(expiring)),
            OFFSET_KEY_HEX,
            Some("0001 0000000000000102 0003 68c3a9 0000010203040506 0000000000000007"),
        ),
        (offset_record(None), OFFSET_KEY_HEX, None),
        (group_record(Some(group())), GROUP_KEY_HEX, Some(GROUP_V3_HEX)),
        (
            group_record(Some(empty)),
            GROUP_KEY_HEX,
            Some("0003 0008 636f6e73756d6572 00000002 ffff ffff 00000000000003e8 00000000"),
        ),
        (group_record(None), GROUP_KEY_HEX, None),
    ] {
        assert_eq!(encode(&record), Ok((hex(key), value.map(hex))), "{record:?}");
    }
}

#[test]
fn keys_are_read() {
    let check =
        |key: &str, expect: Result<Key, RecordError>| assert_eq!(decode_key(hex(key)), expect, "{key}");
    let g: GroupId = Arc::from("g");
    check(OFFSET_KEY_HEX, Ok(Key::Offset { group: g.clone(), at: at() }));
    check("0000 0001 67 0007 666c6967687473 00000003", Ok(Key::Offset { group: g.clone(), at: at() }));
    check(GROUP_KEY_HEX, Ok(Key::Group(g)));
    check("0003 0001 67", Ok(Key::Other(3)));
    check("00", Err(RecordError::Truncated));
    check("0002 0002 67", Err(RecordError::Truncated));
    check("0002 ffff", Err(RecordError::Malformed));
    check("0002 fffe", Err(RecordError::Malformed));
    check("0002 0001 ff", Err(RecordError::Malformed));
}

#[test]
fn offsets_of_all_versions_are_read() {
    let check = |value: &str, expect: Result<CommittedOffset, RecordError>| {
        assert_eq!(decode_offset(hex(value), 9), expect, "{value}");
    };
    let no_epoch = CommittedOffset { leader_epoch: -1, ..offset() };
    let old = "0000000000000102 0003 68c3a9 0000010203040506";
    check(&format!("0000 {old}"), Ok(no_epoch.clone()));
    let expiring = CommittedOffset { expire_timestamp_ms: Some(7), ..no_epoch.clone() };
    check(&format!("0001 {old} 0000000000000007"), Ok(expiring));
    check(&format!("0001 {old} ffffffffffffffff"), Ok(no_epoch.clone()));
    check(&format!("0002 {old}"), Ok(no_epoch));
    check(OFFSET_V3_HEX, Ok(offset()));
    check("0004 0000000000000102 00000005 04 68c3a9 0000010203040506 00", Ok(offset()));
    // A tagged field of a later Kafka: the topic id.
    let topic_id = "01 00 10 000102030405060708090a0b0c0d0e0f";
    check(&format!("0004 0000000000000102 00000005 04 68c3a9 0000010203040506 {topic_id}"), Ok(offset()));
    check("0005", Err(RecordError::Version(5)));
    check("ffff", Err(RecordError::Version(-1)));
    check("0003 00", Err(RecordError::Truncated));
    check("0004 0000000000000102 00000005 ffffffff7f", Err(RecordError::Truncated));
}

#[test]
fn groups_of_all_versions_are_read() {
    let check = |value: &str, expect: Result<GroupMetadata, RecordError>| {
        assert_eq!(decode_group(hex(value)), expect, "{value}");
    };
    let mut expect = group();
    check(GROUP_V3_HEX, Ok(expect.clone()));
    check(
        "0004 09 636f6e73756d6572 00000002 06 72616e6765 04 6d2d31 00000000000003e8 02
         04 6d2d31 02 69 02 63 0b 2f3132372e302e302e31 000493e0 0000afc8 03 0102 02 03 00 00",
        Ok(expect.clone()),
    );
    let head = "0008 636f6e73756d6572 00000002 0005 72616e6765 0003 6d2d31";
    let name = "0003 6d2d31 0001 63 000a 2f3132372e302e302e31";
    let tail = "0000afc8 00000002 0102 00000001 03";
    expect.members[0].group_instance_id = None;
    check(&format!("0002 {head} 00000000000003e8 00000001 {name} 000493e0 {tail}"), Ok(expect.clone()));
    expect.state_since_ms = -1;
    check(&format!("0001 {head} 00000001 {name} 000493e0 {tail}"), Ok(expect.clone()));
    expect.members[0].rebalance_timeout_ms = 45_000;
    check(&format!("0000 {head} 00000001 {name} {tail}"), Ok(expect));
    check(&format!("0003 {head} 00000000000003e8 7fffffff"), Err(RecordError::Truncated));
    check(&format!("0003 {head} 00000000000003e8 ffffffff"), Err(RecordError::Malformed));
}

#[test]
fn a_name_that_no_record_can_hold_is_refused() {
    let record = GroupRecord::Metadata { group: Arc::from("x".repeat(40_000)), value: None };
    assert_eq!(encode(&record), Err(TooLong { bytes: 40_000 }));
}

#[test]
fn no_cut_of_a_record_panics() {
    for whole in [OFFSET_V3_HEX, GROUP_V3_HEX] {
        let bytes = hex(whole);
        for len in 0..bytes.len() {
            assert!(decode_group(bytes.slice(..len)).is_err());
            assert!(decode_offset(bytes.slice(..len), 0).is_err() || whole == GROUP_V3_HEX);
        }
    }
}
