//! What bounds groups. The first part can be configured; the constants guard against what no client does by accident.

/// Groups whose ids begin so hold the positions of pipelines.
pub const PIPELINE_GROUP_PREFIX: &str = "pelton.";

/// Records of one append when offsets are deleted or expire: about 100 KiB, well within a batch.
pub const DELETE_RECORDS_PER_APPEND: usize = 1000;

/// Bytes that the texts of offsets may take in one append of a snapshot.
pub const SNAPSHOT_TEXT_BYTES_PER_APPEND: usize = 512 << 10;

/// Records handed over at once when a partition is read at the start.
pub const LOAD_RECORDS_PER_PIECE: usize = 1000;

/// Settings of the broker that the state machine goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: usize,
    /// `pelton.max.groups`
    pub max_groups: usize,
    /// `pelton.group.name.max.bytes`
    pub name_max_bytes: usize,
    /// `pelton.group.member.protocols.max`
    pub member_protocols_max: usize,
    /// `pelton.group.queue.max.requests`
    pub queue_max_requests: usize,
    /// `pelton.group.appends.max`
    pub appends_max: usize,
    /// `pelton.group.member.metadata.max.bytes`
    pub member_metadata_max_bytes: usize,
    /// `pelton.group.metadata.max.bytes`
    pub group_metadata_max_bytes: usize,
    /// `pelton.snapshot.min.bytes`
    pub snapshot_min_bytes: u64,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: u64,
}

impl Default for GroupLimits {
    /// The defaults of the settings.
    fn default() -> Self {
        GroupLimits {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: 10_000,
            max_groups: 100_000,
            name_max_bytes: 4096,
            member_protocols_max: 64,
            queue_max_requests: 1024,
            appends_max: 1024,
            member_metadata_max_bytes: 1 << 20,
            group_metadata_max_bytes: 64 << 20,
            snapshot_min_bytes: 64 << 20,
            offset_metadata_max_bytes: 4096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}
