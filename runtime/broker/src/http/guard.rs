//! Which HTTP requests are served. Deploying runs code, so the Host header must name this server (against DNS
//! rebinding), an Origin header must match it (against other sites), and a change needs the token.

use std::net::{IpAddr, SocketAddr};

use subtle::ConstantTimeEq;

use crate::access::{Operation, Resource};

/// Names that always mean this machine.
const LOOPBACK_NAMES: [&str; 2] = ["localhost", "localhost.localdomain"];

/// What a request does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Asks whether the server is up; the answer says nothing about data.
    Probe,
    #[default]
    Read,
    Change,
}

/// The parts of a request that decide.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claims<'a> {
    pub(super) host: Option<&'a str>,
    pub(super) origin: Option<&'a str>,
    pub(super) authorization: Option<&'a str>,
    pub(super) kind: Kind,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the Host header is missing or names another host")]
    Host,
    #[error("the Origin header names another site")]
    Origin,
    #[error("this needs `Authorization: Bearer <token>`; the token is in <data-dir>/http.token")]
    TokenMissing,
    #[error("the token is wrong; the right one is in <data-dir>/http.token")]
    TokenWrong,
    #[error("the sender is not allowed the operation {operation:?} on the resource {resource:?}")]
    Access { operation: Operation, resource: Resource },
}

/// The rules of one listener.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    listen: SocketAddr,
    /// Host names, beside the address itself, that name this server.
    names: Vec<String>,
    token: String,
    /// Reads need the token like changes.
    guards_reads: bool,
}

impl Guard {
    pub(super) fn new(listen: SocketAddr, names: Vec<String>, token: String, guards_reads: bool) -> Self {
        Self { listen, names, token, guards_reads }
    }

    pub(super) fn check(&self, claims: Claims<'_>) -> Result<(), Refused> {
        let host = claims.host.filter(|host| self.is_ours(host)).ok_or(Refused::Host)?;
        if let Some(origin) = claims.origin
            && origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) != Some(host)
        {
            return Err(Refused::Origin);
        }
        match claims.kind {
            Kind::Probe => return Ok(()),
            Kind::Read if !self.guards_reads => return Ok(()),
            Kind::Read | Kind::Change => {}
        }
        let given = claims
            .authorization
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or(Refused::TokenMissing)?;
        // Constant time for equal lengths.
        let right = given.as_bytes().ct_eq(self.token.as_bytes()).into();
        if right { Ok(()) } else { Err(Refused::TokenWrong) }
    }

    /// DNS rebinding needs a name: any address of this server is accepted, but only known names.
    fn is_ours(&self, host: &str) -> bool {
        let name = without_port(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return ip.is_loopback() || self.listen.ip().is_unspecified() || ip == self.listen.ip();
        }
        let loopback = self.listen.ip().is_loopback() || self.listen.ip().is_unspecified();
        (loopback && LOOPBACK_NAMES.iter().any(|known| known.eq_ignore_ascii_case(name)))
            || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::{Claims, Guard, Kind, Refused};

    fn guard(listen: &str) -> Guard {
        Guard::new(listen.parse().unwrap(), vec!["broker.example".to_owned()], "s3cret".to_owned(), false)
    }

    #[test]
    fn only_our_own_host_is_answered() {
        let check = |listen: &str, host: Option<&str>, expect: Result<(), Refused>| {
            assert_eq!(
                guard(listen).check(Claims { host, ..Claims::default() }),
                expect,
                "{listen} {host:?}"
            );
        };
        check("127.0.0.1:8080", Some("127.0.0.1:8080"), Ok(()));
        check("127.0.0.1:8080", Some("localhost:8080"), Ok(()));
        check("127.0.0.1:8080", Some("LOCALHOST"), Ok(()));
        check("127.0.0.1:8080", Some("[::1]:8080"), Ok(()));
        check("127.0.0.1:8080", Some("broker.example:8080"), Ok(()));
        check("127.0.0.1:8080", Some("evil.example:8080"), Err(Refused::Host));
        check("127.0.0.1:8080", Some("localhost.evil.example"), Err(Refused::Host));
        check("127.0.0.1:8080", Some("10.1.2.3:8080"), Err(Refused::Host));
        check("127.0.0.1:8080", None, Err(Refused::Host));
        check("10.1.2.3:8080", Some("10.1.2.3:8080"), Ok(()));
        check("10.1.2.3:8080", Some("localhost"), Err(Refused::Host));
        check("0.0.0.0:8080", Some("10.1.2.3:8080"), Ok(()));
        check("0.0.0.0:8080", Some("evil.example"), Err(Refused::Host));
    }

    #[test]
    fn a_change_needs_the_token_and_no_foreign_origin() {
        let check = |origin: Option<&str>, authorization: Option<&str>, expect: Result<(), Refused>| {
            let kind = Kind::Change;
            let claims = Claims { host: Some("localhost:8080"), origin, authorization, kind };
            assert_eq!(guard("127.0.0.1:8080").check(claims), expect, "{origin:?} {authorization:?}");
        };
        check(None, Some("Bearer s3cret"), Ok(()));
        check(Some("http://localhost:8080"), Some("Bearer s3cret"), Ok(()));
        check(Some("http://evil.example"), Some("Bearer s3cret"), Err(Refused::Origin));
        check(Some("null"), Some("Bearer s3cret"), Err(Refused::Origin));
        check(None, None, Err(Refused::TokenMissing));
        check(None, Some("s3cret"), Err(Refused::TokenMissing));
        check(None, Some("Bearer s3creT"), Err(Refused::TokenWrong));
        check(None, Some("Bearer s3cret1"), Err(Refused::TokenWrong));
    }
    #[test]
    fn reads_need_the_token_if_the_operator_says_so() {
        let guarded = Guard { guards_reads: true, ..guard("127.0.0.1:8080") };
        let check = |guard: &Guard, kind, authorization, expect: Result<(), Refused>| {
            let claims = Claims { host: Some("localhost"), authorization, kind, ..Claims::default() };
            assert_eq!(guard.check(claims), expect, "{kind:?} {authorization:?}");
        };
        check(&guard("127.0.0.1:8080"), Kind::Read, None, Ok(()));
        check(&guarded, Kind::Read, None, Err(Refused::TokenMissing));
        check(&guarded, Kind::Read, Some("Bearer s3cres"), Err(Refused::TokenWrong));
        check(&guarded, Kind::Read, Some("Bearer s3cret"), Ok(()));
        check(&guarded, Kind::Probe, None, Ok(()));
    }
}
