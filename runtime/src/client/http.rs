//! A client of the broker's HTTP port, for plugins, pipelines and tables.

use crate::cli;
use crate::report::{Exit, Failure, failed};
use anyhow::Context;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// A deployment may compile a component: 15 s for Python on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often a table that is being restored is asked again.
const AGAIN: Duration = Duration::from_millis(50);
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
    /// What the thing that was asked is doing, where that is why.
    #[serde(default)]
    state: serde_json::Value,
}

impl Refusal {
    fn is_of_restore(&self) -> bool {
        self.state == "restoring"
    }

    fn failure(self) -> anyhow::Error {
        let failure = Failure::new(Exit::Failed, self.error);
        match self.hint {
            Some(hint) => failure.hint(hint).into(),
            None => failure.into(),
        }
    }
}

type Response = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

impl HttpClient {
    pub(crate) fn new(args: &cli::Http) -> Self {
        let config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
        Self { agent: config.into(), base: format!("http://{}", args.http_server), args: args.clone() }
    }

    /// A read. The broker asks for the token only with `pelton.http.reads.need.token`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.get_restored(path, Duration::ZERO)
    }

    /// The same of a table: one that is being restored is asked again, for so long at the most.
    pub(crate) fn get_restored<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> anyhow::Result<T> {
        let request = || self.agent.get(format!("{}{path}", self.base));
        restored(patience, || self.decode(self.read(request)?))
    }

    /// A read of a table whose answer is a text without end: its lines. No time-out but that of the connection.
    pub(crate) fn lines(
        &self,
        path: &str,
        patience: Duration,
    ) -> anyhow::Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
        let request = || {
            let request = self.agent.get(format!("{}{path}", self.base)).config();
            request.timeout_global(None).timeout_connect(Some(TIMEOUT)).build()
        };
        restored(patience, || match self.read(request)? {
            Ok(answer) if answer.status().is_success() => {
                Ok(Ok(BufReader::new(answer.into_body().into_reader()).lines()))
            }
            refused => match self.decode::<serde_json::Value>(refused)? {
                Err(refusal) => Ok(Err(refusal)),
                Ok(_) => Err(failed("no lines")),
            },
        })
    }

    /// A read, with the token if it is asked for.
    fn read(
        &self,
        request: impl Fn() -> ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> anyhow::Result<Response> {
        let answer = request().call();
        if answer.as_ref().is_ok_and(|answer| answer.status() == ureq::http::StatusCode::UNAUTHORIZED) {
            return Ok(request().header("authorization", format!("Bearer {}", self.token()?)).call());
        }
        Ok(answer)
    }

    /// A change: needs the token.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> anyhow::Result<T> {
        self.post_with(path, &[("content-type", content_type)], body)
    }

    /// A change with headers of its own.
    pub(crate) fn post_with<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<T> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {}", self.token()?));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.answer(request.send(body))
    }

    /// A change: needs the token.
    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self.agent.delete(format!("{}{path}", self.base));
        self.answer(request.header("authorization", format!("Bearer {}", self.token()?)).call())
    }

    /// What lets a command change something.
    ///
    /// # Errors
    /// It is not where it should be.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        if let Some(token) = &self.args.http_token {
            return Ok(token.clone());
        }
        let path = self.args.data_dir.join("http.token");
        match std::fs::read_to_string(&path) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => {
                Err(Failure::new(Exit::Usage, format!("read the token {}: {error}", path.display()))
                    .hint("this needs the broker's token: give its --data-dir (or set PELTON_DATA_DIR), or --http-token")
                    .into())
            }
        }
    }

    fn answer<T: DeserializeOwned>(&self, response: Response) -> anyhow::Result<T> {
        self.decode(response)?.map_err(Refusal::failure)
    }

    /// An answer, or what the broker refuses it with.
    fn decode<T: DeserializeOwned>(&self, response: Response) -> anyhow::Result<Result<T, Refusal>> {
        let mut response = response.map_err(|error| {
            Failure::new(Exit::Unreachable, format!("no broker answers at {}: {error}", self.base))
                .hint("is `pelton serve` running? --http-server says where")
        })?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.with_context(|| format!("read the response of {}", self.base))?;
        if status.is_success() {
            let answer = serde_json::from_slice(&body);
            return answer.map(Ok).with_context(|| format!("decode the response of {}", self.base));
        }
        Ok(Err(serde_json::from_slice::<Refusal>(&body).unwrap_or_else(|_| Refusal {
            error: format!("{status}: {}", String::from_utf8_lossy(&body)),
            hint: None,
            state: serde_json::Value::Null,
        })))
    }
}

/// Asks until the answer is another one than that the table is being restored.
fn restored<T>(
    patience: Duration,
    ask: impl Fn() -> anyhow::Result<Result<T, Refusal>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + patience;
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(refusal) if refusal.is_of_restore() && Instant::now() < end => std::thread::sleep(AGAIN),
            Err(refusal) => return Err(refusal.failure()),
        }
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A client of a server that gives these answers, one after the other, and counts the requests.
    fn client(answers: Vec<(u16, &'static str)>) -> (HttpClient, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let http_server = listener.local_addr().unwrap().to_string();
        let served = std::thread::spawn(move || {
            let count = answers.len();
            for (status, body) in answers {
                let mut connection = listener.accept().unwrap().0;
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") {
                    connection.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let len = body.len();
                write!(
                    connection,
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
                )
                .unwrap();
            }
            count
        });
        let args = cli::Http { http_server, data_dir: "nowhere".into(), http_token: None };
        (HttpClient::new(&args), served)
    }

    const RESTORING: (u16, &str) = (503, r#"{"error":"table `t` is being restored","state":"restoring"}"#);
    const PAUSED: (u16, &str) = (503, r#"{"error":"pipeline `p` is paused","state":"paused"}"#);
    const ROW: (u16, &str) = (200, r#"{"key":"a"}"#);

    #[test]
    fn a_table_that_is_being_restored_is_asked_again() {
        let (client, served) = client(vec![RESTORING, RESTORING, ROW]);
        let row: serde_json::Value = client.get_restored("/v1/tables/t/records", TIMEOUT).unwrap();
        assert_eq!(row["key"], "a");
        assert_eq!(served.join().unwrap(), 3);
        let (client, served) = self::client(vec![RESTORING, ROW]);
        let lines: Vec<_> =
            client.lines("/v1/tables/t/follow", TIMEOUT).unwrap().map(Result::unwrap).collect();
        assert_eq!(lines, [ROW.1]);
        assert_eq!(served.join().unwrap(), 2);
    }

    #[test]
    fn another_refusal_is_told_at_once_and_so_is_the_end_of_patience() {
        for (answer, patience, error) in [
            (PAUSED, TIMEOUT, "pipeline `p` is paused"),
            (RESTORING, Duration::ZERO, "table `t` is being restored"),
            ((502, "no JSON"), TIMEOUT, "502 Bad Gateway: no JSON"),
        ] {
            let (client, served) = client(vec![answer]);
            let refused = client.get_restored::<serde_json::Value>("/v1/tables/t", patience).unwrap_err();
            assert_eq!(refused.to_string(), error);
            assert_eq!(served.join().unwrap(), 1);
        }
    }
}
