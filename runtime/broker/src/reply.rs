//! What a handler is given with a request, and the ways in which it can answer.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use pelton_wire::{ErrorCode, Records};

use crate::broker::Broker;
use crate::net::send::Piece;
use crate::txn::order::Place;

/// A boxed future, as handlers return it.
pub(crate) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who asks, and in which version.
#[derive(Clone)]
pub(crate) struct RequestContext {
    /// The broker that was asked.
    pub(crate) broker: Arc<Broker>,
    /// Version of the request; the response has the same.
    pub(crate) version: i16,
    /// What the client calls itself.
    pub(crate) client_id: Option<String>,
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
    /// Which connection it came on, and its number there.
    pub(crate) place: Place,
}

/// A response, and the records that it only refers to.
pub(crate) struct Answer<R> {
    pub(crate) response: R,
    /// What `Records::External { id, .. }` in the response stands for: `id` is the index here.
    pub(crate) externals: Vec<Vec<Piece>>,
}

impl<R> From<R> for Answer<R> {
    fn from(response: R) -> Self {
        Answer { response, externals: Vec::new() }
    }
}

/// How a handler answers. Handlers are called in the order of a connection's requests, and responses leave in that
/// order whatever the handlers return.
pub(crate) enum Reply<R> {
    /// At once.
    Ready(Answer<R>),
    /// What must happen in order has happened; the rest may overlap with later requests of the connection.
    Later(Later<Answer<R>>),
    /// As `Later`, or by closing the connection.
    LaterOrClose(Later<Result<Answer<R>, Close>>),
    /// The connection's next request starts when this is done.
    InOrder(Later<Answer<R>>),
    /// As this says once it is there; the connection's next request starts then.
    Waits(Later<Reply<R>>),
    /// Not at all (acks=0).
    Silent,
    /// By closing the connection: the protocol has no other way to say this.
    Close(Close),
}

/// Why a connection is closed instead of an answer, and the nearest that Kafka has a number for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close(pub(crate) &'static str, pub(crate) ErrorCode);

impl<R> Reply<R> {
    /// An answer at once.
    pub(crate) fn ready(response: R) -> Self {
        Reply::Ready(response.into())
    }

    /// An answer that may overlap with later requests.
    pub(crate) fn later(future: impl Future<Output = R> + Send + 'static) -> Self
    where
        R: Send + 'static,
    {
        Reply::Later(Box::pin(async move { future.await.into() }))
    }

    /// An answer that may overlap with later requests, unless the connection is closed instead.
    pub(crate) fn later_or_close(future: impl Future<Output = Result<R, Close>> + Send + 'static) -> Self
    where
        R: Send + 'static,
    {
        Reply::LaterOrClose(Box::pin(async move { future.await.map(Into::into) }))
    }

    /// An answer that the connection's next request waits for.
    pub(crate) fn in_order(future: impl Future<Output = R> + Send + 'static) -> Self
    where
        R: Send + 'static,
    {
        Reply::InOrder(Box::pin(async move { future.await.into() }))
    }
}

/// Collects the records that a response refers to.
#[derive(Default)]
pub(crate) struct Externals {
    pieces: Vec<Vec<Piece>>,
}

impl Externals {
    /// The value for the response's `records` field that stands for these pieces.
    pub(crate) fn add(&mut self, pieces: Vec<Piece>) -> Records {
        let len: u64 = pieces.iter().map(Piece::len).sum();
        match (u32::try_from(self.pieces.len()), u32::try_from(len)) {
            (Ok(id), Ok(len)) if len > 0 => {
                self.pieces.push(pieces);
                Records::External { id, len }
            }
            // Empty, not null: some clients stumble over null. A response is bounded far below 4 GiB before it gets here.
            _ => Records::Bytes(bytes::Bytes::new()),
        }
    }

    /// The response together with what it refers to.
    pub(crate) fn answer<R>(self, response: R) -> Answer<R> {
        Answer { response, externals: self.pieces }
    }
}
