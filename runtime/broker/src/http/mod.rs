//! The HTTP side: health, metrics, and pipelines. JSON; reads are open to who may reach the port, changes need a token.

mod access;
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

use self::access::{Access, Claims, Refused};
use self::listener::Limited;
use self::reply::Refusal;
pub use self::token::TokenError;
pub(crate) use self::token::{TOKEN_FILE, load_or_create};
use crate::broker::Broker;
use crate::processor::Supervisor;

/// Where components go.
const PLUGINS: &str = "/v1/plugins";
/// How long a stop waits for requests that are under way.
const DRAIN: Duration = Duration::from_secs(3);

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

    /// The largest component that is taken.
    fn body_bytes_max(&self) -> usize {
        self.broker.config.http_body_max_bytes as usize
    }

    fn component_bytes_max(&self) -> usize {
        self.broker.config.plugin_max_bytes as usize
    }

    /// Pipelines, if this broker runs any.
    fn supervisor(&self) -> Result<&Arc<Supervisor>, Refusal> {
        let supervisor = self.broker.supervisor();
        supervisor.ok_or_else(|| {
            Refusal::unavailable("pipelines are not ready: the server is starting or stopping")
        })
    }
}

/// Serves until `stopping` is done, then lets what is under way end, but does not wait for clients that do not.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    state: Arc<HttpState>,
    stopping: impl Future<Output = ()> + Send + 'static,
) {
    let (stopped, told) = tokio::sync::oneshot::channel();
    let stopping = async move {
        stopping.await;
        // Nobody listens any more if the port was closed before.
        let _ = stopped.send(());
    };
    let config = &state.broker.config;
    let silence = Duration::from_millis(u64::try_from(config.http_max_idle_ms).unwrap_or(u64::MAX));
    let listener = Limited::new(listener, config.http_max_connections as usize, silence);
    let served = axum::serve(listener, router(state)).with_graceful_shutdown(stopping);
    let too_long = async move {
        // An error means that the server has ended, and that is what is waited for then.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
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
    let component_bytes_max = state.component_bytes_max();
    let components = Router::new()
        .route(PLUGINS, get(pipelines::plugins).post(pipelines::push))
        .layer(DefaultBodyLimit::max(component_bytes_max));
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
        .layer(DefaultBodyLimit::max(state.body_bytes_max()))
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
    let limit =
        if request.uri().path() == PLUGINS { state.component_bytes_max() } else { state.body_bytes_max() };
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
        changes: !matches!(*request.method(), Method::GET | Method::HEAD),
    })
}
