//! What is deployed, over a whole broker.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use pelton_streams::Digest;

use self::wire::Wire;
use crate::broker::{Broker, BrokerHandle, Deps, StartError};
use crate::config::Config;
use crate::partition::{InternalRecord, Partition};
use crate::topic_config::Overrides;
use crate::topics::NewTopic;
use pelton_pipelines::compiler::CompileError;
use pelton_pipelines::deployments::TOPIC;
use pelton_pipelines::digest_of;
use pelton_pipelines::refusal::{DeployError, EnsureTopicError};
use pelton_pipelines::slow::SlowFactory;
use pelton_pipelines::status::PipelineState;
use pelton_pipelines::supervisor::{Deployed, Pushed, Supervisor};
use pelton_streams::PluginFactory;

mod following;
mod lanes;
mod life;
mod redrive;
mod state;
mod times;
mod wire;

/// A broker with a topic `in` and a factory of the test's.
struct Lab {
    factory: Arc<SlowFactory>,
    handle: BrokerHandle,
    dir: tempfile::TempDir,
}

impl Lab {
    async fn start(settings: &[(&str, &str)]) -> Lab {
        let lab = Lab::start_in(tempfile::tempdir().unwrap(), settings).await.unwrap();
        lab.create_topic("in").await;
        lab
    }

    async fn start_in(dir: tempfile::TempDir, settings: &[(&str, &str)]) -> Result<Lab, StartError> {
        let path = dir.path().to_str().unwrap();
        let own = [("data.dir", path), ("listen", "127.0.0.1:0"), ("http.listen", "off")];
        let config = Config::from_pairs(own.iter().chain(settings).copied()).unwrap();
        let factory = SlowFactory::new();
        let plugins: Option<Arc<dyn PluginFactory>> = Some(Arc::clone(&factory) as Arc<dyn PluginFactory>);
        let handle = Broker::start(config, Deps { plugins, ..Deps::default() }).await?;
        Ok(Lab { factory, handle, dir })
    }

    async fn restart(self, settings: &[(&str, &str)]) -> Result<Lab, StartError> {
        let Lab { handle, dir, .. } = self;
        handle.shutdown().await.unwrap();
        Lab::start_in(dir, settings).await
    }

    /// The partition of the deployments.
    fn log(&self) -> Arc<Partition> {
        let topic = self.handle.broker().topics.get(TOPIC).unwrap();
        Arc::clone(topic.partition(0).unwrap())
    }

    async fn create_topic(&self, name: &str) {
        let new = NewTopic { name: name.to_owned(), partitions: 1, overrides: Overrides::new() };
        self.handle.broker().topics.create(new, 1).await.unwrap();
    }

    fn supervisor(&self) -> &Arc<Supervisor> {
        self.handle.broker().supervisor().unwrap()
    }

    async fn push(&self, component: &'static str) -> Result<Pushed, DeployError> {
        self.supervisor().push(Bytes::from_static(component.as_bytes())).await
    }

    async fn deploy(&self, name: &str, component: &str, sink: &str) -> Result<Deployed, DeployError> {
        let (text, plugins) = manifest(name, component, sink);
        self.supervisor().deploy(&text, &plugins).await
    }

    fn state(&self, name: &str) -> PipelineState {
        self.supervisor().pipeline(name).unwrap().status.state
    }
}

/// Has a future do what it can do now: whether it waits for something.
async fn is_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

fn manifest(name: &str, component: &str, sink: &str) -> (String, BTreeMap<String, Digest>) {
    let text = format!(
        "name = \"{name}\"\nguarantee = \"at-least-once\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n\
         [[node]]\nid = \"n\"\nfrom = \"s\"\nplugin = \"any\"\n[[sink]]\nfrom = \"n\"\ntopic = \"{sink}\"\n"
    );
    (text, BTreeMap::from([("n".to_owned(), digest_of(component.as_bytes()))]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_compilation_holds_up_nobody_else() {
    let lab = Lab::start(&[("pelton.plugin.compile.wait.ms", "1")]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    let pushing = tokio::spawn({
        let supervisor = Arc::clone(lab.supervisor());
        async move { supervisor.push(Bytes::from_static(b"slow")).await }
    });
    let factory = Arc::clone(&lab.factory);
    tokio::task::spawn_blocking(move || factory.until_compiling(1)).await.unwrap();
    // None of these would come back while the gate is closed, if it waited for the compilation.
    lab.supervisor().set_paused("p", true).await.unwrap();
    assert_eq!(lab.state("p"), PipelineState::Paused);
    lab.supervisor().set_paused("p", false).await.unwrap();
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    lab.deploy("q", "quick", "out").await.unwrap();
    lab.supervisor().delete("q", false).await.unwrap();
    let busy = lab.push("slow as well").await.unwrap_err();
    assert!(matches!(busy, DeployError::Compile(CompileError::Busy { .. })), "{busy}");
    assert_eq!(lab.supervisor().plugins().len(), 1);
    lab.factory.let_go();
    assert!(pushing.await.unwrap().unwrap().new);
    // What other changes did meanwhile has not unloaded it.
    lab.deploy("r", "slow", "out").await.unwrap();
    lab.handle.shutdown().await.unwrap();
}

/// Who deploys is told whether it runs; nobody has to guess.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_says_whether_the_pipeline_runs() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    let (text, plugins) = manifest("p", "quick", "out");
    assert_eq!(lab.supervisor().check(&text, &plugins).await.unwrap().state, None);
    lab.push("late").await.unwrap();
    // Its driver waits for an instance.
    let deployed = lab.deploy("p", "late", "out").await.unwrap();
    assert_eq!(deployed.state, Some(PipelineState::Starting));
    lab.factory.let_go();
    let mut state = deployed.state;
    while state == Some(PipelineState::Starting) {
        state = lab.supervisor().set_paused("p", false).await.unwrap();
    }
    assert_eq!(state, Some(PipelineState::Running));
    assert_eq!(lab.state("p"), PipelineState::Running);
    assert_eq!(lab.supervisor().set_paused("p", true).await.unwrap(), Some(PipelineState::Paused));
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_created_is_refused_with_the_reason() {
    let lab = Lab::start(&[("pelton.max.partitions", "60")]).await;
    lab.create_topic("a.b").await;
    lab.push("quick").await.unwrap();
    let refused = async |sink: &str, reason: &str| {
        let (text, plugins) = manifest("p", "quick", sink);
        let dry = lab.supervisor().check(&text, &plugins).await.unwrap_err();
        for error in [dry, lab.deploy("p", "quick", sink).await.unwrap_err()] {
            let DeployError::OutputTopic { topic, error: EnsureTopicError::Refused(why) } = &error else {
                panic!("{error}")
            };
            assert!(topic == sink && why.contains(reason), "{error}");
        }
    };
    refused("a_b", "`a.b`").await;
    let topics = &lab.handle.broker().topics;
    let partitions = i32::try_from(60 - topics.partition_count()).unwrap();
    let rest = NewTopic { name: "rest".to_owned(), partitions, overrides: Overrides::new() };
    topics.create(rest, 1).await.unwrap();
    refused("one.too.many", "pelton.max.partitions").await;
    assert!(lab.supervisor().pipelines().is_empty());
    lab.deploy("p", "quick", "a.b").await.unwrap();
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_of_a_pipeline_is_in_use_while_it_runs() {
    use pelton_wire::ErrorCode;
    let lab = Lab::start(&[("offsets.topic.num.partitions", "2")]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    let mut client = Wire::connect(&lab).await;
    let none = ErrorCode::NONE;
    let in_use = [
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::UNKNOWN_MEMBER_ID,
        ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC,
        ErrorCode::NON_EMPTY_GROUP,
    ];
    // What the transaction's coordinator says of a producer that nobody knows.
    let free = [none, ErrorCode::INVALID_PRODUCER_ID_MAPPING, none, none];
    assert_eq!(client.changes("pelton.p").await, in_use);
    assert_eq!(client.changes("pelton.other").await, free);
    lab.supervisor().set_paused("p", true).await.unwrap();
    assert_eq!(client.changes("pelton.p").await, free);
    lab.supervisor().set_paused("p", false).await.unwrap();
    assert_eq!(client.changes("pelton.p").await, in_use);
    lab.supervisor().delete("p", false).await.unwrap();
    assert_eq!(client.changes("pelton.p").await, free);
    let groups = ["pelton.p", "pelton.other", "pelton.", "pelton", "peltonx"];
    let mut joined = Vec::new();
    for group in groups {
        joined.push(client.join(group).await);
    }
    let (refused, taken) = (ErrorCode::INVALID_GROUP_ID, ErrorCode::MEMBER_ID_REQUIRED);
    assert_eq!(joined, [refused, refused, refused, taken, taken]);
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waited_for_is_unloaded() {
    let lab = Lab::start(&[("pelton.plugin.compile.timeout.ms", "1")]).await;
    let late = lab.push("slow").await.unwrap_err();
    assert!(matches!(late, DeployError::Compile(CompileError::TimedOut { timeout_ms: 1 })), "{late}");
    let factory = Arc::clone(&lab.factory);
    let end = move || {
        factory.until_compiling(1);
        factory.let_go();
        factory.until_compiling(0);
    };
    tokio::task::spawn_blocking(end).await.unwrap();
    assert_eq!(lab.factory.loaded(), [digest_of(b"slow")]);
    let unknown = lab.deploy("p", "slow", "out").await.unwrap_err();
    assert!(
        matches!(unknown, DeployError::UnknownPlugin { .. }),
        "a push that was refused stored it: {unknown}"
    );
    // Asked for again, it is there; the next push takes its place.
    lab.push("slow").await.unwrap();
    drop(lab.push("slow other").await);
    assert!(!lab.factory.loaded().contains(&digest_of(b"slow")));
    lab.handle.shutdown().await.unwrap();
}

/// Thirty components of which the newest ten can be rolled back to, in a log that is written anew early.
#[tokio::test(flavor = "multi_thread")]
async fn the_deployments_stay_as_small_as_what_they_say() {
    const SIZE: usize = 1 << 20;
    let settings = [("pelton.snapshot.min.bytes", "4096")];
    let mut lab = Lab::start(&settings).await;
    let component =
        |n: usize| -> &'static str { Box::leak(format!("quick {n}{}", " ".repeat(SIZE)).into_boxed_str()) };
    let mut largest = 0;
    for n in 0..30 {
        lab.push(component(n)).await.unwrap();
        lab.deploy("p", component(n), "out").await.unwrap();
        largest = largest.max(lab.log().reader().size_bytes());
        if n % 10 == 0 {
            lab = lab.restart(&settings).await.unwrap();
        }
    }
    assert_eq!(lab.supervisor().plugins().len(), 10);
    // Twice ten components, one more, and what a segment file keeps.
    let bound = 21 * SIZE as u64 + (16 << 20) + (1 << 20);
    assert!(largest <= bound, "{largest} bytes, more than {bound}");
    let start = lab.log().log_start_offset();
    assert!(start > 0, "nothing was let go");
    lab.supervisor().set_paused("p", true).await.unwrap();
    let described = lab.supervisor().pipeline("p").unwrap();
    let lab = lab.restart(&settings).await.unwrap();
    let after = lab.supervisor().pipeline("p").unwrap();
    assert_eq!((after.revision, after.plugins), (30, described.plugins));
    assert_eq!(lab.state("p"), PipelineState::Paused);
    lab.supervisor().set_paused("p", false).await.unwrap();
    lab.deploy("p", component(25), "out").await.unwrap();
    let unknown = lab.deploy("p", component(5), "out").await.unwrap_err();
    assert!(matches!(unknown, DeployError::UnknownPlugin { .. }), "{unknown}");
    lab.push(component(5)).await.unwrap();
    lab.deploy("p", component(5), "out").await.unwrap();
    lab.handle.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_cannot_be_read_stops_the_start_and_says_what_to_do() {
    let lab = Lab::start(&[]).await;
    lab.push("quick").await.unwrap();
    lab.deploy("p", "quick", "out").await.unwrap();
    let record = InternalRecord { key: Some("pipeline/q".into()), value: Some("{\"revision\":".into()) };
    lab.log().append_records(&[record], 1).unwrap().durable().await.unwrap();
    let Lab { handle, dir, .. } = lab;
    handle.shutdown().await.unwrap();
    let path = dir.path().to_str().unwrap();
    // Twice: a start that fails leaves the directory to the next one.
    for _ in 0..2 {
        let pairs = [("data.dir", path), ("listen", "127.0.0.1:0"), ("http.listen", "off")];
        let plugins: Option<Arc<dyn PluginFactory>> = Some(SlowFactory::new());
        let config = Config::from_pairs(pairs).unwrap();
        let error =
            Broker::start(config, Deps { plugins, ..Deps::default() }).await.err().unwrap().to_string();
        assert!(error.contains("`pipeline/q` of __pelton_deployments"), "{error}");
        assert!(error.contains("restore the directory"), "{error}");
    }
}
