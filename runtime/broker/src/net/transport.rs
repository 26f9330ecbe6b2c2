//! What the bytes of a connection go over. Reading and writing go by readiness, so that one task can do both at once.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BufMut;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// See the module.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The socket as it is.
    Plain(TcpStream),
}

impl Transport {
    /// Whether a range of a file can go out without passing through this process.
    pub(super) fn can_sendfile(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
        }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.readable().await,
        }
    }

    /// Waits until something can be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Transport::Plain(stream) => stream.writable().await,
        }
    }

    /// Reads what is there; `WouldBlock` if that is nothing.
    pub(super) fn try_read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes what it can. `more` says that something follows, so that a header does not leave as a packet of its own.
    pub(super) fn try_write(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        let flags = if more { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        stream.try_io(Interest::WRITABLE, || {
            Ok(rustix::net::sendmsg(stream.as_fd(), slices, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    /// Sends from a file what it can. Only where [`Transport::can_sendfile`].
    pub(super) fn try_sendfile(&self, file: BorrowedFd<'_>, position: u64, len: usize) -> io::Result<usize> {
        let Transport::Plain(stream) = self;
        stream.try_io(Interest::WRITABLE, || {
            let mut from = position;
            Ok(rustix::fs::sendfile(stream.as_fd(), file, Some(&mut from), len)?)
        })
    }
}
