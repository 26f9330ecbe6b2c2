//! Which partition, and where its bytes end.

use std::fmt;

use uuid::Uuid;

/// A partition of a topic. The topic id tells a re-created topic from the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl PartitionId {
    /// The name of the partition's directory, `<topic>-<partition>`.
    pub fn dir_name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A place in a log between two batches: everything before it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// Base offset of the segment that holds the place.
    pub segment_base: i64,
    /// Byte position in that segment's `.log` file.
    pub position: u64,
    /// Offset of the next record.
    pub offset: i64,
}

impl LogEnd {
    /// The end of a log that was just created.
    pub const EMPTY: LogEnd = LogEnd { segment_base: 0, position: 0, offset: 0 };
}
