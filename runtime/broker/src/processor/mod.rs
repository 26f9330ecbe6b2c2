//! Pipelines: what is deployed, the threads that run it, and what can be known of them.
//!
//! [`deployments`] says what should run (a replay of a topic), [`supervisor`] makes it so, [`runner`] is a pipeline's
//! thread, [`driver`] the loop on it, [`compiler`] the threads that compile plugins, [`io`] the seams to what is
//! read, written and committed.

mod broker_io;
mod compiler;
mod deployment_log;
mod deployments;
mod driver;
mod io;
mod refusal;
mod runner;
#[cfg(test)]
mod slow;
mod status;
mod supervisor;

pub(crate) use self::broker_io::BrokerIoFactory;
pub(crate) use self::compiler::{CompileError, CompileLimits};
pub(crate) use self::deployment_log::BrokerDeploymentLog;
pub(crate) use self::refusal::{DeployError, DeploymentLogError, EnsureTopicError};
pub(crate) use self::status::{LogLine, PipelineState, Totals};
pub(crate) use self::supervisor::{
    Deployed, PipelineDescription, PluginSummary, Pushed, Supervisor, SupervisorSpec,
};

use pelton_streams::Digest;
use sha2::{Digest as _, Sha256};

/// The name of a component.
fn digest_of(component: &[u8]) -> Digest {
    Digest::new(Sha256::digest(component).into())
}
