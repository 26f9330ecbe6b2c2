//! What tables need from outside: the topics that they are views of, and where their definitions are kept.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use pelton_streams::tables::TableDefinition;
use pelton_wire::record::Columns;
use tokio::sync::Notify;

/// The id of a topic. One made again under the same name has another.
pub type TopicId = [u8; 16];

/// A topic as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicNow {
    pub id: TopicId,
    pub partitions: u32,
    /// Its `cleanup.policy` is `compact` and nothing else.
    pub only_compacts: bool,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    pub topic: String,
    pub topic_id: TopicId,
    pub partition: u32,
}

/// Where the log of a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub start: i64,
    /// One past the last offset that can be read now.
    pub readable: i64,
    /// The offset that the next record gets.
    pub end: i64,
}

/// What a read has found besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadTo {
    /// Where to read next: behind the last record, aborted ones and control records among them.
    pub next_offset: i64,
    /// One past the last offset that can be read now.
    pub readable: i64,
}

/// Why a partition was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The topic of that id is not there any more.
    #[error("topic {topic} was deleted")]
    Gone { topic: String },
    /// Records were deleted that were not read: the log begins later now.
    #[error("topic {topic}, partition {partition}: offset {offset} was deleted before it was read")]
    Deleted { topic: String, partition: u32, offset: i64 },
    /// What is stored there is damaged.
    #[error(
        "topic {topic}, partition {partition}, offset {offset}: the stored batch cannot be read: {reason}"
    )]
    BadBatch { topic: String, partition: u32, offset: i64, reason: String },
    /// Later it may work.
    #[error("{0}")]
    Unavailable(String),
}

/// Ends a wait early.
#[derive(Debug, Default)]
pub struct Wake(Notify);

impl Wake {
    /// Ends the wait that is under way, or the next one.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Returns when it is called for. One waiter at a time.
    pub async fn called(&self) {
        self.0.notified().await;
    }
}

/// Topics of the broker, read as a read-committed consumer does, and only what no crash takes back: a table is never
/// ahead of its topic. Calls may block their thread.
pub trait Source: Send + Sync {
    /// Moves whenever a topic is created, changed or deleted.
    fn changes(&self) -> u64;

    /// A topic by its name.
    fn topic(&self, name: &str) -> Option<TopicNow>;

    /// Where a partition begins and ends.
    ///
    /// # Errors
    /// It is not there.
    fn bounds(&self, at: &At) -> Result<Bounds, ReadError>;

    /// Adds records from `offset` on, as many as one step should have, at least one if there is one.
    ///
    /// # Errors
    /// Nothing was read; what was added before the error is no part of the answer.
    fn read(&self, at: &At, offset: i64, records: &mut Columns) -> Result<ReadTo, ReadError>;

    /// What a thread waits with.
    fn news(self: Arc<Self>) -> Box<dyn News>;
}

/// What a wait has come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The numbers of partitions that may have something to read.
    pub ready: Vec<u32>,
    /// The time is over, and nothing has happened.
    pub idle: bool,
}

/// What one thread waits for: partitions under numbers that it gives them, of which several may have the same.
pub trait News: Send {
    /// Has a partition told of from now on. What is there already is not told of: the caller looks once.
    fn watch(&mut self, number: u32, at: &At);

    /// Nobody asks for the partitions of this number any more.
    fn forget(&mut self, number: u32);

    /// Returns when partitions may have something that was not there when the last call returned, when `wake` is called
    /// for, or after `timeout_ms`.
    fn wait(&mut self, wake: &Wake, timeout_ms: u64) -> Told;
}

/// Why a definition was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// Something else is called so.
    #[error("pipeline `{0}` keeps a table of that name; choose another one")]
    Taken(String),
    /// Somebody reads the table that is to go.
    #[error(
        "pipeline `{0}` reads it as a global table; delete that pipeline first, or deploy it with another table"
    )]
    Read(String),
    /// It could not be stored.
    #[error("the table's definition could not be stored: {0}")]
    Log(String),
}

/// Whether a definition is kept in the end.
pub type Keeping<'a> = Pin<Box<dyn Future<Output = Result<(), DefinitionError>> + Send + 'a>>;

/// Where definitions are kept: what a replay of them says is what runs.
pub trait Definitions: Send + Sync {
    /// All of them, by name. Asked once, before anything else.
    fn all(&self) -> Vec<(String, TableDefinition)>;

    /// The topics of which copies are wanted at first. Asked once, before anything else.
    fn copied(&self) -> BTreeSet<String>;

    /// Keeps a definition, or with `None` forgets it. Durable when it returns.
    fn set<'a>(&'a self, name: &'a str, definition: Option<&'a TableDefinition>) -> Keeping<'a>;
}
