//! The HTTP port: health, metrics, topics, groups, plugins, pipelines and tables as JSON. Changes need the token;
//! reads need it if `pelton.http.reads.need.token` is set.

mod guard;
mod intake;
mod kept;
mod listener;
mod metrics;
mod pipelines;
mod records;
mod reply;
mod routes;
mod shadows;
mod tables;
mod token;
mod views;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pelton_commitlog::LogDir;
use tokio_util::sync::CancellationToken;

use self::guard::Guard;
use self::kept::Kept;
use self::listener::Limited;
use self::reply::Refusal;
pub(crate) use self::token::{TOKEN_FILE, TokenError, load_or_create};
use crate::admin::Admin;
use crate::api::fetch::FetchSessions;
use crate::config::Config;
use crate::group::service::{GroupOffsets, Groups};
use crate::metrics::Metrics;
use crate::net::limits::ConnectionLimits;
use crate::net::request_memory::RequestMemory;
use crate::pipelines::kept_logs::KeptLogs;
use crate::pipelines::redrive::Redrive;
use crate::records::Records;
use pelton_pipelines::supervisor::Supervisor;
use pelton_tables::Tables;

/// How long a stop waits for requests in progress.
const DRAIN: Duration = Duration::from_secs(3);

/// The parts of the broker that HTTP handlers use.
pub(crate) struct HttpParts {
    pub(crate) groups: Groups,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<ConnectionLimits>,
    pub(crate) request_memory: Arc<RequestMemory>,
    pub(crate) fetch_sessions: Arc<FetchSessions>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) records: Records,
    pub(crate) redrive: Arc<Redrive>,
    pub(crate) logs: Arc<KeptLogs>,
}

/// The limits of the port.
#[derive(Clone, Copy)]
struct HttpLimits {
    connections: usize,
    silence: Duration,
    /// Largest body of a request other than a pushed component.
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

/// The state that all handlers share.
pub(crate) struct HttpState {
    parts: HttpParts,
    guard: Guard,
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
            guard: Guard::new(listen, names, token, config.http_reads_need_token),
            limits: HttpLimits::of(config),
            metrics_page: Kept::new(metrics::PAGE_KEPT),
            group_offsets: Kept::new(metrics::OFFSETS_KEPT),
        })
    }

    /// Pipelines, if this broker runs any.
    fn supervisor(&self) -> Result<&Arc<Supervisor>, Refusal> {
        Ok(self.parts.admin.pipelines()?)
    }

    /// Tables, if this broker keeps any.
    fn tables(&self) -> Result<&Arc<Tables>, Refusal> {
        Ok(self.parts.admin.tables()?)
    }
}

/// Serves until `stopping` is cancelled, then finishes the requests in progress, at most for [`DRAIN`].
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    state: Arc<HttpState>,
    stopping: CancellationToken,
) {
    let listener = Limited::new(listener, state.limits.connections, state.limits.silence);
    let stop = stopping.clone().cancelled_owned();
    let served = axum::serve(listener, routes::router(state)).with_graceful_shutdown(stop);
    let too_long = async {
        stopping.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = served => {
            if let Err(error) = ended {
                tracing::error!(%error, "the HTTP server failed and its port is closed");
            }
        }
        () = too_long => tracing::info!("stopping: closing HTTP connections whose requests did not finish in time"),
    }
}
