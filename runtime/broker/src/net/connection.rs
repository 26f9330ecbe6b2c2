//! One client: a loop that reads requests and starts them in order, and a loop that writes their responses in the same
//! order. Both run in one task, so that a request costs no hop between threads.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use pelton_commitlog::Slice;
use pelton_wire::EncodeError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frame::{Frame, FrameReader, ReadError};
use super::request_memory::{Share, decode_limit};
use super::send::send;
use super::server::Server;
use super::transport::Transport;
use super::vitals::{Expired, Vitals};
use crate::api::context::ConnectionContext;
use crate::api::reply::{Encoded, Later, RequestError, Started};
use crate::api::{self, Call};

/// Responses that are ready together leave in one system call up to this many bytes.
const COALESCE_BYTES: u64 = 64 * 1024;

/// How long responses may still be written after a client has closed its sending side.
const HALF_CLOSED_GRACE: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("the client has closed it")]
    ByClient,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{0}")]
    Request(RequestError),
    #[error("the response cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("the connection broke: {0}")]
    Write(std::io::Error),
    #[error("{0}")]
    Expired(#[from] Expired),
    #[error("the broker is stopping")]
    Stopping,
}

impl From<RequestError> for Closed {
    fn from(error: RequestError) -> Closed {
        match error {
            RequestError::Encode(error) => Closed::Encode(error),
            error @ (RequestError::Decode(_) | RequestError::Refused(..)) => Closed::Request(error),
        }
    }
}

/// One response in the order of the connection's responses.
struct Slot {
    response: Pending,
    held: Held,
}

/// Released when the response has been sent.
struct Held {
    /// Memory of the request and of what it was decoded to.
    _request: Share,
    /// Permit of `pelton.connection.response.max.bytes`, for a finished response.
    _response: Option<OwnedSemaphorePermit>,
    /// When a Produce request had arrived whole.
    produce_since: Option<Instant>,
}

enum Pending {
    Ready(Vec<Slice>),
    Later(Later),
}

impl Slot {
    async fn wait(self) -> Result<(Vec<Slice>, Held), RequestError> {
        match self.response {
            Pending::Ready(slices) => Ok((slices, self.held)),
            Pending::Later(future) => Ok((future.await?, self.held)),
        }
    }

    /// Polls the response once; whether it is ready.
    async fn poll(&mut self) -> Result<bool, RequestError> {
        if let Pending::Later(future) = &mut self.response {
            let polled: Poll<Encoded> =
                std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
            match polled {
                Poll::Ready(slices) => self.response = Pending::Ready(slices?),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }
}

pub(crate) struct Connection {
    pub(crate) server: Arc<Server>,
    pub(crate) transport: Transport,
    pub(crate) context: Arc<ConnectionContext>,
}

impl Connection {
    /// Serves the connection until it ends, and returns why.
    pub(crate) async fn serve(self) -> Closed {
        let vitals = Vitals::new();
        let (slots, queue) = mpsc::channel(self.server.settings.pipelined_max);
        tokio::select! {
            closed = self.exchange(slots, queue, &vitals) => closed,
            expired = vitals.expired(self.server.settings.patience) => expired.into(),
        }
    }

    /// Reads requests until the client or the broker stops, then sends the outstanding responses.
    async fn exchange(
        &self,
        slots: mpsc::Sender<Slot>,
        queue: mpsc::Receiver<Slot>,
        vitals: &Vitals,
    ) -> Closed {
        let mut writing = std::pin::pin!(self.write(queue, vitals));
        let reading = std::pin::pin!(self.read(slots, vitals));
        let closed = tokio::select! {
            biased;
            closed = reading => closed,
            // The writer ends before the reader only if it fails.
            Err(closed) = &mut writing => return closed,
        };
        let grace = match closed {
            Closed::Stopping => self.server.settings.drain,
            _ => HALF_CLOSED_GRACE,
        };
        match tokio::time::timeout(grace, writing).await {
            Ok(Err(failed)) => failed,
            Ok(Ok(())) | Err(_) => closed,
        }
    }

    async fn read(&self, slots: mpsc::Sender<Slot>, vitals: &Vitals) -> Closed {
        let Server { settings, request_memory, .. } = &*self.server;
        let max_frame = settings.request_max_bytes;
        let mut frames = FrameReader::new(&self.transport, vitals, Arc::clone(request_memory), max_frame);
        let mut stopping = std::pin::pin!(self.server.stopping.cancelled());
        let max_responses = settings.responses_max_bytes;
        let responses = Arc::new(Semaphore::new(max_responses as usize));
        loop {
            let frame = tokio::select! {
                biased;
                frame = frames.next() => frame,
                () = &mut stopping => return Closed::Stopping,
            };
            let Frame { bytes: frame, mut share } = match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return Closed::ByClient,
                Err(error) => return error.into(),
            };
            let produce_since = api::is_produce(&frame).then(Instant::now);
            let request_bytes = frame.len();
            let limit = decode_limit(request_bytes);
            let mut started = match api::start(&self.server.parts, &self.context, frame, limit) {
                Ok(Call { started, decoded }) => {
                    share.settle(request_bytes.saturating_add(decoded));
                    Ok(started)
                }
                Err(error) => Err(error),
            };
            while let Ok(Started::Waits(future)) = started {
                started = tokio::select! {
                    biased;
                    started = future => started,
                    () = &mut stopping => return Closed::Stopping,
                };
            }
            let response = match started {
                Ok(Started::Ready(slices)) => Pending::Ready(slices),
                Ok(Started::Later(future)) => Pending::Later(future),
                Ok(Started::InOrder(future)) => match future.await {
                    Ok(slices) => Pending::Ready(slices),
                    Err(error) => return error.into(),
                },
                Err(error) => return error.into(),
                Ok(Started::Silent | Started::Waits(_)) => {
                    vitals.request_done();
                    continue;
                }
            };
            let _response = match &response {
                Pending::Ready(slices) => room(&responses, max_responses, slices).await,
                // Its bytes exist only once it is the next response to send.
                Pending::Later(_) => None,
            };
            let held = Held { _request: share, _response, produce_since };
            if slots.send(Slot { response, held }).await.is_err() {
                // The writer has ended and reports the reason itself.
                return Closed::ByClient;
            }
        }
    }

    async fn write(&self, mut queue: mpsc::Receiver<Slot>, vitals: &Vitals) -> Result<(), Closed> {
        let mut carried: Option<Slot> = None;
        loop {
            let slot = match carried.take() {
                Some(slot) => slot,
                None => match queue.recv().await {
                    Some(slot) => slot,
                    None => return Ok(()),
                },
            };
            let (mut slices, held) = slot.wait().await?;
            let mut all_held = vec![held];
            while slices.iter().map(Slice::len).sum::<u64>() < COALESCE_BYTES {
                let Ok(mut next) = queue.try_recv() else { break };
                if !next.poll().await? {
                    carried = Some(next);
                    break;
                }
                let (more, held) = next.wait().await?;
                slices.extend(more);
                all_held.push(held);
            }
            send(&self.transport, slices, vitals).await.map_err(Closed::Write)?;
            for held in all_held {
                vitals.request_done();
                if let Some(since) = held.produce_since {
                    self.server.metrics.produce.observe(since.elapsed());
                }
            }
        }
    }
}

/// Waits until the finished responses of this connection leave room for one more; a larger one waits for all of the
/// room.
async fn room(responses: &Arc<Semaphore>, max: u32, slices: &[Slice]) -> Option<OwnedSemaphorePermit> {
    let bytes: u64 = slices.iter().map(Slice::len).sum();
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(max);
    // Never closed.
    Arc::clone(responses).acquire_many_owned(bytes).await.ok()
}
