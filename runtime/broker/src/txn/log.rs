//! `__transaction_state` as a topic of this broker.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::TxnError;
use super::records::{self, decode_key, decode_value};
use super::state::Transaction;
use crate::clock::Clock;
use crate::group::partition_of;
use crate::partition::{InternalAppend, InternalRecord, Partition, Replayed};
use crate::topics::{NewTopic, TopicError, Topics};

/// The name of the topic.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// Where transactions are kept.
pub(super) struct TransactionLog {
    topics: Arc<Topics>,
    clock: Arc<dyn Clock>,
    /// `transaction.state.log.segment.bytes`
    segment_bytes: u32,
}

impl TransactionLog {
    pub(super) fn new(topics: Arc<Topics>, clock: Arc<dyn Clock>, segment_bytes: u32) -> TransactionLog {
        TransactionLog { topics, clock, segment_bytes }
    }

    pub(super) async fn create(&self, partitions: i32) -> Result<(), TxnError> {
        let settings =
            [("cleanup.policy", "compact".to_owned()), ("segment.bytes", self.segment_bytes.to_string())];
        let overrides = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let new = NewTopic { name: TRANSACTIONS_TOPIC.to_owned(), partitions, overrides };
        match self.topics.create(new, self.clock.now_ms()).await {
            Ok(_) | Err(TopicError::Exists(_)) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "transactions cannot be served");
                Err(TxnError::NotAvailable)
            }
        }
    }

    /// Appends the state of a transactional id. It has its place when this returns.
    pub(super) fn write(&self, txn: &Transaction) -> Result<InternalAppend, TxnError> {
        self.append(&txn.id, Some(records::encode_value(txn)))
    }

    /// Deletes a transactional id.
    pub(super) fn forget(&self, id: &str) -> Result<InternalAppend, TxnError> {
        self.append(id, None)
    }

    /// The partitions, none before the topic is there.
    pub(super) fn partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.get(TRANSACTIONS_TOPIC).map(|topic| topic.partitions.clone()).unwrap_or_default()
    }

    /// The partition of a transactional id.
    pub(super) fn partition(&self, id: &str) -> Result<Arc<Partition>, TxnError> {
        let topic = self.topics.get(TRANSACTIONS_TOPIC).ok_or(TxnError::NotAvailable)?;
        let index = i32::try_from(partition_of(id, topic.partitions.len())).unwrap_or(0);
        topic.partition(index).cloned().ok_or(TxnError::NotAvailable)
    }

    fn append(&self, id: &str, value: Option<bytes::Bytes>) -> Result<InternalAppend, TxnError> {
        let partition = self.partition(id)?;
        let record = InternalRecord { key: Some(records::encode_key(id)), value };
        partition.append_records(&[record], self.clock.now_ms()).map_err(|error| {
            tracing::warn!(transactional_id = id, %error, "the state of a transaction was not written");
            TxnError::NotAvailable
        })
    }

    /// Everything that is there, the newest of each id. Blocking. A record that does not read is left out, and said.
    pub(super) fn replay(&self) -> Result<HashMap<Arc<str>, Transaction>, String> {
        let mut all = HashMap::new();
        let Some(topic) = self.topics.get(TRANSACTIONS_TOPIC) else { return Ok(all) };
        for partition in &topic.partitions {
            let take = |met: Replayed<'_>| {
                let Replayed::Record { key: Some(key), value, offset, .. } = met else { return };
                let read = decode_key(key).and_then(|id| match value {
                    Some(value) => decode_value(Arc::clone(&id), value).map(|txn| (id, Some(txn))),
                    None => Ok((id, None)),
                });
                match read {
                    Ok((id, Some(txn))) => drop(all.insert(id, txn)),
                    Ok((id, None)) => drop(all.remove(&id)),
                    Err(error) => {
                        tracing::error!(partition = partition.index(), offset, %error, "a record of `__transaction_state` was left out");
                    }
                }
            };
            partition.replay(0, take).map_err(|error| error.to_string())?;
        }
        Ok(all)
    }
}
