//! What all connections share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::limits::ConnectionLimits;
use super::request_memory::RequestMemory;
use super::vitals::Patience;
use crate::api::parts::Parts;
use crate::config::Config;
use crate::metrics::Metrics;

/// The part of the broker that every connection uses.
pub(crate) struct Server {
    pub(crate) parts: Parts,
    pub(crate) limits: Arc<ConnectionLimits>,
    pub(crate) request_memory: Arc<RequestMemory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) settings: ConnectionSettings,
    pub(crate) stopping: CancellationToken,
}

/// The limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionSettings {
    pub(super) patience: Patience,
    /// Requests that may wait for their response.
    pub(super) pipelined_max: usize,
    pub(super) request_max_bytes: u32,
    /// Bytes of finished responses that wait for the client to take them.
    pub(super) responses_max_bytes: u32,
    /// How long what is under way may take when the broker stops.
    pub(super) drain: Duration,
}

impl ConnectionSettings {
    pub(crate) fn of(config: &Config) -> ConnectionSettings {
        ConnectionSettings {
            patience: Patience::of(config),
            pipelined_max: config.max_pipelined_requests as usize,
            request_max_bytes: config.socket_request_max_bytes,
            responses_max_bytes: config.max_response_bytes,
            drain: Duration::from_millis(u64::try_from(config.shutdown_timeout_ms).unwrap_or(0)),
        }
    }
}
