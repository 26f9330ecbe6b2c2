//! Where a redirect leads, and as what.

use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, LOCATION};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use pelton_streams::http::HttpError;

/// What is sent to the next place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) uri: Uri,
    pub(crate) method: Method,
    /// The body goes along.
    pub(crate) with_body: bool,
    /// It is another origin: what authorizes does not go along.
    pub(crate) is_elsewhere: bool,
}

/// The redirect that an answer is, if it is one that says where to.
pub(crate) fn next(
    from: &Uri,
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<Next>, HttpError> {
    let keeps = match status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method != Method::POST,
        StatusCode::SEE_OTHER => matches!(*method, Method::GET | Method::HEAD),
        _ => return Ok(None),
    };
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let uri = location.to_str().ok().and_then(|location| resolve(from, location));
    let uri = uri.ok_or_else(|| HttpError::Denied("the redirect leads to what is no URL".to_owned()))?;
    if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return Err(HttpError::Denied("the redirect leads from https to http".to_owned()));
    }
    let origin = |uri: &Uri| {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        (uri.scheme_str().map(str::to_owned), host, uri.port_u16())
    };
    let is_elsewhere = origin(from) != origin(&uri);
    let method = if keeps { method.clone() } else { Method::GET };
    Ok(Some(Next { uri, method, with_body: keeps, is_elsewhere }))
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
    fn redirects_lead_on_as_browsers_have_it() {
        let check =
            |from: &str, method: Method, status: u16, location: &str, expect: Result<Option<&str>, ()>| {
                let headers = HeaderMap::from_iter([(LOCATION, location.parse().expect("is a value"))]);
                let status = StatusCode::from_u16(status).expect("is a status");
                let found = next(&from.parse().expect("is a URL"), &method, status, &headers);
                let text = |next: Next| {
                    format!(
                        "{} {} {} {}",
                        next.method,
                        next.uri,
                        next.with_body,
                        if next.is_elsewhere { "elsewhere" } else { "here" }
                    )
                };
                let found = found.map(|next| next.map(text)).map_err(|_| ());
                assert_eq!(found, expect.map(|text| text.map(str::to_owned)), "{from} {status} {location}");
            };
        let a = "https://a.example/x?y";
        check(a, Method::POST, 307, "/z?q", Ok(Some("POST https://a.example/z?q true here")));
        check(
            a,
            Method::POST,
            308,
            "https://b.example/#f",
            Ok(Some("POST https://b.example/ true elsewhere")),
        );
        check(
            a,
            Method::POST,
            302,
            "https://a.example:8443/",
            Ok(Some("GET https://a.example:8443/ false elsewhere")),
        );
        check(a, Method::PUT, 301, "/", Ok(Some("PUT https://a.example/ true here")));
        check(a, Method::PUT, 303, "/", Ok(Some("GET https://a.example/ false here")));
        check(a, Method::POST, 307, "http://a.example/", Err(()));
        check(a, Method::POST, 307, "//b.example/", Err(()));
        check(a, Method::POST, 307, "z", Err(()));
        check(a, Method::POST, 304, "/z", Ok(None));
        check(a, Method::POST, 200, "/z", Ok(None));
    }
}
