//! What a user says of a table.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::partitioner::PartitionerKind;
pub use crate::state::StoreKind;

/// A table as it is kept in `__pelton_deployments`, as JSON under `table/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDefinition {
    /// The topic that it is a view of.
    pub topic: String,
    /// Whether its rows are parted as the topic is.
    pub scope: Scope,
    /// How the topic's producers place keys.
    pub partitioner: KeyPlacement,
    /// Where its rows are kept.
    pub store: StoreKind,
    /// How its values are shown.
    pub value: ValueFormat,
    /// The partitions that the topic had when the table was created. Producers place keys anew in a topic that has
    /// grown, so from then on a look-up asks every partition.
    pub partitions: u32,
    /// When it was created, in ms since the epoch.
    pub created_at_ms: i64,
}

/// Whether the rows of a table are parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A store for each partition of the topic.
    #[default]
    Partitioned,
    /// One store with the rows of all partitions. A key that two partitions have (no partitioner does that by itself)
    /// has the row that was read last.
    Global,
}

/// How the values of a table are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueFormat {
    /// As JSON, where a value is JSON.
    Json,
    /// As text, where a value is UTF-8.
    #[default]
    Raw,
}

/// How the producers of a topic place keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyPlacement {
    /// As Kafka's Java client does.
    Murmur2,
    /// As librdkafka does unless told otherwise.
    Crc32,
    /// As Sarama does unless told otherwise.
    Fnv1a,
    /// As pelton's partitioner of this name does.
    Consistent,
    /// In another way, or in several: a key may be in any partition.
    #[default]
    Unknown,
}

impl KeyPlacement {
    /// The partition of a key in a topic with so many of them; `None` if it may be in any.
    pub fn partition(self, key: &[u8], partitions: u32) -> Option<u32> {
        let kind = match self {
            KeyPlacement::Murmur2 => PartitionerKind::Murmur2,
            KeyPlacement::Crc32 => PartitionerKind::Crc32,
            KeyPlacement::Fnv1a => PartitionerKind::Fnv1a,
            KeyPlacement::Consistent => PartitionerKind::Consistent,
            KeyPlacement::Unknown => return None,
        };
        kind.partition_of(key, partitions)
    }
}

impl TableDefinition {
    /// The partition whose store has the row of a key; `None` if any of them may have it, or one store has all rows.
    pub fn partition_of(&self, key: &[u8], partitions_now: u32) -> Option<u32> {
        let parted = self.scope == Scope::Partitioned && self.partitions == partitions_now;
        parted.then(|| self.partitioner.partition(key, partitions_now)).flatten()
    }
}

macro_rules! shown {
    ($($kind:ident { $($variant:ident = $name:literal),* })*) => { $(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($kind::$variant => $name,)* })
            }
        }
    )* };
}

shown! {
    Scope { Partitioned = "partitioned", Global = "global" }
    StoreKind { Rocksdb = "rocksdb", Memory = "memory" }
    ValueFormat { Json = "json", Raw = "raw" }
    KeyPlacement {
        Murmur2 = "murmur2", Crc32 = "crc32", Fnv1a = "fnv1a", Consistent = "consistent", Unknown = "unknown"
    }
}

/// Longest name of a table: it is the name of a directory too.
const NAME_BYTES_MAX: usize = 100;

/// Why a name is no name of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or too long.
    #[error("a table's name has 1 to {NAME_BYTES_MAX} characters; `{0}` has {len}", len = .0.len())]
    Length(String),
    /// A character of it is not possible.
    #[error(
        "a table's name has a-z, 0-9, `.`, `_` and `-`, and begins with a letter or a digit; `{0}` does not"
    )]
    Characters(String),
}

/// Checks the name of a new table.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(NameError::Length(name.to_owned()));
    }
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.starts_with(word) || !name.chars().all(|c| word(c) || "._-".contains(c)) {
        return Err(NameError::Characters(name.to_owned()));
    }
    Ok(())
}
