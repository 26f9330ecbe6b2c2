//! `__transaction_state` as a topic of this broker.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::TxnError;
use super::records::{self, Key, RecordError, decode_key, decode_value};
use super::state::Transaction;
use crate::group::partition_of;
use crate::unreadable::UnreadableRecord;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::{InternalAppend, InternalRecord, Partition, ReplayError, Replayed};
use pelton_partitions::topics::{NewTopic, TopicError, Topics};

/// The name of the topic.
pub const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// Why transactions could not be read at the start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The log cannot be read.
    #[error("`__transaction_state` cannot be read: {0}. Restore that topic's directories from a copy")]
    Replay(#[from] ReplayError),
    /// A record of it is not understood.
    #[error(transparent)]
    Record(#[from] UnreadableRecord),
}

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
                tracing::warn!(%error, "`__transaction_state` cannot be created: transactions are refused");
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
        self.topics.get(TRANSACTIONS_TOPIC).map(|topic| topic.local.clone()).unwrap_or_default()
    }

    /// The partition of a transactional id.
    pub(super) fn partition(&self, id: &str) -> Result<Arc<Partition>, TxnError> {
        let topic = self.topics.get(TRANSACTIONS_TOPIC).ok_or(TxnError::NotAvailable)?;
        let count = usize::try_from(topic.partition_count).unwrap_or(0);
        let index = i32::try_from(partition_of(id, count)).unwrap_or(0);
        topic.partition(index).cloned().map_err(|_| TxnError::NotAvailable)
    }

    fn append(&self, id: &str, value: Option<bytes::Bytes>) -> Result<InternalAppend, TxnError> {
        let partition = self.partition(id)?;
        let record = InternalRecord { key: Some(records::encode_key(id)), value };
        partition.append_records(&[record], self.clock.now_ms()).map_err(|error| {
            tracing::warn!(transactional_id = id, %error, "the state of a transaction was not written");
            TxnError::NotAvailable
        })
    }

    /// Everything that is there, the newest of each id. Blocking.
    pub(super) fn replay(&self) -> Result<HashMap<Arc<str>, Transaction>, LoadError> {
        let mut all = HashMap::new();
        let Some(topic) = self.topics.get(TRANSACTIONS_TOPIC) else { return Ok(all) };
        for partition in &topic.local {
            let mut unreadable = None;
            let take = |met: Replayed<'_>| {
                let Replayed::Record { key, value, offset, .. } = met else { return };
                if let Err(error) = take(&mut all, key.unwrap_or_default(), value) {
                    unreadable.get_or_insert((offset, error));
                }
            };
            partition.replay(0, take)?;
            if let Some((offset, error)) = unreadable {
                let (partition, reason) = (partition.index(), error.to_string());
                return Err(UnreadableRecord { topic: TRANSACTIONS_TOPIC, partition, offset, reason }.into());
            }
        }
        Ok(all)
    }
}

/// Takes one record over.
fn take(
    all: &mut HashMap<Arc<str>, Transaction>,
    key: &[u8],
    value: Option<&[u8]>,
) -> Result<(), RecordError> {
    match (decode_key(key)?, value) {
        (Key::Transaction(id), Some(value)) => {
            let txn = decode_value(Arc::clone(&id), value)?;
            all.insert(id, txn);
        }
        (Key::Transaction(id), None) => drop(all.remove(&id)),
        (Key::Other(version), _) => {
            tracing::warn!(
                version,
                "left out a record of `__transaction_state` whose key has an unknown version"
            );
        }
    }
    Ok(())
}
