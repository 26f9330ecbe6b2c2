//! The ways in which a handler can answer.

use std::pin::Pin;

use pelton_commitlog::Slice;
use pelton_wire::{DecodeError, EncodeError, ErrorCode, Records};

/// A response that will come.
pub(crate) type Later = Pin<Box<dyn Future<Output = Encoded> + Send>>;

/// The frame of a response.
pub(crate) type Encoded = Result<Vec<Slice>, RequestError>;

/// The outcome of a request that had to wait before it could run in order.
pub(crate) type Waits = Pin<Box<dyn Future<Output = Result<Started, RequestError>> + Send>>;

/// The outcome of calling a handler.
pub(crate) enum Started {
    /// The response.
    Ready(Vec<Slice>),
    /// The response will come; the next request may start.
    Later(Later),
    /// The response will come; the next request may not start before.
    InOrder(Later),
    /// The handler has to wait before its ordered part; the next request may not start before.
    Waits(Waits),
    /// There is no response.
    Silent,
}

/// A request that the protocol has no answer for. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the request cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the response cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("{0}: {1}")]
    Refused(&'static str, ErrorCode),
}

/// Why the connection is closed instead of an answer, with the nearest Kafka error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close(pub(crate) &'static str, pub(crate) ErrorCode);

impl From<Close> for RequestError {
    fn from(Close(why, code): Close) -> RequestError {
        RequestError::Refused(why, code)
    }
}

/// A response, and the records that it only refers to.
pub(crate) struct Answer<R> {
    pub(crate) response: R,
    /// The records of `Records::External { id, .. }` in the response; `id` is the index.
    pub(crate) externals: Vec<Vec<Slice>>,
}

impl<R> From<R> for Answer<R> {
    fn from(response: R) -> Self {
        Answer { response, externals: Vec::new() }
    }
}

/// How a handler answers. Handlers are called in the order of a connection's requests, and responses leave in that
/// order whatever the handlers return. Those that come later are made by the request's context (`cx.later`,
/// `cx.in_order`, `cx.waits`).
pub(crate) enum Reply<R> {
    /// At once.
    Ready(Answer<R>),
    /// The ordered part is done; the rest may overlap with later requests of the connection.
    Later(Later),
    /// The connection's next request starts when this is done.
    InOrder(Later),
    /// By the reply of this future; the connection's next request waits for it.
    Waits(Waits),
    /// Not at all (acks=0).
    Silent,
    /// By closing the connection: the protocol has no other way to say this.
    Close(Close),
}

impl<R> Reply<R> {
    /// An answer at once.
    pub(crate) fn ready(response: R) -> Self {
        Reply::Ready(response.into())
    }
}

/// Collects the records that a response refers to.
#[derive(Default)]
pub(crate) struct Externals {
    slices: Vec<Vec<Slice>>,
}

impl Externals {
    /// The value for the response's `records` field that stands for these slices.
    pub(crate) fn add(&mut self, slices: Vec<Slice>) -> Records {
        let len: u64 = slices.iter().map(Slice::len).sum();
        match (u32::try_from(self.slices.len()), u32::try_from(len)) {
            (Ok(id), Ok(len)) if len > 0 => {
                self.slices.push(slices);
                Records::External { id, len }
            }
            // Empty, not null, which some clients fail on. Responses are bounded far below 4 GiB.
            _ => Records::Bytes(bytes::Bytes::new()),
        }
    }

    /// The response together with its external records.
    pub(crate) fn answer<R>(self, response: R) -> Answer<R> {
        Answer { response, externals: self.slices }
    }
}
