//! The handle of all tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use pelton_streams::state::{MemoryBudget, StateError, StateFactory};
use pelton_streams::tables::{
    KeyPlacement, NameError, RowRange, Scope, StoreKind, TableDefinition, ValueFormat, check_name,
};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::Clock;
use crate::ask::{self, AskError, Found, Page};
use crate::copy::{copy_name, copy_of};
use crate::follow::{Following, Out, Place, Surroundings, follow, on_a_thread};
use crate::kept::{self, Kept};
use crate::source::{DefinitionError, Definitions, Source, TopicNow, Wake};
use crate::store::{Life, Table, TableDescription};
use crate::worker::{Command, Worker};

/// How long a stop waits for readers who follow tables.
const FOLLOWERS_PATIENCE: Duration = Duration::from_secs(5);

/// What tables are made of.
pub struct TablesSpec {
    pub source: Arc<dyn Source>,
    pub definitions: Arc<dyn Definitions>,
    /// What keeps stores on disk; without it tables are in memory only.
    pub factory: Option<Arc<dyn StateFactory>>,
    pub clock: Arc<Clock>,
    /// A directory of tables alone: what is in it and of no table is removed.
    pub dir: PathBuf,
    /// `pelton.table.threads`.
    pub threads: u32,
    /// `pelton.max.tables`.
    pub max_tables: u32,
    /// `pelton.table.followers.max`.
    pub max_followers: u32,
    /// A follower that takes nothing for so long is cut off.
    pub follower_patience: Duration,
    /// `pelton.state.memory.max.bytes`: what all stores in memory of the process may take.
    pub memory: Arc<MemoryBudget>,
    /// `pelton.state.flush.interval.ms`.
    pub flush_interval_ms: i64,
    /// Of the followers.
    pub runtime: Handle,
}

/// A table that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTable {
    pub name: String,
    pub topic: String,
    #[serde(default)]
    pub scope: Scope,
    #[serde(default)]
    pub partitioner: KeyPlacement,
    #[serde(default)]
    pub store: StoreKind,
    #[serde(default)]
    pub value: ValueFormat,
}

/// Why no table was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("there is a table `{0}` already; delete it first, or choose another name")]
    Exists(String),
    #[error("topic `{0}` does not exist, so there is nothing to read")]
    NoTopic(String),
    #[error(
        "topic `{0}` is not compacted, so records of it are deleted by age or size whether or not they are the last of their key"
    )]
    NotCompacted(String),
    #[error("`{0}` is a topic of the server's own")]
    Internal(String),
    #[error("this server keeps no tables on disk; create it with the store `memory`")]
    NoDisk,
    #[error("there are {0} tables, which is `pelton.max.tables`; delete one first, or raise it")]
    TooMany(u32),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error("the server is stopping")]
    Stopping,
}

/// Why a table was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("there is no table `{0}`")]
    Unknown(String),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// See the module. Changes are made one at a time; looking and asking wait for none.
pub struct Tables {
    spec: TablesSpec,
    /// Held for a whole change.
    changes: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    /// How many there are.
    followers: Arc<watch::Sender<u32>>,
    /// Of those who follow what others keep.
    life: Arc<Life>,
}

#[derive(Default)]
struct Inner {
    tables: BTreeMap<String, Arc<Table>>,
    /// By topic.
    copies: BTreeMap<String, Arc<Table>>,
    /// The topics of which copies are wanted, unless a table stands for one.
    wanted: BTreeSet<String>,
    workers: Vec<Thread>,
    stopping: bool,
}

impl Inner {
    /// Has the threads keep the stores of a table.
    fn add(&self, table: &Arc<Table>) {
        for worker in &self.workers {
            worker.tell(Command::Add(Arc::clone(table)));
        }
    }

    /// A table that stands alone and has all of a topic in one store.
    fn stands_for(&self, topic: &str) -> Option<&Arc<Table>> {
        let is_of_it =
            |table: &&Arc<Table>| table.definition.scope == Scope::Global && table.definition.topic == topic;
        self.tables.values().find(is_of_it)
    }
}

struct Thread {
    commands: Sender<Command>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn tell(&self, command: Command) {
        // A thread that has ended keeps nothing.
        let _ = self.commands.send(command);
        self.wake.wake();
    }
}

impl Tables {
    /// Starts the threads, and with them every table that is defined. Directories of no table are removed. Blocking.
    ///
    /// # Errors
    /// A thread does not start.
    pub fn start(spec: TablesSpec) -> std::io::Result<Arc<Tables>> {
        let defined = spec.definitions.all();
        let tables = Tables {
            spec,
            changes: tokio::sync::Mutex::default(),
            inner: Mutex::default(),
            followers: Arc::new(watch::Sender::new(0)),
            life: Arc::default(),
        };
        let wanted = tables.spec.definitions.copied();
        tables.remove_leftovers(&defined, &wanted);
        for number in 0..tables.spec.threads.max(1) {
            let started = tables.worker(number)?;
            tables.inner.lock().workers.push(started);
        }
        for (name, definition) in defined {
            tables.run(Table::new(name, definition));
        }
        tables.inner.lock().wanted = wanted;
        tables.add_copies();
        Ok(Arc::new(tables))
    }

    fn worker(&self, number: u32) -> std::io::Result<Thread> {
        let (commands, told) = channel();
        let wake = Arc::<Wake>::default();
        let worker = Worker {
            number,
            workers: self.spec.threads,
            source: Arc::clone(&self.spec.source),
            factory: self.spec.factory.clone(),
            clock: Arc::clone(&self.spec.clock),
            dir: self.spec.dir.clone(),
            flush_interval_ms: self.spec.flush_interval_ms,
            memory: Arc::clone(&self.spec.memory),
            commands: told,
            wake: Arc::clone(&wake),
        };
        let thread =
            std::thread::Builder::new().name(format!("table-{number}")).spawn(move || worker.run())?;
        Ok(Thread { commands, wake, thread: Some(thread) })
    }

    fn run(&self, table: Arc<Table>) {
        let mut inner = self.inner.lock();
        inner.add(&table);
        inner.tables.insert(table.name.clone(), table);
    }

    /// Starts the copies that are wanted and that no table stands for.
    fn add_copies(&self) {
        let mut inner = self.inner.lock();
        if inner.stopping {
            return;
        }
        for topic in inner.wanted.clone() {
            if inner.copies.contains_key(&topic) || inner.stands_for(&topic).is_some() {
                continue;
            }
            let copy = copy_of(&topic, self.spec.factory.is_some());
            inner.add(&copy);
            inner.copies.insert(topic, copy);
        }
    }

    /// These copies are wanted and no others: the names of those that are to be forgotten.
    pub(crate) fn want_copies(&self, wanted: BTreeSet<String>) -> Vec<String> {
        let gone = {
            let mut inner = self.inner.lock();
            let gone = inner.copies.extract_if(.., |topic, _| !wanted.contains(topic));
            let gone: Vec<Arc<Table>> = gone.map(|(_, copy)| copy).collect();
            inner.wanted = wanted;
            gone
        };
        self.add_copies();
        let end = |copy: &Arc<Table>| {
            copy.end("no pipeline reads it any more");
            copy.name.clone()
        };
        gone.iter().map(end).collect()
    }

    /// A table that stands alone, by its name.
    pub(crate) fn defined(&self, name: &str) -> Option<Arc<Table>> {
        self.inner.lock().tables.get(name).cloned()
    }

    /// The copy of a topic, or the table that stands for it.
    pub(crate) fn kept_of(&self, topic: &str) -> Option<Arc<Table>> {
        let inner = self.inner.lock();
        inner.copies.get(topic).or_else(|| inner.stands_for(topic)).cloned()
    }

    pub(crate) fn source(&self) -> &Arc<dyn Source> {
        &self.spec.source
    }

    /// What a crash between a deletion and the end of its work has left.
    fn remove_leftovers(&self, defined: &[(String, TableDefinition)], copied: &BTreeSet<String>) {
        let Some(factory) = &self.spec.factory else { return };
        let remove = || {
            for name in factory.list(&self.spec.dir)? {
                let is_on_disk = |(known, definition): &(String, TableDefinition)| {
                    *known == name && definition.store == StoreKind::Rocksdb
                };
                let is_copied = copied.iter().any(|topic| copy_name(topic) == name);
                if !is_copied && !defined.iter().any(is_on_disk) {
                    factory.remove(&self.spec.dir.join(&name))?;
                }
            }
            Ok::<(), StateError>(())
        };
        if let Err(error) = remove() {
            tracing::warn!(%error, "stores of tables that were deleted stay on disk until the next start");
        }
    }

    /// Creates a table. Durable when it returns; the table is restored from then on.
    ///
    /// # Errors
    /// Nothing was created.
    pub async fn create(&self, new: NewTable) -> Result<TableDescription, CreateError> {
        let _change = self.changes.lock().await;
        check_name(&new.name)?;
        let topic = self.checked(&new)?;
        let definition = TableDefinition {
            topic: new.topic,
            scope: new.scope,
            partitioner: new.partitioner,
            store: new.store,
            value: new.value,
            partitions: topic,
            created_at_ms: (self.spec.clock)(),
        };
        self.spec.definitions.set(&new.name, Some(&definition)).await?;
        let table = Table::new(new.name, definition);
        self.run(Arc::clone(&table));
        Ok(table.describe())
    }

    /// How many partitions the topic of a new table has.
    fn checked(&self, new: &NewTable) -> Result<u32, CreateError> {
        let max = self.spec.max_tables;
        {
            let inner = self.inner.lock();
            if inner.stopping {
                return Err(CreateError::Stopping);
            }
            if inner.tables.contains_key(&new.name) {
                return Err(CreateError::Exists(new.name.clone()));
            }
            if inner.tables.len() >= max as usize {
                return Err(CreateError::TooMany(max));
            }
        }
        let topic = self.check_topic(&new.topic)?;
        if new.store == StoreKind::Rocksdb && self.spec.factory.is_none() {
            return Err(CreateError::NoDisk);
        }
        Ok(topic.partitions)
    }

    /// A topic that can be read as a table.
    pub(crate) fn check_topic(&self, name: &str) -> Result<TopicNow, CreateError> {
        if pelton_wire::topic_name::is_internal(name) {
            return Err(CreateError::Internal(name.to_owned()));
        }
        let topic = self.spec.source.topic(name);
        let topic = topic.ok_or_else(|| CreateError::NoTopic(name.to_owned()))?;
        if topic.only_compacts { Ok(topic) } else { Err(CreateError::NotCompacted(name.to_owned())) }
    }

    /// Deletes a table and its stores. Its topic stays.
    ///
    /// # Errors
    /// There is none, or its definition could not be forgotten: it stays then.
    pub async fn delete(&self, name: &str) -> Result<(), DeleteError> {
        let _change = self.changes.lock().await;
        if !self.inner.lock().tables.contains_key(name) {
            return Err(DeleteError::Unknown(name.to_owned()));
        }
        self.spec.definitions.set(name, None).await?;
        if let Some(table) = self.inner.lock().tables.remove(name) {
            table.end("it was deleted");
        }
        // Who read it in place reads a copy from now on.
        self.add_copies();
        self.forget_stores(name).await;
        Ok(())
    }

    /// Closes the stores of a table that is not among the others any more, and removes them.
    pub(crate) async fn forget_stores(&self, name: &str) {
        let closed: Vec<oneshot::Receiver<()>> = {
            let inner = self.inner.lock();
            let tell = |worker: &Thread| {
                let (done, closed) = oneshot::channel();
                worker.tell(Command::Remove(name.to_owned(), done));
                closed
            };
            inner.workers.iter().map(tell).collect()
        };
        for closed in closed {
            // A worker that has ended has nothing open.
            let _ = closed.await;
        }
        let Some(factory) = self.spec.factory.clone() else { return };
        let dir = self.spec.dir.join(name);
        let removed = tokio::task::spawn_blocking(move || factory.remove(&dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(table = name, %error, "the stores of a deleted table stay on disk until the next start");
        }
    }

    fn table(&self, name: &str) -> Result<Arc<Table>, AskError> {
        self.inner.lock().tables.get(name).cloned().ok_or_else(|| AskError::Unknown(name.to_owned()))
    }

    /// All tables, by name. Blocking.
    pub fn list(&self) -> Vec<TableDescription> {
        let tables: Vec<Arc<Table>> = self.inner.lock().tables.values().cloned().collect();
        tables.iter().map(|table| table.describe()).collect()
    }

    /// One table. Blocking.
    ///
    /// # Errors
    /// There is none.
    pub fn describe(&self, name: &str) -> Result<TableDescription, AskError> {
        Ok(self.table(name)?.describe())
    }

    /// How the values of a table are shown.
    ///
    /// # Errors
    /// There is no such table.
    pub fn format(&self, name: &str) -> Result<ValueFormat, AskError> {
        Ok(self.table(name)?.definition.value)
    }

    /// The partition that an offset without one means for a key: that of the key, or the only one there is.
    ///
    /// # Errors
    /// There is no such table or topic.
    pub fn partition_of(&self, name: &str, key: Option<&[u8]>) -> Result<Option<u32>, AskError> {
        let table = self.table(name)?;
        let topic = table.topic().ok_or_else(|| AskError::NoTopic {
            table: name.to_owned(),
            topic: table.definition.topic.clone(),
        })?;
        let only = (topic.partitions == 1).then_some(0);
        let placed = |key| table.definition.partitioner.partition(key, topic.partitions);
        Ok(only.or_else(|| key.and_then(placed)))
    }

    /// The topic that a table is made of.
    ///
    /// # Errors
    /// There is no such table.
    pub fn topic_of(&self, name: &str) -> Result<String, AskError> {
        Ok(self.table(name)?.definition.topic.clone())
    }

    /// Waits until a table reflects these offsets, by partition, at most so long.
    ///
    /// # Errors
    /// It did not, or does not exist.
    pub async fn wait_for(
        &self,
        name: &str,
        offsets: &BTreeMap<u32, i64>,
        patience: Duration,
    ) -> Result<(), AskError> {
        let table = self.table(name)?;
        ask::wait_for(&table, &*self.spec.source, offsets, patience).await
    }

    /// The row of a key. Blocking.
    ///
    /// # Errors
    /// The table cannot be read, or does not exist.
    pub fn get(&self, name: &str, key: &[u8]) -> Result<Found, AskError> {
        ask::get(&*self.table(name)?, key)
    }

    /// At most `limit` rows of a range, in the order of the bytes of their keys. Blocking.
    ///
    /// # Errors
    /// The table cannot be read, or does not exist.
    pub fn scan(&self, name: &str, range: &RowRange, limit: usize) -> Result<Page, AskError> {
        ask::scan(&*self.table(name)?, range, limit)
    }

    /// Follows the rows of a range.
    ///
    /// # Errors
    /// The table cannot be read, does not exist, or too many follow.
    pub fn follow(&self, name: &str, range: RowRange) -> Result<Following, AskError> {
        let table = self.table(name)?;
        let place = Place::take(&self.followers, self.spec.max_followers)?;
        follow(table, range, self.surroundings(), place)
    }

    /// Follows a table that somebody else keeps, as one of the readers who follow tables.
    ///
    /// # Errors
    /// Too many follow.
    pub fn follow_kept(&self, name: &str, kept: Box<dyn Kept>) -> Result<Following, AskError> {
        let place = Place::take(&self.followers, self.spec.max_followers)?;
        let (around, life) = (self.surroundings(), Arc::clone(&self.life));
        on_a_thread(name.to_owned(), place, move |frames| {
            let out = Out::new(Arc::clone(&life), frames, around.runtime.clone(), around.patience);
            kept::run(&*kept, &around, &life, out)
        })
    }

    fn surroundings(&self) -> Surroundings {
        let TablesSpec { source, clock, runtime, follower_patience, .. } = &self.spec;
        let (source, clock) = (Arc::clone(source), Arc::clone(clock));
        Surroundings { source, clock, runtime: runtime.clone(), patience: *follower_patience }
    }

    /// Memory that the stores on disk take for what was read and what is not written yet.
    pub fn memory_bytes(&self) -> u64 {
        self.spec.factory.as_ref().map_or(0, |factory| factory.memory_bytes())
    }

    /// Memory of the entries of all stores in memory, of tables and of pipelines.
    pub fn memory_stores_bytes(&self) -> u64 {
        self.spec.memory.used()
    }

    /// Closes all stores in order, and ends the threads.
    pub async fn stop(&self) {
        let threads: Vec<JoinHandle<()>> = {
            let mut inner = self.inner.lock();
            inner.stopping = true;
            self.life.end("the server is stopping");
            for table in inner.tables.values().chain(inner.copies.values()) {
                table.end("the server is stopping");
            }
            let stop = |worker: &mut Thread| {
                worker.tell(Command::Stop);
                worker.thread.take()
            };
            inner.workers.iter_mut().filter_map(stop).collect()
        };
        // They were told; what holds one up is a read of the log.
        let mut followers = self.followers.subscribe();
        let none = followers.wait_for(|count| *count == 0);
        if tokio::time::timeout(FOLLOWERS_PATIENCE, none).await.is_err() {
            tracing::warn!("readers who follow tables do not end");
        }
        let joined = tokio::task::spawn_blocking(move || {
            let ended: Vec<bool> = threads.into_iter().map(|thread| thread.join().is_ok()).collect();
            ended.into_iter().all(|well| well)
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a thread of the tables panicked; their stores go on from their last flush");
        }
    }
}
