//! The first steps of a start, by the configuration.

use std::sync::Arc;
use std::time::Duration;

use pelton_commitlog::{LogDirConfig, SharedLimits};
use pelton_partitions::cleaner::CleanerSettings;
use pelton_partitions::data_dir::{self, Environment, OpenError, Opened, Settings};

use pelton_pipelines::deployments::TOPIC as DEPLOYMENTS_TOPIC;
use pelton_pipelines::supervisor::Supervisor;
use pelton_streams::state::StateFactory;
use pelton_tables::{FOLLOWER_PATIENCE, TablesSpec};

use super::{Broker, Deps, StartError};
use crate::config::Config;
use crate::failure::Failure;
use crate::group::config::GroupLimits;
use crate::group::store::OFFSETS_TOPIC;
use crate::partition::ProducerLimits;
use crate::tables::{BrokerTopics, DeployedTables};
use crate::txn::{TRANSACTIONS_TOPIC, TxnSettings};

/// Opens the HTTP port, if `http.listen` is set. Off loopback the operator must have written a token.
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

/// The token that changes over HTTP need: the one in the data directory, or a new one.
pub(crate) fn http_token(
    config: &Config,
    new_id: &Arc<dyn Fn() -> uuid::Uuid + Send + Sync>,
) -> Result<String, StartError> {
    let fresh = || format!("{}{}", new_id().simple(), new_id().simple());
    Ok(crate::http::load_or_create(&config.data_dir, fresh)?)
}

/// Topics that their owners keep small by snapshots: each of them reads its topic anew when it starts, and says again what
/// it knows when that is less than half of the topic.
const KEPT_BY_SNAPSHOTS: &[&str] = &[OFFSETS_TOPIC, TRANSACTIONS_TOPIC, DEPLOYMENTS_TOPIC];

/// What the cleaner is told. `hash_key` is a secret.
pub(super) fn cleaner_settings(config: &Config, hash_key: [u8; 16]) -> CleanerSettings {
    CleanerSettings {
        backoff: Duration::from_millis(config.log_cleaner_backoff_ms.unsigned_abs()),
        map_bytes: usize::try_from(config.log_cleaner_dedupe_buffer_size).unwrap_or(usize::MAX),
        bytes_per_second: config.log_cleaner_io_max_bytes_per_second,
        leaves: KEPT_BY_SNAPSHOTS,
        hash_key,
    }
}

/// Tables, by what is deployed. Needs a tokio runtime.
pub(super) fn tables_spec(
    broker: &Broker,
    supervisor: &Arc<Supervisor>,
    factory: Option<Arc<dyn StateFactory>>,
) -> TablesSpec {
    let (config, clock) = (&broker.config, Arc::clone(&broker.clock));
    let runtime = tokio::runtime::Handle::current();
    TablesSpec {
        source: Arc::new(BrokerTopics::new(Arc::clone(&broker.topics), runtime.clone())),
        definitions: Arc::new(DeployedTables(Arc::clone(supervisor))),
        factory,
        clock: Arc::new(move || clock.now_ms()),
        dir: config.state_path().join(TABLES_DIR),
        threads: config.table_threads,
        max_tables: config.max_tables,
        max_followers: config.table_followers_max,
        follower_patience: FOLLOWER_PATIENCE,
        memory: Arc::clone(&broker.state_memory),
        flush_interval_ms: config.state_flush_interval_ms,
        runtime,
    }
}

/// The directory of tables that stand alone, in the state directory. No pipeline can be called like that.
const TABLES_DIR: &str = "@tables";

/// Opens the data directory. Blocking.
pub(crate) fn open(config: &Config, deps: &Deps, failure: &Failure) -> Result<Opened, OpenError> {
    open_as(config, deps, failure, dir_config(config, deps, failure))
}

/// Opens the data directory with the caller's settings of the log directory. Blocking.
pub(crate) fn open_as(
    config: &Config,
    deps: &Deps,
    failure: &Failure,
    log_dir: LogDirConfig,
) -> Result<Opened, OpenError> {
    let settings = Settings {
        path: config.data_dir.clone(),
        log_dir,
        producers: ProducerLimits {
            expiration_ms: config.producer_id_expiration_ms,
            max: config.partition_producers_max as usize,
        },
        topic_defaults: config.topic_defaults.clone(),
        max_partitions: config.max_partitions,
    };
    let environment = Environment {
        clock: Arc::clone(&deps.clock),
        storage: Arc::clone(&deps.storage),
        new_id: Arc::clone(&deps.new_id),
        failure: failure.clone(),
    };
    data_dir::open(settings, environment)
}

pub(crate) fn dir_config(config: &Config, deps: &Deps, failure: &Failure) -> LogDirConfig {
    let (raise, clock) = (failure.clone(), Arc::clone(&deps.clock));
    let mut dir = LogDirConfig {
        directory_id: (deps.new_id)(),
        node_id: config.node_id,
        journal_max_bytes: config.journal_max_bytes,
        pending_max_bytes: config.journal_pending_max_bytes,
        checkpoint_bytes: config.checkpoint_bytes,
        unwritten_max_bytes: config.unwritten_max_bytes,
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

impl From<&Config> for GroupLimits {
    fn from(config: &Config) -> Self {
        const MINUTE_MS: i64 = 60_000;
        GroupLimits {
            min_session_timeout_ms: config.group_min_session_timeout_ms,
            max_session_timeout_ms: config.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            max_size: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
            max_groups: config.max_groups as usize,
            name_max_bytes: config.group_name_max_bytes as usize,
            member_protocols_max: config.group_member_protocols_max as usize,
            queue_max_requests: config.group_queue_max_requests as usize,
            appends_max: config.group_appends_max as usize,
            member_metadata_max_bytes: config.group_member_metadata_max_bytes as usize,
            group_metadata_max_bytes: config.group_metadata_max_bytes as usize,
            snapshot_min_bytes: config.snapshot_min_bytes,
            offset_metadata_max_bytes: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(0),
            offsets_retention_ms: i64::from(config.offsets_retention_minutes) * MINUTE_MS,
            offsets_retention_check_interval_ms: u64::try_from(config.offsets_retention_check_interval_ms)
                .unwrap_or(u64::MAX),
        }
    }
}

impl From<&Config> for TxnSettings {
    fn from(config: &Config) -> Self {
        TxnSettings {
            partitions: config.transaction_state_log_num_partitions,
            segment_bytes: config.transaction_state_log_segment_bytes,
            snapshot_min_bytes: config.snapshot_min_bytes,
            max_timeout_ms: config.transaction_max_timeout_ms,
            max_ids: config.max_transactional_ids as usize,
            expiration_ms: config.transactional_id_expiration_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_the_limits_that_the_settings_say() {
        assert_eq!(GroupLimits::from(&Config::default()), GroupLimits::default());
    }
}
