//! The rules against what real clients did (`clients.json`), key for key.

use base64::Engine;
use pelton_partitioner::KeyRule;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Fixture {
    keys: Vec<Key>,
    clients: Vec<Client>,
    consistent: BTreeMap<u32, Vec<Option<u32>>>,
}

#[derive(Deserialize)]
struct Key {
    name: String,
    key: Option<String>,
}

#[derive(Deserialize)]
struct Client {
    client: String,
    partitioner: String,
    partitions: BTreeMap<u32, Vec<Option<u32>>>,
}

/// A key that a client sent to a topic, and the partition in which it was then, if that is fixed.
struct Row<'f> {
    client: &'f Client,
    name: &'f str,
    key: Option<&'f [u8]>,
    partitions: u32,
    partition: Option<u32>,
}

fn fixture() -> (Fixture, Vec<Option<Vec<u8>>>) {
    let fixture: Fixture = serde_json::from_str(include_str!("clients.json")).expect("is JSON");
    let decode = |text: &String| base64::engine::general_purpose::STANDARD.decode(text).expect("is base64");
    let keys = fixture.keys.iter().map(|key| key.key.as_ref().map(decode)).collect();
    (fixture, keys)
}

fn rows<'f>(fixture: &'f Fixture, keys: &'f [Option<Vec<u8>>]) -> Vec<Row<'f>> {
    let mut rows = Vec::new();
    for client in &fixture.clients {
        for (&partitions, placed) in &client.partitions {
            assert_eq!(placed.len(), keys.len(), "a partition for each key");
            for ((key, bytes), &partition) in fixture.keys.iter().zip(keys).zip(placed) {
                rows.push(Row { client, name: &key.name, key: bytes.as_deref(), partitions, partition });
            }
        }
    }
    rows
}

impl Client {
    /// The rule of a client with a setting, and whether the client takes an empty key for none.
    fn rule(&self) -> (KeyRule, bool) {
        match (self.client.as_str(), self.partitioner.as_str()) {
            ("java kafka-clients", "default (built-in)")
            | ("confluent-kafka (librdkafka)", "murmur2_random")
            | ("kafkajs", "default (DefaultPartitioner)")
            | ("aiokafka" | "kafka-python" | "franz-go", "default") => (KeyRule::Murmur2, false),
            // An empty Buffer becomes a null key on its way into librdkafka.
            ("@confluentinc/kafka-javascript", "default of the KafkaJS-like API (murmur2_random)") => {
                (KeyRule::Murmur2, true)
            }
            (
                "@confluentinc/kafka-javascript",
                "default of the node-rdkafka-like API (consistent_random)",
            )
            | ("confluent-kafka (librdkafka)", "default (consistent_random)" | "consistent_random") => {
                (KeyRule::Crc32, false)
            }
            ("sarama", "default (NewHashPartitioner)")
            | ("confluent-kafka (librdkafka)", "fnv1a_random")
            | ("franz-go", "StickyKeyPartitioner(SaramaCompatHasher(fnv32a))") => (KeyRule::Fnv1a, false),
            ("sarama", "NewReferenceHashPartitioner") => (KeyRule::SaramaReference, false),
            ("sarama", "NewConsistentCRCHashPartitioner") => (KeyRule::SaramaCrc, false),
            ("kafkajs", "LegacyPartitioner") => (KeyRule::KafkajsLegacy, false),
            other => panic!("no rule is known of {other:?}"),
        }
    }
}

#[test]
fn every_client_places_every_key_by_the_rule_that_is_said_of_it() {
    let (fixture, keys) = fixture();
    let rows = rows(&fixture, &keys);
    assert_eq!(rows.len(), 1008, "nothing of the fixture is left out");
    let mut fixed = 0;
    for row in &rows {
        let (rule, empty_is_none) = row.client.rule();
        let key = row.key.filter(|key| !(empty_is_none && key.is_empty()));
        let expect = key.and_then(|key| rule.partition(key, row.partitions));
        let Client { client, partitioner, .. } = row.client;
        assert_eq!(row.partition, expect, "{client}, {partitioner}: {} of {}", row.name, row.partitions);
        fixed += usize::from(row.partition.is_some());
    }
    // 16 clients with 3 topics: no key has a partition in any, an empty one has none with four of them.
    assert_eq!(fixed, 1008 - 16 * 3 - 4 * 3, "and most are placed");
}

/// `consistent` is what a published library gives.
#[test]
fn consistent_is_guavas_consistent_hash_of_a_siphash() {
    let (fixture, keys) = fixture();
    for (&partitions, placed) in &fixture.consistent {
        for ((key, bytes), &expect) in fixture.keys.iter().zip(&keys).zip(placed) {
            let placed = bytes.as_deref().and_then(|key| KeyRule::Consistent.partition(key, partitions));
            assert_eq!(placed, expect, "{} of {partitions}", key.name);
        }
    }
    assert_eq!(fixture.consistent.len(), 3);
}

/// A slip that is easily made in a rule.
type Slip = (&'static str, KeyRule, fn(&[u8], u32) -> Option<u32>);

/// The fixture is worth something: rules with a slip in them are contradicted by it.
#[test]
fn slips_are_found() {
    let slips: [Slip; 8] = [
        ("another rule's hash", KeyRule::Murmur2, |key, n| KeyRule::KafkajsLegacy.partition(key, n)),
        ("the sign bit is kept", KeyRule::Murmur2, |key, n| {
            // What the rule gives of 2^31 partitions is the hash without its sign bit: of all it is put back.
            Some((KeyRule::Murmur2.partition(key, 1 << 31)? | 1 << 31) % n)
        }),
        ("the sign is dropped by its bit", KeyRule::Fnv1a, |key, n| {
            KeyRule::SaramaReference.partition(key, n)
        }),
        ("the sign bit is dropped by its value", KeyRule::SaramaReference, |key, n| {
            KeyRule::Fnv1a.partition(key, n)
        }),
        ("an empty key is a key", KeyRule::Crc32, |key, n| KeyRule::SaramaCrc.partition(key, n)),
        ("an empty key is none", KeyRule::SaramaCrc, |key, n| KeyRule::Crc32.partition(key, n)),
        ("keys end at a zero byte", KeyRule::Murmur2, |key, n| {
            KeyRule::Murmur2.partition(key.split(|&byte| byte == 0).next()?, n)
        }),
        ("keys are text", KeyRule::Murmur2, |key, n| {
            KeyRule::Murmur2.partition(String::from_utf8_lossy(key).as_bytes(), n)
        }),
    ];
    let (fixture, keys) = fixture();
    let rows = rows(&fixture, &keys);
    for (slip, rule, wrong) in slips {
        let found = rows
            .iter()
            .filter(|row| row.client.rule() == (rule, false))
            .any(|row| row.key.is_some_and(|key| wrong(key, row.partitions) != row.partition));
        assert!(found, "{slip}: {rule}");
    }
}
