//! What a task keeps between records, as far as a step goes: that it can be undone.

use super::kept::Kept;

/// The state of a task. A range of records is run between a savepoint and its end: what the range has written is undone when a
/// node fails in it or a topic refuses what it emits, and the same records, without the one to blame, are run again.
/// Savepoints of one task are not nested.
pub trait Savepoints: Send {
    /// A range begins.
    fn begin(&mut self);
    /// What was written since the savepoint stays.
    fn keep(&mut self);
    /// What was written since the savepoint is undone.
    fn undo(&mut self);
}

/// Nothing is kept between records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stateless;

impl Savepoints for Stateless {
    fn begin(&mut self) {}
    fn keep(&mut self) {}
    fn undo(&mut self) {}
}

/// What a task keeps.
pub(super) enum State {
    /// What the nodes of a graph do.
    Kept(Box<Kept>),
    /// Of a task of plugins alone.
    Plugins(Box<dyn Savepoints>),
}

impl State {
    pub(super) fn savepoints(&mut self) -> &mut dyn Savepoints {
        match self {
            State::Kept(kept) => &mut **kept,
            State::Plugins(savepoints) => &mut **savepoints,
        }
    }

    pub(super) fn kept(&mut self) -> Option<&mut Kept> {
        match self {
            State::Kept(kept) => Some(kept),
            State::Plugins(_) => None,
        }
    }
}
