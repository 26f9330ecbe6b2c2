//! `pelton produce --partitioner`: which partition a line goes to, by a rule of the clients or by a plugin, as sinks of
//! pipelines and topics have them.

use super::{Deliveries, Line};
use crate::cmd::plugin;
use crate::report::{Exit, Failure, failed, note, usage};
use anyhow::Context;
use pelton_partitioner::{Partitioner, PartitionerKind};
use pelton_streams::batch::{Headers, OwnedBatch, RecordIn};
use pelton_streams::log::{LogLevel, LogSink};
use pelton_streams::plugin::{PartitionerPlugin, checked_partitions};
use pelton_streams::{InstanceSpec, Manifest, PluginFactory, Topology};
use pelton_wasm::{Engine, EngineConfig};
use rdkafka::producer::{Producer, ThreadedProducer};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a partitioner of ours goes by what it knows of the topic, before it asks whether the topic has grown.
const METADATA_AGE: Duration = Duration::from_secs(60);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Who places records.
pub(super) enum By {
    Rule(PartitionerKind),
    Plugin(Box<dyn PartitionerPlugin>),
}

impl By {
    /// What `--partitioner` and `--partitioner-config` say.
    pub(super) fn named(name: &str, config: Option<&str>, options: &[String]) -> anyhow::Result<By> {
        if options.iter().any(|option| option.starts_with("partitioner=")) {
            return Err(usage(
                "--partitioner and -X partitioner=… are given: one of them places the records",
            ));
        }
        if name.contains('/') || name.ends_with(".wasm") || Path::new(name).is_dir() {
            return plugin_of(Path::new(name), config.unwrap_or("{}")).map(By::Plugin);
        }
        if config.is_some() {
            return Err(usage("--partitioner-config is for a plugin: a rule has no settings"));
        }
        pelton_streams::partitioner::parse(name).map(By::Rule).map_err(|hint| {
            let plugin = "a plugin is the directory or the file of one, `./NAME`";
            usage(format!("--partitioner is `{name}`; {hint}; {plugin}"))
        })
    }
}

/// The plugin of a directory or a file, with its configuration, as a sink would have it.
fn plugin_of(path: &Path, config: &str) -> anyhow::Result<Box<dyn PartitionerPlugin>> {
    let component = plugin::component(path)?;
    let refused = |why: &dyn std::fmt::Display| usage(format!("--partitioner {}: {why}", path.display()));
    let engine = Engine::new(EngineConfig::default()).map_err(|error| failed(error.to_string()))?;
    let digest = pelton_wasm::digest(&component);
    let info = engine.load(&digest, &component).map_err(|error| refused(&error))?;
    let manifest = format!(
        "name = \"produce\"\n[[source]]\nid = \"stdin\"\ntopic = \"stdin\"\n\
         [[sink]]\nfrom = \"stdin\"\ntopic = \"to\"\npartitioner = \"./plugin\"\nconfig = {config}\n"
    );
    let manifest = Manifest::parse(&manifest).map_err(|error| refused(&error))?;
    let plugins: BTreeMap<String, _> = manifest.plugins().map(|(id, _)| (id, info.clone())).collect();
    let topology = Topology::link(&manifest, &plugins).map_err(|error| refused(&error))?;
    let (_, _, plugin) = topology.partitioners().next().context("the sink has its plugin")?;
    let spec = InstanceSpec { config: plugin.config.clone(), limits: plugin.limits, log: Arc::new(ToStderr) };
    engine.instantiate_partitioner(&digest, &spec).map_err(|error| refused(&error))
}

/// Lines of the plugin.
struct ToStderr;

impl LogSink for ToStderr {
    fn write(&self, level: LogLevel, text: &str) {
        note(&format!("the partitioner says ({level}): {text}"));
    }
}

/// A partitioner of ours at work; without one librdkafka places the records.
pub(super) struct Placing {
    by: Placer,
    partitions: u32,
    topic: String,
    /// When the topic was asked for its partitions.
    asked: Instant,
}

enum Placer {
    Rule(Partitioner),
    Plugin(Box<dyn PartitionerPlugin>),
}

impl Placing {
    pub(super) fn new(
        by: By,
        producer: &ThreadedProducer<Deliveries>,
        topic: &str,
    ) -> anyhow::Result<Placing> {
        let partitions = partitions(producer, topic)?;
        // Each producer begins with another partition.
        let seed = uuid::Uuid::new_v4().as_u128() as u32;
        let by = match by {
            By::Rule(kind) => Placer::Rule(Partitioner::new(kind, partitions, seed)),
            By::Plugin(plugin) => Placer::Plugin(plugin),
        };
        Ok(Placing { by, partitions, topic: topic.to_owned(), asked: Instant::now() })
    }

    /// A partition for each line of a step.
    pub(super) fn place(
        &mut self,
        producer: &ThreadedProducer<Deliveries>,
        lines: &[Line],
    ) -> anyhow::Result<Vec<i32>> {
        if self.asked.elapsed() > METADATA_AGE {
            self.asked = Instant::now();
            // While nobody answers, records wait for the partitions that are known.
            if let Ok(partitions) = partitions(producer, &self.topic) {
                self.partitions = partitions;
                if let Placer::Rule(partitioner) = &mut self.by {
                    partitioner.set_partitions(partitions);
                }
            }
        }
        match &mut self.by {
            Placer::Rule(partitioner) => {
                let place = |line: &Line| partitioner.place(line.key.as_deref(), line.bytes());
                let placed = lines.iter().map(place).collect();
                partitioner.next_step();
                Ok(placed)
            }
            Placer::Plugin(plugin) => placed_by(plugin.as_mut(), &self.topic, lines, self.partitions),
        }
    }
}

fn placed_by(
    plugin: &mut dyn PartitionerPlugin,
    topic: &str,
    lines: &[Line],
    partitions: u32,
) -> anyhow::Result<Vec<i32>> {
    let mut batch = OwnedBatch::new(topic, 0);
    for (line, offset) in lines.iter().zip(0..) {
        let (key, value) = (line.key.as_deref(), line.value.as_deref());
        let record = RecordIn { offset, timestamp: -1, key, value, headers: Headers::default() };
        batch.push(record, std::iter::empty()).map_err(|error| failed(error.to_string()))?;
    }
    let placed = plugin.partition(&batch.as_batch(), partitions);
    let placed = placed.and_then(|placed| checked_partitions(&placed, lines.len(), partitions));
    placed.map_err(|error| {
        let (first, last) =
            (lines.first().map_or(0, |line| line.number), lines.last().map_or(0, |line| line.number));
        Failure::new(Exit::Failed, format!("the partitioner does not place lines {first} to {last}: {error}"))
            .hint("lines before them were sent, these and what follows were not")
            .into()
    })
}

fn partitions(producer: &ThreadedProducer<Deliveries>, topic: &str) -> anyhow::Result<u32> {
    let metadata = producer
        .client()
        .fetch_metadata(Some(topic), METADATA_TIMEOUT)
        .map_err(|error| crate::cmd::unreachable(&error.to_string()))?;
    let found = metadata.topics().iter().find(|entry| entry.name() == topic && entry.error().is_none());
    let count = found.map_or(0, |entry| entry.partitions().len());
    match u32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Failure::new(Exit::Failed, format!("topic `{topic}` does not exist"))
            .hint("`pelton topic create` makes it; which partition a record goes to hangs on how many there are")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::By;

    #[test]
    fn a_partitioner_has_one_of_the_names() {
        assert!(By::named("consistent", None, &["linger.ms=1".to_owned()]).is_ok());
        let error = |name, config, options: &[String]| {
            By::named(name, config, options).err().expect("is refused").to_string()
        };
        let unknown = error("murmur3", None, &[]);
        assert!(unknown.starts_with("--partitioner is `murmur3`; did you mean `murmur2`?"), "{unknown}");
        assert!(error("murmur2", None, &["partitioner=random".to_owned()]).contains("one of them"));
        assert!(error("murmur2", Some("{ a = 1 }"), &[]).contains("a rule has no settings"));
        assert!(error("./nowhere.wasm", None, &[]).contains("nowhere.wasm"));
    }
}
