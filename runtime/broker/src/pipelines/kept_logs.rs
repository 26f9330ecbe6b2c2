//! The log lines of pipelines in `__pelton_logs`, where they outlive restarts, revisions and the pipelines themselves.
//!
//! | | bytes |
//! |---|---|
//! | key | the name of the pipeline (UTF-8) |
//! | value | [`KeptLine`] as JSON |
//!
//! One partition, so lines have one order and their offset is the sequence that readers go on from. Once a second what pipelines
//! have said is written, and before anybody reads. A crash loses what is not written yet, and a disk that takes nothing costs the
//! oldest lines, which are counted: a pipeline never waits for its log. `retention.bytes` and `retention.ms` bound the topic.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton_pipelines::logs::PipelineLogs;
use pelton_streams::log::{LogEntry, LogLine};
use pelton_wire::record::Columns;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{ReadFault, read_committed};
use crate::blocking::run_blocking;
use crate::clock::Clock;
use crate::config::Config;
use crate::partition::{InternalRecord, Partition};
use crate::topic_config::Overrides;
use crate::topics::Topics;

/// Where lines are kept.
pub(crate) const TOPIC: &str = "__pelton_logs";
/// Lines that one request gets at the most.
pub(crate) const LINES_MAX: usize = 10_000;
/// Lines that a request gets that does not say how many.
pub(crate) const LINES: usize = 1_000;

/// How often lines are written.
const EVERY: Duration = Duration::from_secs(1);
/// One batch holds about so many bytes of lines, below `max.message.bytes`.
const BATCH_BYTES: usize = 256 << 10;
/// Segments of the topic: a sixteenth of what it may have, between these.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 64 << 20);

/// A line as the topic and HTTP have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptLine {
    /// When it was said, ms since 1970-01-01 UTC.
    pub(crate) timestamp_ms: i64,
    pub(crate) level: String,
    pub(crate) node: String,
    /// The digest of the plugin; none: the server says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plugin: Option<String>,
    /// The record that the call began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<String>,
    /// -1: about no partition.
    pub(crate) partition: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<i64>,
    pub(crate) text: String,
}

impl From<&LogLine> for KeptLine {
    fn from(line: &LogLine) -> KeptLine {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        KeptLine {
            timestamp_ms: line.timestamp_ms,
            level: line.level.to_string(),
            node: line.node.to_string(),
            plugin: some(&line.plugin),
            topic: some(&line.topic),
            partition: line.partition,
            offset: (line.offset >= 0).then_some(line.offset),
            text: line.text.clone(),
        }
    }
}

/// A line and its place; one without is not written yet.
#[derive(Debug, Serialize)]
pub(crate) struct ReadLine {
    pub(crate) sequence: Option<i64>,
    #[serde(flatten)]
    pub(crate) line: KeptLine,
}

/// Which lines of a pipeline are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The first sequence; `None`: the newest lines.
    pub(crate) since: Option<u64>,
    /// None that were said before.
    pub(crate) from_ms: Option<i64>,
    /// Up to [`LINES_MAX`].
    pub(crate) limit: usize,
}

/// Lines, and the sequence to ask for next.
#[derive(Debug, Serialize)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<ReadLine>,
    pub(crate) next: i64,
    /// Why the last of these could not be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unwritten: Option<String>,
}

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{TOPIC}` cannot be read: {0}")]
pub(crate) struct Unreadable(String);

/// The one who writes `__pelton_logs`.
pub(crate) struct KeptLogs {
    pub(crate) pending: Arc<PipelineLogs>,
    topics: Arc<Topics>,
    clock: Arc<dyn Clock>,
    retention_bytes: u64,
    retention_ms: i64,
    /// Held while lines are written. Whether the last time failed.
    failing: tokio::sync::Mutex<bool>,
}

impl KeptLogs {
    pub(crate) fn new(topics: Arc<Topics>, clock: Arc<dyn Clock>, config: &Config) -> Arc<KeptLogs> {
        Arc::new(KeptLogs {
            pending: PipelineLogs::new(pelton_pipelines::logs::PENDING_BYTES),
            topics,
            clock,
            retention_bytes: config.logs_retention_bytes,
            retention_ms: config.logs_retention_ms,
            failing: tokio::sync::Mutex::new(false),
        })
    }

    /// Writes what pipelines say until the broker stops.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            // It was said already why, and it is tried again.
            let _ = self.write().await;
        }
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// Why not. The lines wait for the next time, as long as there is room for them.
    pub(crate) async fn write(&self) -> Result<(), String> {
        let mut failing = self.failing.lock().await;
        let written = self.write_all().await;
        match &written {
            Ok(()) => *failing = false,
            // Once, not once a second.
            Err(error) if !*failing => {
                *failing = true;
                tracing::warn!(%error, "the log lines of pipelines cannot be written to `{TOPIC}`; it is tried again");
            }
            Err(_) => {}
        }
        written
    }

    async fn write_all(&self) -> Result<(), String> {
        loop {
            let entries = self.pending.pending(BATCH_BYTES);
            let Some(last) = entries.last() else { return Ok(()) };
            let records = entries.iter().map(record).collect::<Result<Vec<_>, _>>();
            let records = records.map_err(|error| error.to_string())?;
            let appended = self.partition().await?.append_records(&records, self.clock.now_ms());
            let appended = appended.map_err(|error| error.to_string())?;
            appended.durable().await.map_err(|error| error.to_string())?;
            self.pending.forget_before(last.sequence + 1);
        }
    }

    /// The partition, with today's settings.
    async fn partition(&self) -> Result<Arc<Partition>, String> {
        let segment = (self.retention_bytes / 16).clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1);
        let settings = [
            ("cleanup.policy", "delete".to_owned()),
            ("retention.bytes", self.retention_bytes.to_string()),
            ("retention.ms", self.retention_ms.to_string()),
            ("segment.bytes", segment.to_string()),
        ];
        let settings: Overrides = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let now_ms = self.clock.now_ms();
        let topic = self.topics.ensure_internal(TOPIC, 1, settings.clone(), now_ms).await;
        let mut topic = topic.map_err(|error| error.to_string())?;
        if settings.iter().any(|(name, value)| topic.overrides.get(name) != Some(value)) {
            let with = move |known: &Overrides| {
                let mut known = known.clone();
                known.extend(settings.clone());
                Ok(known)
            };
            topic = self.topics.configure(TOPIC, with).await.map_err(|error| error.to_string())?;
        }
        topic.partition(0).map(Arc::clone).map_err(|error| error.to_string())
    }

    /// Lines of a pipeline, oldest first, those included that were just said.
    ///
    /// # Errors
    /// The log of the topic cannot be read.
    pub(crate) async fn read(&self, pipeline: &str, wanted: Wanted) -> Result<Lines, Unreadable> {
        let unwritten = self.write().await.err();
        let mut found = match self.topics.partition(TOPIC, 0) {
            Err(_) => Lines { lines: Vec::new(), next: 0, unwritten: None },
            Ok(partition) => {
                let name = pipeline.to_owned();
                run_blocking(move || read(&partition, &name, wanted)).await?
            }
        };
        if unwritten.is_some() {
            let entries = self.pending.pending(usize::MAX);
            let lines = entries.iter().map(|entry| &entry.line).filter(|line| *line.pipeline == *pipeline);
            let lines = lines.filter(|line| wanted.from_ms.is_none_or(|from| line.timestamp_ms >= from));
            let room = wanted.limit.saturating_sub(found.lines.len());
            let lines = lines.take(room).map(|line| ReadLine { sequence: None, line: line.into() });
            found.lines.extend(lines);
            found.unwritten = unwritten;
        }
        Ok(found)
    }
}

fn record(entry: &LogEntry) -> serde_json::Result<InternalRecord> {
    let value = serde_json::to_vec(&KeptLine::from(&entry.line))?;
    let key = Bytes::copy_from_slice(entry.line.pipeline.as_bytes());
    Ok(InternalRecord { key: Some(key), value: Some(value.into()) })
}

/// Reads on from where the first wanted line can be.
fn read(partition: &Partition, pipeline: &str, wanted: Wanted) -> Result<Lines, Unreadable> {
    let end = partition.offsets().last_stable;
    let since = wanted.since.map(|since| i64::try_from(since).unwrap_or(i64::MAX));
    // Without a place to begin at, the newest: the whole topic is gone through, which is bounded.
    let is_newest = since.is_none() && wanted.from_ms.is_none();
    let mut offset = since.unwrap_or(0).max(partition.log_start_offset());
    let mut lines = VecDeque::new();
    let mut records = Columns::new();
    while offset < end {
        records.clear();
        offset = match read_committed(partition, offset, end, false, &mut records) {
            Ok(next) => next,
            Err(ReadFault::Deleted) => partition.log_start_offset(),
            Err(ReadFault::Unreadable(error)) => return Err(Unreadable(error)),
            Err(ReadFault::BadBatch { offset, reason }) => {
                return Err(Unreadable(format!("offset {offset}: {reason}")));
            }
        };
        for (i, at) in records.offsets().iter().enumerate() {
            if records.keys().get(records.data(), i) != Some(pipeline.as_bytes()) {
                continue;
            }
            // A line of a later version is left out.
            let value = records.values().get(records.data(), i);
            let Some(line) = value.and_then(|value| serde_json::from_slice::<KeptLine>(value).ok()) else {
                continue;
            };
            if wanted.from_ms.is_some_and(|from_ms| line.timestamp_ms < from_ms) {
                continue;
            }
            if lines.len() == wanted.limit {
                if !is_newest {
                    return Ok(Lines { lines: lines.into(), next: *at, unwritten: None });
                }
                lines.pop_front();
            }
            lines.push_back(ReadLine { sequence: Some(*at), line });
        }
    }
    Ok(Lines { lines: lines.into(), next: end.max(since.unwrap_or(0)), unwritten: None })
}
