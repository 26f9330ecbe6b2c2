//! The settings of logs and of what they share, each with Kafka's key, default, unit and reason.

/// Settings of one partition's log. Field names are Kafka's topic keys with `_` for `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is rolled before it would grow past this. 1 GiB; at most `i32::MAX`,
    /// because index positions are 32 bits.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is rolled once its first batch is this old. 7 days.
    pub segment_ms: i64,
    /// `segment.index.bytes`: a segment is rolled when one of its indexes reaches this. 10 MiB.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`: bytes of log between two index entries. 4 KiB.
    pub index_interval_bytes: u64,
    /// `retention.ms`: segments whose largest timestamp is older go. 7 days; `None` keeps them.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`: oldest segments go while the rest is at least this large. `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// `producer.id.expiration.ms`: a producer without an open transaction is forgotten after this. 1 day.
    pub producer_id_expiration_ms: i64,
    /// `pelton.partition.producers.max`: producers that are remembered; above it, those that have written nothing for the
    /// longest time are forgotten before their time. 10,000: 5 MB of memory, and a snapshot of half a MiB. Kafka has no
    /// limit, and a client that takes a new producer id for every batch fills its memory.
    pub producers_max: usize,
    /// Batches are written to the segment as they come, through the page cache, instead of by the next checkpoint: for topics
    /// whose producers are not told of the sync (`pelton.durability` `interval` and `os`), so that a process that is killed
    /// loses nothing of them. False.
    pub write_through: bool,
    /// At most this much of the end of this log is kept in memory. 4 MiB: a few fetches' worth, so that readers
    /// at the tail touch no file. No setting: all logs together are bounded by one.
    pub tail_cache_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            producer_id_expiration_ms: DAY_MS,
            producers_max: 10_000,
            write_through: false,
            tail_cache_bytes: 4 << 20,
        }
    }
}

/// Limits that all logs of a process share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedLimits {
    /// `pelton.log.open.files`: descriptors for segments and indexes other than each partition's active
    /// `.log` file. 1,024: enough for that many partitions read from old segments at once, far below usual
    /// limits.
    pub open_files: usize,
    /// `pelton.log.tail.cache.bytes`: recent batches kept in memory, over all partitions. 64 MiB.
    pub tail_cache_bytes: usize,
}

impl Default for SharedLimits {
    fn default() -> SharedLimits {
        SharedLimits { open_files: 1024, tail_cache_bytes: 64 << 20 }
    }
}
