//! Copies of topics for who reads them in place.

use std::collections::BTreeSet;

use pelton_streams::manifest::operator::GlobalOf;

use super::*;
use crate::copy::{Copy, CopyError, CopyPart};

impl Lab {
    async fn keep(&self, topics: &[&str]) {
        self.tables.keep_copies(topics.iter().map(|topic| (*topic).to_owned()).collect()).await;
    }
}

fn topic(name: &str) -> GlobalOf {
    GlobalOf::Topic(name.to_owned())
}

/// Waits until the copy has what was there when it was opened.
async fn ready(copy: &mut Copy) -> Vec<CopyPart> {
    let ready = async {
        loop {
            if let (parts, true) = copy.progress().unwrap() {
                return parts;
            }
            copy.moved().await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("it is read")
}

/// Loads keys, and gives what they have.
fn load(copy: &mut Copy, keys: &[&str]) -> Vec<Option<String>> {
    copy.load(&mut keys.iter().map(|key| key.as_bytes())).unwrap();
    let get = |key: &&str| copy.get(key.as_bytes()).unwrap().map(|value| value.escape_ascii().to_string());
    keys.iter().map(get).collect()
}

fn is(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| (*value != "~").then(|| (*value).to_owned())).collect()
}

/// Waits until a copy has read up to an offset.
async fn until_read(copy: &mut Copy, partition: u32, offset: i64) {
    let wait = async {
        loop {
            load(copy, &[]);
            if copy.offsets()[&partition] >= offset {
                return;
            }
            copy.moved().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("it is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_ready_when_it_has_what_was_there() {
    let lab = Lab::start();
    lab.topics.create("t", 2, 1_000_000);
    // It is opened again and again before it is read.
    for key in 0..200 {
        lab.topics.put("t", key % 2, &format!("k{key}"), Some("v"));
    }
    assert!(matches!(lab.tables.open_copy(&topic("t")), Err(CopyError::NotKept(_))));
    lab.topics.damage("t", 1, true);
    lab.keep(&["t"]).await;
    let mut copy = lab.tables.open_copy(&topic("t")).unwrap();
    // A partition that cannot be read holds it up, and its store says why in the end.
    let failed = async {
        loop {
            match copy.progress() {
                Ok((_, ready)) => assert!(!ready, "half of it is there"),
                Err(CopyError::Ask(AskError::Failed { .. })) => return,
                Err(error) => panic!("{error}"),
            }
            copy.moved().await;
        }
    };
    tokio::time::timeout(LIMIT, failed).await.expect("it is said");
    lab.topics.damage("t", 1, false);
    lab.clock.fetch_add(600_000, Ordering::Relaxed);
    let all = async {
        loop {
            if let Ok((parts, true)) = copy.progress() {
                return parts;
            }
            tokio::task::yield_now().await;
        }
    };
    let parts = tokio::time::timeout(LIMIT, all).await.expect("it is read");
    let part = |partition| CopyPart { partition, next: 100, target: 100 };
    assert_eq!(parts, [part(0), part(1)]);
    assert_eq!(load(&mut copy, &["k0", "k199", "k200"]), is(&["v", "v", "~"]));
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_loaded_together_are_of_one_moment() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    lab.topics.put("t", 0, "a", Some("1"));
    lab.topics.put("t", 0, "b", Some("1"));
    lab.keep(&["t"]).await;
    let mut copy = lab.tables.open_copy(&topic("t")).unwrap();
    ready(&mut copy).await;
    assert_eq!(load(&mut copy, &["a", "b", "c"]), is(&["1", "1", "~"]));
    lab.topics.put("t", 0, "a", Some("2"));
    lab.topics.put("t", 0, "c", Some("2"));
    lab.topics.put("t", 0, "b", None);
    // What was loaded is of the moment at which it was.
    assert_eq!(copy.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    until_read(&mut copy, 0, 4).await;
    assert_eq!(load(&mut copy, &["a", "b", "c"]), is(&["2", "~", "2"]));
    assert_eq!(copy.offsets(), &BTreeMap::from([(0, 4)]));
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_topic_shares_a_copy_or_a_table() {
    let lab = Lab::start();
    lab.topics.create("t", 2, 1_000_000);
    lab.topics.put("t", 0, "a", Some("1"));
    lab.topics.put("t", 1, "b", Some("1"));
    // A table of all partitions stands for the copy; one of each partition is read by its name alone.
    lab.create("alone", "t", Scope::Global, KeyPlacement::Unknown).await;
    lab.create("parted", "t", Scope::Partitioned, KeyPlacement::Unknown).await;
    lab.keep(&["t"]).await;
    let mut first = lab.tables.open_copy(&topic("t")).unwrap();
    let mut named = lab.tables.open_copy(&GlobalOf::Table("parted".to_owned())).unwrap();
    for copy in [&mut first, &mut named] {
        ready(copy).await;
        assert_eq!(load(copy, &["a", "b"]), is(&["1", "1"]));
    }
    let unknown = lab.tables.open_copy(&GlobalOf::Table("t".to_owned()));
    assert!(matches!(unknown, Err(CopyError::NoTable(_))));
    // When it goes, a copy takes its place.
    lab.tables.delete("alone").await.unwrap();
    assert!(matches!(first.check(), Err(CopyError::Ask(AskError::Ended { .. }))));
    let mut second = lab.tables.open_copy(&topic("t")).unwrap();
    ready(&mut second).await;
    assert_eq!(load(&mut second, &["a", "b"]), is(&["1", "1"]));
    lab.keep(&[]).await;
    assert!(matches!(second.check(), Err(CopyError::Ask(AskError::Ended { .. }))));
    assert!(matches!(lab.tables.open_copy(&topic("t")), Err(CopyError::NotKept(_))));
    assert_eq!(lab.tables.list().len(), 1, "copies are none of the tables that people made");
    lab.tables.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_is_said() {
    let lab = Lab::start();
    lab.topics.create("t", 1, 1_000_000);
    lab.topics.put("t", 0, "a", Some("1"));
    lab.keep(&["t", "later"]).await;
    assert!(matches!(lab.tables.open_copy(&topic("later")), Err(CopyError::NoTopic(_))));
    let mut copy = lab.tables.open_copy(&topic("t")).unwrap();
    ready(&mut copy).await;
    lab.topics.delete("t");
    assert!(matches!(copy.check(), Err(CopyError::NoTopic(_))));
    lab.topics.create("t", 1, 1_000_000);
    lab.topics.put("t", 0, "b", Some("2"));
    assert!(matches!(copy.check(), Err(CopyError::Renewed(_))));
    let mut copy = lab.tables.open_copy(&topic("t")).unwrap();
    ready(&mut copy).await;
    assert_eq!(load(&mut copy, &["a", "b"]), is(&["~", "2"]));
    let refused = |name: &str| lab.tables.check_copy(&topic(name)).err().map(|error| error.to_string());
    assert_eq!(refused("t"), None);
    assert!(refused("nothing").is_some_and(|text| text.contains("does not exist")));
    let none: BTreeSet<String> = BTreeSet::new();
    lab.tables.keep_copies(none).await;
    lab.tables.stop().await;
}
