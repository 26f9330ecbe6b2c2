//! A thread that owns stores. Which ones is decided by their table's name and their partition alone, so that every
//! thread knows its own and no two have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use pelton_streams::partitioner::crc32;
use pelton_streams::state::{MemoryBudget, StateFactory};
use pelton_streams::tables::{Chunk, Scope};
use pelton_wire::record::Columns;
use tokio::sync::oneshot;

use crate::Clock;
use crate::source::{News, Source, TopicNow, Wake};
use crate::store::{StoreId, Table};
use crate::task::{Cx, StoreTask};

/// How often all stores are looked at, whether or not they have news: what is due by time, and what has failed. A thread
/// without news sleeps for so long, and looks then whether topics have come or gone.
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
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) wake: Arc<Wake>,
}

#[derive(Default)]
struct Owned {
    tables: BTreeMap<String, Arc<Table>>,
    /// By the numbers under which their partitions are watched.
    tasks: BTreeMap<u32, StoreTask>,
    numbers: BTreeMap<(String, StoreId), u32>,
    next_number: u32,
    /// Stores that have something to do, as far as is known.
    due: BTreeSet<u32>,
    /// When all were looked at last.
    swept_ms: i64,
    /// [`Source::changes`] when the tasks were last made by it.
    topics_at: Option<u64>,
}

impl Owned {
    /// What is due by time, and what a failed read or a reader has found, is due.
    fn sweep(&mut self, now_ms: i64) {
        self.due.extend(self.tasks.keys());
        self.swept_ms = now_ms;
    }
}

impl Worker {
    /// Runs until it is told to stop. A store is looked at when its partitions have news, and from time to time.
    pub(crate) fn run(self) {
        let mut owned = Owned::default();
        let mut news = Arc::clone(&self.source).news();
        let (mut records, mut chunk) = (Columns::new(), Chunk::default());
        while self.obey(&mut owned, &mut *news) {
            let topics_at = self.source.changes();
            if owned.topics_at != Some(topics_at) {
                self.assign(&mut owned, &mut *news);
                owned.topics_at = Some(topics_at);
            }
            let now_ms = (self.clock)();
            if now_ms.saturating_sub(owned.swept_ms) >= IDLE_MS as i64 {
                owned.sweep(now_ms);
            }
            for number in std::mem::take(&mut owned.due) {
                let Some(task) = owned.tasks.get_mut(&number) else { continue };
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
                    Ok(true) => drop(owned.due.insert(number)),
                    Ok(false) => {}
                    Err(panic) => task.panicked(text_of(&*panic), (self.clock)()),
                }
            }
            // Who has more to do does not wait, and holds up nobody who has news.
            let patience_ms = if owned.due.is_empty() { IDLE_MS } else { 0 };
            let told = news.wait(&self.wake, patience_ms);
            owned.due.extend(told.ready);
            if told.idle && patience_ms > 0 {
                owned.sweep((self.clock)());
            }
        }
        for (_, task) in owned.tasks {
            task.close(&*self.source, (self.clock)());
        }
    }

    /// Takes what it was told since. False: it should end.
    fn obey(&self, owned: &mut Owned, news: &mut dyn News) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Add(table)) => {
                    owned.tables.insert(table.name.clone(), table);
                    owned.topics_at = None;
                }
                Ok(Command::Remove(name, done)) => {
                    owned.tables.remove(&name);
                    let of_it = |of: &&(String, StoreId)| of.0 == name;
                    for of in owned.numbers.keys().filter(of_it).cloned().collect::<Vec<_>>() {
                        self.close(owned, &of, news);
                    }
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn close(&self, owned: &mut Owned, of: &(String, StoreId), news: &mut dyn News) {
        let Some(number) = owned.numbers.remove(of) else { return };
        news.forget(number);
        if let Some(task) = owned.tasks.remove(&number) {
            task.close(&*self.source, (self.clock)());
        }
    }

    /// Makes the tasks fit the topics as they are now.
    fn assign(&self, owned: &mut Owned, news: &mut dyn News) {
        for table in owned.tables.values().cloned().collect::<Vec<_>>() {
            let (at, topic) = self.topic_now(&table.definition.topic);
            let partitions = topic.map_or(0, |topic| topic.partitions);
            let wanted: Vec<StoreId> = match table.definition.scope {
                Scope::Global if topic.is_some() => vec![StoreId::Global],
                Scope::Global => Vec::new(),
                Scope::Partitioned => (0..partitions).map(StoreId::Partition).collect(),
            };
            let is_mine = |id: &StoreId| self.is_mine(&table.name, *id);
            let mine: Vec<StoreId> = wanted.into_iter().filter(is_mine).collect();
            let of_it = |(of, _): &(&(String, StoreId), &u32)| of.0 == table.name;
            let before: Vec<(StoreId, u32)> =
                owned.numbers.iter().filter(of_it).map(|(of, number)| (of.1, *number)).collect();
            for (id, number) in before {
                let count = if id == StoreId::Global { partitions as usize } else { 1 };
                let task = owned.tasks.get_mut(&number);
                let fits = |task: &mut StoreTask| topic.is_some_and(|topic| task.fits(&topic, count));
                if mine.contains(&id) && task.is_some_and(fits) {
                    // What it says of its topic may have changed.
                    owned.due.insert(number);
                    continue;
                }
                self.close(owned, &(table.name.clone(), id), news);
                if !mine.contains(&id) {
                    table.remove(id);
                }
            }
            table.set_topic(at, topic);
            let Some(topic) = topic else { continue };
            for id in mine {
                let of = (table.name.clone(), id);
                if owned.numbers.contains_key(&of) {
                    continue;
                }
                let parts = match id {
                    StoreId::Global => 0..partitions,
                    StoreId::Partition(partition) => partition..partition + 1,
                };
                let dir = self.dir.join(&table.name).join(id.name());
                let (store, memory) = (table.add(id), Arc::clone(&self.memory));
                let task = StoreTask::new(Arc::clone(&table), store, topic, parts, dir, memory);
                let number = owned.next_number;
                owned.next_number = number.wrapping_add(1);
                task.parts().iter().for_each(|at| news.watch(number, at));
                owned.tasks.insert(number, task);
                owned.numbers.insert(of, number);
                owned.due.insert(number);
            }
        }
    }

    /// A topic, and the moment at which it was so.
    fn topic_now(&self, name: &str) -> (u64, Option<TopicNow>) {
        loop {
            let at = self.source.changes();
            let topic = self.source.topic(name);
            if self.source.changes() == at {
                return (at, topic);
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
