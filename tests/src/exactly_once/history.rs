//! What a transactional load did and was told, as a list of events in the order in which they happened.

use std::fmt;

/// Number of a transaction: its producer above, and its number there below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u64);

/// Bits of a transaction's number at its producer.
const NUMBER_BITS: u32 = 40;

impl TransactionId {
    /// The `number`-th transaction of a producer.
    pub fn new(producer: u32, number: u64) -> TransactionId {
        TransactionId(u64::from(producer) << NUMBER_BITS | number)
    }

    /// Its producer.
    pub fn producer(self) -> u32 {
        (self.0 >> NUMBER_BITS) as u32
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {} of producer {}", self.0 & ((1 << NUMBER_BITS) - 1), self.producer())
    }
}

/// What the value of a record says of itself. No two records have the same transaction and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The transaction that it was written in.
    pub transaction: TransactionId,
    /// Its position among the records of the transaction.
    pub index: u32,
    /// Its key.
    pub key: u32,
    /// Its number among the committed records of the key, from 1.
    pub number: u64,
}

/// Most bytes behind the numbers of a value.
const MOST_FILLER: u64 = 240;

impl Stamp {
    /// The bytes of a record's value: text, with an end that follows from the rest, so that every byte can be checked.
    pub fn value(self) -> String {
        let mut state = mix(self.transaction.0 ^ u64::from(self.index) << 48 ^ self.number << 20);
        let length = (state % MOST_FILLER) as usize;
        let mut text = format!("{}.{}.{}.{}.", self.transaction.0, self.index, self.key, self.number);
        let whole = text.len() + length;
        while text.len() < whole {
            state = mix(state);
            // Half of the digits repeat, so that compression has something to do.
            text.push_str(&format!("{:016x}", state & 0x0000_ffff_0000_ffff));
        }
        text.truncate(whole);
        text
    }

    /// The stamp of a value, if every byte fits.
    pub fn parse(value: &str) -> Option<Stamp> {
        let mut parts = value.splitn(5, '.');
        let stamp = Stamp {
            transaction: TransactionId(parts.next()?.parse().ok()?),
            index: parts.next()?.parse().ok()?,
            key: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        (stamp.value() == value).then_some(stamp)
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// A partition: the number of its topic in the load's list, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Number of the topic.
    pub topic: u32,
    /// Number of the partition.
    pub partition: u32,
}

/// How a transaction ended, as far as its producer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The commit was acknowledged.
    Committed,
    /// The abort was acknowledged, or nobody ever asked for a commit.
    Aborted,
    /// A commit was asked for, and there was no answer.
    Unknown,
}

/// One thing that happened at a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A producer is about to send a record. Records of a transaction are sent in the order of their indexes.
    Sent {
        /// What the record says of itself.
        stamp: Stamp,
        /// Where it goes.
        to: Cell,
    },
    /// The broker has acknowledged a record.
    Acked {
        /// Its transaction.
        transaction: TransactionId,
        /// Its index there.
        index: u32,
        /// The offset that the broker named; negative when it did not.
        offset: i64,
    },
    /// A producer is about to make a group's offset part of its transaction.
    Offset {
        /// The transaction.
        transaction: TransactionId,
        /// Of which input.
        of: Cell,
        /// The offset.
        offset: i64,
    },
    /// A producer is about to ask for the commit.
    Asked {
        /// The transaction.
        transaction: TransactionId,
    },
    /// A producer is done with its transaction.
    Ended {
        /// The transaction.
        transaction: TransactionId,
        /// What it knows of it.
        outcome: Outcome,
    },
    /// A read-committed consumer beside the load was given a record.
    Sight {
        /// What it says of itself.
        stamp: Stamp,
        /// Where it was.
        at: Cell,
        /// Its offset there.
        offset: i64,
    },
    /// The group's owner asked for its committed offset, -1 for none, while none of its transactions was open.
    Found {
        /// Which producer.
        producer: u32,
        /// Of which input.
        of: Cell,
        /// The answer.
        offset: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_record_and_nothing_else_does() {
        for (transaction, number) in [(0, 1), (77, u64::MAX), (u64::MAX, 3)] {
            let stamp = Stamp { transaction: TransactionId(transaction), index: 9, key: 4, number };
            let value = stamp.value();
            assert_eq!(Stamp::parse(&value), Some(stamp));
            for cut in 0..value.len() {
                assert_ne!(Stamp::parse(&value[..cut]), Some(stamp));
            }
            assert_eq!(Stamp::parse(&format!("{value}0")), None);
        }
        assert_eq!(Stamp::parse(""), None);
    }
}
