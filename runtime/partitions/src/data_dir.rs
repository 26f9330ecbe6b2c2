//! Opening the data directory: the log directory is recovered, the metadata replayed, and each partition that is found
//! is given to the topic that it belongs to.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_commitlog::storage::Storage;
use pelton_commitlog::{LogDir, LogDirConfig, OpenDirError, RecoveredPartition};
use uuid::Uuid;

use crate::clock::Clock;
use crate::failure::Failure;
use crate::partition::{OpenPartitions, Partition, ProducerLimits};
use crate::topic_config::{Overrides, TopicConfig};
use crate::topics::metadata_log::{METADATA_TOPIC_ID, MetadataLog, MetadataReplayError};
use crate::topics::record::TopicFacts;
use crate::topics::{METADATA_TOPIC, Topics};

/// The operator's settings.
pub struct Settings {
    pub path: PathBuf,
    pub log_dir: LogDirConfig,
    pub producers: ProducerLimits,
    pub topic_defaults: Overrides,
    pub max_partitions: u32,
}

/// The outside: time, randomness and disk.
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub storage: Arc<dyn Storage>,
    /// Makes ids for topics: random, never nil, never the same twice.
    pub new_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
    /// Raised when the storage fails for good.
    pub failure: Failure,
}

/// What opening gives.
pub struct Opened {
    pub cluster_id: String,
    pub log_dir: Arc<LogDir>,
    pub topics: Arc<Topics>,
}

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log directory cannot be opened.
    #[error("cannot open the data directory `{}`: {source}", path.display())]
    LogDir { path: PathBuf, source: Box<OpenDirError> },
    /// The metadata cannot be read.
    #[error("cannot read the metadata in `{}`: {source}", path.display())]
    Metadata { path: PathBuf, source: MetadataReplayError },
    /// The metadata partition cannot be made.
    #[error("cannot create the metadata in `{}`: {reason}", path.display())]
    CreateMetadata { path: PathBuf, reason: String },
    /// There are partitions and no metadata that knows them.
    #[error("`{}` holds partitions but no `__cluster_metadata-0`: restore that directory from a copy", .0.display())]
    MetadataMissing(PathBuf),
    /// The metadata knows a partition that is not there.
    #[error("partition {partition} of topic `{topic}` is missing in `{}`: restore its directory from a copy", path.display())]
    PartitionMissing { path: PathBuf, topic: String, partition: i32 },
}

type Found = HashMap<(Uuid, i32), RecoveredPartition>;

/// Opens everything. Blocking.
pub fn open(settings: Settings, environment: Environment) -> Result<Opened, OpenError> {
    let Settings { path, log_dir, producers, topic_defaults, max_partitions } = settings;
    let Environment { clock, storage, new_id, failure } = environment;
    let opened = LogDir::open(&path, log_dir, storage);
    let (log_dir, recovered) =
        opened.map_err(|source| OpenError::LogDir { path: path.clone(), source: Box::new(source) })?;
    let (cluster_id, log_dir) = (log_dir.meta().cluster_id.clone(), Arc::new(log_dir));
    let partitions = OpenPartitions::new(Arc::clone(&log_dir), failure, producers);
    let mut found: Found = recovered.into_iter().map(|r| ((r.id.topic_id, r.id.partition), r)).collect();

    let metadata = metadata_partition(&path, &partitions, &mut found)?;
    let metadata = MetadataLog::replay(metadata, clock)
        .map_err(|source| OpenError::Metadata { path: path.clone(), source })?;
    let facts: Vec<TopicFacts> = metadata.state().topics().cloned().collect();
    let largest_producer_id = found.values().filter_map(|r| r.log().producers().largest_id()).max();
    let topics = Topics::new(metadata, partitions.clone(), topic_defaults, max_partitions, new_id);
    if let Some(id) = largest_producer_id {
        topics.producer_id_is_used(id);
    }
    for facts in facts {
        let adopted = adopt(&path, &partitions, &topics, &facts, &mut found)?;
        topics.adopt(facts, adopted);
    }
    // The rest belongs to no topic: its creation was not finished, so no client was told of it, or its deletion was
    // not.
    for (_, leftover) in found {
        tracing::info!(partition = %leftover.id, "a partition that belongs to no topic is removed");
        partitions.remove(leftover);
    }
    Ok(Opened { cluster_id, log_dir, topics: Arc::new(topics) })
}

fn metadata_partition(
    path: &Path,
    partitions: &OpenPartitions,
    found: &mut Found,
) -> Result<Arc<Partition>, OpenError> {
    let settings = TopicConfig::resolve(&Overrides::new(), &metadata_settings());
    if let Some(recovered) = found.remove(&(METADATA_TOPIC_ID, 0)) {
        return Ok(partitions.adopt(recovered, &settings));
    }
    let path = path.to_owned();
    if !found.is_empty() {
        return Err(OpenError::MetadataMissing(path));
    }
    partitions
        .create_one(METADATA_TOPIC_ID, METADATA_TOPIC, 0, &settings)
        .map_err(|error| OpenError::CreateMetadata { path, reason: error.to_string() })
}

/// The metadata is kept for ever; it is shortened by writing it anew.
fn metadata_settings() -> Overrides {
    let settings = [("retention.ms", "-1"), ("segment.bytes", "16777216")];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The partitions that a topic should have.
fn adopt(
    path: &Path,
    partitions: &OpenPartitions,
    topics: &Topics,
    facts: &TopicFacts,
    found: &mut Found,
) -> Result<Vec<Arc<Partition>>, OpenError> {
    let settings = topics.resolve(&facts.overrides);
    let one = |partition: i32| match found.remove(&(facts.id, partition)) {
        Some(recovered) => Ok(partitions.adopt(recovered, &settings)),
        None => {
            let (path, topic) = (path.to_owned(), facts.name.clone());
            Err(OpenError::PartitionMissing { path, topic, partition })
        }
    };
    (0..facts.partitions).map(one).collect()
}
