//! The client of one node.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{HeaderMap, Response};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pelton_streams::http::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpSpec};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checked::{Checked, check, check_uri};
use crate::connect::{ConnectError, Connector};
use crate::redirect;
use crate::resolve::Resolver;
use crate::secrets::NodeSecrets;

/// Bytes of the head of an answer, and of what a connection has read and nobody has taken.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Headers of an answer.
const MAX_HEADERS: usize = 200;
/// What a header of an answer takes besides its bytes.
const HEADER_BYTES: u64 = 64;
/// Connections that wait for the next request, of each host.
const IDLE_PER_HOST: usize = 8;
/// How long they wait: less than most servers do.
const IDLE: Duration = Duration::from_secs(30);
/// The longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// See [`HttpClient`].
pub(crate) struct Client {
    shared: Arc<Shared>,
    runtime: Handle,
}

struct Shared {
    spec: Arc<HttpSpec>,
    secrets: NodeSecrets,
    pool: Pool<Connector, Full<Bytes>>,
    at_once: Semaphore,
    cancelled: CancellationToken,
}

impl Client {
    pub(crate) fn new(
        spec: &HttpSpec,
        secrets: NodeSecrets,
        (tls, resolver): (Arc<ClientConfig>, Resolver),
        runtime: Handle,
    ) -> Client {
        let spec = Arc::new(spec.clone());
        let whole = Duration::from_millis(spec.limits.timeout_ms.into());
        // Before the whole time is over, so that a request that was not sent is known to be that.
        let timeout = CONNECT.min(whole / 2);
        let connector = Connector { spec: Arc::clone(&spec), tls, resolver, timeout };
        let mut builder = Pool::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(IDLE_PER_HOST);
        builder.http1_max_buf_size(MAX_HEAD_BYTES).http1_max_headers(MAX_HEADERS);
        let shared = Shared {
            at_once: Semaphore::new(spec.limits.requests as usize),
            secrets,
            pool: builder.build(connector),
            cancelled: CancellationToken::new(),
            spec,
        };
        Client { shared: Arc::new(shared), runtime }
    }
}

impl HttpClient for Client {
    fn send(&self, requests: Vec<HttpRequest>, within: Duration) -> Vec<Result<HttpResponse, HttpError>> {
        let lost =
            || Err(HttpError::UnknownOutcome("the request was lost, which is a bug of pelton".to_owned()));
        let mut answers: Vec<_> = requests.iter().map(|_| lost()).collect();
        let room = Arc::new(AtomicU64::new(self.shared.spec.limits.all_responses_bytes()));
        self.runtime.block_on(async {
            let until = Instant::now() + within;
            let mut under_way = JoinSet::new();
            for (index, request) in requests.into_iter().enumerate() {
                let (shared, room) = (Arc::clone(&self.shared), Arc::clone(&room));
                let one = async move { (index, shared.send(request, until, &room).await) };
                under_way.spawn_on(one, &self.runtime);
            }
            while let Some(done) = under_way.join_next().await {
                match done {
                    Ok((index, answer)) => answers[index] = answer,
                    // Its place says that it was lost.
                    Err(error) => tracing::error!(%error, "a request of a plugin ended in a bug"),
                }
            }
        });
        answers
    }

    fn cancel(&self) {
        self.shared.cancelled.cancel();
    }

    fn redact(&self, text: &str) -> String {
        self.shared.secrets.redact(text)
    }
}

impl Shared {
    /// Sends a request when it is its turn, which must come in time.
    async fn send(
        &self,
        request: HttpRequest,
        until: Instant,
        room: &AtomicU64,
    ) -> Result<HttpResponse, HttpError> {
        let stopping = || "the pipeline is stopping".to_owned();
        let limit_ms = self.spec.limits.timeout_ms;
        let timeout_ms = match request.timeout_ms {
            0 => limit_ms,
            asked => asked.min(limit_ms),
        };
        let checked = check(&self.spec, &self.secrets, request)?;
        let permit = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => return Err(HttpError::NotSent(stopping())),
            permit = self.at_once.acquire() => permit.map_err(|_closed| HttpError::NotSent(stopping()))?,
            () = tokio::time::sleep_until(until) => {
                return Err(HttpError::NotSent("the requests before it took all the time of the call".to_owned()));
            }
        };
        let time = Duration::from_millis(timeout_ms.into());
        let answer = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Err(HttpError::UnknownOutcome(stopping())),
            answer = tokio::time::timeout(time, self.exchange(checked, room)) => answer.unwrap_or_else(|_late| {
                Err(HttpError::UnknownOutcome(format!("no answer within {timeout_ms} ms")))
            }),
        };
        drop(permit);
        answer
    }

    /// Sends a request, and follows as many redirects as the node does. One that is not followed, for whatever reason, is the
    /// answer: the server has taken the request and said so.
    async fn exchange(&self, mut checked: Checked, room: &AtomicU64) -> Result<HttpResponse, HttpError> {
        let mut redirects = self.spec.limits.redirects;
        loop {
            let answer = self.pool.request(checked.request()).await.map_err(|error| failed(&error))?;
            let next = match redirects {
                0 => None,
                _ => redirect::next(&checked.uri, &checked.method, answer.status(), answer.headers()),
            };
            let next = next.filter(|next| check_uri(&self.spec, &next.uri).is_ok());
            let Some(next) = next else { return self.read(answer, room).await };
            redirects -= 1;
            checked.follow(next);
        }
    }

    /// Takes an answer into memory, as much of it as there is room for, and takes secrets out of it: what a server has been told it
    /// may tell.
    async fn read(&self, answer: Response<Incoming>, room: &AtomicU64) -> Result<HttpResponse, HttpError> {
        let status = answer.status().as_u16();
        let mut taken = 0;
        self.take(status, &mut taken, head_bytes(answer.headers()), room)?;
        let redacted = |bytes: &[u8]| self.secrets.redact_bytes(bytes.to_vec());
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), redacted(value.as_bytes())))
            .collect();
        let (mut body, mut incoming) = (Vec::new(), answer.into_body());
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| {
                HttpError::UnknownOutcome(format!("the answer {status} broke off: {}", chain(&error)))
            })?;
            let Some(data) = frame.data_ref() else { continue };
            self.take(status, &mut taken, data.len() as u64, room)?;
            body.extend_from_slice(data);
        }
        Ok(HttpResponse { status, headers, body: self.secrets.redact_bytes(body) })
    }

    /// Has so many bytes more be taken of an answer, if it and all of the call may have as many.
    fn take(&self, status: u16, taken: &mut u64, more: u64, room: &AtomicU64) -> Result<(), HttpError> {
        let limit = self.spec.limits.response_bytes;
        *taken += more;
        if *taken > limit {
            let reason = format!("status {status}, more than {limit} bytes (http.response)");
            return Err(HttpError::TooLarge { status, reason });
        }
        let take = |left: u64| left.checked_sub(more);
        if room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            let all = self.spec.limits.all_responses_bytes();
            let reason = format!("status {status}; the answers of one call have more than {all} bytes");
            return Err(HttpError::TooLarge { status, reason });
        }
        Ok(())
    }
}

/// What the headers of an answer take.
fn head_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64 + HEADER_BYTES).sum()
}

/// Why a request has no answer.
fn failed(error: &hyper_util::client::legacy::Error) -> HttpError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(ConnectError(known)) = cause.downcast_ref::<ConnectError>() {
            return known.clone();
        }
        source = cause.source();
    }
    let text = chain(error);
    if error.is_connect() { HttpError::NotSent(text) } else { HttpError::UnknownOutcome(text) }
}

/// An error with all that it comes from.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
