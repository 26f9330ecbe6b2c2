//! Changes of a task's stores as records of their changelogs: key and value as they are stored, no value for a key that is
//! deleted.

use std::sync::Arc;

use super::output::{Cow, Piece};
use crate::answer::Answer;
use crate::batch::{Headers, NO_TIMESTAMP, OwnedBatch, RecordIn};
use crate::sink::{Emissions, Sink};
use crate::state::{Changes, StateError};

/// Bytes after which another batch is begun: far from the 4 GiB that one may have.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// Writes the changes of one store.
pub(super) fn write(
    store: &str,
    output: usize,
    partition: i32,
    changes: &Changes,
    sink: &mut dyn Sink,
) -> Result<(), StateError> {
    let mut rest = changes.iter().peekable();
    while rest.peek().is_some() {
        let mut batch = OwnedBatch::new(store, partition.unsigned_abs());
        for (key, value) in rest.by_ref() {
            let record = RecordIn {
                offset: -1,
                timestamp: NO_TIMESTAMP,
                key: Some(key),
                value: value.as_deref(),
                headers: Headers::default(),
            };
            let too_large = |error| StateError::Storage(format!("an entry of store `{store}`: {error}"));
            batch.push(record, [].into_iter()).map_err(too_large)?;
            if batch.as_batch().data.len() >= MAX_BATCH_BYTES {
                break;
            }
        }
        let answer = Arc::new(Answer::identity(&batch.as_batch()));
        let partitions = [vec![partition; batch.len()]];
        let batch = Cow::Shared(Arc::new(batch));
        let pieces = [Piece { batch, answer, output: 0, topic: output, made_by: None }];
        let written = sink.write(Emissions { pieces: &pieces, partitions: &partitions });
        written.map_err(|refused| {
            let why = refused.into_iter().next().map(|refused| refused.why.to_string()).unwrap_or_default();
            StateError::Storage(format!("the changelog of store `{store}` does not take an entry: {why}"))
        })?;
    }
    Ok(())
}
