//! Where a redirect leads, and as what.

use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, LOCATION};
use hyper::{HeaderMap, Method, StatusCode, Uri};

/// Where the same request is sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) uri: Uri,
    /// It is another origin: what authorizes does not go along.
    pub(crate) is_elsewhere: bool,
}

/// The redirect that an answer is, if it is one that has the same request sent to another place, and says to which. 301, 302 and 303
/// make a GET of a request that has a body: an answer to that would say nothing of what was to be done.
pub(crate) fn next(from: &Uri, method: &Method, status: StatusCode, headers: &HeaderMap) -> Option<Next> {
    let is_followed = match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
            matches!(*method, Method::GET | Method::HEAD)
        }
        _ => false,
    };
    let location = headers.get(LOCATION).filter(|_| is_followed)?;
    let uri = resolve(from, location.to_str().ok()?)?;
    if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return None;
    }
    let origin = |uri: &Uri| {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        (uri.scheme_str().map(str::to_owned), host, uri.port_u16())
    };
    let is_elsewhere = origin(from) != origin(&uri);
    Some(Next { uri, is_elsewhere })
}

/// A location as a URL: a whole one, or a path of the same origin.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    // What is behind it is the client's alone.
    let location = location.split('#').next()?;
    if location.starts_with('/') && !location.starts_with("//") {
        let path = location.parse().ok()?;
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(path);
        return Uri::from_parts(parts).ok();
    }
    let uri: Uri = location.parse().ok()?;
    (uri.scheme().is_some() && uri.host().is_some()).then_some(uri)
}

/// Whether a header authorizes, whatever its value.
pub(crate) fn authorizes(name: &HeaderName) -> bool {
    *name == AUTHORIZATION || *name == COOKIE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_is_sent_on_or_none() {
        let check = |method: Method, status: u16, location: &str, expect: Option<&str>| {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().expect("is a value"))]);
            let status = StatusCode::from_u16(status).expect("is a status");
            let from = "https://a.example/x?y".parse().expect("is a URL");
            let found = next(&from, &method, status, &headers);
            let place =
                |next: Next| format!("{}{}", next.uri, if next.is_elsewhere { " elsewhere" } else { "" });
            assert_eq!(found.map(place).as_deref(), expect, "{method} {status} {location}");
        };
        for status in [307, 308] {
            check(Method::POST, status, "/z?q", Some("https://a.example/z?q"));
            check(Method::POST, status, "https://b.example/#f", Some("https://b.example/ elsewhere"));
            check(Method::POST, status, "https://a.example:8443/", Some("https://a.example:8443/ elsewhere"));
        }
        for status in [301, 302, 303] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                check(method, status, "/z", None);
            }
            check(Method::GET, status, "/z", Some("https://a.example/z"));
            check(Method::HEAD, status, "/z", Some("https://a.example/z"));
        }
        for location in ["http://a.example/", "//b.example/", "z", "https://"] {
            check(Method::POST, 307, location, None);
        }
        check(Method::GET, 304, "/z", None);
        check(Method::GET, 200, "/z", None);
    }
}
