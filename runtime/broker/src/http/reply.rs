//! Refusals over HTTP: a status, and JSON that says what failed and what to do.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::guard::Refused;
use crate::admin::pipelines::NoPipelines;
use crate::admin::tables::NoTables;
use crate::group::error::GroupError;
use crate::pipelines::redrive::RedriveError;
use crate::records::KeyRefused;
use pelton_pipelines::compiler::CompileError;
use pelton_pipelines::refusal::{DeployError, EnsureTopicError, ReplayError};
use pelton_pipelines::supervisor::StateAskError;
use pelton_tables::source::DefinitionError;
use pelton_tables::{AskError, CreateError, DeleteError};

/// A refused request.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    hint: Option<&'static str>,
    /// More, for a program to read.
    details: serde_json::Map<String, Value>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    #[serde(flatten)]
    details: &'a serde_json::Map<String, Value>,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>, hint: Option<&'static str>) -> Refusal {
        Refusal { status, error: error.into(), hint, details: serde_json::Map::new() }
    }

    /// With the fields of an object.
    pub(super) fn with(mut self, details: Value) -> Refusal {
        if let Value::Object(details) = details {
            self.details = details;
        }
        self
    }

    pub(super) fn not_found(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, error, None)
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, error, None)
    }

    pub(super) fn too_large(limit: usize) -> Refusal {
        let error = format!("the request has more than {limit} bytes, which is the most that is taken here");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error, None)
    }

    pub(super) fn method() -> Refusal {
        let error = "there is something here, but not for this method";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error, None)
    }

    /// Of a body that could not be read.
    pub(super) fn of_body(error: &BytesRejection, limit: usize) -> Refusal {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Refusal::too_large(limit);
        }
        Refusal::bad_request(error.body_text())
    }

    /// The draft on idempotency keys has 422 for one that was used for something else.
    pub(super) fn of_key(error: &KeyRefused) -> Refusal {
        let status = match error {
            KeyRefused::Reused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            KeyRefused::TooMany => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, error.to_string(), None)
    }

    pub(super) fn unavailable(error: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error, None)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(Body { error: &self.error, hint: self.hint, details: &self.details }))
            .into_response()
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
        Refusal::new(status, refused.to_string(), None)
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
            DeployError::StoreChanged { .. }
            | DeployError::StoreMissed { .. }
            | DeployError::StoreMoved { .. }
            | DeployError::ChangelogOfAnother { .. } => {
                (StatusCode::CONFLICT, Some("`pelton topic list --all` shows changelogs"))
            }
            DeployError::Compile(CompileError::Refused(_)) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton plugin inspect FILE` shows what a component imports and exports"),
            ),
            DeployError::Compile(CompileError::Panicked) | DeployError::Panicked => {
                (StatusCode::INTERNAL_SERVER_ERROR, None)
            }
            DeployError::Compile(
                CompileError::Busy { .. }
                | CompileError::TimedOut { .. }
                | CompileError::NoThread(_)
                | CompileError::Stopping,
            ) => (StatusCode::SERVICE_UNAVAILABLE, None),
            DeployError::NotAllowed { .. } => (StatusCode::FORBIDDEN, None),
            DeployError::Start { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton plugin inspect FILE` shows what a plugin can be configured with"),
            ),
            DeployError::UnknownPlugin { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some(
                    "`pelton plugin push DIR|FILE` does; a directory of that name beside the manifest is built and pushed by `pelton deploy`",
                ),
            ),
            DeployError::Global { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton table list` shows the tables that stand alone"),
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
            DeployError::NoRollback { .. } | DeployError::Overtaken { .. } => (
                StatusCode::CONFLICT,
                Some("`pelton pipeline history NAME` shows the revisions that are kept"),
            ),
            DeployError::TooMany(_) | DeployError::TableTaken { .. } | DeployError::Router(_) => {
                (StatusCode::CONFLICT, None)
            }
            DeployError::Limits(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
            DeployError::UnknownPipeline(_) => {
                (StatusCode::NOT_FOUND, Some("`pelton pipeline list` shows what is deployed"))
            }
            DeployError::Log(_) | DeployError::Offsets { .. } | DeployError::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, None)
            }
        };
        Refusal::new(status, error.to_string(), hint)
    }
}

impl From<NoTables> for Refusal {
    fn from(error: NoTables) -> Refusal {
        Refusal::unavailable(error.to_string())
    }
}

/// Where a table is looked for.
const TABLE_HINT: &str = "`pelton table list` shows what there is";

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Refusal {
        let (status, hint, details) = match &error {
            AskError::Unknown(_) => (StatusCode::NOT_FOUND, Some(TABLE_HINT), json!({})),
            AskError::NoPartition { .. } => (StatusCode::BAD_REQUEST, None, json!({})),
            AskError::Restoring { restored, waiting, .. } => {
                let details = json!({ "state": "restoring", "restored": restored, "waiting": waiting });
                (StatusCode::SERVICE_UNAVAILABLE, None, details)
            }
            AskError::Behind { partition, offset, wanted, .. } => {
                let details = json!({ "partition": partition, "offset": offset, "wanted": wanted });
                (StatusCode::SERVICE_UNAVAILABLE, None, details)
            }
            AskError::NoTopic { .. }
            | AskError::Failed { .. }
            | AskError::Store { .. }
            | AskError::TooManyFollowers(_)
            | AskError::Ended { .. } => (StatusCode::SERVICE_UNAVAILABLE, None, json!({})),
        };
        Refusal::new(status, error.to_string(), hint).with(details)
    }
}

impl From<StateAskError> for Refusal {
    fn from(error: StateAskError) -> Refusal {
        let (status, hint, details) = match &error {
            StateAskError::Unknown(_) => (StatusCode::NOT_FOUND, Some(TABLE_HINT), json!({})),
            StateAskError::Internal(_) => (StatusCode::BAD_REQUEST, Some(TABLE_HINT), json!({})),
            StateAskError::NotFollowed(_) => (StatusCode::BAD_REQUEST, None, json!({})),
            StateAskError::HasWindows(_) => {
                (StatusCode::BAD_REQUEST, Some("`pelton table window TABLE KEY` prints them"), json!({}))
            }
            StateAskError::NoWindows(_) => {
                (StatusCode::BAD_REQUEST, Some("`pelton table get TABLE KEY` prints a row"), json!({}))
            }
            StateAskError::WhichOffset { .. } => (StatusCode::BAD_REQUEST, None, json!({})),
            StateAskError::NotRunning { pipeline, state, .. } => {
                let details = json!({ "pipeline": pipeline, "state": state });
                let hint = Some("`pelton pipeline describe` says why, `pelton pipeline resume` starts it");
                (StatusCode::SERVICE_UNAVAILABLE, hint, details)
            }
            StateAskError::Restoring { partition, next, end, .. } => {
                let details =
                    json!({ "state": "restoring", "partition": partition, "next": next, "end": end });
                (StatusCode::SERVICE_UNAVAILABLE, None, details)
            }
            StateAskError::Behind { topic, partition, offset, wanted, .. } => {
                let details =
                    json!({ "topic": topic, "partition": partition, "offset": offset, "wanted": wanted });
                (StatusCode::SERVICE_UNAVAILABLE, None, details)
            }
            StateAskError::Store { .. } => (StatusCode::SERVICE_UNAVAILABLE, None, json!({})),
        };
        Refusal::new(status, error.to_string(), hint).with(details)
    }
}

impl From<ReplayError> for Refusal {
    fn from(error: ReplayError) -> Refusal {
        let status = match error {
            ReplayError::Deploy(error) => return Refusal::from(*error),
            ReplayError::ActsOutside { .. }
            | ReplayError::NoCopy { .. }
            | ReplayError::UnknownNode { .. }
            | ReplayError::OtherName { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ReplayError::Busy | ReplayError::TooManyShadows => StatusCode::CONFLICT,
            ReplayError::Io(_) | ReplayError::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, error.to_string(), None)
    }
}

impl From<RedriveError> for Refusal {
    fn from(error: RedriveError) -> Refusal {
        let status = match &error {
            RedriveError::NoLetters(_)
            | RedriveError::UnknownTopic(_)
            | RedriveError::UnknownPartition { .. }
            | RedriveError::WhichPartition(_) => StatusCode::UNPROCESSABLE_ENTITY,
            RedriveError::Busy(_) => StatusCode::CONFLICT,
            RedriveError::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            RedriveError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, error.to_string(), None)
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Refusal {
        let (status, hint) = match &error {
            CreateError::NoTopic(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some("`pelton topic create NAME --config cleanup.policy=compact` creates it"),
            ),
            CreateError::NotCompacted(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                Some(
                    "`pelton topic alter NAME --config cleanup.policy=compact` keeps the last record of each key",
                ),
            ),
            CreateError::Name(_) | CreateError::Internal(_) | CreateError::NoDisk => {
                (StatusCode::UNPROCESSABLE_ENTITY, None)
            }
            CreateError::Exists(_)
            | CreateError::TooMany(_)
            | CreateError::Definition(DefinitionError::Taken(_) | DefinitionError::Read(_)) => {
                (StatusCode::CONFLICT, None)
            }
            CreateError::Definition(DefinitionError::Log(_)) | CreateError::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, None)
            }
        };
        Refusal::new(status, error.to_string(), hint)
    }
}

impl From<DeleteError> for Refusal {
    fn from(error: DeleteError) -> Refusal {
        let (status, hint) = match &error {
            DeleteError::Unknown(_) => (StatusCode::NOT_FOUND, Some(TABLE_HINT)),
            DeleteError::Definition(DefinitionError::Taken(_) | DefinitionError::Read(_)) => {
                (StatusCode::CONFLICT, None)
            }
            DeleteError::Definition(DefinitionError::Log(_)) => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        Refusal::new(status, error.to_string(), hint)
    }
}
