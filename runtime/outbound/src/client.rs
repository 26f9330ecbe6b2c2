//! The client of one node.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};
use hyper::{HeaderMap, Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use pelton_streams::http::{
    HttpClient, HttpError, HttpRequest, HttpResponse, HttpSpec, MAX_REQUEST_HEADERS, SECRET_OPEN,
    fill_secrets,
};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connect::{ConnectError, Connector};
use crate::redirect;
use crate::secrets::NodeSecrets;

/// Bytes of a URL.
const MAX_URL_BYTES: usize = 8 << 10;
/// Connections that wait for the next request, of each host.
const IDLE_PER_HOST: usize = 8;
/// How long they wait: less than most servers do.
const IDLE: Duration = Duration::from_secs(30);
/// The longest that a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// Who asks, unless the plugin says.
const AGENT: &str = concat!("pelton/", env!("CARGO_PKG_VERSION"));

/// The headers that say how a request is sent, which is not the plugin's business.
const FORBIDDEN: [HeaderName; 8] =
    [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, EXPECT];

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

/// A request that was read and is granted.
struct Checked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Those of them that a secret was put into.
    secret_headers: Vec<HeaderName>,
    body: Bytes,
}

fn denied(text: impl Into<String>) -> HttpError {
    HttpError::Denied(text.into())
}

impl Client {
    pub(crate) fn new(
        spec: &HttpSpec,
        secrets: NodeSecrets,
        tls: Arc<ClientConfig>,
        runtime: Handle,
    ) -> Client {
        let spec = Arc::new(spec.clone());
        let whole = Duration::from_millis(spec.limits.timeout_ms.into());
        // Before the whole time is over, so that a request that was not sent is known to be that.
        let timeout = CONNECT.min(whole / 2);
        let connector = Connector { spec: Arc::clone(&spec), tls, timeout };
        let mut builder = Pool::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(IDLE_PER_HOST);
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
    fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, HttpError>> {
        let lost =
            || Err(HttpError::UnknownOutcome("the request was lost, which is a bug of pelton".to_owned()));
        let mut answers: Vec<_> = requests.iter().map(|_| lost()).collect();
        let room = Arc::new(AtomicU64::new(self.shared.spec.limits.all_responses_bytes()));
        self.runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for (index, request) in requests.into_iter().enumerate() {
                let (shared, room) = (Arc::clone(&self.shared), Arc::clone(&room));
                let one = async move { (index, shared.send(request, &room).await) };
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
    async fn send(&self, request: HttpRequest, room: &AtomicU64) -> Result<HttpResponse, HttpError> {
        let stopping = || "the pipeline is stopping".to_owned();
        let limit_ms = self.spec.limits.timeout_ms;
        let timeout_ms = match request.timeout_ms {
            0 => limit_ms,
            asked => asked.min(limit_ms),
        };
        let checked = self.check(request)?;
        let permit = tokio::select! {
            permit = self.at_once.acquire() => permit.map_err(|_closed| HttpError::NotSent(stopping()))?,
            () = self.cancelled.cancelled() => return Err(HttpError::NotSent(stopping())),
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

    /// Sends a request, and follows as many redirects as the node does.
    async fn exchange(&self, mut checked: Checked, room: &AtomicU64) -> Result<HttpResponse, HttpError> {
        let mut redirects = self.spec.limits.redirects;
        loop {
            let answer = self.pool.request(checked.request()).await.map_err(|error| failed(&error))?;
            let next = match redirects {
                0 => None,
                _ => redirect::next(&checked.uri, &checked.method, answer.status(), answer.headers())?,
            };
            let Some(next) = next else { return self.read(answer, room).await };
            redirects -= 1;
            self.check_uri(&next.uri)?;
            checked.follow(next);
        }
    }

    async fn read(&self, answer: Response<Incoming>, room: &AtomicU64) -> Result<HttpResponse, HttpError> {
        let status = answer.status().as_u16();
        let headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        let limit = self.spec.limits.response_bytes;
        let (mut body, mut incoming) = (Vec::new(), answer.into_body());
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| {
                HttpError::UnknownOutcome(format!("the answer {status} broke off: {}", chain(&error)))
            })?;
            let Some(data) = frame.data_ref() else { continue };
            if body.len() as u64 + data.len() as u64 > limit {
                return Err(HttpError::TooLarge(format!(
                    "status {status}, more than {limit} bytes (http.response)"
                )));
            }
            let more = data.len() as u64;
            let take = |left: u64| left.checked_sub(more);
            if room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                let all = self.spec.limits.all_responses_bytes();
                return Err(HttpError::TooLarge(format!(
                    "status {status}; the answers of one call have more than {all} bytes"
                )));
            }
            body.extend_from_slice(data);
        }
        Ok(HttpResponse { status, headers, body })
    }

    /// Reads a request, and asks whether it is granted.
    fn check(&self, request: HttpRequest) -> Result<Checked, HttpError> {
        let HttpRequest { method, url, headers, body, timeout_ms: _ } = request;
        let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
        let method = method.ok_or_else(|| denied("the method is none"))?;
        if url.len() > MAX_URL_BYTES {
            return Err(denied(format!(
                "the URL has {} bytes, but at most {MAX_URL_BYTES} are sent",
                url.len()
            )));
        }
        let uri: Uri = url.parse().map_err(|error| denied(format!("`{}` is no URL: {error}", clip(&url))))?;
        self.check_uri(&uri)?;
        if headers.len() > MAX_REQUEST_HEADERS {
            return Err(denied(format!(
                "{} headers, but at most {MAX_REQUEST_HEADERS} are sent",
                headers.len()
            )));
        }
        let (mut all, mut secret_headers) = (HeaderMap::with_capacity(headers.len() + 1), Vec::new());
        for (name, value) in headers {
            let known = HeaderName::from_bytes(name.as_bytes());
            let known = known.map_err(|_| denied(format!("`{}` is no name of a header", clip(&name))))?;
            if FORBIDDEN.contains(&known) || known.as_str().starts_with("proxy-") {
                return Err(denied(format!("the header `{known}` is the server's own")));
            }
            if value.windows(SECRET_OPEN.len()).any(|window| window == SECRET_OPEN.as_bytes()) {
                secret_headers.push(known.clone());
            }
            let filled = fill_secrets(&value, |name| self.secrets.get(name))?;
            let mut value = HeaderValue::from_bytes(&filled).map_err(|_| {
                denied(format!("the header `{known}` has characters that no header can have"))
            })?;
            value.set_sensitive(secret_headers.contains(&known));
            all.append(known, value);
        }
        all.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        Ok(Checked { method, uri, headers: all, secret_headers, body: body.into() })
    }

    fn check_uri(&self, uri: &Uri) -> Result<(), HttpError> {
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(denied("a URL begins with http:// or https://")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| denied("the URL has no host"))?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(denied(
                "the URL has a user in it: that goes into the header `authorization`, as a secret",
            ));
        }
        self.spec.grants_of(is_tls, host, uri.port_u16()).map(drop)
    }
}

impl Checked {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    fn follow(&mut self, next: redirect::Next) {
        let redirect::Next { uri, method, with_body, is_elsewhere } = next;
        (self.uri, self.method) = (uri, method);
        if !with_body {
            self.body = Bytes::new();
            self.headers.remove(hyper::header::CONTENT_TYPE);
        }
        if is_elsewhere {
            let goes = |name: &HeaderName| redirect::authorizes(name) || self.secret_headers.contains(name);
            let gone: Vec<HeaderName> = self.headers.keys().filter(|name| goes(name)).cloned().collect();
            gone.iter().for_each(|name| drop(self.headers.remove(name)));
        }
    }
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

/// As much of a text of a plugin's as errors show.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}
