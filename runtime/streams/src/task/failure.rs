//! What a record cannot pass, and how that is said.

use std::fmt;

use crate::operator::{GlobalTableError, OperatorError};
use crate::plugin::PluginError;
use crate::sink::Refusal;
use crate::state::StateError;
use crate::topology::Topology;

/// Why a record cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The plugin failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// A topic does not take what comes of the record.
    #[error("topic {topic}, partition {partition} does not take what comes of it: {why}")]
    Refused {
        /// The topic that is written to.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Why.
        why: Refusal,
    },
    /// The plugin failed when a timer fired.
    #[error("its timer `{timer}` fires: {error}")]
    Timer {
        /// Its name, with what is no text escaped.
        timer: String,
        /// How.
        error: PluginError,
    },
    /// The plugin that says where the records of a topic go failed.
    #[error("the partitioner of topic {topic}: {error}")]
    Partitioner {
        /// The topic that is written to.
        topic: String,
        /// How.
        error: PluginError,
    },
    /// A built-in operator cannot read it.
    #[error("{0}")]
    Row(String),
    /// What the task keeps cannot be read or written. No record is to blame.
    #[error("what the pipeline keeps: {0}")]
    State(#[from] StateError),
    /// A global table cannot be read. No record is to blame.
    #[error(transparent)]
    Global(#[from] GlobalTableError),
}

impl From<OperatorError> for RecordError {
    fn from(error: OperatorError) -> RecordError {
        match error {
            OperatorError::Row(row) => RecordError::Row(row.reason),
            OperatorError::Plugin(error) => error.into(),
            OperatorError::State(error) => error.into(),
            OperatorError::Global(error) => error.into(),
            OperatorError::Alone { .. } => RecordError::Row(error.to_string()),
        }
    }
}

impl RecordError {
    /// Whether the task stops, whatever the policy says of records that cannot be processed.
    pub(super) fn is_final(&self) -> bool {
        match self {
            RecordError::Plugin(error)
            | RecordError::Timer { error, .. }
            | RecordError::Partitioner { error, .. } => {
                matches!(error, PluginError::Fatal(_) | PluginError::ServerMemory { .. })
            }
            RecordError::State(_) | RecordError::Global(_) => true,
            RecordError::Refused { .. } | RecordError::Row(_) => false,
        }
    }

    /// Whether a plugin was called and did not answer in time.
    pub(super) fn is_late(&self) -> bool {
        let (RecordError::Plugin(error) | RecordError::Partitioner { error, .. }) = self else {
            return false;
        };
        matches!(error, PluginError::Deadline { .. })
    }

    /// Whether the plugin asks to be called again later.
    pub(super) fn asks_again(&self) -> bool {
        let (RecordError::Plugin(error) | RecordError::Timer { error, .. }) = self else { return false };
        matches!(error, PluginError::Retry(_))
    }

    /// A short constant name, for metrics and JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            RecordError::Plugin(error)
            | RecordError::Timer { error, .. }
            | RecordError::Partitioner { error, .. } => error.kind(),
            RecordError::Refused { .. } => "output",
            RecordError::Row(_) => "record",
            RecordError::State(_) => "state",
            RecordError::Global(_) => "global-table",
        }
    }
}

/// The offset of a failure that no record has brought about: a timer on the clock.
pub const NO_RECORD: i64 = -1;

/// Why a pipeline stops, and at which record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// The node that failed, or the sink if it reads the source itself.
    pub node: String,
    /// The topic of the record.
    pub topic: String,
    /// The partition of the record.
    pub partition: i32,
    /// The offset of the record, or of the first of several; [`NO_RECORD`] for none.
    pub offset: i64,
    /// The offset of the last record, when the failure could not be narrowed to one.
    pub last_offset: i64,
    /// What is wrong.
    pub error: RecordError,
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TaskFailure { node, topic, partition, offset, last_offset, error } = self;
        write!(f, "node `{node}` failed at topic {topic}, partition {partition}, ")?;
        if *offset == NO_RECORD {
            write!(f, "without a record: {error}")
        } else if offset == last_offset {
            write!(f, "offset {offset}: {error}")
        } else {
            write!(f, "offsets {offset} to {last_offset}: {error}")
        }
    }
}

impl std::error::Error for TaskFailure {}

/// The headers that a dead letter has behind its own. The names are part of the contract with users. Of a node that runs a
/// plugin they say which component that was.
pub fn dead_letter_headers(topology: &Topology, failure: &TaskFailure) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("pelton.error.pipeline", topology.name.clone()),
        ("pelton.error.node", failure.node.clone()),
        ("pelton.error.topic", failure.topic.clone()),
        ("pelton.error.partition", failure.partition.to_string()),
        ("pelton.error.offset", failure.offset.to_string()),
        ("pelton.error.kind", failure.error.kind().to_owned()),
        ("pelton.error.reason", failure.error.to_string()),
    ];
    headers.extend(topology.component_of(&failure.node).map(|digest| (PLUGIN_HEADER, digest.to_string())));
    headers
}

/// The header that says which component a node ran that could not process a record. Letters of before it have none.
pub const PLUGIN_HEADER: &str = "pelton.error.plugin";

/// The header of a dead letter whose timestamp its topic does not take: it is stored with the time at which it is written.
pub const ORIGINAL_TIMESTAMP_HEADER: &str = "pelton.error.timestamp";
