//! The global tables of a driver. It processes nothing before each of them has what was committed when the driver began:
//! records would find nothing that is there. From then on a table is read as it is when records are processed, which no
//! transaction and no offset of the driver knows of: records that are read again may find something newer.

use std::cell::RefCell;

use bytes::Bytes;
use pelton_streams::Topology;
use pelton_streams::log::LogLevel;
use pelton_streams::operator::{GlobalTableError, GlobalTables};

use super::{Driver, DriverError};
use crate::globals::{GlobalCopy, GlobalError, GlobalPart, GlobalProgress, Globals};
use crate::status::StoreStatus;

/// How long a driver waits for a table before it looks whether something else has happened.
const LOOK_MS: u64 = 100;

/// The copies of one driver, by index in [`Topology::globals`].
#[derive(Default)]
pub(super) struct OpenGlobals {
    copies: RefCell<Vec<(String, Box<dyn GlobalCopy>)>>,
    /// All of them have what was there when they were opened.
    ready: bool,
}

impl OpenGlobals {
    fn open(topology: &Topology, globals: &dyn Globals) -> Result<OpenGlobals, DriverError> {
        let open = |global: &pelton_streams::manifest::operator::GlobalSpec| {
            let copy = globals.open(&global.of).map_err(|error| failed(&global.id, error))?;
            Ok((global.id.clone(), copy))
        };
        let copies = topology.globals.iter().map(open).collect::<Result<Vec<_>, DriverError>>()?;
        Ok(OpenGlobals { ready: copies.is_empty(), copies: RefCell::new(copies) })
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    fn failed(&self, table: usize, error: &GlobalError) -> GlobalTableError {
        let id = self.copies.borrow().get(table).map(|(id, _)| id.clone()).unwrap_or_default();
        GlobalTableError(format!("the global table `{id}` cannot be read: {error}"))
    }
}

fn failed(table: &str, error: GlobalError) -> DriverError {
    DriverError::Global { table: table.to_owned(), error }
}

fn none() -> GlobalError {
    GlobalError::Unavailable("it is not open".to_owned())
}

impl GlobalTables for OpenGlobals {
    fn load(&self, table: usize, keys: &mut dyn Iterator<Item = &[u8]>) -> Result<(), GlobalTableError> {
        let loaded = match self.copies.borrow_mut().get_mut(table) {
            Some((_, copy)) => copy.load(keys),
            None => Err(none()),
        };
        loaded.map_err(|error| self.failed(table, &error))
    }

    fn get(&self, table: usize, key: &[u8]) -> Result<Option<Bytes>, GlobalTableError> {
        let found = match self.copies.borrow().get(table) {
            Some((_, copy)) => copy.get(key),
            None => Err(none()),
        };
        found.map_err(|error| self.failed(table, &error))
    }
}

impl Driver<'_> {
    pub(super) fn open_globals(&mut self) -> Result<(), DriverError> {
        self.globals = OpenGlobals::open(&self.spec.topology, &*self.spec.globals)?;
        Ok(())
    }

    /// Whether records can be joined with all global tables. If not, it waits a moment for the first that is not there yet.
    pub(super) fn check_globals(&mut self) -> Result<bool, DriverError> {
        if self.globals.ready {
            for (table, copy) in self.globals.copies.get_mut() {
                copy.check().map_err(|error| failed(table, error))?;
            }
            return Ok(true);
        }
        let progress = self.show_globals()?;
        let Some(behind) = progress.iter().position(|progress| !progress.ready) else {
            self.globals.ready = true;
            self.show_missing();
            if self.spec.lane.number == 0 {
                self.say(LogLevel::Info, "all global tables are there");
            }
            return Ok(true);
        };
        let stop = &self.spec.stop;
        if let Some((_, copy)) = self.globals.copies.get_mut().get_mut(behind) {
            copy.wait(stop, LOOK_MS);
        }
        Ok(false)
    }

    /// Shows how far global tables are.
    pub(super) fn show_globals(&mut self) -> Result<Vec<GlobalProgress>, DriverError> {
        let ready = self.globals.ready;
        let mut all = Vec::new();
        for (table, copy) in self.globals.copies.get_mut() {
            let progress = copy.progress().map_err(|error| failed(table, error))?;
            for GlobalPart { partition, next, target } in &progress.parts {
                self.spec.board.set_store(StoreStatus {
                    store: table.clone(),
                    partition: partition.cast_signed(),
                    changelog: progress.topic.clone(),
                    restoring: !ready && next < target,
                    restored: 0,
                    next: *next,
                    end: *target,
                });
            }
            all.push(progress);
        }
        Ok(all)
    }
}
