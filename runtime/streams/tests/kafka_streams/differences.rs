//! From where on a case is not compared: something has happened in it that Kafka Streams is meant to do otherwise
//! (`runtime/streams/OPERATORS.md`), and everything behind it follows from that.

use pelton_streams::operator::{LEFT, RIGHT};

use crate::case::{Case, Close, Kind, Node};
use crate::task::{Output, Task};

/// What the differences of one case depend on.
pub(crate) struct Watch {
    joins: Vec<JoinWatch>,
    /// Sessions that Kafka Streams has emitted: key, start, end.
    sessions: Vec<(String, i64, i64)>,
}

/// A result comes later than it could: all outputs of a case are the same nevertheless.
pub(crate) const JOIN_LATE: &str = "join-late";

/// A stream-stream join as Kafka Streams does it, as far as its differences go.
struct JoinWatch {
    operator: usize,
    kind: Kind,
    /// Before, after, grace.
    window: (i64, i64, i64),
    rows: Vec<JoinRow>,
    time: i64,
    /// The time of an unmatched row from which on it looks for others.
    first: i64,
}

struct JoinRow {
    side: usize,
    key: Vec<u8>,
    time: i64,
    /// It waits for a match, or for its end.
    waits: bool,
}

impl Watch {
    pub(crate) fn new(case: &Case, task: &Task<'_>) -> Watch {
        let nodes = case.nodes.iter().zip(&task.topology.operator_of);
        let joins = nodes.filter_map(|(node, operator)| match *node {
            Node::JoinStreams { kind, before, after, grace, .. } => Some(JoinWatch {
                operator: (*operator)?,
                kind,
                window: (before, after, grace),
                rows: Vec::new(),
                time: -1,
                first: i64::MAX,
            }),
            _ => None,
        });
        Watch { joins: joins.collect(), sessions: Vec::new() }
    }

    /// Which difference the input has met that was just processed.
    pub(crate) fn met(&mut self, case: &Case, task: &Task<'_>, kafka: &[Output]) -> Option<&'static str> {
        for (node, operator) in case.nodes.iter().zip(&task.topology.operator_of) {
            if let (Node::Sliding { .. }, Some(operator)) = (node, operator) {
                let counts = &task.counts[*operator];
                if counts.late_windows != counts.late {
                    return Some("sliding-late");
                }
            }
        }
        if let Some(difference) = self.joins.iter_mut().find_map(|join| join.met(task)) {
            return Some(difference);
        }
        if let Some(Node::Sessions { gap, emission, .. }) = case.nodes.last()
            && emission.close == Some(Close::Strategy)
            && self.extends_closed(*gap, kafka)
        {
            return Some("session-closed");
        }
        None
    }

    /// A session comes out that has grown out of one that came out before.
    fn extends_closed(&mut self, gap: i64, kafka: &[Output]) -> bool {
        let session = |(key, _, _): &Output| {
            let mut parts = key.as_deref()?.splitn(3, '@');
            let key = parts.next()?.to_owned();
            Some((key, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        };
        for (key, start, end) in kafka.iter().filter_map(session) {
            let near = |(other, from, to): &(String, i64, i64)| {
                *other == key && start <= to + gap && end + gap >= *from
            };
            if self.sessions.iter().any(near) {
                return true;
            }
            self.sessions.push((key, start, end));
        }
        false
    }
}

impl JoinWatch {
    fn met(&mut self, task: &Task<'_>) -> Option<&'static str> {
        let (operator, mut met) = (self.operator, None);
        for side in [LEFT, RIGHT] {
            let calls = task.topology.calls.iter().zip(&task.given);
            let given = calls.filter(|(call, _)| call.operator == operator && call.input == side);
            for row in given.flat_map(|(_, rows)| rows) {
                if let (Some(key), Some(_)) = (&row.key, &row.value) {
                    met = met.or(self.row(side, key, row.timestamp));
                }
            }
        }
        met
    }

    fn until(&self, side: usize) -> i64 {
        let (before, after, grace) = self.window;
        grace + if side == LEFT { after } else { before }
    }

    fn row(&mut self, side: usize, key: &[u8], time: i64) -> Option<&'static str> {
        self.time = self.time.max(time);
        let is_late = time == self.time && self.look(side);
        let (before, after, grace) = self.window;
        let matches = |row: &JoinRow| {
            let (left, right) = if side == LEFT { (time, row.time) } else { (row.time, time) };
            row.side != side && row.key == key && left - before <= right && right <= left + after
        };
        let (until, now) = ([self.until(LEFT), self.until(RIGHT)], self.time);
        let (mut has_matched, mut pairs_closed) = (false, false);
        for row in self.rows.iter_mut().filter(|row| matches(row)) {
            (has_matched, row.waits) = (true, false);
            // The one that came first was closed already when the other came.
            pairs_closed |= row.time + until[row.side] < now;
        }
        let is_outer = self.kind == Kind::Outer || self.kind == Kind::Left && side == LEFT;
        let end = time + until[side] - grace;
        let waits = is_outer && !has_matched && end >= now;
        if waits {
            self.first = self.first.min(time);
        }
        self.rows.push(JoinRow { side, key: key.to_vec(), time, waits });
        let is_early = is_outer && !has_matched && !waits && end + grace >= now;
        let met = [(pairs_closed, "join-closed"), (is_early, "join-early"), (is_late, JOIN_LATE)];
        met.into_iter().find_map(|(is, difference)| is.then_some(difference))
    }

    /// Kafka Streams looks for rows that have closed without a match, if the earliest one that it knows of has closed,
    /// by the length of the side that has come. It goes by the last row that it has seen there, not by the first that
    /// stays: whether one that has closed is overlooked.
    fn look(&mut self, side: usize) -> bool {
        let until = [self.until(LEFT), self.until(RIGHT)];
        let now = self.time;
        let is_closed = |row: &JoinRow| row.time + until[row.side] < now;
        if self.first.saturating_add(until[side]) < now {
            let mut waiting: Vec<_> = self.rows.iter_mut().filter(|row| row.waits).collect();
            waiting.sort_by_key(|row| (row.time, std::cmp::Reverse(row.side), row.key.clone()));
            self.first = i64::MAX;
            let mut is_open = [false; 2];
            for row in waiting {
                self.first = row.time;
                if is_open == [true; 2] {
                    break;
                }
                if is_closed(row) { row.waits = false } else { is_open[row.side] = true }
            }
        }
        self.rows.iter().any(|row| row.waits && is_closed(row))
    }
}
