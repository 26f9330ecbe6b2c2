//! Exactly once with other people's programs: a consume-transform-produce loop with confluent-kafka, with Java's
//! kafka-clients and with franz-go, and a Kafka Streams application, while they and the broker are killed. And a topic with a
//! partitioner of its own, which idempotent and transactional producers of four clients write to while the broker is killed.
//!
//! `PELTON_FAULTS` (8) kills a case, of which every third is the broker's; `PELTON_SEED` repeats the choice of moments;
//! arguments pick cases by name. The programs are installed by `clients/setup.sh`. A program is killed when it is known to be
//! at work, whatever else the machine does.

mod case;
mod input;
mod judge;
mod program;
mod routed;

use anyhow::Result;
use case::Lab;
use pelton_tests::{cases, end, settings};
use std::process::ExitCode;

/// Returns what it can tell.
type Case = fn(&Lab) -> Result<String>;

const CASES: [(&str, Case); 5] = [
    ("confluent-kafka", |lab| case::copies(lab, "confluent-kafka")),
    ("java", |lab| case::copies(lab, "java")),
    ("franz-go", |lab| case::copies(lab, "franz-go")),
    ("kafka-streams", case::counts),
    ("a-topics-partitioner", routed::obeyed),
];

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let binary = settings::binary()?;
    let faults: u32 = settings::from_env("PELTON_FAULTS", 8)?;
    let seed = settings::seed()?;
    let cache = settings::clients_dir();
    cases::run("outsiders", CASES, |_, case| {
        let home = tempfile::Builder::new().prefix("pelton-outsiders-").tempdir()?;
        let lab =
            Lab { binary: binary.clone(), cache: cache.clone(), dir: home.path().to_owned(), faults, seed };
        match case(&lab) {
            Ok(detail) => Ok(Some(format!("{detail}, seed {seed}"))),
            Err(error) => {
                let kept = format!("seed {seed}; data and logs are kept in {}", home.keep().display());
                Err(error.context(kept))
            }
        }
    })
}
