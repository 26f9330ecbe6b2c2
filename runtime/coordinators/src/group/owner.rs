//! The owner of a shard: one loop that takes requests, lets the shard decide, appends what it wants appended, and answers
//! when that is durable. Nothing else touches the shard.
//!
//! A spawned task with a queue rather than a lock, since the order of records must be the order of decisions, and since
//! deadlines and durable appends need somebody who waits for them anyway.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pelton_commitlog::mutant::Mutant;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::config::GroupLimits;
use super::error::GroupError;
use super::records;
use super::service::{GroupOffsets, GroupSummary, Loading, OffsetsPage};
use super::shard::{GroupCount, Shard};
use super::state::Group;
use super::store::{GroupStore, KeyValue, OFFSETS_TOPIC, StoreError, StoreFuture};
use super::types::{
    Append, CommitRequest, Effects, FetchRequest, FetchedTopics, GroupDescription, GroupId, GroupListing,
    GroupRecord, JoinRefused, JoinRequest, JoinResult, LeavingMember, LeftMember, MemberIdentity, Now, Reply,
    SyncRequest, SyncResult, Then, TopicPartition, Waiter,
};
use crate::snapshot::SnapshotGauge;
use crate::unreadable::UnreadableRecord;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::TxnMarker;
use pelton_partitions::producer_id::ProducerIdentity;

/// How long to wait before a partition that could not be read is tried again.
const LOAD_RETRY: Duration = Duration::from_secs(5);

/// Pieces of a partition that wait to be replayed: the reader is one ahead.
const LOAD_PIECES: usize = 1;

/// Groups and offsets that are copied for the metrics in one go.
const GROUPS_AT_ONCE: usize = 512;
const OFFSETS_AT_ONCE: usize = 4096;

type ReplyTo<T> = oneshot::Sender<Result<T, GroupError>>;

/// What the owner of a shard is asked.
pub(super) enum Message {
    Join {
        group: GroupId,
        request: Box<JoinRequest>,
        waiter: Waiter,
        reply: oneshot::Sender<JoinResult>,
    },
    AbandonJoin {
        group: GroupId,
        member_id: String,
        waiter: Waiter,
    },
    Sync {
        group: GroupId,
        request: SyncRequest,
        waiter: Waiter,
        reply: oneshot::Sender<SyncResult>,
    },
    Heartbeat {
        group: GroupId,
        who: MemberIdentity,
        reply: ReplyTo<()>,
    },
    Leave {
        group: GroupId,
        leaving: Vec<LeavingMember>,
        reply: ReplyTo<Vec<LeftMember>>,
    },
    Commit {
        group: GroupId,
        request: Box<CommitRequest>,
        placed: Option<Placed>,
        reply: ReplyTo<Vec<Result<(), GroupError>>>,
    },
    /// Answered when the marker has its place in the log.
    EndTransaction {
        marker: TxnMarker,
        applied: ReplyTo<()>,
        reply: ReplyTo<()>,
    },
    Fetch {
        group: GroupId,
        request: FetchRequest,
        reply: ReplyTo<FetchedTopics>,
    },
    DeleteOffsets {
        group: GroupId,
        partitions: Vec<TopicPartition>,
        reply: ReplyTo<Vec<Result<(), GroupError>>>,
    },
    Delete {
        group: GroupId,
        reply: ReplyTo<()>,
    },
    Describe {
        group: GroupId,
        reply: ReplyTo<Option<GroupDescription>>,
    },
    List {
        reply: ReplyTo<Vec<GroupListing>>,
    },
    Summaries {
        after: GroupId,
        limit: usize,
        reply: ReplyTo<Vec<GroupSummary>>,
    },
    /// Offsets of groups after this one, as many as are copied in one go.
    Committed {
        after: GroupId,
        offsets_max: usize,
        reply: ReplyTo<OffsetsPage>,
    },
    TopicDeleted {
        topic: Arc<str>,
        reply: ReplyTo<()>,
    },
    /// Looks whether its log has grown so much that a snapshot is due. `over` is dropped when that has come to an end.
    SnapshotWhenDue {
        over: oneshot::Sender<()>,
    },
    /// The broker stops.
    Stop,
}

/// Told when all that was asked for has its place in the log, or that it has not: then some of it may have.
pub(super) type Placed = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// Both clocks of an owner.
#[derive(Clone)]
pub(super) struct OwnerClock {
    wall: Arc<dyn Clock>,
    start: Instant,
}

impl OwnerClock {
    pub(super) fn new(wall: Arc<dyn Clock>) -> OwnerClock {
        OwnerClock { wall, start: Instant::now() }
    }

    fn now(&self) -> Now {
        let mono_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { wall_ms: self.wall.now_ms(), mono_ms }
    }

    fn instant(&self, mono_ms: u64) -> Instant {
        // A deadline beyond what the clock can say is one that never comes.
        const FAR: Duration = Duration::from_secs(30 * 24 * 3600);
        self.start.checked_add(Duration::from_millis(mono_ms)).unwrap_or_else(|| Instant::now() + FAR)
    }
}

/// Answers somebody once the appends before it have come to an end.
type After = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// An append on its way to the disk.
struct InFlight {
    landing: StoreFuture<i64>,
    group: GroupId,
    then: Then,
    after: Vec<After>,
}

/// What reading a partition at the start has come to.
enum Loaded {
    Whole,
    Unreadable(UnreadableRecord),
    /// The broker stops.
    Stopped,
}

/// Why a partition was not read.
enum ReadError {
    Store(StoreError),
    Record(UnreadableRecord),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> ReadError {
        ReadError::Store(error)
    }
}

impl From<UnreadableRecord> for ReadError {
    fn from(record: UnreadableRecord) -> ReadError {
        ReadError::Record(record)
    }
}

/// The one task that holds a shard.
pub(super) struct Owner {
    partition: i32,
    limits: GroupLimits,
    count: GroupCount,
    store: Arc<dyn GroupStore>,
    clock: OwnerClock,
    shard: Shard,
    joins: HashMap<Waiter, oneshot::Sender<JoinResult>>,
    syncs: HashMap<Waiter, oneshot::Sender<SyncResult>>,
    in_flight: VecDeque<InFlight>,
    next_expiry_ms: u64,
    /// Every append in flight is at this offset or behind it.
    landed_before: i64,
    snapshots: SnapshotGauge,
}

impl Owner {
    pub(super) fn new(
        partition: i32,
        partitions: i32,
        limits: GroupLimits,
        count: GroupCount,
        store: Arc<dyn GroupStore>,
        clock: OwnerClock,
    ) -> Owner {
        // Shards look for expired offsets one after the other, not all at once.
        let share = u64::try_from(partition).unwrap_or(0) + 1;
        let of = u64::try_from(partitions).unwrap_or(1).max(1);
        let next_expiry_ms = limits.offsets_retention_check_interval_ms.saturating_mul(share) / of;
        Owner {
            partition,
            shard: Shard::new(limits.clone(), count.clone()),
            limits,
            count,
            store,
            clock,
            joins: HashMap::new(),
            syncs: HashMap::new(),
            in_flight: VecDeque::new(),
            next_expiry_ms,
            landed_before: 0,
            snapshots: SnapshotGauge::default(),
        }
    }

    /// Reads the partition if there is one, and counts it off in `loading`; then serves until every handle is gone. A
    /// partition with a record that cannot be read is not served.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Message>,
        loading: Option<watch::Sender<Loading>>,
    ) {
        if let Some(loading) = loading {
            let loaded = self.load(&mut requests).await;
            let serves = matches!(loaded, Loaded::Whole);
            loading.send_modify(|loading| {
                loading.left -= 1;
                if let Loaded::Unreadable(record) = loaded {
                    loading.unreadable.get_or_insert(record);
                }
            });
            if !serves {
                while let Some(request) = requests.recv().await
                    && !matches!(request, Message::Stop)
                {
                    refuse(request, GroupError::CoordinatorNotAvailable);
                }
                return;
            }
        }
        loop {
            let room = self.in_flight.len() < self.limits.appends_max;
            let deadline = self.clock.instant(self.next_deadline_ms());
            tokio::select! {
                biased;
                result = landing(&mut self.in_flight) => self.landed(result),
                () = tokio::time::sleep_until(deadline), if room => self.fire(),
                request = requests.recv(), if room => match request {
                    Some(Message::Stop) | None => break,
                    Some(request) => self.handle(request),
                },
            }
        }
        // What waits in the queue and what is parked is refused as this ends; what is in the log is still answered.
        drop(requests);
        while !self.in_flight.is_empty() {
            let result = landing(&mut self.in_flight).await;
            self.landed(result);
        }
    }

    /// Replays the partition; meanwhile requests are refused.
    async fn load(&mut self, requests: &mut mpsc::Receiver<Message>) -> Loaded {
        let started = Instant::now();
        let mut delay = Duration::ZERO;
        loop {
            let reading = self.replay(delay);
            tokio::pin!(reading);
            let read = loop {
                tokio::select! {
                    read = &mut reading => break read,
                    request = requests.recv() => match request {
                        Some(Message::Stop) | None => {
                            requests.close();
                            return Loaded::Stopped;
                        }
                        Some(request) => refuse(request, GroupError::CoordinatorLoadInProgress),
                    },
                }
            };
            match read {
                Ok(shard) => {
                    self.shard = shard;
                    self.landed_before = self.store.end_offset(self.partition);
                    tracing::debug!(partition = self.partition, took = ?started.elapsed(), "groups loaded");
                    return Loaded::Whole;
                }
                Err(ReadError::Record(record)) => {
                    tracing::error!(%record, "the groups of a partition cannot be served");
                    return Loaded::Unreadable(record);
                }
                Err(ReadError::Store(error)) => {
                    tracing::error!(partition = self.partition, %error, "groups cannot be loaded; trying again");
                    delay = LOAD_RETRY;
                }
            }
        }
    }

    fn replay(&self, delay: Duration) -> impl Future<Output = Result<Shard, ReadError>> + use<> {
        let mut shard = Shard::new(self.limits.clone(), self.count.clone());
        let (store, partition, clock) = (Arc::clone(&self.store), self.partition, self.clock.clone());
        async move {
            tokio::time::sleep(delay).await;
            let (into, mut pieces) = mpsc::channel(LOAD_PIECES);
            let reading = store.read(partition, into);
            while let Some(records) = pieces.recv().await {
                for record in records {
                    let offset = record.offset();
                    shard.replay(record, clock.now()).map_err(|error| UnreadableRecord {
                        topic: OFFSETS_TOPIC,
                        partition,
                        offset: offset.unwrap_or(-1),
                        reason: error.to_string(),
                    })?;
                }
            }
            reading.await?;
            shard.resume(clock.now());
            Ok(shard)
        }
    }

    fn next_deadline_ms(&self) -> u64 {
        self.shard.next_deadline_ms().map_or(self.next_expiry_ms, |at| at.min(self.next_expiry_ms))
    }

    fn fire(&mut self) {
        let now = self.clock.now();
        if self.next_expiry_ms <= now.mono_ms {
            self.next_expiry_ms =
                now.mono_ms.saturating_add(self.limits.offsets_retention_check_interval_ms.max(1));
            let effects = self.shard.expire(now);
            self.perform(effects, None);
        }
        while self.in_flight.len() < self.limits.appends_max
            && let Some(effects) = self.shard.fire(now)
        {
            self.perform(effects, None);
        }
    }

    fn handle(&mut self, request: Message) {
        let now = self.clock.now();
        match request {
            Message::Join { group, request, waiter, reply } => {
                self.joins.insert(waiter, reply);
                let effects = self.shard.join(&group, *request, waiter, now);
                self.perform(effects, None);
            }
            Message::AbandonJoin { group, member_id, waiter } => {
                self.joins.remove(&waiter);
                let effects = self.shard.abandon_join(&group, &member_id, waiter, now);
                self.perform(effects, None);
            }
            Message::Sync { group, request, waiter, reply } => {
                self.syncs.insert(waiter, reply);
                let effects = self.shard.sync(&group, request, waiter, now);
                self.perform(effects, None);
            }
            Message::Heartbeat { group, who, reply } => {
                answer(reply, self.shard.heartbeat(&group, &who, now))
            }
            Message::Leave { group, leaving, reply } => {
                let (result, effects) = self.shard.leave(&group, leaving, now);
                self.perform_then_answer(effects, reply, result);
            }
            Message::Commit { group, request, placed, reply } => {
                self.commit(&group, *request, placed, reply, now);
            }
            Message::EndTransaction { marker, applied, reply } => {
                answer(reply, self.end_transaction(marker, applied));
            }
            Message::Fetch { group, request, reply } => {
                answer(reply, Ok(self.shard.fetch(&group, &request, now)))
            }
            Message::DeleteOffsets { group, partitions, reply } => {
                let (result, effects) = self.shard.delete_offsets(&group, &partitions);
                self.perform_then_answer(effects, reply, result);
            }
            Message::Delete { group, reply } => {
                let (result, effects) = self.shard.delete(&group, now);
                self.perform_then_answer(effects, reply, result);
            }
            Message::Describe { group, reply } => {
                let description = self.shard.describe(&group);
                self.answer_after_all(reply, description);
            }
            Message::List { reply } => {
                let list = self.shard.list();
                self.answer_after_all(reply, list);
            }
            Message::Summaries { after, limit, reply } => {
                answer(reply, Ok(self.shard.page(&after, limit).map(summary).collect()));
            }
            Message::Committed { after, offsets_max, reply } => {
                answer(reply, Ok(self.committed(&after, offsets_max)));
            }
            Message::TopicDeleted { topic, reply } => {
                let effects = self.shard.topic_deleted(&topic);
                self.perform_then_answer(effects, reply, Ok(()));
            }
            Message::SnapshotWhenDue { over } => self.snapshot_when_due(over),
            // Taken out by the loop.
            Message::Stop => {}
        }
    }

    fn commit(
        &mut self,
        group: &GroupId,
        request: CommitRequest,
        placed: Option<Placed>,
        reply: ReplyTo<Vec<Result<(), GroupError>>>,
        now: Now,
    ) {
        let (result, effects) = self.shard.commit(group, request, now);
        let refused = match &result {
            Ok(results) => results.iter().find_map(|result| result.err()),
            Err(error) => Some(*error),
        };
        let after: After = if Mutant::OffsetsBeforeSync.is_on() {
            answer(reply, result);
            Box::new(drop)
        } else {
            Box::new(move |landed| answer(reply, landed.and(result)))
        };
        let appended = self.place(effects, Some(after));
        if let Some(placed) = placed {
            placed(refused.map_or(appended, Err));
        }
    }

    fn end_transaction(&mut self, marker: TxnMarker, applied: ReplyTo<()>) -> Result<(), GroupError> {
        let then = Then::EndTransaction { producer_id: marker.producer.id, commit: marker.commit };
        let landing = self.store.append_marker(self.partition, marker, self.clock.wall.now_ms());
        let landing = landing.map_err(|error| {
            tracing::warn!(partition = self.partition, %error, "a transaction's marker was not written");
            refusal(&error, &then)
        })?;
        let after: Vec<After> = vec![Box::new(move |landed| answer(applied, landed))];
        // Of no group: the transaction may have offsets of several.
        self.in_flight.push_back(InFlight { landing, group: "".into(), then, after });
        Ok(())
    }

    fn committed(&self, after: &GroupId, offsets_max: usize) -> OffsetsPage {
        let (mut groups, mut copied) = (Vec::new(), 0);
        for group in self.shard.page(after, GROUPS_AT_ONCE) {
            let offsets = group.offsets.iter().take(offsets_max - copied);
            let committed: Vec<_> = offsets.map(|(at, value)| (at.clone(), value.offset)).collect();
            copied += committed.len();
            groups.push(GroupOffsets { summary: summary(group), committed });
            if copied >= OFFSETS_AT_ONCE {
                return OffsetsPage { groups, more: true };
            }
        }
        let more = groups.len() >= GROUPS_AT_ONCE;
        OffsetsPage { groups, more }
    }

    /// Answers when what the answer rests on is durable: a refusal rests on nothing.
    fn perform_then_answer<T: Send + 'static>(
        &mut self,
        effects: Effects,
        reply: ReplyTo<T>,
        result: Result<T, GroupError>,
    ) {
        self.perform(effects, Some(Box::new(move |landed| answer(reply, landed.and(result)))));
    }

    /// Answers when everything that came before is durable, so that nobody is told of a change that a crash undoes.
    fn answer_after_all<T: Send + 'static>(&mut self, reply: ReplyTo<T>, value: T) {
        match self.in_flight.back_mut() {
            Some(last) => last.after.push(Box::new(move |landed| answer(reply, landed.map(|()| value)))),
            None => answer(reply, Ok(value)),
        }
    }

    fn perform(&mut self, effects: Effects, after: Option<After>) {
        // What has no place comes to an end like the rest, in its turn, and is said there.
        let _ = self.place(effects, after);
    }

    /// Appends and replies. Whether everything has its place in the log.
    fn place(&mut self, effects: Effects, after: Option<After>) -> Result<(), GroupError> {
        let mut placed = Ok(());
        for reply in effects.replies {
            self.reply(reply);
        }
        // Whoever waits for several appends is told of the first that fails.
        let failed: Arc<OnceLock<GroupError>> = Arc::default();
        let (mut rest, waits) = (effects.appends.len(), after.is_some());
        let mut after = after;
        for Append { group, transaction, records, then } in effects.appends {
            let landing = match self.append(transaction, &records) {
                Ok(landing) => landing,
                Err(error) => {
                    placed = placed.and(Err(refusal(&error, &then)));
                    Box::pin(std::future::ready(Err(error)))
                }
            };
            let mut in_flight = InFlight { landing, group, then, after: Vec::new() };
            rest -= 1;
            let failed = Arc::clone(&failed);
            match after.take_if(|_| rest == 0) {
                Some(after) => in_flight.after.push(Box::new(move |landed| {
                    after(failed.get().map_or(landed, |error| Err(*error)));
                })),
                None if waits => in_flight.after.push(Box::new(move |landed| {
                    landed.err().map(|error| failed.get_or_init(|| error));
                })),
                None => {}
            }
            self.in_flight.push_back(in_flight);
        }
        if let Some(after) = after {
            after(Ok(()));
        }
        placed
    }

    fn append(
        &self,
        producer: Option<ProducerIdentity>,
        records: &[GroupRecord],
    ) -> Result<StoreFuture<i64>, StoreError> {
        let encoded: Result<Vec<KeyValue>, _> =
            records.iter().map(|r| records::encode(r).map(|(key, value)| KeyValue { key, value })).collect();
        let encoded = encoded.map_err(|_| StoreError::TooLarge)?;
        self.store.append(self.partition, producer, encoded, self.clock.wall.now_ms())
    }

    /// The oldest append has come to an end.
    fn landed(&mut self, result: Result<i64, StoreError>) {
        let Some(InFlight { group, then, after, .. }) = self.in_flight.pop_front() else { return };
        let result = result.map_err(|error| {
            tracing::warn!(partition = self.partition, group = &*group, %error, "group records not written");
            refusal(&error, &then)
        });
        if let Ok(base_offset) = result {
            self.landed_before = base_offset + 1;
        }
        let outcome = result.map(|_| ());
        if let (Then::EndTransaction { producer_id, commit }, Ok(())) = (&then, outcome) {
            self.shard.end_transaction(*producer_id, *commit);
        }
        let effects = self.shard.landed(&group, then, result, self.clock.now());
        self.perform(effects, None);
        for answer in after {
            answer(outcome);
        }
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Join(waiter, result) => {
                if let Some(to) = self.joins.remove(&waiter) {
                    answer(to, result);
                }
            }
            Reply::Sync(waiter, result) => {
                if let Some(to) = self.syncs.remove(&waiter) {
                    answer(to, result);
                }
            }
        }
    }
}

mod snapshot;

/// Waits for the oldest append; for ever when there is none.
async fn landing(in_flight: &mut VecDeque<InFlight>) -> Result<i64, StoreError> {
    match in_flight.front_mut() {
        Some(oldest) => (&mut oldest.landing).await,
        None => std::future::pending().await,
    }
}

/// What a failed append means to the client that waits for it.
fn refusal(error: &StoreError, then: &Then) -> GroupError {
    match (error, then) {
        (StoreError::TooLarge, Then::Offsets(_) | Then::Pending { .. } | Then::EndTransaction { .. }) => {
            GroupError::CommitTooLarge
        }
        (
            StoreError::TooLarge,
            Then::Assign { .. } | Then::ReplaceStatic { .. } | Then::Emptied | Then::Delete { .. },
        ) => GroupError::GroupTooLarge,
        (StoreError::ProducerFenced, _) => GroupError::ProducerFenced,
        (StoreError::CoordinatorFenced, _) => GroupError::CoordinatorFenced,
        // The client finds its coordinator again and repeats: an offset committed twice is the same offset.
        (StoreError::Unavailable { .. }, _) => GroupError::CoordinatorNotAvailable,
    }
}

fn summary(group: &Group) -> GroupSummary {
    GroupSummary { group: group.listing(), members: group.members.len(), offsets: group.offsets.len() }
}

/// Whoever asked may have hung up; then nobody misses the answer.
fn answer<T>(to: oneshot::Sender<T>, value: T) {
    drop(to.send(value));
}

fn refuse(request: Message, error: GroupError) {
    match request {
        Message::Join { request, reply, .. } => {
            answer(reply, Err(JoinRefused { error, member_id: request.member_id.clone() }));
        }
        Message::AbandonJoin { .. } | Message::SnapshotWhenDue { .. } | Message::Stop => {}
        Message::Sync { reply, .. } => answer(reply, Err(error)),
        Message::Heartbeat { reply, .. }
        | Message::EndTransaction { reply, .. }
        | Message::Delete { reply, .. }
        | Message::TopicDeleted { reply, .. } => {
            answer(reply, Err(error));
        }
        Message::Leave { reply, .. } => answer(reply, Err(error)),
        Message::Commit { reply, .. } | Message::DeleteOffsets { reply, .. } => answer(reply, Err(error)),
        Message::Fetch { reply, .. } => answer(reply, Err(error)),
        Message::Describe { reply, .. } => answer(reply, Err(error)),
        Message::List { reply } => answer(reply, Err(error)),
        Message::Summaries { reply, .. } => answer(reply, Err(error)),
        Message::Committed { reply, .. } => answer(reply, Err(error)),
    }
}
