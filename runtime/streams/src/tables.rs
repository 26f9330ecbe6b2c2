//! What a table is, and what is decided about one: where its rows are, what a store that is found may be trusted for,
//! and what a stretch of its topic changes.
//!
//! A *table* is what replaying a compacted topic gives, and nothing else: for each key the value of its last record,
//! if that record has one. It is kept in *stores*, one for each partition of the topic, or a single one for all of
//! them (a *global* table). A store holds, under keys of its own:
//!
//! ```text
//! 00 partition(4)   → how far the partition was read: version(1) topic id(16) next offset(8) as of(8)
//! 01 key            → version(1) timestamp(8) value
//! ```
//!
//! Numbers are big endian. Rows and marks are written in one batch, so that at any moment, after any crash, the rows
//! of a store are those of a replay of each partition up to its mark: a store may be behind its topic, never ahead of
//! it.

mod chunk;
mod definition;
mod mark;
mod rows;

pub use chunk::{Chunk, Counts};
pub use definition::{KeyPlacement, NameError, Scope, StoreKind, TableDefinition, ValueFormat, check_name};
pub use mark::{LogState, Mark, Opening, Rebuild, marks_of, opening};
pub use rows::{Cursor, Merged, Row, RowRange, row};

/// The one store of a table's database.
pub const STORE: crate::state::StoreIndex = 0;
/// What that store is called.
pub const STORE_NAME: &str = "rows";

const MARK_TAG: u8 = 0;
const ROW_TAG: u8 = 1;

#[cfg(test)]
mod tests;
