//! One transactional id: what its producer may do, and what each request makes of it. Pure; Kafka's rules, of both
//! protocols (KIP-98 with KIP-360, and KIP-890's `transaction.version=2`).

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;

use super::error::TxnError;
use crate::group::types::TopicPartition;
use pelton_partitions::producer_id::ProducerIdentity;

/// No producer id, no epoch.
pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_EPOCH: i16 = -1;
/// `transaction.version` of the older protocol and of the newer one, as records have it.
const CLASSIC: i16 = 0;
const EPOCH_PER_TRANSACTION: i16 = 2;
/// The last epoch that a producer gets; the one after it is kept for fencing.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Where a transaction is. The numbers are those of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnState {
    Empty = 0,
    Ongoing = 1,
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
    Dead = 6,
    PrepareEpochFence = 7,
}

impl TxnState {
    pub const ALL: [TxnState; 8] = [
        TxnState::Empty,
        TxnState::Ongoing,
        TxnState::PrepareCommit,
        TxnState::PrepareAbort,
        TxnState::CompleteCommit,
        TxnState::CompleteAbort,
        TxnState::Dead,
        TxnState::PrepareEpochFence,
    ];

    /// Kafka's name, as DescribeTransactions has it.
    pub fn name(self) -> &'static str {
        match self {
            TxnState::Empty => "Empty",
            TxnState::Ongoing => "Ongoing",
            TxnState::PrepareCommit => "PrepareCommit",
            TxnState::PrepareAbort => "PrepareAbort",
            TxnState::CompleteCommit => "CompleteCommit",
            TxnState::CompleteAbort => "CompleteAbort",
            TxnState::Dead => "Dead",
            TxnState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    fn is_ending(self) -> bool {
        matches!(self, TxnState::PrepareCommit | TxnState::PrepareAbort | TxnState::PrepareEpochFence)
    }
}

/// Which protocol a client speaks, by the versions of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Partitions are added before they are written to; the epoch stays.
    Classic,
    /// `transaction.version=2`: writing adds, and every end raises the epoch.
    EpochPerTransaction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub id: Arc<str>,
    pub producer: ProducerIdentity,
    /// The producer id before an exhausted epoch gave it a new one.
    pub previous_producer_id: i64,
    /// The producer id that takes over when the transaction that is ending has ended.
    pub next_producer_id: i64,
    /// The epoch that the producer had before the current one, if no other producer has taken the id since: by it a
    /// repeated InitProducerId is recognised, and a producer whose transaction timed out. Not in the log, nor in
    /// Kafka's.
    pub last_epoch: i16,
    pub timeout_ms: i32,
    pub state: TxnState,
    pub partitions: BTreeSet<TopicPartition>,
    /// When the open transaction began, ms; -1 while none is.
    pub start_ms: i64,
    pub updated_ms: i64,
    /// `transaction.version` of the client that wrote or ended last.
    pub client_version: i16,
}

/// What InitProducerId asks for, when it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// A repeated request, which gets what the first one got; or one of a producer whose transaction was ended for it,
    /// which gets the epoch that the end has left.
    Again,
    /// The epoch after the current one.
    Bump,
    /// No epoch is left: a new producer id.
    Rotate,
}

/// Which epoch the end of a transaction leaves to its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochAfter {
    /// The same: a client of the older protocol has ended it.
    Same,
    /// The next one, which a client of the newer protocol learns from the answer.
    Next,
    /// The next one, which no producer gets: the coordinator fences the producer.
    Fencing,
}

/// What EndTxn asks for, when it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A repeated request: it has been done.
    Done,
    /// There is something to end.
    Go,
}

impl Transaction {
    /// The largest producer id that it has, had or will have.
    pub fn largest_producer_id(&self) -> i64 {
        self.producer.id.max(self.previous_producer_id).max(self.next_producer_id)
    }

    pub fn new(id: Arc<str>, producer_id: i64, timeout_ms: i32, now_ms: i64) -> Transaction {
        Transaction {
            id,
            producer: ProducerIdentity { id: producer_id, epoch: 0 },
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            last_epoch: NO_EPOCH,
            timeout_ms,
            state: TxnState::Empty,
            partitions: BTreeSet::new(),
            start_ms: -1,
            updated_ms: now_ms,
            client_version: 0,
        }
    }

    /// Whether InitProducerId of a client that says it was `before` may go on. (KIP-360: a client that has lost its
    /// place says who it was, and is fenced if another producer is there now.)
    pub fn check_init(&self, before: Option<ProducerIdentity>) -> Result<Init, TxnError> {
        if self.state.is_ending() {
            return Err(TxnError::Concurrent);
        }
        let fresh = if self.producer.epoch >= LAST_EPOCH { Init::Rotate } else { Init::Bump };
        let Some(before) = before else { return Ok(fresh) };
        if before.id == self.producer.id && before.epoch == self.producer.epoch {
            return Ok(fresh);
        }
        let was_rotated = before.id == self.previous_producer_id && before.epoch >= LAST_EPOCH;
        let was_here = before.id == self.producer.id || was_rotated;
        // A producer that was fenced since has this epoch too, but did not ask for the next one.
        let was_last = before.epoch == self.last_epoch || Mutant::FormerAsksAgain.is_on();
        if was_here && was_last && self.state != TxnState::Ongoing {
            // A time-out in the last epoch has raised it to the one that no producer gets.
            return Ok(if self.producer.epoch > LAST_EPOCH { Init::Rotate } else { Init::Again });
        }
        Err(TxnError::Fenced)
    }

    /// The state after InitProducerId. With `rotated` it has that producer id and starts at epoch 0.
    pub fn init(
        &self,
        before: Option<ProducerIdentity>,
        rotated: Option<i64>,
        timeout_ms: i32,
        now_ms: i64,
    ) -> Transaction {
        let mut next = Transaction { timeout_ms, updated_ms: now_ms, ..self.clone() };
        // The identity that the client names, not the one that fencing its open transaction made since: so it asks
        // again.
        next.last_epoch = before.map_or(NO_EPOCH, |before| before.epoch);
        match rotated {
            Some(id) => {
                next.previous_producer_id = self.producer.id;
                next.producer = ProducerIdentity { id, epoch: 0 };
            }
            None => next.producer.epoch += 1,
        }
        next.state = TxnState::Empty;
        next.partitions.clear();
        next.start_ms = -1;
        next
    }

    /// The producer is the current one.
    pub fn check_producer(&self, producer: ProducerIdentity) -> Result<(), TxnError> {
        if producer.id != self.producer.id {
            return Err(TxnError::UnknownProducer);
        }
        if producer.epoch != self.producer.epoch && !Mutant::CoordinatorFencing.is_on() {
            return Err(TxnError::Fenced);
        }
        Ok(())
    }

    /// The producer may add partitions, or write.
    pub fn check_open(&self, producer: ProducerIdentity) -> Result<(), TxnError> {
        self.check_producer(producer)?;
        if self.state.is_ending() { Err(TxnError::Concurrent) } else { Ok(()) }
    }

    /// The producer has added the partition to its open transaction.
    pub fn check_added(&self, producer: ProducerIdentity, at: &TopicPartition) -> Result<(), TxnError> {
        self.check_open(producer)?;
        let added = self.partitions.contains(at) || Mutant::PartitionsUnchecked.is_on();
        if self.state == TxnState::Ongoing && added { Ok(()) } else { Err(TxnError::NotAdded) }
    }

    /// The state with these partitions in the open transaction; `None` if they are in it already.
    pub fn add(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        protocol: Protocol,
        now_ms: i64,
    ) -> Option<Transaction> {
        let opens = self.state != TxnState::Ongoing;
        // Every transactional append comes here, and nearly every one finds its partition: nothing is copied for that.
        let new: Vec<_> =
            partitions.into_iter().filter(|at| opens || !self.partitions.contains(at)).collect();
        if !opens && new.is_empty() {
            return None;
        }
        let mut next = Transaction { updated_ms: now_ms, ..self.clone() };
        if opens {
            next.state = TxnState::Ongoing;
            next.partitions.clear();
            next.start_ms = now_ms;
        }
        next.partitions.extend(new);
        next.client_version = match protocol {
            Protocol::Classic => CLASSIC,
            Protocol::EpochPerTransaction => EPOCH_PER_TRANSACTION,
        };
        Some(next)
    }

    /// Whether EndTxn may go on.
    pub fn check_end(
        &self,
        producer: ProducerIdentity,
        commit: bool,
        protocol: Protocol,
    ) -> Result<End, TxnError> {
        let ending = self.state.is_ending();
        let decided = match self.state {
            TxnState::PrepareCommit | TxnState::CompleteCommit => Some(true),
            TxnState::PrepareAbort | TxnState::CompleteAbort => Some(false),
            _ => None,
        };
        if protocol == Protocol::EpochPerTransaction && self.ended_as(producer) {
            return match decided {
                Some(committed) if committed == commit && ending => Err(TxnError::Concurrent),
                Some(committed) if committed == commit => Ok(End::Done),
                // With a commit, the coordinator has aborted it after its time-out.
                Some(_) => Err(TxnError::InvalidState),
                None if Mutant::LateEndAccepted.is_on() => Ok(End::Go),
                None if ending => Err(TxnError::Concurrent),
                None => Err(TxnError::Fenced),
            };
        }
        self.check_producer(producer)?;
        if ending {
            let opposite = decided.is_some_and(|committed| committed != commit);
            return Err(if opposite { TxnError::InvalidState } else { TxnError::Concurrent });
        }
        match (self.state, protocol) {
            (TxnState::Ongoing, _) => Ok(End::Go),
            // Nothing was written; the epoch rises all the same, since the client counts on it.
            (_, Protocol::EpochPerTransaction) if !commit => Ok(End::Go),
            (_, Protocol::Classic) if decided == Some(commit) => Ok(End::Done),
            _ => Err(TxnError::InvalidState),
        }
    }

    /// Whether this is the identity that the producer had before its last transaction ended and raised its epoch. With
    /// the older protocol no end does that: a producer with the epoch before was fenced.
    fn ended_as(&self, producer: ProducerIdentity) -> bool {
        if self.client_version < EPOCH_PER_TRANSACTION && !Mutant::OlderTakenForNewer.is_on() {
            return false;
        }
        let bumped =
            producer.id == self.producer.id && producer.epoch.checked_add(1) == Some(self.producer.epoch);
        let rotated = producer.id == self.previous_producer_id
            && self.producer.epoch == 0
            && producer.epoch >= LAST_EPOCH;
        bumped || rotated
    }

    /// Whether the end of this transaction needs a new producer id, since no epoch is left to raise to.
    pub fn must_rotate(&self) -> bool {
        self.producer.epoch >= LAST_EPOCH
    }

    /// The state in which the end is decided and markers go out. Where the epoch rises, the markers have the new one,
    /// which fences everything of this one; `rotated` is the producer id that comes then, if none is left.
    pub fn prepare(&self, commit: bool, epoch: EpochAfter, rotated: Option<i64>, now_ms: i64) -> Transaction {
        let mut next = self.clone();
        if self.state != TxnState::Ongoing {
            // Only the newer protocol ends a transaction that has not begun.
            next.partitions.clear();
            next.start_ms = now_ms;
        }
        let raised = self.producer.epoch.saturating_add(1);
        (next.producer.epoch, next.client_version) = match epoch {
            EpochAfter::Same => (self.producer.epoch, CLASSIC),
            // Whichever protocol wrote before: a producer that repeats its EndTxn uses this one.
            EpochAfter::Next => (raised, EPOCH_PER_TRANSACTION),
            EpochAfter::Fencing => (raised, self.client_version),
        };
        next.last_epoch = if epoch == EpochAfter::Same { NO_EPOCH } else { self.producer.epoch };
        next.next_producer_id = rotated.unwrap_or(NO_PRODUCER_ID);
        next.state = if commit { TxnState::PrepareCommit } else { TxnState::PrepareAbort };
        next.updated_ms = now_ms;
        next
    }

    /// The state after all markers are written.
    pub fn complete(&self, now_ms: i64) -> Transaction {
        let mut next = self.clone();
        next.state = if self.state == TxnState::PrepareCommit {
            TxnState::CompleteCommit
        } else {
            TxnState::CompleteAbort
        };
        if self.next_producer_id != NO_PRODUCER_ID {
            next.previous_producer_id = self.producer.id;
            next.producer = ProducerIdentity { id: self.next_producer_id, epoch: 0 };
            next.next_producer_id = NO_PRODUCER_ID;
        }
        next.partitions.clear();
        next.updated_ms = now_ms;
        next
    }

    /// Whether an open transaction has had its time.
    pub fn is_timed_out(&self, now_ms: i64) -> bool {
        let open = self.state == TxnState::Ongoing && !Mutant::TimeOutNever.is_on();
        open && now_ms.saturating_sub(self.start_ms) >= i64::from(self.timeout_ms)
    }

    /// Whether no transaction is open and no producer has used the id for so long.
    pub fn is_expired(&self, now_ms: i64, after_ms: i64) -> bool {
        let idle = matches!(self.state, TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort);
        let idle = idle || Mutant::OpenExpires.is_on();
        idle && now_ms.saturating_sub(self.updated_ms) >= after_ms
    }

    /// When something is to be done about it without a request: its time-out or its expiry.
    pub fn deadline_ms(&self, expiration_ms: i64) -> Option<i64> {
        match self.state {
            TxnState::Ongoing => Some(self.start_ms.saturating_add(i64::from(self.timeout_ms))),
            TxnState::Empty | TxnState::CompleteCommit | TxnState::CompleteAbort => {
                Some(self.updated_ms.saturating_add(expiration_ms))
            }
            TxnState::PrepareCommit
            | TxnState::PrepareAbort
            | TxnState::PrepareEpochFence
            | TxnState::Dead => None,
        }
    }

    /// Whether markers are on their way.
    pub fn is_ending(&self) -> bool {
        self.state.is_ending()
    }
}

#[cfg(test)]
mod tests;
