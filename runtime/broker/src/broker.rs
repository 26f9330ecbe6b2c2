//! The wiring of the broker: its parts, and its life from start to stop.

mod startup;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pelton_commitlog::storage::{DiskStorage, Storage};
use pelton_commitlog::{CloseError, LogDir};
use pelton_partitions::cleaner::Cleaner;
use pelton_partitions::data_dir::{OpenError, Opened};
use pelton_streams::PluginFactory;
use pelton_streams::state::{MemoryBudget, StateFactory};
use pelton_tables::Tables;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::admin::Admin;
use crate::admin::pipelines::PipelinesSlot;
use crate::admin::tables::TablesSlot;
use crate::api::fetch::{FetchSessions, Fetching};
use crate::api::parts::{Cluster, CoordinatorParts, GroupParts, Node, Parts, TransactionParts};
use crate::api::produce::Producing;
use crate::blocking::run_blocking;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, HostPort};
use crate::failure::Failure;
use crate::group::config::GroupLimits;
use crate::group::log_store::TopicStore;
use crate::group::service::Groups;
use crate::housekeeping;
use crate::http::{self, HttpParts, HttpState, TokenError};
use crate::metrics::Metrics;
use crate::net::limits::ConnectionLimits;
use crate::net::listener;
use crate::net::request_memory::RequestMemory;
use crate::net::server::{ConnectionSettings, Server};
use crate::pipelines::kept_logs::KeptLogs;
use crate::pipelines::redrive::{self, Redrive};
use crate::pipelines::{BrokerDeploymentLog, BrokerGlobals, BrokerIoFactory};
use crate::records::Records;
use crate::routers;
use crate::topic_config::{Overrides, TopicConfig};
use crate::topics::Topics;
use crate::topics::producer_ids::ProducerIds;
use crate::txn::{self, LoadError, Transactions, TxnSettings};
use pelton_coordinators::UnreadableRecord;
use pelton_pipelines::allowed::AllowList;
use pelton_pipelines::compiler::CompileLimits;
use pelton_pipelines::refusal::DeploymentLogError;
use pelton_pipelines::stores::{DirStores, MemoryStores, TaskStores};
use pelton_pipelines::supervisor::{Supervisor, SupervisorSpec};

/// How long a start waits for the markers of transactions that a crash interrupted. They are a few appends and a sync
/// once the groups are loaded; after this time more waiting would not help.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);

/// The broker's dependencies: clock, randomness and disk.
#[derive(Clone)]
pub struct Deps {
    pub clock: Arc<dyn Clock>,
    pub storage: Arc<dyn Storage>,
    /// What loads and runs plugins; without it there are no pipelines.
    pub plugins: Option<Arc<dyn PluginFactory>>,
    /// What keeps stores on disk; without it tables and what pipelines keep are in memory only.
    pub state: Option<Arc<dyn StateFactory>>,
    /// Makes ids for topics and clusters: random, never nil, never the same twice.
    pub new_id: Arc<dyn Fn() -> Uuid + Send + Sync>,
}

impl Default for Deps {
    /// The machine's clock, disk and randomness.
    fn default() -> Self {
        Deps {
            clock: Arc::new(SystemClock),
            storage: Arc::new(DiskStorage),
            plugins: None,
            state: None,
            new_id: Arc::new(Uuid::new_v4),
        }
    }
}

/// The parts of a broker, wired up. They are handed out one by one: only the handle holds all of them.
pub struct Broker {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    /// The id that clients see; made with the data directory.
    pub cluster_id: String,
    pub topics: Arc<Topics>,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    request_memory: Arc<RequestMemory>,
    /// Of all stores in memory.
    state_memory: Arc<MemoryBudget>,
    connections: Arc<ConnectionLimits>,
    fetch_sessions: Arc<FetchSessions>,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    pipelines: PipelinesSlot,
    logs: Arc<KeptLogs>,
    pub(crate) tables: TablesSlot,
    /// Set once the broker has started, if `log.cleaner.enable`.
    cleaner: Arc<OnceLock<Cleaner>>,
    stop: CancellationToken,
    failure: Failure,
}

/// Why a broker did not start. Nothing is running then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start the thread that compacts: {0}")]
    Cleaner(std::io::Error),
    #[error(
        "cannot listen on `{address}`: {source}; stop what uses the port, or set `listen` to another address"
    )]
    Listen { address: HostPort, source: std::io::Error },
    #[error(transparent)]
    DataDir(#[from] OpenError),
    #[error(transparent)]
    Transactions(#[from] LoadError),
    #[error(transparent)]
    Groups(UnreadableRecord),
    #[error("cannot read the deployed pipelines: {0}")]
    Deployments(String),
    #[error("a thread that keeps tables fresh does not start: {0}")]
    Tables(std::io::Error),
    #[error(
        "cannot listen on `{address}` for HTTP: {source}; stop what uses the port, or set `http.listen` to another address or `off`"
    )]
    ListenHttp { address: HostPort, source: std::io::Error },
    /// Changes over HTTP need a token, and there is none that can be trusted.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Deploying runs code, so off loopback the operator must have written the token.
    #[error(
        "`http.listen` is `{0}`, which others can reach, and there is no `http.token` in the data directory: write one of at least 16 characters there (mode 0600), or listen on 127.0.0.1"
    )]
    NoToken(HostPort),
}

impl From<DeploymentLogError> for StartError {
    fn from(error: DeploymentLogError) -> StartError {
        StartError::Deployments(error.to_string())
    }
}

impl Broker {
    /// Starts a broker: opens the data directory, recovers it, and takes connections. Needs a multi-threaded tokio
    /// runtime with I/O and time.
    ///
    /// # Errors
    /// What is wrong and what to do about it; nothing keeps running.
    pub async fn start(config: Config, deps: Deps) -> Result<BrokerHandle, StartError> {
        config.check()?;
        // The port comes first: a second broker started by mistake fails here, before it touches the data directory.
        let listeners = listener::bind(&config.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.listen.clone(), source })?;
        let address = listeners.first().map(tokio::net::TcpListener::local_addr).transpose();
        let addr = address.ok().flatten().unwrap_or(SocketAddr::from(([127, 0, 0, 1], config.listen.port)));
        let failure = Failure::default();
        let http = startup::bind_http(&config).await?;
        let opened = {
            let (config, deps, failure) = (config.clone(), deps.clone(), failure.clone());
            run_blocking(move || startup::open(&config, &deps, &failure)).await?
        };
        let broker = Broker::assemble(config, &deps, opened, failure);
        if let Err(error) = broker.load().await {
            broker.give_up().await;
            return Err(error);
        }
        broker.transactions.recover(RECOVERY_PATIENCE).await;
        let leftovers = redrive::end_leftovers(&broker.transactions);
        if tokio::time::timeout(RECOVERY_PATIENCE, leftovers).await.is_err() {
            tracing::warn!(
                "transactions of before the start are not all aborted; they end when they time out"
            );
        }
        let token = http.as_ref().map(|_| startup::http_token(&broker.config, &deps.new_id)).transpose()?;
        let advertised = broker.config.advertise.clone();
        let advertised =
            advertised.unwrap_or_else(|| HostPort { port: addr.port(), ..broker.config.listen.clone() });
        let mut tasks = JoinSet::new();
        let server = Arc::new(broker.server(advertised.clone()));
        for listener in listeners {
            tasks.spawn(listener::serve(Arc::clone(&server), listener));
        }
        tasks.spawn(broker.housekeeping());
        tasks.spawn(broker.txn_housekeeping());
        tasks.spawn(Arc::clone(&broker.logs).keep(broker.stop.clone()));
        if let Err(error) = broker.start_cleaner(&deps.new_id) {
            tasks.shutdown().await;
            broker.give_up().await;
            return Err(StartError::Cleaner(error));
        }
        if let Some(plugins) = deps.plugins
            && let Err(error) = broker.start_deployed(plugins, deps.state).await
        {
            tasks.shutdown().await;
            broker.give_up().await;
            return Err(error);
        }
        if let Some(supervisor) = broker.supervisor() {
            let (topics, supervisor) = (Arc::clone(&broker.topics), Arc::clone(supervisor));
            let clock = Arc::clone(&broker.clock);
            tasks.spawn(routers::keep(topics, supervisor, clock, broker.stop.clone()));
        }
        let mut http_addr = None;
        if let (Some(listener), Some(token)) = (http, token) {
            http_addr = listener.local_addr().ok();
            let listen = http_addr.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
            let names = vec![advertised.host];
            let state = HttpState::new(broker.http_parts(), &broker.config, listen, names, token);
            tasks.spawn(http::serve(listener, state, broker.stop.clone()));
        }
        Ok(BrokerHandle { addr, http_addr, broker, tasks })
    }

    fn server(&self, advertised: HostPort) -> Server {
        Server {
            parts: self.parts(advertised),
            limits: Arc::clone(&self.connections),
            request_memory: Arc::clone(&self.request_memory),
            metrics: Arc::clone(&self.metrics),
            settings: ConnectionSettings::of(&self.config),
            stopping: self.stop.clone(),
        }
    }

    /// The parts that handlers get.
    pub(crate) fn parts(&self, advertised: HostPort) -> Parts {
        let node = Node { id: self.config.node_id, cluster_id: self.cluster_id.clone(), advertised };
        let (topics, metrics) = (|| Arc::clone(&self.topics), || Arc::clone(&self.metrics));
        let (clock, config) = (|| Arc::clone(&self.clock), || Arc::clone(&self.config));
        let (groups, transactions) = (|| self.groups.clone(), || self.transactions.clone());
        let cluster = Cluster {
            node: node.clone(),
            config: config(),
            log_dir: Arc::clone(&self.log_dir),
            clock: clock(),
        };
        let produce = self.producing();
        let fetch = Fetching {
            topics: topics(),
            sessions: Arc::clone(&self.fetch_sessions),
            metrics: metrics(),
            stopping: self.stop.clone(),
            max_bytes: self.config.fetch_max_bytes.into(),
        };
        let group_parts =
            GroupParts { groups: groups(), topics: topics(), pipelines: self.pipelines.clone() };
        let transaction_parts = TransactionParts {
            transactions: transactions(),
            groups: groups(),
            topics: topics(),
            pipelines: self.pipelines.clone(),
            producer_ids: Arc::clone(&self.producer_ids),
            clock: clock(),
        };
        Parts {
            metrics: metrics(),
            topics: topics(),
            cluster: Arc::new(cluster),
            admin: Arc::clone(&self.admin),
            produce: Arc::new(produce),
            fetch: Arc::new(fetch),
            groups: Arc::new(group_parts),
            transactions: Arc::new(transaction_parts),
            coordinators: Arc::new(CoordinatorParts { node, groups: groups(), transactions: transactions() }),
        }
    }

    fn housekeeping(&self) -> impl Future<Output = ()> + use<> {
        housekeeping::run(
            Arc::clone(&self.topics),
            self.groups.clone(),
            Arc::clone(&self.clock),
            Arc::clone(&self.config),
            self.stop.clone(),
        )
    }

    fn start_cleaner(&self, new_id: &Arc<dyn Fn() -> Uuid + Send + Sync>) -> std::io::Result<()> {
        if self.config.log_cleaner_enable {
            let settings = startup::cleaner_settings(&self.config, new_id().into_bytes());
            let cleaner = Cleaner::start(&self.topics, Arc::clone(&self.clock), settings)?;
            // Set once, here.
            drop(self.cleaner.set(cleaner));
        }
        Ok(())
    }

    /// What produce requests need, and records that come over HTTP.
    pub(crate) fn producing(&self) -> Producing {
        Producing {
            topics: Arc::clone(&self.topics),
            transactions: self.transactions.clone(),
            log_dir: Arc::clone(&self.log_dir),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            unpack: self.config.decompress_limit(),
        }
    }

    fn http_parts(&self) -> HttpParts {
        let producing = Arc::new(self.producing());
        HttpParts {
            groups: self.groups.clone(),
            log_dir: Arc::clone(&self.log_dir),
            metrics: Arc::clone(&self.metrics),
            connections: Arc::clone(&self.connections),
            request_memory: Arc::clone(&self.request_memory),
            fetch_sessions: Arc::clone(&self.fetch_sessions),
            admin: Arc::clone(&self.admin),
            records: Records::new(Arc::clone(&producing)),
            redrive: Redrive::new(producing, self.groups.clone()),
            logs: Arc::clone(&self.logs),
        }
    }

    fn txn_housekeeping(&self) -> impl Future<Output = ()> + use<> {
        let every = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(1).max(1));
        let intervals = txn::housekeeping::Intervals {
            sweep: every(self.config.transaction_abort_check_interval_ms),
            snapshots: every(self.config.snapshot_check_interval_ms),
        };
        let stopping = self.stop.clone().cancelled_owned();
        txn::housekeeping::run(self.transactions.clone(), intervals, stopping)
    }

    fn supervisor_spec(
        &self,
        factory: Arc<dyn PluginFactory>,
        state: Option<Arc<dyn StateFactory>>,
    ) -> SupervisorSpec {
        let stores: Arc<dyn TaskStores> = match state {
            None => Arc::new(MemoryStores { memory: Arc::clone(&self.state_memory) }),
            Some(factory) => Arc::new(DirStores {
                factory,
                dir: self.config.state_path(),
                memory: Arc::clone(&self.state_memory),
                flush_interval_ms: self.config.state_flush_interval_ms,
            }),
        };
        let io = BrokerIoFactory {
            topics: Arc::clone(&self.topics),
            groups: self.groups.clone(),
            transactions: self.transactions.clone(),
            clock: Arc::clone(&self.clock),
            runtime: tokio::runtime::Handle::current(),
            topic_defaults: TopicConfig::resolve(&self.config.topic_defaults, &Overrides::new()),
        };
        let (topics, clock) = (Arc::clone(&self.topics), Arc::clone(&self.clock));
        let log = BrokerDeploymentLog::new(topics, clock, self.config.num_partitions);
        let clock = Arc::clone(&self.clock);
        let now_ms = move || clock.now_ms();
        SupervisorSpec {
            stores,
            globals: Arc::new(BrokerGlobals {
                tables: self.tables.clone(),
                runtime: tokio::runtime::Handle::current(),
            }),
            factory,
            log: Arc::new(log),
            io: Arc::new(io),
            clock: Arc::new(now_ms),
            logs: Arc::clone(&self.logs.pending),
            max_pipelines: self.config.max_pipelines,
            snapshot_min_bytes: self.config.snapshot_min_bytes,
            allowed: AllowList {
                digests: self.config.plugin_allow_digests.clone(),
                keys: self.config.plugin_allow_keys.clone(),
            },
            compile: CompileLimits {
                at_once: self.config.plugin_compile_max as usize,
                wait: Duration::from_millis(self.config.plugin_compile_wait_ms.unsigned_abs()),
                timeout: Duration::from_millis(self.config.plugin_compile_timeout_ms.unsigned_abs()),
            },
        }
    }

    /// Starts what is deployed: pipelines, and tables.
    async fn start_deployed(
        &self,
        plugins: Arc<dyn PluginFactory>,
        state: Option<Arc<dyn StateFactory>>,
    ) -> Result<(), StartError> {
        let supervisor = Supervisor::start(self.supervisor_spec(plugins, state.clone())).await?;
        let spec = startup::tables_spec(self, &supervisor, state);
        // Set once, here; a start that fails stops what runs.
        drop(self.pipelines.supervisor.set(Arc::clone(&supervisor)));
        // Before pipelines, which join records with them.
        let tables = run_blocking(move || Tables::start(spec)).await.map_err(StartError::Tables)?;
        drop(self.tables.0.set(tables));
        supervisor.run_all().await;
        Ok(())
    }

    /// Pipelines; `None` while the broker starts, or where nothing runs plugins.
    pub(crate) fn supervisor(&self) -> Option<&Arc<Supervisor>> {
        self.pipelines.supervisor.get()
    }

    /// The tables, once the broker has started.
    #[cfg(test)]
    pub(crate) fn followed_tables(&self) -> &Arc<Tables> {
        self.tables.0.get().expect("the broker has started")
    }

    /// Makes all parts; none of them does anything yet. Needs a tokio runtime.
    pub(crate) fn assemble(config: Config, deps: &Deps, opened: Opened, failure: Failure) -> Broker {
        let clock = Arc::clone(&deps.clock);
        let store = TopicStore::new(
            Arc::clone(&opened.topics),
            Arc::clone(&clock),
            config.offsets_topic_segment_bytes,
            config.offsets_batch_max_bytes as usize,
        );
        let groups = Groups::start(
            &GroupLimits::from(&config),
            config.offsets_topic_num_partitions,
            Arc::new(store),
            Arc::clone(&clock),
        );
        let producer_ids = Arc::new(ProducerIds::default());
        let transactions = Transactions::new(
            TxnSettings::from(&config),
            Arc::clone(&opened.topics),
            groups.clone(),
            Arc::clone(&producer_ids),
            Arc::clone(&clock),
        );
        let config = Arc::new(config);
        let tables = TablesSlot::default();
        let logs = KeptLogs::new(Arc::clone(&opened.topics), Arc::clone(&clock), &config);
        let pipelines = PipelinesSlot { expected: deps.plugins.is_some(), ..PipelinesSlot::default() };
        let admin = Admin::new(
            Arc::clone(&opened.topics),
            groups.clone(),
            pipelines.clone(),
            tables.clone(),
            Arc::clone(&clock),
            Arc::clone(&config),
        );
        Broker {
            clock,
            cluster_id: opened.cluster_id,
            topics: opened.topics,
            log_dir: opened.log_dir,
            producer_ids,
            request_memory: RequestMemory::new(config.request_memory_bytes()),
            state_memory: MemoryBudget::new(config.state_memory_bytes),
            connections: ConnectionLimits::new(config.max_connections, config.max_connections_per_ip),
            groups,
            transactions,
            fetch_sessions: Arc::new(FetchSessions::new(
                config.fetch_sessions_max as usize,
                config.fetch_session_partitions_max as usize,
            )),
            admin: Arc::new(admin),
            metrics: Arc::default(),
            pipelines,
            logs,
            tables,
            cleaner: Arc::default(),
            stop: CancellationToken::new(),
            failure,
            config,
        }
    }

    /// Loads the coordinators from their topics.
    async fn load(&self) -> Result<(), StartError> {
        let transactions = self.transactions.clone();
        run_blocking(move || transactions.load()).await?;
        // Groups that take longer are loaded while the first requests are served.
        let groups = tokio::time::timeout(RECOVERY_PATIENCE, self.groups.loaded()).await;
        groups.unwrap_or(Ok(())).map_err(StartError::Groups)
    }

    /// Cleans up after a failed start: closes the data directory in order, so that the next start needs no recovery.
    async fn give_up(&self) {
        self.stop_deployed().await;
        self.groups.stop().await;
        if let Err(error) = self.close_logs().await {
            tracing::warn!(%error, "the data directory was not closed in order; the next start recovers it");
        }
    }

    /// Stops pipelines, while the group coordinator still takes their last commit, and tables.
    async fn stop_deployed(&self) {
        if let Some(supervisor) = self.supervisor() {
            supervisor.stop().await;
            // What they said last. Why not, if not, was logged.
            let _ = self.logs.write().await;
        }
        if let Some(tables) = self.tables.0.get() {
            tables.stop().await;
        }
    }

    async fn close_logs(&self) -> Result<(), CloseError> {
        let (topics, log_dir) = (Arc::clone(&self.topics), Arc::clone(&self.log_dir));
        let cleaner = Arc::clone(&self.cleaner);
        run_blocking(move || {
            if let Some(cleaner) = cleaner.get() {
                cleaner.stop();
            }
            topics.close();
            log_dir.close()
        })
        .await
    }
}

/// A running broker.
pub struct BrokerHandle {
    addr: SocketAddr,
    http_addr: Option<SocketAddr>,
    broker: Broker,
    tasks: JoinSet<()>,
}

impl BrokerHandle {
    /// The address that is listened on, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of HTTP, with the real port, if it is served.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// What the broker's parts share.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Waits until the storage fails for good, and returns the reason. The process should then exit with its own code
    /// and without an orderly stop: the next start finds out what is on disk.
    pub async fn failed(&self) -> String {
        self.broker.failure.raised().await
    }

    /// Why the storage has failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.broker.failure.reason()
    }

    /// Stops in order: no more connections, requests that are under way are answered, everything is synced, and the
    /// data directory is marked as cleanly stopped.
    ///
    /// # Errors
    /// The last sync or checkpoint failed. Everything acknowledged is still safe; the next start recovers.
    pub async fn shutdown(self) -> Result<(), CloseError> {
        let BrokerHandle { broker, mut tasks, .. } = self;
        broker.stop_deployed().await;
        broker.stop.cancel();
        // JoinGroup requests that wait for other members would hold their connections open for the whole drain time.
        broker.groups.stop().await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the broker panicked");
            }
        }
        broker.close_logs().await
    }
}
