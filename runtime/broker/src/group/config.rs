//! What bounds groups. The first part can be configured; the constants guard against what no client does by accident.

use crate::config::Config;

/// Groups whose ids begin so hold the positions of pipelines.
pub(crate) const PIPELINE_GROUP_PREFIX: &str = "pelton.";

/// Records of one append when offsets are deleted or expire: about 100 KiB, well within a batch.
pub(crate) const DELETE_RECORDS_PER_APPEND: usize = 1000;

/// Bytes that the texts of offsets may take in one append of a snapshot.
pub(crate) const SNAPSHOT_TEXT_BYTES_PER_APPEND: usize = 512 << 10;

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
    /// `pelton.group.name.max.bytes`
    pub(crate) name_max_bytes: usize,
    /// `pelton.group.member.protocols.max`
    pub(crate) member_protocols_max: usize,
    /// `pelton.group.queue.max.requests`
    pub(crate) queue_max_requests: usize,
    /// `pelton.group.appends.max`
    pub(crate) appends_max: usize,
    /// `pelton.group.member.metadata.max.bytes`
    pub(crate) member_metadata_max_bytes: usize,
    /// `pelton.group.metadata.max.bytes`
    pub(crate) group_metadata_max_bytes: usize,
    /// `pelton.snapshot.min.bytes`
    pub(crate) snapshot_min_bytes: u64,
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
            name_max_bytes: config.group_name_max_bytes as usize,
            member_protocols_max: config.group_member_protocols_max as usize,
            queue_max_requests: config.group_queue_max_requests as usize,
            appends_max: config.group_appends_max as usize,
            member_metadata_max_bytes: config.group_member_metadata_max_bytes as usize,
            group_metadata_max_bytes: config.group_metadata_max_bytes as usize,
            snapshot_min_bytes: config.snapshot_min_bytes,
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
