//! Dead letters go back.

use std::collections::BTreeSet;

use pelton_pipelines::supervisor::LetterTopics;
use pelton_streams::BatchIn;
use pelton_wire::record::{BatchBuilder, BatchOptions, CheckedBatch, Columns, Header};

use super::*;
use crate::group::types::TopicPartition;
use crate::partition::Partition;
use crate::pipelines::read_committed;
use crate::pipelines::redrive::run::Run;
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
            lab.create_kept(name, partitions).await;
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

    fn putting_back(&self) -> Arc<Redrive> {
        let broker = self.handle.broker();
        Redrive::new(Arc::new(broker.producing()), broker.groups.clone())
    }

    async fn redrive(&self, request: RedriveRequest) -> Result<Redriven, RedriveError> {
        let topics = self.supervisor().letter_topics("p").unwrap();
        self.putting_back().run("p".to_owned(), topics, request).await
    }

    async fn create_again(&self, name: &str, partitions: i32) {
        let topics = &self.handle.broker().topics;
        topics.delete(topics.get(name).unwrap().id).await.unwrap();
        self.create_kept(name, partitions).await;
    }

    /// A topic from which nothing goes.
    async fn create_kept(&self, name: &str, partitions: i32) {
        let overrides = Overrides::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let new = NewTopic { name: name.to_owned(), partitions, overrides };
        self.handle.broker().topics.create(new, 1).await.unwrap();
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
        assert_eq!(done.redriven, BTreeMap::from([("in".to_owned(), 4)]));
        assert_eq!((done.rows, done.deleted, done.others), (0, 0, 2));
        assert_eq!((done.complete, &done.refused), (true, &None));
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
    // Once for each of the letters of its nodes.
    let expected = vec![
        (0, 5, None, text("first"), headers.clone()),
        (1, 5, None, text("first"), headers),
        (2, 7, key.clone(), text("last"), Vec::new()),
    ];
    assert_eq!(lab.stored("in", 1), expected);
    assert_eq!(lab.stored("in", 0), [(0, 7, key, None, Vec::new())]);
    // Again: nothing is left, whatever is asked for. What comes later goes back.
    for from in [None, Some(0)] {
        let again = lab.redrive(RedriveRequest { from, ..RedriveRequest::default() }).await.unwrap();
        assert_eq!((again.redriven.len(), again.complete, again.letters[0].from), (0, true, 6));
    }
    lab.letters(&[letter(4, "first, which has failed again")]).await;
    assert_eq!(lab.redrive(RedriveRequest::default()).await.unwrap().redriven["in"], 1);
    assert_eq!(lab.values("in", 1).len(), 4);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_from_there_and_not_beyond() {
    let lab = Lab::start_with_letters().await;
    // Two nodes could not process the second record.
    let all =
        [letter(0, "a"), letter(1, "b"), letter(1, "b"), letter(2, "c"), letter(3, "d"), letter(4, "e")];
    lab.letters(&all).await;
    let run = async |request: RedriveRequest| {
        let done = lab.redrive(request).await.unwrap();
        (done.redriven.get("in").copied().unwrap_or(0), done.letters[0].next, done.complete)
    };
    let limited = |limit| RedriveRequest { limit: Some(limit), ..RedriveRequest::default() };
    assert_eq!(run(limited(0)).await, (0, 0, false));
    assert_eq!(run(limited(2)).await, (2, 2, false), "the next letter of the record is another one");
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
        let topics = LetterTopics { letters, ..LetterTopics::default() };
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
    // Before anybody asks for a redrive, which begins with that, too.
    let offsets = lab.partition("in", 1).offsets();
    assert_eq!(offsets.last_stable, offsets.log_end, "the start leaves nothing open");
    lab.letters(&[letter(0, "whole")]).await;
    lab.redrive(RedriveRequest::default()).await.unwrap();
    let offsets = lab.partition("in", 1).offsets();
    assert_eq!(offsets.last_stable, offsets.log_end, "readers wait for nothing");
    assert_eq!(lab.values("in", 1), ["whole"]);
    lab.handle.shutdown().await.unwrap();
}

/// Which letters are of one record nobody can tell once its topic was created again: none is passed over for another one.
#[tokio::test(flavor = "multi_thread")]
async fn each_letter_goes_back_once_whatever_it_is_of() {
    let lab = Lab::start_with_letters().await;
    lab.letters(&[letter(0, "a"), letter(0, "a")]).await;
    let one = || RedriveRequest { limit: Some(1), ..RedriveRequest::default() };
    for next in 1..=2 {
        let done = lab.redrive(one()).await.unwrap();
        assert_eq!((done.redriven["in"], done.letters[0].next), (1, next));
    }
    assert!(lab.redrive(RedriveRequest::default()).await.unwrap().redriven.is_empty());
    // The same place in another topic of the name.
    lab.create_again("in", 2).await;
    lab.letters(&[letter(0, "b")]).await;
    assert_eq!(lab.redrive(RedriveRequest::default()).await.unwrap().redriven["in"], 1);
    assert_eq!(lab.values("in", 1), ["b"]);
    // The position is of the topic of letters that there was.
    lab.create_again("dead", 1).await;
    lab.letters(&[letter(0, "c")]).await;
    let done = lab.redrive(RedriveRequest::default()).await.unwrap();
    assert_eq!((done.redriven["in"], done.letters[0].from), (1, 0));
    assert_eq!(lab.values("in", 1), ["b", "c"]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_and_who_waits_is_next() {
    let lab = Lab::start_with_letters().await;
    lab.letters(&[letter(0, "a")]).await;
    let redrive = lab.putting_back();
    let run = || {
        let topics = lab.supervisor().letter_topics("p").unwrap();
        Arc::clone(&redrive).run("p".to_owned(), topics, RedriveRequest::default())
    };
    let turn = redrive.turn("p").await;
    assert!(matches!(run().await.unwrap_err(), RedriveError::Busy(_)));
    drop(redrive.turn("other").await);
    let mut next = Box::pin(redrive.turn("p"));
    assert!(is_pending(next.as_mut()).await);
    drop(turn);
    drop(next.await);
    assert_eq!(run().await.unwrap().redriven["in"], 1);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_leaves_the_position_where_it_was() {
    let lab = Lab::start_with_letters().await;
    lab.letters(&[letter(0, "a")]).await;
    let redrive = lab.putting_back();
    let (broker, request) = (lab.handle.broker(), RedriveRequest::default());
    let mut run = Run::new(&redrive, "p", lab.supervisor().letter_topics("p").unwrap(), &request);
    run.begin().await.unwrap();
    let mut columns = Columns::new();
    read_committed(&lab.partition("dead", 0), 0, 1, true, &mut columns).ok().unwrap();
    assert_eq!(run.take(BatchIn::new("dead", 0, &columns), 1), 1);
    // Between the look at its topic and the write.
    lab.create_again("in", 2).await;
    let dead = broker.topics.get("dead").unwrap();
    assert!(matches!(run.commit(&dead, 0, 1).await, Err(RedriveError::Unavailable(_))));
    let done = lab.redrive(request).await.unwrap();
    assert_eq!((done.redriven["in"], done.letters[0].from), (1, 0));
    assert_eq!(lab.values("in", 1), ["a"]);
    lab.handle.shutdown().await.unwrap();
}

/// An old row would take the place of a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_tables_go_back_only_if_that_is_asked_for() {
    let lab = Lab::start_with_letters().await;
    lab.letters(&[letter(0, "a"), letter(1, "b")]).await;
    let run = async |tables: bool, dry_run: bool| {
        let mut topics = lab.supervisor().letter_topics("p").unwrap();
        assert!(topics.tables.is_empty());
        topics.tables.insert("in".to_owned());
        let request = RedriveRequest { tables, dry_run, ..RedriveRequest::default() };
        lab.putting_back().run("p".to_owned(), topics, request).await.unwrap()
    };
    let left = run(false, true).await;
    assert_eq!((left.redriven.len(), left.rows, left.complete), (0, 2, true));
    assert_eq!((run(true, false).await.redriven["in"], run(false, false).await.rows), (2, 0));
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_retention_took_are_counted() {
    let lab = Lab::start_with_letters().await;
    lab.letters(&[letter(0, "a"), letter(1, "b"), letter(2, "c")]).await;
    let dead = lab.partition("dead", 0);
    tokio::task::spawn_blocking(move || dead.delete_records(2)).await.unwrap().unwrap();
    let done = lab.redrive(RedriveRequest::default()).await.unwrap();
    assert_eq!((done.deleted, done.redriven["in"], done.letters[0].from), (2, 1, 2));
    let again = lab.redrive(RedriveRequest::default()).await.unwrap();
    assert_eq!((again.deleted, again.complete), (0, true));
    lab.handle.shutdown().await.unwrap();
}

/// The letters stay as well: what has gone back does not go back again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_deleted_leaves_its_position_in_the_letters() {
    let lab = Lab::start_with_letters().await;
    lab.letters(&[letter(0, "a")]).await;
    lab.redrive(RedriveRequest::default()).await.unwrap();
    lab.supervisor().delete("p", true).await.unwrap();
    let gone = lab.supervisor().letter_topics("p").unwrap_err();
    assert!(matches!(gone, DeployError::UnknownPipeline(_)), "{gone}");
    lab.push("quick").await.unwrap();
    let plugins = BTreeMap::from([("n".to_owned(), digest_of(b"quick"))]);
    lab.supervisor().deploy(MANIFEST, &plugins).await.unwrap();
    let again = lab.redrive(RedriveRequest::default()).await.unwrap();
    assert_eq!((again.redriven.len(), again.letters[0].from), (0, 1));
    lab.handle.shutdown().await.unwrap();
}

/// Of the letters of a key the last one alone would stay.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_of_letters_is_warned_of() {
    let lab = Lab::start_with_letters().await;
    let plugins = BTreeMap::from([("n".to_owned(), digest_of(b"quick"))]);
    let warnings = async || lab.supervisor().check(MANIFEST, &plugins).await.unwrap().warnings;
    let is_of_letters =
        |warning: &String| warning.contains("dead letters go to topic dead, which is compacted");
    assert!(!warnings().await.iter().any(is_of_letters));
    let topics = &lab.handle.broker().topics;
    topics.delete(topics.get("dead").unwrap().id).await.unwrap();
    let overrides = Overrides::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    topics.create(NewTopic { name: "dead".to_owned(), partitions: 1, overrides }, 1).await.unwrap();
    assert!(warnings().await.iter().any(is_of_letters));
    lab.handle.shutdown().await.unwrap();
}
