//! Memory of the stores that are kept in memory: one bound for all of a process, tables' and tasks', and what each of them
//! has of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_wire::mutant::Mutant;

use super::StateError;

/// What all stores in memory may take together: `pelton.state.memory.max.bytes`.
#[derive(Debug)]
pub struct MemoryBudget {
    used: AtomicU64,
    most: AtomicU64,
    limit: u64,
}

impl MemoryBudget {
    /// So many bytes.
    pub fn new(limit: u64) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget { used: AtomicU64::new(0), most: AtomicU64::new(0), limit })
    }

    /// Bytes that stores have taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most that they had taken at a time.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// What one store has of the budget. It goes back when the store is dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl MemoryShare {
    pub(super) fn of(budget: &Arc<MemoryBudget>) -> MemoryShare {
        MemoryShare { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes another share than before, or none if all shares together would be too much.
    pub(super) fn set(&mut self, to: u64) -> Result<(), StateError> {
        let (before, limit) = (self.bytes, self.budget.limit);
        let change = |used: u64| {
            let after = (used - before).saturating_add(to);
            (to <= before || after <= limit || Mutant::BudgetIgnored.is_on()).then_some(after)
        };
        let changed = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        changed.map_err(|_| StateError::Memory { limit })?;
        self.budget.most.fetch_max(self.budget.used(), Ordering::Relaxed);
        self.bytes = to;
        Ok(())
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
