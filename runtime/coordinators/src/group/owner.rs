//! The owner of a shard: one loop that takes requests, lets the shard decide, appends what it wants appended, and
//! answers when that is durable. Nothing else touches the shard.
//!
//! A spawned task with a queue rather than a lock, since the order of records must be the order of decisions, and since
//! deadlines and durable appends need a task that waits for them anyway.

mod append;
mod load;
mod message;
mod snapshot;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pelton_commitlog::mutant::Mutant;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::append::{After, InFlight, landing, refusal};
use self::load::Loaded;
pub(super) use self::message::{Message, Placed};
use self::message::{ReplyTo, answer, refuse};
use super::config::GroupLimits;
use super::error::GroupError;
use super::service::{GroupOffsets, GroupSummary, Loading, OffsetsPage};
use super::shard::{GroupCount, Shard};
use super::state::Group;
use super::store::GroupStore;
use super::types::{CommitRequest, GroupId, JoinResult, Now, Reply, SyncResult, Then, Waiter};
use crate::snapshot::SnapshotGauge;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::TxnMarker;

/// Groups and offsets that are copied for the metrics in one go.
const GROUPS_AT_ONCE: usize = 512;
const OFFSETS_AT_ONCE: usize = 4096;

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
        // Requests in the queue and waiting joins are refused as this ends; requests whose records are appended are
        // still answered.
        drop(requests);
        while !self.in_flight.is_empty() {
            let result = landing(&mut self.in_flight).await;
            self.landed(result);
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

fn summary(group: &Group) -> GroupSummary {
    GroupSummary { group: group.listing(), members: group.members.len(), offsets: group.offsets.len() }
}
