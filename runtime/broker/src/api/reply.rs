//! The ways in which a handler can answer.

use std::pin::Pin;

use pelton_commitlog::Slice;
use pelton_wire::{DecodeError, EncodeError, ErrorCode, Records};

/// A response that will come.
pub(crate) type Later = Pin<Box<dyn Future<Output = Encoded> + Send>>;

/// The frame of a response.
pub(crate) type Encoded = Result<Vec<Slice>, RequestError>;

/// What becomes of a request once what it has to wait for first is there.
pub(crate) type Waits = Pin<Box<dyn Future<Output = Result<Started, RequestError>> + Send>>;

/// What became of a request after its first phase.
pub(crate) enum Started {
    /// The response, whole.
    Ready(Vec<Slice>),
    /// The response will come; the next request may start.
    Later(Later),
    /// The response will come; the next request may not start before.
    InOrder(Later),
    /// What must happen in order has to wait for something; the next request may not start before.
    Waits(Waits),
    /// There is no response.
    Silent,
}

/// A request that cannot be answered within the protocol. The connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the request cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the response cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("{0}: {1}")]
    Refused(&'static str, ErrorCode),
}

/// Why a connection is closed instead of an answer, and the nearest that Kafka has a number for.
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
    /// What `Records::External { id, .. }` in the response stands for: `id` is the index here.
    pub(crate) externals: Vec<Vec<Slice>>,
}

impl<R> From<R> for Answer<R> {
    fn from(response: R) -> Self {
        Answer { response, externals: Vec::new() }
    }
}

/// How a handler answers. Handlers are called in the order of a connection's requests, and responses leave in that order
/// whatever the handlers return. Those that come later are made by the request's context (`cx.later`, `cx.in_order`, `cx.waits`).
pub(crate) enum Reply<R> {
    /// At once.
    Ready(Answer<R>),
    /// What must happen in order has happened; the rest may overlap with later requests of the connection.
    Later(Later),
    /// The connection's next request starts when this is done.
    InOrder(Later),
    /// As this says once it is there; the connection's next request starts then.
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
            // Empty, not null: some clients stumble over null. A response is bounded far below 4 GiB before it gets here.
            _ => Records::Bytes(bytes::Bytes::new()),
        }
    }

    /// The response together with what it refers to.
    pub(crate) fn answer<R>(self, response: R) -> Answer<R> {
        Answer { response, externals: self.slices }
    }
}
