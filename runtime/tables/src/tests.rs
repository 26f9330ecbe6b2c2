//! Tables over topics in memory, through their handle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use pelton_streams::state::MemoryBudget;
use pelton_streams::tables::{KeyPlacement, RowRange, Scope, StoreKind, ValueFormat};

use crate::ask::AskError;
use crate::follow::{FollowEvent, Following};
use crate::service::{CreateError, DeleteError, NewTable, Tables, TablesSpec};
use crate::source::Source;
use crate::store::StoreState;
use crate::testing::{MemoryDefinitions, MemoryTopics};

mod copies;
mod limits;

const LIMIT: Duration = Duration::from_secs(20);

struct Lab {
    topics: Arc<MemoryTopics>,
    definitions: Arc<MemoryDefinitions>,
    clock: Arc<AtomicI64>,
    tables: Arc<Tables>,
}

impl Lab {
    fn start() -> Lab {
        let (topics, definitions) = (MemoryTopics::new(), MemoryDefinitions::new());
        let clock = Arc::new(AtomicI64::new(1_000_000));
        Lab { tables: run(&topics, &definitions, &clock), topics, definitions, clock }
    }

    async fn restart(self) -> Lab {
        self.tables.stop().await;
        let Lab { topics, definitions, clock, .. } = self;
        Lab { tables: run(&topics, &definitions, &clock), topics, definitions, clock }
    }

    async fn create(&self, name: &str, topic: &str, scope: Scope, partitioner: KeyPlacement) {
        self.tables.create(new(name, topic, scope, partitioner)).await.unwrap();
    }

    /// Waits until the table reflects everything up to these offsets.
    async fn until(&self, name: &str, ends: &[(u32, i64)]) {
        let wanted = ends.iter().map(|(partition, end)| (*partition, end - 1)).collect();
        self.tables.wait_for(name, &wanted, LIMIT).await.unwrap();
    }

    fn get(&self, name: &str, key: &str) -> Option<String> {
        let found = self.tables.get(name, key.as_bytes()).unwrap();
        found.row.map(|row| String::from_utf8(row.value).unwrap())
    }

    fn all(&self, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let page = self.tables.scan(name, &RowRange::default(), usize::MAX).unwrap();
        assert_eq!(page.next, None);
        page.rows.into_iter().map(|row| (row.key, row.value)).collect()
    }
}

fn run(
    topics: &Arc<MemoryTopics>,
    definitions: &Arc<MemoryDefinitions>,
    clock: &Arc<AtomicI64>,
) -> Arc<Tables> {
    let clock = Arc::clone(clock);
    let spec = TablesSpec {
        source: Arc::clone(topics) as Arc<dyn Source>,
        definitions: Arc::clone(definitions) as Arc<dyn crate::source::Definitions>,
        factory: None,
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        dir: "nowhere".into(),
        threads: 2,
        max_tables: 3,
        max_followers: 2,
        follower_patience: LIMIT,
        memory: MemoryBudget::new(u64::MAX),
        flush_interval_ms: 1_000,
        runtime: tokio::runtime::Handle::current(),
    };
    Tables::start(spec).unwrap()
}

fn new(name: &str, topic: &str, scope: Scope, partitioner: KeyPlacement) -> NewTable {
    NewTable {
        name: name.to_owned(),
        topic: topic.to_owned(),
        scope,
        partitioner,
        store: StoreKind::Memory,
        value: ValueFormat::Raw,
    }
}

/// The events up to and including the last that `done` wants.
async fn events(following: &mut Following, mut done: impl FnMut(&FollowEvent) -> bool) -> Vec<FollowEvent> {
    let mut seen = Vec::new();
    loop {
        let frame = tokio::time::timeout(LIMIT, following.next()).await.unwrap();
        let Some(frame) = frame else { panic!("it ended: {} after {seen:?}", following.ended()) };
        for event in frame {
            let last = done(&event);
            seen.push(event);
            if last {
                return seen;
            }
        }
    }
}

fn change(partition: u32, offset: i64, key: &str, value: Option<&str>) -> FollowEvent {
    let bytes = |text: &str| text.as_bytes().to_vec();
    // The topic in memory gives offsets as timestamps.
    FollowEvent::Change { partition, offset, timestamp: offset, key: bytes(key), value: value.map(bytes) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_what_its_topic_says() {
    let lab = Lab::start();
    for (scope, topic) in [(Scope::Partitioned, "parted"), (Scope::Global, "whole")] {
        lab.topics.create(topic, 2, 1_000_000);
        lab.topics.put(topic, 0, "a", Some("1"));
        lab.topics.put(topic, 1, "b", Some("2"));
        lab.create(topic, topic, scope, KeyPlacement::Unknown).await;
        lab.until(topic, &[(0, 1), (1, 1)]).await;
        assert_eq!((lab.get(topic, "a"), lab.get(topic, "b")), (Some("1".into()), Some("2".into())));
        // What was aborted leaves a hole, as a marker does.
        lab.topics.append(topic, 0, [None, None]);
        lab.topics.append(topic, 0, [Some((None, Some(b"of no row".to_vec())))]);
        lab.topics.put(topic, 0, "a", None);
        lab.topics.put(topic, 0, "c", Some(""));
        lab.until(topic, &[(0, 6)]).await;
        assert_eq!((lab.get(topic, "a"), lab.get(topic, "c")), (None, Some(String::new())));
        let found = lab.tables.get(topic, b"c").unwrap();
        assert_eq!(found.offsets, BTreeMap::from([(0, 5), (1, 0)]), "{scope}");
        let described = lab.tables.describe(topic).unwrap();
        assert_eq!(
            (described.state, described.stores.len()),
            (StoreState::Live, if topic == "whole" { 1 } else { 2 })
        );
        let totals = described.totals;
        assert_eq!((totals.puts, totals.tombstones, totals.null_keys), (3, 1, 1));
    }
    let listed = lab.tables.list();
    assert_eq!(listed.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), ["parted", "whole"]);
    let lab = lab.restart().await;
    lab.until("parted", &[(0, 6), (1, 1)]).await;
    assert_eq!(lab.all("parted").len(), 2);
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_asks_the_partition_that_the_partitioner_names() {
    let lab = Lab::start();
    lab.topics.create("t", 4, 1_000_000);
    let place = |key: &str| KeyPlacement::Murmur2.partition(key.as_bytes(), 4).unwrap();
    for key in ["a", "b", "c", "d", "e"] {
        lab.topics.put("t", place(key), key, Some("right"));
    }
    // Where murmur2 never puts it.
    let wrong = (place("z") + 1) % 4;
    let end = lab.topics.put("t", wrong, "z", Some("misplaced"));
    lab.create("sure", "t", Scope::Partitioned, KeyPlacement::Murmur2).await;
    lab.create("unsure", "t", Scope::Partitioned, KeyPlacement::Unknown).await;
    for name in ["sure", "unsure"] {
        lab.until(name, &[(0, 0), (1, 0), (2, 0), (3, 0), (wrong, end)]).await;
        for key in ["a", "b", "c", "d", "e"] {
            assert_eq!(lab.get(name, key).as_deref(), Some("right"), "{key}");
        }
    }
    assert_eq!((lab.get("sure", "z"), lab.get("unsure", "z").as_deref()), (None, Some("misplaced")));
    assert_eq!(lab.tables.get("sure", b"a").unwrap().offsets.len(), 1);
    assert_eq!(lab.tables.get("unsure", b"a").unwrap().offsets.len(), 4);
    // A grown topic places keys anew, so the old ones are looked for everywhere.
    lab.topics.grow("t", 5);
    while lab.tables.describe("sure").unwrap().stores.len() < 5 {
        tokio::task::yield_now().await;
    }
    lab.until("sure", &[(4, 0)]).await;
    assert_eq!(lab.get("sure", "a").as_deref(), Some("right"));
    assert_eq!(lab.tables.get("sure", b"a").unwrap().offsets.len(), 5);
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_whole_whatever_changes_between_them() {
    let lab = Lab::start();
    lab.topics.create("t", 3, 1_000_000);
    let key = |i: u32| format!("{i:03}");
    let mut ends = BTreeMap::new();
    for i in 0..100 {
        ends.insert(i % 3, lab.topics.put("t", i % 3, &key(i), Some("v")));
    }
    lab.create("t", "t", Scope::Partitioned, KeyPlacement::Unknown).await;
    let ends: Vec<(u32, i64)> = ends.into_iter().collect();
    lab.until("t", &ends).await;
    let (mut range, mut seen) = (RowRange::default(), Vec::new());
    loop {
        let page = lab.tables.scan("t", &range, 7).unwrap();
        assert!(page.rows.len() <= 7 && page.offsets.len() == 3);
        seen.extend(page.rows.into_iter().map(|row| String::from_utf8(row.key).unwrap()));
        let Some(next) = page.next else { break };
        range = range.behind(&next);
        // Before and at where the next page begins.
        let end = lab.topics.put("t", 0, "000", Some("again"));
        lab.topics.put("t", 1, std::str::from_utf8(&next).unwrap(), None);
        lab.until("t", &[(0, end)]).await;
    }
    assert_eq!(seen, (0..100).map(key).collect::<Vec<_>>());
    let page = lab.tables.scan("t", &RowRange::new(Some(b"010".to_vec()), None, None), 0).unwrap();
    assert_eq!((page.rows.len(), page.next), (0, None));
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_is_another_one() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    let end = lab.topics.put("t", 0, "old", Some("1"));
    lab.create("t", "t", Scope::Global, KeyPlacement::Unknown).await;
    lab.until("t", &[(0, end)]).await;
    lab.topics.delete("t");
    let gone = loop {
        match lab.tables.get("t", b"old") {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(gone, AskError::NoTopic { .. } | AskError::Failed { .. } | AskError::Restoring { .. }),
        "{gone}"
    );
    lab.topics.create("t", 1, 1_000_000);
    let end = lab.topics.put("t", 0, "new", Some("2"));
    // The offset is one of the new topic, whatever is still known of the other one.
    lab.until("t", &[(0, end)]).await;
    assert_eq!((lab.get("t", "old"), lab.get("t", "new").as_deref()), (None, Some("2")));
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_and_tried_again() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    lab.topics.put("t", 0, "a", Some("1"));
    lab.topics.damage("t", 0, true);
    lab.create("t", "t", Scope::Partitioned, KeyPlacement::Unknown).await;
    let reason = loop {
        match lab.tables.get("t", b"a").unwrap_err() {
            AskError::Failed { reason, .. } => break reason,
            AskError::Restoring { .. } | AskError::NoTopic { .. } => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
    };
    assert!(reason.contains("partition 0, offset 0"), "{reason}");
    lab.topics.damage("t", 0, false);
    // Its back-off.
    lab.clock.fetch_add(60_000, Ordering::Relaxed);
    lab.until("t", &[(0, 1)]).await;
    assert_eq!(lab.get("t", "a").as_deref(), Some("1"));
    // Later damage leaves what was read before.
    lab.topics.damage("t", 0, true);
    lab.topics.put("t", 0, "a", Some("2"));
    while lab.tables.describe("t").unwrap().stores[0].failure.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.get("t", "a").as_deref(), Some("1"));
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_is_waited_for_and_not_for_ever() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    lab.create("t", "t", Scope::Partitioned, KeyPlacement::Unknown).await;
    lab.until("t", &[(0, 0)]).await;
    let wait = |offset, ms| {
        let tables = Arc::clone(&lab.tables);
        async move { tables.wait_for("t", &BTreeMap::from([(0, offset)]), Duration::from_millis(ms)).await }
    };
    let waiting = tokio::spawn(wait(2, 20_000));
    for value in ["1", "2", "3"] {
        lab.topics.put("t", 0, "a", Some(value));
    }
    waiting.await.unwrap().unwrap();
    assert_eq!(lab.get("t", "a").as_deref(), Some("3"));
    let behind = wait(3, 30).await.unwrap_err();
    let expect = AskError::Behind { table: "t".into(), partition: 0, offset: 2, wanted: 3 };
    assert_eq!(behind, expect);
    let nowhere = lab.tables.wait_for("t", &BTreeMap::from([(7, 0)]), LIMIT).await.unwrap_err();
    assert!(matches!(nowhere, AskError::NoPartition { partition: 7, .. }), "{nowhere}");
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_wrong() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    let plain = || new("a", "t", Scope::Global, KeyPlacement::Unknown);
    let refused = async |table: NewTable| lab.tables.create(table).await.unwrap_err();
    assert!(matches!(refused(NewTable { name: "../a".into(), ..plain() }).await, CreateError::Name(_)));
    assert!(matches!(refused(NewTable { topic: "x".into(), ..plain() }).await, CreateError::NoTopic(_)));
    let internal = NewTable { topic: "__consumer_offsets".into(), ..plain() };
    assert!(matches!(refused(internal).await, CreateError::Internal(_)));
    assert!(matches!(refused(NewTable { store: StoreKind::Rocksdb, ..plain() }).await, CreateError::NoDisk));
    lab.tables.create(plain()).await.unwrap();
    assert!(matches!(refused(plain()).await, CreateError::Exists(_)));
    for name in ["b", "c"] {
        lab.tables.create(NewTable { name: name.into(), ..plain() }).await.unwrap();
    }
    assert!(matches!(refused(NewTable { name: "d".into(), ..plain() }).await, CreateError::TooMany(3)));
    lab.tables.delete("b").await.unwrap();
    assert!(matches!(lab.tables.delete("b").await.unwrap_err(), DeleteError::Unknown(_)));
    assert!(matches!(lab.tables.get("b", b"a").unwrap_err(), AskError::Unknown(_)));
    lab.tables.create(NewTable { name: "d".into(), ..plain() }).await.unwrap();
    lab.tables.stop().await;
    assert!(matches!(refused(NewTable { name: "e".into(), ..plain() }).await, CreateError::Stopping));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_given_the_rows_and_then_every_change_once() {
    let lab = Lab::start();
    lab.topics.create("t", 2, 1_000_000);
    lab.topics.put("t", 0, "a", Some("1"));
    lab.topics.put("t", 0, "a", Some("2"));
    lab.topics.put("t", 1, "b", Some("3"));
    lab.create("t", "t", Scope::Partitioned, KeyPlacement::Unknown).await;
    lab.until("t", &[(0, 2), (1, 1)]).await;
    let mut following = lab.tables.follow("t", RowRange::default()).unwrap();
    let begun = events(&mut following, |event| *event == FollowEvent::Current).await;
    assert_eq!(begun[0], FollowEvent::Begin { offsets: BTreeMap::from([(0, 1), (1, 0)]) });
    let rows: Vec<&[u8]> = begun
        .iter()
        .filter_map(|event| if let FollowEvent::Row(row) = event { Some(&row.value[..]) } else { None })
        .collect();
    assert_eq!(rows, [b"2", b"3"]);
    // More than one read gives, each change of one key: none may be left out.
    let mut expect = Vec::new();
    for i in 2..40 {
        let value = i.to_string();
        let value = (i % 5 != 0).then_some(value.as_str());
        lab.topics.put("t", 0, "a", value);
        expect.push(change(0, i, "a", value));
    }
    let seen = events(&mut following, |event| *event == *expect.last().unwrap()).await;
    assert_eq!(seen, expect);
    // A part of the table.
    let mut part = lab.tables.follow("t", RowRange::new(None, None, Some(b"b"))).unwrap();
    events(&mut part, |event| *event == FollowEvent::Current).await;
    lab.topics.put("t", 0, "a", Some("not wanted"));
    lab.topics.put("t", 1, "bb", Some("wanted"));
    let seen = events(&mut part, |event| matches!(event, FollowEvent::Change { .. })).await;
    assert_eq!(seen, [change(1, 1, "bb", Some("wanted"))]);
    let third = lab.tables.follow("t", RowRange::default()).err().unwrap();
    assert_eq!(third, AskError::TooManyFollowers(2));
    lab.tables.delete("t").await.unwrap();
    while following.next().await.is_some() {}
    assert!(
        following.ended().contains("deleted") || following.ended().contains("closed"),
        "{}",
        following.ended()
    );
    lab.tables.stop().await;
}

/// The rows and changes that a follower is given make at any moment what a replay of the topic gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_who_comes_at_any_moment_has_the_table() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    lab.create("t", "t", Scope::Global, KeyPlacement::Unknown).await;
    lab.until("t", &[(0, 0)]).await;
    let write = |from: i64, to: i64| {
        for i in from..to {
            let (key, value) = (format!("k{}", i % 17), format!("v{i}"));
            lab.topics.put("t", 0, &key, (i % 11 != 0).then_some(&value));
        }
    };
    for round in 0..10 {
        write(round * 100, round * 100 + 50);
        // Those of the rounds before have been dropped, and end.
        let mut following = loop {
            match lab.tables.follow("t", RowRange::default()) {
                Ok(following) => break following,
                Err(error) => assert_eq!(error, AskError::TooManyFollowers(2)),
            }
            tokio::task::yield_now().await;
        };
        write(round * 100 + 50, round * 100 + 100);
        let end = round * 100 + 100;
        let seen = events(&mut following, |event| {
            matches!(event, FollowEvent::Change { offset, .. } if *offset == end - 1)
                || matches!(event, FollowEvent::Begin { offsets } if offsets[&0] == end - 1)
        })
        .await;
        let (mut rows, mut next) = (BTreeMap::new(), 0);
        for event in seen {
            match event {
                FollowEvent::Begin { offsets } => next = offsets[&0] + 1,
                FollowEvent::Row(row) => drop(rows.insert(row.key, row.value)),
                FollowEvent::Current => assert_eq!(rows, lab.topics.replay("t", 0, next)),
                FollowEvent::Change { offset, key, value, .. } => {
                    assert_eq!(offset, next, "each change once, in order");
                    next += 1;
                    match value {
                        Some(value) => drop(rows.insert(key, value)),
                        None => drop(rows.remove(&key)),
                    }
                }
                other => panic!("{other:?} is of a table that somebody else keeps"),
            }
        }
        if next == end && !rows.is_empty() {
            assert_eq!(rows, lab.topics.replay("t", 0, end));
        }
    }
    lab.tables.stop().await;
}
