//! What changes and looks are answered with.

use std::collections::BTreeMap;

use serde::Serialize;

use super::stores::StoreChange;
use crate::deployments::history::RevisionChanges;
use crate::limits::PipelineLimits;
use crate::status::{PipelineState, PipelineStatus};

/// What `push` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pushed {
    pub digest: String,
    pub name: Option<String>,
    pub version: Option<String>,
    pub world: String,
    /// False: the broker had these bytes already.
    pub new: bool,
}

/// One line of the list of plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PluginSummary {
    pub digest: String,
    pub name: Option<String>,
    pub version: Option<String>,
    pub world: String,
    pub bytes: u64,
    pub pushed_at_ms: i64,
}

/// What `deploy` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployed {
    pub name: String,
    /// Absent for a dry run.
    pub revision: Option<u64>,
    /// It is what this revision was.
    pub rolled_back_to: Option<u64>,
    /// What it changes about the revision that was live; absent if none was.
    pub changes: Option<RevisionChanges>,
    /// What the pipeline is doing a moment after it went live. Absent for a dry run.
    pub state: Option<PipelineState>,
    /// By node.
    pub plugins: BTreeMap<String, String>,
    /// What becomes of what the pipeline keeps.
    pub stores: Vec<StoreChange>,
    /// Topics between its parts, through which records go under another key.
    pub repartitions: Vec<Repartition>,
    /// What its user may not expect.
    pub warnings: Vec<String>,
    pub group: String,
}

/// A topic between two parts of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repartition {
    pub topic: String,
    pub partitions: u32,
}

/// A pipeline as HTTP shows it.
#[derive(Debug, Clone, Serialize)]
pub struct PipelineDescription {
    pub name: String,
    pub revision: u64,
    pub deployed_at_ms: i64,
    /// The consumer group that holds its offsets.
    pub group: String,
    pub plugins: BTreeMap<String, String>,
    /// What an operator says over the manifest, if something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<PipelineLimits>,
    #[serde(flatten)]
    pub status: PipelineStatus,
}
