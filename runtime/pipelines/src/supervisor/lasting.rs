//! Changes outlive who asks for them: a client that is gone must leave no pipeline halted, and nothing durable that is not
//! known here.

use tokio::task::JoinError;

use crate::refusal::{DefineTableError, DeployError, DeploymentLogError};

/// Why a change that was begun has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// A bug of ours. What the change had stored counts.
    Panicked,
    /// The server stops.
    Stopping,
}

impl Unanswered {
    /// Why a task gives nothing.
    pub fn of(error: &JoinError) -> Unanswered {
        if error.is_panic() { Unanswered::Panicked } else { Unanswered::Stopping }
    }
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
    tokio::spawn(change).await.unwrap_or_else(|error| Err(Unanswered::of(&error).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_no_stop_of_the_server() {
        let panics = async { panic!("told to panic") };
        let answer: Result<(), DeployError> = to_its_end(panics).await;
        assert!(matches!(answer, Err(DeployError::Panicked)), "{answer:?}");
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(Unanswered::of(&task.await.unwrap_err()), Unanswered::Stopping);
    }
}
