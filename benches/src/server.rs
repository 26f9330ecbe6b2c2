//! A pelton process to measure.

use crate::Bench;
use anyhow::{Context, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Kernel ticks a second in /proc: fixed at 100 on every Linux that we run on.
const TICKS_PER_S: u64 = 100;

/// A running broker on a data directory that is kept until the bench ends.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// Where commands go, if it was started with HTTP.
    http: Option<String>,
    binary: PathBuf,
    /// From exec to the ready line.
    pub(crate) ready_after: Duration,
    pub(crate) data_dir: PathBuf,
}

impl Server {
    pub(crate) fn start(bench: &Bench, name: &str) -> anyhow::Result<Server> {
        Server::open(&bench.binary, &bench.dir.path().join(name))
    }

    /// One that takes pipelines.
    pub(crate) fn with_http(bench: &Bench, name: &str) -> anyhow::Result<Server> {
        Server::launch(&bench.binary, &bench.dir.path().join(name), "127.0.0.1:0")
    }

    pub(crate) fn open(binary: &Path, data_dir: &Path) -> anyhow::Result<Server> {
        Server::launch(binary, data_dir, "off")
    }

    pub(crate) fn launch(binary: &Path, data_dir: &Path, http: &str) -> anyhow::Result<Server> {
        let log = std::fs::File::options().create(true).append(true).open(data_dir.with_extension("log"))?;
        let started = Instant::now();
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--http", http, "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready_after = started.elapsed();
        let mut addresses = line.split_whitespace().filter_map(|word| {
            let word = word.trim_matches(|c: char| !c.is_ascii_digit());
            word.parse::<std::net::SocketAddr>().ok()
        });
        let Some(address) = addresses.next() else {
            child.kill()?;
            bail!("the broker did not start; see {}", data_dir.with_extension("log").display());
        };
        Ok(Server {
            child,
            address: address.to_string(),
            http: addresses.next().map(|address| address.to_string()),
            binary: binary.to_owned(),
            ready_after,
            data_dir: data_dir.to_owned(),
        })
    }

    /// Where it answers HTTP.
    pub(crate) fn http(&self) -> anyhow::Result<&str> {
        self.http.as_deref().context("started without HTTP")
    }

    /// Runs a command of the binary against this server; what it printed.
    pub(crate) fn command(&self, args: &[&str]) -> anyhow::Result<String> {
        let http = self.http()?;
        let output = Command::new(&self.binary)
            .args(args)
            .env("PELTON_HTTP_SERVER", http)
            .env("PELTON_BOOTSTRAP_SERVER", &self.address)
            .env("PELTON_DATA_DIR", &self.data_dir)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "pelton {}: {stderr}", args.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Processor time so far, user and system, all threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        memory_of(self.child.id(), "VmRSS:")
    }

    /// The most that was resident.
    pub(crate) fn peak(&self) -> anyhow::Result<u64> {
        peak_of(self.child.id())
    }

    /// A graceful stop: what comes after it is a clean start.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the broker ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` it has ended already, and both calls say so: there is nothing left to do about it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most that a process had resident.
pub(crate) fn peak_of(pid: u32) -> anyhow::Result<u64> {
    memory_of(pid, "VmHWM:")
}

/// A line of what the kernel says of a process.
pub(crate) fn memory_of(pid: u32, what: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(what)).with_context(|| format!("no {what}"))?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1024)
}

/// Processor time of a process.
pub(crate) fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(')').context("no command in stat")?.1;
    let ticks = |index: usize| rest.split_whitespace().nth(index).and_then(|field| field.parse::<u64>().ok());
    let total = ticks(11).context("no utime")? + ticks(12).context("no stime")?;
    Ok(Duration::from_millis(total * 1000 / TICKS_PER_S))
}
