//! Transactions over a real broker and what is between it and its clients: requests that come late, twice or not at all,
//! and clients that were taken over while they were frozen. Each case prints one line; any failure fails the run.
//!
//! `PELTON_TRANSACTIONS` (150) transactions for each protocol; `PELTON_SEED` repeats the choice of faults; arguments pick
//! cases by name.

mod proxy;
mod torn;
mod zombie;

use anyhow::Result;
use pelton_tests::broker::{Broker, Start};
use pelton_tests::{cases, end, say, settings, skip};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// One case's place.
pub(crate) struct Lab {
    binary: PathBuf,
    dir: PathBuf,
    /// The client of the newer protocol, where it is installed.
    pub(crate) franz: Option<PathBuf>,
    pub(crate) seed: u64,
}

/// Returns what it can tell; `None` when it cannot do its work here.
type Case = fn(&Lab) -> Result<Option<String>>;

const CASES: [(&str, Case); 6] = [
    ("copies-never-tear-the-newer-protocol", torn::newer),
    ("copies-on-older-connections-never-tear-the-older-protocol", torn::older),
    ("a-zombie-of-the-older-protocol-past-its-time", zombie::older_timed_out),
    ("a-zombie-of-the-older-protocol-taken-over", zombie::older_taken_over),
    ("a-zombie-of-the-newer-protocol-past-its-time", zombie::newer_timed_out),
    ("a-zombie-of-the-newer-protocol-taken-over", zombie::newer_taken_over),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(rest) = arguments.strip_prefix(&[zombie::ARGUMENT.to_owned()]) {
        return end(zombie::be(rest));
    }
    end(run())
}

fn run() -> Result<()> {
    let (binary, seed) = (settings::binary()?, settings::seed()?);
    say(format_args!("PELTON_SEED={seed}"));
    let home = tempfile::tempdir()?;
    cases::run("transactions", CASES, |name, case| {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir)?;
        let lab = Lab { binary: binary.clone(), dir, franz: franz(), seed };
        let done = case(&lab).inspect_err(|_| {
            say(format_args!("{}", std::fs::read_to_string(lab.log()).unwrap_or_default()));
        })?;
        if done.is_none() {
            skip(format_args!("{name}: franz-go is not there (tests/clients/setup.sh franz)"))?;
        }
        Ok(done)
    })
}

/// Where tests/clients/setup.sh puts it.
fn franz() -> Option<PathBuf> {
    Some(settings::clients_dir().join("franz/franz")).filter(|path| path.is_file())
}

impl Lab {
    fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// A broker that looks for transactions past their time ten times a second; clients are told to find it at `advertise`.
    pub(crate) fn start(&self, advertise: Option<&str>) -> Result<Broker> {
        let mut start = Start::new(&self.binary, Path::new(&self.dir.join("data")), &self.log())
            .set("transaction.state.log.num.partitions", 4)
            .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", 100);
        if let Some(advertise) = advertise {
            start = start.set("advertise", advertise);
        }
        start.start()
    }
}
