//! Why a change of what is deployed was refused.

use pelton_streams::limits::LimitError;
use pelton_streams::{InstantiateError, ManifestError, TopologyError};

use super::allowed::NotAllowed;
use super::compiler::CompileError;
use super::deployments::BadRecord;
use super::deployments::history::NoRollback;
use super::globals::GlobalRefused;
use super::io::IoError;

/// The deployments' partition does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeploymentLogError(pub String);

/// A topic is not there and was not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnsureTopicError {
    /// There can be no such topic as things are: its name, or how many partitions there are.
    #[error("{0}")]
    Refused(String),
    /// The broker could not do it now.
    #[error("{0}")]
    Failed(String),
}

/// Why a table that stands alone was not defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefineTableError {
    #[error("pipeline `{0}` keeps a table of that name")]
    Taken(String),
    #[error("pipeline `{0}` reads it as a global table")]
    Read(String),
    #[error(transparent)]
    Log(#[from] DeploymentLogError),
}

/// Why a change was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(
        "store `{store}` holds {before}, and the node would keep {now} there: give the node another id, whose store begins with \
         nothing where the pipeline is now; or deploy the pipeline under another name, to read its topics from their start \
         ({changelog} stays in both cases)"
    )]
    StoreChanged { store: String, before: String, now: String, changelog: String },
    #[error(
        "store `{store}` is as {left_by} left it, and has nothing of what was read since: {missed}. It would go on as if \
         that had not been there: give the node another id, whose store begins with nothing where the pipeline is now; or deploy \
         the pipeline under another name, to read its topics from their start ({changelog} stays in both cases)"
    )]
    StoreMissed { store: String, left_by: String, missed: String, changelog: String },
    #[error("what is committed of pipeline `{pipeline}`: {error}")]
    Offsets { pipeline: String, error: IoError },
    #[error(
        "store `{store}` has what it keeps of a key where `{before}` puts it, and `{now}` would put the key's records into another \
         partition: say of its sources' `partitioner` what was said before; or deploy the pipeline under another name, to read \
         its topics from their start"
    )]
    StoreMoved { store: String, before: String, now: String },
    #[error(
        "store `{store}` would have its changes in {changelog}, which is the changelog of pipeline `{other}`; give the node \
         another id"
    )]
    ChangelogOfAnother { store: String, changelog: String, other: String },
    #[error(
        "`{node}` calls what it keeps `{table}`, and {by} has that name already; choose another one for `table`"
    )]
    TableTaken { node: String, table: String, by: String },
    #[error("global table `{table}`: {why}")]
    Global { table: String, why: GlobalRefused },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the component {plugin} may not run on this server: {why}")]
    NotAllowed { plugin: String, why: NotAllowed },
    #[error("node `{node}` does not start: {error}")]
    Start { node: String, error: InstantiateError },
    #[error("node `{node}` wants the plugin `{plugin}`, which was never pushed; push it first")]
    UnknownPlugin { node: String, plugin: String },
    #[error("topic `{0}` does not exist, so there is nothing to read; create it first")]
    NoSourceTopic(String),
    #[error("topic `{topic}` is written to, does not exist, and cannot be created: {error}")]
    OutputTopic { topic: String, error: EnsureTopicError },
    #[error("{0} pipelines are deployed, which is `pelton.max.pipelines`; delete one first, or raise it")]
    TooMany(u32),
    #[error(
        "pipeline `{0}` routes the records of a topic to the partitions that its `pelton.partitioner` names: change the \
         settings of the topic, or delete the topic"
    )]
    Router(String),
    #[error("pipeline `{pipeline}` cannot be rolled back: {why}")]
    NoRollback { pipeline: String, why: NoRollback },
    #[error(
        "revision {revision} of pipeline `{pipeline}`, which was to be rolled back, is not the live one any more: it was deployed \
         or deleted meanwhile"
    )]
    Overtaken { pipeline: String, revision: u64 },
    #[error("no pipeline `{0}` is deployed")]
    UnknownPipeline(String),
    #[error(transparent)]
    Limits(LimitError),
    #[error("the deployment could not be stored: {0}")]
    Log(#[from] DeploymentLogError),
    #[error(
        "the change panicked, which is a bug of the server: what it had stored counts, and `pelton pipeline describe` says what is \
         deployed"
    )]
    Panicked,
    #[error("the server is stopping")]
    Stopping,
}

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Deploy(Box<DeployError>),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("another replay, or the start of a shadow, is under way; try again when it is done")]
    Busy,
    #[error(
        "node `{node}` acts on the outside for each record that it is given, so a pipeline that has it is neither replayed nor run as \
         a shadow"
    )]
    ActsOutside { node: String },
    #[error(
        "global table `{table}` is a copy of topic {topic}, which no deployed pipeline reads, so the server keeps none: deploy a \
         pipeline that reads it, or define a table of it (`pelton table create`) and name that"
    )]
    NoCopy { table: String, topic: String },
    #[error(
        "{} shadows run, which is the most; `pelton pipeline shadow NAME --stop` ends one",
        crate::replay::SHADOWS_MAX
    )]
    TooManyShadows,
    #[error("the pipeline has no node `{node}` that runs a plugin; it has {}", nodes.join(", "))]
    UnknownNode { node: String, nodes: Vec<String> },
    #[error("the manifest is of pipeline `{name}`, and `{live}` is to be compared with it")]
    OtherName { name: String, live: String },
    #[error("the replay failed: {0}")]
    Failed(String),
}

impl From<DeployError> for ReplayError {
    fn from(error: DeployError) -> ReplayError {
        ReplayError::Deploy(Box::new(error))
    }
}

impl From<BadRecord> for DeploymentLogError {
    fn from(error: BadRecord) -> DeploymentLogError {
        DeploymentLogError(error.to_string())
    }
}
