//! Following what a pipeline keeps, over a whole broker.

use std::time::Duration;

use pelton_streams::state_tables::StateRow;
use pelton_streams::tables::RowRange;
use pelton_tables::{FollowEvent, Following};

use super::*;
use crate::tables::PipelineTable;

const LIMIT: Duration = Duration::from_secs(30);
const KEPT: &[(&str, &str)] = &[("log.retention.ms", "-1")];
const WINDOWS: &str = "window = { tumbling = \"10ms\", retention = \"1h\" }";

fn manifest_of(threads: u32, window: &str) -> String {
    format!(
        "name = \"counts\"\nthreads = {threads}\ncommit = {{ interval_ms = 2 }}\n\
         [[source]]\nid = \"s\"\ntopic = \"wide\"\npartitioner = \"murmur2\"\n\
         [[node]]\nid = \"n\"\nfrom = \"s\"\naggregate = \"count\"\n{window}\n\
         [[sink]]\nfrom = \"n\"\ntopic = \"keys\"\n"
    )
}

impl Lab {
    async fn counts(threads: u32, window: &str) -> Lab {
        let lab = Lab::start(KEPT).await;
        let new = NewTopic { name: "wide".to_owned(), partitions: 3, overrides: Overrides::new() };
        lab.handle.broker().topics.create(new, 1).await.unwrap();
        lab.supervisor().deploy(&manifest_of(threads, window), &BTreeMap::new()).await.unwrap();
        lab
    }

    /// Records of these keys, at these times, each in the partition of its first byte.
    async fn put_wide(&self, records: &[(String, i64)]) {
        let topic = self.handle.broker().topics.get("wide").unwrap();
        for (key, at) in records {
            let partition = i32::from(key.as_bytes()[0] % 3);
            let value = Some(Bytes::from_static(b"x"));
            let record = InternalRecord { key: Some(key.clone().into()), value };
            let appended = topic.partition(partition).unwrap().append_records(&[record], *at).unwrap();
            appended.durable().await.unwrap();
        }
    }

    async fn follow_counts(&self, keys: RowRange) -> Following {
        let supervisor = Arc::clone(self.supervisor());
        let tables = Arc::clone(self.handle.broker().followed_tables());
        // It is there once its stores are open.
        let started = tokio::time::Instant::now();
        loop {
            let (supervisor, keys) = (Arc::clone(&supervisor), keys.clone());
            let kept = tokio::task::spawn_blocking(move || supervisor.state_follow("counts/n", keys));
            match kept.await.unwrap() {
                Ok(kept) => return tables.follow_kept("counts/n", Box::new(PipelineTable(kept))).unwrap(),
                Err(error) => assert!(started.elapsed() < LIMIT, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn until_counted(&self, records: i64) {
        let patience = async {
            loop {
                let status = self.supervisor().pipeline("counts").unwrap().status;
                if status.tasks.iter().map(|task| task.committed).sum::<i64>() == records {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LIMIT, patience).await.expect("they are counted");
    }
}

/// The events up to one that is wanted.
async fn until(following: &mut Following, is_last: impl Fn(&FollowEvent) -> bool) -> Vec<FollowEvent> {
    let mut events = Vec::new();
    while !events.last().is_some_and(&is_last) {
        let frame = tokio::time::timeout(LIMIT, following.next()).await.expect("it comes");
        events.extend(frame.unwrap_or_else(|| panic!("it ended: {}, after {events:?}", following.ended())));
    }
    events
}

fn shown(row: &StateRow) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let value = row.value.as_deref().map_or("gone".to_owned(), text);
    let window = row.window.map_or(String::new(), |window| format!("@{}", window.start));
    format!("{}{window}={value}", text(&row.key))
}

fn record(key: &str) -> (String, i64) {
    (key.to_owned(), 1)
}

/// The current value of each key, then every change of it in order, whatever becomes of the pipeline meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_every_change_through_pauses_and_revisions() {
    let lab = Lab::counts(3, "").await;
    lab.put_wide(&["a", "b", "c", "a"].map(record)).await;
    lab.until_counted(4).await;
    let mut following = lab.follow_counts(RowRange::default()).await;
    let mut events = until(&mut following, |event| *event == FollowEvent::Current).await;
    let FollowEvent::KeptBegin { offsets, changelog, at } = events.remove(0) else { panic!("{events:?}") };
    assert_eq!(changelog, "__pelton_counts-n-changelog");
    assert_eq!(offsets["wide"].values().map(|last| last + 1).sum::<i64>(), 4);
    assert!(at.len() == 3 && at.values().all(|last| *last >= 0), "{at:?}");
    let mut rows = Vec::new();
    for event in &events {
        if let FollowEvent::KeptRow(row) = event {
            rows.push(shown(row));
        }
    }
    rows.sort();
    assert_eq!(rows, ["a=2", "b=1", "c=1"]);
    let mut expect = Vec::new();
    for round in 3..7 {
        lab.put_wide(&[record("a")]).await;
        lab.supervisor().set_paused("counts", true).await.unwrap();
        lab.put_wide(&[record("a")]).await;
        lab.supervisor().deploy(&manifest_of(round, ""), &BTreeMap::new()).await.unwrap();
        expect.extend([2 * round - 3, 2 * round - 2].map(|count| format!("a={count}")));
    }
    let last = expect.last().cloned().unwrap();
    let is_last =
        |event: &FollowEvent| matches!(event, FollowEvent::KeptChange { row, .. } if shown(row) == last);
    let events = until(&mut following, is_last).await;
    let mut places = Vec::new();
    let mut changes = Vec::new();
    for event in events {
        let FollowEvent::KeptChange { partition, offset, row } = event else { panic!("{event:?}") };
        places.push((partition, offset));
        changes.push(shown(&row));
    }
    // Two records of one commit are one change.
    let mut all = expect.iter();
    assert!(changes.iter().all(|change| all.any(|expect| expect == change)), "{changes:?} of {expect:?}");
    assert!(places.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 < pair[1].1), "{places:?}");
    lab.handle.shutdown().await.unwrap();
    // The server waits for nobody who follows.
    assert!(tokio::time::timeout(LIMIT, following.next()).await.unwrap().is_none());
}

/// Windows are rows, and one that is forgotten is told of.
#[tokio::test(flavor = "multi_thread")]
async fn windows_are_followed_by_their_keys() {
    let lab = Lab::counts(2, WINDOWS).await;
    lab.put_wide(&[("a".to_owned(), 5), ("a".to_owned(), 15), ("d".to_owned(), 7)]).await;
    lab.until_counted(3).await;
    let keys = RowRange::new(None, None, Some(b"a"));
    let mut following = lab.follow_counts(keys).await;
    let events = until(&mut following, |event| *event == FollowEvent::Current).await;
    let rows: Vec<String> = events
        .iter()
        .filter_map(|event| if let FollowEvent::KeptRow(row) = event { Some(shown(row)) } else { None })
        .collect();
    assert_eq!(rows, ["a@0=1", "a@10=1"]);
    // Two hours later the windows before are forgotten.
    let later = 2 * 3_600_000;
    lab.put_wide(&[("a".to_owned(), 16), ("d".to_owned(), 17), ("a".to_owned(), later)]).await;
    lab.until_counted(6).await;
    // A step forgets what the one before has closed.
    lab.put_wide(&[("d".to_owned(), later)]).await;
    let mut changes = Vec::new();
    while changes.len() < 4 {
        for event in until(&mut following, |_| true).await {
            let FollowEvent::KeptChange { row, .. } = event else { panic!("{event:?}") };
            changes.push(shown(&row));
        }
    }
    assert_eq!(changes[0], "a@10=2");
    changes.sort();
    assert_eq!(
        changes,
        ["a@0=gone".to_owned(), "a@10=2".to_owned(), "a@10=gone".to_owned(), format!("a@{later}=1")]
    );
    lab.handle.shutdown().await.unwrap();
}

/// Sessions of a key are one entry: single changes of them cannot be told.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_not_followed() {
    let lab = Lab::counts(1, "window = { session = \"1s\" }").await;
    let refused = lab.supervisor().state_follow("counts/n", RowRange::default()).err().unwrap();
    assert!(refused.to_string().contains("read their topic"), "{refused}");
    lab.handle.shutdown().await.unwrap();
}

/// A reader that takes nothing while it is sent the rows holds up nobody who stops the pipeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_follower_holds_up_no_pause() {
    let lab = Lab::counts(2, "").await;
    let records: Vec<(String, i64)> = (0..6_000).map(|n| record(&format!("{:0100}", n))).collect();
    let topic = lab.handle.broker().topics.get("wide").unwrap();
    let records = records.iter().map(|(key, _)| InternalRecord {
        key: Some(key.clone().into()),
        value: Some(Bytes::from_static(b"x")),
    });
    let records: Vec<InternalRecord> = records.collect();
    topic.partition(0).unwrap().append_records(&records, 1).unwrap().durable().await.unwrap();
    lab.until_counted(6_000).await;
    let mut following = lab.follow_counts(RowRange::default()).await;
    let first = tokio::time::timeout(LIMIT, following.next()).await.unwrap().unwrap();
    assert!(matches!(first[0], FollowEvent::KeptBegin { .. }), "{:?}", first[0]);
    let paused = lab.supervisor().set_paused("counts", true);
    tokio::time::timeout(Duration::from_secs(8), paused).await.expect("it is held up").unwrap();
    let mut rest = 0;
    while let Some(frame) = tokio::time::timeout(LIMIT, following.next()).await.unwrap() {
        rest += frame.len();
    }
    assert!(rest < 6_000 && following.ended().contains("follow it again"), "{rest}, {}", following.ended());
    lab.handle.shutdown().await.unwrap();
}
