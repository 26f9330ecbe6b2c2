use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::batch::{Headers, RecordIn};
use crate::digest::Digest;
use crate::manifest::Manifest;
use crate::plugin::PluginInfo;
use crate::sink::{Emissions, Refusal, Refused};
use crate::world::World;

/// Keeps the values and the reasons of letters; refuses those whose value is this.
#[derive(Default)]
struct Kept {
    letters: Vec<(String, String)>,
    refuses: Option<&'static str>,
}

impl Sink for Kept {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        for (index, emitted) in records.iter().enumerate() {
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            let value = text(emitted.record.value);
            if self.refuses == Some(&value) {
                return Err(vec![Refused { index, why: Refusal::NoKey }]);
            }
            let reason = emitted.record.headers.filter(|(name, _)| *name == b"pelton.error.reason").last();
            self.letters.push((value, text(reason.and_then(|(_, value)| value))));
        }
        Ok(())
    }
}

fn topology(keys: &str) -> Arc<Topology> {
    let text = format!(
        "name = 'p'\n[[source]]\nid = 's'\ntopic = 't'\n[[node]]\nid = 'n'\nfrom = 's'\nplugin = 'x'\n{keys}"
    );
    let manifest = Manifest::parse(&text).expect("is valid");
    let info =
        PluginInfo { digest: Digest::new([1; 32]), world: World::ConsumerHttp, manifest: None, bytes: 1 };
    Arc::new(Topology::link(&manifest, &BTreeMap::from([("n".to_owned(), info)])).expect("fits"))
}

fn delivery(keys: &str) -> Delivery {
    let topology = topology(keys);
    let node = topology.consumer_of(0).expect("the source is its own");
    let room = room(&topology);
    Delivery::new(&topology, (node, 0), 3, 0, &vec![1; topology.outputs.len()], &room)
}

/// As large as the node says.
fn room(topology: &Topology) -> Arc<Room> {
    Room::new(topology.nodes[0].consumer.as_ref().expect("acts on the outside").bytes.bytes())
}

/// Records with these keys (`-` for none), from an offset on; their values are their offsets.
fn records(from: i64, keys: &str) -> OwnedBatch {
    let mut batch = OwnedBatch::new("t", 3);
    for (offset, key) in (from..).zip(keys.chars()) {
        let (key, value) = (key.to_string(), offset.to_string());
        let key = (key != "-").then_some(key.as_bytes());
        let record = RecordIn {
            offset,
            timestamp: 5,
            key,
            value: Some(value.as_bytes()),
            headers: Headers::default(),
        };
        batch.push(record, [].into_iter()).expect("fits");
    }
    batch
}

fn take(delivery: &mut Delivery, keys: &str) {
    let from = delivery.read_to();
    let batch = records(from, keys);
    delivery.take(batch.as_batch(), from + keys.len() as i64);
}

fn offsets(call: &Call) -> Vec<i64> {
    call.records.as_batch().offsets.to_vec()
}

fn unfinished(index: u32, again: Option<u32>) -> Unfinished {
    Unfinished { index, reason: "no".to_owned(), again }
}

#[test]
fn a_partition_is_given_in_order_one_call_at_a_time() {
    let mut delivery = delivery("deliver.batch = 2\non_error = { policy = 'retry', backoff_ms = 100 }");
    take(&mut delivery, "aabb");
    let first = delivery.next_call(0).expect("is ready");
    assert_eq!((offsets(&first), first.order), (vec![0, 1], CallOrder::Whole));
    assert!(delivery.next_call(0).is_none());
    let mut sink = Kept::default();
    let answered = delivery.answered(first.id, Ok(vec![unfinished(1, Some(0))]), 0, &mut sink);
    assert_eq!((answered.again[0].attempt, answered.again[0].failure.offset), (1, 1));
    let delay = i64::from(answered.again[0].delay_ms);
    assert!((80..=100).contains(&delay), "{delay}");
    assert_eq!((delivery.advance().records_in, delivery.next_offset()), (1, 1));
    // The others wait for the one that was not done.
    assert!(delivery.next_call(delay - 1).is_none());
    assert_eq!(delivery.next_due(0), Some(delay));
    let second = delivery.next_call(delay).expect("is due");
    assert_eq!(offsets(&second), [1, 2]);
    let answered = delivery.answered(second.id, Ok(vec![]), delay, &mut sink);
    assert!(answered.again.is_empty() && answered.stop.is_none());
    assert_eq!((delivery.advance().records_in, delivery.next_offset()), (2, 3));
    let third = delivery.next_call(delay).expect("is ready");
    assert_eq!(offsets(&third), [3]);
    delivery.answered(third.id, Ok(vec![]), delay, &mut sink);
    delivery.advance();
    assert_eq!((delivery.next_offset(), delivery.held()), (4, Held::default()));
}

#[test]
fn what_waits_behind_another_one_has_not_failed() {
    let mut delivery = delivery("on_error = { policy = 'retry', attempts = 1, then = 'skip' }");
    take(&mut delivery, "abc");
    let mut sink = Kept::default();
    let all_but = |first: u32| (first..3).map(|index| unfinished(index - first, Some(0))).collect::<Vec<_>>();
    let (mut now, mut skipped) = (0, Vec::new());
    // Each is tried twice and given up; those behind it are tried after that.
    for first in 0..3 {
        for _ in 0..2 {
            let call = delivery.next_call(now).expect("is due");
            assert_eq!(offsets(&call), (i64::from(first)..3).collect::<Vec<_>>());
            let answered = delivery.answered(call.id, Ok(all_but(first)), now, &mut sink);
            now += answered.again.first().map_or(0, |again| i64::from(again.delay_ms));
            skipped.extend(answered.notices.into_iter().map(|notice| notice.failure.offset));
        }
    }
    assert_eq!((skipped, delivery.advance().skipped), (vec![0, 1, 2], 3));
}

#[test]
fn keys_go_on_beside_each_other_and_what_is_committed_stays_behind() {
    let mut delivery = delivery("parallelism = 'key'\ndeliver.batch = 3");
    take(&mut delivery, "abacb--");
    let first = delivery.next_call(0).expect("is ready");
    assert_eq!((offsets(&first), first.order), (vec![0, 1, 3], CallOrder::Free));
    let second = delivery.next_call(0).expect("is ready");
    assert_eq!(offsets(&second), [5, 6], "what has no key waits for nobody");
    assert!(delivery.next_call(0).is_none());
    let mut sink = Kept::default();
    // The first is to be given again, the others are done.
    let asked = delivery.answered(first.id, Ok(vec![unfinished(0, Some(5_000))]), 0, &mut sink);
    assert_eq!(asked.again[0].delay_ms, 5_000, "as long as the plugin asks for");
    let third = delivery.next_call(0).expect("is ready");
    assert_eq!(offsets(&third), [4], "the key of 2 waits");
    for call in [second, third] {
        delivery.answered(call.id, Ok(vec![]), 0, &mut sink);
    }
    assert_eq!((delivery.advance(), delivery.next_offset()), (StepCounts::default(), 0));
    assert_eq!(delivery.held(), Held { unfinished: 2, given: 0, retrying: 1, ahead: 5 });
    let fourth = delivery.next_call(5_000).expect("is due");
    assert_eq!(offsets(&fourth), [0]);
    delivery.answered(fourth.id, Ok(vec![]), 5_000, &mut sink);
    assert_eq!((delivery.advance().records_in, delivery.next_offset()), (2, 2));
}

#[test]
fn what_cannot_be_done_goes_by_the_policy() {
    let run = |policy: &str, again: Option<u32>, refuses| {
        let mut delivery = delivery(&format!("on_error = {policy}"));
        take(&mut delivery, "a");
        let mut sink = Kept { refuses, ..Kept::default() };
        let (mut now, mut calls) = (0, 0);
        loop {
            let call = delivery.next_call(now).expect("is due");
            calls += 1;
            let answered = delivery.answered(call.id, Ok(vec![unfinished(0, again)]), now, &mut sink);
            match answered.again.first() {
                Some(again) => now += i64::from(again.delay_ms),
                None => break (calls, answered, delivery.advance(), sink.letters),
            }
        }
    };
    let kinds =
        |answered: &Answered| answered.notices.iter().map(|notice| notice.kind.clone()).collect::<Vec<_>>();
    let (calls, answered, counts, _) = run("{ policy = 'skip' }", None, None);
    assert_eq!(
        (calls, kinds(&answered), counts.skipped, counts.records_in),
        (1, vec![NoticeKind::Skipped], 1, 1)
    );
    let dead = "{ policy = 'retry', attempts = 2, then = 'dead-letter', topic = 'dead' }";
    let (calls, answered, counts, letters) = run(dead, Some(0), None);
    assert_eq!((calls, kinds(&answered)), (3, vec![NoticeKind::DeadLettered]));
    assert_eq!((counts.dead_lettered, counts.records_out, answered.wrote), (1, 1, true));
    assert_eq!(letters, [("0".to_owned(), "the plugin asks to try again: no".to_owned())]);
    // What can never be done is not tried again.
    let (calls, _, _, letters) = run(dead, None, None);
    assert_eq!((calls, letters[0].1.as_str()), (1, "the plugin rejects the record: no"));
    let (_, answered, counts, letters) = run(dead, None, Some("0"));
    assert!(matches!(kinds(&answered)[..], [NoticeKind::Undeliverable { .. }]) && letters.is_empty());
    assert_eq!((counts.undeliverable, counts.records_in, answered.wrote), (1, 1, false));
    let (calls, answered, counts, _) = run("{ policy = 'fail' }", Some(0), None);
    let stop = answered.stop.expect("it stops");
    assert_eq!(
        (calls, stop.offset, stop.partition, counts.records_in),
        (1 + DEFAULT_RETRY_ATTEMPTS, 0, 3, 0)
    );
}

#[test]
fn a_call_that_fails_is_made_again_record_by_record() {
    let trap = || PluginError::Trapped { trap: "unreachable".to_owned(), said: None };
    for parallelism in ["partition", "key"] {
        let mut delivery =
            delivery(&format!("parallelism = '{parallelism}'\non_error = {{ policy = 'skip' }}"));
        take(&mut delivery, "abc");
        let mut sink = Kept::default();
        let all = delivery.next_call(0).expect("is ready");
        let answered = delivery.answered(all.id, Err(trap()), 0, &mut sink);
        assert!(answered.again.is_empty() && answered.notices.is_empty());
        for offset in 0..3 {
            let call = delivery.next_call(0).expect("is ready");
            assert_eq!(offsets(&call), [offset], "{parallelism}");
            let answer = if offset == 1 { Err(trap()) } else { Ok(vec![]) };
            let answered = delivery.answered(call.id, answer, 0, &mut sink);
            assert_eq!(answered.notices.len(), usize::from(offset == 1));
        }
        let counts = delivery.advance();
        assert_eq!((counts.records_in, counts.skipped, delivery.next_offset()), (3, 1, 3));
    }
}

#[test]
fn a_machine_that_is_busy_is_not_the_records_fault() {
    let mut delivery = delivery("on_error = { policy = 'skip' }");
    take(&mut delivery, "a");
    let (mut sink, late) = (Kept::default(), || PluginError::Deadline { deadline_ms: 1 });
    let call = delivery.next_call(0).expect("is ready");
    assert!(delivery.answered(call.id, Err(late()), 0, &mut sink).notices.is_empty());
    let call = delivery.next_call(0).expect("is ready");
    assert_eq!(delivery.answered(call.id, Err(late()), 0, &mut sink).notices.len(), 1);
}

#[test]
fn what_makes_no_sense_fails_the_call_and_what_is_fatal_the_delivery() {
    let mut delivery = delivery("on_error = { policy = 'skip' }");
    take(&mut delivery, "ab");
    let mut sink = Kept::default();
    let call = delivery.next_call(0).expect("is ready");
    let answered = delivery.answered(call.id, Ok(vec![unfinished(2, None)]), 0, &mut sink);
    assert!(answered.stop.is_none() && answered.notices.is_empty(), "each is given again alone");
    // Alone it is the record's.
    let call = delivery.next_call(0).expect("is ready");
    assert_eq!(offsets(&call), [0]);
    let twice = vec![unfinished(0, None), unfinished(0, None)];
    let answered = delivery.answered(call.id, Ok(twice), 0, &mut sink);
    let [notice] = &answered.notices[..] else { panic!("{answered:?}") };
    assert_eq!((notice.failure.error.kind(), notice.failure.offset), ("ill-formed", 0));
    let call = delivery.next_call(0).expect("is ready");
    let answered = delivery.answered(call.id, Err(PluginError::Fatal("over".to_owned())), 0, &mut sink);
    assert_eq!(answered.stop.expect("it stops").error.kind(), "fatal");
    assert!(delivery.next_call(0).is_none() && delivery.wants().is_none());
}

#[test]
fn the_window_has_its_limits() {
    let mut delivery = delivery("parallelism = 'key'\ndeliver = { records = 4, batch = 1 }");
    take(&mut delivery, "abcdefgh");
    assert_eq!((delivery.read_to(), delivery.wants()), (4, None));
    let mut sink = Kept::default();
    let calls: Vec<Call> = std::iter::from_fn(|| delivery.next_call(0)).collect();
    assert_eq!(calls.len(), 4);
    for call in &calls[1..] {
        delivery.answered(call.id, Ok(vec![]), 0, &mut sink);
    }
    delivery.advance();
    assert_eq!(delivery.wants(), None, "one that is not done holds up what is read");
    delivery.answered(calls[0].id, Ok(vec![]), 0, &mut sink);
    delivery.advance();
    assert_eq!((delivery.wants(), delivery.next_offset()), (Some(4), 4));
    // A hole at the end is read past.
    let none = records(4, "");
    delivery.take(none.as_batch(), 9);
    assert_eq!((delivery.next_offset(), delivery.read_to()), (9, 9));
}

#[test]
fn a_call_that_is_ended_counts_for_what_it_has_done_alone() {
    let answers: [Result<Vec<Unfinished>, PluginError>; 4] = [
        Ok(vec![unfinished(1, Some(0)), unfinished(2, None)]),
        Ok(vec![unfinished(9, None)]),
        Err(PluginError::Trapped { trap: "unreachable".to_owned(), said: None }),
        Err(PluginError::Fatal("stopping".to_owned())),
    ];
    for (answer, done) in answers.into_iter().zip([1, 0, 0, 0]) {
        // No attempt is left: an answer that counts would have the record skipped.
        let mut delivery =
            delivery("on_error = { policy = 'retry', attempts = 1, backoff_ms = 1, then = 'skip' }");
        take(&mut delivery, "abc");
        let mut sink = Kept::default();
        let first = delivery.next_call(0).expect("is ready");
        delivery.answered(first.id, Ok((0..3).map(|i| unfinished(i, Some(0))).collect()), 0, &mut sink);
        let last = delivery.next_call(i64::MAX).expect("is due");
        delivery.ended(last.id, answer);
        let counts = delivery.advance();
        assert_eq!((counts.records_in, counts.skipped, delivery.next_offset()), (done, 0, done as i64));
        assert_eq!(delivery.held().unfinished, 3 - done);
        // Its attempt is still there.
        let again = delivery.next_call(0).expect("waits for nothing");
        let answered = delivery.answered(again.id, Ok(vec![unfinished(0, Some(0))]), 0, &mut sink);
        assert_eq!(answered.again.len(), usize::from(done == 1), "{answered:?}");
    }
}

#[test]
fn partitions_share_their_room_and_each_has_a_record() {
    let topology = topology("deliver.bytes = '64 KiB'");
    let room = room(&topology);
    let new = |partition| Delivery::new(&topology, (0, 0), partition, 0, &[], &room);
    let (mut first, mut second) = (new(0), new(1));
    let mut large = OwnedBatch::new("t", 0);
    for offset in 0..4 {
        let value = [b'x'; 25_000];
        let (timestamp, key, headers) = (5, None, Headers::default());
        large
            .push(RecordIn { offset, timestamp, key, value: Some(&value), headers }, [].into_iter())
            .expect("fits");
    }
    first.take(large.as_batch(), 4);
    assert_eq!(first.read_to(), 2, "a third one does not fit");
    assert_eq!(first.wants(), None);
    assert_eq!(second.wants(), Some(0), "it has none");
    second.take(large.as_batch(), 4);
    assert_eq!((second.read_to(), second.wants()), (1, None));
    assert!(room.used() > 75_000);
    let mut sink = Kept::default();
    let call = first.next_call(0).expect("is ready");
    first.answered(call.id, Ok(vec![unfinished(1, Some(0))]), 0, &mut sink);
    // Two records are held, and a third one would be too much: reading it again would come to nothing.
    assert_eq!((first.wants(), second.wants()), (None, None));
    drop(second);
    assert_eq!(first.wants(), Some(2));
    drop(first);
    assert_eq!(room.used(), 0);
}

#[test]
fn headers_count_for_what_they_take() {
    let mut delivery = delivery("deliver.bytes = '64 KiB'");
    let mut batch = OwnedBatch::new("t", 3);
    for offset in 0..3 {
        let (timestamp, key, value, headers) = (5, None, None, Headers::default());
        let record = RecordIn { offset, timestamp, key, value, headers };
        batch.push(record, std::iter::repeat_n((&b""[..], None), 600)).expect("fits");
    }
    delivery.take(batch.as_batch(), 3);
    assert_eq!(delivery.read_to(), 1, "600 empty headers are not nothing");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever is answered in whatever order: a record is given when those that it waits for are done, what is committed is
    /// never past one that is not, nothing is forgotten, and the window keeps its limit.
    #[test]
    fn order_and_offsets_hold_whatever_happens(
        by_key in any::<bool>(),
        keys in "[abc-]{1,60}",
        choices in prop::collection::vec((0_usize..4, 0_u8..6, any::<u8>()), 1..400),
    ) {
        let parallelism = if by_key { "key" } else { "partition" };
        let mut delivery = delivery(&format!(
            "parallelism = '{parallelism}'\ndeliver = {{ records = 9, batch = 3 }}\n\
             on_error = {{ policy = 'retry', attempts = 1500, backoff_ms = 1, then = 'skip' }}"
        ));
        let all = records(0, &keys);
        let end = keys.len() as i64;
        let (mut done, mut open, mut now): (BTreeSet<i64>, Vec<Call>, i64) = (BTreeSet::new(), Vec::new(), 0);
        let mut sink = Kept::default();
        let forever = std::iter::repeat((0, 0, 0));
        for (pick, what, which) in choices.into_iter().chain(forever).take(5_000) {
            if let Some(from) = delivery.wants() {
                let rest = OwnedBatch::select(all.as_batch(), |i| i as i64 >= from).unwrap();
                delivery.take(rest.as_batch(), end);
            }
            prop_assert!(delivery.window.len() <= 9);
            while open.len() < 3 && let Some(call) = delivery.next_call(now) {
                let given = offsets(&call);
                let key = |offset: i64| keys.as_bytes()[offset as usize];
                for (i, offset) in given.iter().enumerate() {
                    prop_assert!(!done.contains(offset), "{} is done", offset);
                    let waits_for = |other: &i64| {
                        let same_key = key(*other) == key(*offset) && key(*offset) != b'-';
                        if by_key { same_key } else { !given[..i].contains(other) }
                    };
                    prop_assert!((0..*offset).filter(waits_for).all(|other| done.contains(&other)), "{} too early", offset);
                }
                prop_assert!(given.is_sorted() && given.len() <= 3);
                open.push(call);
            }
            if open.is_empty() {
                now = delivery.next_due(now).unwrap_or(now);
            } else {
                let call = open.swap_remove(pick % open.len());
                let given = offsets(&call);
                let one = u32::from(which) % given.len() as u32;
                let answer = match what {
                    0..=2 => Ok(vec![]),
                    3 => Ok(vec![unfinished(one, Some(u32::from(which)))]),
                    4 => Ok((0..given.len() as u32).map(|i| unfinished(i, Some(0))).collect()),
                    _ => Err(PluginError::Memory { limit_bytes: 1 }),
                };
                let is_done = |i: usize| answer.as_ref().is_ok_and(|u| u.iter().all(|u| u.index as usize != i));
                done.extend(given.iter().enumerate().filter(|(i, _)| is_done(*i)).map(|(_, offset)| offset));
                delivery.answered(call.id, answer, now, &mut sink);
            }
            delivery.advance();
            let next = delivery.next_offset();
            prop_assert!((0..next).all(|offset| done.contains(&offset)), "{} is committed", next);
            if next == end {
                break;
            }
        }
        prop_assert_eq!((delivery.next_offset(), done.len() as i64), (end, end));
    }
}
