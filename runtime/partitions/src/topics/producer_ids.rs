//! Gives out producer ids, each once in the life of the cluster.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{TopicError, Topics};

/// Ids reserved at once. A crash loses what is left of a block, which costs nothing: there are 2^63.
const BLOCK: i64 = 1000;

/// The ids that are reserved and not given out yet.
#[derive(Debug, Default)]
pub struct ProducerIds {
    reserved: Mutex<Range<i64>>,
    refill: tokio::sync::Mutex<()>,
}

impl ProducerIds {
    /// An id, if one is reserved.
    pub fn next_cached(&self) -> Option<i64> {
        self.reserved.lock().next()
    }

    /// An id; reserves a block first if there is none left.
    pub async fn next(&self, topics: &Arc<Topics>) -> Result<i64, TopicError> {
        loop {
            if let Some(id) = self.next_cached() {
                return Ok(id);
            }
            let _one_at_a_time = self.refill.lock().await;
            if self.reserved.lock().is_empty() {
                let first = topics.reserve_producer_ids(BLOCK).await?;
                *self.reserved.lock() = first..first.saturating_add(BLOCK);
            }
        }
    }
}
