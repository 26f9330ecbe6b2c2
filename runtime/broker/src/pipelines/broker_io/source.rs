//! Reads partitions as a read-committed consumer does, and follows what becomes of their topics.

use std::sync::Arc;
use std::time::Duration;

use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::{AbortedTxn, ReadError};
use pelton_streams::manifest::values::Start;
use pelton_wire::record::{BatchHeader, Columns, ColumnsError, DecompressLimit, Select};

use super::{BrokerIo, unavailable};
use crate::group::error::GroupError;
use crate::group::types::FetchRequest;
use crate::partition::delayed::{ReadyList, Watch};
use crate::partition::{Isolation, Partition};
use crate::topics::Topic;
use pelton_partitions::intake::order_limits;
use pelton_pipelines::io::{Change, Filled, Input, IoError, Position, Source};

/// Stored bytes that one read takes. With batches of some 100 KiB a step sees a few of them.
const READ_BYTES: u64 = 1 << 20;
/// Unpacked bytes that one step is given, unless a single batch has more.
const STEP_BYTES: usize = 4 << 20;

impl Source for BrokerIo {
    fn changes(&mut self) -> Result<Vec<Change>, IoError> {
        self.known.update(&self.topology, &self.topics)
    }

    fn position(&self, input: Input, start: Start) -> Result<Position, IoError> {
        let (topic, found) = self.input(input)?;
        let mut renewed = false;
        if let Some((offset, of)) = self.committed(&topic.name, input.partition)? {
            // An offset that was set by hand has no topic id: it is of the present topic.
            if of.is_empty() || of == topic.id.to_string() {
                found.routed(offset);
                return Ok(Position { offset, committed: true, renewed });
            }
            renewed = true;
        }
        let offsets = found.offsets();
        let offset = match start {
            // The pipeline has read nothing of the new topic.
            _ if renewed => offsets.log_start,
            Start::Earliest => offsets.log_start,
            Start::Latest => offsets.last_stable,
            Start::Offset(offset) => offset.clamp(offsets.log_start, offsets.last_stable),
            Start::Timestamp(ms) => {
                let at = found.reader().offset_for_timestamp(ms, offsets.last_stable);
                let at = at.map_err(|error| self.unreadable(topic, input.partition, &error))?;
                at.map_or(offsets.last_stable, |at| at.offset)
            }
        };
        Ok(Position { offset, committed: false, renewed })
    }

    fn fill(&self, input: Input, offset: i64, records: &mut Columns) -> Result<Filled, IoError> {
        let (topic, found) = self.input(input)?;
        self.fill_from(topic, found, offset, records)
    }

    fn order_limits(&self, inputs: &[Input]) -> Result<Vec<i64>, IoError> {
        let found = inputs.iter().map(|input| self.input(*input)).collect::<Result<Vec<_>, IoError>>()?;
        let Some((topic, _)) = found.first() else { return Ok(Vec::new()) };
        let is_read =
            |partition: &&Arc<Partition>| found.iter().any(|(_, own)| own.index() == partition.index());
        // What partitions have that were added since belongs among what the others have: whoever routes begins again with them.
        let mut added = topic.local.iter().filter(|partition| !is_read(partition));
        if added.any(|partition| partition.log_end_offset() > 0) {
            return Ok(vec![0; inputs.len()]);
        }
        let partitions: Vec<&Arc<Partition>> = found.iter().map(|(_, partition)| *partition).collect();
        Ok(order_limits(&partitions))
    }

    fn purge(&mut self, input: Input, before: i64) -> Result<(), IoError> {
        let (topic, found) = self.input(input)?;
        if before <= found.log_start_offset() {
            return Ok(());
        }
        let deleted = found.delete_records(before).map(drop);
        deleted.map_err(|error| {
            let (topic, partition) = (&topic.name, input.partition);
            IoError::Unavailable(format!("delete what is done of {topic} [{partition}]: {error}"))
        })
    }

    fn wait(&self, positions: &[(Input, i64)], timeout_ms: u64) {
        let found =
            positions.iter().filter_map(|(input, offset)| Some((self.input(*input).ok()?.1, *offset)));
        self.wait_for(found, timeout_ms);
    }
}

impl BrokerIo {
    /// See [`Source::fill`].
    pub(super) fn fill_from(
        &self,
        topic: &Arc<Topic>,
        found: &Arc<Partition>,
        offset: i64,
        records: &mut Columns,
    ) -> Result<Filled, IoError> {
        let (of, partition) = (topic, found.index());
        let topic = || of.name.clone();
        let end = found.log_end_offset();
        if offset > end {
            return Err(IoError::BehindEnd { topic: topic(), partition, offset, end });
        }
        let open_too = Mutant::OpenInputRead.is_on();
        let isolation = if open_too { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
        let end_offset = found.readable_end(isolation);
        let next_offset = match read_committed(found, offset, end_offset, true, records) {
            Ok(next_offset) => next_offset,
            // Retention was faster than the pipeline: go on where the log starts now.
            Err(ReadFault::Deleted) => {
                return Ok(Filled {
                    next_offset: found.log_start_offset(),
                    end_offset,
                    deleted_unread: true,
                });
            }
            Err(ReadFault::Unreadable(error)) => return Err(self.unreadable(of, partition, &error)),
            Err(ReadFault::BadBatch { offset, reason }) => {
                return Err(IoError::BadBatch { topic: topic(), partition, offset, reason });
            }
        };
        Ok(Filled { next_offset, end_offset, deleted_unread: false })
    }

    /// See [`Source::wait`].
    pub(super) fn wait_for<'p>(
        &self,
        positions: impl Iterator<Item = (&'p Arc<Partition>, i64)>,
        timeout_ms: u64,
    ) {
        let news = Arc::new(ReadyList::default());
        // One for all of them: whichever has something new, the driver looks.
        let wait = Watch::new(&news, 0);
        let mut ready = false;
        for (found, offset) in positions {
            found.watch(&wait);
            // Looked at after the watch is set, so that nothing comes in between.
            ready |= found.readable_end(Isolation::ReadCommitted) > offset;
        }
        if !ready {
            self.runtime.block_on(async {
                tokio::select! {
                    () = news.changed() => {}
                    () = self.stop.wait() => {}
                    () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => {}
                }
            });
        }
        wait.finish();
    }

    /// Why a partition cannot be read. If the topic has been deleted, that is why.
    fn unreadable(&self, topic: &Topic, partition: i32, error: &dyn std::fmt::Display) -> IoError {
        if self.topics.get(&topic.name).map(|topic| topic.id) != Some(topic.id) {
            return IoError::NoPartition { topic: topic.name.clone(), partition };
        }
        IoError::Unavailable(format!("read {} [{partition}]: {error}", topic.name))
    }

    /// What the group has committed for a partition, and for which topic: the one that had the name then.
    pub(super) fn committed(&self, topic: &str, partition: i32) -> Result<Option<(i64, String)>, IoError> {
        let wanted =
            FetchRequest { topics: Some(vec![(topic.into(), vec![partition])]), require_stable: true };
        let fetched = match self.runtime.block_on(self.groups.fetch(&self.group, wanted)) {
            Ok(fetched) => fetched,
            Err(GroupError::GroupIdNotFound) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        let offset =
            fetched.into_iter().flat_map(|(_, offsets)| offsets).find(|offset| offset.partition == partition);
        match offset.map(|offset| offset.result) {
            None | Some(Ok(None)) => Ok(None),
            Some(Ok(Some(committed))) => Ok(Some((committed.offset, committed.metadata))),
            Some(Err(error)) => Err(unavailable(&error)),
        }
    }
}

/// Why records were not read.
pub(crate) enum ReadFault {
    /// The log starts behind the offset now.
    Deleted,
    /// The log cannot be read.
    Unreadable(String),
    /// A stored batch is damaged.
    BadBatch { offset: i64, reason: String },
}

/// Adds records from `offset` up to `end`, as many as one step should have, but for those of aborted transactions.
/// Where to read next.
pub(crate) fn read_committed(
    partition: &Partition,
    offset: i64,
    end: i64,
    headers: bool,
    records: &mut Columns,
) -> Result<i64, ReadFault> {
    let failed = |error: &dyn std::fmt::Display| ReadFault::Unreadable(error.to_string());
    let (range, aborted) = match partition.reader().read_committed(offset, READ_BYTES, end, true) {
        Ok(read) => read,
        Err(ReadError::OffsetOutOfRange { .. }) if offset < partition.log_start_offset() => {
            return Err(ReadFault::Deleted);
        }
        Err(error) => return Err(failed(&error)),
    };
    let read_to = range.next_offset;
    let bytes = range.into_bytes().map_err(|error| failed(&error))?;
    let select = Select { from_offset: offset, headers };
    let unpacked = unpack(&bytes, select, read_to, &aborted, records);
    unpacked.map_err(|(offset, reason)| ReadFault::BadBatch { offset, reason })
}

/// Unpacks stored batches up to [`STEP_BYTES`]: the records that are selected, but for those of transactions that
/// were aborted. Gives the offset behind the last batch taken, `read_to` if that is all of them, or which one is
/// damaged, and how.
fn unpack(
    stored: &[u8],
    select: Select,
    read_to: i64,
    aborted: &[AbortedTxn],
    records: &mut Columns,
) -> Result<i64, (i64, String)> {
    let offset = select.from_offset;
    let aborted = Aborted::new(aborted);
    for batch in pelton_wire::record::batches(stored) {
        let view = batch.map_err(|error| (offset, error.to_string()))?;
        let header = view.header();
        if header.is_control() || aborted.has(header) && !Mutant::AbortedInputRead.is_on() {
            continue;
        }
        match records.append(&view, select, DecompressLimit::STORED) {
            Ok(_) => {}
            // The next step takes it.
            Err(ColumnsError::Full { .. }) if !records.is_empty() => return Ok(header.base_offset),
            Err(error) => return Err((header.base_offset, error.to_string())),
        }
        if records.data().len() >= STEP_BYTES {
            return Ok(header.next_offset());
        }
    }
    Ok(read_to)
}

/// Aborted transactions, to be asked batch by batch.
struct Aborted<'a> {
    /// By producer and first offset; those of one producer do not overlap.
    sorted: Vec<&'a AbortedTxn>,
}

impl Aborted<'_> {
    fn new(aborted: &[AbortedTxn]) -> Aborted<'_> {
        let mut sorted: Vec<&AbortedTxn> = aborted.iter().collect();
        sorted.sort_unstable_by_key(|txn| (txn.producer_id, txn.first_offset));
        Aborted { sorted }
    }

    /// Whether a batch is of one of them. The last offset of each is its marker's.
    fn has(&self, header: &BatchHeader) -> bool {
        let (producer_id, offset) = (header.producer_id, header.base_offset);
        let behind =
            self.sorted.partition_point(|txn| (txn.producer_id, txn.first_offset) <= (producer_id, offset));
        let begun_before = behind.checked_sub(1).map(|index| self.sorted[index]);
        let is_in = |txn: &AbortedTxn| txn.producer_id == producer_id && offset <= txn.last_offset;
        header.is_transactional() && begun_before.is_some_and(is_in)
    }
}

#[cfg(test)]
mod tests {
    use pelton_wire::record::{BatchBuilder, BatchMut, BatchOptions};

    use super::*;

    fn from(from_offset: i64) -> Select {
        Select { from_offset, headers: true }
    }

    /// Batches from offset 0 on, one after another.
    #[derive(Default)]
    struct Stored {
        bytes: Vec<u8>,
        end: i64,
    }

    impl Stored {
        fn add(&mut self, producer_id: Option<i64>, values: &[&str]) {
            let options = producer_id.map_or_else(BatchOptions::default, |producer_id| BatchOptions {
                producer_id,
                producer_epoch: 0,
                base_sequence: 0,
                transactional: true,
                ..BatchOptions::default()
            });
            let mut builder = BatchBuilder::new(options);
            for value in values {
                builder.append(1_000, None, Some(value.as_bytes()), &[]).unwrap();
            }
            let mut batch = builder.finish().unwrap().to_vec();
            BatchMut::new(&mut batch).unwrap().set_place(self.end, 0);
            self.bytes.extend_from_slice(&batch);
            self.end += values.len() as i64;
        }

        /// The values from an offset on, and where to read next.
        fn unpack(&self, offset: i64, aborted: &[AbortedTxn]) -> (Vec<String>, i64) {
            let mut columns = Columns::new();
            let next = unpack(&self.bytes, from(offset), self.end, aborted, &mut columns).unwrap();
            let value = |i| String::from_utf8(columns.values().get(columns.data(), i).unwrap().to_vec());
            ((0..columns.offsets().len()).map(|i| value(i).unwrap()).collect(), next)
        }
    }

    #[test]
    fn what_was_aborted_is_not_read() {
        let mut stored = Stored::default();
        stored.add(Some(1), &["committed before"]);
        stored.add(Some(1), &["aborted", "aborted too"]);
        stored.add(Some(2), &["of another producer"]);
        stored.add(None, &["of no transaction"]);
        stored.add(Some(1), &["aborted at last"]);
        stored.add(Some(1), &["committed after"]);
        let txn = |producer_id, first_offset, last_offset| AbortedTxn {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: last_offset,
        };
        let aborted = [txn(1, 1, 5), txn(3, 0, 7)];
        let expect = ["committed before", "of another producer", "of no transaction", "committed after"];
        assert_eq!(stored.unpack(0, &aborted), (expect.map(str::to_owned).to_vec(), 7));
    }

    #[test]
    fn a_read_begins_inside_a_stored_batch_and_ends_behind_a_large_one() {
        let mut stored = Stored::default();
        stored.add(None, &["a", "b", "c"]);
        let large = "x".repeat(STEP_BYTES);
        stored.add(None, &[&large]);
        let (values, next) = stored.unpack(1, &[]);
        assert_eq!((&values[..2], values.len(), next), (&["b".to_owned(), "c".to_owned()][..], 3, 4));
        let mut stored = Stored { end: 4, ..Stored::default() };
        stored.add(None, &["d"]);
        assert_eq!(stored.unpack(4, &[]), (vec!["d".to_owned()], 5));
        let last = stored.bytes.len() - 1;
        stored.bytes[last] ^= 1;
        let damaged = unpack(&stored.bytes, from(4), 5, &[], &mut Columns::new()).unwrap_err();
        assert!(damaged.0 == 4, "{damaged:?}");
    }
}
