//! `kill -9` under load: nothing acknowledged may be lost, moved, doubled or damaged.
//!
//! `PELTON_SET` (key=value) sets one thing otherwise: with `pelton.durability=os` the same must hold, because what is not synced
//! is in the page cache, which a kill leaves alone.
//!
//! `PELTON_KILLS` (50) kills with records in flight, in rounds on a fresh data directory each, with further kills during
//! recovery in between; `PELTON_SEED` repeats the choice of moments. A kill waits for records in flight, so that each meets
//! some whatever else the machine does.

use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::check::{Report, check};
use pelton_tests::ledger::Ledger;
use pelton_tests::load::{DRAIN_LIMIT, Running};
use pelton_tests::{end, say, settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Kills on one data directory.
const ROUND: u32 = 25;
/// A kill waits for at least so many records in flight.
const IN_FLIGHT: u64 = 10;
/// Longest wait after a restart until every producer is acknowledged something, and then for records in flight.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Tally {
    kills: u32,
    in_recovery: u32,
    in_flight: Vec<u64>,
    ready_ms: Vec<u128>,
}

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let kills: u32 = settings::from_env("PELTON_KILLS", 50)?;
    let seed = settings::seed()?;
    let binary = settings::binary()?;
    let begin = Instant::now();
    say(format_args!("kill: {kills} kills, seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut tally, mut total) = (Tally::default(), Report::default());
    while tally.kills < kills && total.findings.is_empty() {
        let home = tempfile::tempdir()?;
        let wanted = ROUND.min(kills - tally.kills);
        match round(&binary, home.path(), wanted, &mut rng, &mut tally) {
            Ok(report) if report.findings.is_empty() => total.add(report),
            Ok(report) => {
                total.add(report);
                say(format_args!("the broker's log and data are kept in {}", home.keep().display()));
            }
            Err(error) => {
                let home = home.keep();
                return Err(error.context(format!(
                    "after {} kills, seed {seed}, log and data in {}",
                    tally.kills,
                    home.display()
                )));
            }
        }
    }
    summary(&mut tally, &total, seed, begin.elapsed())
}

fn summary(tally: &mut Tally, total: &Report, seed: u64, took: Duration) -> Result<()> {
    tally.in_flight.sort_unstable();
    tally.ready_ms.sort_unstable();
    let ready = |percent: usize| {
        tally.ready_ms.get(tally.ready_ms.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0)
    };
    say(format_args!(
        "kill: {} kills (each with at least {IN_FLIGHT} records in flight, median {}), {} more during recovery; \
         ready again after p50 {} ms, p99 {} ms; {total}; seed {seed}; {:.1} min",
        tally.kills,
        tally.in_flight.get(tally.in_flight.len() / 2).copied().unwrap_or(0),
        tally.in_recovery,
        ready(50),
        ready(99),
        took.as_secs_f64() / 60.0,
    ));
    ensure!(
        total.findings.is_empty(),
        "what clients were told did not hold:\n  {}",
        total.findings.join("\n  ")
    );
    Ok(())
}

fn round(binary: &Path, home: &Path, kills: u32, rng: &mut StdRng, tally: &mut Tally) -> Result<Report> {
    // A small journal, so that kills meet its end and its beginning.
    let mut start = Start::new(binary, &home.join("data"), &home.join("broker.log"))
        .set("pelton.journal.max.bytes", 64 << 20);
    if let Some((key, value)) = settings::other()? {
        start = start.set(&key, value);
    }
    let mut broker = start.start()?;
    let load = Running::start(&broker.address, Ledger::create("kill")?)?;
    for _ in 0..kills {
        if !load.progress(PROGRESS_LIMIT) {
            bail!(
                "not every producer was acknowledged something within {PROGRESS_LIMIT:?}; {:?}; {}",
                load.problems(),
                start.last_words()
            );
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(20..250)));
        tally.in_flight.push(load.meet_records(IN_FLIGHT, PROGRESS_LIMIT)?);
        broker.kill()?;
        load.fault();
        tally.kills += 1;
        while rng.random_ratio(1, 4) {
            start.kill_in_recovery(Duration::from_millis(rng.random_range(0..60)))?;
            tally.in_recovery += 1;
        }
        broker = start.start().context("start after a kill")?;
        tally.ready_ms.push(broker.ready_after.as_millis());
    }
    let outcome = load.finish(DRAIN_LIMIT)?;
    let report = check(&broker.address, &outcome)?;
    if !report.findings.is_empty() {
        return Ok(report);
    }
    // The same must hold after a graceful stop, which writes more down than a kill.
    stop_and_check(broker, &mut start, &outcome)?;
    Ok(report)
}

fn stop_and_check(broker: Broker, start: &mut Start, outcome: &pelton_tests::load::Outcome) -> Result<()> {
    broker.stop()?;
    let broker = start.start().context("start after a graceful stop")?;
    let report = check(&broker.address, outcome)?;
    ensure!(
        report.findings.is_empty(),
        "after a graceful stop: {report}\n  {}",
        report.findings.join("\n  ")
    );
    broker.stop()?;
    Ok(())
}
