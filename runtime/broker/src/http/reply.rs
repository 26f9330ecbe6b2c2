//! Refusals over HTTP: a status, and JSON that says what failed and what to do.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::guard::Refused;
use crate::admin::pipelines::NoPipelines;
use crate::group::error::GroupError;
use pelton_pipelines::compiler::CompileError;
use pelton_pipelines::refusal::{DeployError, EnsureTopicError};

/// A refused request.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    hint: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

impl Refusal {
    pub(super) fn not_found(error: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::NOT_FOUND, error: error.into(), hint: None }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, error: error.into(), hint: None }
    }

    pub(super) fn too_large(limit: usize) -> Refusal {
        let error = format!("the request has more than {limit} bytes, which is the most that is taken here");
        Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, error, hint: None }
    }

    pub(super) fn method() -> Refusal {
        let error = "there is something here, but not for this method";
        Refusal { status: StatusCode::METHOD_NOT_ALLOWED, error: error.to_owned(), hint: None }
    }

    /// Of a body that could not be read.
    pub(super) fn of_body(error: &BytesRejection, limit: usize) -> Refusal {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Refusal::too_large(limit);
        }
        Refusal::bad_request(error.body_text())
    }

    pub(super) fn unavailable(error: impl Into<String>) -> Refusal {
        Refusal { status: StatusCode::SERVICE_UNAVAILABLE, error: error.into(), hint: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(Body { error: &self.error, hint: self.hint })).into_response()
    }
}

impl From<PathRejection> for Refusal {
    fn from(error: PathRejection) -> Refusal {
        Refusal::bad_request(error.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(error: QueryRejection) -> Refusal {
        Refusal::bad_request(error.body_text())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        let status = match refused {
            Refused::Host | Refused::Origin | Refused::Access { .. } => StatusCode::FORBIDDEN,
            Refused::TokenMissing | Refused::TokenWrong => StatusCode::UNAUTHORIZED,
        };
        Refusal { status, error: refused.to_string(), hint: None }
    }
}

impl From<GroupError> for Refusal {
    fn from(error: GroupError) -> Refusal {
        Refusal::unavailable(error.to_string())
    }
}

impl From<NoPipelines> for Refusal {
    fn from(error: NoPipelines) -> Refusal {
        Refusal::unavailable(error.to_string())
    }
}

impl From<DeployError> for Refusal {
    fn from(error: DeployError) -> Refusal {
        let (status, hint) = match &error {
            DeployError::Manifest(_) | DeployError::Topology(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
            DeployError::Compile(CompileError::Refused(_)) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton plugin inspect FILE` shows what a component imports and exports"),
            ),
            DeployError::Compile(CompileError::Panicked) => (StatusCode::INTERNAL_SERVER_ERROR, None),
            DeployError::Compile(
                CompileError::Busy { .. }
                | CompileError::TimedOut { .. }
                | CompileError::NoThread(_)
                | CompileError::Stopping,
            ) => (StatusCode::SERVICE_UNAVAILABLE, None),
            DeployError::Start { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton plugin inspect FILE` shows what a plugin can be configured with"),
            ),
            DeployError::UnknownPlugin { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton deploy DIR` builds and pushes plugins by itself"),
            ),
            DeployError::NoSourceTopic(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Some("`pelton topic create NAME` creates it"))
            }
            DeployError::OutputTopic { error: EnsureTopicError::Refused(_), .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("name another topic in the sink, or create this one yourself"),
            ),
            DeployError::OutputTopic { error: EnsureTopicError::Failed(_), .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, None)
            }
            DeployError::TooMany(_) => (StatusCode::CONFLICT, None),
            DeployError::UnknownPipeline(_) => {
                (StatusCode::NOT_FOUND, Some("`pelton pipeline list` shows what is deployed"))
            }
            DeployError::Log(_) | DeployError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        Refusal { status, error: error.to_string(), hint }
    }
}
