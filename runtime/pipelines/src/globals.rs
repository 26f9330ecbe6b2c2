//! Global tables, as pipelines read them: whole copies of topics that the process keeps beside them.

use std::collections::BTreeSet;
use std::pin::Pin;

use bytes::Bytes;
use pelton_streams::manifest::operator::GlobalOf;

use crate::io::StopSignal;

/// Why a global table is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobalError {
    /// Its topic is not there. Who created it can do that again.
    #[error("topic {topic} does not exist; the pipeline goes on when it is created")]
    NoTopic { topic: String },
    /// The table is not there.
    #[error(
        "there is no table `{0}` that stands alone; the pipeline goes on when it is created (`pelton table create {0}`)"
    )]
    NoTable(String),
    /// Its topic is another one now: all of that is read first.
    #[error(
        "topic {topic} was deleted and created again; the pipeline goes on when all of the new one is read"
    )]
    Renewed { topic: String },
    /// Later it may work.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a pipeline cannot read a global table, as a text that follows its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct GlobalRefused(pub String);

/// How far a copy is with a partition of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalPart {
    pub partition: u32,
    /// The offset that is read next.
    pub next: i64,
    /// What has to be reached: what was there when the copy was opened ends there.
    pub target: i64,
}

/// How far a copy is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalProgress {
    pub topic: String,
    pub parts: Vec<GlobalPart>,
    /// It has all that was committed when it was opened.
    pub ready: bool,
}

/// A copy that a driver reads. Calls may block its thread.
pub trait GlobalCopy: Send {
    /// Whether it can be read still. Cheap when nothing has changed.
    fn check(&mut self) -> Result<(), GlobalError>;
    /// How far it is. It is read once it is ready.
    fn progress(&mut self) -> Result<GlobalProgress, GlobalError>;
    /// Returns when there may be progress, when the stop signal is set, or after `timeout_ms`.
    fn wait(&mut self, stop: &StopSignal, timeout_ms: u64);
    /// Reads keys that are asked for next, all at one moment, never an earlier one than before.
    fn load(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<(), GlobalError>;
    /// The value of a key: as it was loaded, or as it is now.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, GlobalError>;
}

/// Whether copies are kept in the end.
pub type KeepingCopies<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The copies of the process.
pub trait Globals: Send + Sync {
    /// Whether a pipeline that reads this can be deployed.
    fn check(&self, of: &GlobalOf) -> Result<(), GlobalRefused>;
    /// Copies of these topics are wanted from now on, and no others.
    fn keep(&self, topics: BTreeSet<String>) -> KeepingCopies<'_>;
    /// A copy for a driver that begins now.
    fn open(&self, of: &GlobalOf) -> Result<Box<dyn GlobalCopy>, GlobalError>;
}

/// There are no global tables.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoGlobals;

impl Globals for NoGlobals {
    fn check(&self, _: &GlobalOf) -> Result<(), GlobalRefused> {
        Err(GlobalRefused("cannot be read: this server keeps no tables".to_owned()))
    }

    fn keep(&self, _: BTreeSet<String>) -> KeepingCopies<'_> {
        Box::pin(async {})
    }

    fn open(&self, _: &GlobalOf) -> Result<Box<dyn GlobalCopy>, GlobalError> {
        Err(GlobalError::Unavailable("this server keeps no tables".to_owned()))
    }
}
