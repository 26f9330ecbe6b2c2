//! The stores of all tasks of a process, by their directories.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;

use pelton_streams::state::{StateBackend, StateError, StateFactory, StoreSpec};

use crate::{RocksState, StateMemory, StateOptions};

/// Opens databases that share one block cache and one budget of write buffers, which are made with the first of them.
pub struct RocksFactory {
    memory: StateMemory,
    options: OnceLock<StateOptions>,
}

impl RocksFactory {
    /// Databases within this much memory.
    pub fn new(memory: StateMemory) -> RocksFactory {
        RocksFactory { memory, options: OnceLock::new() }
    }
}

impl StateFactory for RocksFactory {
    fn open(&self, dir: &Path, stores: &[StoreSpec]) -> Result<Box<dyn StateBackend>, StateError> {
        std::fs::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
        let options = self.options.get_or_init(|| StateOptions::new(self.memory));
        Ok(Box::new(RocksState::open(dir, stores, options)?))
    }

    fn remove(&self, dir: &Path) -> Result<(), StateError> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", dir, &error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> Result<Vec<String>, StateError> {
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed("list", dir, &error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed("list", dir, &error))?;
            // A name that is no text is of nothing that was made here.
            if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_dir()) {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn memory_bytes(&self) -> u64 {
        self.options.get().map_or(0, |options| options.memory_used() as u64)
    }
}

fn failed(what: &str, dir: &Path, error: &std::io::Error) -> StateError {
    let text = format!("{what} `{}`: {error}", dir.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StateError::Full(text),
        _ => StateError::Storage(text),
    }
}
