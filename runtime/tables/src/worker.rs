//! A thread that owns stores. Which ones is decided by their table's name and their partition alone, so that every
//! thread knows its own and no two have the same.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use pelton_streams::partitioner::crc32;
use pelton_streams::state::StateFactory;
use pelton_streams::tables::{Chunk, Scope};
use pelton_wire::record::Columns;
use tokio::sync::oneshot;

use crate::Clock;
use crate::source::{Source, Wake};
use crate::store::{StoreId, Table};
use crate::task::{Cx, StoreTask};

/// How long a thread without news sleeps at most: what is due by time, and topics that come and go, are looked at so
/// often.
const IDLE_MS: u64 = 1_000;

/// What a worker is told.
pub(crate) enum Command {
    /// Keep the stores of a table that are this worker's.
    Add(Arc<Table>),
    /// Close the stores of a table, and answer when none of them is open.
    Remove(String, oneshot::Sender<()>),
    /// Close all, and end.
    Stop,
}

/// What a worker is made of.
pub(crate) struct Worker {
    pub(crate) number: u32,
    pub(crate) workers: u32,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) factory: Option<Arc<dyn StateFactory>>,
    pub(crate) clock: Arc<Clock>,
    /// Each table has a directory in it, each store one in that.
    pub(crate) dir: PathBuf,
    pub(crate) flush_interval_ms: i64,
    pub(crate) commands: Receiver<Command>,
    pub(crate) wake: Arc<Wake>,
}

#[derive(Default)]
struct Owned {
    tables: BTreeMap<String, Arc<Table>>,
    tasks: BTreeMap<(String, StoreId), StoreTask>,
    /// [`Source::changes`] when the tasks were last made by it.
    topics_at: Option<u64>,
}

impl Worker {
    /// Runs until it is told to stop.
    pub(crate) fn run(self) {
        let mut owned = Owned::default();
        let (mut records, mut chunk) = (Columns::new(), Chunk::default());
        while self.obey(&mut owned) {
            let topics_at = self.source.changes();
            if owned.topics_at != Some(topics_at) {
                self.assign(&mut owned);
                owned.topics_at = Some(topics_at);
            }
            let mut busy = false;
            for task in owned.tasks.values_mut() {
                let mut cx = Cx {
                    source: &*self.source,
                    factory: self.factory.as_deref(),
                    records: &mut records,
                    chunk: &mut chunk,
                    now_ms: (self.clock)(),
                    flush_interval_ms: self.flush_interval_ms,
                };
                // A bug in one table must not end the others.
                match catch_unwind(AssertUnwindSafe(|| task.step(&mut cx))) {
                    Ok(more) => busy |= more,
                    Err(panic) => task.panicked(text_of(&*panic), (self.clock)()),
                }
            }
            if !busy {
                let positions: Vec<_> = owned.tasks.values().flat_map(StoreTask::waits_for).collect();
                self.source.wait(&positions, &self.wake, IDLE_MS);
            }
        }
        for (_, task) in owned.tasks {
            task.close(&*self.source, (self.clock)());
        }
    }

    /// Takes what it was told since. False: it should end.
    fn obey(&self, owned: &mut Owned) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Add(table)) => {
                    owned.tables.insert(table.name.clone(), table);
                    owned.topics_at = None;
                }
                Ok(Command::Remove(name, done)) => {
                    owned.tables.remove(&name);
                    self.close(owned, |(table, _)| *table == name);
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn close(&self, owned: &mut Owned, which: impl Fn(&(String, StoreId)) -> bool) {
        let tasks = std::mem::take(&mut owned.tasks);
        for (of, task) in tasks {
            if which(&of) {
                task.close(&*self.source, (self.clock)());
            } else {
                owned.tasks.insert(of, task);
            }
        }
    }

    /// Makes the tasks fit the topics as they are now.
    fn assign(&self, owned: &mut Owned) {
        for table in owned.tables.values().cloned().collect::<Vec<_>>() {
            let topic = self.source.topic(&table.definition.topic);
            let partitions = topic.map_or(0, |topic| topic.partitions);
            let wanted: Vec<StoreId> = match table.definition.scope {
                Scope::Global if topic.is_some() => vec![StoreId::Global],
                Scope::Global => Vec::new(),
                Scope::Partitioned => (0..partitions).map(StoreId::Partition).collect(),
            };
            let is_mine = |id: &StoreId| self.is_mine(&table.name, *id);
            let mine: Vec<StoreId> = wanted.into_iter().filter(is_mine).collect();
            let fits = |id: StoreId, task: &mut StoreTask| {
                let count = if id == StoreId::Global { partitions as usize } else { 1 };
                mine.contains(&id) && topic.is_some_and(|topic| task.fits(&topic, count))
            };
            let before: Vec<StoreId> =
                owned.tasks.keys().filter(|(of, _)| *of == table.name).map(|(_, id)| *id).collect();
            for id in before {
                let key = (table.name.clone(), id);
                if owned.tasks.get_mut(&key).is_some_and(|task| fits(id, task)) {
                    continue;
                }
                if let Some(task) = owned.tasks.remove(&key) {
                    task.close(&*self.source, (self.clock)());
                }
                if !mine.contains(&id) {
                    table.remove(id);
                }
            }
            table.set_topic(topic);
            let Some(topic) = topic else { continue };
            for id in mine {
                let key = (table.name.clone(), id);
                let of = match id {
                    StoreId::Global => 0..partitions,
                    StoreId::Partition(partition) => partition..partition + 1,
                };
                let dir = self.dir.join(&table.name).join(id.name());
                owned
                    .tasks
                    .entry(key)
                    .or_insert_with(|| StoreTask::new(Arc::clone(&table), table.add(id), topic, of, dir));
            }
        }
    }

    fn is_mine(&self, table: &str, id: StoreId) -> bool {
        let place = match id {
            StoreId::Global => 0,
            StoreId::Partition(partition) => partition,
        };
        crc32(table.as_bytes()).wrapping_add(place) % self.workers.max(1) == self.number
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
