//! Exactly once with other people's programs: a consume-transform-produce loop with confluent-kafka, with Java's
//! kafka-clients and with franz-go, and a Kafka Streams application, while they and the broker are killed.
//!
//! `PELTON_FAULTS` (8) kills a case, of which every third is the broker's; `PELTON_SEED` repeats the choice of moments;
//! arguments pick cases by name. The programs are installed by `clients/setup.sh`. A run in which too few kills of a
//! program met it at work is INVALID, which fails as well.

mod case;
mod input;
mod judge;
mod program;

use anyhow::{Result, ensure};
use case::Lab;
use pelton_tests::{end, say, settings};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Returns what it can tell.
type Case = fn(&Lab) -> Result<String>;

const CASES: [(&str, Case); 4] = [
    ("confluent-kafka", |lab| case::copies(lab, "confluent-kafka")),
    ("java", |lab| case::copies(lab, "java")),
    ("franz-go", |lab| case::copies(lab, "franz-go")),
    ("kafka-streams", case::counts),
];

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let binary = settings::binary()?;
    let faults: u32 = settings::from_env("PELTON_FAULTS", 8)?;
    let seed = settings::seed()?;
    let cache = cache();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (mut ran, mut failed) = (0, 0);
    for (name, case) in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        ran += 1;
        let begin = Instant::now();
        let home = tempfile::Builder::new().prefix("pelton-outsiders-").tempdir()?;
        let lab =
            Lab { binary: binary.clone(), cache: cache.clone(), dir: home.path().to_owned(), faults, seed };
        match case(&lab) {
            Ok(detail) => {
                say(format_args!("ok {name}: {detail}, seed {seed} {:.1}s", begin.elapsed().as_secs_f64()));
            }
            Err(error) => {
                failed += 1;
                let home = home.keep();
                say(format_args!(
                    "FAIL {name}: {error:#}, seed {seed}; data and logs are kept in {}",
                    home.display()
                ));
            }
        }
    }
    say(format_args!("outsiders: {ran} cases, {failed} failed"));
    ensure!(ran > 0, "no case is called like {wanted:?}");
    ensure!(failed == 0, "{failed} cases failed");
    Ok(())
}

/// Where `clients/setup.sh` installs.
fn cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let base = std::env::var_os("PELTON_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .unwrap_or_else(|| home().join(".cache"))
            .join("pelton")
    });
    base.join("clients")
}
