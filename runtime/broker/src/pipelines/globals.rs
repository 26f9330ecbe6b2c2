//! The tables of this broker, as pipelines read them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use pelton_pipelines::globals::{
    GlobalCopy, GlobalError, GlobalPart, GlobalProgress, GlobalRefused, Globals, KeepingCopies,
};
use pelton_pipelines::io::StopSignal;
use pelton_streams::manifest::operator::GlobalOf;
use pelton_tables::{AskError, Copy, CopyError};
use tokio::runtime::Handle;

use crate::admin::tables::TablesSlot;

/// Tables are started before pipelines.
pub(crate) struct BrokerGlobals {
    pub(crate) tables: TablesSlot,
    pub(crate) runtime: Handle,
}

impl Globals for BrokerGlobals {
    fn check(&self, of: &GlobalOf) -> Result<(), GlobalRefused> {
        let tables = self.tables.0.get();
        let tables = tables.ok_or_else(|| GlobalRefused("this server keeps no tables".to_owned()))?;
        tables.check_copy(of).map_err(|refused| GlobalRefused(refused.to_string()))
    }

    fn keep(&self, topics: BTreeSet<String>) -> KeepingCopies<'_> {
        Box::pin(async move {
            if let Some(tables) = self.tables.0.get() {
                tables.keep_copies(topics).await;
            }
        })
    }

    fn open(&self, of: &GlobalOf) -> Result<Box<dyn GlobalCopy>, GlobalError> {
        let tables = self.tables.0.get();
        let tables =
            tables.ok_or_else(|| GlobalError::Unavailable("this server keeps no tables".to_owned()))?;
        let copy = tables.open_copy(of).map_err(told)?;
        Ok(Box::new(BrokerCopy { copy, runtime: self.runtime.clone() }))
    }
}

/// What a pipeline is told. A copy has no name that its users know.
fn told(error: CopyError) -> GlobalError {
    match error {
        CopyError::NoTable(name) => GlobalError::NoTable(name),
        CopyError::NoTopic(topic) | CopyError::Ask(AskError::NoTopic { topic, .. }) => {
            GlobalError::NoTopic { topic }
        }
        CopyError::Renewed(topic) => GlobalError::Renewed { topic },
        CopyError::Ask(AskError::Ended { why, .. }) => {
            GlobalError::Unavailable(format!("it has ended: {why}"))
        }
        CopyError::Ask(AskError::Failed { reason, .. }) => {
            GlobalError::Unavailable(format!("it cannot be kept fresh: {reason}"))
        }
        CopyError::Ask(AskError::Store { error, .. }) => {
            GlobalError::Unavailable(format!("its store cannot be read: {error}"))
        }
        CopyError::Ask(AskError::Restoring { .. }) => {
            GlobalError::Unavailable("it is being restored from its topic".to_owned())
        }
        other @ (CopyError::NotKept(_) | CopyError::Ask(_)) => GlobalError::Unavailable(other.to_string()),
    }
}

struct BrokerCopy {
    copy: Copy,
    runtime: Handle,
}

impl GlobalCopy for BrokerCopy {
    fn check(&mut self) -> Result<(), GlobalError> {
        self.copy.check().map_err(told)
    }

    fn progress(&mut self) -> Result<GlobalProgress, GlobalError> {
        let (parts, ready) = self.copy.progress().map_err(told)?;
        let part = |part: pelton_tables::CopyPart| GlobalPart {
            partition: part.partition,
            next: part.next,
            target: part.target,
        };
        let parts = parts.into_iter().map(part).collect();
        Ok(GlobalProgress { topic: self.copy.topic().to_owned(), parts, ready })
    }

    fn wait(&mut self, stop: &StopSignal, timeout_ms: u64) {
        let copy = &mut self.copy;
        self.runtime.block_on(async {
            tokio::select! {
                () = copy.moved() => {}
                () = stop.wait() => {}
                () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => {}
            }
        });
    }

    fn load(&mut self, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<(), GlobalError> {
        self.copy.load(keys).map_err(told)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, GlobalError> {
        self.copy.get(key).map_err(told)
    }
}
