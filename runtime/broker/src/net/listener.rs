//! Accepts connections, within the limits, until the broker stops.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use super::connection::{Closed, Connection};
use super::frame::ReadError;
use super::server::Server;
use super::transport::Transport;
use crate::access::Principal;
use crate::api::context::ConnectionContext;
use crate::api::timer::ConnectionTimer;
use crate::config::HostPort;

/// Pause after a failed `accept`, for example without free file descriptors: long enough not to spin, short enough for
/// clients not to notice.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Opens every address that the name stands for (`localhost` is two), all on one port.
///
/// # Errors
/// The name stands for nothing, or none of its addresses can be opened.
pub(crate) async fn bind(listen: &HostPort) -> io::Result<Vec<TcpListener>> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((listen.host.as_str(), listen.port)).await?.collect();
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for mut address in addresses {
        if let Some(first) = listeners.first() {
            address.set_port(first.local_addr()?.port());
        }
        match TcpListener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                tracing::debug!(%address, %error, "cannot listen on one address of the host name");
                refused = error;
            }
        }
    }
    if listeners.is_empty() { Err(refused) } else { Ok(listeners) }
}

/// Serves connections until the broker stops, then until the last of them has ended or the drain time is over.
pub(crate) async fn serve(server: Arc<Server>, listener: TcpListener) {
    let mut stopping = std::pin::pin!(server.stopping.cancelled());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&server, stream, peer, &mut connections),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
            Some(ended) = connections.join_next() => report(ended),
            () = &mut stopping => break,
        }
    }
    drop(listener);
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    // Each connection drains for at most half of this; the margin is for its last write.
    if tokio::time::timeout(server.settings.drain * 2, drain).await.is_err() {
        connections.shutdown().await;
    }
}

fn admit(
    server: &Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    connections: &mut JoinSet<(SocketAddr, Closed)>,
) {
    let admitted = match server.limits.admit(peer.ip()) {
        Ok(admitted) => admitted,
        Err(refused) => {
            tracing::debug!(%peer, %refused, "connection refused");
            return;
        }
    };
    // With Nagle's algorithm a small response would wait 40 ms for the previous one's TCP acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "connection lost before its first request");
        return;
    }
    let context = Arc::new(ConnectionContext {
        peer,
        number: admitted.number(),
        principal: Principal::Anonymous,
        timer: ConnectionTimer::default(),
    });
    let connection = Connection { server: Arc::clone(server), transport: Transport::Plain(stream), context };
    connections.spawn(async move {
        let closed = connection.serve().await;
        drop(admitted);
        (peer, closed)
    });
}

/// Logs why a connection ended, at a level that fits the reason. A panic of a handler ends its connection and not the
/// broker.
fn report(ended: Result<(SocketAddr, Closed), JoinError>) {
    match ended {
        Ok((peer, Closed::ByClient | Closed::Stopping)) => tracing::debug!(%peer, "connection closed"),
        Ok((peer, closed @ (Closed::Write(_) | Closed::Expired(_) | Closed::Read(ReadError::Io(_))))) => {
            tracing::debug!(%peer, why = %closed, "connection closed");
        }
        Ok((peer, closed @ Closed::Encode(_))) => tracing::error!(%peer, why = %closed, "connection closed"),
        Ok((peer, closed @ (Closed::Read(_) | Closed::Request(_)))) if may_log() => {
            tracing::info!(%peer, why = %closed, "connection closed");
        }
        Ok((peer, closed)) => tracing::debug!(%peer, why = %closed, "connection closed"),
        Err(error) if error.is_panic() => {
            tracing::error!(%error, "a handler panicked; its connection was closed");
        }
        Err(_) => tracing::debug!("connection dropped at the end of the drain time"),
    }
}

/// Whether one more line about a client's mistake may be logged this second: a misbehaving client must not fill the
/// disk with log lines.
fn may_log() -> bool {
    const LINES_PER_SECOND: u32 = 10;
    static SECOND: Mutex<Option<(Instant, u32)>> = Mutex::new(None);
    let mut second = SECOND.lock();
    match &mut *second {
        Some((began, lines)) if began.elapsed() < Duration::from_secs(1) => {
            *lines += 1;
            *lines <= LINES_PER_SECOND
        }
        _ => {
            *second = Some((Instant::now(), 1));
            true
        }
    }
}
