//! Compaction of one batch: which of its records stay, and what the batch looks like afterwards. The rules are those of
//! Kafka's `MemoryRecords.filterTo`: offsets, sequence, producer and codec never change, a batch that loses nothing is
//! copied byte for byte.

use bytes::Bytes;

use super::builder::{BatchBuilder, BatchOptions, BuildError};
use super::compression::{Codec, DecompressLimit};
use super::records::Record;
use super::view::BatchView;

/// What compaction leaves of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filtered<'a> {
    /// Nothing: its offsets become a hole in the log.
    Removed,
    /// All of it, byte for byte.
    Whole(&'a [u8]),
    /// A batch with fewer records, with none at all, or with a delete horizon that it did not have.
    Rewritten(Bytes),
}

/// What compaction does with a batch besides asking for each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterSpec {
    /// A batch that loses its last record stays as an empty one, because its sequence or its offsets are still needed.
    pub keep_empty: bool,
    /// The delete horizon (ms) of a batch that needs one and has none: from then on its tombstones and markers may go.
    pub delete_horizon: i64,
    /// The batch is a marker whose transaction has no record left, so it gets a delete horizon as a tombstone does.
    pub marker_of_empty_transaction: bool,
}

/// Removes the records that are not to be `retained` from a batch.
///
/// # Errors
/// The records cannot be read, or the batch cannot be written.
pub fn filter_batch<'a>(
    view: &BatchView<'a>,
    spec: FilterSpec,
    mut retained: impl FnMut(&Record<'_>) -> bool,
    scratch: &mut Vec<u8>,
    limit: DecompressLimit,
) -> Result<Filtered<'a>, BuildError> {
    let header = view.header();
    let mut verdicts = Vec::new();
    let (mut kept, mut tombstones) = (0, false);
    let records = view.records(scratch, limit)?;
    for record in records.clone() {
        let record = record?;
        let keep = retained(&record);
        verdicts.push(keep);
        if keep {
            kept += 1;
            tombstones |= record.value.is_none();
        }
    }
    if kept == 0 {
        return if spec.keep_empty { empty(view).map(Filtered::Rewritten) } else { Ok(Filtered::Removed) };
    }
    let needs_horizon = tombstones || spec.marker_of_empty_transaction;
    let new_horizon = (needs_horizon && header.delete_horizon().is_none()).then_some(spec.delete_horizon);
    if kept == verdicts.len() && new_horizon.is_none() {
        return Ok(Filtered::Whole(view.bytes()));
    }
    let like = BatchOptions::like(header);
    let options = BatchOptions { delete_horizon: new_horizon.or(like.delete_horizon), ..like };
    let mut builder = BatchBuilder::with_capacity(options, records.data().len());
    for (record, keep) in records.zip(verdicts) {
        if keep {
            builder.append_record(&record?)?;
        }
    }
    builder.finish().map(Filtered::Rewritten)
}

/// The header of a batch alone. Kafka's has no base timestamp, no codec and no delete horizon; the largest timestamp
/// stays.
fn empty(view: &BatchView<'_>) -> Result<Bytes, BuildError> {
    let like = BatchOptions::like(view.header());
    let options = BatchOptions { codec: Codec::None, delete_horizon: None, base_timestamp: None, ..like };
    BatchBuilder::new(options).finish()
}

#[cfg(test)]
mod tests {
    use super::super::header::{HEADER_BYTES, NO_TIMESTAMP, TimestampType};
    use super::*;

    const SPEC: FilterSpec =
        FilterSpec { keep_empty: false, delete_horizon: 90_000, marker_of_empty_transaction: false };

    fn batch(options: BatchOptions, values: &[Option<&[u8]>]) -> Bytes {
        let mut builder = BatchBuilder::new(options);
        for (n, value) in (0..).zip(values) {
            builder.append(1_000 + n * 10, Some(&[b'a' + n as u8]), *value, &[]).unwrap();
        }
        builder.finish().unwrap()
    }

    fn filter(bytes: &[u8], spec: FilterSpec, keep: &[i32]) -> Option<Bytes> {
        let view = BatchView::check(bytes).unwrap();
        let mut scratch = Vec::new();
        let kept = |record: &Record<'_>| keep.contains(&record.offset_delta);
        match filter_batch(&view, spec, kept, &mut scratch, DecompressLimit::STORED).unwrap() {
            Filtered::Removed => None,
            Filtered::Whole(whole) => {
                assert_eq!(whole, bytes);
                Some(Bytes::copy_from_slice(whole))
            }
            Filtered::Rewritten(new) => {
                assert_ne!(new, bytes);
                Some(new)
            }
        }
    }

    fn deltas(bytes: &[u8]) -> Vec<(i32, i64)> {
        let (view, mut scratch) = (BatchView::check(bytes).unwrap(), Vec::new());
        let records = view.records(&mut scratch, DecompressLimit::STORED).unwrap();
        records.map(|r| r.map(|r| (r.offset_delta, r.timestamp)).unwrap()).collect()
    }

    #[test]
    fn survivors_keep_their_offsets_and_their_times() {
        for codec in Codec::ALL {
            let options = BatchOptions {
                base_offset: 7,
                codec,
                producer_id: 3,
                producer_epoch: 1,
                base_sequence: 9,
                ..BatchOptions::default()
            };
            let bytes = batch(options, &[Some(b"1"), Some(b"2"), Some(b"3"), Some(b"4"), Some(b"5")]);
            let new = filter(&bytes, SPEC, &[1, 2]).unwrap();
            assert_eq!(deltas(&new), [(1, 1_010), (2, 1_020)]);
            let view = BatchView::check(&new).unwrap();
            let header = view.header();
            assert_eq!((header.base_offset, header.last_offset(), header.records_count), (7, 11, 2));
            assert_eq!((header.base_timestamp, header.max_timestamp), (1_010, 1_020));
            assert_eq!((header.producer_id, header.base_sequence, header.last_sequence()), (3, 9, 13));
            assert_eq!(header.codec().unwrap(), codec);
            assert_eq!(
                filter(&bytes, SPEC, &[0, 1, 2, 3, 4]).unwrap(),
                bytes,
                "nothing lost: nothing changed"
            );
            assert_eq!(filter(&bytes, SPEC, &[]), None);
        }
    }

    #[test]
    fn a_tombstone_that_stays_gives_its_batch_a_horizon_once() {
        let bytes = batch(BatchOptions::default(), &[Some(b"1"), None]);
        let once = filter(&bytes, SPEC, &[0, 1]).unwrap();
        let header = *BatchView::check(&once).unwrap().header();
        assert_eq!((header.delete_horizon(), header.base_timestamp), (Some(90_000), 90_000));
        assert_eq!(deltas(&once), [(0, 1_000), (1, 1_010)], "the records keep their timestamps");
        let later = FilterSpec { delete_horizon: 99_999, ..SPEC };
        assert_eq!(filter(&once, later, &[0, 1]).unwrap(), once, "the first horizon holds");
        let rest = filter(&once, later, &[0]).unwrap();
        assert_eq!(BatchView::check(&rest).unwrap().header().delete_horizon(), Some(90_000));
        let gone = filter(&bytes, SPEC, &[0]).unwrap();
        assert_eq!(BatchView::check(&gone).unwrap().header().delete_horizon(), None);
    }

    #[test]
    fn an_empty_batch_keeps_offsets_sequence_and_largest_timestamp() {
        let options = BatchOptions {
            base_offset: 1,
            codec: Codec::Zstd,
            producer_id: 5,
            producer_epoch: 0,
            base_sequence: 1,
            transactional: true,
            ..BatchOptions::default()
        };
        let bytes = batch(options, &[Some(b"1"), None, Some(b"3")]);
        let spec = FilterSpec { keep_empty: true, ..SPEC };
        let new = filter(&bytes, spec, &[]).unwrap();
        assert_eq!(new.len(), HEADER_BYTES);
        let header = *BatchView::check(&new).unwrap().header();
        assert_eq!((header.base_offset, header.last_offset(), header.last_sequence()), (1, 3, 3));
        assert_eq!((header.base_timestamp, header.max_timestamp), (NO_TIMESTAMP, 1_020));
        assert!(header.is_transactional() && header.delete_horizon().is_none());
        let again = BatchView::check(&new).unwrap();
        let kept = filter_batch(&again, spec, |_| true, &mut Vec::new(), DecompressLimit::STORED).unwrap();
        assert_eq!(kept, Filtered::Rewritten(new.clone()), "an empty batch stays what it is");
    }

    #[test]
    fn append_time_stays_what_consumers_see() {
        let options = BatchOptions {
            timestamp_type: TimestampType::LogAppendTime,
            max_timestamp: Some(5_000),
            ..BatchOptions::default()
        };
        let bytes = batch(options, &[Some(b"1"), Some(b"2")]);
        let new = filter(&bytes, SPEC, &[1]).unwrap();
        let header = *BatchView::check(&new).unwrap().header();
        assert_eq!((header.max_timestamp, header.base_timestamp), (5_000, 5_000));
        assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    }
}
