//! When a driver commits, and what it then knows to be committed.

use std::collections::BTreeMap;

use pelton_commitlog::mutant::Mutant;
use pelton_streams::state::StateBatch;
use pelton_streams::task::TaskId;

use super::stores::EndedTransactions;
use super::{Driver, DriverError};
use crate::io::{Input, IoError, Ticket};
use crate::status::Counted;

/// What was appended since the last commit was started.
#[derive(Default)]
pub(super) struct Uncommitted {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) since_ms: Option<i64>,
}

pub(super) struct InFlight {
    ticket: Ticket,
    /// Which inputs, and up to which offset.
    offsets: Vec<(Input, i64)>,
    /// What stores take over once it is durable.
    stores: Vec<(TaskId, StateBatch)>,
    /// What was counted with it.
    counted: Counted,
}

impl Driver<'_> {
    /// Starts a commit when something is uncommitted and none is in flight; waits for the one in flight when the
    /// limits of the manifest are reached.
    pub(super) fn commit_when_due(&mut self) -> Result<(), DriverError> {
        let Some(since_ms) = self.uncommitted.since_ms else { return Ok(()) };
        let limits = &self.spec.commit;
        let over = self.uncommitted.records >= u64::from(limits.records)
            || self.uncommitted.bytes >= limits.bytes.bytes()
            || self.now_ms().saturating_sub(since_ms) >= i64::from(limits.interval_ms)
            || self.stores_are_full();
        if !self.settle(over)? {
            return Ok(());
        }
        self.start_commit()
    }

    /// Commits everything and waits until it is durable.
    pub(super) fn commit_all(&mut self) -> Result<(), DriverError> {
        self.settle(true)?;
        // What operators have forgotten before a step that was put off is of no record.
        let is_open = self.stores_are_open() && !Mutant::OpenTakenOver.is_on();
        if self.uncommitted.since_ms.is_some() || is_open {
            self.start_commit()?;
            self.settle(true)?;
        }
        Ok(())
    }

    pub(super) fn start_commit(&mut self) -> Result<(), DriverError> {
        let moved = self
            .positions()
            .filter(|position| position.next_offset > position.committed || !position.anchored);
        let offsets: Vec<(Input, i64)> =
            moved.map(|position| (position.input, position.next_offset)).collect();
        let Uncommitted { bytes, .. } = std::mem::take(&mut self.uncommitted);
        let EndedTransactions { wrote, take_over: stores } = self.end_store_transactions()?;
        // Outputs of a topic that has been deleted since have no offset, and neither has what was kept of its records.
        if offsets.is_empty() && bytes == 0 && !wrote {
            self.counted.clone_from(&self.counting);
            return self.take_over(stores);
        }
        let ticket = self.io.commit(&offsets)?;
        self.in_flight = Some(InFlight { ticket, offsets, stores, counted: self.counting.clone() });
        Ok(())
    }

    /// Takes the outcome of the commit in flight, if it is there or must be waited for. True: none is in flight now.
    pub(super) fn settle(&mut self, wait: bool) -> Result<bool, DriverError> {
        let Some(mut flight) = self.in_flight.take() else { return Ok(true) };
        let gone = || IoError::Unavailable("the group coordinator went away".to_owned());
        let outcome = if wait {
            flight.ticket.blocking_recv().unwrap_or_else(|_| Err(gone()))
        } else {
            match flight.ticket.try_recv() {
                Ok(outcome) => outcome,
                Err(tokio::sync::oneshot::error::TryRecvError::Closed) => Err(gone()),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty) => {
                    self.in_flight = Some(flight);
                    return Ok(false);
                }
            }
        };
        if !Mutant::FailedCommitPassed.is_on() {
            outcome?;
        }
        self.counting.totals.commits += 1;
        self.counted = flight.counted;
        self.take_over(flight.stores)?;
        let committed: BTreeMap<Input, i64> = flight.offsets.into_iter().collect();
        for position in self.positions_mut() {
            if let Some(&offset) = committed.get(&position.input) {
                (position.committed, position.anchored) = (offset, true);
            }
        }
        Ok(true)
    }
}
