//! The log lines of plugins, bounded in number and size, on their way to where `pelton pipeline logs` reads them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::meter::CallReport;

/// A longer line is cut at a character border. Long enough for a sentence and an identifier.
pub const MAX_LINE_BYTES: usize = 1024;
/// Lines that one call may write; further ones are dropped and counted.
pub const MAX_LINES_PER_CALL: u32 = 100;
/// Bytes of a ring that nobody takes lines from, as a replay's: the last few hundred.
pub const DEFAULT_RING_BYTES: usize = 512 * 1024;
/// Bytes that an entry takes in the ring besides its text.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// The levels of `pelton:plugin/log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For the author of the plugin.
    Debug,
    /// Normal progress.
    Info,
    /// Something unexpected that the plugin has handled.
    Warn,
    /// Something failed. The text of a panic is one of these.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        })
    }
}

/// Which record a call begins with: what the lines of the call are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace<'a> {
    /// The topic that it was read from.
    pub topic: &'a str,
    /// The partition of that topic.
    pub partition: i32,
    /// Its offset; -1: it was made from no stored record.
    pub offset: i64,
    /// How many records the call is given.
    pub records: u64,
}

/// Takes the lines of one instance, and is told of its calls. Called on the thread that runs the plugin, so it must be quick and never block.
pub trait LogSink: Send + Sync {
    /// `text` has no line breaks and at most [`MAX_LINE_BYTES`].
    fn write(&self, level: LogLevel, text: &str);

    /// What the next call and its lines are about; `None`: no record, as of a timer.
    fn about(&self, _place: Option<LogPlace<'_>>) {}

    /// A call has ended.
    fn called(&self, _call: &CallReport) {}
}

/// Drops every line.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _level: LogLevel, _text: &str) {}
}

/// One line of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written: milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The pipeline.
    pub pipeline: Arc<str>,
    /// The node of the pipeline that wrote it; `pelton`, `source` and such are the server itself.
    pub node: Arc<str>,
    /// The digest of the plugin that wrote it; empty: the server.
    pub plugin: Arc<str>,
    /// The topic of the record that the call began with; empty: it was about no record.
    pub topic: Arc<str>,
    /// The partition that it is about; -1: none.
    pub partition: i32,
    /// The offset of the first record that the call was given; -1: none.
    pub offset: i64,
    /// The level.
    pub level: LogLevel,
    /// What it says, at most [`MAX_LINE_BYTES`].
    pub text: String,
}

/// One kept line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number, which only rises.
    pub sequence: u64,
    /// The line.
    pub line: LogLine,
}

/// The last lines, bounded by bytes; the oldest go first.
#[derive(Debug)]
pub struct LogRing {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    max_bytes: usize,
    next_sequence: u64,
    dropped: u64,
}

impl Default for LogRing {
    fn default() -> LogRing {
        LogRing::new(DEFAULT_RING_BYTES)
    }
}

impl LogRing {
    /// An empty ring of at most `max_bytes`. One line is always kept, however small that is.
    pub fn new(max_bytes: usize) -> LogRing {
        LogRing { entries: VecDeque::new(), bytes: 0, max_bytes, next_sequence: 0, dropped: 0 }
    }

    /// Adds a line, and removes the oldest ones beyond the bound.
    pub fn push(&mut self, mut line: LogLine) {
        let cut = clip(&line.text, MAX_LINE_BYTES).len();
        line.text.truncate(cut);
        let entry = LogEntry { sequence: self.next_sequence, line };
        self.next_sequence += 1;
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
        while self.bytes > self.max_bytes && self.entries.len() > 1 {
            self.dropped += 1;
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(old) = self.entries.pop_front() {
            self.bytes -= cost(&old);
        }
    }

    /// The kept lines from `sequence` on, oldest first.
    pub fn since(&self, sequence: u64) -> impl Iterator<Item = &LogEntry> {
        self.entries.iter().filter(move |entry| entry.sequence >= sequence)
    }

    /// Lets go of the lines before `sequence`: they are kept elsewhere.
    pub fn forget_before(&mut self, sequence: u64) {
        while self.entries.front().is_some_and(|entry| entry.sequence < sequence) {
            self.pop();
        }
    }

    /// The sequence that the next line gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// How many lines went because there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn cost(entry: &LogEntry) -> usize {
    let line = &entry.line;
    // The names are shared by the lines of a call, mostly; they are counted as if they were not.
    line.text.len() + line.node.len() + line.topic.len() + line.pipeline.len() + ENTRY_OVERHEAD_BYTES
}

/// The longest prefix of `text` of at most `max` bytes that ends between characters.
pub fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        let name: Arc<str> = "n".into();
        LogLine {
            timestamp_ms: 0,
            pipeline: Arc::clone(&name),
            node: Arc::clone(&name),
            plugin: "".into(),
            topic: name,
            partition: 0,
            offset: 7,
            level: LogLevel::Info,
            text: text.to_owned(),
        }
    }

    #[test]
    fn the_ring_keeps_the_newest_lines_within_its_bytes() {
        let mut ring = LogRing::new(3 * (ENTRY_OVERHEAD_BYTES + 3 + 4));
        for i in 0..10 {
            ring.push(line(&format!("l{i:03}")));
        }
        let texts = |ring: &LogRing, from| ring.since(from).map(|e| e.line.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&ring, 0), ["l007", "l008", "l009"]);
        assert_eq!(texts(&ring, 9), ["l009"]);
        assert_eq!(texts(&ring, 10), [""; 0]);
        assert_eq!((ring.next_sequence(), ring.dropped()), (10, 7));
        ring.forget_before(9);
        assert_eq!((texts(&ring, 0), ring.dropped()), (vec!["l009".to_owned()], 7), "kept elsewhere");
        ring.forget_before(99);
        assert_eq!((ring.bytes, ring.next_sequence()), (0, 10));
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut ring = LogRing::new(1);
        ring.push(line(&"é".repeat(MAX_LINE_BYTES)));
        let line = ring.since(0).next().map(|e| e.line.text.clone()).unwrap_or_default();
        assert_eq!(line, "é".repeat(MAX_LINE_BYTES / 2));
    }
}
