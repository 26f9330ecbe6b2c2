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
    /// What this is a part of.
    of: Option<Arc<MemoryBudget>>,
}

impl MemoryBudget {
    /// So many bytes.
    pub fn new(limit: u64) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget { used: AtomicU64::new(0), most: AtomicU64::new(0), limit, of: None })
    }

    /// So many bytes at the most, which `of` has to have, too.
    pub fn within(of: &Arc<MemoryBudget>, limit: u64) -> Arc<MemoryBudget> {
        let of = Some(Arc::clone(of));
        Arc::new(MemoryBudget { used: AtomicU64::new(0), most: AtomicU64::new(0), limit, of })
    }

    /// Takes `to` bytes instead of `before`, or none if that is more than there is.
    fn change(&self, before: u64, to: u64) -> Result<(), StateError> {
        let limit = self.limit;
        let change = |used: u64| {
            let after = (used - before).saturating_add(to);
            (to <= before || after <= limit || Mutant::BudgetIgnored.is_on()).then_some(after)
        };
        let changed = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        changed.map_err(|_| StateError::Memory { limit })?;
        if let Some(of) = &self.of
            && let Err(error) = of.change(before, to)
        {
            // Added first, so that it never falls below what others have.
            self.used.fetch_add(before, Ordering::Relaxed);
            self.used.fetch_sub(to, Ordering::Relaxed);
            return Err(error);
        }
        self.most.fetch_max(self.used(), Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(of) = &self.of {
            of.give_back(bytes);
        }
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
pub struct MemoryShare {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl MemoryShare {
    /// Nothing yet.
    pub fn of(budget: &Arc<MemoryBudget>) -> MemoryShare {
        MemoryShare { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes another share than before, or none if all shares together would be too much.
    ///
    /// # Errors
    /// It stays as it was.
    pub fn set(&mut self, to: u64) -> Result<(), StateError> {
        self.budget.change(self.bytes, to)?;
        self.bytes = to;
        Ok(())
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_what_the_whole_has_left() {
        let whole = MemoryBudget::new(100);
        let parts = [80, 80].map(|limit| MemoryBudget::within(&whole, limit));
        let mut shares = parts.each_ref().map(MemoryShare::of);
        shares[0].set(60).unwrap();
        assert_eq!(shares[1].set(50), Err(StateError::Memory { limit: 100 }), "the whole has 40 left");
        assert_eq!(shares[0].set(81), Err(StateError::Memory { limit: 80 }));
        assert_eq!((parts[0].used(), parts[1].used(), whole.used()), (60, 0, 60));
        shares[1].set(40).unwrap();
        shares[0].set(10).unwrap();
        assert_eq!((parts[0].used(), parts[0].most(), whole.used(), whole.most()), (10, 60, 50, 100));
        drop(shares);
        assert_eq!((parts[0].used(), parts[1].used(), whole.used()), (0, 0, 0));
    }
}
