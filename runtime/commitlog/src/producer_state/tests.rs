use super::*;

const PID: i64 = 7;
/// More producers than any test here has.
const MAX: usize = 100;

#[derive(Clone, Copy)]
struct B {
    pid: i64,
    epoch: i16,
    sequence: i32,
    count: i32,
    offset: i64,
    txn: bool,
}

fn b(epoch: i16, sequence: i32, count: i32, offset: i64) -> B {
    B { pid: PID, epoch, sequence, count, offset, txn: false }
}

fn header(b: B) -> BatchHeader {
    BatchHeader {
        base_offset: b.offset,
        length: 49,
        partition_leader_epoch: 0,
        magic: 2,
        crc: 0,
        attributes: if b.txn { 0x10 } else { 0 },
        last_offset_delta: b.count - 1,
        base_timestamp: 0,
        max_timestamp: b.offset * 10,
        producer_id: b.pid,
        producer_epoch: b.epoch,
        base_sequence: b.sequence,
        records_count: b.count,
    }
}

fn with(batches: &[B]) -> ProducerStates {
    let mut states = ProducerStates::default();
    for batch in batches {
        states.record(&header(*batch), 1000);
    }
    states
}

fn duplicate(b: B) -> Check {
    Check::Duplicate(ProducerBatch {
        first_sequence: b.sequence,
        last_sequence: header(b).last_sequence(),
        base_offset: b.offset,
        last_offset: b.offset + i64::from(b.count) - 1,
        timestamp: b.offset * 10,
    })
}

#[test]
fn the_rules_and_their_order() {
    let out_of_order = |last_sequence| Check::OutOfOrderSequence { last_sequence };
    let old_epoch = |current_epoch| Check::InvalidProducerEpoch { current_epoch };
    let six: Vec<B> = (0..6).map(|i| b(3, i * 2, 2, i64::from(i) * 2)).collect();
    let at_the_end = b(3, i32::MAX - 1, 2, 10);
    let over_the_end = b(3, i32::MAX, 2, 10);
    let txn = B { txn: true, ..b(3, 0, 1, 0) };
    let cases: &[(&str, &[B], B, Check)] = &[
        ("unknown producer, any sequence", &[], b(3, 17, 1, 0), Check::New),
        ("no producer", &[b(3, 0, 1, 0)], B { pid: -1, ..b(-1, -1, 1, 1) }, Check::New),
        ("next", &[b(3, 0, 2, 0)], b(3, 2, 1, 2), Check::New),
        ("gap", &[b(3, 0, 2, 0)], b(3, 3, 1, 2), out_of_order(1)),
        ("again", &[b(3, 0, 2, 0)], b(3, 0, 2, 2), duplicate(b(3, 0, 2, 0))),
        ("oldest of five", &six, b(3, 2, 2, 12), duplicate(six[1])),
        ("sixth is forgotten", &six, b(3, 0, 2, 12), out_of_order(11)),
        ("part of a batch is no duplicate", &[b(3, 0, 2, 0)], b(3, 0, 1, 2), out_of_order(1)),
        ("overlap is no duplicate", &[b(3, 0, 2, 0)], b(3, 1, 2, 2), out_of_order(1)),
        ("old epoch", &[b(3, 0, 2, 0)], b(2, 2, 1, 2), old_epoch(3)),
        ("old epoch before sequence", &[b(3, 0, 2, 0)], b(2, 9, 1, 2), old_epoch(3)),
        ("old epoch is no duplicate", &[b(3, 0, 2, 0)], b(2, 0, 2, 2), old_epoch(3)),
        ("new epoch from 0", &[b(3, 0, 2, 0)], b(4, 0, 1, 2), Check::New),
        ("new epoch elsewhere", &[b(3, 0, 2, 0)], b(4, 2, 1, 2), out_of_order(1)),
        ("after the largest", &[at_the_end], b(3, 0, 1, 12), Check::New),
        ("over the largest", &[over_the_end], b(3, 1, 1, 12), Check::New),
        ("over the largest again", &[over_the_end], over_the_end, duplicate(over_the_end)),
        ("outside the transaction", &[txn], b(3, 1, 1, 1), Check::InvalidTxnState),
        ("in the transaction", &[txn], B { txn: true, ..b(3, 1, 1, 1) }, Check::New),
    ];
    for (name, known, batch, expect) in cases {
        assert_eq!(with(known).check(&header(*batch), AppendOrigin::Client, MAX), *expect, "{name}");
    }
}

#[test]
fn coordinators_have_no_sequences_but_epochs() {
    let states = with(&[b(3, 0, 2, 0)]);
    assert_eq!(states.check(&header(b(3, -1, 1, 2)), AppendOrigin::Coordinator, MAX), Check::New);
    let old = states.check(&header(b(2, -1, 1, 2)), AppendOrigin::Coordinator, MAX);
    assert_eq!(old, Check::InvalidProducerEpoch { current_epoch: 3 });
}

#[test]
fn a_marker_of_a_new_epoch_starts_sequences_anew() {
    let mut states = with(&[B { txn: true, ..b(3, 5, 2, 0) }]);
    assert_eq!(states.check_marker(PID, 2, 0), Check::InvalidProducerEpoch { current_epoch: 3 });
    let done = states.record_marker(&header(b(4, -1, 1, 2)), false, 9, 2000).unwrap();
    assert_eq!(done, CompletedTxn { producer_id: PID, first_offset: 0, last_offset: 2, aborted: true });
    assert_eq!(states.check_marker(PID, 4, 8), Check::CoordinatorFenced { current_epoch: 9 });
    assert_eq!(states.check_marker(PID, 4, 9), Check::New);
    assert_eq!(states.check(&header(b(4, 0, 1, 3)), AppendOrigin::Client, MAX), Check::New);
    let gap = states.check(&header(b(4, 7, 1, 3)), AppendOrigin::Client, MAX);
    assert_eq!(gap, Check::OutOfOrderSequence { last_sequence: -1 });
}

#[test]
fn the_first_unstable_offset_waits_for_markers_below_the_high_watermark() {
    let txn = |pid, offset| B { pid, txn: true, ..b(0, 0, 1, offset) };
    let mut states = with(&[txn(1, 10), txn(2, 11), txn(3, 12)]);
    assert_eq!(states.first_unstable_offset(), Some(10));
    let done = states.record_marker(&header(B { pid: 2, ..b(0, -1, 1, 13) }), false, 0, 0).unwrap();
    // Producer 1 is still open: the last stable offset stays at its first record.
    assert_eq!(states.aborted_entry(&done).last_stable_offset, 10);
    states.record_marker(&header(B { pid: 1, ..b(0, -1, 1, 14) }), true, 0, 0).unwrap();
    assert_eq!(states.first_unstable_offset(), Some(10));
    states.high_watermark_moved(14);
    assert_eq!(states.first_unstable_offset(), Some(10), "marker 14 is not below 14");
    states.high_watermark_moved(15);
    assert_eq!(states.first_unstable_offset(), Some(12));
    let done = states.record_marker(&header(B { pid: 3, ..b(0, -1, 1, 15) }), false, 0, 0).unwrap();
    assert_eq!(states.aborted_entry(&done).last_stable_offset, 16);
    states.high_watermark_moved(16);
    assert_eq!(states.first_unstable_offset(), None);
}

#[test]
fn an_empty_transaction_completes_nothing() {
    let mut states = ProducerStates::default();
    assert_eq!(states.record_marker(&header(b(1, -1, 1, 5)), false, 0, 0), None);
    assert_eq!(states.first_unstable_offset(), None);
    assert_eq!(states.get(PID).unwrap().epoch, 1);
}

#[test]
fn producers_expire_unless_a_transaction_is_open() {
    let mut states = with(&[b(0, 0, 1, 0), B { pid: 8, txn: true, ..b(0, 0, 1, 1) }]);
    states.expire(1000 + 99, 100);
    assert_eq!(states.len(), 2);
    states.expire(1000 + 100, 100);
    assert_eq!(states.all().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [8]);
}

#[test]
fn a_snapshot_keeps_the_last_batch_and_open_transactions() {
    let txn = B { pid: 8, txn: true, ..b(5, 3, 2, 40) };
    let mut states = with(&[b(3, i32::MAX - 3, 2, 0), b(3, i32::MAX - 1, 4, 2), txn]);
    states.record_marker(&header(B { pid: 9, ..b(2, -1, 1, 50) }), true, 6, 1234);
    let bytes = states.to_snapshot();
    assert_eq!(bytes.len(), 10 + 3 * 46);
    let back = ProducerStates::from_snapshot(&bytes).unwrap();
    assert_eq!(back.all().len(), 3);
    assert_eq!(back.first_unstable_offset(), Some(40));
    let first = back.get(PID).unwrap();
    assert_eq!(first.batches.len(), 1);
    assert_eq!(
        first.batches[0],
        ProducerBatch { timestamp: 1000, ..*states.get(PID).unwrap().batches.back().unwrap() }
    );
    let marked = back.get(9).unwrap();
    assert_eq!((marked.epoch, marked.coordinator_epoch, marked.last_write_ms), (2, 6, 1234));
    assert!(marked.batches.is_empty());
    assert_eq!(back.to_snapshot(), bytes);
}

#[test]
fn damaged_snapshots_are_refused() {
    let bytes = with(&[b(3, 0, 2, 0)]).to_snapshot();
    for len in 0..bytes.len() {
        assert!(ProducerStates::from_snapshot(&bytes[..len]).is_err(), "cut at {len}");
    }
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x40;
        assert!(ProducerStates::from_snapshot(&bad).is_err(), "byte {at} changed");
    }
    assert!(ProducerStates::from_snapshot(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn the_longest_quiet_producers_are_forgotten_and_none_with_an_open_transaction() {
    let mut states = ProducerStates::default();
    let at = |pid, offset, txn| header(B { pid, txn, ..b(0, 0, 1, offset) });
    // 0 and 1 are in a transaction, 2 and 3 wrote at the same moment, 2 wrote again later.
    for (pid, offset, now_ms) in [(0, 0, 5), (1, 1, 6), (3, 2, 7), (2, 3, 7), (2, 4, 9), (4, 5, 8)] {
        states.record(&at(pid, offset, pid < 2), now_ms);
        states.keep_at_most(5);
    }
    let known = |states: &ProducerStates| states.all().iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(known(&states), [0, 1, 2, 3, 4], "as many as may be");
    states.record(&at(5, 6, false), 10);
    states.keep_at_most(5);
    assert_eq!(known(&states), [0, 1, 2, 4, 5]);
    assert_eq!(states.largest_id(), Some(5));
    // A smaller limit takes what it can.
    states.keep_at_most(1);
    assert_eq!(known(&states), [0, 1]);
    let check = |states: &ProducerStates, pid, origin| states.check(&at(pid, 9, false), origin, 2);
    assert_eq!(check(&states, 7, AppendOrigin::Client), Check::TooManyProducers);
    assert_eq!(check(&states, 7, AppendOrigin::Coordinator), Check::New);
    assert_ne!(check(&states, 1, AppendOrigin::Client), Check::TooManyProducers, "it is known");
    let marker = header(B { txn: true, ..b(0, -1, 1, 10) });
    states.record_marker(&BatchHeader { producer_id: 0, ..marker }, true, 0, 11);
    assert_eq!(check(&states, 7, AppendOrigin::Client), Check::New, "one of them can go");
}

#[test]
fn a_client_with_a_new_id_for_every_batch_fills_no_memory() {
    let mut states = ProducerStates::default();
    for pid in 0..10_000 {
        states.record(&header(B { pid, ..b(0, 0, 1, pid) }), pid);
        states.keep_at_most(100);
        assert!(states.len() <= 100);
        assert!(states.get(pid).is_some(), "who has just written is remembered");
    }
    assert!(states.len() > 90, "no more goes than must");
}
