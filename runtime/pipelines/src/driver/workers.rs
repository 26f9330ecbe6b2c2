//! The threads of a node that acts on the outside: each has an instance, and may wait in it for as long as the outside takes. The
//! driver gives calls to those that are idle, and is woken when one has an answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pelton_streams::delivery::Call;
use pelton_streams::http::HttpClient;
use pelton_streams::plugin::{ConsumerPlugin, Unfinished};
use pelton_streams::{InstanceSpec, InstantiateError, PluginError, Topology};

use super::{Driver, DriverError, DriverSpec, NO_PARTITION};
use crate::io::{IoError, StopSignal};
use crate::status::InstanceLog;

/// How long calls that are under way have to end by themselves when the driver stops. What was sent is then done once, and not
/// again after the next start.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// How often a call may use up its deadline once its requests were ended: it may be starting its instance again.
const DEADLINES_LEFT: u32 = 2;

/// A call, and the delivery that it is of.
struct Job {
    delivery: u64,
    call: Call,
}

/// What a call has answered.
pub(super) struct Answer {
    worker: usize,
    pub(super) delivery: u64,
    pub(super) call: u64,
    pub(super) result: Result<Vec<Unfinished>, PluginError>,
}

/// See the module. Dropping it ends what is under way, and waits for the threads: as long as their deadlines say, for a stop must
/// come to an end whatever a plugin does.
pub(super) struct Workers {
    /// Those that have nothing to do.
    idle: Vec<usize>,
    jobs: Vec<Sender<Job>>,
    answers: Receiver<Answer>,
    threads: Vec<JoinHandle<()>>,
    http: Option<Arc<dyn HttpClient>>,
    /// When calls were told to end, and how long they have from then on.
    cancelled: Option<Instant>,
    last: Duration,
}

impl Workers {
    /// Starts the threads of a node.
    pub(super) fn start(spec: &DriverSpec, topology: &Topology, node: usize) -> Result<Workers, DriverError> {
        let node = &topology.nodes[node];
        let failed = |error: InstantiateError| DriverError::Start { node: node.id.clone(), error };
        let consumer = node.consumer.clone().unwrap_or_default();
        let http = match node.plugin.world.has_http() {
            true => {
                let client = spec.factory.network().and_then(|network| network.client(&consumer.http));
                Some(client.map_err(|error| failed(error.into()))?)
            }
            false => None,
        };
        let (tell, answers) = mpsc::channel();
        let deadline = Duration::from_millis(node.limits.deadline_ms.into());
        let mut workers = Workers {
            idle: Vec::new(),
            jobs: Vec::new(),
            answers,
            threads: Vec::new(),
            http,
            cancelled: None,
            last: deadline * DEADLINES_LEFT + STOP_GRACE,
        };
        for worker in 0..consumer.threads as usize {
            let partition = Arc::new(AtomicI32::new(NO_PARTITION));
            let log = InstanceLog::new(&spec.board, &node.id, &node.plugin.digest, &partition);
            let instance =
                InstanceSpec { config: node.config.clone(), limits: node.limits, log: Arc::new(log) };
            let plugin =
                spec.factory.instantiate_consumer(&node.plugin.digest, &instance, workers.http.as_ref());
            let plugin = plugin.map_err(failed)?;
            let (give, jobs) = mpsc::channel();
            let thread =
                Thread { worker, plugin, partition, jobs, tell: tell.clone(), wake: Arc::clone(&spec.stop) };
            let name: String = format!("give-{}", node.id).chars().take(15).collect();
            let spawned = std::thread::Builder::new().name(name).spawn(move || thread.run());
            let thread = spawned.map_err(|error| {
                IoError::Unavailable(format!("a thread of node `{}` does not start: {error}", node.id))
            })?;
            workers.threads.push(thread);
            workers.jobs.push(give);
            workers.idle.push(worker);
        }
        Ok(workers)
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    fn is_busy(&self) -> bool {
        self.idle.len() < self.threads.len()
    }

    /// Has an idle thread make a call. One must be.
    pub(super) fn give(&mut self, delivery: u64, call: Call) {
        let worker = self.idle.pop().expect("a thread is idle");
        let given = self.jobs[worker].send(Job { delivery, call });
        given.expect("a thread takes calls as long as its sender is there");
    }

    /// An answer, if one is there.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.idle.push(answer.worker);
        Some(answer)
    }

    /// Waits for the next answer of a call that is under way; none: there is none. After the grace what is under way is ended.
    fn last_answer(&mut self, until: Instant) -> Option<Answer> {
        if !self.is_busy() {
            return None;
        }
        let left = until.saturating_duration_since(Instant::now());
        let answer = match self.answers.recv_timeout(left) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => {
                let until = self.cancel();
                self.answers.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }?;
        self.idle.push(answer.worker);
        Some(answer)
    }

    /// Ends what was sent. A call that sends nothing ends by its deadline: until then.
    fn cancel(&mut self) -> Instant {
        if let Some(http) = &self.http {
            http.cancel();
        }
        *self.cancelled.get_or_insert_with(Instant::now) + self.last
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let until = self.cancel();
        self.jobs.clear();
        while let Some(answer) = self.last_answer(until) {
            drop(answer);
        }
        for (worker, thread) in self.threads.drain(..).enumerate() {
            if !self.idle.contains(&worker) {
                tracing::error!(
                    "a call of a plugin does not end; its thread is left behind, and can send nothing any more"
                );
            } else if thread.join().is_err() {
                tracing::error!("a thread that gives records to a plugin panicked");
            }
        }
    }
}

/// One of the threads.
struct Thread {
    worker: usize,
    plugin: Box<dyn ConsumerPlugin>,
    /// What its log lines are about.
    partition: Arc<AtomicI32>,
    jobs: Receiver<Job>,
    tell: Sender<Answer>,
    wake: Arc<StopSignal>,
}

impl Thread {
    fn run(mut self) {
        while let Ok(Job { delivery, call }) = self.jobs.recv() {
            let batch = call.records.as_batch();
            self.partition.store(batch.partition.cast_signed(), Ordering::Relaxed);
            let plugin = &mut self.plugin;
            // A panic here is a bug of ours; without an answer the records would wait for ever.
            let consumed = std::panic::catch_unwind(AssertUnwindSafe(|| plugin.consume(&batch, call.order)));
            let bug = || PluginError::Fatal("the call panicked, which is a bug of pelton".to_owned());
            let result = consumed.unwrap_or_else(|_| Err(bug()));
            if self.tell.send(Answer { worker: self.worker, delivery, call: call.id, result }).is_err() {
                return;
            }
            self.wake.nudge();
        }
    }
}

impl Driver<'_> {
    /// Waits for the calls that are under way, and gives no others: what they have done counts for the last commit. What they
    /// have not done says nothing of its records, for it may be this end that cut it off.
    pub(super) fn drain(&mut self) {
        let until = Instant::now() + STOP_GRACE;
        let nodes: Vec<usize> = self.deliveries.workers.keys().copied().collect();
        for node in nodes {
            while let Some(answer) =
                self.deliveries.workers.get_mut(&node).and_then(|workers| workers.last_answer(until))
            {
                self.ended(answer);
            }
        }
        self.deliveries.workers.clear();
        self.advance_deliveries();
    }
}
