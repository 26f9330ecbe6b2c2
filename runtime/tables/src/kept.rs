//! Following a table that somebody else keeps: the rows that it has, then every change of them, as [`follow`](crate::follow)
//! does it for tables that stand alone.
//!
//! The rows come from one view of each part of the table. The changes come from its changelog, from the offset of that view
//! on, as far as it is committed and no crash takes it back; so none is left out, and none comes twice. Whoever keeps the
//! table is not needed for them: it may be stopped and go on. While rows are sent, a part of the table that is about to be
//! closed ends it, so that nobody waits for a slow reader.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::state_tables::StateRow;
use pelton_wire::mutant::Mutant;
use pelton_wire::record::Columns;
use tokio::sync::watch;

use crate::follow::{BEHIND_MAX, End, FollowEvent, Out, Surroundings};
use crate::source::{At, TopicNow, Wake};
use crate::store::Life;

/// How often a follower without news looks whether it should end.
const LOOK_MS: u64 = 250;

/// Where a table stands in what it is made of: by topic and partition, the last offsets.
pub type Inputs = BTreeMap<String, BTreeMap<i32, i64>>;

/// Takes what the rows of a table reflect, and the offset of each partition of its changelog that comes next.
pub type OnBegin<'b> = dyn FnMut(Inputs, BTreeMap<u32, i64>) -> Result<(), Enough> + 'b;
/// Takes a row.
pub type OnRow<'r> = dyn FnMut(StateRow) -> Result<(), Enough> + 'r;

/// No more rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enough;

/// A table that somebody else keeps.
pub trait Kept: Send {
    /// The topic that has its changes.
    fn changelog(&self) -> &str;

    /// Moves when a part of the table is about to be closed.
    fn closing(&self) -> watch::Receiver<u64>;

    /// Shows all rows that are wanted, of one view of each partition. Ends early if it is told so.
    ///
    /// # Errors
    /// They cannot be read.
    fn rows(&self, begin: &mut OnBegin<'_>, row: &mut OnRow<'_>) -> Result<(), String>;

    /// What a change says of a row that is wanted; none if it says nothing.
    ///
    /// # Errors
    /// It cannot be read.
    fn change(&self, key: &[u8], value: Option<&[u8]>) -> Result<Option<StateRow>, String>;
}

/// Follows until somebody ends it.
pub(crate) fn run(kept: &dyn Kept, around: &Surroundings, life: &Life, out: Out) -> Result<(), End> {
    let topic = around.source.topic(kept.changelog()).ok_or(End::Topic)?;
    let caught_up_ms = (around.clock)();
    let mut follower = Follower { kept, around, life, topic, out, caught_up_ms, next: BTreeMap::new() };
    follower.rows()?;
    follower.changes()
}

/// What is pushed while rows are shown, and why no more can be.
struct Sink<'o> {
    out: &'o mut Out,
    ended: Option<End>,
}

impl Sink<'_> {
    fn push(&mut self, event: FollowEvent) -> Result<(), Enough> {
        self.out.push(event).map_err(|end| {
            self.ended = Some(end);
            Enough
        })
    }
}

struct Follower<'f> {
    kept: &'f dyn Kept,
    around: &'f Surroundings,
    life: &'f Life,
    /// The changelog.
    topic: TopicNow,
    out: Out,
    /// When the reader was given all that there was.
    caught_up_ms: i64,
    /// By partition of the changelog.
    next: BTreeMap<u32, i64>,
}

impl Follower<'_> {
    fn rows(&mut self) -> Result<(), End> {
        // Before anything is opened: a closing that comes between is seen.
        self.out.interrupt(Some(self.kept.closing()));
        let changelog = self.kept.changelog().to_owned();
        let sink = RefCell::new(Sink { out: &mut self.out, ended: None });
        let mut next = BTreeMap::new();
        let begin = &mut |offsets: Inputs, places: BTreeMap<u32, i64>| {
            next.clone_from(&places);
            // The last offsets, as everywhere.
            let at = places.into_iter().map(|(partition, next)| (partition, next - 1)).collect();
            sink.borrow_mut().push(FollowEvent::KeptBegin { offsets, changelog: changelog.clone(), at })
        };
        let row = &mut |row| sink.borrow_mut().push(FollowEvent::KeptRow(row));
        let shown = self.kept.rows(begin, row);
        if let Some(end) = sink.into_inner().ended {
            return Err(end);
        }
        shown.map_err(End::Read)?;
        self.next = next;
        let skip = i64::from(Mutant::FollowSkipsOne.is_on());
        self.next.values_mut().for_each(|next| *next += skip);
        self.out.push(FollowEvent::Current)?;
        self.out.interrupt(None);
        self.out.send()
    }

    fn changes(&mut self) -> Result<(), End> {
        let mut news = Arc::clone(&self.around.source).news();
        for partition in self.next.keys() {
            news.watch(*partition, &self.at(*partition));
        }
        let (wake, mut records) = (Wake::default(), Columns::new());
        loop {
            if let Some(why) = self.life.ended() {
                return Err(End::Table(why));
            }
            if self.out.is_gone() {
                return Err(End::ReaderGone);
            }
            if self.around.source.topic(self.kept.changelog()).map(|now| now.id) != Some(self.topic.id) {
                return Err(End::Topic);
            }
            let now_ms = (self.around.clock)();
            let mut more = false;
            for partition in self.next.keys().copied().collect::<Vec<_>>() {
                more |= self.read(partition, &mut records)?;
            }
            self.out.send()?;
            if more {
                self.is_in_time()?;
            } else {
                self.caught_up_ms = now_ms;
                drop(news.wait(&wake, LOOK_MS));
            }
        }
    }

    fn at(&self, partition: u32) -> At {
        At { topic: self.kept.changelog().to_owned(), topic_id: self.topic.id, partition }
    }

    /// What has happened since the reader had everything is in the changelog still: compaction takes nothing of it away.
    fn is_in_time(&self) -> Result<(), End> {
        let patience_ms = i64::try_from(self.around.patience.as_millis()).unwrap_or(i64::MAX);
        let kept_ms = self.topic.delete_retention_ms.max(patience_ms);
        let behind_ms = (self.around.clock)().saturating_sub(self.caught_up_ms);
        if behind_ms > kept_ms && !Mutant::LateFollowed.is_on() { Err(End::Late) } else { Ok(()) }
    }

    /// Sends the changes of a partition, as many as one read gives. Whether there may be more.
    fn read(&mut self, partition: u32, records: &mut Columns) -> Result<bool, End> {
        let next = self.next.get(&partition).copied().unwrap_or(0);
        records.clear();
        let read = self.around.source.read(&self.at(partition), next, records);
        let read = read.map_err(|error| End::Read(error.to_string()))?;
        if read.readable - next > BEHIND_MAX {
            return Err(End::Behind);
        }
        let data = records.data();
        for (index, offset) in records.offsets().iter().enumerate() {
            let Some(key) = records.keys().get(data, index) else { continue };
            let change = self.kept.change(key, records.values().get(data, index));
            if let Some(row) = change.map_err(End::Read)? {
                self.out.push(FollowEvent::KeptChange { partition, offset: *offset, row })?;
            }
        }
        self.next.insert(partition, read.next_offset);
        Ok(read.next_offset < read.readable)
    }
}
