//! Why the coordinator refuses, and Kafka's number for it.

use pelton_wire::ErrorCode;

/// A refusal of the group coordinator. One set for all its operations, since a member's identity, generation and group
/// are checked alike in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Empty where a name is needed, or longer than `pelton.group.name.max.bytes`.
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    #[error("no group has this id")]
    GroupIdNotFound,
    #[error(
        "the session time-out is outside of `group.min.session.timeout.ms` and `group.max.session.timeout.ms`"
    )]
    InvalidSessionTimeout,
    #[error(
        "no assignment protocol of this member is one that all members have, or its protocol type is another"
    )]
    InconsistentGroupProtocol,
    #[error("the group has no member of this id; the member must join again")]
    UnknownMemberId,
    #[error("the member must join again with the id it was given")]
    MemberIdRequired,
    #[error("a newer member of this group instance id has fenced this one")]
    FencedInstanceId,
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    #[error("the group is rebalancing; the member must join again")]
    RebalanceInProgress,
    #[error("the group has `group.max.size` members, or the broker `pelton.max.groups` groups")]
    GroupMaxSizeReached,
    /// Definite: nothing was done. The client tries again.
    #[error("the coordinator cannot serve this group at the moment")]
    CoordinatorNotAvailable,
    /// Definite: nothing was done. The client tries again.
    #[error("the coordinator is still reading `__consumer_offsets`")]
    CoordinatorLoadInProgress,
    /// Of a marker.
    #[error("the producer has a newer epoch")]
    ProducerFenced,
    /// Of a marker.
    #[error("a newer coordinator has ended a transaction of this producer")]
    CoordinatorFenced,
    #[error("the group has members")]
    NonEmptyGroup,
    #[error("a member of the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    #[error("the text stored with the offset is longer than `offset.metadata.max.bytes`")]
    OffsetMetadataTooLarge,
    #[error("a transaction that commits this offset is still open")]
    UnstableOffsetCommit,
    #[error("the offsets of one request do not fit into one record batch")]
    CommitTooLarge,
    #[error("the members of the group do not fit into one record; fewer members or shorter subscriptions do")]
    GroupTooLarge,
    #[error("the request names more protocols or offsets, or larger ones, than one request may")]
    InvalidRequest,
    /// What it keeps is what the records before its offsets make.
    #[error("the group is that of a pipeline that keeps state, which goes with its offsets")]
    KeepsState,
}

impl GroupError {
    /// Kafka's number for it.
    pub fn code(self) -> ErrorCode {
        match self {
            GroupError::InvalidGroupId => ErrorCode::INVALID_GROUP_ID,
            GroupError::GroupIdNotFound => ErrorCode::GROUP_ID_NOT_FOUND,
            GroupError::InvalidSessionTimeout => ErrorCode::INVALID_SESSION_TIMEOUT,
            GroupError::InconsistentGroupProtocol => ErrorCode::INCONSISTENT_GROUP_PROTOCOL,
            GroupError::UnknownMemberId => ErrorCode::UNKNOWN_MEMBER_ID,
            GroupError::MemberIdRequired => ErrorCode::MEMBER_ID_REQUIRED,
            GroupError::FencedInstanceId => ErrorCode::FENCED_INSTANCE_ID,
            GroupError::IllegalGeneration => ErrorCode::ILLEGAL_GENERATION,
            GroupError::RebalanceInProgress => ErrorCode::REBALANCE_IN_PROGRESS,
            GroupError::GroupMaxSizeReached => ErrorCode::GROUP_MAX_SIZE_REACHED,
            GroupError::CoordinatorNotAvailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
            GroupError::CoordinatorLoadInProgress => ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
            GroupError::ProducerFenced => ErrorCode::INVALID_PRODUCER_EPOCH,
            GroupError::CoordinatorFenced => ErrorCode::TRANSACTION_COORDINATOR_FENCED,
            GroupError::NonEmptyGroup => ErrorCode::NON_EMPTY_GROUP,
            GroupError::GroupSubscribedToTopic => ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC,
            GroupError::OffsetMetadataTooLarge => ErrorCode::OFFSET_METADATA_TOO_LARGE,
            GroupError::UnstableOffsetCommit => ErrorCode::UNSTABLE_OFFSET_COMMIT,
            GroupError::CommitTooLarge => ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
            // Kafka has no code for it and answers the same: nothing that the client could do would help.
            GroupError::GroupTooLarge => ErrorCode::UNKNOWN_SERVER_ERROR,
            GroupError::InvalidRequest => ErrorCode::INVALID_REQUEST,
            GroupError::KeepsState => ErrorCode::POLICY_VIOLATION,
        }
    }
}

/// The number of an outcome.
pub fn code_of<T>(result: &Result<T, GroupError>) -> ErrorCode {
    result.as_ref().err().map_or(ErrorCode::NONE, |error| error.code())
}
