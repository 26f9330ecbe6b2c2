//! Every (API, version), request and response, against two other codecs: what we write they read and write back byte
//! for byte, and what they write we read.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable, Message as OtherMessage};
use kafka_wire::KafkaMessage;
use kafka_wire_core::{ApiVersion, DecodeLimits};
use pelton_wire::api::{ApiKey, range};
use pelton_wire::codec::{Field, Reader, Writer};
use pelton_wire::fuzzing::{Sampler, sample};
use pelton_wire::message::{self, Message};

/// Messages made for each (API, version, direction).
const SAMPLES: u64 = 60;

/// Versions that the crate `kafka-protocol` (Kafka 4.1) does not have.
const NOT_IN_KAFKA_PROTOCOL: &[(ApiKey, i16)] = &[
    (ApiKey::ListOffsets, 11),
    (ApiKey::OffsetCommit, 10),
    (ApiKey::OffsetFetch, 10),
    (ApiKey::ApiVersions, 5),
    (ApiKey::WriteTxnMarkers, 2),
];

/// Versions that the crate `kafka-wire` (Kafka trunk of 2026) does not have.
const NOT_IN_KAFKA_WIRE: &[(ApiKey, i16)] = &[];

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version).expect("we write it");
    w.into_bytes().expect("it has no external records")
}

fn decode<M: Message>(bytes: Bytes, version: i16) -> M {
    let mut r = Reader::new(bytes);
    let message = M::decode(&mut r, version).expect("we read it");
    r.finish().expect("we read all of it");
    message
}

/// Through `kafka-protocol` and back.
fn through_kafka_protocol<M: Encodable + Decodable>(mut bytes: Bytes, version: i16) -> Bytes {
    let message = M::decode(&mut bytes, version).expect("kafka-protocol reads it");
    assert!(bytes.is_empty(), "kafka-protocol leaves {} bytes", bytes.len());
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("kafka-protocol writes it");
    out.freeze()
}

/// Through `kafka-wire` and back.
fn through_kafka_wire<M: KafkaMessage>(bytes: Bytes, version: i16) -> Bytes {
    let version = ApiVersion::new(version);
    let message = M::decode_from_bytes(bytes, version, DecodeLimits::default()).expect("kafka-wire reads it");
    message.encode_to_bytes(version).expect("kafka-wire writes it")
}

fn in_kafka_protocol<M: OtherMessage>(version: i16) -> bool {
    (M::VERSIONS.min..=M::VERSIONS.max).contains(&version)
}

fn in_kafka_wire<M: KafkaMessage>(version: i16) -> bool {
    M::supports(ApiVersion::new(version))
}

/// One message type against both oracles, in every version.
fn check<Ours, P, W>(key: ApiKey)
where
    Ours: Message + Field + PartialEq + std::fmt::Debug,
    P: Encodable + Decodable + OtherMessage + Default,
    W: KafkaMessage + Default,
{
    for version in range(key).min_decoded..=range(key).max {
        let check_one = |message: Ours, what: &str| {
            let bytes = encode(&message, version);
            assert_eq!(decode::<Ours>(bytes.clone(), version), message, "{key:?} v{version} {what}");
            if in_kafka_protocol::<P>(version) {
                let back = through_kafka_protocol::<P>(bytes.clone(), version);
                assert_eq!(back, bytes, "{key:?} v{version} {what}: kafka-protocol, {message:#?}");
            }
            if in_kafka_wire::<W>(version) {
                let back = through_kafka_wire::<W>(bytes.clone(), version);
                assert_eq!(back, bytes, "{key:?} v{version} {what}: kafka-wire, {message:#?}");
            }
        };
        let flexible = range(key).is_flexible(version);
        for seed in 0..SAMPLES {
            check_one(sample(&mut Sampler::new(seed), version, flexible), &format!("sample {seed}"));
            check_one(sample(&mut Sampler::small(seed), version, flexible), &format!("small sample {seed}"));
        }
        check_one(Ours::default(), "default");
        check_defaults::<Ours, P, W>(key, version);
    }
}

/// The defaults of the three codecs are the same message, and ours after reading theirs.
fn check_defaults<Ours, P, W>(key: ApiKey, version: i16)
where
    Ours: Message + PartialEq + std::fmt::Debug,
    P: Encodable + OtherMessage + Default,
    W: KafkaMessage + Default,
{
    let ours = encode(&Ours::default(), version);
    if in_kafka_protocol::<P>(version) {
        let mut theirs = BytesMut::new();
        P::default().encode(&mut theirs, version).expect("kafka-protocol writes its default");
        assert_eq!(ours, theirs, "{key:?} v{version}: default of kafka-protocol");
    }
    if in_kafka_wire::<W>(version) {
        let theirs =
            W::default().encode_to_bytes(ApiVersion::new(version)).expect("kafka-wire writes its default");
        assert_eq!(ours, theirs, "{key:?} v{version}: default of kafka-wire");
    }
    assert_eq!(decode::<Ours>(ours, version), Ours::default(), "{key:?} v{version}");
}

macro_rules! oracle_tests {
    ($($key:ident $request:ident $response:ident,)*) => {
        mod api {
            use super::*;
            $(
                #[test]
                fn $key() {
                    check::<message::$request, kafka_protocol::messages::$request, kafka_wire::$request>(ApiKey::$key);
                    check::<message::$response, kafka_protocol::messages::$response, kafka_wire::$response>(ApiKey::$key);
                }
            )*
        }

        /// Per (API, version): whether each oracle has request and response.
        fn coverage() -> Vec<(ApiKey, i16, bool, bool)> {
            let mut all = Vec::new();
            $(
                for version in range(ApiKey::$key).min_decoded..=range(ApiKey::$key).max {
                    all.push((
                        ApiKey::$key,
                        version,
                        in_kafka_protocol::<kafka_protocol::messages::$request>(version)
                            && in_kafka_protocol::<kafka_protocol::messages::$response>(version),
                        in_kafka_wire::<kafka_wire::$request>(version)
                            && in_kafka_wire::<kafka_wire::$response>(version),
                    ));
                }
            )*
            all
        }
    };
}

pelton_wire::for_each_api!(oracle_tests);

#[test]
fn every_version_has_an_oracle() {
    let coverage = coverage();
    let missing = |of: fn(&(ApiKey, i16, bool, bool)) -> bool| -> Vec<(ApiKey, i16)> {
        coverage.iter().filter(|row| !of(row)).map(|row| (row.0, row.1)).collect()
    };
    assert_eq!(missing(|row| row.2), NOT_IN_KAFKA_PROTOCOL);
    assert_eq!(missing(|row| row.3), NOT_IN_KAFKA_WIRE);
    assert_eq!(missing(|row| row.2 || row.3), []);
    let keys: std::collections::BTreeSet<_> = coverage.iter().map(|row| row.0).collect();
    assert_eq!(keys.len(), ApiKey::ALL.len(), "every API is compared");
}

/// A field of a later version must be skipped, not refused.
#[test]
fn unknown_tagged_fields_are_skipped() {
    for (key, version) in coverage().into_iter().map(|row| (row.0, row.1)) {
        if !range(key).is_flexible(version) {
            continue;
        }
        for_both(key, version);
    }
}

macro_rules! unknown_tags {
    ($($key:ident $request:ident $response:ident,)*) => {
        fn for_both(key: ApiKey, version: i16) {
            match key {
                $(ApiKey::$key => {
                    check_unknown_tags::<message::$request>(version);
                    check_unknown_tags::<message::$response>(version);
                })*
            }
        }
    };
}

pelton_wire::for_each_api!(unknown_tags);

fn check_unknown_tags<M: Message + PartialEq + std::fmt::Debug>(version: i16) {
    // A message of defaults ends with its own empty section of tagged fields.
    let mut bytes = encode(&M::default(), version).to_vec();
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend([2, 100, 3, 1, 2, 3, 0xe4, 0x4e, 0]);
    assert_eq!(decode::<M>(bytes.into(), version), M::default());
}

/// The error codes and which of them are retriable.
#[test]
fn error_codes_agree() {
    // Kafka's client retries these; the table of kafka-protocol has not followed it.
    const RETRIABLE_SINCE: &[i16] = &[51];
    for code in -1..=133 {
        let ours = pelton_wire::ErrorCode(code);
        let Some(theirs) = kafka_protocol::ResponseError::try_from_code(code) else {
            assert!(ours.is_ok());
            continue;
        };
        let name = ours.name().replace('_', "").to_lowercase();
        assert_eq!(name, format!("{theirs:?}").to_lowercase());
        assert_eq!(ours.is_retriable(), theirs.is_retriable() || RETRIABLE_SINCE.contains(&code), "{ours}");
    }
}
