//! The contexts of a handler: one of the connection, and one of the request.

use std::net::SocketAddr;
use std::sync::Arc;

use pelton_commitlog::Slice;
use pelton_wire::header::ResponseHeader;
use pelton_wire::message::Message;
use pelton_wire::{ApiKey, EncodeError, Writer};

use super::reply::{Answer, Close, Reply, RequestError, Started};
use super::timer::ConnectionTimer;
use crate::access::Principal;
use crate::txn::origin::RequestOrigin;

/// The context of a connection.
#[derive(Debug)]
pub(crate) struct ConnectionContext {
    /// The address of the client.
    pub(crate) peer: SocketAddr,
    /// Higher than the number of every connection accepted before.
    pub(crate) number: u64,
    /// Who the client is.
    pub(crate) principal: Principal,
    pub(crate) timer: ConnectionTimer,
}

/// The context of a request: its header, and its connection.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) connection: Arc<ConnectionContext>,
    pub(crate) api_key: ApiKey,
    /// Version of the request; the response has the same.
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// The `client.id`.
    pub(crate) client_id: Option<String>,
    /// Bytes of the request.
    pub(crate) request_bytes: usize,
}

impl RequestContext {
    /// The connection and the correlation id of the request.
    pub(crate) fn origin(&self) -> RequestOrigin {
        RequestOrigin { connection: self.connection.number, correlation_id: self.correlation_id }
    }

    /// An answer that may overlap with later requests.
    pub(crate) fn later<R, A>(&self, future: impl Future<Output = A> + Send + 'static) -> Reply<R>
    where
        R: Message + 'static,
        A: Into<Answer<R>>,
    {
        let response = self.response();
        Reply::Later(Box::pin(async move { Ok(response.encode(future.await.into())?) }))
    }

    /// An answer that may overlap with later requests, unless the connection is closed instead.
    pub(crate) fn later_or_close<R>(
        &self,
        future: impl Future<Output = Result<R, Close>> + Send + 'static,
    ) -> Reply<R>
    where
        R: Message + 'static,
    {
        let response = self.response();
        Reply::Later(Box::pin(async move { Ok(response.encode(future.await?.into())?) }))
    }

    /// An answer that the connection's next request waits for.
    pub(crate) fn in_order<R, A>(&self, future: impl Future<Output = A> + Send + 'static) -> Reply<R>
    where
        R: Message + 'static,
        A: Into<Answer<R>>,
    {
        let response = self.response();
        Reply::InOrder(Box::pin(async move { Ok(response.encode(future.await.into())?) }))
    }

    /// A reply that has to wait before it runs in order; the connection's next request waits too.
    pub(crate) fn waits<R: Message>(
        &self,
        future: impl Future<Output = Reply<R>> + Send + 'static,
    ) -> Reply<R> {
        let response = self.response();
        Reply::Waits(Box::pin(async move { response.start(future.await) }))
    }

    pub(super) fn response(&self) -> Response {
        Response { api_key: self.api_key, version: self.version, correlation_id: self.correlation_id }
    }
}

/// The parts of a request's header that its response's frame needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Response {
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
}

impl Response {
    pub(super) fn start<R: Message>(self, reply: Reply<R>) -> Result<Started, RequestError> {
        Ok(match reply {
            Reply::Ready(answer) => Started::Ready(self.encode(answer)?),
            Reply::Later(future) => Started::Later(future),
            Reply::InOrder(future) => Started::InOrder(future),
            Reply::Waits(future) => Started::Waits(future),
            Reply::Silent => Started::Silent,
            Reply::Close(close) => return Err(close.into()),
        })
    }

    /// Encodes the frame; records stay slices of memory or files.
    fn encode<R: Message>(self, answer: Answer<R>) -> Result<Vec<Slice>, EncodeError> {
        let Response { api_key, version, correlation_id } = self;
        let mut writer = Writer::framed();
        ResponseHeader { correlation_id }.encode(&mut writer, api_key, version);
        answer.response.encode(&mut writer, version)?;
        let mut externals = answer.externals;
        let mut slices = Vec::new();
        for piece in writer.finish()? {
            match piece {
                pelton_wire::Piece::Bytes(bytes) => slices.push(Slice::Memory(bytes)),
                pelton_wire::Piece::External { id, .. } => {
                    let parts = externals.get_mut(id as usize).map(std::mem::take);
                    slices.extend(parts.expect("`Externals::add` gave this id and kept the slices under it"));
                }
            }
        }
        Ok(slices)
    }
}
