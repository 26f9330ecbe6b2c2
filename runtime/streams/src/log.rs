//! The log lines of plugins, bounded in number and size and kept in a ring for `pelton pipeline logs`.

use std::collections::VecDeque;
use std::fmt;

/// A longer line is cut at a character border. Long enough for a sentence and an identifier.
pub const MAX_LINE_BYTES: usize = 1024;
/// Lines that one call may write; further ones are dropped and counted.
pub const MAX_LINES_PER_CALL: u32 = 100;
/// Bytes that a pipeline's ring keeps: the last few hundred lines.
pub const DEFAULT_RING_BYTES: usize = 512 * 1024;
/// Bytes that an entry takes in the ring besides its text.
const ENTRY_OVERHEAD_BYTES: usize = 64;

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

/// Takes the lines of one instance. Called on the thread that runs the plugin, so it must be quick and never block.
pub trait LogSink: Send + Sync {
    /// `text` has no line breaks and at most [`MAX_LINE_BYTES`].
    fn write(&self, level: LogLevel, text: &str);
}

/// Drops every line.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _level: LogLevel, _text: &str) {}
}

/// One kept line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number, which only rises: a reader that polls sees by it what it has missed.
    pub sequence: u64,
    /// When it was written: milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// The node of the pipeline that wrote it.
    pub node: String,
    /// The input partition whose task wrote it.
    pub partition: i32,
    /// The level.
    pub level: LogLevel,
    /// The line.
    pub text: String,
}

/// The last lines of one pipeline, bounded by bytes; the oldest go first.
#[derive(Debug)]
pub struct LogRing {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    max_bytes: usize,
    next_sequence: u64,
}

impl Default for LogRing {
    fn default() -> LogRing {
        LogRing::new(DEFAULT_RING_BYTES)
    }
}

impl LogRing {
    /// An empty ring of at most `max_bytes`. One line is always kept, however small that is.
    pub fn new(max_bytes: usize) -> LogRing {
        LogRing { entries: VecDeque::new(), bytes: 0, max_bytes, next_sequence: 0 }
    }

    /// Adds a line, and removes the oldest ones beyond the bound.
    pub fn push(&mut self, timestamp_ms: i64, node: &str, partition: i32, level: LogLevel, text: &str) {
        let entry = LogEntry {
            sequence: self.next_sequence,
            timestamp_ms,
            node: node.to_owned(),
            partition,
            level,
            text: clip(text, MAX_LINE_BYTES).to_owned(),
        };
        self.next_sequence += 1;
        self.bytes += cost(&entry);
        self.entries.push_back(entry);
        while self.bytes > self.max_bytes && self.entries.len() > 1 {
            if let Some(old) = self.entries.pop_front() {
                self.bytes -= cost(&old);
            }
        }
    }

    /// The kept lines from `sequence` on, oldest first.
    pub fn since(&self, sequence: u64) -> impl Iterator<Item = &LogEntry> {
        self.entries.iter().filter(move |entry| entry.sequence >= sequence)
    }

    /// The sequence that the next line gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
}

fn cost(entry: &LogEntry) -> usize {
    entry.text.len() + entry.node.len() + ENTRY_OVERHEAD_BYTES
}

/// The longest prefix of `text` of at most `max` bytes that ends between characters.
pub fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_lines_within_its_bytes() {
        let mut ring = LogRing::new(3 * (ENTRY_OVERHEAD_BYTES + 1 + 4));
        for i in 0..10 {
            ring.push(i, "n", 0, LogLevel::Info, &format!("l{i:03}"));
        }
        let texts = |from| ring.since(from).map(|e| e.text.as_str()).collect::<Vec<_>>();
        assert_eq!(texts(0), ["l007", "l008", "l009"]);
        assert_eq!(texts(9), ["l009"]);
        assert_eq!(texts(10), [""; 0]);
        assert_eq!(ring.next_sequence(), 10);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let mut ring = LogRing::new(1);
        ring.push(0, "n", 0, LogLevel::Warn, &"é".repeat(MAX_LINE_BYTES));
        let line = ring.since(0).next().map(|e| e.text.clone()).unwrap_or_default();
        assert_eq!(line, "é".repeat(MAX_LINE_BYTES / 2));
    }
}
