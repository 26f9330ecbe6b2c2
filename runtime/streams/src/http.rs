//! HTTP as plugins send it: requests and answers, and what a node is granted. Who sends is outside; what may be sent where is
//! decided here.
//!
//! Nothing is granted by default. A [`Grant`] is one host, and the addresses that the host may have: those of the public
//! internet, and others only if the manifest names them. It is asked twice: [`HttpSpec::grants_of`] by the name in a URL,
//! before anything is looked up, and [`Grant::admits`] by each address that a connection is about to be made to, so that a
//! name that is pointed at an internal address reaches nothing. A redirect is another URL, and asked about as the first.
//!
//! A secret never reaches a plugin: it writes `${secret:NAME}` into the value of a header, or into the path or the query of the URL,
//! and who sends puts the secret in, and takes it out of what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub mod address;
mod grant;

pub use grant::{Grant, GrantError, GrantSpec};

/// Hosts that a node may be granted.
pub(crate) const MAX_GRANTS: usize = 64;
/// Headers that one request may have.
pub const MAX_REQUEST_HEADERS: usize = 100;
/// Requests that one call of `send` may make.
pub const MAX_REQUESTS_PER_SEND: usize = 10_000;
/// Bytes of a secret.
pub const MAX_SECRET_BYTES: usize = 8 << 10;
/// What stands before the name of a secret in the value of a header.
pub const SECRET_OPEN: &str = "${secret:";
/// What stands behind it.
pub const SECRET_CLOSE: &str = "}";

/// A request of a plugin. See `http` in `sdk/wit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method, as `POST`.
    pub method: String,
    /// `http://` or `https://`.
    pub url: String,
    /// Name and value, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long it may take, answer included; the node's limit comes before. 0: the node's limit.
    pub timeout_ms: u32,
}

/// The answer to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status, as 200.
    pub status: u16,
    /// Name and value, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer. The texts are for people, and have no secrets in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The manifest does not grant the host of its URL, or a secret that it names.
    #[error("denied: {0}")]
    Denied(String),
    /// It is no request that can be sent.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Nothing of it has left.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have reached the server.
    #[error("the outcome is unknown: {0}")]
    UnknownOutcome(String),
    /// The server has answered, with more than is taken.
    #[error("the answer is too large: {reason}")]
    TooLarge {
        /// What it has answered.
        status: u16,
        /// How much is taken.
        reason: String,
    },
}

/// Sends requests for one node. All instances of the node share it.
pub trait HttpClient: Send + Sync {
    /// Sends all requests, as many at once as the node may, and gives their outcomes in order. What is not sent `within` that time
    /// is not sent at all. Blocks until all are there: at the most that time and one timeout, and shorter after
    /// [`HttpClient::cancel`].
    fn send(&self, requests: Vec<HttpRequest>, within: Duration) -> Vec<Result<HttpResponse, HttpError>>;

    /// Ends what is on its way, and refuses what comes.
    fn cancel(&self);

    /// The text without the node's secrets.
    fn redact(&self, text: &str) -> String;
}

/// Makes clients.
pub trait Network: std::fmt::Debug + Send + Sync {
    /// A client that is granted what `spec` says.
    ///
    /// # Errors
    /// A secret is not there, or the machine cannot send.
    fn client(&self, spec: &HttpSpec) -> Result<Arc<dyn HttpClient>, NetworkError>;
}

/// Why a node gets no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The server has no secret of that name.
    #[error(
        "the server has no secret `{secret}`, which `secrets.{name}` names: put it into the file `{secret}` of the directory \
         {dir} (pelton.secrets.dir), or start the server with {variable} in its environment"
    )]
    NoSecret {
        /// What the node calls it.
        name: String,
        /// What the server calls it.
        secret: String,
        /// Where its file would be.
        dir: String,
        /// Its variable.
        variable: String,
    },
    /// A secret cannot be used.
    #[error("the secret `{secret}` cannot be used: {reason}")]
    BadSecret {
        /// What the server calls it.
        secret: String,
        /// Why not.
        reason: String,
    },
    /// This server sends nothing.
    #[error("requests over HTTP cannot be sent here: {0}")]
    Unavailable(String),
}

/// What a node may send, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSpec {
    /// The hosts.
    pub grants: Vec<Grant>,
    /// What the plugin calls a secret, and what the server calls it.
    pub secrets: BTreeMap<String, String>,
    /// How much.
    pub limits: HttpLimits,
}

/// The limits of a node's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// The longest that one request may take, in milliseconds.
    pub timeout_ms: u32,
    /// Requests at once, of all instances of the node in one thread of the pipeline.
    pub requests: u32,
    /// Bytes of one answer, headers and body. All answers of one call of `send` together may have sixteen times as many.
    pub response_bytes: u64,
    /// How many redirects are followed; 0: the plugin is given the redirect as the answer.
    pub redirects: u32,
}

impl HttpLimits {
    /// Bytes of all answers of one call of `send`.
    pub fn all_responses_bytes(&self) -> u64 {
        self.response_bytes.saturating_mul(16)
    }
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits { timeout_ms: 30_000, requests: 16, response_bytes: 1 << 20, redirects: 0 }
    }
}

impl HttpSpec {
    /// The grants for a host, as a URL has it, and a port; `port` none: that of the scheme.
    ///
    /// # Errors
    /// No grant names it; what is said about that.
    pub fn grants_of(&self, is_tls: bool, host: &str, port: Option<u16>) -> Result<Vec<&Grant>, HttpError> {
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        let of_host: Vec<&Grant> = self.grants.iter().filter(|grant| grant.names(host)).collect();
        let found: Vec<&Grant> =
            of_host.iter().copied().filter(|grant| grant.has_port(is_tls, port)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let reason = if of_host.is_empty() {
            let entry = if port == if is_tls { 443 } else { 80 } {
                host.to_owned()
            } else {
                format!("{host}:{port}")
            };
            format!("`allow_http` of the node does not name the host `{host}`: add `{entry}` to it")
        } else {
            format!(
                "`allow_http` of the node names the host `{host}`, but not its port {port}: write `{host}:{port}`"
            )
        };
        Err(HttpError::Denied(reason))
    }
}

/// Puts secrets into the value of a header, or a part of a URL.
///
/// # Errors
/// The name of a secret that the node does not have, or what is wrong with the text.
pub fn fill_secrets<'s>(
    value: &[u8],
    secret: impl Fn(&str) -> Option<&'s [u8]>,
) -> Result<Vec<u8>, HttpError> {
    let (open, close) = (SECRET_OPEN.as_bytes(), SECRET_CLOSE.as_bytes());
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
    let (mut filled, mut rest) = (Vec::with_capacity(value.len()), value);
    while let Some(at) = find(rest, open) {
        filled.extend_from_slice(&rest[..at]);
        let named = &rest[at + open.len()..];
        let end = find(named, close);
        let end = end.ok_or_else(|| HttpError::Invalid(format!("it has `{SECRET_OPEN}` without an end")))?;
        let name = String::from_utf8_lossy(&named[..end]);
        let found = secret(&name)
            .ok_or_else(|| HttpError::Denied(format!("`secrets` of the node does not name `{name}`")))?;
        filled.extend_from_slice(found);
        rest = &named[end + close.len()..];
    }
    filled.extend_from_slice(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_put_in_by_name() {
        let secret = |name: &str| match name {
            "token" => Some(&b"s3cret"[..]),
            "odd" => Some(&b"${secret:token}"[..]),
            _ => None,
        };
        let check = |value: &str, expect: Result<&str, &str>| {
            let filled =
                fill_secrets(value.as_bytes(), secret).map(|bytes| String::from_utf8(bytes).unwrap());
            let expect = expect.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(filled.map_err(|error| error.to_string()), expect, "{value}");
        };
        check("Bearer ${secret:token}", Ok("Bearer s3cret"));
        check("${secret:token}${secret:token}!", Ok("s3crets3cret!"));
        check("${secret", Ok("${secret"));
        // What a secret says is not read again.
        check("${secret:odd}", Ok("${secret:token}"));
        check("${secret:other}", Err("denied: `secrets` of the node does not name `other`"));
        check("${secret:token", Err("invalid: it has `${secret:` without an end"));
    }

    #[test]
    fn hosts_are_granted_one_by_one() {
        let grants =
            ["hooks.example.com", "*.wild.example", "local.example:8080", "127.0.0.1:9000", "[::1]:80"];
        let grants =
            grants.iter().map(|text| GrantSpec::Host((*text).to_owned()).check().expect("is a grant"));
        let spec = HttpSpec { grants: grants.collect(), ..HttpSpec::default() };
        let check = |is_tls, host: &str, port, expect: bool| {
            assert_eq!(spec.grants_of(is_tls, host, port).is_ok(), expect, "{host} {port:?}");
        };
        check(true, "hooks.example.com", None, true);
        check(true, "HOOKS.Example.com.", None, true);
        check(true, "hooks.example.com", Some(443), true);
        check(false, "hooks.example.com", None, true);
        check(true, "hooks.example.com", Some(8443), false);
        check(false, "hooks.example.com", Some(443), false);
        check(true, "xhooks.example.com", None, false);
        check(true, "hooks.example.com.evil.example", None, false);
        check(true, "a.wild.example", None, true);
        check(true, "a.b.wild.example", None, true);
        check(true, "wild.example", None, false);
        check(true, "awild.example", None, false);
        check(false, "local.example", Some(8080), true);
        check(false, "local.example", None, false);
        check(false, "127.0.0.1", Some(9000), true);
        // The same address, written in another way.
        check(false, "2130706433", Some(9000), false);
        check(false, "[::ffff:127.0.0.1]", Some(9000), true);
        check(false, "[::1]", None, true);
        check(false, "localhost", Some(9000), false);
        assert_eq!(
            spec.grants_of(false, "local.example", None).expect_err("is denied").to_string(),
            "denied: `allow_http` of the node names the host `local.example`, but not its port 80: write `local.example:80`"
        );
    }
}
