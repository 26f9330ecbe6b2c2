//! Which partition of its topic a record goes to. The functions are those of the clients, so that pelton and a client
//! that write to the same topic put equal keys into the same partition.

use std::fmt;

/// Standard CRC-32, as zlib has it.
const CRC32: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc32IsoHdlc;

/// A way to place keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionerKind {
    /// Kafka's Java client, and `murmur2_random` of librdkafka: murmur2 of the key; null keys sticky.
    #[default]
    Murmur2,
    /// librdkafka's default, `consistent_random`: CRC-32 of the key; null and empty keys sticky.
    Crc32,
    /// Sarama's default, and `fnv1a_random` of librdkafka: FNV-1a of the key; null keys sticky.
    Fnv1a,
    /// One partition for all records of a step, whatever their keys; the next one for the next step.
    Sticky,
    /// The next partition for each record, whatever its key.
    RoundRobin,
}

/// Name and meaning, in the order in which an error lists them.
const KINDS: [(&str, PartitionerKind); 5] = [
    ("murmur2", PartitionerKind::Murmur2),
    ("crc32", PartitionerKind::Crc32),
    ("fnv1a", PartitionerKind::Fnv1a),
    ("sticky", PartitionerKind::Sticky),
    ("round-robin", PartitionerKind::RoundRobin),
];

impl PartitionerKind {
    /// Parses the name of a manifest.
    ///
    /// # Errors
    /// The nearest name, or all of them, as a text for people.
    pub fn parse(name: &str) -> Result<PartitionerKind, String> {
        let found = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| crate::nearest::hint(name, KINDS.iter().map(|(known, _)| *known)))
    }
}

impl fmt::Display for PartitionerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Places the records of one sink, for one task.
#[derive(Debug, Clone)]
pub struct Partitioner {
    kind: PartitionerKind,
    partitions: u32,
    /// The sticky partition, or the next one of round-robin, before it is taken modulo the partitions.
    turn: u32,
}

impl Partitioner {
    /// A partitioner for a topic with `partitions` partitions. `seed` decides where records without a key begin: tasks
    /// that write to the same topic should have different seeds.
    pub fn new(kind: PartitionerKind, partitions: u32, seed: u32) -> Partitioner {
        Partitioner { kind, partitions: partitions.max(1), turn: seed }
    }

    /// The topic has grown.
    pub fn set_partitions(&mut self, partitions: u32) {
        self.partitions = partitions.max(1);
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of a record with this key. Below the number of partitions.
    pub fn place(&mut self, key: Option<&[u8]>) -> i32 {
        let n = self.partitions;
        let placed = match (self.kind, key) {
            (PartitionerKind::Murmur2, Some(key)) => (murmur2(key) & 0x7fff_ffff) % n,
            (PartitionerKind::Crc32, Some(key)) if !key.is_empty() => crc32(key) % n,
            (PartitionerKind::Fnv1a, Some(key)) => fnv1a(key).cast_signed().unsigned_abs() % n,
            (PartitionerKind::RoundRobin, _) => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % n
            }
            (
                PartitionerKind::Murmur2
                | PartitionerKind::Crc32
                | PartitionerKind::Fnv1a
                | PartitionerKind::Sticky,
                _,
            ) => self.turn % n,
        };
        // The number of partitions is a Kafka int32.
        i32::try_from(placed).unwrap_or(0)
    }

    /// A step has ended: with sticky placement, records without a key go to the next partition.
    pub fn next_step(&mut self) {
        if self.kind != PartitionerKind::RoundRobin {
            self.turn = self.turn.wrapping_add(1);
        }
    }
}

/// The 32-bit murmur2 of Kafka's Java client, seed 0x9747b28c.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // The length is folded in as 32 bits; no key is longer.
    let mut h = SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        h ^= tail.iter().rev().fold(0, |bytes, &byte| bytes << 8 | u32::from(byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The 32-bit FNV-1a.
pub fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |h, &byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The CRC-32 of zlib.
pub fn crc32(key: &[u8]) -> u32 {
    // The algorithm has 32 bits; the crate answers in 64.
    crc_fast::checksum(CRC32, key) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from the unit tests of Kafka (`UtilsTest`), librdkafka (`rdmurmur2.c`) and the FNV reference.
    #[test]
    fn hashes_are_those_of_the_clients() {
        for (key, expect) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("kafka", 0xd067_cf64_u32.cast_signed()),
            ("giberish123456789", 0x8f55_2b0c_u32.cast_signed()),
            ("1234", 0x9fc9_7b14_u32.cast_signed()),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expect, "{key}");
        }
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn keys_stay_together_and_keyless_records_move_on() {
        let check = |kind, keys: [Option<&str>; 4], expect: [[i32; 4]; 2]| {
            let mut partitioner = Partitioner::new(kind, 4, 6);
            for expect in expect {
                assert_eq!(keys.map(|key| partitioner.place(key.map(str::as_bytes))), expect, "{kind}");
                partitioner.next_step();
            }
        };
        let positive = |h: u32| i32::try_from((h & 0x7fff_ffff) % 4).expect("small");
        let (a, b) = (positive(murmur2(b"21")), positive(murmur2(b"")));
        check(PartitionerKind::Murmur2, [Some("21"), Some(""), None, None], [[a, b, 2, 2], [a, b, 3, 3]]);
        let a = i32::try_from(crc32(b"21") % 4).expect("small");
        check(PartitionerKind::Crc32, [Some("21"), Some(""), None, None], [[a, 2, 2, 2], [a, 3, 3, 3]]);
        check(PartitionerKind::Sticky, [Some("21"), Some(""), None, None], [[2; 4], [3; 4]]);
        check(PartitionerKind::RoundRobin, [Some("21"), Some("x"), None, None], [[3, 0, 1, 2]; 2]);
    }

    /// Sarama negates a negative remainder, librdkafka takes the absolute value first: the same, for every hash.
    #[test]
    fn fnv1a_places_like_sarama() {
        for i in 0..1000_u32 {
            let key = i.to_string();
            let hash = fnv1a(key.as_bytes()).cast_signed();
            let sarama = hash.wrapping_rem(7).abs();
            assert_eq!(Partitioner::new(PartitionerKind::Fnv1a, 7, 0).place(Some(key.as_bytes())), sarama);
        }
    }

    #[test]
    fn names() {
        for (name, kind) in KINDS {
            assert_eq!(PartitionerKind::parse(name), Ok(kind));
            assert_eq!(kind.to_string(), name);
        }
        assert_eq!(PartitionerKind::parse("murmur3"), Err("did you mean `murmur2`?".to_owned()));
    }
}
