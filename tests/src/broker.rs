//! A pelton process: started, waited for, stopped or killed.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longest wait for the line that says the broker takes connections. Recovery after a crash is part of it.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a graceful end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How to start a broker; the same value starts it again after a kill.
pub struct Start {
    /// The binary.
    pub binary: PathBuf,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Where it listens; port 0 for the first start.
    pub listen: String,
    /// Where it listens for HTTP; `off` for nowhere.
    pub http: String,
    /// Configuration keys and values.
    pub settings: Vec<(String, String)>,
    /// Its standard error is appended to this file.
    pub log: PathBuf,
}

/// A broker that takes connections.
pub struct Broker {
    child: Child,
    /// Where it takes Kafka connections.
    pub address: String,
    /// Where it takes HTTP connections, if it does.
    pub http: Option<String>,
    /// From exec to ready.
    pub ready_after: Duration,
}

impl Start {
    /// A broker with the settings that all tests share: what clients expect of a test broker (four partitions for a topic
    /// that creates itself, groups that do not wait) and little disk.
    pub fn new(binary: &Path, data_dir: &Path, log: &Path) -> Start {
        Start {
            binary: binary.to_owned(),
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            http: "off".to_owned(),
            settings: Vec::new(),
            log: log.to_owned(),
        }
        .set("num.partitions", 4)
        .set("group.initial.rebalance.delay.ms", 0)
        .set("offsets.topic.num.partitions", 4)
    }

    /// With an HTTP port, which the kernel picks.
    #[must_use]
    pub fn with_http(mut self) -> Start {
        "127.0.0.1:0".clone_into(&mut self.http);
        self
    }

    /// Sets a configuration key.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl ToString) -> Start {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Starts the process and does not wait for it.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn spawn(&self) -> Result<Child> {
        let log =
            File::options().create(true).append(true).open(&self.log).context("open the broker's log")?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--data-dir").arg(&self.data_dir);
        command.args(["--listen", &self.listen, "--http", &self.http]);
        for (key, value) in &self.settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        command.spawn().with_context(|| format!("start {}", self.binary.display()))
    }

    /// Starts the broker and waits until it is ready. Later starts listen where this one did.
    ///
    /// # Errors
    /// It ended, or was not ready in time; its last words are in the error. Or it has panicked in a life before this one.
    pub fn start(&mut self) -> Result<Broker> {
        let before = std::fs::read(&self.log).unwrap_or_default();
        // The broker's own: plugins panic too, and their words are in the log.
        let panicked = |line: &str| line.starts_with("thread '") && line.contains("panicked at");
        if String::from_utf8_lossy(&before).lines().any(panicked) {
            bail!("the broker has panicked; its last words:\n{}", self.last_words());
        }
        let begin = Instant::now();
        let mut child = self.spawn()?;
        let stdout = child.stdout.take().context("the broker's standard output")?;
        let (found, line) = mpsc::channel();
        // Reads to the end, so that the broker never waits for a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = found.send(line);
            }
        });
        let Ok(line) = line.recv_timeout(READY_LIMIT) else {
            let _ = child.kill();
            let status = child.wait()?;
            bail!(
                "the broker was not ready within {READY_LIMIT:?} ({status}); its last words:\n{}",
                self.last_words()
            );
        };
        let mut addresses = line.split_whitespace().filter_map(socket_address);
        let Some(address) = addresses.next() else {
            let _ = child.kill();
            child.wait()?;
            bail!("the broker's ready line names no address: {line}");
        };
        self.listen = address.clone();
        Ok(Broker { child, address, http: addresses.next(), ready_after: begin.elapsed() })
    }

    /// Starts the broker and kills it after this time, at whatever point of its start that is.
    ///
    /// # Errors
    /// It ended by itself.
    pub fn kill_in_recovery(&self, after: Duration) -> Result<()> {
        let mut child = self.spawn()?;
        // A moment chosen by chance, not a wait for something.
        std::thread::sleep(after);
        if let Some(status) = child.try_wait()? {
            bail!("the broker ended by itself while it recovered: {status}\n{}", self.last_words());
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The end of the broker's log, for an error message.
    pub fn last_words(&self) -> String {
        let text =
            std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn socket_address(word: &str) -> Option<String> {
    let word = word.trim_matches(|c: char| !c.is_ascii_digit());
    word.parse::<std::net::SocketAddr>().ok().map(|a| a.to_string())
}

impl Broker {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        Ok(rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)?)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It had ended before, which is a finding.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker had ended by itself: {status}");
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        if status.signal() != Some(9) {
            bail!("the broker ended by itself at the moment of the kill: {status}");
        }
        Ok(())
    }

    /// Waits for it to end by itself, at most so long; then kills it.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait_or_kill(mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let status = wait(&mut self.child, limit)?;
        if status.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(status)
    }

    /// Ends it with SIGTERM, as an operator does.
    ///
    /// # Errors
    /// It did not end in time, or with another status than 0.
    pub fn stop(mut self) -> Result<Duration> {
        let begin = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        match wait(&mut self.child, STOP_LIMIT)? {
            Some(status) if status.success() => Ok(begin.elapsed()),
            Some(status) => bail!("a graceful stop ended with {status}"),
            None => {
                self.child.kill()?;
                bail!("the broker did not stop within {STOP_LIMIT:?} of SIGTERM");
            }
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
