//! FindCoordinator: which broker coordinates a group or a transactional id. There is one broker, so it answers with
//! itself or with an error.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::find_coordinator::Coordinator;
use pelton_wire::message::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::context::RequestContext;
use super::parts::CoordinatorParts;
use super::reply::Reply;

/// Kafka's numbers of what is coordinated.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// First version that asks about many keys at once (KIP-699).
const BATCHED_SINCE: i16 = 4;

pub(crate) fn handle(
    parts: &Arc<CoordinatorParts>,
    cx: &RequestContext,
    request: FindCoordinatorRequest,
) -> Reply<FindCoordinatorResponse> {
    let (parts, version) = (Arc::clone(parts), cx.version);
    cx.later(async move {
        let available = available(&parts, request.key_type).await;
        if version >= BATCHED_SINCE {
            let keys = request.coordinator_keys.into_iter();
            let coordinators = keys.map(|key| coordinator(&parts, key, &available)).collect();
            return FindCoordinatorResponse { coordinators, ..Default::default() };
        }
        let one = coordinator(&parts, request.key, &available);
        FindCoordinatorResponse {
            error_code: one.error_code,
            error_message: one.error_message,
            node_id: one.node_id,
            host: one.host,
            port: one.port,
            ..Default::default()
        }
    })
}

/// The coordinator is available once its topic exists; the first request creates the topic.
async fn available(parts: &CoordinatorParts, key_type: i8) -> Result<(), (ErrorCode, String)> {
    match key_type {
        GROUP => parts.groups.ensure_topic().await.map_err(|error| {
            tracing::warn!(%error, "cannot create the topic __consumer_offsets; groups are not available");
            (ErrorCode::COORDINATOR_NOT_AVAILABLE, error.to_string())
        }),
        TRANSACTION => {
            let ready = parts.transactions.ensure_topic().await;
            ready.map_err(|error| (ErrorCode::COORDINATOR_NOT_AVAILABLE, error.to_string()))
        }
        other => Err((
            ErrorCode::INVALID_REQUEST,
            format!("{other} is no type of coordinator: 0 group, 1 transaction"),
        )),
    }
}

/// The same host and port as in Metadata: clients compare them.
fn coordinator(
    parts: &CoordinatorParts,
    key: String,
    available: &Result<(), (ErrorCode, String)>,
) -> Coordinator {
    match available {
        Ok(()) => {
            let advertised = &parts.node.advertised;
            Coordinator {
                key,
                node_id: parts.node.id,
                host: advertised.host.clone(),
                port: advertised.port.into(),
                error_code: ErrorCode::NONE,
                error_message: None,
            }
        }
        Err((error_code, why)) => Coordinator {
            key,
            node_id: -1,
            host: String::new(),
            port: -1,
            error_code: *error_code,
            error_message: Some(why.clone()),
        },
    }
}
