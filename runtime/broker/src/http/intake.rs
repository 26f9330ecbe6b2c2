//! What has become of records that clients wrote to a topic with a partitioner of its own.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;

use super::HttpState;
use super::reply::Refusal;
use crate::admin::intake::{Routing, Ticket};
use crate::blocking::run_blocking;
use crate::pipelines::{Whereabouts, find_place};

/// How the records of a topic are routed.
#[derive(Debug, Serialize)]
pub(super) struct RoutingView {
    partitioner: String,
    router: String,
    /// Absent until the router is there.
    state: Option<&'static str>,
    failure: Option<String>,
    unrouted_bytes: u64,
    unrouted_max_bytes: u64,
}

impl From<Routing> for RoutingView {
    fn from(routing: Routing) -> RoutingView {
        let Routing { partitioner, router, state, failure, unrouted_bytes, unrouted_max_bytes } = routing;
        let state = state.map(|state| state.name());
        RoutingView { partitioner, router, state, failure, unrouted_bytes, unrouted_max_bytes }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TicketView {
    topic: String,
    /// The partition that the client chose, and the offset that it was answered.
    partition: i32,
    offset: i64,
    /// Whether consumers can see it.
    routed: bool,
    /// What is routed next of that partition.
    next: i64,
    /// Where it is. Absent until it is routed, if it is nowhere, and when that is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<PlaceView>,
    /// Why it is routed and has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_place: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct PlaceView {
    partition: i32,
    offset: i64,
}

pub(super) async fn ticket(
    State(state): State<Arc<HttpState>>,
    asked: Result<Path<(String, i32, i64)>, PathRejection>,
) -> Result<Json<TicketView>, Refusal> {
    let Path((name, partition, offset)) = asked?;
    let admin = &state.parts.admin;
    let topic = admin.topic(&name);
    let topic = topic.ok_or_else(|| Refusal::not_found(format!("there is no topic `{name}`")))?;
    if !topic.has_intake() {
        let why = format!("topic `{name}` has no `pelton.partitioner`: records are where clients put them");
        return Err(Refusal::not_found(why));
    }
    let ticket = admin.ticket(&topic, partition, offset);
    let ticket = ticket.map_err(|_| Refusal::not_found(format!("`{name}` has no partition {partition}")))?;
    let nothing =
        || Refusal::not_found(format!("nothing was written to `{name}`, partition {partition}, at {offset}"));
    let Ticket { routed, next, places } = ticket.ok_or_else(nothing)?;
    let find = move || places.and_then(|places| find_place(&places, partition, offset).ok());
    let place = run_blocking(find).await;
    let (place, no_place) = match place {
        Some(Whereabouts::At(partition, offset)) => (Some(PlaceView { partition, offset }), None),
        Some(Whereabouts::Nowhere) => (None, Some("left-out")),
        Some(Whereabouts::Forgotten) => (None, Some("forgotten")),
        None if routed => (None, Some("unknown")),
        None => (None, None),
    };
    Ok(Json(TicketView { topic: name, partition, offset, routed, next, place, no_place }))
}
