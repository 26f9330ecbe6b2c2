//! Rules by which a key alone says the partition.

use crate::hash::{crc32, fnv1a, jump, kafkajs_legacy, murmur2, siphash};
use std::fmt;

/// A rule by which the partition of a record follows from its key and the number of partitions. Some of them pelton places
/// by itself ([`KeyRule::native`]), the others explain what clients have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyRule {
    /// Kafka's Java client and most others: murmur2, its sign bit cleared.
    Murmur2,
    /// librdkafka's default, `consistent_random`: CRC-32. An empty key is placed as none.
    Crc32,
    /// Sarama's default, and `fnv1a_random` of librdkafka: FNV-1a as a signed number, its sign dropped.
    Fnv1a,
    /// Of pelton: SipHash-2-4 with the key 00 01 … 0f, and the jump consistent hash of Lamping and Veach.
    Consistent,
    /// Sarama's `NewReferenceHashPartitioner`: FNV-1a, its sign bit cleared.
    SaramaReference,
    /// Sarama's `NewConsistentCRCHashPartitioner`: as librdkafka, but an empty key is in partition 0.
    SaramaCrc,
    /// kafkajs' `LegacyPartitioner`: murmur2 in JavaScript's numbers.
    KafkajsLegacy,
}

impl KeyRule {
    /// Every rule; those that pelton places by come first.
    pub const ALL: [KeyRule; 7] = [
        KeyRule::Murmur2,
        KeyRule::Crc32,
        KeyRule::Fnv1a,
        KeyRule::Consistent,
        KeyRule::SaramaReference,
        KeyRule::SaramaCrc,
        KeyRule::KafkajsLegacy,
    ];

    /// The partition of a key, below `partitions` (0 counts as 1); `None` if the rule does not say, as that of
    /// librdkafka's default for an empty key.
    pub fn partition(self, key: &[u8], partitions: u32) -> Option<u32> {
        let n = partitions.max(1);
        let without_sign_bit = |hash: u32| (hash & 0x7fff_ffff) % n;
        match self {
            KeyRule::Crc32 if key.is_empty() => None,
            KeyRule::Murmur2 => Some(without_sign_bit(murmur2(key))),
            KeyRule::Crc32 | KeyRule::SaramaCrc => Some(crc32(key) % n),
            // Sarama and librdkafka drop the sign of the remainder, which is the remainder of what has no sign.
            KeyRule::Fnv1a => Some(fnv1a(key).cast_signed().unsigned_abs() % n),
            KeyRule::Consistent => Some(jump(siphash(key), n)),
            KeyRule::SaramaReference => Some(without_sign_bit(fnv1a(key))),
            KeyRule::KafkajsLegacy => Some(without_sign_bit(kafkajs_legacy(key))),
        }
    }

    /// Whose rule it is, for people.
    pub fn used_by(self) -> &'static str {
        match self {
            KeyRule::Murmur2 => "the default of Java, franz-go, kafkajs, aiokafka, kafka-python and pelton",
            KeyRule::Crc32 => "the default of librdkafka, as in confluent-kafka and kcat",
            KeyRule::Fnv1a => "the default of Sarama; fnv1a_random of librdkafka",
            KeyRule::Consistent => "pelton's own",
            KeyRule::SaramaReference => "NewReferenceHashPartitioner of Sarama",
            KeyRule::SaramaCrc => "NewConsistentCRCHashPartitioner of Sarama",
            KeyRule::KafkajsLegacy => "LegacyPartitioner of kafkajs",
        }
    }
}

impl fmt::Display for KeyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyRule::Murmur2 => "murmur2",
            KeyRule::Crc32 => "crc32",
            KeyRule::Fnv1a => "fnv1a",
            KeyRule::Consistent => "consistent",
            KeyRule::SaramaReference => "sarama-reference",
            KeyRule::SaramaCrc => "sarama-crc",
            KeyRule::KafkajsLegacy => "kafkajs-legacy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sarama negates a negative remainder, librdkafka takes the absolute value first: the same, for every hash.
    #[test]
    fn fnv1a_places_like_sarama() {
        for i in 0..1000_u32 {
            let key = i.to_string();
            let sarama = fnv1a(key.as_bytes()).cast_signed().wrapping_rem(7).unsigned_abs();
            assert_eq!(KeyRule::Fnv1a.partition(key.as_bytes(), 7), Some(sarama));
        }
    }

    /// What a topic that grows does to keys. One in n + 1 is all that can stay even: the new partition has its share.
    #[test]
    fn consistent_moves_few_keys_and_those_to_the_new_partition() {
        const KEYS: u32 = 10_000;
        for n in [1, 2, 3, 12, 47, 499] {
            let mut moved = 0;
            for i in 0..KEYS {
                let key = format!("user-{i}");
                let place = |n| KeyRule::Consistent.partition(key.as_bytes(), n).expect("every key has one");
                let (before, now) = (place(n), place(n + 1));
                assert!(before == now || now == n, "{key} went from {before} to {now} of {}", n + 1);
                moved += u32::from(before != now);
            }
            let (share, expect) = (f64::from(moved), f64::from(KEYS) / f64::from(n + 1));
            // Six standard deviations of a binomial count.
            assert!((share - expect).abs() < 6.0 * expect.sqrt(), "{moved} of {KEYS} moved from {n}");
        }
    }

    #[test]
    fn consistent_is_even() {
        let mut counts = [0_u32; 12];
        for i in 0..12_000_u32 {
            let at = KeyRule::Consistent.partition(format!("{i}").as_bytes(), 12).expect("every key has one");
            counts[at as usize] += 1;
        }
        // 1000 each; six standard deviations.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 190), "{counts:?}");
    }

    #[test]
    fn a_topic_of_one_or_no_partition_has_all_in_the_first() {
        for rule in KeyRule::ALL {
            for (key, partitions) in [("a", 0), ("a", 1), ("flight-77", 1)] {
                assert_eq!(rule.partition(key.as_bytes(), partitions), Some(0), "{rule} {key} {partitions}");
            }
        }
    }
}
