//! Connections: a name is looked up once, each address is asked about, and the connection is made to the address that was.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use pelton_streams::http::{HttpError, HttpSpec};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::resolve::Resolver;

/// Addresses of a host that are tried.
const MAX_ADDRESSES: usize = 8;

/// Why there is no connection, so that nothing was sent.
#[derive(Debug)]
pub(crate) struct ConnectError(pub(crate) HttpError);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConnectError {}

fn not_sent(text: String) -> ConnectError {
    ConnectError(HttpError::NotSent(text))
}

/// Makes connections for one node.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) spec: Arc<HttpSpec>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) resolver: Resolver,
    /// For the whole of it: look-up, connection, handshake.
    pub(crate) timeout: Duration,
}

/// A connection, encrypted or not.
pub(crate) enum Link {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let timeout = connector.timeout;
            let until = Instant::now() + timeout;
            let made = tokio::time::timeout_at(until, connector.connect(&uri, until)).await;
            made.unwrap_or_else(|_| {
                let host = uri.host().unwrap_or_default();
                Err(not_sent(format!("no connection to {host} within {} ms", timeout.as_millis())))
            })
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri, until: Instant) -> Result<TokioIo<Link>, ConnectError> {
        let host = uri.host().unwrap_or_default();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = self.addresses(is_tls, host, port).await?;
        let stream = first_of(host, &addresses, until).await?;
        // Whole requests are written at once.
        stream.set_nodelay(true).map_err(|error| not_sent(format!("connect to {host}: {error}")))?;
        if !is_tls {
            return Ok(TokioIo::new(Link::Plain(stream)));
        }
        let bare = bare(host).to_owned();
        let name =
            ServerName::try_from(bare).map_err(|_| not_sent(format!("`{host}` is no name of a server")))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        let stream =
            stream.map_err(|error| not_sent(format!("the TLS handshake with {host} failed: {error}")))?;
        Ok(TokioIo::new(Link::Tls(Box::new(stream))))
    }

    /// The addresses of a host to which a connection may be made, at least one.
    async fn addresses(&self, is_tls: bool, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let grants = self.spec.grants_of(is_tls, host, Some(port)).map_err(ConnectError)?;
        let found: Vec<SocketAddr> = match bare(host).parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => {
                let found = self.resolver.resolve(host, port).await;
                found.map_err(|error| not_sent(format!("`{host}` cannot be looked up: {error}")))?
            }
        };
        let is_admitted = |address: &SocketAddr| grants.iter().any(|grant| grant.admits(address.ip()));
        let (admitted, refused): (Vec<SocketAddr>, Vec<SocketAddr>) =
            found.into_iter().partition(is_admitted);
        match (admitted.is_empty(), refused.first()) {
            (true, None) => Err(not_sent(format!("`{host}` has no address"))),
            (true, Some(refused)) => {
                let address = refused.ip();
                // A name may have another one the next time.
                Err(not_sent(format!(
                    "`{host}` is at {address}, which is no address of the public internet: name it, as \
                     allow_http = [{{ host = \"{host}:{port}\", addresses = [\"{address}\"] }}]"
                )))
            }
            (false, _) => {
                // As IPv4 what is IPv4: it was asked about as that.
                let canonical =
                    admitted.into_iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port()));
                Ok(canonical.take(MAX_ADDRESSES).collect())
            }
        }
    }
}

/// A host as it is looked up: an address of IPv6 stands in brackets in a URL.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// A connection to the first address that takes one. Each has its part of the time that is left, so that one that is silent does
/// not take that of the others.
async fn first_of(host: &str, addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, ConnectError> {
    let mut last = None;
    for (at, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let part = until.saturating_duration_since(Instant::now()) / others;
        let why = match tokio::time::timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_late) => format!("no answer within {} ms", part.as_millis()),
        };
        last = Some(format!("connect to {host} at {address}: {why}"));
    }
    Err(not_sent(last.unwrap_or_else(|| format!("`{host}` has no address"))))
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Link::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Link::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Link::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Link::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Link::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
