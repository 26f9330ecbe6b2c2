use pelton_streams::testing::{TestRecord, write};
use pelton_streams::{Emissions, Sink};
use pelton_wire::record::{BatchView, DecompressLimit};

use super::*;
use crate::topic_config::Overrides;

const NOW: i64 = 1_700_000_000_000;

/// A staging with the rules of one topic, as the broker's sink has it.
struct Lab {
    staging: Staging,
    rules: Vec<Rules>,
}

impl Lab {
    fn new(settings: &[(&str, &str)], dead_letters: bool) -> Lab {
        Lab::of(settings, if dead_letters { Written::DeadLetters } else { Written::Records })
    }

    fn of(settings: &[(&str, &str)], written: Written) -> Lab {
        let overrides: Overrides = settings.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let topic = TopicConfig::resolve(&Overrides::new(), &overrides);
        let producer = ProducerIdentity { id: 77, epoch: 3 };
        let rules = Rules::new(&topic, written, NOW);
        Lab { staging: Staging::new(Some(producer)), rules: vec![rules.clone(), rules] }
    }

    fn write(&mut self, records: &[TestRecord]) -> Result<(), Vec<Refused>> {
        let records: Vec<_> = records.iter().map(|record| (0, 0, record.clone())).collect();
        write(self, &records)
    }

    /// The batches, each with its codec and the bytes of its values.
    fn close(&mut self) -> Vec<(Codec, usize, Vec<usize>)> {
        let mut batches = Vec::new();
        for Closed { slot, batch, .. } in self.staging.close().unwrap() {
            assert_eq!(slot, (0, 0));
            let view = BatchView::check(batch.bytes()).unwrap();
            let mut scratch = Vec::new();
            let records = view.records(&mut scratch, DecompressLimit::default()).unwrap();
            let values = records.map(|record| record.unwrap().value.unwrap().len()).collect();
            batches.push((view.header().codec().unwrap(), batch.len(), values));
        }
        batches
    }
}

impl Sink for Lab {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        self.staging.write(records, &self.rules)
    }
}

fn value(bytes: impl Into<Vec<u8>>) -> TestRecord {
    TestRecord { timestamp: NOW, ..TestRecord::value(bytes) }
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = len as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn why(refused: Result<(), Vec<Refused>>) -> Vec<(usize, Refusal)> {
    refused.unwrap_err().into_iter().map(|refused| (refused.index, refused.why)).collect()
}

#[test]
fn what_is_too_large_is_measured_as_it_is_stored() {
    let dull = || value(vec![b'x'; 100_000]);
    for (settings, dead_letters, codec) in [
        // The codec is the producer's choice: the record is compressed because it is too large otherwise.
        (&[("max.message.bytes", "5000")][..], false, Codec::Zstd),
        (&[("max.message.bytes", "5000")], true, Codec::Zstd),
        (&[("max.message.bytes", "200000")], false, Codec::None),
        // A dead letter is compressed in any case.
        (&[("max.message.bytes", "200000")], true, Codec::Zstd),
        (&[("max.message.bytes", "5000"), ("compression.type", "gzip")], false, Codec::Gzip),
        (&[("max.message.bytes", "5000"), ("compression.type", "lz4")], true, Codec::Lz4),
        (&[("max.message.bytes", "200000"), ("compression.type", "snappy")], false, Codec::Snappy),
    ] {
        let mut lab = Lab::new(settings, dead_letters);
        lab.write(&[dull()]).unwrap();
        let [(stored, _, values)] = &lab.close()[..] else { panic!("{settings:?}") };
        assert_eq!((*stored, values.as_slice()), (codec, &[100_000][..]), "{settings:?}");
    }
    // As the topic says: the codec is not the pipeline's to choose.
    let mut lab = Lab::new(&[("max.message.bytes", "5000"), ("compression.type", "uncompressed")], false);
    let max = 5_000;
    let refused = why(lab.write(&[value("a"), dull()]));
    assert!(matches!(refused[..], [(1, Refusal::TooLarge { bytes: 100_000.., codec: "none", max: 5_000 })]));
    let mut lab = Lab::new(&[("max.message.bytes", "5000")], false);
    let refused = why(lab.write(&[value(noise(4_000)), value(noise(6_000))]));
    assert!(
        matches!(refused[..], [(1, Refusal::TooLarge { bytes: 6_000.., codec: "zstd", max: 5_000 })]),
        "{refused:?} {max}"
    );
    assert!(lab.close().is_empty(), "all of a write or nothing");
}

/// Whatever the codec, no batch is larger than the topic takes, and a record that fits alone is never refused.
#[test]
fn every_batch_fits() {
    for codec in ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"] {
        for max in [150, 300, 1_000, 20_000, 1_000_000] {
            let max_text = max.to_string();
            let mut lab = Lab::new(&[("max.message.bytes", &max_text), ("compression.type", codec)], false);
            let lens: Vec<usize> = (0..200).map(|n| n * max / 250).collect();
            let mut taken = Vec::new();
            for &len in &lens {
                match lab.write(&[value(noise(len))]) {
                    Ok(()) => taken.push(len),
                    Err(refused) => assert!(
                        matches!(refused[0].why, Refusal::TooLarge { bytes, .. } if bytes > max && bytes < len + 200 + len / 5),
                        "{codec} {max} {len}: {refused:?}"
                    ),
                }
            }
            let batches = lab.close();
            assert!(batches.iter().all(|(_, bytes, _)| *bytes <= max), "{codec} {max}");
            let stored: Vec<usize> = batches.into_iter().flat_map(|(_, _, values)| values).collect();
            assert_eq!(stored, taken, "{codec} {max}: all of them, in order");
        }
    }
}

#[test]
fn a_refused_write_leaves_what_was_there_before() {
    let mut lab = Lab::new(&[("cleanup.policy", "compact"), ("max.message.bytes", "1000")], false);
    let keyed = |len: usize| value(noise(len)).with_key("k");
    lab.write(&[keyed(100), keyed(101)]).unwrap();
    // Into the open batch, into further ones, and alone.
    for more in [vec![102], vec![102, 800, 103, 900], vec![990]] {
        let mut records: Vec<TestRecord> = more.iter().map(|&len| keyed(len)).collect();
        records.push(value("no key"));
        let refused = why(lab.write(&records));
        assert!(refused.contains(&(more.len(), Refusal::NoKey)), "{refused:?}");
    }
    lab.write(&[keyed(104)]).unwrap();
    let (codec, bytes, values) = lab.close().remove(0);
    assert_eq!((codec, values), (Codec::None, vec![100, 101, 104]), "{bytes}");
    assert!(lab.close().is_empty());
}

#[test]
fn timestamps_out_of_range_and_without() {
    let at = |timestamp| TestRecord { timestamp, ..value("x") };
    let mut lab = Lab::new(&[("message.timestamp.before.max.ms", "1000")], false);
    let (min, max) = (NOW - 1_000, NOW + 3_600_000);
    let refusal = |timestamp| Refusal::Timestamp { timestamp, min, max };
    // Both ends are taken; without a timestamp it is the time of the write.
    lab.write(&[at(min), at(max), at(NO_TIMESTAMP)]).unwrap();
    assert_eq!(
        why(lab.write(&[at(min - 1), at(NOW), at(max + 1)])),
        [(0, refusal(min - 1)), (2, refusal(max + 1))]
    );
    assert_eq!(stored_times(&mut lab), [min, max, NOW]);
    // A topic that says the time itself takes any.
    let mut lab = Lab::new(&[("message.timestamp.type", "LogAppendTime")], false);
    lab.write(&[at(0), at(i64::MAX)]).unwrap();
    let batch = lab.staging.close().unwrap().remove(0).batch;
    let header = *BatchView::check(batch.bytes()).unwrap().header();
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, NOW));
}

fn stored_times(lab: &mut Lab) -> Vec<i64> {
    let batch = lab.staging.close().unwrap().remove(0).batch;
    let view = BatchView::check(batch.bytes()).unwrap();
    let mut scratch = Vec::new();
    let records = view.records(&mut scratch, DecompressLimit::default()).unwrap();
    records.map(|record| record.unwrap().timestamp).collect()
}

/// A record whose field has no time would be counted as one of now, and everything else would be late; one of next week would
/// be refused.
#[test]
fn records_between_parts_of_a_pipeline_keep_the_time_that_they_have() {
    let times = [NOW, NO_TIMESTAMP, -5, NOW + 30 * 86_400_000, 0];
    let mut lab = Lab::of(&[], Written::Between);
    lab.write(&times.map(|timestamp| TestRecord { timestamp, ..value("x") })).unwrap();
    assert_eq!(stored_times(&mut lab), times);
}

#[test]
fn sequences_go_on_without_a_gap() {
    let mut lab = Lab::new(&[("max.message.bytes", "1000")], false);
    let mut next = 0;
    for round in 0..20 {
        let records: Vec<TestRecord> = (0..7).map(|n| value(noise(100 * n + round))).collect();
        lab.write(&records).unwrap();
        lab.write(&[value("taken out again"), value(noise(2_000))]).unwrap_err();
        for Closed { batch, .. } in lab.staging.close().unwrap() {
            let header = *BatchView::check(batch.bytes()).unwrap().header();
            assert!(header.is_transactional());
            assert_eq!((header.producer_id, header.producer_epoch), (77, 3));
            assert_eq!(header.base_sequence, next, "round {round}");
            next += header.records_count;
        }
    }
    assert_eq!(next, 20 * 7);
}

/// Without a producer there are none.
#[test]
fn at_least_once_has_no_sequences() {
    let mut lab = Lab::new(&[], false);
    lab.staging = Staging::default();
    lab.write(&[value("a")]).unwrap();
    let header = *BatchView::check(lab.staging.close().unwrap()[0].batch.bytes()).unwrap().header();
    assert_eq!((header.producer_id, header.base_sequence, header.is_transactional()), (-1, -1, false));
}

/// A topic that refuses everything names a bounded number of records at once.
#[test]
fn refusals_are_bounded() {
    let mut lab = Lab::new(&[("cleanup.policy", "compact")], false);
    let refused = lab.write(&vec![value("x"); 2 * MAX_REFUSALS]).unwrap_err();
    assert_eq!(refused.len(), MAX_REFUSALS);
}
