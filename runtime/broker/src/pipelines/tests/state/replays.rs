//! Ranges that are run again beside the live pipeline.

use pelton_pipelines::refusal::ReplayError;
use pelton_pipelines::replay::{RunReport, ShownRecord};
use pelton_pipelines::supervisor::{ReplayReport, ReplayRequest};
use pelton_streams::manifest::values::Start;

use super::*;

fn request(manifest: Option<String>) -> ReplayRequest {
    ReplayRequest { from: Start::Earliest, to: Start::Latest, manifest, plugins: BTreeMap::new() }
}

impl Lab {
    async fn replay(&self, request: ReplayRequest) -> Result<ReplayReport, ReplayError> {
        self.supervisor().replay("counts", request).await
    }
}

/// What does not depend on how busy the machine is.
fn timeless(report: ReplayReport) -> ReplayReport {
    let run = |run: RunReport| RunReport { elapsed_ms: 0, ..run };
    ReplayReport { before: run(report.before.clone()), after: run(report.after.clone()), ..report }
}

fn rows(shown: &[ShownRecord]) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "~".to_owned());
    shown.iter().map(|shown| format!("{}={}", text(&shown.key), text(&shown.value))).collect()
}

/// A replay makes what the pipeline has made, each time, and leaves no trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_comes_to_the_same_each_time_and_nothing_is_written() {
    let lab = Lab::start(KEPT).await;
    lab.deploy_counts(COUNT).await.unwrap();
    lab.write(&["a", "b", "a", "c"]).await;
    lab.until_committed(4).await;
    let made = (lab.records("out"), lab.records("__pelton_counts-n-changelog"));
    let first = lab.replay(request(None)).await.unwrap();
    assert!(first.identical && first.difference.topics.is_empty(), "{first:?}");
    assert_eq!((first.before.records_in, first.before.outputs["out"].records), (4, 4));
    assert!(first.before.state_bytes > 0 && first.before.outputs.len() == 1, "{first:?}");
    assert_eq!((first.ranges.len(), first.ranges[0].from, first.ranges[0].to), (1, 0, 4));
    assert!(first.notes[0].contains("begins with nothing"), "{:?}", first.notes);
    let first = timeless(first);
    for _ in 0..3 {
        assert_eq!(timeless(lab.replay(request(None)).await.unwrap()), first);
    }
    // The range may begin and end within a stored batch.
    let part = ReplayRequest { from: Start::Offset(1), to: Start::Offset(3), ..request(None) };
    let part = lab.replay(part).await.unwrap();
    assert_eq!((part.before.records_in, part.after.records_in), (2, 2));
    let nothing = ReplayRequest { from: Start::Latest, ..request(None) };
    assert_eq!(lab.replay(nothing).await.unwrap().before.records_in, 0);
    assert_eq!((lab.records("out"), lab.records("__pelton_counts-n-changelog")), made);
    // The live one goes on as if nothing had been.
    lab.write(&["a"]).await;
    lab.until_committed(5).await;
    assert_eq!(lab.records("out").last().unwrap(), "a=3");
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_manifest_makes_of_it_is_compared() {
    let lab = Lab::start(KEPT).await;
    lab.deploy_counts(COUNT).await.unwrap();
    lab.write(&["a", "b", "a"]).await;
    lab.until_committed(3).await;
    // What the live pipeline keeps is of no concern: another shape of its store would be refused by a deployment.
    let other = counts("aggregate = { n = \"count\" }");
    let report = lab.replay(request(Some(other))).await.unwrap();
    let found = &report.difference.topics["out"];
    assert!(!report.identical);
    assert_eq!((found.only_before, found.only_after, found.reordered.len()), (3, 3, 0));
    assert_eq!(rows(&found.first_only_before), ["a=1", "b=1", "a=2"]);
    assert_eq!(rows(&found.first_only_after), ["a={\"n\":1}", "b={\"n\":1}", "a={\"n\":2}"]);
    // One that leaves a record out differs by that one alone, although all behind it are elsewhere.
    let fewer = counts("filter = \"key != 'b'\"").replace(
        "[[sink]]\nfrom = \"n\"",
        "[[node]]\nid = \"m\"\nfrom = \"n\"\naggregate = \"count\"\n[[sink]]\nfrom = \"m\"",
    );
    let report = lab.replay(request(Some(fewer))).await.unwrap();
    let found = &report.difference.topics["out"];
    assert_eq!((rows(&found.first_only_before), found.only_after), (vec!["b=1".to_owned()], 0));
    // One that cannot pass a record says where, and what it has come to until then.
    let failing = counts("flat_map = \"json:items\"");
    let report = lab.replay(request(Some(failing))).await.unwrap();
    let failure = report.after.failure.unwrap();
    assert!(failure.contains("topic in, partition 0, offset 0"), "{failure}");
    assert!(!report.identical && report.before.failure.is_none());
    lab.handle.shutdown().await.unwrap();
}

/// Topics between the parts of a pipeline are a replay's own.
#[tokio::test(flavor = "multi_thread")]
async fn records_go_through_topics_between_without_them() {
    let lab = Lab::start(KEPT).await;
    let many = NewTopic { name: "many".to_owned(), partitions: 3, overrides: Overrides::new() };
    lab.handle.broker().topics.create(many, 1).await.unwrap();
    let manifest = counts("group_by = \"raw\"\naggregate = \"count\"").replace("\"in\"", "\"many\"");
    lab.supervisor().deploy(&manifest, &BTreeMap::new()).await.unwrap();
    let values = ["x", "y", "z", "x", "y", "x"];
    for (n, value) in values.iter().enumerate() {
        lab.put("many", &[(n as i32 % 3, "k", value)]).await;
    }
    let patience = async {
        while lab.records("out").len() < values.len() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), patience).await.expect("all comes through");
    let report = lab.replay(request(None)).await.unwrap();
    assert!(report.identical, "{report:?}");
    assert_eq!(report.before.outputs["out"].records, values.len() as u64);
    assert_eq!(report.before.outputs.keys().collect::<Vec<_>>(), ["out"]);
    assert_eq!(report.ranges.len(), 3);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_means_nothing_is_refused() {
    let lab = Lab::start(KEPT).await;
    lab.push("quick").await.unwrap();
    let refused = async |name: &str, request: ReplayRequest, words: &str| {
        let error = lab.supervisor().replay(name, request).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused("counts", request(None), "no pipeline `counts` is deployed").await;
    lab.deploy_counts(COUNT).await.unwrap();
    refused(
        "counts",
        request(Some(counts(COUNT).replace("\"counts\"", "\"other\""))),
        "is of pipeline `other`",
    )
    .await;
    let plugins = BTreeMap::from([("n".to_owned(), digest_of(b"quick"))]);
    refused("counts", ReplayRequest { plugins, ..request(None) }, "no node `n` that runs a plugin").await;
    refused("partitioner.x", request(None), "routes the records").await;
    let no_source = counts(COUNT).replace("\"in\"", "\"gone\"");
    refused("counts", request(Some(no_source)), "topic `gone` does not exist").await;
    lab.handle.shutdown().await.unwrap();
}
