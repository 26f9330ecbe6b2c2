//! Pipelines with several lanes, over a whole broker.

use std::time::Duration;

use super::*;
use crate::partition::Replayed;

const PARTITIONS: i32 = 5;
const KEPT: &[(&str, &str)] = &[("log.retention.ms", "-1")];

/// Counts the records of each key, and through a topic of its own those of each value.
fn manifest_of(threads: u32) -> String {
    format!(
        "name = \"counts\"\nthreads = {threads}\ncommit = {{ interval_ms = 2 }}\n\
         [[source]]\nid = \"s\"\ntopic = \"wide\"\n\
         [[node]]\nid = \"n\"\nfrom = \"s\"\naggregate = \"count\"\nstore = \"memory\"\n\
         [[node]]\nid = \"g\"\nfrom = \"s\"\ngroup_by = \"raw\"\naggregate = \"count\"\n\
         [[sink]]\nfrom = \"n\"\ntopic = \"keys\"\n[[sink]]\nfrom = \"g\"\ntopic = \"values\"\n"
    )
}

impl Lab {
    async fn create_wide(&self) {
        let (name, overrides) = ("wide".to_owned(), Overrides::new());
        let new = NewTopic { name, partitions: PARTITIONS, overrides };
        self.handle.broker().topics.create(new, 1).await.unwrap();
    }

    /// A record in each partition.
    async fn feed_wide(&self) {
        let topic = self.handle.broker().topics.get("wide").unwrap();
        for partition in 0..PARTITIONS {
            let (key, value) = (format!("k{partition}"), format!("v{}", partition % 2));
            let record = InternalRecord { key: Some(key.into()), value: Some(value.into()) };
            let appended = topic.partition(partition).unwrap().append_records(&[record], 1).unwrap();
            appended.durable().await.unwrap();
        }
    }

    /// Waits until all that was fed is done, in both parts of the pipeline.
    async fn until_done(&self, rounds: i64) {
        let own = |topic: &str| topic.starts_with("__pelton");
        let patience = async {
            loop {
                let status = self.supervisor().pipeline("counts").unwrap().status;
                assert_eq!(status.failure, None);
                let fed = status.tasks.iter().filter(|task| !own(&task.topic));
                let all = fed.filter(|task| task.committed == rounds).count() == PARTITIONS as usize;
                let counts: u64 = [("v0", 3), ("v1", 2)]
                    .iter()
                    .map(|(value, each)| u64::from(self.count_of("values", value) == rounds * each))
                    .sum();
                if all && counts == 2 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), patience).await.expect("it is done");
    }

    /// What is in a topic of a key, in order.
    fn counts_of(&self, topic: &str, key: &str) -> Vec<String> {
        let topic = self.handle.broker().topics.get(topic).unwrap();
        let mut counts = Vec::new();
        for partition in 0..topic.partition_count {
            let each = |met: Replayed<'_>| {
                if let Replayed::Record { key: Some(found), value: Some(value), .. } = met
                    && found == key.as_bytes()
                {
                    counts.push(String::from_utf8(value.to_vec()).unwrap());
                }
            };
            topic.partition(partition).unwrap().replay(0, each).unwrap();
        }
        counts
    }

    fn count_of(&self, topic: &str, key: &str) -> i64 {
        self.counts_of(topic, key).last().map_or(0, |count| count.parse().unwrap())
    }
}

/// Records are counted once each, whatever lane has them, and from whichever number of lanes to whichever other.
#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_lanes_changes_nothing() {
    let mut lab = Lab::start(KEPT).await;
    lab.create_wide().await;
    let mut rounds = 0;
    for (threads, restart) in [(3, false), (1, false), (4, true), (2, true)] {
        lab.supervisor().deploy(&manifest_of(threads), &BTreeMap::new()).await.unwrap();
        lab.feed_wide().await;
        rounds += 1;
        lab.until_done(rounds).await;
        let status = lab.supervisor().pipeline("counts").unwrap().status;
        let lanes: BTreeMap<u32, PipelineState> =
            status.lanes.iter().map(|lane| (lane.lane, lane.state)).collect();
        let expect = if threads == 1 { 0 } else { threads };
        assert_eq!(lanes, (0..expect).map(|lane| (lane, PipelineState::Running)).collect());
        let used: std::collections::BTreeSet<u32> = status.tasks.iter().map(|task| task.lane).collect();
        assert_eq!(used, (0..threads).collect(), "tasks are spread");
        lab.supervisor().set_paused("counts", true).await.unwrap();
        lab.feed_wide().await;
        rounds += 1;
        if restart {
            lab = lab.restart(KEPT).await.unwrap();
        }
        lab.supervisor().set_paused("counts", false).await.unwrap();
        lab.until_done(rounds).await;
    }
    for partition in 0..PARTITIONS {
        let expect: Vec<String> = (1..=rounds).map(|count| count.to_string()).collect();
        assert_eq!(lab.counts_of("keys", &format!("k{partition}")), expect);
    }
    let table = lab.supervisor().state_get("counts/n", b"k3").unwrap().row.unwrap();
    assert_eq!(table.value, Some(rounds.to_string().into_bytes()));
    lab.handle.shutdown().await.unwrap();
}

/// What is counted of a pipeline goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn counters_outlive_pauses_and_revisions() {
    let lab = Lab::start(KEPT).await;
    lab.create_wide().await;
    let records_in = || lab.supervisor().pipeline("counts").unwrap().status.totals.records_in;
    let mut last = 0;
    for round in 1..=4 {
        lab.supervisor().deploy(&manifest_of(round), &BTreeMap::new()).await.unwrap();
        assert!(records_in() >= last, "a revision begins to count anew");
        lab.feed_wide().await;
        lab.until_done(round.into()).await;
        lab.supervisor().set_paused("counts", true).await.unwrap();
        // Each record is read by both parts.
        last = u64::from(round) * 2 * PARTITIONS as u64;
        assert_eq!(records_in(), last);
    }
    lab.handle.shutdown().await.unwrap();
}

/// Who asks for more threads than there is work for is told.
#[tokio::test(flavor = "multi_thread")]
async fn threads_without_tasks_are_warned_of() {
    let lab = Lab::start(KEPT).await;
    lab.create_wide().await;
    let checked = lab.supervisor().check(&manifest_of(11), &BTreeMap::new()).await.unwrap();
    let [warning] = &checked.warnings[..] else { panic!("{:?}", checked.warnings) };
    assert!(warning.starts_with("threads = 11, but the pipeline has 10 tasks"), "{warning}");
    let checked = lab.supervisor().check(&manifest_of(10), &BTreeMap::new()).await.unwrap();
    assert_eq!(checked.warnings, [""; 0]);
    lab.handle.shutdown().await.unwrap();
}
