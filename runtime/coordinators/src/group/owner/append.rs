//! Appends in the order of decisions, and answers when what they rest on is durable.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::super::error::GroupError;
use super::super::records;
use super::super::store::{KeyValue, StoreError, StoreFuture};
use super::super::types::{Append, Effects, GroupId, GroupRecord, Then};
use super::Owner;
use super::message::{ReplyTo, answer};
use pelton_partitions::producer_id::ProducerIdentity;

/// Called when the appends before it have landed or failed.
pub(super) type After = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// An append on its way to the disk.
pub(super) struct InFlight {
    pub(super) landing: StoreFuture<i64>,
    pub(super) group: GroupId,
    pub(super) then: Then,
    pub(super) after: Vec<After>,
}

impl Owner {
    /// Answers when what the answer rests on is durable: a refusal rests on nothing.
    pub(super) fn perform_then_answer<T: Send + 'static>(
        &mut self,
        effects: Effects,
        reply: ReplyTo<T>,
        result: Result<T, GroupError>,
    ) {
        self.perform(effects, Some(Box::new(move |landed| answer(reply, landed.and(result)))));
    }

    /// Answers when everything before is durable, so that no client is told of a change that a crash undoes.
    pub(super) fn answer_after_all<T: Send + 'static>(&mut self, reply: ReplyTo<T>, value: T) {
        match self.in_flight.back_mut() {
            Some(last) => last.after.push(Box::new(move |landed| answer(reply, landed.map(|()| value)))),
            None => answer(reply, Ok(value)),
        }
    }

    pub(super) fn perform(&mut self, effects: Effects, after: Option<After>) {
        // A failed append is queued too, so its error is reported in order.
        let _ = self.place(effects, after);
    }

    /// Appends and replies. Whether everything has its place in the log.
    pub(super) fn place(&mut self, effects: Effects, after: Option<After>) -> Result<(), GroupError> {
        let mut placed = Ok(());
        for reply in effects.replies {
            self.reply(reply);
        }
        // A request with several appends is answered with the first that fails.
        let failed: Arc<OnceLock<GroupError>> = Arc::default();
        let (mut rest, waits) = (effects.appends.len(), after.is_some());
        let mut after = after;
        for Append { group, transaction, records, then } in effects.appends {
            let landing = match self.append(transaction, &records) {
                Ok(landing) => landing,
                Err(error) => {
                    placed = placed.and(Err(refusal(&error, &then)));
                    Box::pin(std::future::ready(Err(error)))
                }
            };
            let mut in_flight = InFlight { landing, group, then, after: Vec::new() };
            rest -= 1;
            let failed = Arc::clone(&failed);
            match after.take_if(|_| rest == 0) {
                Some(after) => in_flight.after.push(Box::new(move |landed| {
                    after(failed.get().map_or(landed, |error| Err(*error)));
                })),
                None if waits => in_flight.after.push(Box::new(move |landed| {
                    landed.err().map(|error| failed.get_or_init(|| error));
                })),
                None => {}
            }
            self.in_flight.push_back(in_flight);
        }
        if let Some(after) = after {
            after(Ok(()));
        }
        placed
    }

    fn append(
        &self,
        producer: Option<ProducerIdentity>,
        records: &[GroupRecord],
    ) -> Result<StoreFuture<i64>, StoreError> {
        let encoded: Result<Vec<KeyValue>, _> =
            records.iter().map(|r| records::encode(r).map(|(key, value)| KeyValue { key, value })).collect();
        let encoded = encoded.map_err(|_| StoreError::TooLarge)?;
        self.store.append(self.partition, producer, encoded, self.clock.wall.now_ms())
    }

    /// The oldest append has landed or failed.
    pub(super) fn landed(&mut self, result: Result<i64, StoreError>) {
        let Some(InFlight { group, then, after, .. }) = self.in_flight.pop_front() else { return };
        let result = result.map_err(|error| {
            tracing::warn!(partition = self.partition, group = &*group, %error, "the records of a group were not written");
            refusal(&error, &then)
        });
        if let Ok(base_offset) = result {
            self.landed_before = base_offset + 1;
        }
        let outcome = result.map(|_| ());
        if let (Then::EndTransaction { producer_id, commit }, Ok(())) = (&then, outcome) {
            self.shard.end_transaction(*producer_id, *commit);
        }
        let effects = self.shard.landed(&group, then, result, self.clock.now());
        self.perform(effects, None);
        for answer in after {
            answer(outcome);
        }
    }
}

/// Waits for the oldest append; for ever when there is none.
pub(super) async fn landing(in_flight: &mut VecDeque<InFlight>) -> Result<i64, StoreError> {
    match in_flight.front_mut() {
        Some(oldest) => (&mut oldest.landing).await,
        None => std::future::pending().await,
    }
}

/// The error of a failed append, for the client that waits for it.
pub(super) fn refusal(error: &StoreError, then: &Then) -> GroupError {
    match (error, then) {
        (StoreError::TooLarge, Then::Offsets(_) | Then::Pending { .. } | Then::EndTransaction { .. }) => {
            GroupError::CommitTooLarge
        }
        (
            StoreError::TooLarge,
            Then::Assign { .. } | Then::ReplaceStatic { .. } | Then::Emptied | Then::Delete { .. },
        ) => GroupError::GroupTooLarge,
        (StoreError::ProducerFenced, _) => GroupError::ProducerFenced,
        (StoreError::CoordinatorFenced, _) => GroupError::CoordinatorFenced,
        // The client finds its coordinator again and repeats: an offset committed twice is the same offset.
        (StoreError::Unavailable { .. }, _) => GroupError::CoordinatorNotAvailable,
    }
}
