//! Records on their way through a task.

use std::sync::Arc;

use bytes::Bytes;

use super::key;

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// As stored; Kafka wants UTF-8.
    pub name: Bytes,
    /// Null is a value of its own.
    pub value: Option<Bytes>,
}

/// The headers of a row. Most rows have none, and a copy is a reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowHeaders(Option<Arc<[Header]>>);

impl RowHeaders {
    /// These headers, in order.
    pub fn new(headers: Vec<Header>) -> RowHeaders {
        RowHeaders((!headers.is_empty()).then(|| headers.into()))
    }

    /// The headers in order.
    pub fn as_slice(&self) -> &[Header] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// How the bounds of a window are meant, and how its key is written to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowKind {
    /// Tumbling or hopping: the end is the first moment behind it.
    Time,
    /// Sliding: the end is its last moment.
    Sliding,
    /// A session: the times of its first and last row.
    Session,
}

/// The window that a result is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// How its bounds are meant.
    pub kind: WindowKind,
    /// Milliseconds since 1970-01-01 UTC.
    pub start: i64,
    /// See [`WindowKind`].
    pub end: i64,
}

/// What a row says of its key in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the row is one of a stream, or nobody needs what was before.
    #[default]
    Unknown,
    /// The key had this value, or none.
    Was(Option<Bytes>),
    /// A row of a table that was grouped by something else than its key: `was` has left this group, and the row's
    /// value has come into it. Both are of the key `origin` in the table.
    Grouped {
        /// What leaves the group.
        was: Option<Bytes>,
        /// The key in the table before grouping.
        origin: Bytes,
    },
}

impl Change {
    /// What was there before, as far as it is known.
    pub fn was(&self) -> Option<&Bytes> {
        match self {
            Change::Unknown => None,
            Change::Was(was) | Change::Grouped { was, .. } => was.as_ref(),
        }
    }
}

/// A record on its way through a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The number of the source record that triggered it: rises by one with each record that the task reads.
    pub sequence: u64,
    /// The key. With a window: without it, see [`Row::full_key`].
    pub key: Option<Bytes>,
    /// The value; none deletes the key where it is a table's.
    pub value: Option<Bytes>,
    /// Milliseconds since 1970-01-01 UTC; negative for none.
    pub timestamp: i64,
    /// The headers.
    pub headers: RowHeaders,
    /// The window that it is a result of.
    pub window: Option<Window>,
    /// What was there before.
    pub change: Change,
}

impl Row {
    /// The key as a topic would have it: with the window, if it is the result of one. This is the key for every
    /// operator behind a window that does not make windows itself, so it makes no difference whether a topic lies
    /// between them.
    pub fn full_key(&self) -> Option<Bytes> {
        let key = self.key.as_ref()?;
        Some(match &self.window {
            None => key.clone(),
            Some(window) => key::windowed(key, window).into(),
        })
    }
}
