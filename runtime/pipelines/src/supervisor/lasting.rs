//! Changes outlive who asks for them: a client that is gone must leave no pipeline halted, and nothing durable that is not
//! known here.

use crate::refusal::{DefineTableError, DeployError, DeploymentLogError};

/// Why a change that was begun has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// A bug of ours. What the change had stored counts.
    Panicked,
    /// The server stops.
    Stopping,
}

impl From<Unanswered> for DeployError {
    fn from(why: Unanswered) -> DeployError {
        match why {
            Unanswered::Panicked => DeployError::Panicked,
            Unanswered::Stopping => DeployError::Stopping,
        }
    }
}

impl From<Unanswered> for DefineTableError {
    fn from(why: Unanswered) -> DefineTableError {
        DefineTableError::Log(DeploymentLogError(DeployError::from(why).to_string()))
    }
}

/// Does a change in a task of its own: it goes on to its end when the caller is dropped.
pub(super) async fn to_its_end<T: Send + 'static, E: From<Unanswered> + Send + 'static>(
    change: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => Err(Unanswered::Panicked.into()),
        Err(_) => Err(Unanswered::Stopping.into()),
    }
}
