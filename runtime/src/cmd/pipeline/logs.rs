//! `pelton pipeline logs`: what a pipeline and its plugins have said, and go on to say.

use std::time::Duration;

use super::super::topic::print_line;
use crate::client::http::{HttpClient, segment};
use crate::report::note;
use pelton_streams::values::epoch_text;
use serde_json::Value;

/// How often new lines are asked for with `--follow`.
const POLL: Duration = Duration::from_millis(500);
/// Lines that are asked for at once.
const PAGE: u32 = 1_000;
/// Of a digest that is printed.
const DIGEST_CHARS: usize = 12;

/// Which lines are wanted, and how.
pub(super) struct Wanted {
    /// ms since 1970-01-01 UTC.
    pub(super) since: Option<i64>,
    pub(super) lines: u32,
    pub(super) follow: bool,
    pub(super) as_json: bool,
}

/// Prints lines; with `follow` until it is ended.
///
/// # Errors
/// There is no such pipeline, and there was none; the server does not answer.
pub(super) fn run(http: &HttpClient, name: &str, wanted: &Wanted) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/logs", segment(name)?);
    let Wanted { since, lines, .. } = wanted;
    let mut query = match since {
        Some(from_ms) => format!("from_ms={from_ms}&limit={PAGE}"),
        None => format!("limit={lines}"),
    };
    loop {
        let answer: Value = http.get(&format!("{path}?{query}"))?;
        let printed = answer["lines"].as_array().map_or(0, Vec::len);
        for line in answer["lines"].as_array().into_iter().flatten() {
            print_line(&if wanted.as_json { line.to_string() } else { text(line) })?;
        }
        if let Some(why) = answer["unwritten"].as_str() {
            note(&format!("the newest lines are not kept, and go with a restart: {why}"));
            return Ok(());
        }
        let is_page = since.is_some() && printed == PAGE as usize;
        if !is_page {
            if !wanted.follow {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        query = format!("since={}&limit={PAGE}", answer["next"]);
        if let Some(from_ms) = since {
            query.push_str(&format!("&from_ms={from_ms}"));
        }
    }
}

/// A line for people: when, how bad, which node and partition, which record, which plugin, what.
fn text(line: &Value) -> String {
    let word = |key: &str| line[key].as_str().unwrap_or("-");
    let mut text = format!(
        "{} {:5} {}[{}]",
        epoch_text(line["timestamp_ms"].as_i64().unwrap_or(0)),
        word("level"),
        word("node"),
        line["partition"]
    );
    if let Some(topic) = line["topic"].as_str() {
        match line["offset"].as_i64() {
            Some(offset) => text.push_str(&format!(" {topic}@{offset}")),
            None => text.push_str(&format!(" {topic}")),
        }
    }
    if let Some(digest) = line["plugin"].as_str() {
        let digest = digest.rsplit(':').next().unwrap_or(digest);
        text.push_str(&format!(" {}", &digest[..digest.floor_char_boundary(DIGEST_CHARS)]));
    }
    format!("{text} {}", word("text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_when_where_who_and_what() {
        let line = json!({
            "sequence": 5, "timestamp_ms": 1_767_225_600_123_i64, "level": "warn", "node": "work",
            "plugin": "sha256:0123456789abcdef", "topic": "in", "partition": 2, "offset": 17, "text": "odd"
        });
        assert_eq!(text(&line), "2026-01-01T00:00:00.123Z warn  work[2] in@17 0123456789ab odd");
        let own = json!({ "timestamp_ms": 0, "level": "error", "node": "pelton", "partition": -1, "text": "stopped" });
        assert_eq!(text(&own), "1970-01-01T00:00:00Z error pelton[-1] stopped");
    }
}
