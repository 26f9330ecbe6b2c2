//! What a partition remembers of its idempotent and transactional producers: pure state, fed with batch
//! headers.
//!
//! The rules and their order are Kafka's: a duplicate is recognised first, then epochs, then sequences. A
//! producer that is not known may start at any sequence, because retention may have taken its past. Open
//! transactions are here too, because batches and markers of the same producers open and end them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use pelton_wire::record::{BatchHeader, NO_PRODUCER_EPOCH, NO_SEQUENCE, next_sequence};

use crate::mutant::Mutant;
use crate::txn_index::AbortedTxn;

mod snapshot;

/// How many batches of a producer are remembered: Kafka's clients keep at most this many in flight.
pub const BATCHES_PER_PRODUCER: usize = 5;

/// Who appends, which decides what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A producer: sequences are checked, control batches refused.
    Client,
    /// The broker itself (group offsets, transaction state, markers): no sequences.
    Coordinator,
}

/// One batch that a producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// First sequence.
    pub first_sequence: i32,
    /// Last sequence.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Largest timestamp of the batch, ms.
    pub timestamp: i64,
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// Its newest epoch.
    pub epoch: i16,
    /// Epoch of the coordinator that wrote its last marker, -1 before the first.
    pub coordinator_epoch: i32,
    /// When it last wrote here, ms of the broker's clock.
    pub last_write_ms: i64,
    /// First offset of its open transaction.
    pub current_txn_first_offset: Option<i64>,
    /// Its last batches in this epoch, oldest first, at most [`BATCHES_PER_PRODUCER`].
    pub batches: VecDeque<ProducerBatch>,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Append it.
    New,
    /// It is there already: answer with its first place.
    Duplicate(ProducerBatch),
    /// The sequence does not follow `last_sequence`.
    OutOfOrderSequence {
        /// The last sequence that is known, -1 for none.
        last_sequence: i32,
    },
    /// The sequence was given to a record of a transaction that has ended.
    SequenceOfEnded {
        /// The last sequence that is known.
        last_sequence: i32,
    },
    /// Its epoch is older than this one.
    InvalidProducerEpoch {
        /// The epoch that is known.
        current_epoch: i16,
    },
    /// It is not part of the transaction that its producer has open.
    InvalidTxnState,
    /// The marker comes from a coordinator that was replaced by this epoch.
    CoordinatorFenced {
        /// The epoch that is known.
        current_epoch: i32,
    },
    /// The partition remembers as many producers as it may, and all of them have a transaction open.
    TooManyProducers,
    /// An earlier batch of it was refused for a while, and has to come first.
    AfterRefused,
}

/// A transaction that a marker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedTxn {
    /// Producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// Whether the marker aborts it.
    pub aborted: bool,
}

/// All producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: HashMap<i64, ProducerState>,
    /// Open transactions: first offset → producer.
    ongoing: BTreeMap<i64, i64>,
    /// Ended ones whose marker is at or above the high watermark: first offset → offset of the marker, producer.
    unreplicated: BTreeMap<i64, (i64, i64)>,
    /// Producers whose batch was refused for a while: epoch and first sequence of it.
    refused: HashMap<i64, (i16, i32)>,
}

/// Most refused batches that are remembered. There are more only when a full disk meets that many producers, and then those
/// of the others are told that they are out of order.
const REFUSED_MAX: usize = 1000;

impl ProducerState {
    fn new(epoch: i16) -> ProducerState {
        ProducerState {
            epoch,
            coordinator_epoch: -1,
            last_write_ms: 0,
            current_txn_first_offset: None,
            batches: VecDeque::new(),
        }
    }

    /// Of its last batch in this epoch, -1 before the first.
    fn last_offset(&self) -> i64 {
        self.batches.back().map_or(-1, |batch| batch.last_offset)
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// The batch that this one repeats. A transactional batch repeats only batches of its own transaction: after an abort
    /// librdkafka gives the sequences of the batches that it dropped to new ones, although the broker may have the dropped
    /// ones. (Kafka takes the new batch for a copy, acknowledges it, and loses it.)
    fn duplicate(&self, header: &BatchHeader) -> Option<ProducerBatch> {
        let same = |b: &&ProducerBatch| {
            b.first_sequence == header.base_sequence && b.last_sequence == header.last_sequence()
        };
        let found = self.of_epoch(header).find(same)?;
        (!self.has_ended(header, found) || Mutant::DuplicateOfEnded.is_on()).then_some(*found)
    }

    /// Whether the first sequence was given to a record of a transaction that has ended.
    fn reuses(&self, header: &BatchHeader) -> bool {
        let sequence = header.base_sequence;
        self.of_epoch(header).any(|batch| {
            (batch.first_sequence..=batch.last_sequence).contains(&sequence) && self.has_ended(header, batch)
        })
    }

    fn of_epoch(&self, header: &BatchHeader) -> impl Iterator<Item = &ProducerBatch> {
        let known = self.epoch == header.producer_epoch;
        self.batches.iter().filter(move |_| known)
    }

    /// Whether a batch is of an earlier transaction than this one.
    fn has_ended(&self, header: &BatchHeader, batch: &ProducerBatch) -> bool {
        let open_since = self.current_txn_first_offset;
        header.is_transactional() && open_since.is_none_or(|first_offset| batch.base_offset < first_offset)
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

impl ProducerStates {
    /// Number of known producers.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True if no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// What is known of a producer.
    pub fn get(&self, producer_id: i64) -> Option<&ProducerState> {
        self.producers.get(&producer_id)
    }

    /// All producers, by id.
    pub fn all(&self) -> Vec<(i64, &ProducerState)> {
        let mut all: Vec<_> = self.producers.iter().map(|(id, state)| (*id, state)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Whether a batch with data may be appended to a partition that remembers `max` producers. Sequences and that limit
    /// are checked for clients only: the coordinators bound the transactional ids that they write for.
    pub fn check(&self, header: &BatchHeader, origin: AppendOrigin, max: usize) -> Check {
        if !header.has_producer() {
            return Check::New;
        }
        let client = origin == AppendOrigin::Client;
        let after_refused = client && self.follows_refused(header);
        let Some(state) = self.producers.get(&header.producer_id) else {
            if after_refused {
                return Check::AfterRefused;
            }
            let none_can_go = client && self.ongoing.len() >= max;
            return if none_can_go { Check::TooManyProducers } else { Check::New };
        };
        if client && let Some(batch) = state.duplicate(header) {
            return if Mutant::DuplicateAppended.is_on() { Check::New } else { Check::Duplicate(batch) };
        }
        if header.producer_epoch < state.epoch && !Mutant::PartitionFencing.is_on() {
            return Check::InvalidProducerEpoch { current_epoch: state.epoch };
        }
        if after_refused {
            return Check::AfterRefused;
        }
        if client {
            let last_sequence = state.last_sequence();
            let in_order = if header.producer_epoch > state.epoch {
                header.base_sequence == 0 || state.epoch == NO_PRODUCER_EPOCH
            } else {
                header.base_sequence == next_sequence(last_sequence)
            };
            if !in_order && !Mutant::SequencesUnchecked.is_on() {
                return if state.reuses(header) {
                    Check::SequenceOfEnded { last_sequence }
                } else {
                    Check::OutOfOrderSequence { last_sequence }
                };
            }
        }
        if state.current_txn_first_offset.is_some() && !header.is_transactional() {
            return Check::InvalidTxnState;
        }
        Check::New
    }

    /// Notes that a batch was refused although nothing is wrong with it: its producer sends it again. The batches that it
    /// has sent meanwhile wait for that. Were they taken, or told to be out of order, a client would lose the order of its
    /// records, or give up its epoch and send again what other partitions have.
    pub fn refuse(&mut self, header: &BatchHeader) {
        if header.has_producer() && header.base_sequence >= 0 && self.refused.len() < REFUSED_MAX {
            let batch = (header.producer_epoch, header.base_sequence);
            // The first one counts until it comes again.
            self.refused
                .entry(header.producer_id)
                .and_modify(|b| {
                    if b.0 < batch.0 {
                        *b = batch;
                    }
                })
                .or_insert(batch);
        }
    }

    /// Forgets the batches that were refused: a producer that has not sent one again by now will not.
    pub fn forget_refused(&mut self) {
        self.refused = HashMap::new();
    }

    fn follows_refused(&self, header: &BatchHeader) -> bool {
        let refused = self.refused.get(&header.producer_id);
        refused.is_some_and(|(epoch, sequence)| {
            *epoch == header.producer_epoch && *sequence != header.base_sequence
        })
    }

    /// Whether a marker may be appended.
    pub fn check_marker(&self, producer_id: i64, producer_epoch: i16, coordinator_epoch: i32) -> Check {
        match self.producers.get(&producer_id) {
            Some(state) if producer_epoch < state.epoch && !Mutant::MarkerFencing.is_on() => {
                Check::InvalidProducerEpoch { current_epoch: state.epoch }
            }
            Some(state) if coordinator_epoch < state.coordinator_epoch => {
                Check::CoordinatorFenced { current_epoch: state.coordinator_epoch }
            }
            _ => Check::New,
        }
    }

    /// Notes a batch with data that is in the log at the offsets in its header.
    pub fn record(&mut self, header: &BatchHeader, now_ms: i64) {
        if !header.has_producer() {
            return;
        }
        let state = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| ProducerState::new(header.producer_epoch));
        self.refused.remove(&header.producer_id);
        state.enter_epoch(header.producer_epoch);
        state.last_write_ms = now_ms;
        if state.batches.len() == BATCHES_PER_PRODUCER {
            state.batches.pop_front();
        }
        state.batches.push_back(ProducerBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
        if header.is_transactional() && state.current_txn_first_offset.is_none() {
            state.current_txn_first_offset = Some(header.base_offset);
            self.ongoing.insert(header.base_offset, header.producer_id);
        }
    }

    /// Notes a marker that is in the log. A transaction without data in this partition completes nothing.
    pub fn record_marker(
        &mut self,
        header: &BatchHeader,
        committed: bool,
        coordinator_epoch: i32,
        now_ms: i64,
    ) -> Option<CompletedTxn> {
        let producer_id = header.producer_id;
        let state =
            self.producers.entry(producer_id).or_insert_with(|| ProducerState::new(header.producer_epoch));
        state.enter_epoch(header.producer_epoch);
        state.coordinator_epoch = coordinator_epoch;
        state.last_write_ms = now_ms;
        let first_offset = state.current_txn_first_offset.take()?;
        self.ongoing.remove(&first_offset);
        let last_offset = header.base_offset;
        if !Mutant::StableAtAppend.is_on() {
            self.unreplicated.insert(first_offset, (last_offset, producer_id));
        }
        Some(CompletedTxn { producer_id, first_offset, last_offset, aborted: !committed })
    }

    /// What the transaction index keeps of an aborted transaction that was just recorded.
    pub(crate) fn aborted_entry(&self, txn: &CompletedTxn) -> AbortedTxn {
        // As Kafka: the last stable offset as it will be once the marker is below the high watermark.
        let next_open = self.ongoing.first_key_value().map(|(first, _)| *first);
        AbortedTxn {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
            last_offset: txn.last_offset,
            last_stable_offset: next_open.unwrap_or(txn.last_offset + 1),
        }
    }

    /// First offset of a transaction that is open, or whose marker is not below the high watermark.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        let ongoing = self.ongoing.first_key_value().map(|(first, _)| *first);
        let ongoing = ongoing.filter(|_| !Mutant::StableIgnoresOpen.is_on());
        let unreplicated = self.unreplicated.first_key_value().map(|(first, _)| *first);
        ongoing.into_iter().chain(unreplicated).min()
    }

    /// Transactions that are open, or whose marker is not below the high watermark: first offset and producer.
    pub fn undecided(&self) -> impl Iterator<Item = (i64, i64)> {
        let open = self.ongoing.iter().map(|(first, producer)| (*first, *producer));
        open.chain(self.unreplicated.iter().map(|(first, (_, producer))| (*first, *producer)))
    }

    /// The high watermark moved: markers below it are final.
    pub fn high_watermark_moved(&mut self, high_watermark: i64) {
        if !self.unreplicated.is_empty() {
            self.unreplicated.retain(|_, (marker, _)| *marker >= high_watermark);
        }
    }

    /// Forgets producers once there are more than `max`: those that have written nothing for the longest time, never one
    /// with an open transaction. Kafka's clients go on as after an expiration. A sixteenth more than necessary goes, so
    /// that not every new producer comes here.
    pub fn keep_at_most(&mut self, max: usize) {
        let surplus = self.producers.len().saturating_sub(max);
        if surplus == 0 {
            return;
        }
        let mut quiet: Vec<(i64, i64, i64)> = self
            .producers
            .iter()
            .filter(|(_, state)| state.current_txn_first_offset.is_none())
            .map(|(id, state)| (state.last_write_ms, state.last_offset(), *id))
            .collect();
        // The newest has just written, so it stays unless no other can go.
        let goes = (surplus + max / 16).min(quiet.len().saturating_sub(1)).max(surplus.min(quiet.len()));
        if goes == 0 {
            return;
        }
        quiet.select_nth_unstable(goes - 1);
        for (_, _, id) in &quiet[..goes] {
            self.producers.remove(id);
        }
    }

    /// The largest producer id that is known.
    pub fn largest_id(&self) -> Option<i64> {
        self.producers.keys().copied().max()
    }

    /// Forgets producers that wrote nothing for `expiration_ms` and have no open transaction.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, state| {
            state.current_txn_first_offset.is_some()
                || now_ms.saturating_sub(state.last_write_ms) < expiration_ms
        });
    }
}

#[cfg(test)]
mod tests;
