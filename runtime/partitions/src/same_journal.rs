//! That one journal orders everything, as a value.

/// Taken by code that relies on the one journal: a sync makes a prefix of it durable, so that no record outlives a
/// crash that a record appended before it does not outlive, whichever partitions the two are of. The catalogue gives
/// it, because all its partitions write to one journal. A catalogue of several brokers cannot, and then the compiler
/// names all that has to wait for a sync instead.
#[derive(Clone, Copy, Debug)]
pub struct SameJournal(());

impl SameJournal {
    /// Only for an owner of partitions that all write to one journal.
    pub(crate) fn known() -> SameJournal {
        SameJournal(())
    }
}
