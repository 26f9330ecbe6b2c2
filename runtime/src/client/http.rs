//! A client of the broker's HTTP port, for plugins, pipelines and tables.

use crate::cli;
use crate::report::{Exit, Failure, failed};
use anyhow::Context;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// A deployment may compile a component: 15 s for Python on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);
/// A larger response is refused.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A client of one broker.
pub(crate) struct HttpClient {
    agent: ureq::Agent,
    base: String,
    args: cli::Http,
}

/// A refusal of the broker, in JSON.
#[derive(serde::Deserialize)]
struct Refusal {
    error: String,
    hint: Option<String>,
}

impl HttpClient {
    pub(crate) fn new(args: &cli::Http) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self { agent: config.into(), base: format!("http://{}", args.http_server), args: args.clone() }
    }

    /// A read. The broker asks for the token only with `pelton.http.reads.need.token`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = || self.agent.get(format!("{}{path}", self.base));
        let answer = request().call();
        if answer.as_ref().is_ok_and(|answer| answer.status() == ureq::http::StatusCode::UNAUTHORIZED) {
            return self
                .answer(request().header("authorization", format!("Bearer {}", self.token()?)).call());
        }
        self.answer(answer)
    }

    /// A read whose answer is a text without end: its lines. No time-out but that of the connection.
    pub(crate) fn lines(
        &self,
        path: &str,
    ) -> anyhow::Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
        let request = || {
            let request = self.agent.get(format!("{}{path}", self.base)).config();
            request.timeout_global(None).timeout_connect(Some(TIMEOUT)).build()
        };
        let mut answer = request().call();
        if answer.as_ref().is_ok_and(|answer| answer.status() == ureq::http::StatusCode::UNAUTHORIZED) {
            answer = request().header("authorization", format!("Bearer {}", self.token()?)).call();
        }
        match answer {
            Ok(answer) if answer.status().is_success() => {
                Ok(BufReader::new(answer.into_body().into_reader()).lines())
            }
            refused => {
                Err(self.answer::<serde_json::Value>(refused).err().unwrap_or_else(|| failed("no lines")))
            }
        }
    }

    /// A change: needs the token.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> anyhow::Result<T> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {}", self.token()?));
        self.answer(request.header("content-type", content_type).send(body))
    }

    /// A change: needs the token.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.agent.delete(format!("{}{path}", self.base));
        self.answer(request.header("authorization", format!("Bearer {}", self.token()?)).call())
    }

    fn token(&self) -> anyhow::Result<String> {
        if let Some(token) = &self.args.http_token {
            return Ok(token.clone());
        }
        let path = self.args.data_dir.join("http.token");
        match std::fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => {
                Err(Failure::new(Exit::Usage, format!("read the token {}: {error}", path.display()))
                    .hint("this needs the broker's token: give its --data-dir, or --http-token")
                    .into())
            }
        }
    }

    fn answer<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let mut response = response.map_err(|error| {
            Failure::new(Exit::Unreachable, format!("no broker answers at {}: {error}", self.base))
                .hint("is `pelton serve` running? --http-server says where")
        })?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.with_context(|| format!("read the response of {}", self.base))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .with_context(|| format!("decode the response of {}", self.base));
        }
        let refusal = serde_json::from_slice::<Refusal>(&body).unwrap_or_else(|_| Refusal {
            error: format!("{status}: {}", String::from_utf8_lossy(&body)),
            hint: None,
        });
        let failure = Failure::new(Exit::Failed, refusal.error);
        Err(match refusal.hint {
            Some(hint) => failure.hint(hint).into(),
            None => failure.into(),
        })
    }
}

/// A name as part of a path. A name that would need escapes is refused.
pub(crate) fn segment(name: &str) -> anyhow::Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err(failed(format!(
            "`{name}` is not the name of a pipeline or table: use letters, digits, `.`, `_` and `-`"
        )));
    }
    Ok(name)
}

/// The name of a table as part of a path: one that a pipeline keeps is `PIPELINE/STORE`.
pub(crate) fn table_segment(name: &str) -> anyhow::Result<String> {
    match name.split_once('/') {
        Some((pipeline, store)) => Ok(format!("{}%2F{}", segment(pipeline)?, segment(store)?)),
        None => Ok(segment(name)?.to_owned()),
    }
}
