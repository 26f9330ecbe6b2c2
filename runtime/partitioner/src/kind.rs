//! The partitioners of pelton by name, and one at work.

use crate::rule::KeyRule;
use std::fmt;

/// Bytes of keys and values after which records without a key go on to the next partition: the default `batch.size`
/// of Kafka's Java client, which changes the partition after as much (KIP-794).
pub const UNIFORM_BYTES: usize = 16 << 10;

/// A way to place records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PartitionerKind {
    /// Kafka's Java client, and `murmur2_random` of librdkafka: murmur2 of the key; null keys uniform.
    #[default]
    Murmur2,
    /// librdkafka's default, `consistent_random`: CRC-32 of the key; null and empty keys uniform.
    Crc32,
    /// Sarama's default, and `fnv1a_random` of librdkafka: FNV-1a of the key; null keys uniform.
    Fnv1a,
    /// A jump consistent hash of the key, so that a topic that grows from n to n + 1 partitions has one key in n + 1 in
    /// another one than before; null keys uniform.
    Consistent,
    /// One partition for [`UNIFORM_BYTES`] of records, whatever their keys, then the next one.
    Uniform,
    /// One partition for all records of a step, whatever their keys; the next one for the next step.
    Sticky,
    /// The next partition for each record, whatever its key.
    RoundRobin,
}

/// Name and meaning, in the order in which an error lists them.
const KINDS: [(&str, PartitionerKind); 7] = [
    ("murmur2", PartitionerKind::Murmur2),
    ("crc32", PartitionerKind::Crc32),
    ("fnv1a", PartitionerKind::Fnv1a),
    ("consistent", PartitionerKind::Consistent),
    ("uniform", PartitionerKind::Uniform),
    ("sticky", PartitionerKind::Sticky),
    ("round-robin", PartitionerKind::RoundRobin),
];

impl PartitionerKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = PartitionerKind> + Clone {
        KINDS.iter().map(|(_, kind)| *kind)
    }

    /// Every name, as manifests and the command line have them.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        KINDS.iter().map(|(name, _)| *name)
    }

    /// The kind of a name; none if there is no such partitioner.
    pub fn from_name(name: &str) -> Option<PartitionerKind> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// The rule by which it places keys; none if it does not look at them, so that those of a key may be anywhere.
    pub fn rule(self) -> Option<KeyRule> {
        match self {
            PartitionerKind::Murmur2 => Some(KeyRule::Murmur2),
            PartitionerKind::Crc32 => Some(KeyRule::Crc32),
            PartitionerKind::Fnv1a => Some(KeyRule::Fnv1a),
            PartitionerKind::Consistent => Some(KeyRule::Consistent),
            PartitionerKind::Uniform | PartitionerKind::Sticky | PartitionerKind::RoundRobin => None,
        }
    }

    /// The partition in which the records of a key are, of so many; none if they may be in any.
    pub fn partition_of(self, key: &[u8], partitions: u32) -> Option<u32> {
        self.rule()?.partition(key, partitions)
    }
}

impl KeyRule {
    /// The partitioner that places keys by this rule, if pelton has one.
    pub fn native(self) -> Option<PartitionerKind> {
        PartitionerKind::all().find(|kind| kind.rule() == Some(self))
    }
}

impl fmt::Display for PartitionerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Places the records of one producer, in their order.
#[derive(Debug, Clone)]
pub struct Partitioner {
    kind: PartitionerKind,
    partitions: u32,
    /// The partition of what goes by no key, or the one before the next of round-robin, before it is taken modulo the
    /// partitions.
    turn: u32,
    /// Bytes that went to the partition of the turn by [`PartitionerKind::Uniform`]; below [`UNIFORM_BYTES`].
    filled: usize,
}

impl Partitioner {
    /// A partitioner for a topic with `partitions` partitions (0 counts as 1). `seed` decides where records without a
    /// key begin: producers that write to the same topic should have different seeds.
    pub fn new(kind: PartitionerKind, partitions: u32, seed: u32) -> Partitioner {
        Partitioner { kind, partitions: partitions.max(1), turn: seed, filled: 0 }
    }

    /// Which one it is.
    pub fn kind(&self) -> PartitionerKind {
        self.kind
    }

    /// The topic has grown. Records that are placed from now on may go to all of its partitions, and those of a key may
    /// go to another one than before.
    pub fn set_partitions(&mut self, partitions: u32) {
        self.partitions = partitions.max(1);
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The partition of the next record, at least 0 and below the number of partitions. `bytes` are those of its key
    /// and value.
    pub fn place(&mut self, key: Option<&[u8]>, bytes: usize) -> i32 {
        let n = self.partitions;
        let by_key = key.and_then(|key| self.kind.partition_of(key, n));
        let placed = by_key.unwrap_or_else(|| match self.kind {
            PartitionerKind::RoundRobin => {
                self.turn = self.turn.wrapping_add(1);
                self.turn % n
            }
            PartitionerKind::Sticky => self.turn % n,
            PartitionerKind::Murmur2
            | PartitionerKind::Crc32
            | PartitionerKind::Fnv1a
            | PartitionerKind::Consistent
            | PartitionerKind::Uniform => self.uniform(bytes),
        });
        // The number of partitions is a Kafka int32.
        i32::try_from(placed).unwrap_or(0)
    }

    /// A step has ended: with sticky placement, records go to the next partition.
    pub fn next_step(&mut self) {
        if self.kind == PartitionerKind::Sticky {
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// Kafka's client changes to a random partition, weighted by the queues of its brokers. Here are no queues, and the
    /// next partition in turn is as even as it gets.
    fn uniform(&mut self, bytes: usize) -> u32 {
        let placed = self.turn % self.partitions;
        self.filled = self.filled.saturating_add(bytes);
        if self.filled >= UNIFORM_BYTES {
            self.filled = 0;
            self.turn = self.turn.wrapping_add(1);
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: [PartitionerKind; 4] = [
        PartitionerKind::Murmur2,
        PartitionerKind::Crc32,
        PartitionerKind::Fnv1a,
        PartitionerKind::Consistent,
    ];

    #[test]
    fn keys_stay_together_and_keyless_records_move_on() {
        // Of five records each, whose sizes fill a uniform partition with the first two of them.
        let keys = [Some("21"), None, Some(""), None, None];
        let check = |kind, expect: [[i32; 5]; 2]| {
            let mut partitioner = Partitioner::new(kind, 4, 6);
            for expect in expect {
                let placed = keys.map(|key| partitioner.place(key.map(str::as_bytes), UNIFORM_BYTES / 2));
                assert_eq!(placed, expect, "{kind}");
                partitioner.next_step();
            }
        };
        for kind in KEYED.into_iter().filter(|kind| *kind != PartitionerKind::Crc32) {
            let place = |key: &str| kind.partition_of(key.as_bytes(), 4).expect("by key").cast_signed();
            let (a, b) = (place("21"), place(""));
            check(kind, [[a, 2, b, 2, 3], [a, 3, b, 0, 0]]);
        }
        let a = PartitionerKind::Crc32.partition_of(b"21", 4).expect("by key").cast_signed();
        check(PartitionerKind::Crc32, [[a, 2, 2, 3, 3], [a, 0, 0, 1, 1]]);
        check(PartitionerKind::Uniform, [[2, 2, 3, 3, 0], [0, 1, 1, 2, 2]]);
        check(PartitionerKind::Sticky, [[2; 5], [3; 5]]);
        check(PartitionerKind::RoundRobin, [[3, 0, 1, 2, 3], [0, 1, 2, 3, 0]]);
    }

    /// As KIP-794 has it: by bytes, not by records, so a partition does not get more because its records are small.
    #[test]
    fn uniform_gives_every_partition_as_many_bytes() {
        let mut partitioner = Partitioner::new(PartitionerKind::Uniform, 3, 1);
        let mut bytes = [0_usize; 3];
        for size in (0..30_000).map(|i| i * 7_919 % 1_000) {
            bytes[partitioner.place(None, size) as usize] += size;
        }
        let (least, most) = (bytes.iter().min().copied(), bytes.iter().max().copied());
        // A partition has at most a turn more than another, and each turn up to one record more than it should.
        assert!(most.zip(least).is_some_and(|(most, least)| most - least < least / 20), "{bytes:?}");
    }

    #[test]
    fn places_are_within_a_topic_that_grows() {
        for kind in PartitionerKind::all() {
            let mut partitioner = Partitioner::new(kind, 0, u32::MAX);
            for partitions in [1, 2, 3, 12, 1000] {
                partitioner.set_partitions(partitions);
                assert_eq!(partitioner.partitions(), partitions);
                let mut used = std::collections::HashSet::new();
                for i in 0..40 * partitions {
                    let key = (i % 3 > 0).then(|| i.to_string());
                    let placed = partitioner.place(key.as_deref().map(str::as_bytes), UNIFORM_BYTES);
                    assert!(
                        (0..partitions.cast_signed()).contains(&placed),
                        "{kind} {placed} of {partitions}"
                    );
                    used.insert(placed);
                    partitioner.next_step();
                }
                assert_eq!(used.len(), partitions as usize, "{kind} leaves none out");
            }
        }
    }

    #[test]
    fn names() {
        for (name, kind) in PartitionerKind::names().zip(PartitionerKind::all()) {
            assert_eq!((PartitionerKind::from_name(name), kind.name()), (Some(kind), name));
            assert_eq!(kind.to_string(), name);
            assert_eq!(kind.rule().and_then(KeyRule::native), kind.rule().map(|_| kind));
            assert!(kind.rule().is_none_or(|rule| rule.to_string() == name));
        }
        assert_eq!(PartitionerKind::from_name("murmur3"), None);
    }
}
