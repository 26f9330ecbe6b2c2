//! Plugins that act on the outside: what is committed of what they have done, whatever goes wrong.

use std::sync::atomic::AtomicI64;

use parking_lot::Condvar;
use pelton_streams::InstanceSpec;
use pelton_streams::http::{
    HttpClient, HttpError, HttpRequest, HttpResponse, HttpSpec, Network, NetworkError,
};
use pelton_streams::plugin::{CallOrder, ConsumerPlugin, Unfinished};
use pelton_streams::{Digest, InstantiateError, LoadError, Plugin, PluginError, PluginInfo};

use super::*;

/// What all instances know.
#[derive(Default)]
struct Outside {
    stop: Arc<StopSignal>,
    /// The values that were given, in order.
    given: Mutex<Vec<String>>,
    cancelled: Mutex<bool>,
    told: Condvar,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Does what values say.
struct Consumer(Arc<Outside>);

impl ConsumerPlugin for Consumer {
    fn consume(&mut self, batch: &BatchIn<'_>, _: CallOrder) -> Result<Vec<Unfinished>, PluginError> {
        let mut unfinished = Vec::new();
        for (index, record) in (0..).zip(batch.records()) {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let before = {
                let mut given = self.0.given.lock();
                given.push(value.clone());
                given.iter().filter(|other| **other == value).count() - 1
            };
            let again = match &*value {
                "never" => None,
                "again" => Some(0),
                // The last attempt is under way when the driver is told to stop, and is cut off.
                "again, cut off" if before > 0 => {
                    self.0.stop.set();
                    self.0.told.wait_while(&mut self.0.cancelled.lock(), |cancelled| !*cancelled);
                    Some(0)
                }
                "again, cut off" => Some(0),
                _ => continue,
            };
            unfinished.push(Unfinished { index, reason: value, again });
        }
        Ok(unfinished)
    }
}

impl HttpClient for Outside {
    fn send(&self, _: Vec<HttpRequest>, _: std::time::Duration) -> Vec<Result<HttpResponse, HttpError>> {
        unreachable!("it sends nothing")
    }

    fn cancel(&self) {
        *self.cancelled.lock() = true;
        self.told.notify_all();
    }

    fn redact(&self, text: &str) -> String {
        text.to_owned()
    }
}

/// Makes consumers.
#[derive(Debug)]
struct Consumers(Arc<Outside>);

impl Network for Consumers {
    fn client(&self, _: &HttpSpec) -> Result<Arc<dyn HttpClient>, NetworkError> {
        Ok(Arc::clone(&self.0) as Arc<dyn HttpClient>)
    }
}

impl PluginFactory for Consumers {
    fn load(&self, _: &Digest, _: &[u8]) -> Result<PluginInfo, LoadError> {
        unreachable!("the tests link their topologies themselves")
    }

    fn instantiate(&self, _: &Digest, _: &InstanceSpec) -> Result<Box<dyn Plugin>, InstantiateError> {
        unreachable!("there are no transforms")
    }

    fn instantiate_consumer(
        &self,
        _: &Digest,
        _: &InstanceSpec,
        _: Option<&Arc<dyn HttpClient>>,
    ) -> Result<Box<dyn ConsumerPlugin>, InstantiateError> {
        Ok(Box::new(Consumer(Arc::clone(&self.0))))
    }

    fn network(&self) -> Result<&dyn Network, NetworkError> {
        Ok(self)
    }

    fn unload(&self, _: &Digest) {}
}

/// A driver until `until` is committed, or it stops. What was given, and what it has come to.
fn deliver(
    world: &Arc<Mutex<World>>,
    keys: &str,
    until: &[(i32, i64)],
) -> (Result<(), DriverError>, Vec<String>, Arc<StatusBoard>) {
    let text = format!(
        "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[node]]\nid = \"n\"\nfrom = \"s\"\nplugin = \"x\"\n{keys}"
    );
    let manifest = Manifest::parse(&text).unwrap();
    let plugins = BTreeMap::from([("n".to_owned(), obedient(pelton_streams::World::ConsumerHttp))]);
    let topology = Arc::new(Topology::link(&manifest, &plugins).unwrap());
    world.lock().until = Some(until.iter().copied().collect());
    let outside = Arc::new(Outside::default());
    let (board, clock) = (StatusBoard::new(Arc::new(|| 7)), AtomicI64::new(0));
    let (guarantee, stop) = (Guarantee::ExactlyOnce, Arc::clone(&outside.stop));
    let spec = DriverSpec {
        topology,
        lane: Lane::ONLY,
        guarantee,
        commit: manifest.commit,
        factory: Arc::new(Consumers(Arc::clone(&outside))),
        stores: Arc::new(MemoryStores::default()),
        globals: Arc::new(NoGlobals),
        cpu: || Box::new(|| 0),
        board: Arc::clone(&board),
        clock: Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)),
        stop: Arc::clone(&stop),
    };
    let mut io = FakeIo { world: Arc::clone(world), known: None, guarantee, stop };
    let result = Driver::new(spec, &mut io).run();
    let given = std::mem::take(&mut *outside.given.lock());
    (result, given, board)
}

const DEAD: &str =
    "on_error = { policy = 'retry', attempts = 1, backoff_ms = 1, then = 'dead-letter', topic = 'dead' }";

#[test]
fn what_is_done_is_committed_and_what_cannot_be_is_a_letter() {
    let world = world(&[(0, &["a", "never", "again", "b"]), (1, &["c"])]);
    let (result, mut given, board) = deliver(&world, DEAD, &[(0, 4), (1, 1)]);
    result.unwrap();
    given.sort();
    given.dedup();
    assert_eq!(given, ["a", "again", "b", "c", "never"]);
    assert_eq!(world.lock().values(), ["never", "again"]);
    let totals = board.snapshot().totals;
    assert_eq!((totals.records_in, totals.dead_lettered, totals.retries), (5, 2, 1));
}

#[test]
fn a_stop_in_the_last_attempt_gives_nothing_up() {
    let world = world(&[(0, &["a", "again, cut off", "b"])]);
    let (result, given, board) = deliver(&world, &format!("deliver.batch = 1\n{DEAD}"), &[(0, 3)]);
    result.unwrap();
    assert_eq!(given, ["a", "again, cut off", "again, cut off"]);
    assert_eq!(world.lock().values(), [""; 0], "there is no letter");
    assert_eq!(world.lock().committed, BTreeMap::from([(0, 1)]), "the next start gives it again");
    let totals = board.snapshot().totals;
    assert_eq!((totals.records_in, totals.dead_lettered), (1, 0));
}

#[test]
fn what_is_not_committed_is_given_again() {
    let world = world(&[(0, &["a", "b"])]);
    world.lock().lose_commits = true;
    let (result, given, _) = deliver(&world, DEAD, &[(0, 2)]);
    assert!(matches!(result, Err(DriverError::Io(_))), "{result:?}");
    assert_eq!((given, world.lock().committed.len()), (vec!["a".to_owned(), "b".to_owned()], 0));
    world.lock().lose_commits = false;
    let (result, given, _) = deliver(&world, DEAD, &[(0, 2)]);
    result.unwrap();
    assert_eq!(given, ["a", "b"]);
}

#[test]
fn a_letter_is_there_once_though_its_transaction_is_aborted() {
    for lost in [true, false] {
        let world = world(&[(0, &["never", "a"])]);
        (world.lock().lose_commits, world.lock().refuse_commits) = (lost, !lost);
        let (result, ..) = deliver(&world, DEAD, &[(0, 2)]);
        assert!(matches!(result, Err(DriverError::Io(_))), "{result:?}");
        assert_eq!(world.lock().values(), [""; 0], "neither the letter nor the offset");
        (world.lock().lose_commits, world.lock().refuse_commits) = (false, false);
        deliver(&world, DEAD, &[(0, 2)]).0.unwrap();
        assert_eq!(world.lock().values(), ["never"]);
        assert_eq!(world.lock().committed, BTreeMap::from([(0, 2)]));
    }
}

#[test]
fn what_is_not_there_is_passed() {
    let world = world(&[(0, &["a"])]);
    {
        let mut world = world.lock();
        *world.ends.get_mut(&0).unwrap() += 3;
        world.produce(0, &["b", "c"]);
        *world.ends.get_mut(&0).unwrap() += 2;
    }
    let (result, given, board) = deliver(&world, &format!("deliver.batch = 1\n{DEAD}"), &[(0, 8)]);
    result.unwrap();
    assert_eq!(given, ["a", "b", "c"]);
    assert_eq!(board.snapshot().tasks.iter().map(|task| task.lag).sum::<i64>(), 0);
}
