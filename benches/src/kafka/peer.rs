//! Apache Kafka as it comes, on the same disk: one node with its own quorum, the heap and the collector of its start script.

use crate::server::{Server, cpu_of, peak_of};
use anyhow::{Context, ensure};
use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a broker to take connections.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What is measured: a broker that librdkafka talks to.
pub(crate) trait Subject {
    fn address(&self) -> &str;
    fn cpu(&self) -> anyhow::Result<Duration>;
    /// The most that was resident.
    fn peak(&self) -> anyhow::Result<u64>;
}

impl Subject for Server {
    fn address(&self) -> &str {
        &self.address
    }
    fn cpu(&self) -> anyhow::Result<Duration> {
        Server::cpu(self)
    }
    fn peak(&self) -> anyhow::Result<u64> {
        Server::peak(self)
    }
}

/// Jars and our classes.
pub(crate) struct Installed {
    /// Their directory: what `benches/kafka/setup.sh` prints.
    at: PathBuf,
    /// Of Apache Kafka.
    pub(crate) version: String,
}

impl Installed {
    pub(crate) fn get() -> anyhow::Result<Installed> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/setup.sh");
        let output = Command::new(&script).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{} failed", script.display());
        let at = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        let names: Vec<_> = std::fs::read_dir(at.join("libs"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let version =
            |name: &String| Some(name.strip_prefix("kafka-streams-")?.strip_suffix(".jar")?.to_owned());
        let version = names.iter().find_map(version).context("no jar of Kafka Streams was installed")?;
        Ok(Installed { at, version })
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.arg("-cp").arg(format!("{0}/classes:{0}/libs/*", self.at.display()));
        java
    }

    /// Runs a class of theirs or ours.
    fn class(&self, class: &str) -> Command {
        let mut java = self.java();
        java.arg(class);
        java
    }
}

/// A program of ours beside the broker.
pub(crate) struct Application(Child);

impl Application {
    pub(crate) fn start<'a>(
        installed: &Installed,
        class: &str,
        arguments: impl IntoIterator<Item = &'a OsStr>,
    ) -> anyhow::Result<Application> {
        let child = installed.class(class).args(arguments).spawn().context("start java")?;
        Ok(Application(child))
    }
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.0.id())
    }
    pub(crate) fn peak(&self) -> anyhow::Result<u64> {
        peak_of(self.0.id())
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

pub(crate) struct Kafka {
    child: Child,
    address: String,
}

impl Kafka {
    pub(crate) fn start(installed: &Installed, dir: &Path) -> anyhow::Result<Kafka> {
        std::fs::create_dir_all(dir)?;
        let (address, quorum) = (free_address()?, free_address()?);
        let config = dir.join("server.properties");
        std::fs::write(&config, properties(&address, &quorum, dir))?;
        let log = std::fs::File::create(dir.join("log"))?;
        let formatted = installed
            .class("kafka.tools.StorageTool")
            .args(["format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"])
            .arg(&config)
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .status()?;
        ensure!(
            formatted.success(),
            "Kafka's directory could not be made; see {}",
            dir.join("log").display()
        );
        let child = installed
            .java()
            .args(["-Xms1G", "-Xmx1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"])
            .args(["-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"])
            .args(["-Djava.awt.headless=true", "kafka.Kafka"])
            .arg(&config)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start java")?;
        let kafka = Kafka { child, address };
        let started = Instant::now();
        while TcpStream::connect(&kafka.address).is_err() {
            ensure!(
                started.elapsed() < START_LIMIT,
                "Kafka does not listen; see {}",
                dir.join("log").display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(kafka)
    }
}

impl Subject for Kafka {
    fn address(&self) -> &str {
        &self.address
    }
    fn cpu(&self) -> anyhow::Result<Duration> {
        cpu_of(self.child.id())
    }
    fn peak(&self) -> anyhow::Result<u64> {
        peak_of(self.child.id())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Nothing is kept of it, and a process that has ended already needs no end.
    let _ = child.kill();
    let _ = child.wait();
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn properties(address: &str, quorum: &str, dir: &Path) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{quorum}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{quorum}\nadvertised.listeners=PLAINTEXT://{address}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n",
        dir.join("logs").display()
    )
}
