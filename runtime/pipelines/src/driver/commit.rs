//! When a driver commits, and what it then knows to be committed.

use pelton_commitlog::mutant::Mutant;

use super::{Driver, DriverError};
use crate::io::{IoError, Ticket};

/// What was appended since the last commit was started.
#[derive(Default)]
pub(super) struct Uncommitted {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) since_ms: Option<i64>,
}

pub(super) struct InFlight {
    ticket: Ticket,
    /// Which lanes, by index, and up to which offset.
    lanes: Vec<(usize, i64)>,
}

impl Driver<'_> {
    /// Starts a commit when something is uncommitted and none is in flight; waits for the one in flight when the
    /// limits of the manifest are reached.
    pub(super) fn commit_when_due(&mut self) -> Result<(), DriverError> {
        let Some(since_ms) = self.uncommitted.since_ms else { return Ok(()) };
        let limits = &self.spec.commit;
        let over = self.uncommitted.records >= u64::from(limits.records)
            || self.uncommitted.bytes >= limits.bytes.bytes()
            || self.now_ms().saturating_sub(since_ms) >= i64::from(limits.interval_ms);
        if !self.settle(over)? {
            return Ok(());
        }
        self.start_commit()
    }

    /// Commits everything and waits until it is durable.
    pub(super) fn commit_all(&mut self) -> Result<(), DriverError> {
        self.settle(true)?;
        if self.uncommitted.since_ms.is_some() {
            self.start_commit()?;
            self.settle(true)?;
        }
        Ok(())
    }

    pub(super) fn start_commit(&mut self) -> Result<(), DriverError> {
        let lanes = self.lanes.iter().enumerate();
        let moved = lanes.filter(|(_, lane)| lane.position > lane.committed || !lane.anchored);
        let moved: Vec<(usize, i64)> = moved.map(|(index, lane)| (index, lane.position)).collect();
        let Uncommitted { bytes, .. } = std::mem::take(&mut self.uncommitted);
        // Outputs of a topic that has been deleted since have no offset.
        if !moved.is_empty() || bytes > 0 {
            let offsets: Vec<_> =
                moved.iter().map(|&(lane, offset)| (self.lanes[lane].input, offset)).collect();
            let ticket = self.io.commit(&offsets)?;
            self.in_flight = Some(InFlight { ticket, lanes: moved });
        }
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
        self.totals.commits += 1;
        for (lane, offset) in flight.lanes {
            (self.lanes[lane].committed, self.lanes[lane].anchored) = (offset, true);
        }
        Ok(true)
    }
}
