//! Making partitions: new ones on disk, and those that were found there.

use std::ops::Range;
use std::sync::Arc;

use pelton_commitlog::{CreateError, LogConfig, LogDir, PartitionId, RecoveredPartition};
use uuid::Uuid;

use super::Partition;
use super::delayed::DelayedRequests;
use crate::blocking::run_blocking;
use crate::failure::Failure;
use crate::topic_config::{Durability, TopicConfig};

/// Why a partition was not created.
#[derive(Debug, thiserror::Error)]
#[error("partition {partition} of `{topic}`: {source}")]
pub struct PartitionCreateError {
    topic: String,
    partition: i32,
    source: CreateError,
}

/// Makes partitions in one data directory.
#[derive(Clone)]
pub struct OpenPartitions {
    log_dir: Arc<LogDir>,
    failure: Failure,
    producers: ProducerLimits,
}

/// How long and how many producers each partition remembers.
#[derive(Clone, Copy, Debug)]
pub struct ProducerLimits {
    pub expiration_ms: i64,
    pub max: usize,
}

impl ProducerLimits {
    /// Those of a log.
    pub fn of(log: &LogConfig) -> Self {
        ProducerLimits { expiration_ms: log.producer_id_expiration_ms, max: log.producers_max }
    }
}

impl OpenPartitions {
    pub fn new(log_dir: Arc<LogDir>, failure: Failure, producers: ProducerLimits) -> Self {
        OpenPartitions { log_dir, failure, producers }
    }

    /// Creates the partitions `range` of a topic and makes them durable; all or none.
    pub async fn create(
        &self,
        topic_id: Uuid,
        topic: &str,
        range: Range<i32>,
        config: &TopicConfig,
    ) -> Result<Vec<Arc<Partition>>, PartitionCreateError> {
        let (this, topic, config) = (self.clone(), topic.to_owned(), config.clone());
        run_blocking(move || {
            let mut made = Vec::new();
            for partition in range {
                match this.create_one(topic_id, &topic, partition, &config) {
                    Ok(partition) => made.push(partition),
                    Err(error) => {
                        made.iter().for_each(|partition| this.delete_one(partition));
                        return Err(error);
                    }
                }
            }
            Ok(made)
        })
        .await
    }

    /// Creates one partition. Blocking.
    pub fn create_one(
        &self,
        topic_id: Uuid,
        topic: &str,
        partition: i32,
        config: &TopicConfig,
    ) -> Result<Arc<Partition>, PartitionCreateError> {
        let delayed = DelayedRequests::new(0, self.failure.clone());
        let id = PartitionId { topic_id, topic: topic.to_owned(), partition };
        let config = log_config(config, self.producers);
        let log = self
            .log_dir
            .create(id, config, Arc::clone(&delayed) as _)
            .map_err(|source| PartitionCreateError { topic: topic.to_owned(), partition, source })?;
        Ok(Partition::new(log, delayed, Arc::clone(&self.log_dir)))
    }

    /// Takes over a partition that was found on disk.
    pub fn adopt(&self, recovered: RecoveredPartition, config: &TopicConfig) -> Arc<Partition> {
        // All that recovery found is durable.
        let delayed = DelayedRequests::new(recovered.log().offsets().log_end, self.failure.clone());
        let config = log_config(config, self.producers);
        let log = recovered.into_log(config, Arc::clone(&delayed) as _);
        Partition::new(log, delayed, Arc::clone(&self.log_dir))
    }

    /// Removes a partition that was found on disk and belongs to no topic. Blocking.
    pub fn remove(&self, recovered: RecoveredPartition) {
        let id = recovered.id.clone();
        drop(recovered);
        self.remove_files(&id);
    }

    /// Deletes partitions and their files. Files that cannot be removed now are removed before the name is used
    /// again, or at the next start, because their topic is not in the metadata.
    pub async fn delete(&self, partitions: &[Arc<Partition>]) {
        let (this, partitions) = (self.clone(), partitions.to_vec());
        run_blocking(move || partitions.iter().for_each(|partition| this.delete_one(partition))).await;
    }

    fn delete_one(&self, partition: &Partition) {
        partition.retire();
        self.remove_files(partition.id());
    }

    fn remove_files(&self, id: &PartitionId) {
        if let Err(error) = self.log_dir.delete(id.topic_id, id.partition) {
            tracing::warn!(partition = %id, %error, "the files of a deleted partition are still there");
        }
    }
}

/// The settings of a log, from those of its topic.
pub fn log_config(config: &TopicConfig, producers: ProducerLimits) -> LogConfig {
    LogConfig {
        segment_bytes: config.segment_bytes.into(),
        // What has to be compacted by then must not stay in the active segment.
        segment_ms: if config.compact {
            config.segment_ms.min(config.compaction.max_compaction_lag_ms)
        } else {
            config.segment_ms
        },
        segment_index_bytes: u64::try_from(config.segment_index_bytes).unwrap_or(0),
        index_interval_bytes: u64::try_from(config.index_interval_bytes).unwrap_or(0),
        // A topic that is only compacted loses nothing to time or size.
        retention_ms: config.retention_ms.filter(|_| config.delete),
        retention_bytes: config.retention_bytes.filter(|_| config.delete),
        producer_id_expiration_ms: producers.expiration_ms,
        producers_max: producers.max,
        // Whoever is not told of the sync relies on the page cache.
        write_through: config.durability != Durability::Group,
        ..LogConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{ProducerLimits, log_config};
    use crate::topic_config::{Overrides, TopicConfig};

    #[test]
    fn a_topics_settings_reach_its_logs() {
        let settings = [
            ("segment.bytes", "1001"),
            ("segment.ms", "1002"),
            ("segment.index.bytes", "1003"),
            ("index.interval.bytes", "1004"),
            ("retention.ms", "1005"),
            ("retention.bytes", "1006"),
        ];
        let producers = ProducerLimits { expiration_ms: 1007, max: 1008 };
        let own: Overrides = settings.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let log = log_config(&TopicConfig::resolve(&Overrides::new(), &own), producers);
        let segment = (log.segment_bytes, log.segment_ms, log.segment_index_bytes, log.index_interval_bytes);
        assert_eq!(segment, (1001, 1002, 1003, 1004));
        assert_eq!((log.retention_ms, log.retention_bytes), (Some(1005), Some(1006)));
        assert_eq!((log.producer_id_expiration_ms, log.producers_max), (1007, 1008));
        let compacted = Overrides::from([("cleanup.policy".into(), "compact".into())]);
        let log = log_config(&TopicConfig::resolve(&own, &compacted), producers);
        assert_eq!((log.retention_ms, log.retention_bytes), (None, None), "time and size take nothing");
        assert_eq!(log.segment_ms, 1002);
        let compacted = Overrides::from([
            ("cleanup.policy".into(), "compact".into()),
            ("max.compaction.lag.ms".into(), "500".into()),
        ]);
        let log = log_config(&TopicConfig::resolve(&own, &compacted), producers);
        assert_eq!(log.segment_ms, 500, "a record leaves the active segment in time");
    }
}
