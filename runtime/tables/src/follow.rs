//! Following a table: the rows that it has, then every change of them, in the order of each partition, from one
//! offset of each partition.
//!
//! The rows come from one view of each store. The changes come from the topic itself, from the offset of that view
//! on, and no further than the store is: so none is left out, none comes twice, and nobody who is slow costs memory.
//! A follower has a thread, which reads as fast as its frames are taken.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pelton_streams::state::{StateError, StateView};
use pelton_streams::state_tables::StateRow;
use pelton_streams::tables::{Cursor, Merged, Row, RowRange, Scope};
use pelton_wire::mutant::Mutant;
use pelton_wire::record::Columns;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::Clock;
use crate::ask::{AskError, Offsets, Readable, reflect, stores_for};
use crate::source::{At, Source, TopicNow};
use crate::store::{Life, Store, StoreId, Table};

/// Frames that wait for the reader.
const FRAMES: usize = 4;
/// Bytes of a frame, at least one event.
const FRAME_BYTES: usize = 64 << 10;
/// A reader that takes no frame for so long is cut off, unless the spec of the tables says otherwise.
pub const FOLLOWER_PATIENCE: Duration = Duration::from_secs(10);
/// A reader that is so many offsets of a partition behind the table is cut off: compaction may soon take what it has
/// not seen.
pub(crate) const BEHIND_MAX: i64 = 1_000_000;
/// Rows after which it is looked whether the reader has fallen behind.
const ROWS_BETWEEN_LOOKS: u32 = 1_000;
/// How often a follower without news looks whether it should end.
const LOOK: Duration = Duration::from_secs(1);

/// What a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowEvent {
    /// The rows that follow reflect these offsets, by partition.
    Begin { offsets: BTreeMap<u32, i64> },
    /// A row that the table has.
    Row(Row),
    /// That were all rows; changes follow.
    Current,
    /// A record of the topic. Without a value it deletes the row.
    Change { partition: u32, offset: i64, timestamp: i64, key: Vec<u8>, value: Option<Vec<u8>> },
    /// As [`FollowEvent::Begin`], of what a pipeline keeps: the offsets of what it is made of, and those of its changelog.
    KeptBegin { offsets: BTreeMap<String, BTreeMap<i32, i64>>, changelog: String, at: BTreeMap<u32, i64> },
    /// As [`FollowEvent::Row`].
    KeptRow(StateRow),
    /// As [`FollowEvent::Change`], with the place of the change in the changelog.
    KeptChange { partition: u32, offset: i64, row: StateRow },
}

/// A table that is being followed. Dropping it ends it.
pub struct Following {
    frames: mpsc::Receiver<Vec<FollowEvent>>,
    ended: Arc<OnceLock<String>>,
}

impl Following {
    /// The next events; `None` when there are no more.
    pub async fn next(&mut self) -> Option<Vec<FollowEvent>> {
        self.frames.recv().await
    }

    /// As [`Following::next`], for who polls.
    pub fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Vec<FollowEvent>>> {
        self.frames.poll_recv(cx)
    }

    /// Why there are no more.
    pub fn ended(&self) -> &str {
        self.ended.get().map_or("the server ended it", String::as_str)
    }
}

/// One of a bounded number of followers, whose number others can wait for.
pub(crate) struct Place(Arc<watch::Sender<u32>>);

impl Place {
    pub(crate) fn take(followers: &Arc<watch::Sender<u32>>, max: u32) -> Result<Place, AskError> {
        let take = |count: &mut u32| {
            let free = *count < max;
            *count += u32::from(free);
            free
        };
        if followers.send_if_modified(take) {
            Ok(Place(Arc::clone(followers)))
        } else {
            Err(AskError::TooManyFollowers(max))
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// Nobody is told.
    #[error("the reader has gone")]
    ReaderGone,
    #[error("the reader took nothing for {} ms", .0.as_millis())]
    Slow(Duration),
    #[error("the reader is more than {BEHIND_MAX} offsets of a partition behind the table")]
    Behind,
    #[error(
        "the reader has been behind the table for longer than the topic keeps what says that a row is deleted \
         (`delete.retention.ms`)"
    )]
    Late,
    #[error("{0}")]
    Table(&'static str),
    #[error("the table's store was closed, or is made again; follow it again")]
    Store,
    #[error("the topic has changed; follow the table again")]
    Topic,
    #[error("{0}")]
    Read(String),
}

impl From<StateError> for End {
    fn from(error: StateError) -> End {
        End::Read(error.to_string())
    }
}

/// What followers have of the process.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) runtime: Handle,
    /// How long a reader may take nothing.
    pub(crate) patience: Duration,
}

/// Begins to follow the rows of a range. The thread ends by itself.
pub(crate) fn follow(
    table: Arc<Table>,
    range: RowRange,
    around: Surroundings,
    place: Place,
) -> Result<Following, AskError> {
    // A table that cannot be read is refused here, with the reason.
    stores_for(&table, None)?;
    let name = table.name.clone();
    on_a_thread(name, place, move |frames| {
        let Surroundings { source, clock, runtime, patience } = around;
        let out = Out::new(Arc::clone(&table.life), frames, runtime, patience);
        Follower { table, range, source, clock, out, caught_up_ms: 0 }.run()
    })
}

/// Has a thread of its own follow something until it ends.
pub(crate) fn on_a_thread(
    name: String,
    place: Place,
    work: impl FnOnce(mpsc::Sender<Vec<FollowEvent>>) -> Result<(), End> + Send + 'static,
) -> Result<Following, AskError> {
    let (frames, taken) = mpsc::channel(FRAMES);
    let ended = Arc::new(OnceLock::new());
    let following = Following { frames: taken, ended: Arc::clone(&ended) };
    let run = move || {
        let _place = place;
        let open = frames.clone();
        let end = work(frames);
        let text = end.err().map_or_else(String::new, |end| end.to_string());
        // Set once, and before the channel is closed: who sees that asks why.
        let _ = ended.set(text);
        drop(open);
    };
    std::thread::Builder::new().name("table-follow".to_owned()).spawn(run).map_err(|error| {
        AskError::Failed { table: name, reason: format!("a thread for the reader does not start: {error}") }
    })?;
    Ok(following)
}

/// Events on their way to a reader.
pub(crate) struct Out {
    life: Arc<Life>,
    frames: mpsc::Sender<Vec<FollowEvent>>,
    runtime: Handle,
    patience: Duration,
    frame: Vec<FollowEvent>,
    bytes: usize,
    /// Moves when a store is about to be closed that is read now.
    closing: Option<watch::Receiver<u64>>,
}

impl Out {
    pub(crate) fn new(
        life: Arc<Life>,
        frames: mpsc::Sender<Vec<FollowEvent>>,
        runtime: Handle,
        patience: Duration,
    ) -> Out {
        Out { life, frames, runtime, patience, frame: Vec::new(), bytes: 0, closing: None }
    }

    /// While this moves no more frames are sent.
    pub(crate) fn interrupt(&mut self, closing: Option<watch::Receiver<u64>>) {
        self.closing = closing;
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.frames.is_closed()
    }

    pub(crate) fn push(&mut self, event: FollowEvent) -> Result<(), End> {
        self.bytes += match &event {
            FollowEvent::Row(row) => row.key.len() + row.value.len(),
            FollowEvent::Change { key, value, .. } => key.len() + value.as_ref().map_or(0, Vec::len),
            FollowEvent::KeptRow(row) | FollowEvent::KeptChange { row, .. } => {
                row.key.len() + row.value.as_ref().map_or(0, Vec::len)
            }
            FollowEvent::Begin { .. } | FollowEvent::KeptBegin { .. } | FollowEvent::Current => 0,
        };
        self.bytes += size_of::<FollowEvent>();
        self.frame.push(event);
        if self.bytes >= FRAME_BYTES { self.send() } else { Ok(()) }
    }

    pub(crate) fn send(&mut self) -> Result<(), End> {
        if self.frame.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let frame = std::mem::take(&mut self.frame);
        let closing = &mut self.closing;
        self.runtime.block_on(async {
            tokio::select! {
                sent = self.frames.send(frame) => sent.map_err(|_| End::ReaderGone),
                why = self.life.until_ended() => Err(End::Table(why)),
                () = until_moved(closing) => Err(End::Store),
                () = tokio::time::sleep(self.patience) => Err(End::Slow(self.patience)),
            }
        })
    }
}

/// Returns when there is something that moves, and it does.
async fn until_moved(closing: &mut Option<watch::Receiver<u64>>) {
    match closing {
        // Nobody says any more that it is closed, because it was.
        Some(closing) => drop(closing.changed().await),
        None => std::future::pending().await,
    }
}

struct Follower {
    table: Arc<Table>,
    range: RowRange,
    source: Arc<dyn Source>,
    clock: Arc<Clock>,
    out: Out,
    /// When the reader was given all that the table had.
    caught_up_ms: i64,
}

impl Follower {
    fn run(mut self) -> Result<(), End> {
        let stores = stores_for(&self.table, None).map_err(|error| End::Read(error.to_string()))?;
        let offsets = self.rows(&stores)?;
        let topic = self.table.topic().ok_or(End::Topic)?;
        if topic.partitions as usize != offsets.len() {
            return Err(End::Topic);
        }
        let name = self.table.definition.topic.clone();
        let at = |partition| At { topic: name.clone(), topic_id: topic.id, partition };
        let mut next: Vec<(At, i64)> = offsets
            .into_iter()
            .map(|(partition, offset)| {
                (at(partition), offset + 1 + i64::from(Mutant::FollowSkipsOne.is_on()))
            })
            .collect();
        self.out.push(FollowEvent::Current)?;
        let mut moved = self.table.watch();
        let mut records = Columns::new();
        loop {
            moved.borrow_and_update();
            self.check(&stores)?;
            if self.table.topic() != Some(topic) {
                return Err(End::Topic);
            }
            let now_ms = (self.clock)();
            let mut more = false;
            for (at, next) in &mut next {
                more |= self.changes(at, next, &mut records)?;
            }
            self.out.send()?;
            if more {
                self.is_in_time(topic)?;
            } else {
                self.caught_up_ms = now_ms;
                let gone = self.out.frames.clone();
                self.out.runtime.block_on(async {
                    tokio::select! {
                        _ = moved.changed() => {}
                        () = gone.closed() => {}
                        () = tokio::time::sleep(LOOK) => {}
                    }
                });
                if gone.is_closed() {
                    return Err(End::ReaderGone);
                }
            }
        }
    }

    /// Whether it should end.
    fn check(&self, stores: &[Readable]) -> Result<(), End> {
        if let Some(why) = self.table.ended() {
            return Err(End::Table(why));
        }
        let closed = |readable: &Readable| readable.store.generation() != readable.generation;
        if stores.iter().any(closed) { Err(End::Store) } else { Ok(()) }
    }

    /// What has happened since the reader had everything is in the topic still: compaction takes nothing of it away.
    fn is_in_time(&self, topic: TopicNow) -> Result<(), End> {
        let patience_ms = i64::try_from(self.out.patience.as_millis()).unwrap_or(i64::MAX);
        let kept_ms = topic.delete_retention_ms.max(patience_ms);
        let late =
            !Mutant::LateFollowed.is_on() && (self.clock)().saturating_sub(self.caught_up_ms) > kept_ms;
        if late { Err(End::Late) } else { Ok(()) }
    }

    /// Whether the table has gone on too far since it was as these offsets say.
    fn is_near(&self, offsets: &Offsets) -> Result<(), End> {
        for (partition, offset) in offsets {
            let store = self.store_of(*partition).ok_or(End::Store)?;
            let next = store.next(*partition).ok_or(End::Store)?;
            if next.saturating_sub(offset + 1) > BEHIND_MAX {
                return Err(End::Behind);
            }
        }
        Ok(())
    }

    fn store_of(&self, partition: u32) -> Option<Arc<Store>> {
        self.table.store(match self.table.definition.scope {
            Scope::Global => StoreId::Global,
            Scope::Partitioned => StoreId::Partition(partition),
        })
    }

    /// Sends the rows that the table has, and gives what they reflect.
    fn rows(&mut self, stores: &[Readable]) -> Result<Offsets, End> {
        self.caught_up_ms = (self.clock)();
        let topic = self.table.topic().ok_or(End::Topic)?;
        let views = stores.iter().map(|readable| readable.reader.pinned()).collect::<Result<Vec<_>, _>>()?;
        let views: Vec<&dyn StateView> = views.iter().map(|view| &**view).collect();
        let mut offsets = Offsets::new();
        for view in &views {
            reflect(*view, &mut offsets)?;
        }
        self.out.push(FollowEvent::Begin { offsets: offsets.clone() })?;
        let mut rows = Merged::new(views.iter().map(|view| Cursor::new(*view, self.range.clone())).collect());
        let mut looked: u32 = 0;
        while let Some((_, row)) = rows.next()? {
            self.check(stores)?;
            self.out.push(FollowEvent::Row(row))?;
            looked = looked.wrapping_add(1);
            if looked.is_multiple_of(ROWS_BETWEEN_LOOKS) {
                self.is_near(&offsets)?;
                self.is_in_time(topic)?;
            }
        }
        Ok(offsets)
    }

    /// Sends the changes of a partition that the store has by now, as many as one read gives. Whether there may be
    /// more.
    fn changes(&mut self, at: &At, next: &mut i64, records: &mut Columns) -> Result<bool, End> {
        let store = self.store_of(at.partition).ok_or(End::Store)?;
        let end = store.next(at.partition).ok_or(End::Store)?;
        if *next >= end {
            return Ok(false);
        }
        if end - *next > BEHIND_MAX {
            return Err(End::Behind);
        }
        records.clear();
        let read = self.source.read(at, *next, records).map_err(|error| End::Read(error.to_string()))?;
        let data = records.data();
        for (index, offset) in records.offsets().iter().enumerate().filter(|(_, offset)| **offset < end) {
            let Some(key) = records.keys().get(data, index).filter(|key| self.range.contains(key)) else {
                continue;
            };
            self.out.push(FollowEvent::Change {
                partition: at.partition,
                offset: *offset,
                timestamp: records.timestamps()[index],
                key: key.to_vec(),
                value: records.values().get(data, index).map(<[u8]>::to_vec),
            })?;
        }
        *next = read.next_offset.min(end);
        Ok(*next < end)
    }
}
