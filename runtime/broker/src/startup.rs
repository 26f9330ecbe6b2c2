//! Opening the data directory: the log directory is recovered, the metadata replayed, and each partition that is found is
//! given to the topic that it belongs to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pelton_commitlog::{LogDir, LogDirConfig, RecoveredPartition, SharedLimits};

use crate::broker::{Deps, StartError};
use crate::config::Config;
use crate::failure::Failure;
use crate::partition::{OpenPartitions, Partition, ProducerLimits};
use crate::topic_config::{Overrides, TopicConfig};
use crate::topics::metadata_log::{METADATA_TOPIC_ID, MetadataLog};
use crate::topics::record::TopicFacts;
use crate::topics::{METADATA_TOPIC, Topics};

/// What opening gives.
pub(crate) struct Opened {
    pub(crate) cluster_id: String,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) topics: Arc<Topics>,
}

/// Opens the HTTP port, if there is to be one. Off loopback only with a token that somebody made on purpose.
pub(crate) async fn bind_http(config: &Config) -> Result<Option<tokio::net::TcpListener>, StartError> {
    let Some(address) = &config.http_listen else { return Ok(None) };
    let listen_error = |source| StartError::ListenHttp { address: address.clone(), source };
    let listener =
        tokio::net::TcpListener::bind((address.host.as_str(), address.port)).await.map_err(listen_error)?;
    let bound = listener.local_addr().map_err(listen_error)?;
    if !bound.ip().is_loopback() && !config.data_dir.join(crate::http::TOKEN_FILE).exists() {
        return Err(StartError::NoToken(address.clone()));
    }
    Ok(Some(listener))
}

/// The token that changes over HTTP need: the one that is there, or a new one.
pub(crate) fn http_token(
    config: &Config,
    new_id: &Arc<dyn Fn() -> uuid::Uuid + Send + Sync>,
) -> Result<String, StartError> {
    let fresh = || format!("{}{}", new_id().simple(), new_id().simple());
    Ok(crate::http::load_or_create(&config.data_dir, fresh)?)
}

type Found = HashMap<(uuid::Uuid, i32), RecoveredPartition>;

/// Opens everything. Blocking.
pub(crate) fn open(config: &Config, deps: &Deps, failure: &Failure) -> Result<Opened, StartError> {
    open_as(config, deps, failure, dir_config(config, deps, failure))
}

/// The same with settings of the log directory that are not the operator's. Blocking.
pub(crate) fn open_as(
    config: &Config,
    deps: &Deps,
    failure: &Failure,
    dir: LogDirConfig,
) -> Result<Opened, StartError> {
    let path = &config.data_dir;
    let opened = LogDir::open(path, dir, Arc::clone(&deps.storage));
    let (log_dir, recovered) =
        opened.map_err(|source| StartError::DataDir { path: path.clone(), source: Box::new(source) })?;
    let (cluster_id, log_dir) = (log_dir.meta().cluster_id.clone(), Arc::new(log_dir));
    let partitions = OpenPartitions::new(Arc::clone(&log_dir), failure.clone(), ProducerLimits::from(config));
    let mut found: Found = recovered.into_iter().map(|r| ((r.id.topic_id, r.id.partition), r)).collect();

    let metadata = metadata_partition(config, &partitions, &mut found)?;
    let metadata = MetadataLog::replay(metadata, Arc::clone(&deps.clock))
        .map_err(|source| StartError::Metadata { path: path.clone(), source })?;
    let facts: Vec<TopicFacts> = metadata.state().topics().cloned().collect();
    let largest_producer_id = found.values().filter_map(|r| r.log().producers().largest_id()).max();
    let topics = Topics::new(
        metadata,
        partitions.clone(),
        config.topic_defaults.clone(),
        config.max_partitions,
        Arc::clone(&deps.new_id),
    );
    if let Some(id) = largest_producer_id {
        topics.producer_id_is_used(id);
    }
    for facts in facts {
        let adopted = adopt(config, &partitions, &topics, &facts, &mut found)?;
        topics.adopt(facts, adopted);
    }
    // What is left belongs to no topic: its creation was never finished, or its deletion was not. Nobody was told of it.
    for (_, leftover) in found {
        tracing::info!(partition = %leftover.id, "a partition that belongs to no topic is removed");
        partitions.remove(leftover);
    }
    Ok(Opened { cluster_id, log_dir, topics: Arc::new(topics) })
}

fn metadata_partition(
    config: &Config,
    partitions: &OpenPartitions,
    found: &mut Found,
) -> Result<Arc<Partition>, StartError> {
    let settings = TopicConfig::resolve(&Overrides::new(), &metadata_settings());
    if let Some(recovered) = found.remove(&(METADATA_TOPIC_ID, 0)) {
        return Ok(partitions.adopt(recovered, &settings));
    }
    let path = config.data_dir.clone();
    if !found.is_empty() {
        return Err(StartError::MetadataMissing(path));
    }
    partitions
        .create_one(METADATA_TOPIC_ID, METADATA_TOPIC, 0, &settings)
        .map_err(|error| StartError::CreateMetadata { path, reason: error.to_string() })
}

/// The metadata is kept for ever; it is shortened by writing it anew.
fn metadata_settings() -> Overrides {
    let settings = [("retention.ms", "-1"), ("segment.bytes", "16777216")];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The partitions that a topic should have.
fn adopt(
    config: &Config,
    partitions: &OpenPartitions,
    topics: &Topics,
    facts: &TopicFacts,
    found: &mut Found,
) -> Result<Vec<Arc<Partition>>, StartError> {
    let settings = topics.resolve(&facts.overrides);
    let one = |partition: i32| match found.remove(&(facts.id, partition)) {
        Some(recovered) => Ok(partitions.adopt(recovered, &settings)),
        None => Err(StartError::PartitionMissing {
            path: config.data_dir.clone(),
            topic: facts.name.clone(),
            partition,
        }),
    };
    (0..facts.partitions).map(one).collect()
}

pub(crate) fn dir_config(config: &Config, deps: &Deps, failure: &Failure) -> LogDirConfig {
    let (raise, clock) = (failure.clone(), Arc::clone(&deps.clock));
    let mut dir = LogDirConfig {
        directory_id: (deps.new_id)(),
        node_id: config.node_id,
        journal_max_bytes: config.journal_max_bytes,
        pending_max_bytes: config.journal_pending_max_bytes,
        checkpoint_bytes: config.checkpoint_bytes,
        checkpoint_interval: Duration::from_millis(config.checkpoint_interval_ms.unsigned_abs()),
        commit_gap: Duration::from_micros(config.commit_gap_us.into()),
        disk_free_min: config.disk_free_min,
        on_failure: Arc::new(move |reason| raise.raise(reason)),
        clock: Arc::new(move || clock.now_ms()),
        ..LogDirConfig::default()
    };
    dir.limits = SharedLimits {
        open_files: config.open_files_max as usize,
        tail_cache_bytes: usize::try_from(config.tail_cache_bytes).unwrap_or(usize::MAX),
    };
    dir
}
