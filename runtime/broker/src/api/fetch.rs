//! Fetch: batches as they are stored, at once or when there are enough of them.
//!
//! Fetch sessions (KIP-227) are not offered: the session id of a response is 0, and clients then name all partitions in
//! each request.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pelton_wire::message::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartition, FetchTopic, FetchableTopicResponse, PartitionData,
};
use pelton_wire::message::{FetchRequest, FetchResponse};
use pelton_wire::{ErrorCode, Records};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::RequestContext;
use super::reply::{Answer, Externals, Reply};
use super::support::error_map;
use super::timer::ConnectionTimer;
use crate::blocking::run_blocking;
use crate::metrics::Metrics;
use crate::partition::waiters::FetchWait;
use crate::partition::{Fetched, Isolation, Partition};
use crate::topics::Topics;

/// First version in which topics have ids instead of names.
const IDS_SINCE: i16 = 13;
/// `session_epoch` of a request that wants no session, and of one that wants a new one.
const NO_SESSION_EPOCH: i32 = -1;
const NEW_SESSION_EPOCH: i32 = 0;

/// What fetching needs.
pub(crate) struct Fetching {
    pub(crate) topics: Arc<Topics>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stopping: CancellationToken,
    /// Most bytes of records in one response.
    pub(crate) max_bytes: u64,
}

pub(crate) fn handle(
    parts: &Arc<Fetching>,
    cx: &RequestContext,
    request: FetchRequest,
) -> Reply<FetchResponse> {
    let refuse = |error_code| Reply::ready(FetchResponse { error_code, ..Default::default() });
    if request.session_id != 0 {
        return refuse(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    }
    if !matches!(request.session_epoch, NO_SESSION_EPOCH | NEW_SESSION_EPOCH) {
        return refuse(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
    }
    let Some(isolation) = Isolation::from_wire(request.isolation_level) else {
        return refuse(ErrorCode::INVALID_REQUEST);
    };
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let fetch = Arc::new(Fetch::resolve(parts, cx.version, request, isolation));
    // Nothing is read before the response is the next to go out: a client that sends many fetches and takes no answers would
    // hold memory and open files for each of them.
    let (parts, connection) = (Arc::clone(parts), Arc::clone(&cx.connection));
    let deadline = Instant::now() + wait;
    cx.later(async move { fetch.wait(&parts, &connection.timer, deadline).await })
}

/// A fetch with its topics looked up.
struct Fetch {
    isolation: Isolation,
    min_bytes: u64,
    max_bytes: u64,
    topics: Vec<Topic>,
}

struct Topic {
    name: String,
    id: Uuid,
    partitions: Vec<Wanted>,
}

struct Wanted {
    request: FetchPartition,
    found: Result<Arc<Partition>, ErrorCode>,
}

/// Each partition once, as Kafka answers: every one that is named is looked at whenever one of them has something new.
/// Requests of the size that clients send are not worth the search.
fn once(request: &mut FetchRequest) {
    const SUSPICIOUS: usize = 1000;
    if request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() <= SUSPICIOUS {
        return;
    }
    let mut seen = HashMap::new();
    for topic in &mut request.topics {
        let of_topic: &mut HashSet<i32> = seen.entry((topic.topic_id, topic.topic.clone())).or_default();
        topic.partitions.retain(|wanted| of_topic.insert(wanted.partition));
    }
}

/// What one look at all partitions gave.
struct Round {
    topics: Vec<FetchableTopicResponse>,
    externals: Externals,
    bytes: u64,
    failed: bool,
}

impl Fetch {
    fn resolve(parts: &Fetching, version: i16, mut request: FetchRequest, isolation: Isolation) -> Fetch {
        once(&mut request);
        let by_id = version >= IDS_SINCE;
        let topics = request.topics.into_iter().map(|topic| look_up(&parts.topics, topic, by_id));
        Fetch {
            isolation,
            min_bytes: u64::try_from(request.min_bytes).unwrap_or(0),
            max_bytes: u64::try_from(request.max_bytes).unwrap_or(0).min(parts.max_bytes),
            topics: topics.collect(),
        }
    }

    fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|wanted| wanted.found.as_ref().ok())
    }

    /// Whether this is worth an answer before the time is over. An error is: the client must act on it.
    fn is_satisfied(&self, round: &Round) -> bool {
        round.failed || round.bytes >= self.min_bytes || self.topics.is_empty()
    }

    /// Whether a look at all partitions touches no file, and so cannot wait for a disk.
    fn is_in_memory(&self) -> bool {
        let mut wanted = self.topics.iter().flat_map(|topic| &topic.partitions);
        wanted.all(|wanted| match &wanted.found {
            Ok(partition) => partition.is_in_memory(wanted.request.fetch_offset),
            Err(_) => true,
        })
    }

    /// Looks at every partition once, on a thread that may wait for the disk if that could be.
    async fn look(self: &Arc<Self>) -> Round {
        if self.is_in_memory() {
            return self.read();
        }
        let this = Arc::clone(self);
        run_blocking(move || this.read()).await
    }

    /// Waits until there is enough to answer, or the time is over, or the broker stops.
    async fn wait(
        self: Arc<Self>,
        parts: &Fetching,
        timer: &ConnectionTimer,
        deadline: Instant,
    ) -> Answer<FetchResponse> {
        let mut round = self.look().await;
        if !self.is_satisfied(&round) && Instant::now() < deadline {
            let wait = Watch(Arc::new(FetchWait::default()));
            // Watching before looking again: what arrives in between wakes the first wait.
            self.partitions().for_each(|partition| partition.watch(&wait.0));
            let mut stopping = std::pin::pin!(parts.stopping.cancelled());
            loop {
                round = self.look().await;
                if self.is_satisfied(&round) || Instant::now() >= deadline {
                    break;
                }
                let news = async {
                    tokio::select! {
                        () = wait.0.changed() => true,
                        () = &mut stopping => false,
                    }
                };
                if timer.until(deadline, news).await == Some(false) {
                    break;
                }
            }
        }
        parts.metrics.fetched(round.bytes);
        self.answer(round)
    }

    /// Looks at every partition once, within the limits. The first partition that has anything gives at least one whole
    /// batch, however large, so that a reader always gets on (KIP-74).
    fn read(&self) -> Round {
        let mut round = Round {
            topics: Vec::with_capacity(self.topics.len()),
            externals: Externals::default(),
            bytes: 0,
            failed: false,
        };
        for topic in &self.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                partitions.push(self.read_partition(wanted, &mut round));
            }
            round.topics.push(FetchableTopicResponse {
                topic: topic.name.clone(),
                topic_id: topic.id,
                partitions,
            });
        }
        round
    }

    fn read_partition(&self, wanted: &Wanted, round: &mut Round) -> PartitionData {
        let index = wanted.request.partition;
        let partition = match &wanted.found {
            Ok(partition) => partition,
            Err(code) => return round.fail(index, *code),
        };
        if let Err(code) =
            error_map::leader_epoch(wanted.request.current_leader_epoch, partition.leader_epoch())
        {
            return round.fail(index, code);
        }
        if let Some(diverging_epoch) = diverging(partition, &wanted.request) {
            // Not an error, but the client must act on it as on one.
            let data = PartitionData { diverging_epoch, ..round.fail(index, ErrorCode::NONE) };
            return data;
        }
        let room = self.max_bytes.saturating_sub(round.bytes);
        let most = u64::try_from(wanted.request.partition_max_bytes).unwrap_or(0).min(room);
        let whole_batch = round.bytes == 0;
        match partition.fetch(wanted.request.fetch_offset, most, whole_batch, self.isolation) {
            Ok(fetched) => round.add(index, fetched, self.isolation),
            Err(error) => {
                let offsets = partition.offsets();
                PartitionData {
                    high_watermark: offsets.high_watermark,
                    log_start_offset: offsets.log_start,
                    ..round.fail(index, error_map::partition_read(&error))
                }
            }
        }
    }

    fn answer(&self, round: Round) -> Answer<FetchResponse> {
        round.externals.answer(FetchResponse { responses: round.topics, ..Default::default() })
    }
}

impl Round {
    fn add(&mut self, partition_index: i32, fetched: Fetched, isolation: Isolation) -> PartitionData {
        self.bytes += fetched.bytes;
        let aborted = fetched.aborted.into_iter();
        let aborted =
            aborted.map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset });
        PartitionData {
            partition_index,
            high_watermark: fetched.offsets.high_watermark,
            last_stable_offset: fetched.offsets.last_stable,
            log_start_offset: fetched.offsets.log_start,
            aborted_transactions: (isolation == Isolation::ReadCommitted).then(|| aborted.collect()),
            records: Some(self.externals.add(fetched.slices)),
            ..Default::default()
        }
    }

    fn fail(&mut self, partition_index: i32, error_code: ErrorCode) -> PartitionData {
        self.failed = true;
        PartitionData {
            partition_index,
            error_code,
            high_watermark: -1,
            aborted_transactions: None,
            records: Some(Records::default()),
            ..Default::default()
        }
    }
}

/// Tells partitions to forget the wait, also when its connection is gone.
struct Watch(Arc<FetchWait>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.finish();
    }
}

fn look_up(topics: &Topics, wanted: FetchTopic, by_id: bool) -> Topic {
    let (topic, missing) = if by_id {
        (topics.by_id(wanted.topic_id), ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        (topics.get(&wanted.topic), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    };
    let partitions = wanted.partitions.into_iter().map(|request| {
        let found = topic.as_ref().ok_or(missing).and_then(|topic| {
            topic.partition(request.partition).cloned().ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        });
        Wanted { request, found }
    });
    Topic { partitions: partitions.collect(), name: wanted.topic, id: wanted.topic_id }
}

/// Where the log of a reader that says what it has read last parts from ours, if it does (KIP-595).
fn diverging(partition: &Partition, request: &FetchPartition) -> Option<EpochEndOffset> {
    if request.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end_offset) = partition.epoch_end(request.last_fetched_epoch).unwrap_or((-1, -1));
    let parts = epoch < request.last_fetched_epoch || end_offset < request.fetch_offset;
    parts.then_some(EpochEndOffset { epoch, end_offset })
}
