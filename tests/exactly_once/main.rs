//! Exactly once through crashes: a transactional load, a consume-transform-produce loop and pipelines, while the broker is
//! killed (`kills`, the default) or the power of its disk is cut (`cuts`). Our own judge compares what a read-committed
//! consumer finds at the end with what clients asked for and were told.
//!
//! `PELTON_KILLS` (30) kills or `PELTON_CUTS` (30) cuts, in rounds on a fresh data directory each; `PELTON_SEED` repeats the
//! choice of moments; `PELTON_CUT_DIR` says where disk images lie. A fault counts when it meets open transactions with records
//! in flight, and a cut when it takes a file that was not synced: one that does not is repeated. A run in which faults find no
//! open transactions, or several cuts in a row leave the file, is INVALID, which fails as well.
//!
//! `forgets` is a test of this test: after each kill the disk holds what it held some commits before, and the judge must find
//! what was lost. (Cuts without syncs would not do: a marker is synced whatever its topic's durability, and one sync makes
//! everything before it durable.)

mod fault;
mod pipeline;
mod round;

use anyhow::{Result, bail, ensure};
use fault::Kind;
use pelton_tests::exactly_once::judge::Count;
use pelton_tests::{disk, end, guest, say, settings, skip};
use rand::SeedableRng;
use rand::rngs::StdRng;
use round::{Plan, Tally};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Faults on one data directory.
const ROUND: u32 = 15;
/// Kills after which the disk forgets something.
const FORGETS: u32 = 2;

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let kind = match std::env::args().skip(1).find(|word| !word.starts_with('-')).as_deref() {
        None | Some("kills") => Kind::Kills,
        Some("cuts") => Kind::Cuts,
        Some("forgets") => Kind::Forgets,
        Some(other) => bail!("`{other}` is none of `kills`, `cuts` and `forgets`"),
    };
    let faults: u32 = match kind {
        Kind::Kills => settings::from_env("PELTON_KILLS", 30)?,
        Kind::Cuts => settings::from_env("PELTON_CUTS", 30)?,
        Kind::Forgets => FORGETS,
    };
    if let (Kind::Cuts, Some(why)) = (kind, disk::missing()) {
        return skip(format_args!("exactly-once: {why}; 0 of {faults} cuts"));
    }
    let (binary, home) = (settings::binary()?, tempfile::tempdir()?);
    let build_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let build = |name| guest::build(&binary, name, &build_dir, home.path());
    let components = vec![build("unruly")?, build("keeper")?];
    let plan = Plan {
        kind,
        binary,
        components,
        images: settings::from_env("PELTON_CUT_DIR", std::env::temp_dir())?,
        seed: settings::seed()?,
    };
    let begin = Instant::now();
    say(format_args!("exactly-once: {faults} {kind}, seed {}", plan.seed));
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut tally = Tally::default();
    while tally.faults < faults && (plan.expects_loss() || tally.verdict.findings.is_empty()) {
        // What was taken back may never come right again, so a round that is to lose something ends with its first cut.
        let wanted = if plan.expects_loss() { 1 } else { ROUND.min(faults - tally.faults) };
        plan.round(wanted, &mut rng, &mut tally)?;
    }
    summary(&plan, &mut tally, begin.elapsed())
}

fn summary(plan: &Plan, tally: &mut Tally, took: Duration) -> Result<()> {
    tally.in_flight.sort_unstable();
    tally.ready_ms.sort_unstable();
    let last = tally.ready_ms.len().saturating_sub(1);
    let ready = |percent: usize| tally.ready_ms.get(last * percent / 100).copied().unwrap_or(0);
    let Tally { faults, early, left, in_recovery, noticed, producers, verdict, .. } = &tally;
    say(format_args!(
        "exactly-once: {faults} {} (each inside open transactions, with at least {} records in flight, median {}), \
         {early} more before any, {in_recovery} during recovery; ready again after p50 {} ms, p99 {} ms; {producers} producers; {verdict}; seed {}; {:.1} min",
        plan.kind,
        round::IN_FLIGHT,
        tally.in_flight.get(tally.in_flight.len() / 2).copied().unwrap_or(0),
        ready(50),
        ready(99),
        plan.seed,
        took.as_secs_f64() / 60.0,
    ));
    if plan.kind == Kind::Cuts {
        say(format_args!(
            "exactly-once: each cut took what was not synced, {left} more did not; {noticed} were for the broker to notice"
        ));
    }
    for (error, n) in &tally.fatal {
        say(format_args!("exactly-once: {n} producers ended with {error}"));
    }
    if plan.expects_loss() {
        let lost = verdict.count(Count::Lost) + verdict.count(Count::Torn);
        ensure!(
            lost > 0,
            "INVALID: nothing committed was lost, though it was to be: this test proves nothing"
        );
        say(format_args!(
            "exactly-once: as it was to be, {lost} committed records were lost, and the judge has found them"
        ));
        return Ok(());
    }
    ensure!(
        verdict.findings.is_empty(),
        "what clients were told did not hold:\n  {}",
        verdict.findings.join("\n  ")
    );
    for what in [Count::Committed, Count::Aborted, Count::Sights, Count::Found] {
        ensure!(verdict.count(what) > 0, "INVALID: the run has no {what:?} at all: {verdict}");
    }
    Ok(())
}
