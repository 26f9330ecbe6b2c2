//! What happens to the broker: a kill, or a cut of its disk's power.

use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::Broker;
use pelton_tests::disk::Disk;
use rand::Rng;
use rand::rngs::StdRng;
use rustix::process::Signal;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Bytes of the file that is not synced.
const CANARY_BYTES: usize = 64 << 10;
/// Exit code of a broker whose disk failed.
const DISK_FAILED: i32 = 4;
/// Longest time that a broker under load may go on without its disk.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);
/// Size of a file system; its image is sparse.
const DISK_BYTES: u64 = 4 << 30;

/// Which faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kills,
    Cuts,
    /// Kills, after which the disk holds what it held some commits before: a test of the test, which must find losses.
    Forgets,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Kills => "kills",
            Kind::Cuts => "cuts",
            Kind::Forgets => "kills with a disk that forgets",
        })
    }
}

/// What a fault showed by itself.
#[derive(Default)]
pub(crate) struct Felt {
    /// What was not synced is still there: the cut was none.
    pub(crate) left: bool,
    /// The broker noticed by itself that its disk was gone.
    pub(crate) noticed: bool,
}

/// Where the broker's data lie.
pub(crate) struct Place {
    disk: Option<Disk>,
    pub(crate) data: PathBuf,
}

impl Place {
    pub(crate) fn new(kind: Kind, home: &Path) -> Result<Place> {
        Ok(match kind {
            Kind::Kills | Kind::Forgets => Place { disk: None, data: home.join("data") },
            Kind::Cuts => {
                let disk = Disk::create(home, DISK_BYTES)?;
                Place { data: disk.mount.join("data"), disk: Some(disk) }
            }
        })
    }

    /// Leaves everything where it is, for somebody to look at.
    pub(crate) fn keep(self) {
        if let Some(disk) = self.disk {
            disk.keep();
        }
    }

    /// Prepares a fault, waits for `moment` and lets it happen.
    pub(crate) fn strike(&self, broker: Broker, rng: &mut StdRng, moment: impl FnOnce()) -> Result<Felt> {
        let Some(disk) = &self.disk else {
            moment();
            broker.kill()?;
            return Ok(Felt::default());
        };
        let canary = disk.mount.join("canary");
        let bytes: Vec<u8> = vec![rng.random(); CANARY_BYTES];
        std::fs::write(&canary, &bytes).context("write the canary")?;
        moment();
        disk.cut()?;
        let noticed = rng.random_ratio(1, 5);
        if noticed {
            notices(broker)?;
        } else {
            broker.wait_or_kill(Duration::ZERO)?;
        }
        disk.restore()?;
        let left = std::fs::read(&canary).ok() == Some(bytes);
        let _ = std::fs::remove_file(&canary);
        Ok(Felt { left, noticed })
    }
}

/// A failed sync is final: a broker whose disk has gone must end by itself, and say why with its exit code.
fn notices(broker: Broker) -> Result<()> {
    match broker.wait_or_kill(NOTICE_LIMIT)? {
        Some(status) if status.code() == Some(DISK_FAILED) => Ok(()),
        Some(status) => {
            bail!("the broker ended with {status} when its disk was gone, {DISK_FAILED} would say so")
        }
        None => bail!("the broker went on for {NOTICE_LIMIT:?} without a disk"),
    }
}

/// Kills the broker and leaves its disk as it was before `meanwhile`.
pub(crate) fn forget(broker: Broker, data: &Path, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let copy = data.with_extension("copy");
    // While it is stopped nothing changes: the copy is what a kill at this moment would have left.
    broker.signal(Signal::STOP)?;
    let copied = Command::new("cp").arg("-r").arg(data).arg(&copy).status();
    broker.signal(Signal::CONT)?;
    ensure!(copied.context("run cp")?.success(), "cannot copy {}", data.display());
    meanwhile()?;
    broker.kill()?;
    std::fs::remove_dir_all(data)?;
    std::fs::rename(&copy, data)?;
    Ok(())
}
