//! Power cuts of the real files: the data directory is on an ext4 file system of its own, which is shut down under load.
//!
//! `PELTON_CUTS` (100) cuts, in rounds on a fresh file system each; `PELTON_SEED` repeats the choice of moments;
//! `PELTON_CUT_DIR` says where the images lie (the temporary directory). A cut waits for records in flight, so that each
//! meets some whatever else the machine does. Before every cut a file is written and not synced: it must be gone, or the cut
//! did not bite and does not count; a run in which several in a row do not is INVALID, which fails as well.
//!
//! `PELTON_SET` (key=value) sets one thing otherwise: with `pelton.durability=os` the run must find losses, which shows that
//! it can. The long run of `./run test` asks for that too, with `PELTON_EXPECT=loss`.

use anyhow::{Context, Result, bail, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::check::{Count, Report, check};
use pelton_tests::disk::{self, Disk};
use pelton_tests::ledger::Ledger;
use pelton_tests::load::{DRAIN_LIMIT, Running};
use pelton_tests::{end, say, settings, skip};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Cuts on one file system.
const ROUND: u32 = 25;
/// Size of a file system; its image is sparse.
const DISK_BYTES: u64 = 4 << 30;
/// Bytes of the file that is not synced.
const CANARY_BYTES: usize = 64 << 10;
/// A cut counts when it takes the canary; so many in a row that leave it are no cuts.
const MOST_LEFT: u32 = 10;
/// A cut waits for at least so many records in flight.
const IN_FLIGHT: u64 = 10;
/// Exit code of a broker whose disk failed.
const DISK_FAILED: i32 = 4;
/// Longest time that a broker under load may go on without its disk.
const NOTICE_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait after a restart until every producer is acknowledged something, and then for records in flight.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Tally {
    /// Cuts that took the canary.
    cuts: u32,
    /// Cuts that left it.
    left: u32,
    noticed: u32,
    ready_ms: Vec<u128>,
}

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let cuts: u32 = settings::from_env("PELTON_CUTS", 100)?;
    let images: PathBuf = settings::from_env("PELTON_CUT_DIR", std::env::temp_dir())?;
    let seed = settings::seed()?;
    let binary = settings::binary()?;
    if let Some(why) = disk::missing() {
        return skip(format_args!("powercut: {why}; 0 of {cuts} cuts"));
    }
    let begin = Instant::now();
    let expect_loss = std::env::var("PELTON_EXPECT").is_ok_and(|e| e == "loss");
    // Producers whose records were taken back may never go on, so such a round ends with its first cut.
    let (per_round, drain) = if expect_loss { (1, Duration::from_secs(3)) } else { (ROUND, DRAIN_LIMIT) };
    say(format_args!("powercut: {cuts} cuts, seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut tally, mut total) = (Tally::default(), Report::default());
    // One that is to find losses may meet none for some cuts: the journal is a few milliseconds behind, whoever waits for it.
    let goes_on = |total: &Report| {
        if expect_loss { total.count(Count::Lost) == 0 } else { total.findings.is_empty() }
    };
    while tally.cuts < cuts && goes_on(&total) {
        let home = tempfile::Builder::new().prefix("pelton-powercut-").tempdir_in(&images)?;
        let disk = Disk::create(home.path(), DISK_BYTES)?;
        // A small journal, so that cuts meet its end and its beginning.
        let mut start = Start::new(&binary, &disk.mount.join("data"), &home.path().join("broker.log"))
            .set("pelton.journal.max.bytes", 64 << 20);
        if let Some((key, value)) = settings::other()? {
            start = start.set(&key, value);
        }
        let wanted = per_round.min(cuts - tally.cuts);
        let report = round(&disk, &mut start, wanted, drain, &mut rng, &mut tally);
        let good = report.as_ref().is_ok_and(|r| expect_loss || r.findings.is_empty());
        if !good {
            disk.keep();
            let (home, words) = (home.keep(), start.last_words());
            say(format_args!(
                "disk.img and broker.log are kept in {}; the broker's last words:\n{words}",
                home.display()
            ));
        }
        total.add(report.with_context(|| format!("after {} cuts, seed {seed}", tally.cuts))?);
    }
    summary(&mut tally, &total, seed, begin.elapsed())?;
    if expect_loss {
        ensure!(
            total.count(Count::Lost) > 0,
            "INVALID: nothing acknowledged was lost, though it was to be: these cuts prove nothing"
        );
        say(format_args!(
            "powercut: as it was to be, {} records were lost; the cuts bite",
            total.count(Count::Lost)
        ));
        return Ok(());
    }
    ensure!(
        total.findings.is_empty(),
        "what clients were told did not hold:\n  {}",
        total.findings.join("\n  ")
    );
    Ok(())
}

fn summary(tally: &mut Tally, total: &Report, seed: u64, took: Duration) -> Result<()> {
    tally.ready_ms.sort_unstable();
    let last = tally.ready_ms.len().saturating_sub(1);
    let ready = |percent: usize| tally.ready_ms.get(last * percent / 100).copied().unwrap_or(0);
    let Tally { cuts, left, noticed, .. } = *tally;
    say(format_args!(
        "powercut: {cuts} cuts that took the canary and met records in flight ({noticed} for the broker to notice), \
         {left} that left the canary; ready again after p50 {} ms, p99 {} ms; {total}; seed {seed}; {:.1} min",
        ready(50),
        ready(99),
        took.as_secs_f64() / 60.0,
    ));
    Ok(())
}

fn round(
    disk: &Disk,
    start: &mut Start,
    cuts: u32,
    drain: Duration,
    rng: &mut StdRng,
    tally: &mut Tally,
) -> Result<Report> {
    let mut broker = start.start()?;
    let load = Running::start(&broker.address, Ledger::create("powercut")?)?;
    let (wanted, mut left_in_a_row) = (tally.cuts + cuts, 0);
    while tally.cuts < wanted {
        if !load.progress(PROGRESS_LIMIT) {
            bail!(
                "not every producer was acknowledged something within {PROGRESS_LIMIT:?}; {:?}",
                load.problems()
            );
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(20..300)));
        let canary = disk.mount.join(format!("canary-{}-{}", tally.cuts, tally.left));
        let bytes: Vec<u8> = vec![rng.random(); CANARY_BYTES];
        std::fs::write(&canary, &bytes).context("write the canary")?;
        load.meet_records(IN_FLIGHT, PROGRESS_LIMIT)?;
        disk.cut()?;
        load.fault();
        if rng.random_ratio(1, 5) {
            notices(broker, &load)?;
            tally.noticed += 1;
        } else {
            broker.wait_or_kill(Duration::ZERO)?;
        }
        disk.restore()?;
        if std::fs::read(&canary).ok() == Some(bytes) {
            (tally.left, left_in_a_row) = (tally.left + 1, left_in_a_row + 1);
            ensure!(left_in_a_row < MOST_LEFT, "INVALID: {MOST_LEFT} cuts in a row left what was not synced");
        } else {
            (tally.cuts, left_in_a_row) = (tally.cuts + 1, 0);
        }
        let _ = std::fs::remove_file(&canary);
        broker = start.start().context("start after a power cut")?;
        tally.ready_ms.push(broker.ready_after.as_millis());
    }
    let outcome = load.finish(drain)?;
    let report = check(&broker.address, &outcome)?;
    broker.stop()?;
    Ok(report)
}

/// A failed sync is final: a broker whose disk has gone must end by itself, and say why with its exit code.
fn notices(broker: Broker, load: &Running) -> Result<()> {
    let acked = load.acked();
    match broker.wait_or_kill(NOTICE_LIMIT)? {
        Some(status) if status.code() == Some(DISK_FAILED) => Ok(()),
        Some(status) => {
            bail!("the broker ended with {status} when its disk was gone, {DISK_FAILED} would say so")
        }
        None => bail!(
            "the broker went on for {NOTICE_LIMIT:?} without a disk, {} records acknowledged",
            load.acked() - acked
        ),
    }
}
