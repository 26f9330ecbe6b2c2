//! The HTTP side: health, metrics, and pipelines. JSON; changes need a token, reads only if the operator says so.

mod access;
mod kept;
mod listener;
mod metrics;
mod pipelines;
mod reply;
mod token;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pelton_commitlog::LogDir;
use tokio_util::sync::CancellationToken;

use self::access::{Access, Claims, Kind, Refused};
use self::kept::Kept;
use self::listener::Limited;
use self::reply::Refusal;
pub(crate) use self::token::{TOKEN_FILE, TokenError, load_or_create};
use crate::api::fetch::FetchSessions;
use crate::config::Config;
use crate::group::service::{GroupOffsets, Groups};
use crate::metrics::Metrics;
use crate::net::limits::ConnectionLimits;
use crate::net::request_memory::RequestMemory;
use crate::processor::Supervisor;
use crate::topics::Topics;

/// Where components go.
const PLUGINS: &str = "/v1/plugins";
/// What probes ask, without a token.
const HEALTH: &str = "/healthz";
const READY: &str = "/readyz";
/// How long a stop waits for requests that are under way.
const DRAIN: Duration = Duration::from_secs(3);

/// What HTTP shows and changes.
pub(crate) struct HttpParts {
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Groups,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<ConnectionLimits>,
    pub(crate) request_memory: Arc<RequestMemory>,
    pub(crate) fetch_sessions: Arc<FetchSessions>,
    /// `None` where nothing runs plugins.
    pub(crate) supervisor: Option<Arc<Supervisor>>,
}

/// How the port is served.
#[derive(Clone, Copy)]
struct HttpLimits {
    connections: usize,
    silence: Duration,
    /// Largest body of a request that is no component.
    body_bytes: usize,
    component_bytes: usize,
}

impl HttpLimits {
    fn of(config: &Config) -> HttpLimits {
        HttpLimits {
            connections: config.http_max_connections as usize,
            silence: Duration::from_millis(u64::try_from(config.http_max_idle_ms).unwrap_or(u64::MAX)),
            body_bytes: config.http_body_max_bytes as usize,
            component_bytes: config.plugin_max_bytes as usize,
        }
    }
}

/// What all requests share.
pub(crate) struct HttpState {
    parts: HttpParts,
    access: Access,
    limits: HttpLimits,
    metrics_page: Kept<axum::body::Bytes>,
    group_offsets: Kept<Arc<[GroupOffsets]>>,
}

impl HttpState {
    pub(crate) fn new(
        parts: HttpParts,
        config: &Config,
        listen: SocketAddr,
        names: Vec<String>,
        token: String,
    ) -> Arc<HttpState> {
        Arc::new(HttpState {
            parts,
            access: Access::new(listen, names, token, config.http_reads_need_token),
            limits: HttpLimits::of(config),
            metrics_page: Kept::new(metrics::PAGE_KEPT),
            group_offsets: Kept::new(metrics::OFFSETS_KEPT),
        })
    }

    /// Pipelines, if this broker runs any.
    fn supervisor(&self) -> Result<&Arc<Supervisor>, Refusal> {
        let supervisor = self.parts.supervisor.as_ref();
        supervisor.ok_or_else(|| Refusal::unavailable("this server runs no pipelines"))
    }
}

/// Serves until `stopping` is done, then lets what is under way end, but does not wait for clients that do not.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    state: Arc<HttpState>,
    stopping: CancellationToken,
) {
    let listener = Limited::new(listener, state.limits.connections, state.limits.silence);
    let stop = stopping.clone().cancelled_owned();
    let served = axum::serve(listener, router(state)).with_graceful_shutdown(stop);
    let too_long = async {
        stopping.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::error!(%error, "the HTTP port is closed");
            }
        }
        () = too_long => tracing::info!("HTTP clients that do not finish are cut off"),
    }
}

fn router(state: Arc<HttpState>) -> Router {
    let components = Router::new()
        .route(PLUGINS, get(pipelines::plugins).post(pipelines::push))
        .layer(DefaultBodyLimit::max(state.limits.component_bytes));
    Router::new()
        .route(HEALTH, get(|| async { "ok\n" }))
        .route(READY, get(views::ready))
        .route("/metrics", get(metrics::render))
        .route("/v1/topics", get(views::topics))
        .route("/v1/topics/{name}", get(views::topic))
        .route("/v1/groups", get(views::groups))
        .route("/v1/groups/{name}", get(views::group))
        .route("/v1/pipelines", get(pipelines::pipelines).post(pipelines::deploy))
        .route("/v1/pipelines/{name}", get(pipelines::pipeline).delete(pipelines::delete))
        .route("/v1/pipelines/{name}/pause", post(pipelines::pause))
        .route("/v1/pipelines/{name}/resume", post(pipelines::resume))
        .route("/v1/pipelines/{name}/logs", get(pipelines::logs))
        .layer(DefaultBodyLimit::max(state.limits.body_bytes))
        .merge(components)
        .fallback(|| async {
            Refusal::not_found("there is nothing here; /v1/pipelines, /v1/topics, /metrics are")
        })
        .method_not_allowed_fallback(|| async { Refusal::method() })
        .layer(middleware::from_fn_with_state(Arc::clone(&state), check))
        .with_state(state)
}

async fn check(State(state): State<Arc<HttpState>>, request: Request, next: Next) -> Response {
    if let Err(refused) = verdict(&state.access, &request) {
        return Refusal::from(refused).into_response();
    }
    // Said at once, not after so many bytes: a client that waits would wait for ever.
    let HttpLimits { component_bytes, body_bytes, .. } = state.limits;
    let limit = if request.uri().path() == PLUGINS { component_bytes } else { body_bytes };
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Refusal::too_large(limit).into_response();
    }
    next.run(request).await
}

fn verdict(access: &Access, request: &Request) -> Result<(), Refused> {
    // Of two of them, something between a browser and us could have meant the other one.
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Refused::Host);
    }
    let text = |name: header::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    access.check(Claims {
        host: text(header::HOST),
        origin: text(header::ORIGIN),
        authorization: text(header::AUTHORIZATION),
        kind: match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, HEALTH | READY) => Kind::Probe,
            (&Method::GET | &Method::HEAD, _) => Kind::Read,
            _ => Kind::Change,
        },
    })
}
