//! The settings of a data directory.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::config::{LogConfig, SharedLimits};
use crate::error::FailureHook;
use crate::journal::{GROUP_MAX_BYTES, GROUP_MIN_BYTES, JournalSettings};
use crate::storage::DIRECT_ALIGN;

/// Settings of a data directory, each with its key, default, unit and reason.
#[derive(Clone)]
pub struct LogDirConfig {
    /// `cluster.id` of a directory that is made now; one that is there keeps its own. `None`: a random one.
    pub cluster_id: Option<String>,
    /// `directory.id` of a directory that is made now.
    pub directory_id: Uuid,
    /// `node.id`: must be that of the node that made the directory.
    pub node_id: i32,
    /// `pelton.journal.max.bytes`: the journal grows up to this under load. 1 GiB: with 256 MiB, producers at full speed
    /// wait for checkpoints.
    pub journal_max_bytes: u64,
    /// The first file of the journal, in bytes. 4 MiB: zeroing it takes milliseconds, and two groups fit.
    pub journal_first_file_bytes: u64,
    /// Bytes that one write of the journal holds, at most and by default 2 MiB: a disk writes that at full speed. No setting:
    /// tests make it small.
    pub journal_group_max_bytes: usize,
    /// `pelton.journal.pending.max.bytes`: bytes of clients that may wait for the journal; more, and permits wait. 64 MiB:
    /// a fifth of a second of full load.
    pub pending_max_bytes: u64,
    /// `pelton.commit.gap.us`: least time between two groups. 0. With 250 to 500 µs, CPU per record falls to a half or a third
    /// under steady load, for 0.1 to 0.2 ms more latency.
    pub commit_gap: Duration,
    /// `pelton.checkpoint.bytes`: bytes of journal between two checkpoints, at most a quarter of the journal. 64 MiB.
    pub checkpoint_bytes: u64,
    /// `pelton.log.unwritten.max.bytes`: bytes that may be durable in the journal and not written to segments; the journal waits
    /// for a checkpoint then. They are kept in memory until they are written. 512 MiB: a checkpoint over a thousand
    /// partitions is worth its syncs at half of that.
    pub unwritten_max_bytes: u64,
    /// `pelton.checkpoint.interval.ms`: longest time between two checkpoints while there is something to do. 5 s.
    pub checkpoint_interval: Duration,
    /// `pelton.disk.free.min`: bytes of the disk that are kept for coordinators and deletion. 512 MiB.
    pub disk_free_min: u64,
    /// Settings that recovered logs start with; the broker sets each topic's own afterwards.
    pub log: LogConfig,
    /// Limits that all logs share.
    pub limits: SharedLimits,
    /// Called once, from a thread of the directory, when the journal or a segment's sync fails: nothing is acknowledged after
    /// that, and the process should end.
    pub on_failure: FailureHook,
    /// Milliseconds since 1970: the time that new and recovered segments get.
    pub clock: Clock,
    /// Who does the work.
    pub threads: Threads,
}

/// Tells the time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Who does the work of a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// Threads of its own.
    #[default]
    Spawned,
    /// Its owner, by [`super::LogDir::step`]: for tests that must repeat exactly.
    ByHand,
}

impl Default for LogDirConfig {
    fn default() -> LogDirConfig {
        LogDirConfig {
            cluster_id: None,
            directory_id: Uuid::new_v4(),
            node_id: 1,
            journal_max_bytes: 1 << 30,
            journal_first_file_bytes: 4 << 20,
            journal_group_max_bytes: GROUP_MAX_BYTES,
            pending_max_bytes: 64 << 20,
            commit_gap: Duration::ZERO,
            checkpoint_bytes: 64 << 20,
            unwritten_max_bytes: 512 << 20,
            checkpoint_interval: Duration::from_secs(5),
            disk_free_min: 512 << 20,
            log: LogConfig::default(),
            limits: SharedLimits::default(),
            on_failure: Arc::new(|_| {}),
            clock: Arc::new(system_ms),
            threads: Threads::Spawned,
        }
    }
}

fn system_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl LogDirConfig {
    pub(crate) fn journal(&self) -> JournalSettings {
        let group = self.journal_group_max_bytes.clamp(GROUP_MIN_BYTES, GROUP_MAX_BYTES);
        JournalSettings {
            group_max_bytes: group / DIRECT_ALIGN * DIRECT_ALIGN,
            pending_max_bytes: self.pending_max_bytes.max(1),
            commit_gap: self.commit_gap,
            checkpoint_bytes: self.checkpoint_bytes,
            unwritten_max_bytes: self.unwritten_max_bytes,
            max_bytes: self.journal_max_bytes,
        }
    }

    /// Whole blocks, at least a group.
    pub(crate) fn first_file_bytes(&self) -> u64 {
        let group = self.journal().group_max_bytes as u64;
        self.journal_first_file_bytes.max(group).next_multiple_of(DIRECT_ALIGN as u64)
    }
}
