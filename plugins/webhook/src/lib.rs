//! Sends each record to a URL. What it needs and promises is in README.md.

use std::ops::RangeInclusive;

use pelton_sdk::{Config, HttpConsumer, HttpError, Record, Request, Response, TooLarge, Undone};

mod json;

/// The longest that a server can have a record wait by its `retry-after`: a day, of which pelton takes an hour.
const MAX_AFTER_S: u32 = 86_400;
/// Bytes of an answer's body that a reason shows.
const SHOWN_BYTES: usize = 200;

/// Headers that settings may name, of the 100 that a request can have.
const MAX_HEADERS: usize = 80;
/// Headers that are the server's own, which it does not send for a plugin.
const OWN_HEADERS: [&str; 8] =
    ["host", "content-length", "connection", "transfer-encoding", "te", "trailer", "upgrade", "expect"];

#[derive(Default)]
struct Webhook {
    url: String,
    /// Scheme and host of it, for people: its path may be a secret.
    place: String,
    method: String,
    as_json: bool,
    /// What all requests have.
    headers: Vec<(String, String)>,
    forward: Vec<String>,
    key_header: String,
    skips_null: bool,
    done: Statuses,
    retry: Statuses,
    timeout_ms: u32,
}

/// Statuses of answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Reads `200-299,409`.
    fn parse(key: &str, text: &str) -> Result<Statuses, String> {
        let wrong =
            |part: &str| format!("config.{key} has `{part}`, but must be statuses as \"200-299,409\"");
        let part = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let status = |text: &str| text.trim().parse::<u16>().ok().filter(|s| (100..600).contains(s));
            match (status(first), status(last)) {
                (Some(first), Some(last)) if first <= last => Ok(first..=last),
                _ => Err(wrong(part.trim())),
            }
        };
        text.split(',')
            .filter(|text| !text.trim().is_empty())
            .map(part)
            .collect::<Result<_, _>>()
            .map(Statuses)
    }

    fn has(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// One of two words.
fn choice(config: &Config, key: &str, [first, second]: [&str; 2]) -> Result<bool, String> {
    match config.get(key).unwrap_or(first) {
        text if text == first => Ok(false),
        text if text == second => Ok(true),
        other => Err(format!("config.{key} is `{other}`, but must be `{first}` or `{second}`")),
    }
}

/// What a URL has before its path, if that is a scheme and a host.
fn place(url: &str) -> Result<&str, String> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme));
    let scheme =
        scheme.ok_or_else(|| format!("config.url is `{url}`, but must begin with http:// or https://"))?;
    let host = url[scheme.len()..].split(['/', '?', '#']).next().unwrap_or_default();
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(format!("config.url is `{url}`, but `{host}` is no host"));
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("config.url has spaces or control characters in it".to_owned());
    }
    Ok(&url[..scheme.len() + host.len()])
}

/// Whether a header can be sent whose name and value settings say: what cannot is found out now, and not at each record.
fn check_header(key: &str, name: &str, value: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let small = name.to_ascii_lowercase();
    if name.is_empty() || !name.chars().all(is_word) {
        return Err(format!("config.{key} has `{name}`, which is no name of a header"));
    }
    if OWN_HEADERS.contains(&&*small) || small.starts_with("proxy-") {
        return Err(format!("config.{key} has the header `{name}`, which is the server's own"));
    }
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("config.{key} has control characters in the header `{name}`"));
    }
    Ok(())
}

impl Webhook {
    fn set_headers(&mut self, config: &Config, content_type: &str) -> Result<(), String> {
        let text = |key: &str| config.get(key).unwrap_or_default();
        let mut headers = vec![("content_type", "content-type", content_type)];
        headers.push(("authorization", "authorization", text("authorization")));
        for line in text("headers").lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(|| {
                format!("config.headers has the line `{line}`, but each must be \"name: value\"")
            })?;
            headers.push(("headers", name.trim(), value.trim()));
        }
        headers.retain(|(key, _, value)| *key != "authorization" || !value.is_empty());
        headers.iter().try_for_each(|(key, name, value)| check_header(key, name, value))?;
        self.headers =
            headers.into_iter().map(|(_, name, value)| (name.to_owned(), value.to_owned())).collect();
        let forward = text("forward").split(',').map(str::trim).filter(|name| !name.is_empty());
        self.forward = forward.map(str::to_owned).collect();
        self.forward.iter().try_for_each(|name| check_header("forward", name, ""))?;
        self.key_header = config.get("key_header").unwrap_or("idempotency-key").to_owned();
        if !self.key_header.is_empty() {
            check_header("key_header", &self.key_header, "")?;
        }
        let count = self.headers.len() + self.forward.len();
        if count > MAX_HEADERS {
            return Err(format!(
                "config.headers and config.forward have {count} headers, but at most {MAX_HEADERS} are sent"
            ));
        }
        Ok(())
    }

    /// What a status means for a record; `more` is what is said besides, and `after_s` what the server asks for.
    fn judge(&self, status: u16, more: &str, after_s: u32) -> Result<(), Undone> {
        if self.done.has(status) {
            return Ok(());
        }
        let reason = format!("{} answers {status} {more}", self.place);
        let reason = reason.trim_end().to_owned();
        if !self.retry.has(status) {
            return Err(Undone::Never(reason));
        }
        Err(Undone::Again(after_s.min(MAX_AFTER_S) * 1_000, reason))
    }
}

impl HttpConsumer for Webhook {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let text = |key: &str| config.get(key).unwrap_or_default().to_owned();
        self.url = text("url");
        self.place = place(&self.url)?.to_owned();
        self.method = config.get("method").unwrap_or("POST").to_uppercase();
        if !["POST", "PUT", "PATCH"].contains(&&*self.method) {
            return Err(format!("config.method is `{}`, but must be POST, PUT or PATCH", self.method));
        }
        self.as_json = choice(config, "body", ["value", "json"])?;
        self.skips_null = choice(config, "null", ["send", "skip"])?;
        let content_type = match self.as_json {
            true => "application/json",
            false => config.get("content_type").unwrap_or("application/json"),
        };
        self.set_headers(config, content_type)?;
        self.done = Statuses::parse("done", config.get("done").unwrap_or("200-299"))?;
        self.retry = Statuses::parse("retry", config.get("retry").unwrap_or("408,425,429,500-599"))?;
        self.timeout_ms = config.parse("timeout_ms")?.unwrap_or(10_000);
        Ok(())
    }

    fn request(&mut self, record: Record<'_>) -> Result<Option<Request>, Undone> {
        if record.value().is_none() && self.skips_null {
            return Ok(None);
        }
        let body = match self.as_json {
            true => json::object(record).into_bytes(),
            false => record.value().unwrap_or_default().to_vec(),
        };
        let mut request = Request::new(&self.method, &self.url, body);
        request.timeout_ms = self.timeout_ms;
        for (name, value) in &self.headers {
            request = request.header(name, value.as_bytes());
        }
        if !self.key_header.is_empty() {
            request = request.header(&self.key_header, record.idempotency_key());
        }
        request = request
            .header("pelton-topic", record.topic())
            .header("pelton-partition", record.partition().to_string())
            .header("pelton-offset", record.offset().to_string())
            .header("pelton-timestamp", record.timestamp().to_string());
        for name in &self.forward {
            // What somebody has written into a record names no secret.
            if let Some(value) = record.header(name).filter(|value| !has_secret(value)) {
                request = request.header(name, value);
            }
        }
        Ok(Some(request))
    }

    fn answer(&mut self, _: Record<'_>, answer: Result<Response, HttpError>) -> Result<(), Undone> {
        match answer {
            Ok(answer) => {
                let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(SHOWN_BYTES)]);
                let after = answer.header("retry-after").and_then(|text| std::str::from_utf8(text).ok());
                let after_s = after.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(0);
                self.judge(answer.status, shown.trim(), after_s)
            }
            // Neither the next time nor for any other record.
            Err(HttpError::Denied(why)) => Err(Undone::Fatal(why)),
            // Settings were checked: it is this record that cannot be sent.
            Err(HttpError::Invalid(why)) => Err(Undone::never(why)),
            // What the server has done is what its status says, however much it has to say about it.
            Err(HttpError::TooLarge(TooLarge { status, .. })) => {
                self.judge(status, "and more than is taken", 0)
            }
            Err(error) => Err(Undone::again(error.reason())),
        }
    }
}

fn has_secret(value: &[u8]) -> bool {
    value.windows(2).any(|window| window == b"${")
}

pelton_sdk::export_http_consumer!(Webhook);

#[cfg(test)]
mod tests;
