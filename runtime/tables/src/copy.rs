//! Tables that are read in place, key by key, by who joins records with them: a *copy* of a whole topic for all who read it
//! in this process.
//!
//! A copy is a table like others, with one store for all partitions, under a name that no user can give (`@topic`). It is kept
//! as long as somebody wants its topic ([`Tables::keep_copies`]): on disk if tables are, so that a restart goes on where it was.
//! Where a table that stands alone is global and of the topic, it is read instead, and there is no copy. A table that is
//! created beside a copy takes its place at the next start; a table that is deleted leaves it to a copy that begins then.
//!
//! Who opens a copy is told when it has what was committed and on disk at that moment ([`Copy::progress`]), so that nothing is
//! joined with half a table. From then on it is as fresh as its owner keeps it. [`Copy::load`] takes one view of the store,
//! which says the offset of each partition that it reflects, and reads all keys that are asked for there; what it has read
//! before counts as long as the store has not moved since. So keys that are loaded together are of one moment, and no later
//! answer is of an earlier moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use pelton_streams::manifest::operator::GlobalOf;
use pelton_streams::state::StateView;
use pelton_streams::tables::{KeyPlacement, Row, Scope, StoreKind, TableDefinition, ValueFormat, row};
use pelton_wire::mutant::Mutant;
use tokio::sync::watch;

use crate::ask::{AskError, Offsets, Readable, reflect, stores_for};
use crate::service::{CreateError, Tables};
use crate::source::{At, Source, TopicId};
use crate::store::{StoreId, Table};

/// Memory of rows that a reader of a copy keeps beside it. What is asked for at once beyond that is read key by key.
const CACHE_BYTES: usize = 16 << 20;
/// Memory that a key takes there besides its bytes and those of its value.
const ENTRY_BYTES: usize = 96;

/// Why a copy is not read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CopyError {
    #[error("there is no table `{0}`")]
    NoTable(String),
    /// Nobody has said that it is wanted, or the server is stopping.
    #[error("no copy of topic {0} is kept")]
    NotKept(String),
    #[error("topic {0} does not exist")]
    NoTopic(String),
    #[error("topic {0} was deleted and created again")]
    Renewed(String),
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Why there can be no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyRefused {
    #[error("there is no table `{0}` that stands alone; `pelton table create {0} --topic TOPIC` makes one")]
    NoTable(String),
    #[error(transparent)]
    Topic(#[from] CreateError),
}

/// How far a copy is with a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyPart {
    pub partition: u32,
    /// The offset behind what was loaded last; the one that is read next as long as nothing was.
    pub next: i64,
    /// What has to be reached: what could be read when the copy was opened ends there.
    pub target: i64,
}

/// A copy, for one reader.
pub struct Copy {
    table: Arc<Table>,
    source: Arc<dyn Source>,
    topic_id: TopicId,
    /// [`Source::changes`] when the topic was looked at last.
    changes: u64,
    targets: BTreeMap<u32, i64>,
    moved: watch::Receiver<u64>,
    rows: HashMap<Box<[u8]>, Option<Bytes>>,
    bytes: usize,
    /// What `rows` reflect.
    offsets: Offsets,
}

/// What a copy of a topic is called.
pub(crate) fn copy_name(topic: &str) -> String {
    format!("@{topic}")
}

/// A copy as a table; on disk if there is one.
pub(crate) fn copy_of(topic: &str, on_disk: bool) -> Arc<Table> {
    let definition = TableDefinition {
        topic: topic.to_owned(),
        scope: Scope::Global,
        partitioner: KeyPlacement::Unknown,
        store: if on_disk { StoreKind::Rocksdb } else { StoreKind::Memory },
        value: ValueFormat::Raw,
        partitions: 0,
        created_at_ms: 0,
    };
    Table::new(copy_name(topic), definition)
}

impl Tables {
    /// The topics of which copies are wanted from now on: those that nobody wants any more are closed and removed.
    pub async fn keep_copies(&self, wanted: BTreeSet<String>) {
        for name in self.want_copies(wanted) {
            self.forget_stores(&name).await;
        }
    }

    /// Whether a copy could be read.
    ///
    /// # Errors
    /// The table or topic is not there, or its records do not stay until they are replaced.
    pub fn check_copy(&self, of: &GlobalOf) -> Result<(), CopyRefused> {
        match of {
            GlobalOf::Topic(topic) => Ok(self.check_topic(topic).map(drop)?),
            GlobalOf::Table(name) if self.defined(name).is_some() => Ok(()),
            GlobalOf::Table(name) => Err(CopyRefused::NoTable(name.clone())),
        }
    }

    /// Opens a copy for somebody who begins now.
    ///
    /// # Errors
    /// It is not there.
    pub fn open_copy(&self, of: &GlobalOf) -> Result<Copy, CopyError> {
        let table = match of {
            GlobalOf::Table(name) => self.defined(name).ok_or_else(|| CopyError::NoTable(name.clone()))?,
            GlobalOf::Topic(topic) => self.kept_of(topic).ok_or_else(|| CopyError::NotKept(topic.clone()))?,
        };
        let source = Arc::clone(self.source());
        let (moved, changes) = (table.watch(), source.changes());
        let name = &table.definition.topic;
        let gone = || CopyError::NoTopic(name.clone());
        let topic = source.topic(name).ok_or_else(gone)?;
        let mut targets = BTreeMap::new();
        for partition in 0..topic.partitions {
            let at = At { topic: name.clone(), topic_id: topic.id, partition };
            targets.insert(partition, source.bounds(&at).map_err(|_| gone())?.readable);
        }
        let (rows, bytes, offsets) = (HashMap::new(), 0, Offsets::new());
        Ok(Copy { table, source, topic_id: topic.id, changes, targets, moved, rows, bytes, offsets })
    }
}

impl Copy {
    /// The topic that it is a copy of.
    pub fn topic(&self) -> &str {
        &self.table.definition.topic
    }

    /// Whether the topic and the table are there still. Cheap when nothing has changed.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&mut self) -> Result<(), CopyError> {
        if let Some(why) = self.table.ended() {
            return Err(AskError::Ended { table: self.table.name.clone(), why }.into());
        }
        let changes = self.source.changes();
        if changes != self.changes {
            let name = || self.topic().to_owned();
            let now = self.source.topic(self.topic()).ok_or_else(|| CopyError::NoTopic(name()))?;
            if now.id != self.topic_id {
                return Err(CopyError::Renewed(name()));
            }
            self.changes = changes;
        }
        Ok(())
    }

    /// How far each partition is, and whether all of them have what was there when the copy was opened.
    ///
    /// # Errors
    /// It cannot be read, and its store says why.
    pub fn progress(&mut self) -> Result<(Vec<CopyPart>, bool), CopyError> {
        self.check()?;
        let (mut parts, mut ready) = (Vec::with_capacity(self.targets.len()), true);
        for (&partition, &target) in &self.targets {
            let of = |id| self.table.store(id);
            let store = of(StoreId::Global).or_else(|| of(StoreId::Partition(partition)));
            let live = store.as_ref().and_then(|store| store.next_of(self.topic_id, partition));
            let next = match (live, store.map(|store| store.status())) {
                (Some(next), _) => next,
                (None, None) => 0,
                (None, Some(status)) => {
                    if let Some(reason) = status.failure {
                        return Err(AskError::Failed { table: self.table.name.clone(), reason }.into());
                    }
                    let of_it = status.partitions.iter().find(|part| part.partition == partition);
                    of_it.map_or(0, |part| part.offset + 1)
                }
            };
            ready &= live.is_some_and(|next| next >= target);
            let next = self.offsets.get(&partition).map_or(next, |seen| seen + 1);
            parts.push(CopyPart { partition, next, target });
        }
        Ok((parts, ready || Mutant::CopyTooEarly.is_on()))
    }

    /// Returns when there may be progress.
    pub async fn moved(&mut self) {
        if self.moved.changed().await.is_err() {
            // Not while the table is held here.
            std::future::pending::<()>().await;
        }
    }

    /// Reads keys that are asked for next, all at one moment.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn load(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<(), CopyError> {
        let stores = stores_for(&self.table, None)?;
        let loaded = || {
            let views = stores.iter().map(|one| one.reader.view()).collect::<Result<Vec<_>, _>>()?;
            let mut offsets = Offsets::new();
            for view in &views {
                reflect(&**view, &mut offsets)?;
            }
            let is_stale = offsets != self.offsets && !Mutant::CopyCacheKept.is_on();
            if is_stale || self.bytes >= CACHE_BYTES {
                self.rows.clear();
                self.bytes = 0;
            }
            self.offsets = offsets;
            for key in keys {
                if self.bytes >= CACHE_BYTES {
                    break;
                }
                if !self.rows.contains_key(key) {
                    let value = value_of(&self.table, &views, key)?;
                    self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_BYTES;
                    self.rows.insert(key.into(), value);
                }
            }
            Ok(())
        };
        told(&self.table.clone(), &stores, loaded)
    }

    /// The value of a key: as it was loaded, or as it is now.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, CopyError> {
        if let Some(found) = self.rows.get(key) {
            return Ok(found.clone());
        }
        let stores = stores_for(&self.table, None)?;
        told(&self.table, &stores, || {
            let views = stores.iter().map(|one| one.reader.view()).collect::<Result<Vec<_>, _>>()?;
            value_of(&self.table, &views, key)
        })
    }

    /// The last offset of each partition that was loaded from, -1 for none.
    pub fn offsets(&self) -> &BTreeMap<u32, i64> {
        &self.offsets
    }
}

/// The row of a key, by partition where that is known; of several the latest.
fn value_of(
    table: &Table,
    views: &[Box<dyn StateView + '_>],
    key: &[u8],
) -> Result<Option<Bytes>, pelton_streams::state::StateError> {
    let partitions = u32::try_from(views.len()).unwrap_or(u32::MAX);
    let one = match table.definition.scope {
        Scope::Global => None,
        Scope::Partitioned => table.definition.partition_of(key, partitions),
    };
    let mut found: Option<Row> = None;
    for (_, view) in (0..).zip(views).filter(|(partition, _)| one.is_none_or(|one| one == *partition)) {
        if let Some(row) = row(&**view, key)?
            && found.as_ref().is_none_or(|best| row.timestamp >= best.timestamp)
        {
            found = Some(row);
        }
    }
    Ok(found.map(|row| row.value.into()))
}

/// Reports damage to the owners of stores.
fn told<T>(
    table: &Table,
    stores: &[Readable],
    read: impl FnOnce() -> Result<T, pelton_streams::state::StateError>,
) -> Result<T, CopyError> {
    read().map_err(|error| {
        stores.iter().for_each(|one| one.store.report(&error));
        AskError::Store { table: table.name.clone(), error }.into()
    })
}
