//! What pipelines say, on its way to where it is kept.
//!
//! Drivers put lines into [`PipelineLogs`] and never wait; whoever keeps lines takes them out ([`PipelineLogs::pending`]) and says
//! when they are safe ([`PipelineLogs::forget_before`]). What comes faster than that pushes out the oldest, and is counted. Each
//! pipeline has a rate, so that one that logs each record does not push out what the others say.

use std::sync::Arc;

use parking_lot::Mutex;
use pelton_streams::log::{DEFAULT_RING_BYTES, LogEntry, LogLevel, LogLine, LogRing};

/// Bytes of lines of all pipelines that wait to be kept.
pub const PENDING_BYTES: usize = 8 << 20;
/// Lines that a pipeline may write in a second, unless its limits say otherwise.
pub const DEFAULT_LINES_PER_SECOND: u32 = 500;

/// The lines of all pipelines that are not kept yet.
#[derive(Debug)]
pub struct PipelineLogs {
    ring: Mutex<LogRing>,
}

impl PipelineLogs {
    /// Nothing yet, and at most so many bytes of it.
    pub fn new(max_bytes: usize) -> Arc<PipelineLogs> {
        Arc::new(PipelineLogs { ring: Mutex::new(LogRing::new(max_bytes)) })
    }

    fn push(&self, line: LogLine) {
        self.ring.lock().push(line);
    }

    /// The oldest lines that wait, about `bytes` of them and one at least if there is one.
    pub fn pending(&self, bytes: usize) -> Vec<LogEntry> {
        let (ring, mut sum) = (self.ring.lock(), 0);
        let fits = |entry: &&LogEntry| {
            let first = sum == 0;
            sum += entry.line.text.len() + ENTRY_BYTES;
            first || sum <= bytes
        };
        ring.since(0).take_while(fits).cloned().collect()
    }

    /// Lines up to there are kept.
    pub fn forget_before(&self, sequence: u64) {
        self.ring.lock().forget_before(sequence);
    }

    /// Lines that went before they were kept.
    pub fn dropped(&self) -> u64 {
        self.ring.lock().dropped()
    }
}

/// What a line has besides its text, about, as JSON.
const ENTRY_BYTES: usize = 256;

/// The log of one pipeline.
#[derive(Debug)]
pub(crate) struct PipelineLog {
    pipeline: Arc<str>,
    logs: Arc<PipelineLogs>,
    rate: Mutex<LogRate>,
}

/// Who says a line, and what it is about.
pub(crate) struct Said<'a> {
    pub(crate) node: &'a Arc<str>,
    pub(crate) plugin: &'a Arc<str>,
    pub(crate) topic: &'a Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) level: LogLevel,
}

impl PipelineLog {
    pub(crate) fn new(pipeline: &str, logs: Arc<PipelineLogs>) -> PipelineLog {
        let rate = Mutex::new(LogRate::new(DEFAULT_LINES_PER_SECOND));
        PipelineLog { pipeline: pipeline.into(), logs, rate }
    }

    /// Of something that is looked at while it runs, and not kept.
    pub(crate) fn passing() -> PipelineLog {
        PipelineLog::new("", PipelineLogs::new(DEFAULT_RING_BYTES))
    }

    /// Takes a line, if the pipeline has not said too much this second.
    pub(crate) fn say(&self, at_ms: i64, said: &Said<'_>, text: &str) {
        let (asked, most) = {
            let mut rate = self.rate.lock();
            (rate.ask(at_ms), rate.per_second)
        };
        match asked {
            Asked::Refused => {}
            Asked::Granted { refused: 0 } => self.put(at_ms, said, text),
            Asked::Granted { refused } => {
                let dropped =
                    format!("{refused} lines before this one were dropped: at most {most} a second are kept");
                self.put(at_ms, &Said { level: LogLevel::Warn, ..*said }, &dropped);
                self.put(at_ms, said, text);
            }
        }
    }

    /// Takes a line that must not be missing.
    pub(crate) fn put(&self, at_ms: i64, said: &Said<'_>, text: &str) {
        self.logs.push(LogLine {
            timestamp_ms: at_ms,
            pipeline: Arc::clone(&self.pipeline),
            node: Arc::clone(said.node),
            plugin: Arc::clone(said.plugin),
            topic: Arc::clone(said.topic),
            partition: said.partition,
            offset: said.offset,
            level: said.level,
            text: text.to_owned(),
        });
    }

    /// Lines of this and of every other pipeline of the same [`PipelineLogs`], not kept yet.
    pub(crate) fn since(&self, sequence: u64) -> (Vec<LogEntry>, u64) {
        let ring = self.logs.ring.lock();
        (ring.since(sequence).cloned().collect(), ring.next_sequence())
    }

    /// Lines that a second may have from now on.
    pub(crate) fn set_rate(&self, per_second: u32) {
        self.rate.lock().per_second = per_second;
    }

    /// Lines that were refused because the pipeline said too much.
    pub(crate) fn all_refused(&self) -> u64 {
        self.rate.lock().total
    }
}

/// Who may say how much: a second's lines at once, and as many again each second.
#[derive(Debug)]
struct LogRate {
    per_second: u32,
    /// Lines that are left, in thousandths.
    left: i64,
    at_ms: i64,
    /// Since the last line that was taken.
    refused: u64,
    total: u64,
}

/// Whether a line is taken.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Yes, behind so many that were not.
    Granted {
        refused: u64,
    },
    Refused,
}

impl LogRate {
    fn new(per_second: u32) -> LogRate {
        LogRate { per_second, left: i64::from(per_second) * 1000, at_ms: i64::MIN, refused: 0, total: 0 }
    }

    fn ask(&mut self, now_ms: i64) -> Asked {
        let most = i64::from(self.per_second) * 1000;
        // A clock that goes back gives nothing.
        let passed = now_ms.saturating_sub(self.at_ms).clamp(0, 1000);
        self.at_ms = now_ms;
        self.left = (self.left + passed * i64::from(self.per_second)).min(most);
        if self.left < 1000 {
            self.refused += 1;
            self.total += 1;
            return Asked::Refused;
        }
        self.left -= 1000;
        Asked::Granted { refused: std::mem::take(&mut self.refused) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_says_so_much_a_second_and_then_how_much_was_dropped() {
        let mut rate = LogRate::new(2);
        let granted = |refused| Asked::Granted { refused };
        assert_eq!([rate.ask(0), rate.ask(0), rate.ask(0)], [granted(0), granted(0), Asked::Refused]);
        assert_eq!(rate.ask(499), Asked::Refused);
        assert_eq!((rate.ask(500), rate.ask(500)), (granted(2), Asked::Refused));
        // A second's worth is all that is saved, and a clock that goes back gives nothing.
        assert_eq!(
            [rate.ask(60_000), rate.ask(60_000), rate.ask(60_000)],
            [granted(1), granted(0), Asked::Refused]
        );
        assert_eq!((rate.ask(0), rate.total), (Asked::Refused, 5));
        rate.per_second = 0;
        assert_eq!(rate.ask(i64::MAX), Asked::Refused);
    }

    #[test]
    fn a_line_behind_others_that_were_dropped_says_so() {
        let logs = PipelineLogs::new(1 << 20);
        let log = PipelineLog::new("p", Arc::clone(&logs));
        log.set_rate(2);
        let (node, none) = (Arc::from("n"), Arc::from(""));
        let said =
            Said { node: &node, plugin: &none, topic: &none, partition: 1, offset: 2, level: LogLevel::Info };
        (0..5).for_each(|n| log.say(0, &said, &format!("line {n}")));
        log.say(1_000, &said, "later");
        log.put(1_000, &said, "why it stops");
        let lines = logs.pending(usize::MAX);
        let texts: Vec<&str> = lines.iter().map(|entry| entry.line.text.as_str()).collect();
        let dropped = "3 lines before this one were dropped: at most 2 a second are kept";
        assert_eq!(texts, ["line 0", "line 1", dropped, "later", "why it stops"]);
        assert_eq!((lines[2].line.level, log.all_refused()), (LogLevel::Warn, 3));
    }

    #[test]
    fn who_keeps_lines_takes_the_oldest_and_says_when_they_are_safe() {
        let logs = PipelineLogs::new(1 << 20);
        let log = PipelineLog::new("p", Arc::clone(&logs));
        let (node, none) = (Arc::from("n"), Arc::from(""));
        let said =
            Said { node: &node, plugin: &none, topic: &none, partition: 1, offset: 2, level: LogLevel::Info };
        for i in 0..3 {
            log.say(i, &said, &format!("line {i}"));
        }
        let texts = |entries: &[LogEntry]| entries.iter().map(|e| e.line.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&logs.pending(0)), ["line 0"], "one at least");
        let two = logs.pending(2 * (ENTRY_BYTES + 6));
        assert_eq!(texts(&two), ["line 0", "line 1"]);
        logs.forget_before(two[1].sequence + 1);
        assert_eq!((texts(&logs.pending(usize::MAX)), logs.dropped()), (vec!["line 2".to_owned()], 0));
    }
}
