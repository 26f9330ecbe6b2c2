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

/// A fault counts when it meets at least so many records of open transactions.
pub(crate) const IN_FLIGHT: u64 = 50;
/// Longest wait after a restart until every producer has committed something.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait until a pipeline has come to the end of its input.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a burst before a fault.
const BURST_LIMIT: Duration = Duration::from_millis(100);

/// What is to be done.
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) binary: PathBuf,
    /// The plugin `unruly`, built.
    pub(crate) component: PathBuf,
    pub(crate) images: PathBuf,
    pub(crate) seed: u64,
}

/// What was done.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) faults: u32,
    pub(crate) open: u32,
    pub(crate) met: u32,
    pub(crate) bitten: u32,
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
        let mut pipe = Pipe::deploy(&self.binary, &self.component, &broker, &place.data, home)?;
        let load = Running::start(&broker.address, Ledger::create("exactly-once")?, rng.random());
        load.progress(PROGRESS_LIMIT)?;
        for fault in 0..faults {
            // Mostly everybody has committed something since the last time; sometimes they have only just begun.
            if fault == 0 || rng.random_ratio(4, 5) {
                load.progress(PROGRESS_LIMIT)?;
                pipe.progress(&broker.address, PROGRESS_LIMIT)?;
            }
            std::thread::sleep(Duration::from_millis(rng.random_range(20..250)));
            let felt = if self.kind == Kind::Forgets {
                forget(broker, &place.data, || load.progress(PROGRESS_LIMIT))?;
                Felt::default()
            } else {
                place.strike(broker, rng, || meet(&load, tally))?
            };
            tally.faults += 1;
            tally.bitten += u32::from(felt.bitten);
            tally.noticed += u32::from(felt.noticed);
            while self.kind == Kind::Kills && rng.random_ratio(1, 4) {
                start.kill_in_recovery(Duration::from_millis(rng.random_range(0..60)))?;
                tally.in_recovery += 1;
            }
            broker = start.start().with_context(|| format!("start after fault {fault}"))?;
            tally.ready_ms.push(broker.ready_after.as_millis());
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
            Ok(judge(&names, &history.events, &view, history.problems.clone()))
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

/// Waits for a burst, but not long, and notes what there is.
fn meet(load: &Running, tally: &mut Tally) {
    let end = Instant::now() + BURST_LIMIT;
    while (load.in_flight() < IN_FLIGHT || load.open() == 0) && Instant::now() < end {
        std::hint::spin_loop();
    }
    let in_flight = load.in_flight();
    tally.open += u32::from(load.open() > 0);
    tally.met += u32::from(in_flight >= IN_FLIGHT);
    tally.in_flight.push(in_flight);
}

/// Small files, and coordinators that write snapshots all the time: between any two faults there are some.
fn small(start: Start) -> Start {
    start
        .set("pelton.journal.max.bytes", 64 << 20)
        .set("offsets.topic.segment.bytes", 1 << 20)
        .set("transaction.state.log.segment.bytes", 1 << 20)
        .set("pelton.snapshot.check.interval.ms", 20)
        .set("pelton.snapshot.min.bytes", 16 << 10)
}
