//! Tables: every operation on them, once the broker has started.

use std::sync::{Arc, OnceLock};

use pelton_tables::Tables;

use super::Admin;

/// Tables, once they have been started. A cheap clone.
#[derive(Clone, Default)]
pub(crate) struct TablesSlot(pub(crate) Arc<OnceLock<Arc<Tables>>>);

/// This broker keeps no tables, or has not started them yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this server keeps no tables")]
pub(crate) struct NoTables;

impl Admin {
    /// Every operation on tables.
    pub(crate) fn tables(&self) -> Result<&Arc<Tables>, NoTables> {
        self.tables.0.get().ok_or(NoTables)
    }
}
