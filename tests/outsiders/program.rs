//! A program under test, which is killed and started again.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a graceful end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What a program has said since it was started: `begin` and `end`, one a line.
#[derive(Default)]
struct Said {
    busy: AtomicBool,
    begun: AtomicU64,
}

/// A program that runs.
pub(crate) struct Program {
    command: Vec<String>,
    log: PathBuf,
    child: Child,
    said: Arc<Said>,
    /// How often it said `begin` before it was started last.
    before: u64,
    /// How often it had ended by itself.
    pub(crate) ended: u32,
}

impl Program {
    /// Starts it; its standard error is appended to `log`.
    pub(crate) fn start(command: Vec<String>, log: &Path) -> Result<Program> {
        let (child, said) = spawn(&command, log)?;
        Ok(Program { command, log: log.to_owned(), child, said, before: 0, ended: 0 })
    }

    /// Whether it is between `begin` and `end`.
    pub(crate) fn busy(&self) -> bool {
        self.said.busy.load(Ordering::Acquire)
    }

    /// How often it said `begin`.
    pub(crate) fn begun(&self) -> u64 {
        self.before + self.said.begun.load(Ordering::Acquire)
    }

    fn again(&mut self) -> Result<()> {
        self.before = self.begun();
        (self.child, self.said) = spawn(&self.command, &self.log)?;
        Ok(())
    }

    /// Starts it again if it has ended by itself.
    pub(crate) fn tend(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            self.ended += 1;
            self.again()?;
        }
        Ok(())
    }

    /// `kill -9` if it is busy, and starts it again; whether it was.
    pub(crate) fn kill_at_work(&mut self) -> Result<bool> {
        self.tend()?;
        if !self.busy() {
            return Ok(false);
        }
        self.child.kill()?;
        self.child.wait()?;
        self.again()?;
        Ok(true)
    }

    /// Ends it with SIGTERM, as an operator does, and starts it again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        let end = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "it does not end within {STOP_LIMIT:?} of SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.again()
    }

    /// The end of what it wrote to its standard error.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &[String], log: &Path) -> Result<(Child, Arc<Said>)> {
    let (program, args) = command.split_first().context("no program")?;
    let log = File::options().create(true).append(true).open(log)?;
    let mut child = Command::new(program)
        .args(args)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {program}; clients/setup.sh installs it"))?;
    let stdout = child.stdout.take().context("its standard output")?;
    let said = Arc::new(Said::default());
    let heard = Arc::clone(&said);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            heard.busy.store(line == "begin", Ordering::Release);
            heard.begun.fetch_add(u64::from(line == "begin"), Ordering::AcqRel);
        }
    });
    Ok((child, said))
}
