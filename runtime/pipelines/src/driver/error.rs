//! Why a driver ended, and what follows from that: whether it passes, and what is said of it.

use pelton_streams::state::StateError;
use pelton_streams::task::{RecordError, TaskId};
use pelton_streams::{InstantiateError, PluginError, TaskFailure, TopologyError};

use crate::globals::GlobalError;
use crate::io::IoError;
use crate::status::FailureStatus;

/// What a failure is called that ends when somebody creates a topic.
pub(crate) const NO_TOPIC: &str = "no-topic";

/// Why a driver ended.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(not(any(test, feature = "testing")), expect(unreachable_pub, reason = "`sim` shows it to tests"))]
pub enum DriverError {
    /// A record cannot be passed.
    #[error("{0}")]
    Task(Box<TaskFailure>),
    /// A plugin does not start.
    #[error("node `{node}` does not start: {error}")]
    Start { node: String, error: InstantiateError },
    /// What the driver reads, writes and commits to refused.
    #[error(transparent)]
    Io(#[from] IoError),
    /// What a task keeps cannot be read or written.
    #[error("what partition {} keeps cannot be used: {error}", task.partition)]
    State { task: TaskId, error: StateError },
    /// A global table cannot be read.
    #[error("global table `{table}`: {error}")]
    Global { table: String, error: GlobalError },
    /// Topics have changed, so that the records of a key are in several tasks, or its state is in another one.
    #[error(transparent)]
    Partitions(#[from] TopologyError),
    /// It was told to stop before it had begun.
    #[error("the pipeline is stopping")]
    Stopped,
    /// A defect of ours.
    #[error("the driver panicked, which is a bug of pelton: {0}")]
    Bug(String),
}

impl DriverError {
    /// Whether the supervisor starts the pipeline again by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            DriverError::Io(error) => error.is_transient(),
            DriverError::Start { error, .. } => matches!(
                error,
                InstantiateError::TooMany { .. } | InstantiateError::Start(PluginError::ServerMemory { .. })
            ),
            // Memory comes back when other plugins stop, and this pipeline gives back its own meanwhile.
            DriverError::Task(failure) => matches!(
                failure.error,
                RecordError::Plugin(PluginError::ServerMemory { .. })
                    | RecordError::Partitioner { error: PluginError::ServerMemory { .. }, .. }
                    | RecordError::Global(_)
            ),
            // It is kept fresh by others, who try again.
            DriverError::Global { .. } => true,
            // A full disk may have room again, and a damaged store was removed.
            DriverError::State { .. } => true,
            DriverError::Partitions(_) | DriverError::Stopped | DriverError::Bug(_) => false,
        }
    }

    /// Whether it passes when others give back memory: what is restored meanwhile is restored in vain.
    pub(crate) fn waits_for_memory(&self) -> bool {
        matches!(self, DriverError::State { error: StateError::Memory { .. }, .. })
    }

    /// Whether it passes when somebody creates a topic.
    pub(crate) fn waits_for_topic(&self) -> bool {
        match self {
            DriverError::Io(IoError::NoOutput { .. } | IoError::OutputRenewed { .. }) => true,
            DriverError::Global { error, .. } => !matches!(error, GlobalError::Unavailable(_)),
            _ => false,
        }
    }

    /// For status and HTTP.
    pub(crate) fn status(&self, at_ms: i64) -> FailureStatus {
        let place = match self {
            DriverError::Task(failure) => {
                Some((failure.topic.clone(), failure.partition, Some(failure.offset)))
            }
            DriverError::Io(
                IoError::BehindEnd { topic, partition, offset, .. }
                | IoError::BadBatch { topic, partition, offset, .. },
            ) => Some((topic.clone(), *partition, Some(*offset))),
            DriverError::Io(IoError::NoPartition { topic, partition }) => {
                Some((topic.clone(), *partition, None))
            }
            DriverError::Io(
                IoError::Unavailable(_) | IoError::NoOutput { .. } | IoError::OutputRenewed { .. },
            )
            | DriverError::State { .. }
            | DriverError::Global { .. }
            | DriverError::Partitions(_)
            | DriverError::Stopped
            | DriverError::Start { .. }
            | DriverError::Bug(_) => None,
        };
        let kind = match self {
            DriverError::Task(failure) => failure.error.kind(),
            DriverError::Start { .. } => "start",
            DriverError::Io(IoError::BadBatch { .. }) => "input",
            DriverError::Io(IoError::NoOutput { .. } | IoError::OutputRenewed { .. }) => NO_TOPIC,
            DriverError::Io(_) => "io",
            DriverError::State { .. } => "state",
            DriverError::Global { error: GlobalError::NoTopic { .. }, .. } => NO_TOPIC,
            DriverError::Global { .. } => "global-table",
            DriverError::Partitions(_) => "partitions",
            DriverError::Stopped => "stopped",
            DriverError::Bug(_) => "bug",
        };
        let (topic, partition, offset) = match place {
            Some((topic, partition, offset)) => (Some(topic), Some(partition), offset),
            None => (None, None, None),
        };
        FailureStatus { reason: self.to_string(), kind, topic, partition, offset, at_ms }
    }
}
