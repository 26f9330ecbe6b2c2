//! What bounds groups. The first part can be configured; the constants guard against what no client does by accident.

use crate::config::Config;

/// Groups whose ids begin so hold the positions of pipelines.
pub(crate) const PIPELINE_GROUP_PREFIX: &str = "pelton.";

/// Longest group id, in bytes. Kafka has no bound below the 32,767 of its strings; the id is kept with every group,
/// every offset record and every timer.
pub(crate) const GROUP_ID_BYTES_MAX: usize = 4096;

/// Protocols that one member may list. Clients list one to four.
pub(crate) const MEMBER_PROTOCOLS_MAX: usize = 64;

/// Longest client id, host or instance id that is kept of a member, in bytes.
pub(crate) const MEMBER_NAME_BYTES_MAX: usize = 4096;

/// Requests that wait for one coordinator shard; one more waits in its connection.
pub(crate) const SHARD_QUEUE_REQUESTS: usize = 1024;

/// Appends of one shard on their way to the disk. Enough to fill a group sync; above it the shard takes no requests,
/// so that memory stays bounded when the disk is slow.
pub(crate) const SHARD_IN_FLIGHT_APPENDS: usize = 1024;

/// Records of one append when offsets are deleted or expire: about 100 KiB, well within a batch.
pub(crate) const DELETE_RECORDS_PER_APPEND: usize = 1000;

/// Largest batch of `__consumer_offsets`, in bytes. A group is one record with the subscription and assignment of every
/// member: 10,000 members of 1.6 KiB each fit. Kafka's bound, `message.max.bytes`, is 1 MiB by default and stops groups of a
/// few hundred members with long subscriptions.
pub(crate) const OFFSETS_BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Records handed over at once when a partition is read at the start.
pub(crate) const LOAD_RECORDS_PER_PIECE: usize = 1000;

/// Settings of the broker that the state machine goes by.
#[derive(Clone, Debug)]
pub(crate) struct GroupLimits {
    /// `group.min.session.timeout.ms`
    pub(crate) min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub(crate) max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub(crate) initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub(crate) max_size: usize,
    /// `pelton.max.groups`
    pub(crate) max_groups: usize,
    /// `pelton.group.member.metadata.max.bytes`
    pub(crate) member_metadata_max_bytes: usize,
    /// `pelton.group.metadata.max.bytes`
    pub(crate) group_metadata_max_bytes: usize,
    /// `offset.metadata.max.bytes`
    pub(crate) offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`
    pub(crate) offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub(crate) offsets_retention_check_interval_ms: u64,
}

impl From<&Config> for GroupLimits {
    fn from(config: &Config) -> Self {
        const MINUTE_MS: i64 = 60_000;
        GroupLimits {
            min_session_timeout_ms: config.group_min_session_timeout_ms,
            max_session_timeout_ms: config.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            max_size: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
            max_groups: config.max_groups as usize,
            member_metadata_max_bytes: config.group_member_metadata_max_bytes as usize,
            group_metadata_max_bytes: config.group_metadata_max_bytes as usize,
            offset_metadata_max_bytes: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0),
            offsets_retention_ms: i64::from(config.offsets_retention_minutes) * MINUTE_MS,
            offsets_retention_check_interval_ms: u64::try_from(config.offsets_retention_check_interval_ms)
                .unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
impl Default for GroupLimits {
    /// The defaults of the settings.
    fn default() -> Self {
        GroupLimits::from(&Config::default())
    }
}
