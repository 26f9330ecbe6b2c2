//! Requests of plugins, read and asked about.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};
use hyper::{HeaderMap, Method, Request, Uri};
use pelton_streams::http::{
    HttpError, HttpRequest, HttpSpec, MAX_REQUEST_HEADERS, SECRET_OPEN, fill_secrets,
};

use crate::redirect;
use crate::secrets::NodeSecrets;

/// Bytes of a URL, before secrets are put into it.
const MAX_URL_BYTES: usize = 8 << 10;
/// Who asks, unless the plugin says.
const AGENT: &str = concat!("pelton/", env!("CARGO_PKG_VERSION"));

/// The headers that say how a request is sent, which is not the plugin's business.
const FORBIDDEN: [HeaderName; 8] =
    [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING, TE, TRAILER, UPGRADE, EXPECT];

/// A request that was read and is granted.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    headers: HeaderMap,
    /// Those of them that a secret was put into.
    secret_headers: Vec<HeaderName>,
    body: Bytes,
}

fn invalid(text: impl Into<String>) -> HttpError {
    HttpError::Invalid(text.into())
}

/// Reads a request, and asks whether it is granted.
pub(crate) fn check(
    spec: &HttpSpec,
    secrets: &NodeSecrets,
    request: HttpRequest,
) -> Result<Checked, HttpError> {
    let HttpRequest { method, url, headers, body, timeout_ms: _ } = request;
    let method = Method::from_bytes(method.as_bytes()).ok().filter(|method| *method != Method::CONNECT);
    let method = method.ok_or_else(|| invalid("the method is none"))?;
    let uri = read_url(&url, secrets)?;
    check_uri(spec, &uri)?;
    if headers.len() > MAX_REQUEST_HEADERS {
        let count = headers.len();
        return Err(invalid(format!("{count} headers, but at most {MAX_REQUEST_HEADERS} are sent")));
    }
    let (mut all, mut secret_headers) = (HeaderMap::with_capacity(headers.len() + 1), Vec::new());
    for (name, value) in headers {
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map_err(|_| invalid(format!("`{}` is no name of a header", clip(&name))))?;
        if FORBIDDEN.contains(&known) || known.as_str().starts_with("proxy-") {
            return Err(invalid(format!("the header `{known}` is the server's own")));
        }
        if value.windows(SECRET_OPEN.len()).any(|window| window == SECRET_OPEN.as_bytes()) {
            secret_headers.push(known.clone());
        }
        let filled = fill_secrets(&value, |name| secrets.get(name))?;
        let value = HeaderValue::from_bytes(&filled);
        let mut value = value
            .map_err(|_| invalid(format!("the header `{known}` has characters that no header can have")))?;
        value.set_sensitive(secret_headers.contains(&known));
        all.append(known, value);
    }
    all.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
    Ok(Checked { method, uri, headers: all, secret_headers, body: body.into() })
}

/// Reads a URL. Secrets are put into its path and query, as they are: never into what says where it leads.
fn read_url(url: &str, secrets: &NodeSecrets) -> Result<Uri, HttpError> {
    if url.len() > MAX_URL_BYTES {
        let length = url.len();
        return Err(invalid(format!("the URL has {length} bytes, but at most {MAX_URL_BYTES} are sent")));
    }
    let scheme = url.find("://").map_or(0, |at| at + 3);
    let path = url[scheme..].find(['/', '?', '#']).map_or(url.len(), |at| scheme + at);
    let (place, path) = url.split_at(path);
    if place.contains(SECRET_OPEN) {
        return Err(invalid("a secret can be in the path and the query of a URL, and not before them"));
    }
    // What is said of it is said of what the plugin wrote.
    let wrong = |why: &dyn std::fmt::Display| invalid(format!("`{}` is no URL: {why}", clip(url)));
    let filled = fill_secrets(path.as_bytes(), |name| secrets.get(name))?;
    let filled = String::from_utf8(filled).map_err(|_| wrong(&"a secret in it is no text"))?;
    let uri: Uri = format!("{place}{filled}").parse().map_err(|error| wrong(&error))?;
    let is_there = uri.authority().is_some_and(|authority| place.ends_with(authority.as_str()));
    if uri.authority().is_some() && !is_there {
        return Err(wrong(&"its host is not where it seems to be"));
    }
    Ok(uri)
}

/// Asks whether a URL is granted.
pub(crate) fn check_uri(spec: &HttpSpec, uri: &Uri) -> Result<(), HttpError> {
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(invalid("a URL begins with http:// or https://")),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("the URL has no host"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(invalid(
            "the URL has a user in it: that goes into the header `authorization`, as a secret",
        ));
    }
    spec.grants_of(is_tls, host, uri.port_u16()).map(drop)
}

impl Checked {
    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }

    /// The same request, to where a redirect leads.
    pub(crate) fn follow(&mut self, next: redirect::Next) {
        let redirect::Next { uri, is_elsewhere } = next;
        self.uri = uri;
        if is_elsewhere {
            let goes = |name: &HeaderName| redirect::authorizes(name) || self.secret_headers.contains(name);
            let gone: Vec<HeaderName> = self.headers.keys().filter(|name| goes(name)).cloned().collect();
            gone.iter().for_each(|name| drop(self.headers.remove(name)));
        }
    }
}

/// As much of a text of a plugin's as errors show.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(100)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_into_the_path_and_never_before_it() {
        let secrets = NodeSecrets::of([("path", "T00/B00"), ("odd", "a b"), ("host", "evil.example")]);
        let check = |url: &str, expect: Result<&str, &str>| {
            let read = read_url(url, &secrets).map(|uri| uri.to_string());
            match (&read, expect) {
                (Ok(read), Ok(expect)) => assert_eq!(read, expect, "{url}"),
                (Err(HttpError::Invalid(why)), Err(words)) => {
                    assert!(why.contains(words) && !why.contains("a b"), "{url}: {why}");
                }
                _ => panic!("{url}: {read:?}"),
            }
        };
        check("https://a.example/x/${secret:path}", Ok("https://a.example/x/T00/B00"));
        check("https://a.example/?key=${secret:path}&b", Ok("https://a.example/?key=T00/B00&b"));
        check("https://a.example?${secret:path}", Ok("https://a.example/?T00/B00"));
        check("https://${secret:host}/x", Err("not before them"));
        check("https://a.example:${secret:host}/x", Err("not before them"));
        check("https://a.example.${secret:host}", Err("not before them"));
        check("https://a.example/${secret:odd}", Err("is no URL"));
        let unknown = read_url("https://a.example/${secret:other}", &secrets);
        assert!(matches!(unknown, Err(HttpError::Denied(_))), "{unknown:?}");
    }
}
