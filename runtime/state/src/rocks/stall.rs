//! Waiting for a database that takes no writes.
//!
//! RocksDB stops writes while flushes or compactions are behind. After a flush that found no room on the disk it looks for room
//! every few seconds by itself, and a write would wait for as long as there is none: its thread could not be stopped, and nobody
//! would be told.

use std::path::Path;
use std::time::Duration;

use pelton_streams::state::StateError;

/// Between two looks.
const STEP: Duration = Duration::from_millis(5);
/// How long it may take no writes. What is behind is at most some write buffers, and files of the first level.
const LONGEST: Duration = Duration::from_secs(60);
/// A flush of less than one write buffer finds no room in this.
const LITTLE_ROOM: u64 = 1 << 20;

/// How long a write has waited.
#[derive(Debug, Default)]
pub(super) struct Stall {
    waited: Duration,
}

impl Stall {
    /// Waits a little for the database in `dir`.
    ///
    /// # Errors
    /// There is no room on its disk, or it has taken no writes for [`LONGEST`].
    pub(super) fn wait(&mut self, dir: &Path) -> Result<(), StateError> {
        let room = rustix::fs::statvfs(dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        self.judge(room.ok(), dir)?;
        std::thread::sleep(STEP);
        self.waited += STEP;
        Ok(())
    }

    fn judge(&self, room: Option<u64>, dir: &Path) -> Result<(), StateError> {
        let dir = dir.display();
        match room {
            Some(room) if room < LITTLE_ROOM => Err(StateError::Full(format!(
                "{room} bytes are left for `{dir}`, and what is in memory cannot be flushed"
            ))),
            _ if self.waited >= LONGEST => Err(StateError::Storage(format!(
                "the database in `{dir}` has taken no writes for {} s: its flushes and compactions do not come to an end",
                LONGEST.as_secs()
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_at_once_and_all_else_after_a_minute() {
        let judge = |waited, room| Stall { waited }.judge(room, Path::new("/state"));
        let little = judge(Duration::ZERO, Some(LITTLE_ROOM - 1)).unwrap_err();
        assert!(matches!(&little, StateError::Full(text) if text.contains("/state")), "{little}");
        for room in [Some(LITTLE_ROOM), None] {
            judge(LONGEST - STEP, room).unwrap();
            assert!(matches!(judge(LONGEST, room), Err(StateError::Storage(_))), "{room:?}");
        }
    }

    #[test]
    fn there_is_room_where_tests_run() {
        let mut stall = Stall::default();
        stall.wait(&std::env::temp_dir()).unwrap();
        assert_eq!(stall.waited, STEP);
    }
}
