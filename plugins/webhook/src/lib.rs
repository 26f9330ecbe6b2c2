//! Sends each record to a URL. What it needs and promises is in README.md.

use std::ops::RangeInclusive;

use pelton_sdk::{Config, HttpConsumer, HttpError, Record, Request, Response, Undone};

mod json;

/// The longest that a server can have a record wait by its `retry-after`: a day, of which pelton takes an hour.
const MAX_AFTER_S: u32 = 86_400;
/// Bytes of an answer's body that a reason shows.
const SHOWN_BYTES: usize = 200;

#[derive(Default)]
struct Webhook {
    url: String,
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

impl HttpConsumer for Webhook {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let text = |key: &str| config.get(key).unwrap_or_default().to_owned();
        self.url = text("url");
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err(format!("config.url is `{}`, but must begin with http:// or https://", self.url));
        }
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
        self.headers = vec![("content-type".to_owned(), content_type.to_owned())];
        if let Some(authorization) = config.get("authorization").filter(|text| !text.is_empty()) {
            self.headers.push(("authorization".to_owned(), authorization.to_owned()));
        }
        for line in text("headers").lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.split_once(':').ok_or_else(|| {
                format!("config.headers has the line `{line}`, but each must be \"name: value\"")
            })?;
            self.headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let forward = text("forward");
        self.forward =
            forward.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        self.key_header = config.get("key_header").unwrap_or("idempotency-key").to_owned();
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
        let answer = match answer {
            Ok(answer) => answer,
            // Neither the next time nor for any other record.
            Err(HttpError::Denied(why)) => return Err(Undone::Fatal(why)),
            Err(HttpError::TooLarge(why)) => {
                return Err(Undone::Never(format!("the answer is too large: {why}")));
            }
            Err(error) => return Err(Undone::again(error.reason())),
        };
        let status = answer.status;
        if self.done.has(status) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(SHOWN_BYTES)]);
        let reason = format!("{} answers {status} {}", self.url, shown.trim());
        if !self.retry.has(status) {
            return Err(Undone::Never(reason));
        }
        let after = answer.header("retry-after").and_then(|text| std::str::from_utf8(text).ok());
        let after = after.and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(0);
        Err(Undone::Again(after.min(MAX_AFTER_S) * 1_000, reason))
    }
}

fn has_secret(value: &[u8]) -> bool {
    value.windows(2).any(|window| window == b"${")
}

pelton_sdk::export_http_consumer!(Webhook);

#[cfg(test)]
mod tests;
