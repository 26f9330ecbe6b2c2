//! Pipelines that keep state, over a whole broker.

use std::time::Duration;

use pelton_pipelines::refusal::DefineTableError;
use pelton_pipelines::supervisor::{AskedOffset, StateAskError, StoreFate};
use pelton_streams::operator::scan::Wanted;
use pelton_streams::tables::{KeyPlacement, Scope, StoreKind, TableDefinition, ValueFormat};

use super::*;
use crate::topics::Topic;

mod back;
mod replays;

/// A pipeline that counts the records of each key of `in`.
fn counts(aggregate: &str) -> String {
    format!(
        "name = \"counts\"\ncommit = {{ interval_ms = 5 }}\n[[source]]\nid = \"s\"\ntopic = \"in\"\n\
         [[node]]\nid = \"n\"\nfrom = \"s\"\n{aggregate}\n[[sink]]\nfrom = \"n\"\ntopic = \"out\"\n"
    )
}

const COUNT: &str = "aggregate = \"count\"";

/// Records are of a time long ago, and are to stay.
const KEPT: &[(&str, &str)] = &[("log.retention.ms", "-1")];

impl Lab {
    fn topic(&self, name: &str) -> Arc<Topic> {
        self.handle.broker().topics.get(name).unwrap()
    }

    /// Writes a record for each key.
    async fn write(&self, keys: &[&'static str]) {
        let record = |key: &&'static str| InternalRecord {
            key: Some(Bytes::from_static(key.as_bytes())),
            value: Some(Bytes::from_static(b"x")),
        };
        let records: Vec<InternalRecord> = keys.iter().map(record).collect();
        let appended = self.topic("in").partition(0).unwrap().append_records(&records, 1).unwrap();
        appended.durable().await.unwrap();
    }

    /// What is in the partition of a topic, as key=value.
    fn records(&self, topic: &str) -> Vec<String> {
        let mut records = Vec::new();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"~")).into_owned();
        let each = |met: crate::partition::Replayed<'_>| {
            if let crate::partition::Replayed::Record { key, value, .. } = met {
                records.push(format!("{}={}", text(key), text(value)));
            }
        };
        self.topic(topic).partition(0).unwrap().replay(0, each).unwrap();
        records
    }

    /// Waits until so many records are committed.
    async fn until_committed(&self, offset: i64) {
        let patience = async {
            loop {
                let status = self.supervisor().pipeline("counts").unwrap().status;
                assert_eq!(status.failure, None);
                if status.tasks.iter().any(|task| task.committed == offset) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), patience).await.expect("it is committed");
    }

    async fn deploy_counts(&self, aggregate: &str) -> Result<Deployed, DeployError> {
        self.supervisor().deploy(&counts(aggregate), &BTreeMap::new()).await
    }
}

/// Counts go on through pauses, deployments, restarts and a deletion, and the changelog says what the store holds.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_pipeline_keeps_outlives_everything() {
    let lab = Lab::start(KEPT).await;
    let fates = |deployed: &Deployed| {
        deployed.stores.iter().map(|change| (change.store.clone(), change.fate)).collect::<Vec<_>>()
    };
    let deployed = lab.deploy_counts(COUNT).await.unwrap();
    assert_eq!(fates(&deployed), [("n".to_owned(), StoreFate::New)]);
    lab.write(&["a", "b", "a"]).await;
    lab.until_committed(3).await;
    let changelog = lab.topic("__pelton_counts-n-changelog");
    assert!(changelog.is_internal() && changelog.config.compact);
    lab.supervisor().set_paused("counts", true).await.unwrap();
    lab.write(&["a"]).await;
    lab.supervisor().set_paused("counts", false).await.unwrap();
    lab.until_committed(4).await;
    let deployed = lab.deploy_counts(COUNT).await.unwrap();
    assert_eq!(fates(&deployed), [("n".to_owned(), StoreFate::Kept)]);
    lab.write(&["b"]).await;
    lab.until_committed(5).await;
    let lab = lab.restart(KEPT).await.unwrap();
    lab.write(&["a", "c"]).await;
    lab.until_committed(7).await;
    lab.supervisor().delete("counts", false).await.unwrap();
    lab.write(&["c"]).await;
    let deployed = lab.deploy_counts(COUNT).await.unwrap();
    assert_eq!(fates(&deployed), [("n".to_owned(), StoreFate::Kept)]);
    lab.until_committed(8).await;
    assert_eq!(lab.records("out"), ["a=1", "b=1", "a=2", "a=3", "b=2", "a=4", "c=1", "c=2"]);
    let keys: Vec<String> =
        lab.records("__pelton_counts-n-changelog").iter().map(|one| one[..1].to_owned()).collect();
    assert_eq!(keys.len(), 8 - 1, "a was changed twice in the first transaction: {keys:?}");
    lab.handle.shutdown().await.unwrap();
}

/// What a store has missed while no node had it is never passed over.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_is_refused_if_records_were_read_since() {
    let lab = Lab::start(KEPT).await;
    let without = counts("filter = \"raw = 'x'\"");
    let deploy = |manifest: String| {
        let supervisor = lab.supervisor().clone();
        async move { supervisor.deploy(&manifest, &BTreeMap::new()).await }
    };
    let fate = |deployed: &Deployed| deployed.stores[0].fate;
    lab.deploy_counts(COUNT).await.unwrap();
    lab.write(&["a", "b", "a"]).await;
    lab.until_committed(3).await;
    assert_eq!(fate(&deploy(without.clone()).await.unwrap()), StoreFate::Dropped);
    // Nothing was read meanwhile: it misses nothing.
    let checked = lab.supervisor().check(&counts(COUNT), &BTreeMap::new()).await.unwrap();
    assert_eq!(fate(&checked), StoreFate::Kept);
    assert_eq!(fate(&lab.deploy_counts(COUNT).await.unwrap()), StoreFate::Kept);
    lab.write(&["a"]).await;
    lab.until_committed(4).await;
    deploy(without.clone()).await.unwrap();
    lab.write(&["a", "b"]).await;
    lab.until_committed(6).await;
    let lab = lab.restart(KEPT).await.unwrap();
    let refused = lab.deploy_counts(COUNT).await.unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "store `n` is as revision 3 left it, and has nothing of what was read since: topic in, partition 0: offsets 4 to 5"
        ),
        "{refused}"
    );
    let checked = lab.supervisor().check(&counts(COUNT), &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(checked, DeployError::StoreMissed { .. }), "{checked}");
    // What was deployed before runs on.
    lab.write(&["c"]).await;
    lab.until_committed(7).await;
    // Neither does it come back with the pipeline of that name.
    lab.supervisor().delete("counts", false).await.unwrap();
    assert!(matches!(lab.deploy_counts(COUNT).await, Err(DeployError::StoreMissed { .. })));
    // Without its topics and offsets it begins anew.
    lab.supervisor().delete("counts", true).await.unwrap();
    assert_eq!(fate(&lab.deploy_counts(COUNT).await.unwrap()), StoreFate::New);
    lab.until_committed(7).await;
    let counted = lab.records("out");
    assert_eq!(counted[counted.len() - 3..], ["a=4", "b=2", "c=1"]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_go_on_with_its_state_is_refused() {
    let lab = Lab::start(KEPT).await;
    lab.deploy_counts(COUNT).await.unwrap();
    let changed = lab.deploy_counts("aggregate = { n = \"count\", max = \"max:raw\" }").await.unwrap_err();
    let DeployError::StoreChanged { store, before, now, .. } = &changed else { panic!("{changed}") };
    assert_eq!((store.as_str(), before.as_str()), ("n", "value=count by key, no windows"));
    assert_eq!(now, "max=max:raw n=count by key, no windows");
    // What was there before runs on.
    lab.write(&["a"]).await;
    lab.until_committed(1).await;

    let many = NewTopic { name: "many".to_owned(), partitions: 2, overrides: Overrides::new() };
    lab.handle.broker().topics.create(many, 1).await.unwrap();
    let apart = counts("deduplicate = { by = \"json:k\", within = \"1h\" }");
    let scattered = apart.replace("counts", "scattered").replace("\"in\"", "\"many\"");
    let deployed = lab.supervisor().check(&scattered, &BTreeMap::new()).await.unwrap();
    assert_eq!(deployed.repartitions.len(), 1, "they go through a topic under the field");
    // In one partition they are where the field is.
    let one = apart.replace("counts", "apart").replace("\"out\"", "\"apart-out\"");
    assert_eq!(lab.supervisor().check(&one, &BTreeMap::new()).await.unwrap().repartitions, []);
    // A store of the same changelog: `counts` with `n` against `counts-n`… is another name.
    let twin =
        counts("aggregate = \"count\"").replace("\"counts\"", "\"counts-x\"").replace("\"n\"", "\"y\"");
    lab.supervisor().deploy(&twin, &BTreeMap::new()).await.unwrap();
    let twin = counts("aggregate = \"count\"").replace("\"n\"", "\"x-y\"");
    let refused = lab.supervisor().deploy(&twin, &BTreeMap::new()).await.unwrap_err();
    assert!(
        matches!(&refused, DeployError::ChangelogOfAnother { other, .. } if other == "counts-x"),
        "{refused}"
    );
    lab.handle.shutdown().await.unwrap();
}

/// Answers come from what is committed, and say which offsets they reflect.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_pipeline_keeps_is_asked_for_while_it_runs() {
    const LIMIT: Duration = Duration::from_secs(60);
    let lab = Lab::start(KEPT).await;
    lab.deploy_counts("aggregate = \"count\"\ntable = \"counted\"").await.unwrap();
    let supervisor = lab.supervisor();
    let wait = async |name: &str, offset, patience| {
        let wanted = [AskedOffset { topic: None, partition: None, offset }];
        supervisor.state_wait(name, Some(b"a"), &wanted, patience).await
    };
    let get = |name: &str, key: &str| {
        let found = supervisor.state_get(name, key.as_bytes())?;
        let value = found.row.and_then(|row| row.value).map(|value| String::from_utf8(value).unwrap());
        Ok::<_, StateAskError>((value, found.offsets["in"][&0]))
    };
    lab.write(&["a", "b", "a"]).await;
    for name in ["counts/n", "counted"] {
        wait(name, 2, LIMIT).await.unwrap();
        assert_eq!(get(name, "a").unwrap(), (Some("2".to_owned()), 2));
        assert_eq!(get(name, "x").unwrap(), (None, 2));
    }
    let behind = wait("counts/n", 3, Duration::ZERO).await.unwrap_err();
    assert!(matches!(behind, StateAskError::Behind { offset: 2, wanted: 3, .. }), "{behind}");
    lab.write(&["b", "c"]).await;
    wait("counted", 4, LIMIT).await.unwrap();
    let page = supervisor.state_scan("counted", &Wanted::default(), 2).unwrap();
    let keys: Vec<&[u8]> = page.page.rows.iter().map(|row| &row.key[..]).collect();
    assert_eq!((keys, page.page.next.as_deref()), (vec![&b"a"[..], b"b"], Some(&b"b"[..])));
    let described = supervisor.state_tables();
    assert_eq!((described.len(), described[0].name.as_str(), described[0].state), (1, "counts/n", "live"));
    assert_eq!((described[0].stores[0].keys, described[0].stores[0].partitions[0].offset), (3, 4));

    let no_windows = supervisor.state_windows("counted", b"a", 0..=9, 10).unwrap_err();
    assert_eq!(no_windows.to_string(), "table `counted` has no windows");
    let refused = |result: Result<_, StateAskError>| result.err().unwrap().to_string();
    assert_eq!(refused(get("counts/x", "a")), "no pipeline keeps a table `counts/x`");
    let elsewhere = AskedOffset { topic: Some("out".to_owned()), partition: Some(0), offset: 0 };
    let elsewhere = supervisor.state_wait("counted", None, &[elsewhere], LIMIT).await;
    assert!(matches!(elsewhere, Err(StateAskError::WhichOffset { .. })), "{elsewhere:?}");

    // Nothing else is called so.
    let other = counts("aggregate = \"count\"\ntable = \"counted\"").replace("\"counts\"", "\"other\"");
    let taken = lab.supervisor().deploy(&other, &BTreeMap::new()).await.unwrap_err();
    assert!(matches!(taken, DeployError::TableTaken { .. }), "{taken}");
    let definition = TableDefinition {
        topic: "in".to_owned(),
        scope: Scope::Global,
        partitioner: KeyPlacement::Unknown,
        store: StoreKind::Memory,
        value: ValueFormat::Raw,
        partitions: 1,
        created_at_ms: 1,
    };
    let taken = supervisor.define_table("counted", Some(&definition)).await;
    assert_eq!(taken, Err(DefineTableError::Taken("counts".to_owned())));
    supervisor.define_table("alone", Some(&definition)).await.unwrap();
    let alone = lab.deploy_counts("aggregate = \"count\"\ntable = \"alone\"").await.unwrap_err();
    assert!(alone.to_string().contains("the table of topic `in` has that name"), "{alone}");

    supervisor.set_paused("counts", true).await.unwrap();
    let paused = get("counted", "a").unwrap_err();
    assert!(matches!(paused, StateAskError::NotRunning { state: PipelineState::Paused, .. }), "{paused}");
    supervisor.set_paused("counts", false).await.unwrap();
    wait("counted", 4, LIMIT).await.unwrap();
    assert_eq!(get("counted", "b").unwrap(), (Some("2".to_owned()), 4), "it is restored from its changelog");
    supervisor.delete("counts", false).await.unwrap();
    assert_eq!(refused(get("counted", "a")), "no pipeline keeps a table `counted`");
    lab.handle.shutdown().await.unwrap();
}

/// Records of a group are in several partitions, and go through a topic of the pipeline's own.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_counted_by_what_is_not_their_key() {
    let lab = Lab::start(KEPT).await;
    let topics = &lab.handle.broker().topics;
    let many = NewTopic { name: "many".to_owned(), partitions: 3, overrides: Overrides::new() };
    topics.create(many, 1).await.unwrap();
    let manifest = counts("group_by = \"raw\"\naggregate = \"count\"").replace("\"in\"", "\"many\"");
    let deployed = lab.supervisor().deploy(&manifest, &BTreeMap::new()).await.unwrap();
    let topic = "__pelton_counts-n-repartition";
    let made: Vec<(&str, u32)> =
        deployed.repartitions.iter().map(|made| (made.topic.as_str(), made.partitions)).collect();
    assert_eq!(made, [(topic, 3)]);
    let own = lab.topic(topic);
    assert!(own.is_internal() && own.config.delete && own.config.retention_ms.is_none());
    for partition in 0..3 {
        let record = |value: &'static str| InternalRecord {
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(value.as_bytes())),
        };
        let records: Vec<InternalRecord> = ["x", "y", "x"].into_iter().map(record).collect();
        let many = lab.topic("many");
        many.partition(partition).unwrap().append_records(&records, 1).unwrap().durable().await.unwrap();
    }
    // What came of them has gone through the topic between.
    let wanted =
        [0, 1, 2].map(|partition| AskedOffset { topic: None, partition: Some(partition), offset: 2 });
    lab.supervisor().state_wait("counts/n", None, &wanted, Duration::from_secs(60)).await.unwrap();
    let get = |group: &str| {
        let found = lab.supervisor().state_get("counts/n", group.as_bytes()).unwrap();
        String::from_utf8(found.row.unwrap().value.unwrap()).unwrap()
    };
    assert_eq!((get("x"), get("y")), ("6".to_owned(), "3".to_owned()));
    lab.supervisor().set_paused("counts", true).await.unwrap();
    for partition in &own.local {
        // What was read is deleted, when the pipeline stops at the latest.
        let (start, mut left) = (partition.offsets().log_start, 0);
        let count = |met: crate::partition::Replayed<'_>| {
            left += u32::from(matches!(met, crate::partition::Replayed::Record { .. }));
        };
        partition.replay(start, count).unwrap();
        assert_eq!(left, 0, "partition {}", partition.index());
    }
    lab.handle.shutdown().await.unwrap();
}

/// What a pipeline had of its own goes on request alone, and all of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pipeline_begins_anew_if_its_own_topics_are_deleted() {
    let lab = Lab::start(KEPT).await;
    let changelog = ["__pelton_counts-n-changelog".to_owned()];
    lab.deploy_counts(COUNT).await.unwrap();
    lab.write(&["a", "b", "a"]).await;
    lab.until_committed(3).await;
    let deleted = lab.supervisor().delete("counts", false).await.unwrap();
    assert_eq!((&deleted.kept[..], &deleted.deleted[..]), (&changelog[..], &[][..]));
    let unknown = lab.supervisor().delete("counts", false).await.unwrap_err();
    assert!(matches!(unknown, DeployError::UnknownPipeline(_)), "{unknown}");
    let deleted = lab.supervisor().delete("counts", true).await.unwrap();
    assert_eq!((&deleted.kept[..], &deleted.deleted[..]), (&[][..], &changelog[..]));
    assert!(lab.handle.broker().topics.get(&changelog[0]).is_none());
    let deployed = lab.deploy_counts(COUNT).await.unwrap();
    assert_eq!(deployed.stores[0].fate, StoreFate::New);
    lab.until_committed(3).await;
    assert_eq!(lab.records("out"), ["a=1", "b=1", "a=2", "a=1", "b=1", "a=2"]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_would_be_deleted_are_warned_of() {
    let lab = Lab::start(&[]).await;
    let warnings = |deployed: Deployed| deployed.warnings;
    assert_eq!(warnings(lab.deploy_counts(COUNT).await.unwrap()), [""; 0], "there is nothing to read");
    lab.supervisor().delete("counts", true).await.unwrap();
    // Of 1970.
    lab.write(&["a"]).await;
    let warned = warnings(lab.deploy_counts(COUNT).await.unwrap());
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("1970-01-01") && warned[0].contains("alter out --config retention.ms=-1"),
        "{warned:?}"
    );
    let keep = |overrides: &Overrides| {
        let mut overrides = overrides.clone();
        overrides.insert("retention.ms".to_owned(), "-1".to_owned());
        Ok(overrides)
    };
    lab.handle.broker().topics.configure("out", keep).await.unwrap();
    lab.supervisor().delete("counts", true).await.unwrap();
    assert_eq!(warnings(lab.deploy_counts(COUNT).await.unwrap()), [""; 0]);
    // Rows of a table that go with time.
    let table = counts("filter = \"raw = 'x'\"").replace("counts", "rows").replace("[[source]]", "[[table]]");
    let warned = warnings(lab.supervisor().check(&table, &BTreeMap::new()).await.unwrap());
    assert!(warned[0].contains("alter in --config cleanup.policy=compact"), "{warned:?}");
    let compact = |overrides: &Overrides| {
        let mut overrides = overrides.clone();
        overrides.insert("cleanup.policy".to_owned(), "compact".to_owned());
        Ok(overrides)
    };
    lab.handle.broker().topics.configure("in", compact).await.unwrap();
    assert_eq!(warnings(lab.supervisor().check(&table, &BTreeMap::new()).await.unwrap()), [""; 0]);
    lab.handle.shutdown().await.unwrap();
}

/// A pipeline that joins `in` by its values with a global table.
fn joined(table: &str) -> String {
    format!(
        "name = \"counts\"\ncommit = {{ interval_ms = 5 }}\n[[source]]\nid = \"s\"\ntopic = \"in\"\n\
         [[table]]\nid = \"t\"\n{table}\n[[node]]\nid = \"n\"\nfrom = \"s\"\n\
         join = {{ with = \"t\", by = \"raw\", kind = \"left\", left = \"in\", right = \"row\" }}\n\
         [[sink]]\nfrom = \"n\"\ntopic = \"out\"\n"
    )
}

impl Lab {
    /// Creates a compacted topic with rows, each in a partition: key and value.
    async fn rows(&self, topic: &str, partitions: i32, rows: &[(i32, &'static str, &'static str)]) {
        let compact = Overrides::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let new = NewTopic { name: topic.to_owned(), partitions, overrides: compact };
        self.handle.broker().topics.create(new, 1).await.unwrap();
        self.put(topic, rows).await;
    }

    async fn put(&self, topic: &str, rows: &[(i32, &'static str, &'static str)]) {
        for (partition, key, value) in rows {
            let record = InternalRecord {
                key: Some(Bytes::from_static(key.as_bytes())),
                value: Some(Bytes::from_static(value.as_bytes())),
            };
            let topic = self.topic(topic);
            let appended = topic.partition(*partition).unwrap().append_records(&[record], 1).unwrap();
            appended.durable().await.unwrap();
        }
    }

    /// Waits until the pipeline is so.
    async fn until_state(&self, wanted: PipelineState) -> pelton_pipelines::status::PipelineStatus {
        let patience = async {
            loop {
                let status = self.supervisor().pipeline("counts").unwrap().status;
                if status.state == wanted {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), patience).await.expect("it is so")
    }

    async fn deploy_joined(&self, table: &str) -> Result<Deployed, DeployError> {
        self.supervisor().deploy(&joined(table), &BTreeMap::new()).await
    }
}

/// Records are joined with all that a topic of any partitions has, without topics or stores of the pipeline's own.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_joined_with_a_global_table() {
    const GLOBAL: &str = "topic = \"rows\"\nscope = \"global\"";
    let lab = Lab::start(KEPT).await;
    let refused = lab.deploy_joined(GLOBAL).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "global table `t`: topic `rows` does not exist, so there is nothing to read"
    );
    lab.create_topic("rows").await;
    let refused = lab.deploy_joined(GLOBAL).await.unwrap_err().to_string();
    assert!(refused.contains("topic `rows` is not compacted"), "{refused}");
    lab.handle.broker().topics.delete(lab.topic("rows").id).await.unwrap();
    // `x` is in a partition of its producer's choice.
    lab.rows("rows", 3, &[(2, "x", "1"), (0, "y", "2")]).await;
    lab.write(&["a"]).await;
    let deployed = lab.deploy_joined(GLOBAL).await.unwrap();
    assert_eq!((deployed.stores, deployed.repartitions), (Vec::new(), Vec::new()));
    lab.until_committed(1).await;
    let status = lab.until_state(PipelineState::Running).await;
    let shown: Vec<(&str, i32, bool, i64, i64)> = (status.stores.iter())
        .map(|store| (store.changelog.as_str(), store.partition, store.restoring, store.next, store.end))
        .collect();
    assert_eq!(shown, [("rows", 0, false, 1, 1), ("rows", 1, false, 0, 0), ("rows", 2, false, 1, 1)]);
    // It is kept fresh beside the pipeline, and a restart begins with all that is there.
    lab.put("rows", &[(2, "x", "3")]).await;
    let lab = lab.restart(KEPT).await.unwrap();
    lab.write(&["b"]).await;
    lab.until_committed(2).await;
    assert_eq!(lab.records("out"), ["a={\"in\":\"x\",\"row\":1}", "b={\"in\":\"x\",\"row\":3}"]);

    // Without its topic the pipeline waits, and says for what.
    lab.handle.broker().topics.delete(lab.topic("rows").id).await.unwrap();
    let status = lab.until_state(PipelineState::Retrying).await;
    let failure = status.failure.unwrap();
    assert_eq!(
        (failure.kind, failure.reason.as_str()),
        ("no-topic", "global table `t`: topic rows does not exist; the pipeline goes on when it is created")
    );
    lab.write(&["c"]).await;
    lab.rows("rows", 1, &[(0, "x", "4")]).await;
    lab.until_state(PipelineState::Running).await;
    lab.until_committed(3).await;
    assert_eq!(lab.records("out")[2..], ["c={\"in\":\"x\",\"row\":4}"]);
    lab.handle.shutdown().await.unwrap();
}

/// A table that stands alone is joined by its name, and stays as long as a pipeline reads it.
#[tokio::test(flavor = "multi_thread")]
async fn records_are_joined_with_a_table_that_stands_alone() {
    let lab = Lab::start(KEPT).await;
    let refused = lab.deploy_joined("table = \"alone\"").await.unwrap_err().to_string();
    assert!(refused.starts_with("global table `t`: there is no table `alone`"), "{refused}");
    lab.rows("rows", 2, &[(1, "x", "1")]).await;
    let tables = Arc::clone(lab.handle.broker().tables.0.get().unwrap());
    let new = pelton_tables::NewTable {
        name: "alone".to_owned(),
        topic: "rows".to_owned(),
        scope: Scope::Partitioned,
        partitioner: KeyPlacement::Unknown,
        store: StoreKind::Memory,
        value: ValueFormat::Raw,
    };
    tables.create(new).await.unwrap();
    lab.deploy_joined("table = \"alone\"").await.unwrap();
    lab.write(&["a"]).await;
    lab.until_committed(1).await;
    assert_eq!(lab.records("out"), ["a={\"in\":\"x\",\"row\":1}"]);
    let refused = tables.delete("alone").await.unwrap_err().to_string();
    assert!(refused.contains("pipeline `counts` reads it as a global table"), "{refused}");
    lab.supervisor().delete("counts", true).await.unwrap();
    tables.delete("alone").await.unwrap();
    lab.handle.shutdown().await.unwrap();
}

/// Another `partitioner` of a source may put the records of a key into other partitions than what is kept of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_stays_with_the_keys() {
    let lab = Lab::start(KEPT).await;
    lab.rows("rows", 2, &[]).await;
    let manifest = |rule: &str| {
        joined(&format!("topic = \"rows\"\npartitioner = \"{rule}\""))
            .replace("by = \"raw\", ", "by = \"json:k\", ")
    };
    let deploy = async |rule: &str| lab.supervisor().deploy(&manifest(rule), &BTreeMap::new()).await;
    let deployed = deploy("crc32").await.unwrap();
    assert_eq!(deployed.repartitions.len(), 1, "{deployed:?}");
    let refused = deploy("murmur2").await.unwrap_err();
    let DeployError::StoreMoved { store, before, now } = &refused else { panic!("{refused}") };
    assert_eq!(
        (store.as_str(), before.as_str(), now.as_str()),
        ("n-table", "topic:crc32 and produced:crc32", "topic:murmur2 and produced:murmur2")
    );
    let deployed = deploy("crc32").await.unwrap();
    assert_eq!(deployed.stores[0].fate, StoreFate::Kept);
    lab.handle.shutdown().await.unwrap();
}

/// A topic that grows from one partition goes on with what is kept of it, once the pipeline is started again.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_grows_from_one_partition_is_gone_on_with() {
    let lab = Lab::start(KEPT).await;
    lab.deploy_counts(COUNT).await.unwrap();
    lab.write(&["a"]).await;
    lab.until_committed(1).await;
    lab.handle.broker().topics.grow("in", 3).await.unwrap();
    let failure = lab.until_state(PipelineState::Failed).await.failure.unwrap();
    assert!(failure.reason.contains("`pelton pipeline resume` goes on with that"), "{}", failure.reason);
    lab.supervisor().set_paused("counts", false).await.unwrap();
    let record =
        InternalRecord { key: Some(Bytes::from_static(b"a")), value: Some(Bytes::from_static(b"x")) };
    let appended = lab.topic("in").partition(2).unwrap().append_records(&[record], 1).unwrap();
    appended.durable().await.unwrap();
    let wanted = [AskedOffset { topic: Some("in".to_owned()), partition: Some(2), offset: 0 }];
    lab.supervisor().state_wait("counts/n", None, &wanted, Duration::from_secs(60)).await.unwrap();
    let found = lab.supervisor().state_get("counts/n", b"a").unwrap();
    assert_eq!(found.row.unwrap().value.as_deref(), Some(&b"2"[..]));
    lab.handle.shutdown().await.unwrap();
}

/// What repeats by a field is found in any partition, and what passes has the key that it came with.
#[tokio::test(flavor = "multi_thread")]
async fn what_repeats_by_a_field_is_found_in_any_partition() {
    let lab = Lab::start(KEPT).await;
    let many = NewTopic { name: "many".to_owned(), partitions: 3, overrides: Overrides::new() };
    lab.handle.broker().topics.create(many, 1).await.unwrap();
    let manifest = counts("deduplicate = { by = \"raw\", within = \"1h\" }").replace("\"in\"", "\"many\"");
    let deployed = lab.supervisor().deploy(&manifest, &BTreeMap::new()).await.unwrap();
    assert_eq!(deployed.repartitions[0].topic, "__pelton_counts-n-repartition");
    for partition in 0..3 {
        lab.put("many", &[(partition, "k", "x"), (partition, "l", "y"), (partition, "m", "x")]).await;
    }
    // Behind everything else.
    let last = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for value in last {
        lab.put("many", &[(0, "last", value)]).await;
    }
    let patience = async {
        while lab.records("out").len() < 2 + last.len() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), patience).await.expect("all comes through");
    lab.supervisor().set_paused("counts", true).await.unwrap();
    let mut out = lab.records("out");
    out.retain(|one| !one.starts_with("last="));
    out.sort();
    assert_eq!(out.len(), 2, "{out:?}");
    assert!(["k=x", "m=x"].contains(&out[0].as_str()) && out[1] == "l=y", "{out:?}");
    lab.handle.shutdown().await.unwrap();
}
