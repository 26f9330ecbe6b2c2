//! A store that is made again from its changelog: pelton's beside that of Kafka Streams. Both changelogs have as many keys, each
//! once, with values of the same size.

use super::figures::{Figures, Side};
use super::peer::{Application, Kafka, Subject};
use super::{LIMIT, Run, create_topic};
use crate::restore::{self, KEYS};
use anyhow::ensure;
use std::time::{Duration, Instant};

/// The changelog of the store that `Restore.java` keeps.
const CHANGELOG: &str = "kept-kept-changelog";

impl Run<'_> {
    pub(super) fn restores(&mut self) -> anyhow::Result<()> {
        let what = format!("a store of {KEYS} keys made again, one task, from the start of the process");
        let own = restore::measure(self.bench)?;
        self.add(&what, Side::Pelton, Figures::of(own.changes, own.time, own.cpu, None, own.peak));
        let theirs = self.streams_restore()?;
        self.add(&what, Side::Kafka, theirs);
        Ok(())
    }

    fn streams_restore(&self) -> anyhow::Result<Figures> {
        let dir = self.bench.dir.path().join("beside");
        let kafka = Kafka::start(self.installed, &dir)?;
        create_topic(kafka.address(), "in", 1, &[])?;
        create_topic(kafka.address(), CHANGELOG, 1, &[("cleanup.policy", "compact")])?;
        restore::fill(kafka.address(), CHANGELOG, KEYS)?;
        let (state, done) = (dir.join("streams-state"), dir.join("done"));
        let (broker, started) = (kafka.cpu()?, Instant::now());
        let arguments = [kafka.address().as_ref(), "in".as_ref(), state.as_os_str(), done.as_os_str()];
        let application = Application::start(self.installed, "Restore", arguments)?;
        while !done.exists() {
            ensure!(started.elapsed() < LIMIT, "Kafka Streams has not restored its store in {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (time, cpu) = (started.elapsed(), kafka.cpu()?.saturating_sub(broker) + application.cpu()?);
        let changes: u64 = std::fs::read_to_string(&done)?.trim().parse()?;
        ensure!(changes >= u64::from(KEYS), "Kafka Streams has restored {changes} changes");
        let figures = Figures::of(changes, time, cpu, None, kafka.peak()? + application.peak()?);
        drop((application, kafka));
        std::fs::remove_dir_all(&dir)?;
        Ok(figures)
    }
}
