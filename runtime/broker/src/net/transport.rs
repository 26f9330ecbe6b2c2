//! The transport of a connection. Reads and writes go by readiness, so that one task can do both.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BufMut;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The transport of a connection.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The socket as it is.
    Plain(TcpStream),
}

impl Transport {
    /// Whether `sendfile` can send a range of a file to the client.
    pub(super) fn can_sendfile(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
        }
    }

    /// Waits until bytes can be read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.readable().await,
        }
    }

    /// Waits until bytes can be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.writable().await,
        }
    }

    /// Reads the bytes that have arrived; `WouldBlock` if none have.
    pub(super) fn try_read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes as many bytes as the socket takes. With `more` the kernel waits for the next bytes before it sends a
    /// short packet.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        let flags = if more { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        stream.try_io(Interest::WRITABLE, || {
            Ok(rustix::net::sendmsg(stream.as_fd(), slices, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    /// Sends as many bytes of a file as the socket takes. Only if [`Transport::can_sendfile`].
    pub(super) fn try_sendfile(&self, file: BorrowedFd<'_>, position: u64, len: usize) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        stream.try_io(Interest::WRITABLE, || {
            let mut from = position;
            Ok(rustix::fs::sendfile(stream.as_fd(), file, Some(&mut from), len)?)
        })
    }
}
