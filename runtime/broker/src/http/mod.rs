//! The HTTP side: health, metrics, and pipelines. JSON; reads are open to who may reach the port, changes need a token.

mod access;
mod metrics;
mod pipelines;
mod reply;
mod token;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use self::access::{Access, Claims, Refused};
use self::reply::Refusal;
pub use self::token::TokenError;
pub(crate) use self::token::{TOKEN_FILE, load_or_create};
use crate::broker::Broker;
use crate::processor::{COMPONENT_BYTES_MAX, Supervisor};

/// The largest request that is not a component: a manifest has at most 256 KiB.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What all requests share.
pub(crate) struct HttpState {
    broker: Arc<Broker>,
    access: Access,
}

impl HttpState {
    pub(crate) fn new(
        broker: Arc<Broker>,
        listen: SocketAddr,
        names: Vec<String>,
        token: String,
    ) -> Arc<HttpState> {
        Arc::new(HttpState { broker, access: Access::new(listen, names, token) })
    }

    /// Pipelines, if this broker runs any.
    fn supervisor(&self) -> Result<&Arc<Supervisor>, Refusal> {
        let supervisor = self.broker.supervisor();
        supervisor.ok_or_else(|| {
            Refusal::unavailable("pipelines are not ready: the server is starting or stopping")
        })
    }
}

/// Serves until `stopping` is done, then lets what is under way end.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    state: Arc<HttpState>,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let served = axum::serve(listener, router(state)).with_graceful_shutdown(stopping).await;
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP port is closed");
    }
}

fn router(state: Arc<HttpState>) -> Router {
    let components = Router::new()
        .route("/v1/plugins", get(pipelines::plugins).post(pipelines::push))
        .layer(DefaultBodyLimit::max(COMPONENT_BYTES_MAX));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(views::ready))
        .route("/metrics", get(metrics::render))
        .route("/v1/topics", get(views::topics))
        .route("/v1/groups", get(views::groups))
        .route("/v1/pipelines", get(pipelines::pipelines).post(pipelines::deploy))
        .route("/v1/pipelines/{name}", get(pipelines::pipeline).delete(pipelines::delete))
        .route("/v1/pipelines/{name}/pause", post(pipelines::pause))
        .route("/v1/pipelines/{name}/resume", post(pipelines::resume))
        .route("/v1/pipelines/{name}/logs", get(pipelines::logs))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(components)
        .fallback(|| async {
            Refusal::not_found("there is nothing here; /v1/pipelines, /v1/topics, /metrics are")
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&state), check))
        .with_state(state)
}

async fn check(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    match verdict(&state.access, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => Refusal::from(refused).into_response(),
    }
}

fn verdict(access: &Access, request: &Request) -> Result<(), Refused> {
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    access.check(Claims {
        host: text(header::HOST),
        origin: text(header::ORIGIN),
        authorization: text(header::AUTHORIZATION),
        changes: !matches!(*request.method(), Method::GET | Method::HEAD),
    })
}
