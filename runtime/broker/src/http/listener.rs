//! Limits of the HTTP port: a number of connections, and an idle timeout. Without them HTTP clients could use up the
//! file descriptors that Kafka clients and segment files need.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// A listener with limits.
pub(super) struct Limited {
    listener: TcpListener,
    free: Arc<Semaphore>,
    silence: Duration,
}

impl Limited {
    /// At most `connections` at once; one on which no byte moves for `silence` is closed.
    pub(super) fn new(listener: TcpListener, connections: usize, silence: Duration) -> Limited {
        Limited { listener, free: Arc::new(Semaphore::new(connections)), silence }
    }
}

impl axum::serve::Listener for Limited {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        let permit = Arc::clone(&self.free).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        // axum's listener retries when file descriptors are used up.
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        let silent = Box::pin(tokio::time::sleep(self.silence));
        (Watched { stream, silence: self.silence, silent, _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with an idle timeout.
pub(super) struct Watched {
    stream: TcpStream,
    silence: Duration,
    silent: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Watched {
    /// Passes on the result of a read or write, and restarts the idle timeout if bytes moved.
    fn watch<T>(&mut self, cx: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.silent.as_mut().reset(Instant::now() + self.silence);
            return moved;
        }
        ready!(self.silent.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, read)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// One place, which a silent client has: another one is served when that client is cut off, and not before.
    #[tokio::test]
    async fn silent_clients_make_room() {
        const SILENCE: Duration = Duration::from_millis(200);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "here" }));
        let server = tokio::spawn(async move {
            axum::serve(Limited::new(listener, 1, SILENCE), router).await.unwrap();
        });
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET / HTT").await.unwrap();
        let begin = Instant::now();
        let mut polite = TcpStream::connect(address).await.unwrap();
        polite.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        polite.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        assert!(begin.elapsed() >= SILENCE - Duration::from_millis(50), "there was a place for both");
        let mut rest = Vec::new();
        // Closed, or reset: either is an end.
        let _ = silent.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("here"));
        server.abort();
    }
}
