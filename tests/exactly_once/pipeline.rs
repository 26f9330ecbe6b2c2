//! A pipeline beside the load, exactly once: what one of the load's topics has becomes two others, one through a plugin.

use anyhow::{Context, Result, ensure};
use pelton_tests::broker::Broker;
use pelton_tests::cli::Cli;
use pelton_tests::exactly_once::load::EVENTS;
use pelton_tests::exactly_once::reader::read_on;
use pelton_tests::records::committed;
use std::path::Path;
use std::time::{Duration, Instant};

/// What it makes.
pub(crate) const OUTPUTS: [(&str, u32); 2] = [("piped-left", 4), ("piped-right", 3)];
const GROUP: &str = "pelton.piped";
/// The plugin keys its output by the partition of the input, so that what is in order stays so.
const MANIFEST: &str = "\
name = \"piped\"
guarantee = \"exactly-once\"

[[source]]
id = \"in\"
topic = \"events\"

[[node]]
id = \"work\"
from = \"in\"
plugin = \"unruly\"
limits = { memory = \"8 MiB\", deadline_ms = 5000, output = \"512 KiB\" }

[[sink]]
from = \"work\"
topic = \"piped-left\"

[[sink]]
from = \"in\"
topic = \"piped-right\"
";

/// A deployed pipeline, and how far it had come when it was looked at last.
pub(crate) struct Pipe {
    done: Vec<i64>,
}

impl Pipe {
    pub(crate) fn deploy(
        binary: &Path,
        component: &Path,
        broker: &Broker,
        data: &Path,
        home: &Path,
    ) -> Result<Pipe> {
        let cli = Cli::new(binary, broker, data, home)?;
        let text = |path: &Path| path.display().to_string();
        cli.ok(&["plugin", "push", &text(component)])?;
        let manifest = home.join("piped.toml");
        std::fs::write(&manifest, MANIFEST)?;
        cli.ok(&["deploy", &text(&manifest)])?;
        Ok(Pipe { done: vec![-1; EVENTS.1 as usize] })
    }

    fn until(
        &mut self,
        bootstrap: &str,
        limit: Duration,
        enough: impl Fn(&[i64], &[i64]) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let now = committed(bootstrap, GROUP, EVENTS.0, EVENTS.1)?;
            let back = now.iter().zip(&self.done).any(|(now, done)| now < done);
            ensure!(!back, "the pipeline's commits went back from {:?} to {now:?}", self.done);
            if enough(&now, &self.done) {
                self.done = now;
                return Ok(());
            }
            ensure!(Instant::now() < end, "the pipeline stays at {now:?} for {limit:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it has committed something more.
    pub(crate) fn progress(&mut self, bootstrap: &str, limit: Duration) -> Result<()> {
        self.until(bootstrap, limit, |now, done| now != done)
    }

    /// Waits until it has come to the end of what is committed.
    pub(crate) fn settle(&mut self, bootstrap: &str, limit: Duration) -> Result<()> {
        let mut ends = vec![0; EVENTS.1 as usize];
        read_on(bootstrap, EVENTS.0, false, &mut ends)?;
        self.until(bootstrap, limit, |now, _| now.iter().zip(&ends).all(|(now, end)| now >= end))
            .with_context(|| format!("its input has records to {ends:?}"))
    }
}
