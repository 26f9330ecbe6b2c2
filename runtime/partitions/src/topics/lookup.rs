//! Looking up a partition that this broker is to serve.

use pelton_wire::ErrorCode;

/// Why this broker does not serve a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHere {
    #[error("there is no topic of this name")]
    UnknownTopic,
    #[error("the topic has no partition of this number")]
    UnknownPartition,
    /// The catalogue has the partition, and this broker does not.
    #[error("this broker does not lead the partition")]
    NotLeader,
}

impl NotHere {
    /// Kafka's number for it.
    pub fn code(self) -> ErrorCode {
        match self {
            NotHere::UnknownTopic | NotHere::UnknownPartition => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            NotHere::NotLeader => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        }
    }
}

impl From<NotHere> for ErrorCode {
    fn from(not_here: NotHere) -> ErrorCode {
        not_here.code()
    }
}
