//! Revisions that are kept, and going back to them.

use pelton_pipelines::allowed::NotAllowed;
use pelton_pipelines::deployments::history::NoRollback;
use pelton_pipelines::refusal::ReplayError;
use pelton_pipelines::supervisor::{Kept, Purpose, ReplayRequest};
use pelton_streams::manifest::values::Start;

use std::time::Duration;

use super::*;

impl Lab {
    async fn rollback(&self, name: &str, to: Option<u64>) -> Result<Deployed, DeployError> {
        self.supervisor().rollback(name, to, false).await
    }

    fn kept(&self, name: &str) -> Kept {
        self.supervisor().history(name).unwrap()
    }
}

/// The digest of a component, as histories show it.
fn digest(component: &str) -> String {
    digest_of(component.as_bytes()).to_string()
}

/// Components of revisions that can be rolled back to are kept, also when the log is written anew, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_a_new_revision_with_the_old_manifest_and_components() {
    let settings = [("pelton.snapshot.min.bytes", "4096")];
    let lab = Lab::start(&settings).await;
    let component =
        |n: usize| -> &'static str { Box::leak(format!("quick {n}{}", " ".repeat(8_192)).into_boxed_str()) };
    for n in 1..=11 {
        lab.push(component(n)).await.unwrap();
        lab.deploy("p", component(n), &format!("out-{n}")).await.unwrap();
    }
    let lab = lab.restart(&settings).await.unwrap();
    let kept = lab.kept("p");
    let numbers: Vec<u64> = kept.revisions.iter().map(|revision| revision.revision).collect();
    assert_eq!((kept.live, numbers), (11, (2..=11).rev().collect()));
    let changes = kept.revisions[0].changes.clone().unwrap();
    let keys: Vec<&str> = changes.manifest.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(keys, ["sink.out-10", "sink.out-11"]);
    assert_eq!(changes.plugins[0].after.as_deref(), Some(digest(component(11)).as_str()));

    // The oldest of all: its component is there.
    let dry = lab.supervisor().rollback("p", Some(2), true).await.unwrap();
    assert_eq!((dry.revision, dry.rolled_back_to), (None, Some(2)));
    assert_eq!(lab.kept("p"), kept, "a dry run changes nothing");
    let back = lab.rollback("p", Some(2)).await.unwrap();
    assert_eq!((back.revision, back.rolled_back_to), (Some(12), Some(2)));
    assert_eq!(back.plugins["n"], digest(component(2)));
    assert_eq!(back.changes.unwrap().manifest[0].key, "sink.out-11");
    assert_eq!(lab.supervisor().revision("p", 12).unwrap().manifest, manifest("p", "", "out-2").0);
    // To the one before: there and back again.
    let again = lab.rollback("p", None).await.unwrap();
    assert_eq!((again.rolled_back_to, again.plugins["n"].clone()), (Some(11), digest(component(11))));

    let lab = lab.restart(&settings).await.unwrap();
    let described = lab.supervisor().pipeline("p").unwrap();
    assert_eq!((described.revision, described.plugins["n"].clone()), (13, digest(component(11))));
    assert_eq!(lab.kept("p").revisions[0].rolled_back_to, Some(11));
    let gone = lab.rollback("p", Some(2)).await.unwrap_err();
    assert!(
        matches!(&gone, DeployError::NoRollback { why: NoRollback::NotKept { wanted: 2, .. }, .. }),
        "{gone}"
    );
    // Its content is kept as revision 12.
    lab.rollback("p", Some(12)).await.unwrap();
    let names: Vec<String> = lab.supervisor().plugins().into_iter().map(|plugin| plugin.digest).collect();
    assert!(names.contains(&digest(component(2))) && !names.contains(&digest(component(3))), "{names:?}");
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_means_nothing_is_refused_by_name() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    let refused = async |name: &str, to: Option<u64>, words: &str| {
        let error = lab.rollback(name, to).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused("p", None, "no pipeline `p` is deployed").await;
    lab.deploy("p", "quick", "out").await.unwrap();
    refused("p", None, "revision 1 is the only one").await;
    refused("p", Some(1), "revision 1 is live already").await;
    lab.deploy("p", "quick", "other").await.unwrap();
    refused("p", Some(7), "there is no revision 7; kept are 1").await;
    refused("partitioner.t", None, "routes the records of a topic").await;
    // Checked like a deployment: its source has gone.
    let topics = &lab.handle.broker().topics;
    topics.delete(topics.get("in").unwrap().id).await.unwrap();
    refused("p", None, "topic `in` does not exist").await;
    assert_eq!(lab.kept("p").live, 2);
    lab.supervisor().delete("p", false).await.unwrap();
    refused("p", Some(1), "no pipeline `p` is deployed").await;
    assert_eq!(lab.supervisor().history("p"), None);
    lab.handle.shutdown().await.unwrap();
}

/// What goes live between the choice of a revision and its turn is not undone.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_was_overtaken_changes_nothing() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out-1").await.unwrap();
    lab.deploy("p", "quick", "out-2").await.unwrap();
    // Both have chosen when the first of them is under way.
    let both = tokio::join!(lab.rollback("p", None), lab.rollback("p", None));
    let ((Ok(done), Err(overtaken)) | (Err(overtaken), Ok(done))) = both else { panic!("{both:?}") };
    assert_eq!((done.revision, done.rolled_back_to), (Some(3), Some(1)));
    assert!(matches!(overtaken, DeployError::Overtaken { revision: 2, .. }), "{overtaken}");
    assert_eq!(lab.kept("p").live, 3);
    lab.handle.shutdown().await.unwrap();
}

/// Of minisign's documentation: a key, and its signature of `test`.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
    RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
    trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
    wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";

/// The list of now holds for what was deployed before it, and a signature is kept with its component.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_on_the_list_does_not_run() {
    let lab = Lab::start(&[]).await;
    for component in ["test", "other"] {
        lab.push(component).await.unwrap();
    }
    lab.deploy("p", "test", "out").await.unwrap();
    let by_key = [("pelton.plugin.allow.keys", KEY)];
    let lab = lab.restart(&by_key).await.unwrap();
    let failed = |lab: &Lab| {
        let status = lab.supervisor().pipeline("p").unwrap().status;
        assert_eq!(status.state, PipelineState::Failed);
        status.failure.unwrap().reason
    };
    assert!(failed(&lab).contains("it is not signed"), "{}", failed(&lab));
    for refused in [lab.push("other").await.unwrap_err(), lab.deploy("p", "other", "out").await.unwrap_err()]
    {
        assert!(matches!(refused, DeployError::NotAllowed { why: NotAllowed::Unsigned, .. }), "{refused}");
    }
    let signed = |component: &'static str| {
        let supervisor = lab.supervisor().clone();
        async move {
            supervisor
                .push_signed(
                    Bytes::from_static(component.as_bytes()),
                    Some(SIGNATURE.to_owned()),
                    Purpose::Use,
                )
                .await
        }
    };
    let wrong = signed("other").await.unwrap_err();
    assert!(matches!(wrong, DeployError::NotAllowed { why: NotAllowed::WrongSignature, .. }), "{wrong}");
    assert!(!signed("test").await.unwrap().new);
    lab.supervisor().set_paused("p", false).await.unwrap();
    assert_ne!(lab.state("p"), PipelineState::Failed);
    let lab = lab.restart(&by_key).await.unwrap();
    assert_ne!(lab.state("p"), PipelineState::Failed);
    let by_digest = digest("other");
    let lab = lab.restart(&[("pelton.plugin.allow.digests", &by_digest)]).await.unwrap();
    assert!(failed(&lab).contains("its digest is not in"), "{}", failed(&lab));
    lab.deploy("p", "other", "out").await.unwrap();
    let refused = lab.rollback("p", None).await.unwrap_err();
    assert!(matches!(refused, DeployError::NotAllowed { why: NotAllowed::NotListed, .. }), "{refused}");
    lab.handle.shutdown().await.unwrap();
}

/// A client that is gone in the midst of a change must not leave the pipeline halted.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_begun_is_completed_whoever_waits_for_it() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    let wait = async |is_done: &dyn Fn() -> bool| {
        let done = async {
            while !is_done() {
                tokio::task::yield_now().await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(60), done).await;
        done.expect("the change went with who asked for it");
        // Its turn comes when the change is over.
        lab.push("quick").await.unwrap();
    };
    let mut change = Box::pin(lab.deploy("p", "quick", "other"));
    assert!(is_pending(change.as_mut()).await);
    drop(change);
    wait(&|| lab.kept("p").live == 2).await;
    assert!(lab.supervisor().runs("p"));
    let mut change = Box::pin(lab.supervisor().set_paused("p", true));
    assert!(is_pending(change.as_mut()).await);
    drop(change);
    wait(&|| lab.kept("p").paused).await;
    assert_eq!(lab.state("p"), PipelineState::Paused);
    let mut change = Box::pin(lab.rollback("p", None));
    assert!(is_pending(change.as_mut()).await);
    drop(change);
    wait(&|| lab.kept("p").live == 3).await;
    assert!(lab.supervisor().runs("p"));
    let mut change = Box::pin(lab.supervisor().delete("p", false));
    assert!(is_pending(change.as_mut()).await);
    drop(change);
    wait(&|| lab.supervisor().history("p").is_none()).await;
    assert_eq!(lab.supervisor().pipelines().len(), 0);
    assert!(!lab.supervisor().runs("p"));
    lab.handle.shutdown().await.unwrap();
}

fn everything() -> ReplayRequest {
    ReplayRequest { from: Start::Earliest, to: Start::Latest, manifest: None, plugins: BTreeMap::new() }
}

/// The turn and the plugins are of what runs, not of who asked: it ends when that is gone, and until then no other one runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_ends_with_who_asked_for_it_and_one_runs_at_a_time() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    assert!(lab.supervisor().replay("p", everything()).await.unwrap().identical);
    // Its first instance is the one that the check starts; the run waits for the second.
    lab.push("late").await.unwrap();
    let late = BTreeMap::from([("n".to_owned(), digest_of(b"late"))]);
    let supervisor = Arc::clone(lab.supervisor());
    let request = ReplayRequest { plugins: late, ..everything() };
    let first = tokio::spawn(async move { supervisor.replay("p", request).await.map(drop) });
    let factory = Arc::clone(&lab.factory);
    tokio::task::spawn_blocking(move || factory.until_starting(1)).await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let busy = lab.supervisor().replay("p", everything()).await.unwrap_err();
    assert!(matches!(busy, ReplayError::Busy), "{busy}");
    lab.push("other").await.unwrap();
    assert!(lab.factory.loaded().contains(&digest_of(b"late")), "its plugin stays loaded");
    lab.factory.let_go();
    let again = async {
        loop {
            match lab.supervisor().replay("p", everything()).await {
                Err(ReplayError::Busy) => tokio::task::yield_now().await,
                done => break done,
            }
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(60), again).await.expect("the turn never came back");
    assert!(again.unwrap().identical);
    lab.handle.shutdown().await.unwrap();
}

/// A stop does not wait for the range.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_server_ends_a_replay() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    lab.push("late").await.unwrap();
    let late = BTreeMap::from([("n".to_owned(), digest_of(b"late"))]);
    let supervisor = Arc::clone(lab.supervisor());
    let request = ReplayRequest { plugins: late, ..everything() };
    let replay = tokio::spawn(async move { supervisor.replay("p", request).await });
    let factory = Arc::clone(&lab.factory);
    tokio::task::spawn_blocking(move || factory.until_starting(1)).await.unwrap();
    let mut stop = Box::pin(lab.supervisor().stop());
    assert!(is_pending(stop.as_mut()).await);
    lab.factory.let_go();
    stop.await;
    let report = replay.await.unwrap().unwrap();
    assert!(!report.identical);
    assert!(report.after.failure.is_some_and(|why| why.contains("it was stopped")));
    lab.handle.shutdown().await.unwrap();
}

/// What a shadow is of may be taken away, and the server may stop, while it begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_goes_with_its_pipeline_and_with_the_server() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    let (text, plugins) = manifest("p", "quick", "other");
    for from in [None, Some(Start::Earliest)] {
        let about = lab.supervisor().start_shadow(&text, &plugins, from).await.unwrap();
        assert_eq!(about.revision, 1);
        assert!(lab.supervisor().shadow("p").is_some());
    }
    lab.supervisor().delete("p", false).await.unwrap();
    assert_eq!(lab.supervisor().shadow("p"), None);
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    lab.supervisor().start_shadow(&text, &plugins, None).await.unwrap();
    lab.supervisor().stop().await;
    assert_eq!(lab.supervisor().shadow("p"), None);
    let late = lab.supervisor().start_shadow(&text, &plugins, None).await.unwrap_err();
    let ReplayError::Deploy(error) = &late else { panic!("{late}") };
    assert!(matches!(**error, DeployError::Stopping), "{late}");
    assert_eq!(lab.supervisor().shadow("p"), None);
    lab.handle.shutdown().await.unwrap();
}

/// The server keeps copies of what deployed pipelines read: a replay would wait for one without an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_global_table_of_which_there_is_no_copy_is_refused_by_name() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    let overrides = Overrides::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
    let cities = NewTopic { name: "cities".to_owned(), partitions: 1, overrides };
    lab.handle.broker().topics.create(cities, 1).await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    let text = "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[table]]\nid = \"c\"\ntopic = \"cities\"\n\
        scope = \"global\"\n[[node]]\nid = \"j\"\nfrom = \"s\"\njoin = { with = \"c\" }\n[[sink]]\nfrom = \"j\"\ntopic = \"out\"\n";
    let refused = lab.supervisor().start_shadow(text, &BTreeMap::new(), None).await.unwrap_err();
    let ReplayError::NoCopy { table, topic } = &refused else { panic!("{refused}") };
    assert_eq!((table.as_str(), topic.as_str()), ("c", "cities"));
    lab.handle.shutdown().await.unwrap();
}
