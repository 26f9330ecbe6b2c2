//! What is alive of each key, packed into one entry, and when that has to be looked at.
//!
//! One entry for each key means one read and one write for each row, and reads that can be asked for ahead. The
//! moment at which something of a key closes moves with its rows, and writing it each time would double the writes.
//! So the index has a lower bound: whoever comes at that moment and finds that it was moved writes the new one down.
//!
//! ```text
//! 02 key                            version(1) due(8) what the operator keeps
//! 03 due(8) key                     nothing
//! 04 key* end(8) start(8)           a closed window's envelope and state
//! 05 forgotten(8) key* end(8) start(8)
//! ```

use super::backlog::Spill;
use super::envelope;
use super::key::{push_escaped, push_i64, read_i64, sortable, tag, tagged};
use super::meta::Meta;
use super::windows::{Closing, Emit};
use super::{Context, OperatorError, Row};
use crate::state::{Blob, KeyRange, StoreIndex};

const VERSION: u8 = 1;
/// Keys that are looked at together when something of them may close.
const CHUNK: usize = 1_024;
/// Bytes before what the operator keeps.
const HEADER: usize = 9;

/// The moments at which keys have to be looked at.
pub(super) struct Due {
    store: StoreIndex,
    /// Nothing is due before this; none: the index was not looked at yet.
    next: Option<i64>,
}

impl Due {
    pub(super) fn new(store: StoreIndex) -> Due {
        Due { store, next: None }
    }

    pub(super) fn reset(&mut self) {
        self.next = None;
    }

    /// The key has to be looked at `to`, not `from`.
    fn moved(&mut self, cx: &mut Context<'_>, key: &[u8], from: Option<i64>, to: Option<i64>) {
        if from == to {
            return;
        }
        let entry = |at: i64| [&[tag::DUE][..], &sortable(at), key].concat();
        if let Some(from) = from {
            cx.delete(self.store, &entry(from));
        }
        if let Some(to) = to {
            cx.put(self.store, &entry(to), &[]);
            self.next = self.next.map(|next| next.min(to));
        }
    }

    /// Up to `limit` keys that have to be looked at by now.
    pub(super) fn keys(
        &mut self,
        cx: &Context<'_>,
        now: i64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, OperatorError> {
        if self.next.is_some_and(|next| next > now) {
            return Ok(Vec::new());
        }
        // What was looked at before is gone, and takes time to pass.
        let from = self.next.map_or(vec![tag::DUE], |next| [&[tag::DUE][..], &sortable(next)].concat());
        let range = KeyRange { from: &from, to: Some(&[tag::DUE + 1]), reverse: false };
        // One more, to see when the next one is due.
        let (entries, _) = cx.scan(self.store, range, limit + 1)?;
        let mut keys = Vec::new();
        self.next = Some(i64::MAX);
        for (entry, _) in entries {
            let (at, key) =
                read_i64(&entry[1..]).ok_or_else(|| OperatorError::damaged(self.store, &entry))?;
            if at > now || keys.len() == limit {
                self.next = Some(at);
                break;
            }
            keys.push(key.to_vec());
        }
        Ok(keys)
    }
}

/// What is alive of one key.
pub(super) struct Live {
    blob: Option<Blob>,
    due: Option<i64>,
}

impl Live {
    pub(super) fn read(cx: &mut Context<'_>, store: StoreIndex, key: &[u8]) -> Result<Live, OperatorError> {
        let blob = cx.get(store, key)?;
        let Some(bytes) = blob.as_deref() else { return Ok(Live { blob: None, due: None }) };
        match bytes.split_first_chunk::<HEADER>() {
            Some((&[VERSION, ref due @ ..], _)) => Ok(Live { due: Some(i64::from_be_bytes(*due)), blob }),
            _ => Err(OperatorError::damaged(store, key)),
        }
    }

    /// What the operator keeps.
    pub(super) fn body(&self) -> &[u8] {
        self.blob.as_deref().map_or(&[], |blob| &blob[HEADER..])
    }

    /// Begins an entry: what is appended to `out` is what the operator keeps.
    pub(super) fn begin(out: &mut Vec<u8>) {
        out.clear();
        out.push(VERSION);
        out.extend_from_slice(&[0; HEADER - 1]);
    }

    /// Writes an entry that [`Live::begin`] began, in the place of this one. It has to be looked at by `close`; what
    /// is there already stays if it is no later.
    pub(super) fn write(
        &self,
        cx: &mut Context<'_>,
        index: &mut Due,
        stored_key: &[u8],
        out: &mut [u8],
        close: i64,
    ) {
        let due = self.due.filter(|due| *due <= close).unwrap_or(close);
        self.write_at(cx, index, stored_key, out, due);
    }

    /// The same at a moment when it is looked at: the next one is `close`.
    pub(super) fn write_at(
        &self,
        cx: &mut Context<'_>,
        index: &mut Due,
        stored_key: &[u8],
        out: &mut [u8],
        close: i64,
    ) {
        out[1..HEADER].copy_from_slice(&close.to_be_bytes());
        cx.put(index.store, stored_key, out);
        index.moved(cx, &stored_key[1..], self.due, Some(close));
    }

    /// Nothing is alive any more.
    pub(super) fn remove(&self, cx: &mut Context<'_>, index: &mut Due, stored_key: &[u8]) {
        cx.delete(index.store, stored_key);
        index.moved(cx, &stored_key[1..], self.due, None);
    }
}

/// Where what is alive of a key is.
pub(super) fn push_live(out: &mut Vec<u8>, key: &[u8]) {
    tagged(out, tag::LIVE);
    out.extend_from_slice(key);
}

/// A window that has closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClosedWindow {
    pub(super) end: i64,
    pub(super) start: i64,
    pub(super) key: Vec<u8>,
    pub(super) timestamp: i64,
    pub(super) state: Vec<u8>,
}

impl ClosedWindow {
    /// What is emitted of it takes about so many bytes.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + self.state.len()
    }
}

/// What a node of such keys has, sessions or sliding windows.
pub(super) struct Packed {
    pub(super) store: StoreIndex,
    pub(super) closing: Closing,
    pub(super) meta: Meta,
    pub(super) due: Due,
    /// The stream time before which nothing is left that was to be forgotten.
    forgotten: i64,
}

impl Packed {
    pub(super) fn new(store: StoreIndex, closing: Closing) -> Packed {
        Packed { store, closing, meta: Meta::new(store), due: Due::new(store), forgotten: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.meta.reset();
        self.due.reset();
        self.forgotten = 0;
    }
}

/// A node of such keys.
pub(super) trait OfPacked {
    fn packed(&mut self) -> &mut Packed;

    /// Looks at a key that is due: what has closed of it leaves what is alive, and is appended.
    fn look_at(
        &mut self,
        key: &[u8],
        closed: &mut Vec<ClosedWindow>,
        cx: &mut Context<'_>,
    ) -> Result<(), OperatorError>;

    /// Emits what is final.
    fn emit_closed(&mut self, window: ClosedWindow, cx: &mut Context<'_>) -> Result<(), OperatorError>;
}

/// Moves stream time to a row, and emits what closes by that, in the order of ends, starts and keys. Whether that is all: see
/// `backlog::Paced::close_before`.
pub(super) fn close_before(
    node: &mut impl OfPacked,
    row: &Row,
    again: bool,
    cx: &mut Context<'_>,
) -> Result<bool, OperatorError> {
    if !Context::is_timed(row) {
        return Ok(true);
    }
    let packed = node.packed();
    let moved = packed.meta.observe(row.timestamp).is_some();
    if packed.closing.emit == Emit::OnUpdate || !(moved || again) {
        return Ok(true);
    }
    let mut spill = Spill::new(packed.store, again, cx)?;
    let (closed, is_all) = spill.close(cx, CHUNK, |cx, keys, closed| look(node, cx, keys, closed))?;
    closed.into_iter().try_for_each(|window| node.emit_closed(window, cx))?;
    Ok(is_all)
}

/// Looks at up to `limit` keys that are due. Appends what has closed; whether there may be more.
fn look(
    node: &mut impl OfPacked,
    cx: &mut Context<'_>,
    limit: usize,
    closed: &mut Vec<ClosedWindow>,
) -> Result<bool, OperatorError> {
    let Packed { due, meta, .. } = node.packed();
    let keys = due.keys(cx, meta.stream_time(), limit)?;
    let (mut bytes, mut counted) = (0, closed.len());
    for key in &keys {
        bytes += closed[counted..].iter().map(ClosedWindow::bytes).sum::<usize>();
        counted = closed.len();
        if cx.closing.is_exceeded_by(bytes) {
            // The rest is still due.
            node.packed().due.reset();
            return Ok(true);
        }
        node.look_at(key, closed, cx)?;
    }
    Ok(keys.len() == limit)
}

/// `Operator::maintain` of such a node.
pub(super) fn maintain(
    node: &mut impl OfPacked,
    cx: &mut Context<'_>,
    budget: usize,
) -> Result<bool, OperatorError> {
    let packed = node.packed();
    packed.meta.load(cx)?;
    let now = packed.meta.stream_time();
    let more = forget(cx, packed.store, (&mut packed.forgotten, now), budget)?;
    if packed.closing.emit == Emit::OnClose {
        return Ok(more);
    }
    Ok(look(node, cx, budget, &mut Vec::new())? || more)
}

/// Keeps a closed window for readers until stream time is `forgotten`.
pub(super) fn keep(cx: &mut Context<'_>, store: StoreIndex, window: &ClosedWindow, forgotten: i64) {
    let mut place = Vec::with_capacity(window.key.len() + 18);
    push_escaped(&mut place, &window.key);
    push_i64(&mut place, window.end);
    push_i64(&mut place, window.start);
    let mut stored = Vec::with_capacity(envelope::HEADER + window.state.len());
    envelope::encode(&mut stored, window.timestamp, &window.state);
    cx.put(store, &[&[tag::CLOSED][..], &place].concat(), &stored);
    cx.put(store, &[&[tag::EXPIRY][..], &sortable(forgotten), &place].concat(), &[]);
}

/// Forgets up to `budget` closed windows; whether there may be more. None is left that was to be forgotten before `from`, which
/// moves on.
fn forget(
    cx: &mut Context<'_>,
    store: StoreIndex,
    (from, now): (&mut i64, i64),
    budget: usize,
) -> Result<bool, OperatorError> {
    if *from > now {
        return Ok(false);
    }
    let [start, end] = [*from, now + 1].map(|at| [&[tag::EXPIRY][..], &sortable(at)].concat());
    let range = KeyRange { from: &start, to: Some(&end), reverse: false };
    let (entries, more) = cx.scan(store, range, budget)?;
    for (entry, _) in &entries {
        let (at, place) = read_i64(&entry[1..]).ok_or_else(|| OperatorError::damaged(store, entry))?;
        cx.delete(store, &[&[tag::CLOSED][..], place].concat());
        cx.delete(store, entry);
        *from = at;
    }
    if !more {
        *from = now + 1;
    }
    Ok(more)
}

/// Asks for what is alive of the keys of rows.
pub(super) fn prefetch(cx: &mut Context<'_>, store: StoreIndex, rows: &[Row]) -> Result<(), OperatorError> {
    prefetch_tagged(cx, store, tag::LIVE, rows)
}

/// Asks for the entries of the keys of rows that have a tag before them.
pub(super) fn prefetch_tagged(
    cx: &mut Context<'_>,
    store: StoreIndex,
    tag: u8,
    rows: &[Row],
) -> Result<(), OperatorError> {
    let (mut keys, mut ends) = (Vec::new(), Vec::new());
    for key in rows.iter().filter(|row| row.window.is_none()).filter_map(|row| row.key.as_deref()) {
        keys.push(tag);
        keys.extend_from_slice(key);
        ends.push(keys.len());
    }
    let mut from = 0;
    let keys = ends.iter().map(|end| &keys[std::mem::replace(&mut from, *end)..*end]);
    Ok(cx.state.prefetch(store, keys)?)
}
