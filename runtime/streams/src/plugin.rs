//! The plugin that a node of a topology calls, and the factory of plugins. `wasm` implements both traits with wasmtime;
//! tests implement them natively.

use std::sync::Arc;

use pelton_wire::mutant::Mutant;

use crate::answer::{AnswerError, BatchOut};
use crate::batch::BatchIn;
use crate::digest::Digest;
use crate::http::{HttpClient, Network, NetworkError};
use crate::limits::PluginLimits;
use crate::log::LogSink;
use crate::node_state::{ColumnOut, NodeState};
use crate::operator::TimerDomain;
use crate::operator::aggregate::Way;
use crate::plugin_manifest::{ConfigError, PluginManifest};
use crate::world::World;

/// Code that takes a batch and gives an answer. One instance belongs to a node and a thread, and all tasks of that
/// thread call it, one at a time.
///
/// After any error the next call starts from a new, configured instance. A call takes at most its deadline, and blocks
/// on nothing.
pub trait Plugin: Send {
    /// Gives the batch to the plugin. The answer is as the plugin made it: [`Answer::check`](crate::Answer::check)
    /// before use.
    ///
    /// # Errors
    /// How the call failed. Nothing of a failed call is kept.
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError>;

    /// The same for a plugin with state, which is given the stores of its node in the task that calls. They are given back,
    /// whatever becomes of the call.
    fn process_with(
        &mut self,
        batch: &BatchIn<'_>,
        state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        (self.process(batch), state)
    }

    /// Timers of a domain are due: their names, and when each of them was due, in that order. The answer is to a batch without
    /// records.
    fn fire(
        &mut self,
        domain: TimerDomain,
        (names, at): (&ColumnOut, &[i64]),
        state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        let _ = (domain, names, at);
        (Err(PluginError::Fatal("the plugin has no timers".to_owned())), state)
    }
}

/// Code that folds records into one value for each group. One instance belongs to a node and a thread, as [`Plugin`].
///
/// A value is bytes of its own making. Every call takes many groups at once; after any error the next one starts from a new
/// instance.
pub trait AggregatorPlugin: Send {
    /// The value of a group that has no records yet.
    ///
    /// # Errors
    /// How the call failed.
    fn create(&mut self) -> Result<Vec<u8>, PluginError>;

    /// Adds record `i` of the batch to the value `groups[i]`, in order, or takes it out. The answer has a value for each record:
    /// that of its group behind it. It is as the plugin made it.
    ///
    /// # Errors
    /// How the call failed.
    fn fold(
        &mut self,
        way: Way,
        values: &ColumnOut,
        batch: &BatchIn<'_>,
        groups: &[u32],
    ) -> Result<ColumnOut, PluginError>;

    /// Makes one value of each two. The answer is as the plugin made it.
    ///
    /// # Errors
    /// How the call failed.
    fn merge(&mut self, left: &ColumnOut, right: &ColumnOut) -> Result<ColumnOut, PluginError>;

    /// Whether it reads keys, and values, of records: others are not copied for it.
    fn reads(&self) -> (bool, bool) {
        (true, true)
    }
}

/// Code that says which partition of a topic a record belongs to. One instance belongs to a sink and a thread, as
/// [`Plugin`].
pub trait PartitionerPlugin: Send {
    /// A partition for each record, below `partitions`, as the plugin made it: check with [`checked_partitions`] before
    /// use. After any error the next call starts from a new instance.
    ///
    /// # Errors
    /// How the call failed.
    fn partition(&mut self, batch: &BatchIn<'_>, partitions: u32) -> Result<Vec<u32>, PluginError>;
}

/// Which records of a call have to wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOrder {
    /// None: each is of a key of its own, or has none.
    Free,
    /// Each for the one before it: what stands behind a record that is not done is not done either.
    Whole,
}

/// A record of a call that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// An index into the batch.
    pub index: u32,
    /// Why, in the plugin's words.
    pub reason: String,
    /// Give it again, not before so many milliseconds have passed; `None`: it can never be done.
    pub again: Option<u32>,
}

/// Code that acts on the outside: takes records and gives none. Each instance belongs to a node and a thread of its own, which
/// a call may block for as long as what it reaches takes.
pub trait ConsumerPlugin: Send {
    /// Does what is to be done about each record. Those that are not named in the answer are done. The answer is as the plugin
    /// made it.
    ///
    /// # Errors
    /// How the call failed: of each of its records it is unknown whether it was done.
    fn consume(&mut self, batch: &BatchIn<'_>, order: CallOrder) -> Result<Vec<Unfinished>, PluginError>;
}

/// What a partitioner answered, if it names a partition that is there for each record.
///
/// # Errors
/// [`PluginError::IllFormed`], with the first record that has none.
pub fn checked_partitions(answer: &[u32], records: usize, partitions: u32) -> Result<Vec<i32>, PluginError> {
    let ill_formed = |what| PluginError::IllFormed { what };
    if answer.len() != records {
        let named = answer.len();
        return Err(ill_formed(format!("it names {named} partitions for {records} records")));
    }
    let place = |(i, &partition): (usize, &u32)| match i32::try_from(partition) {
        Ok(placed) if partition < partitions || Mutant::PlacedBeyond.is_on() => Ok(placed),
        _ => Err(ill_formed(format!(
            "it names partition {partition} for record {i}, but the topic has {partitions}, from 0 on"
        ))),
    };
    answer.iter().enumerate().map(place).collect()
}

/// A record that a plugin cannot process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// An index into the batch.
    pub index: u32,
    /// Why, in the plugin's words.
    pub reason: String,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// The plugin stopped itself or did what Wasm forbids. `said` is the last error line that it logged: the text of a
    /// panic.
    #[error("the plugin trapped: {trap}{}", said.as_ref().map(|s| format!(" ({s})")).unwrap_or_default())]
    Trapped {
        /// wasmtime's text.
        trap: String,
        /// The plugin's last error line, if it has logged one.
        said: Option<String>,
    },
    /// The call did not return in time.
    #[error("the plugin did not answer within {deadline_ms} ms (limits.deadline_ms)")]
    Deadline {
        /// The limit.
        deadline_ms: u32,
    },
    /// The plugin asked for more memory than it may have, and failed without it.
    #[error("the plugin wanted more than {limit_bytes} bytes of memory (limits.memory)")]
    Memory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The plugin asked for memory within its own limit, but all plugins together have used up the server's, and it
    /// failed without. The records are not the reason.
    #[error(
        "the plugins of this server together may take {limit_bytes} bytes of memory, and this one wanted more \
         (pelton.plugin.memory.max.bytes)"
    )]
    ServerMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer is larger than it may be.
    #[error("the answer is larger than {limit_bytes} bytes (limits.output)")]
    OutputTooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The answer contradicts itself or the batch.
    #[error("the answer is ill-formed: {what}")]
    IllFormed {
        /// Which rule of `sdk/wit` it breaks, with the values.
        what: String,
    },
    /// The plugin asks to be given the same batch later.
    #[error("the plugin asks to try again: {0}")]
    Retry(String),
    /// The plugin cannot process these records of the batch.
    #[error("the plugin rejects the record: {}", .0.first().map_or("", |r| r.reason.as_str()))]
    Reject(Vec<Rejection>),
    /// The plugin cannot go on.
    #[error("the plugin cannot go on: {0}")]
    Fatal(String),
}

impl From<AnswerError> for PluginError {
    fn from(error: AnswerError) -> PluginError {
        match error {
            AnswerError::IllFormed(what) => PluginError::IllFormed { what },
            AnswerError::TooLarge { limit_bytes } => PluginError::OutputTooLarge { limit_bytes },
        }
    }
}

impl PluginError {
    /// A short constant name, for metrics and JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            PluginError::Trapped { .. } => "trapped",
            PluginError::Deadline { .. } => "deadline",
            PluginError::Memory { .. } => "memory",
            PluginError::ServerMemory { .. } => "server-memory",
            PluginError::OutputTooLarge { .. } => "output-too-large",
            PluginError::IllFormed { .. } => "ill-formed",
            PluginError::Retry(_) => "retry",
            PluginError::Reject(_) => "reject",
            PluginError::Fatal(_) => "fatal",
        }
    }
}

/// A loaded component.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginInfo {
    /// The sha256 of its bytes, which names it.
    pub digest: Digest,
    /// The world it was built for.
    pub world: World,
    /// Its `plugin.toml`, which `pelton plugin build` puts into the component. A component of other tools may lack it.
    pub manifest: Option<PluginManifest>,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A component that cannot be used. The deployment is refused with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Larger than the server accepts.
    #[error("the component has {bytes} bytes, but at most {max_bytes} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The bytes are not those of the digest.
    #[error("the component's digest is {actual}, not {expected}: it was damaged on its way")]
    DigestMismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// Not a component, or one that uses what the server does not allow.
    #[error("the component is not valid: {reason}")]
    Invalid {
        /// The text of the compiler.
        reason: String,
    },
    /// It imports what its world does not offer.
    #[error("the plugin imports `{import}`, which the world `{world}` does not offer{hint}")]
    UnknownImport {
        /// The full name of the import.
        import: String,
        /// The world it is checked against.
        world: String,
        /// What to do about it, as a clause that begins with `; `, or nothing.
        hint: String,
    },
    /// It lacks a function of its world, or has it with another type.
    #[error(
        "the plugin does not export `{export}` as the world `{world}` of pelton:plugin@0.1.0 has it: {reason}"
    )]
    BadExport {
        /// The function.
        export: String,
        /// The world it is checked against.
        world: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A world that this server cannot run.
    #[error("plugins of the world `{world}` are not supported yet; this version runs: {supported}")]
    UnsupportedWorld {
        /// The world of the plugin.
        world: String,
        /// The worlds that this server runs.
        supported: String,
    },
    /// The `plugin.toml` inside the component cannot be read.
    #[error("the plugin.toml inside the component is not valid: {reason}")]
    BadManifest {
        /// What is wrong with it.
        reason: String,
    },
}

/// A loaded component that did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstantiateError {
    /// [`PluginFactory::load`] was not called for it, or it was unloaded.
    #[error("the component {0} is not loaded")]
    NotLoaded(Digest),
    /// The settings of the node do not fit the plugin.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The plugin refuses its configuration.
    #[error("the plugin refuses its configuration: {0}")]
    Refused(String),
    /// All instances that the server may hold are taken.
    #[error("{limit} plugin instances are running, and no more are allowed")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// It failed while starting or in `configure`.
    #[error("the plugin did not start: {0}")]
    Start(PluginError),
    /// It cannot reach what it is granted.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Configuration, limits and log of one instance.
#[derive(Clone)]
pub struct InstanceSpec {
    /// The keys that the plugin is configured with, defaults filled in.
    pub config: Vec<(String, String)>,
    /// Its limits.
    pub limits: PluginLimits,
    /// Where its log lines go.
    pub log: Arc<dyn LogSink>,
}

impl std::fmt::Debug for InstanceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstanceSpec")
            .field("config", &self.config)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Makes plugins out of components. `load` and `instantiate` may take seconds, so threads that serve clients must not
/// call them.
pub trait PluginFactory: Send + Sync {
    /// Compiles and checks a component, and keeps it. Does nothing if the component is loaded already.
    ///
    /// # Errors
    /// Why the component cannot be used.
    fn load(&self, digest: &Digest, component: &[u8]) -> Result<PluginInfo, LoadError>;

    /// As [`PluginFactory::load`], but only if this process or an earlier one has compiled the component. `None`: it
    /// would have to be compiled, or this factory keeps nothing.
    ///
    /// # Errors
    /// Why the component cannot be used.
    fn load_compiled(&self, digest: &Digest, component: &[u8]) -> Result<Option<PluginInfo>, LoadError> {
        let _ = (digest, component);
        Ok(None)
    }

    /// The components that are loaded now.
    fn loaded(&self) -> Vec<Digest> {
        Vec::new()
    }

    /// A configured instance of a loaded component.
    ///
    /// # Errors
    /// Why it did not start.
    fn instantiate(&self, digest: &Digest, spec: &InstanceSpec) -> Result<Box<dyn Plugin>, InstantiateError>;

    /// The same for a component of the world `aggregator`.
    ///
    /// # Errors
    /// Why it did not start.
    fn instantiate_aggregator(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
    ) -> Result<Box<dyn AggregatorPlugin>, InstantiateError> {
        let _ = (digest, spec);
        Err(InstantiateError::Refused("aggregators are not run here".to_owned()))
    }

    /// The same for a component of the world `partitioner`.
    ///
    /// # Errors
    /// Why it did not start.
    fn instantiate_partitioner(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
    ) -> Result<Box<dyn PartitionerPlugin>, InstantiateError> {
        let _ = (digest, spec);
        Err(InstantiateError::Refused("partitioners are not run here".to_owned()))
    }

    /// The same for a component of the worlds `consumer` and `consumer-http`; those of the second one send through `http`.
    ///
    /// # Errors
    /// Why it did not start.
    fn instantiate_consumer(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
        http: Option<&Arc<dyn HttpClient>>,
    ) -> Result<Box<dyn ConsumerPlugin>, InstantiateError> {
        let _ = (digest, spec, http);
        Err(InstantiateError::Refused("consumers are not run here".to_owned()))
    }

    /// What sends the requests of plugins.
    ///
    /// # Errors
    /// Nothing does.
    fn network(&self) -> Result<&dyn Network, NetworkError> {
        Err(NetworkError::Unavailable("this program has no network for plugins".to_owned()))
    }

    /// Drops a loaded component. Running instances go on.
    fn unload(&self, digest: &Digest);

    /// Unloads a component that was deleted, and removes its compiled code.
    fn forget(&self, digest: &Digest) {
        self.unload(digest);
    }
}
