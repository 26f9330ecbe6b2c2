//! One round: a broker on a fresh data directory, the load, some faults, and the judgement.

use crate::fault::{Felt, Kind, Place, forget};
use crate::pipeline::{self, Pipe};
use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::exactly_once::judge::{Topic, Verdict, judge};
use pelton_tests::exactly_once::ledger::Ledger;
use pelton_tests::exactly_once::rig::{self, History, Running};
use pelton_tests::say;
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A fault counts when it meets an open transaction, and at least so many records of open transactions.
pub(crate) const IN_FLIGHT: u64 = 50;
/// Longest wait after a restart until every producer has committed something.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// A cut counts when it takes what was not synced, too; so many in a row that leave it are no cuts.
const MOST_LEFT: u32 = 10;
/// Longest wait until a pipeline has come to the end of its input.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for open transactions before a fault that is to come early. Another waits as long as for progress.
const EARLY_LIMIT: Duration = Duration::from_millis(100);
/// How often it is looked whether transactions are open; they are for longer.
const LOOK: Duration = Duration::from_micros(50);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) binary: PathBuf,
    /// The plugin `unruly`, built.
    pub(crate) components: Vec<PathBuf>,
    pub(crate) images: PathBuf,
    pub(crate) seed: u64,
}

/// What was done.
#[derive(Default)]
pub(crate) struct Tally {
    /// Faults that met open transactions with records in flight and, if cuts, took what was not synced.
    pub(crate) faults: u32,
    /// Faults that came too early to meet any: they happened, and do not count.
    pub(crate) early: u32,
    /// Cuts that left what was not synced.
    pub(crate) left: u32,
    pub(crate) noticed: u32,
    pub(crate) in_recovery: u32,
    pub(crate) in_flight: Vec<u64>,
    pub(crate) ready_ms: Vec<u128>,
    pub(crate) producers: u32,
    pub(crate) fatal: BTreeMap<String, u32>,
    pub(crate) verdict: Verdict,
}

impl Plan {
    pub(crate) fn expects_loss(&self) -> bool {
        self.kind == Kind::Forgets
    }

    /// Adds a round to the tally. The data of one with findings stay where they are.
    pub(crate) fn round(&self, faults: u32, rng: &mut StdRng, tally: &mut Tally) -> Result<()> {
        let home = tempfile::Builder::new().prefix("pelton-exactly-once-").tempdir_in(&self.images)?;
        let place = Place::new(self.kind, home.path())?;
        let log = home.path().join("broker.log");
        // A small journal, so that faults meet its end and its beginning.
        let mut start = small(Start::new(&self.binary, &place.data, &log).with_http());
        let verdict = self.faults(&place, &mut start, home.path(), faults, rng, tally);
        let good = verdict.as_ref().is_ok_and(|verdict| self.expects_loss() || verdict.findings.is_empty());
        if !good {
            place.keep();
            let home = home.keep();
            say(format_args!(
                "data, ledger and broker.log are kept in {}; the broker's last words:\n{}",
                home.display(),
                start.last_words()
            ));
        }
        let verdict =
            verdict.with_context(|| format!("after {} {}, seed {}", tally.faults, self.kind, self.seed))?;
        tally.verdict.add(verdict);
        Ok(())
    }

    fn faults(
        &self,
        place: &Place,
        start: &mut Start,
        home: &Path,
        faults: u32,
        rng: &mut StdRng,
        tally: &mut Tally,
    ) -> Result<Verdict> {
        let topics = rig::topics(&pipeline::OUTPUTS);
        let mut broker = start.start()?;
        rig::create_topics(&broker.address, &topics)?;
        let mut pipe = Pipe::deploy(&self.binary, &self.components, &broker, &place.data, home)?;
        let load = Running::start(&broker.address, Ledger::create("exactly-once")?, rng.random());
        load.progress(PROGRESS_LIMIT)?;
        let (wanted, mut left_in_a_row, mut early) = (tally.faults + faults, 0, false);
        while tally.faults < wanted {
            // Mostly everybody has committed something since the last time; sometimes they have only just begun.
            if !early {
                load.progress(PROGRESS_LIMIT)?;
                pipe.progress(&broker.address, PROGRESS_LIMIT)?;
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(20..250)));
            let mut met = Some(0);
            let felt = if self.kind == Kind::Forgets {
                forget(broker, &place.data, || load.progress(PROGRESS_LIMIT))?;
                Felt::default()
            } else {
                place.strike(broker, rng, || {
                    met = meet(&load, if early { EARLY_LIMIT } else { PROGRESS_LIMIT });
                })?
            };
            left_in_a_row = if felt.left { left_in_a_row + 1 } else { 0 };
            ensure!(left_in_a_row < MOST_LEFT, "INVALID: {MOST_LEFT} cuts in a row left what was not synced");
            ensure!(early || met.is_some(), "INVALID: no transactions to meet for {PROGRESS_LIMIT:?}");
            tally.note(met, felt.left);
            tally.noticed += u32::from(felt.noticed);
            while self.kind == Kind::Kills && rng.random_ratio(1, 4) {
                start.kill_in_recovery(Duration::from_millis(rng.random_range(0..60)))?;
                tally.in_recovery += 1;
            }
            broker = start.start().with_context(|| format!("start after fault {}", tally.faults))?;
            tally.ready_ms.push(broker.ready_after.as_millis());
            early = rng.random_ratio(1, 5);
        }
        let mut history = load.finish(&broker.address)?;
        // One whose input went back stays where it was.
        if !self.expects_loss()
            && let Err(error) = pipe.settle(&broker.address, SETTLE_LIMIT)
        {
            history.problems.push(format!("{error:#}"));
        }
        tally.producers += history.producers;
        for (error, n) in std::mem::take(&mut history.fatal) {
            *tally.fatal.entry(error).or_default() += n;
        }
        let verdict = self.judge(broker, start, &topics, &history);
        if !verdict.as_ref().is_ok_and(|verdict| verdict.findings.is_empty()) && !self.expects_loss() {
            history.keep(&home.join("ledger"))?;
        }
        verdict
    }

    /// The same must hold after a graceful stop, which writes more down than a crash.
    fn judge(
        &self,
        broker: Broker,
        start: &mut Start,
        topics: &[(Topic, u32)],
        history: &History,
    ) -> Result<Verdict> {
        let names: Vec<Topic> = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let judged = |broker: &Broker| -> Result<Verdict> {
            let view = rig::view(&broker.address, topics)?;
            let mut problems = history.problems.clone();
            // A disk that forgets takes input from under what was counted.
            if !self.expects_loss() {
                problems.extend(pipeline::miscounted(&broker.address)?);
            }
            Ok(judge(&names, &history.events, &view, problems))
        };
        let verdict = judged(&broker)?;
        if !verdict.findings.is_empty() {
            return Ok(verdict);
        }
        broker.stop()?;
        let broker = start.start().context("start after a graceful stop")?;
        let again = judged(&broker)?;
        ensure!(
            again.findings.is_empty(),
            "after a graceful stop: {again}\n  {}",
            again.findings.join("\n  ")
        );
        broker.stop()?;
        Ok(verdict)
    }
}

impl Tally {
    /// Notes a fault, which met so many records of open transactions, or none.
    fn note(&mut self, met: Option<u64>, left: bool) {
        self.in_flight.extend(met);
        self.left += u32::from(left);
        self.early += u32::from(met.is_none());
        self.faults += u32::from(met.is_some() && !left);
    }
}

/// Waits for open transactions with records in flight, and returns how many records.
fn meet(load: &Running, limit: Duration) -> Option<u64> {
    let end = Instant::now() + limit;
    loop {
        let (open, in_flight) = (load.open(), load.in_flight());
        if open > 0 && in_flight >= IN_FLIGHT {
            return Some(in_flight);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Small files, coordinators that write snapshots all the time, and stores that are flushed often: between any two faults
/// there are some.
fn small(start: Start) -> Start {
    start
        .set("pelton.journal.max.bytes", 64 << 20)
        .set("offsets.topic.segment.bytes", 1 << 20)
        .set("transaction.state.log.segment.bytes", 1 << 20)
        .set("pelton.snapshot.check.interval.ms", 20)
        .set("pelton.snapshot.min.bytes", 16 << 10)
        .set("pelton.state.flush.interval.ms", 100)
}
