//! Dead letters go back.

use std::collections::BTreeSet;

use pelton_pipelines::supervisor::LetterTopics;
use pelton_streams::BatchIn;
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch, Columns, Header};

use super::*;
use crate::group::types::TopicPartition;
use crate::partition::Partition;
use crate::pipelines::read_committed;
use crate::pipelines::redrive::{Redrive, RedriveError, RedriveRequest, Redriven};
use crate::topic_config::Durability;
use crate::txn::embedded::TransactionalBatch;

/// Letters are read from `dead`; the pipeline reads `in`.
const MANIFEST: &str = "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n\
    [[node]]\nid = \"n\"\nfrom = \"s\"\nplugin = \"any\"\non_error = { policy = \"dead-letter\", topic = \"dead\" }\n\
    [[sink]]\nfrom = \"n\"\ntopic = \"out\"\n";

/// What a topic has: offset, timestamp, key, value, headers.
type Stored = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

#[derive(Clone)]
struct Letter {
    pipeline: &'static str,
    from: (&'static str, i32, i64),
    key: Option<&'static str>,
    value: Option<&'static str>,
    headers: Vec<(&'static [u8], Option<&'static [u8]>)>,
    time: i64,
    original_time: Option<i64>,
}

/// The letter of a record of `in`, partition 1.
fn letter(offset: i64, value: &'static str) -> Letter {
    let (key, value, headers) = (Some("k"), Some(value), Vec::new());
    Letter { pipeline: "p", from: ("in", 1, offset), key, value, headers, time: 7, original_time: None }
}

/// A timestamp, a key, a value and headers.
type Record<'a> = (i64, Option<&'a [u8]>, Option<&'a [u8]>, Vec<Header<'a>>);

fn batch(records: &[Record<'_>], options: BatchOptions) -> CheckedBatch {
    let mut builder = BatchBuilder::new(options);
    for (time, key, value, headers) in records {
        builder.append(*time, *key, *value, headers).unwrap();
    }
    builder.build().unwrap()
}

async fn append(lab: &Lab, partition: &Partition, batch: CheckedBatch) {
    let room = lab.handle.broker().log_dir.permit(batch.len() as u64).await.unwrap();
    let acks = crate::partition::acks::Acks::new();
    partition.append_client(batch, &room, 1, Durability::Group, Some(&acks)).unwrap();
    drop(room);
    acks.wait().await.unwrap();
}

impl Lab {
    async fn start_with_letters() -> Lab {
        let lab = Lab::start_in(tempfile::tempdir().unwrap(), &[]).await.unwrap();
        for (name, partitions) in [("in", 2), ("dead", 1), ("out", 1)] {
            let overrides = Overrides::from([("retention.ms".to_owned(), "-1".to_owned())]);
            let new = NewTopic { name: name.to_owned(), partitions, overrides };
            lab.handle.broker().topics.create(new, 1).await.unwrap();
        }
        lab.push("quick").await.unwrap();
        let plugins = BTreeMap::from([("n".to_owned(), digest_of(b"quick"))]);
        lab.supervisor().deploy(MANIFEST, &plugins).await.unwrap();
        lab.supervisor().set_paused("p", true).await.unwrap();
        lab
    }

    fn partition(&self, topic: &str, partition: i32) -> Arc<Partition> {
        self.handle.broker().topics.partition(topic, partition).unwrap()
    }

    /// Writes letters, a batch each, as pipelines do.
    async fn letters(&self, letters: &[Letter]) {
        for Letter { pipeline, from: (topic, partition, offset), key, value, headers, time, original_time } in
            letters
        {
            let (partition, offset) = (partition.to_string(), offset.to_string());
            let own = headers.iter().map(|(key, value)| Header { key, value: *value });
            let names = ["pipeline", "node", "topic", "partition", "offset", "kind", "reason"];
            let values = [pipeline, "n", topic, partition.as_str(), offset.as_str(), "trapped", "why"];
            let names = names.map(|name| format!("pelton.error.{name}"));
            let reason = names.iter().zip(values);
            let reason =
                reason.map(|(key, value)| Header { key: key.as_bytes(), value: Some(value.as_bytes()) });
            let original = original_time.map(|time| time.to_string());
            let original = original
                .as_ref()
                .map(|time| Header { key: b"pelton.error.timestamp", value: Some(time.as_bytes()) });
            let headers: Vec<Header<'_>> = own.chain(reason).chain(original).collect();
            let record = (*time, key.map(str::as_bytes), value.map(str::as_bytes), headers);
            append(self, &self.partition("dead", 0), batch(&[record], BatchOptions::default())).await;
        }
    }

    async fn redrive(&self, request: RedriveRequest) -> Result<Redriven, RedriveError> {
        let broker = self.handle.broker();
        let redrive = Redrive::new(Arc::new(broker.producing()), broker.groups.clone());
        let topics = self.supervisor().letter_topics("p").unwrap();
        redrive.run("p".to_owned(), topics, request).await
    }

    fn stored(&self, topic: &str, partition: i32) -> Vec<Stored> {
        let found = self.partition(topic, partition);
        let (mut offset, end) = (0, found.offsets().last_stable);
        let mut stored = Vec::new();
        while offset < end {
            let mut columns = Columns::new();
            offset = read_committed(&found, offset, end, true, &mut columns).ok().unwrap();
            for record in BatchIn::new(topic, 0, &columns).records() {
                let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                let headers = record.headers.map(|(name, value)| (name.to_vec(), owned(value))).collect();
                stored.push((
                    record.offset,
                    record.timestamp,
                    owned(record.key),
                    owned(record.value),
                    headers,
                ));
            }
        }
        stored
    }

    /// The values in a partition.
    fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap_or_default()).unwrap();
        self.stored(topic, partition).into_iter().map(|(_, _, _, value, _)| text(value)).collect()
    }
}

fn dry() -> RedriveRequest {
    RedriveRequest { dry_run: true, ..RedriveRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_goes_back_as_its_record_was_and_once() {
    let lab = Lab::start_with_letters().await;
    let own: Vec<(&[u8], Option<&[u8]>)> =
        vec![(b"a", Some(b"1")), (b"pelton.error.node", None), (b"a", Some(b""))];
    let first = Letter { headers: own.clone(), key: None, original_time: Some(5), ..letter(4, "first") };
    let none = Letter { value: None, from: ("in", 0, 9), ..letter(0, "") };
    let theirs = Letter { pipeline: "q", ..letter(5, "theirs") };
    lab.letters(&[first.clone(), theirs, none, first, letter(6, "last")]).await;
    let plain = batch(&[(1, None, Some(b"no letter"), Vec::new())], BatchOptions::default());
    append(&lab, &lab.partition("dead", 0), plain).await;
    let expect = |done: &Redriven| {
        assert_eq!(done.redriven, BTreeMap::from([("in".to_owned(), 3)]));
        assert_eq!((done.repeated, done.others, done.complete, &done.refused), (1, 2, true, &None));
        let read = &done.letters[0];
        assert_eq!(
            (read.topic.as_str(), read.partition, read.from, read.next, read.end),
            ("dead", 0, 0, 6, 6)
        );
    };
    expect(&lab.redrive(dry()).await.unwrap());
    assert_eq!(lab.stored("in", 1), [], "a dry run writes nothing");
    expect(&lab.redrive(RedriveRequest::default()).await.unwrap());
    let headers: Vec<(Vec<u8>, Option<Vec<u8>>)> =
        own.iter().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
    let (key, text) = (Some(b"k".to_vec()), |text: &str| Some(text.as_bytes().to_vec()));
    let expected = vec![(0, 5, None, text("first"), headers), (1, 7, key.clone(), text("last"), Vec::new())];
    assert_eq!(lab.stored("in", 1), expected);
    assert_eq!(lab.stored("in", 0), [(0, 7, key, None, Vec::new())]);
    // Again: nothing is left, whatever is asked for. What comes later goes back.
    for from in [None, Some(0)] {
        let again = lab.redrive(RedriveRequest { from, ..RedriveRequest::default() }).await.unwrap();
        assert_eq!((again.redriven.len(), again.complete, again.letters[0].from), (0, true, 6));
    }
    lab.letters(&[letter(4, "first, which has failed again")]).await;
    assert_eq!(lab.redrive(RedriveRequest::default()).await.unwrap().redriven["in"], 1);
    assert_eq!(lab.values("in", 1).len(), 3);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_from_there_and_not_beyond() {
    let lab = Lab::start_with_letters().await;
    // A record that two nodes could not process is one record.
    let all =
        [letter(0, "a"), letter(1, "b"), letter(1, "b"), letter(2, "c"), letter(3, "d"), letter(4, "e")];
    lab.letters(&all).await;
    let run = async |request: RedriveRequest| {
        let done = lab.redrive(request).await.unwrap();
        (done.redriven.get("in").copied().unwrap_or(0), done.letters[0].next, done.complete)
    };
    let limited = |limit| RedriveRequest { limit: Some(limit), ..RedriveRequest::default() };
    assert_eq!(run(limited(0)).await, (0, 0, false));
    assert_eq!(run(limited(2)).await, (2, 3, false), "the second letter of the last one goes with it");
    assert_eq!(run(RedriveRequest { from: Some(4), ..limited(1) }).await, (1, 5, false));
    let until = Some(BTreeMap::from([("dead".to_owned(), BTreeMap::from([(0, 5)]))]));
    assert_eq!(run(RedriveRequest { until, ..RedriveRequest::default() }).await, (0, 5, true));
    let lab = lab.restart(&[]).await.unwrap();
    let done = lab.redrive(RedriveRequest::default()).await.unwrap();
    assert_eq!((done.redriven["in"], done.letters[0].from, done.letters[0].next), (1, 5, 6));
    assert_eq!(lab.values("in", 1), ["a", "b", "d", "e"]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_cannot_go_back_stops_the_others_behind_it() {
    let lab = Lab::start_with_letters().await;
    // Anybody can write to a topic of dead letters, and name any topic there.
    let forged = Letter { from: ("__consumer_offsets", 0, 1), ..letter(0, "forged") };
    let elsewhere = Letter { from: ("out", 0, 1), ..letter(0, "elsewhere") };
    let beyond = Letter { from: ("in", 2, 1), ..letter(0, "beyond") };
    let late = Letter { time: i64::MAX / 2, ..letter(2, "late") };
    lab.letters(&[letter(0, "a"), forged, elsewhere, beyond, late, letter(1, "b")]).await;
    let reasons =
        ["does not read", "does not read", "no partition 2", "does not take its record: its timestamp"];
    let mut from = None;
    for (offset, reason) in (1..).zip(reasons) {
        let request = RedriveRequest { from, ..RedriveRequest::default() };
        for dry_run in [true, false] {
            let done = lab.redrive(RedriveRequest { dry_run, ..request.clone() }).await.unwrap();
            let refused = done.refused.unwrap();
            assert!(refused.offset == offset && refused.why.contains(reason), "{refused:?}");
            assert!(!done.complete);
        }
        from = Some(offset + 1);
    }
    assert_eq!(lab.values("in", 1), ["a"], "what comes before has gone back");
    assert!(lab.redrive(RedriveRequest { from, ..RedriveRequest::default() }).await.unwrap().complete);
    assert_eq!(lab.values("in", 1), ["a", "b"]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_must_be_there() {
    let lab = Lab::start_with_letters().await;
    let broker = lab.handle.broker();
    let redrive = Redrive::new(Arc::new(broker.producing()), broker.groups.clone());
    let refused = async |letters: &[&str], request: RedriveRequest| {
        let letters: BTreeSet<String> = letters.iter().map(|name| (*name).to_owned()).collect();
        let topics = LetterTopics { letters, sources: BTreeSet::new() };
        Arc::clone(&redrive).run("p".to_owned(), topics, request).await.unwrap_err()
    };
    let none = RedriveRequest::default;
    assert!(matches!(refused(&[], none()).await, RedriveError::NoLetters(_)));
    assert!(matches!(refused(&["gone"], none()).await, RedriveError::UnknownTopic(_)));
    let beyond = RedriveRequest { partition: Some(1), ..none() };
    assert!(matches!(refused(&["dead"], beyond).await, RedriveError::UnknownPartition { partition: 1, .. }));
    let which = RedriveRequest { from: Some(1), ..none() };
    assert!(matches!(refused(&["in"], which).await, RedriveError::WhichPartition(2)));
    lab.handle.shutdown().await.unwrap();
}

/// What a crash leaves open of a redrive holds up nobody who reads what it has written.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_redrive_has_left_open_is_aborted_by_the_next_start() {
    let lab = Lab::start_with_letters().await;
    for id in ["pelton.p@redrive", "pelton.@records"] {
        let broker = lab.handle.broker();
        let producer = broker.transactions.init_embedded(id).await.unwrap();
        let options = BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: 0,
            transactional: true,
            ..BatchOptions::default()
        };
        let (partition, durability) = (lab.partition("in", 1), Durability::Group);
        let batch = batch(&[(7, None, Some(b"half"), Vec::new())], options);
        let at = TopicPartition { topic: "in".into(), partition: 1 };
        let room = broker.log_dir.permit(1_000).await.unwrap();
        let mut held = broker.transactions.lock(id).await.unwrap();
        let batches = vec![TransactionalBatch { at, partition, batch, durability }];
        broker.transactions.write(&mut held, producer, None, batches, &room).unwrap();
    }
    let lab = lab.restart(&[]).await.unwrap();
    lab.letters(&[letter(0, "whole")]).await;
    lab.redrive(RedriveRequest::default()).await.unwrap();
    let offsets = lab.partition("in", 1).offsets();
    assert_eq!(offsets.last_stable, offsets.log_end, "readers wait for nothing");
    assert_eq!(lab.values("in", 1), ["whole"]);
    lab.handle.shutdown().await.unwrap();
}
