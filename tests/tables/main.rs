//! Tables over a real broker: what commands and HTTP say of a topic that librdkafka writes, through restarts, kills
//! and topics that are made again. Each case prints one line; any failure fails the run.
//!
//! `PELTON_TABLE_KILLS` (5) kills under load; `PELTON_SEED` repeats what is written; arguments pick cases by name.

mod commands;
mod faults;
mod kills;
mod lab;

use anyhow::Result;
use lab::Lab;
use pelton_tests::{cases, end, say, settings};
use std::process::ExitCode;

/// Returns what it can tell.
type Case = fn(&Lab) -> Result<String>;

const CASES: [(&str, Case); 8] = [
    ("a-table-is-created-and-asked", commands::asked),
    ("what-was-aborted-is-never-seen", commands::transactions),
    ("a-table-goes-on-after-a-restart", commands::restarts),
    ("a-topic-that-is-made-again-is-another-one", commands::topics),
    ("a-follower-sees-every-change-in-order", commands::followed),
    ("a-full-disk-stops-no-broker-and-is-not-final", faults::full),
    ("damaged-stores-are-made-again", faults::damaged),
    ("kills-under-load-leave-what-the-topic-says", kills::under_load),
];

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let binary = settings::binary()?;
    let home = tempfile::tempdir()?;
    cases::run("tables", CASES, |name, case| {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir)?;
        let lab = Lab { binary: binary.clone(), dir };
        case(&lab)
            .map(Some)
            .inspect_err(|_| say(format_args!("{}", std::fs::read_to_string(lab.log()).unwrap_or_default())))
    })
}
