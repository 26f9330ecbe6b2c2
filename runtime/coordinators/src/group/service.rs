//! The handle that request handlers hold. It finds the shard of a group, asks its owner, and waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_commitlog::mutant::Mutant;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};

use super::config::GroupLimits;
use super::error::GroupError;
use super::owner::{Message, Owner, OwnerClock, Placed};
use super::shard::GroupCount;
use super::store::{GroupStore, StoreError};
use super::types::{
    CommitRequest, FetchRequest, FetchedTopics, GroupDescription, GroupId, GroupListing, JoinRefused,
    JoinRequest, JoinResult, LeavingMember, LeftMember, MemberIdentity, SyncRequest, SyncResult,
    TopicPartition, Waiter,
};
use crate::unreadable::UnreadableRecord;
use pelton_partitions::clock::Clock;
use pelton_partitions::partition::TxnMarker;
use pelton_partitions::producer_id::ProducerIdentity;

/// The group coordinator. A cheap clone.
#[derive(Clone)]
pub struct Groups {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<mpsc::Sender<Message>>,
    store: Arc<dyn GroupStore>,
    /// Set once `__consumer_offsets` is there.
    created: OnceCell<()>,
    next_waiter: AtomicU64,
    count: GroupCount,
    loading: watch::Sender<Loading>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSummary {
    pub group: GroupListing,
    pub members: usize,
    /// How many offsets it has committed.
    pub offsets: usize,
}

/// The committed offsets of a group, for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffsets {
    pub summary: GroupSummary,
    /// All of them, or as many as there was room for.
    pub committed: Vec<(TopicPartition, i64)>,
}

/// Some groups with their committed offsets.
#[derive(Clone, Debug, Default)]
pub struct OffsetsPage {
    pub groups: Vec<GroupOffsets>,
    /// There may be others after the last one.
    pub more: bool,
}

/// How far owners have read their partitions.
#[derive(Debug, Default)]
pub struct Loading {
    /// Owners that are still reading.
    pub left: i32,
    /// The record that the first failed owner could not read.
    pub unreadable: Option<UnreadableRecord>,
}

impl Groups {
    /// Starts an owner for each partition of `__consumer_offsets`, which first reads its partition. While the topic
    /// does not exist there are as many as it will have, `partitions`. Needs a tokio runtime around it.
    pub fn start(
        limits: &GroupLimits,
        partitions: i32,
        store: Arc<dyn GroupStore>,
        clock: Arc<dyn Clock>,
    ) -> Groups {
        let existing = store.partition_count();
        let partitions = existing.unwrap_or(partitions).max(1);
        let clock = OwnerClock::new(clock);
        let count = GroupCount::default();
        let loading = watch::Sender::new(Loading { left: existing.unwrap_or(0), unreadable: None });
        let shards = (0..partitions)
            .map(|partition| {
                let (sender, receiver) = mpsc::channel(limits.queue_max_requests);
                let store = Arc::clone(&store);
                let owner =
                    Owner::new(partition, partitions, limits.clone(), count.clone(), store, clock.clone());
                tokio::spawn(owner.run(receiver, existing.map(|_| loading.clone())));
                sender
            })
            .collect();
        let created = OnceCell::new_with(existing.map(|_| ()));
        let next_waiter = AtomicU64::new(0);
        Groups { inner: Arc::new(Inner { shards, store, created, next_waiter, count, loading }) }
    }

    /// Waits until every owner has read its partition, or one has met a record that it cannot read.
    pub async fn loaded(&self) -> Result<(), UnreadableRecord> {
        let mut loading = self.inner.loading.subscribe();
        let done = loading.wait_for(|loading| loading.left <= 0 || loading.unreadable.is_some()).await;
        // This has an end that sends itself, so there is no error.
        done.map_or(Ok(()), |loading| loading.unreadable.clone().map_or(Ok(()), Err))
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.inner.count.get()
    }

    /// Creates `__consumer_offsets` if it is not there yet.
    pub async fn ensure_topic(&self) -> Result<(), StoreError> {
        let partitions = i32::try_from(self.inner.shards.len()).unwrap_or(i32::MAX);
        self.inner.created.get_or_try_init(|| self.inner.store.create(partitions)).await.copied()
    }

    /// JoinGroup. May take as long as the other members take to join.
    pub async fn join(&self, group: &str, request: JoinRequest) -> JoinResult {
        let member_id = request.member_id.clone();
        let refused = |error| Err(JoinRefused { error, member_id });
        if let Err(error) = self.writable().await {
            return refused(error);
        }
        let group = GroupId::from(group);
        let waiter = self.next_waiter();
        let shard = self.shard(&group);
        let as_member = if request.member_id.is_empty() {
            request.fresh_member_id.to_string()
        } else {
            request.member_id.clone()
        };
        let (reply, answer) = oneshot::channel();
        let join = Message::Join { group: group.clone(), request: Box::new(request), waiter, reply };
        if shard.send(join).await.is_err() {
            return refused(GroupError::CoordinatorNotAvailable);
        }
        let mut parked = ParkedJoin { shard, group, member_id: as_member, waiter, answered: false };
        let result = answer.await;
        parked.answered = true;
        result.unwrap_or_else(|_| refused(GroupError::CoordinatorNotAvailable))
    }

    /// SyncGroup. May take as long as the leader takes to assign.
    pub async fn sync(&self, group: &str, request: SyncRequest) -> SyncResult {
        let waiter = self.next_waiter();
        self.ask(group, |group, reply| Message::Sync { group, request, waiter, reply }).await
    }

    /// Heartbeat.
    pub async fn heartbeat(&self, group: &str, who: MemberIdentity) -> Result<(), GroupError> {
        self.ask(group, |group, reply| Message::Heartbeat { group, who, reply }).await
    }

    /// LeaveGroup.
    pub async fn leave(
        &self,
        group: &str,
        leaving: Vec<LeavingMember>,
    ) -> Result<Vec<LeftMember>, GroupError> {
        self.ask(group, |group, reply| Message::Leave { group, leaving, reply }).await
    }

    /// OffsetCommit: answered when the offsets are durable. One result per offset, in order.
    pub async fn commit(
        &self,
        group: &str,
        request: CommitRequest,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.writable().await?;
        self.commit_placed(group, request, None).await
    }

    /// TxnOffsetCommit: as [`Groups::commit`], but the offsets count once the producer's transaction is committed.
    pub async fn commit_in_transaction(
        &self,
        group: &str,
        request: CommitRequest,
        producer: ProducerIdentity,
        placed: Placed,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.commit_placed(group, CommitRequest { transaction: Some(producer), ..request }, Some(placed))
            .await
    }

    /// As [`Groups::commit_in_transaction`], but returns once the offsets have their place in the log. On an error some
    /// of them may have one: the transaction must be aborted.
    pub async fn place_in_transaction(
        &self,
        group: &str,
        request: CommitRequest,
        producer: ProducerIdentity,
    ) -> Result<(), GroupError> {
        let transaction = Some(producer).filter(|_| !Mutant::OffsetsBesideTransaction.is_on());
        let (group, request) = (GroupId::from(group), Box::new(CommitRequest { transaction, ..request }));
        let (sender, placed) = oneshot::channel();
        // The producer waits for the end of the transaction, which is durable after the offsets.
        let (reply, _) = oneshot::channel();
        // A receiver that is gone has been cancelled, and needs no telling.
        let tell: Placed = Box::new(move |result| {
            let _ = sender.send(result);
        });
        let shard = self.shard(&group);
        let commit = Message::Commit { group, request, placed: Some(tell), reply };
        shard.send(commit).await.map_err(|_| GroupError::CoordinatorNotAvailable)?;
        placed.await.map_err(|_| GroupError::CoordinatorNotAvailable)?
    }

    /// As [`Groups::commit`], and tells when the offsets have their place in the log.
    pub async fn commit_placed(
        &self,
        group: &str,
        request: CommitRequest,
        placed: Option<Placed>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let request = Box::new(request);
        self.ask(group, |group, reply| Message::Commit { group, request, placed, reply }).await
    }

    /// Ends a producer's transaction in a partition of `__consumer_offsets`. The marker has its place when this
    /// returns; what it gives is heard of when the offsets count, or are dropped.
    pub async fn end_transaction(
        &self,
        partition: i32,
        marker: TxnMarker,
    ) -> Result<oneshot::Receiver<Result<(), GroupError>>, GroupError> {
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let shard = self.inner.shards.get(index).ok_or(GroupError::CoordinatorNotAvailable)?;
        let (applied, heard) = oneshot::channel();
        ask(shard, |reply| Message::EndTransaction { marker, applied, reply }).await?;
        Ok(heard)
    }

    /// The partition of `__consumer_offsets` that has a group's offsets.
    pub fn partition_of(&self, group: &str) -> i32 {
        i32::try_from(partition_of(group, self.inner.shards.len())).unwrap_or(0)
    }

    /// OffsetFetch of one group.
    pub async fn fetch(&self, group: &str, request: FetchRequest) -> Result<FetchedTopics, GroupError> {
        self.ask(group, |group, reply| Message::Fetch { group, request, reply }).await
    }

    /// OffsetDelete. One result per partition, in order.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.ask(group, |group, reply| Message::DeleteOffsets { group, partitions, reply }).await
    }

    /// DeleteGroups, one group.
    pub async fn delete(&self, group: &str) -> Result<(), GroupError> {
        self.ask(group, |group, reply| Message::Delete { group, reply }).await
    }

    /// DescribeGroups, one group; `None` when it is not there.
    pub async fn describe(&self, group: &str) -> Result<Option<GroupDescription>, GroupError> {
        self.ask(group, |group, reply| Message::Describe { group, reply }).await
    }

    /// ListGroups. Fails while a shard cannot tell, rather than leave its groups out.
    pub async fn list(&self) -> Result<Vec<GroupListing>, GroupError> {
        let mut all = Vec::new();
        for listed in self.ask_all(|reply| Message::List { reply }).await {
            all.extend(listed?);
        }
        all.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        Ok(all)
    }

    /// At most `limit` groups whose ids come after `after`, in order. Shards that are still reading their log are left
    /// out.
    pub async fn summaries(&self, after: &str, limit: usize) -> Vec<GroupSummary> {
        let mut all = Vec::new();
        for shard in &self.inner.shards {
            let after = GroupId::from(after);
            if let Ok(groups) = ask(shard, |reply| Message::Summaries { after, limit, reply }).await {
                all.extend(groups);
            }
        }
        all.sort_unstable_by(|a, b| a.group.group_id.cmp(&b.group.group_id));
        all.truncate(limit);
        all
    }

    /// Every group with its committed offsets, in order of the ids, until that is `offsets_max` offsets: later groups
    /// come without. Shards that are still reading their log are left out.
    pub async fn committed(&self, offsets_max: usize) -> Vec<GroupOffsets> {
        let (mut all, mut left) = (Vec::new(), offsets_max);
        for shard in &self.inner.shards {
            let mut after = GroupId::from("");
            // A page at a time: an owner has other requests to look at.
            while let Ok(page) =
                ask(shard, |reply| Message::Committed { after, offsets_max: left, reply }).await
            {
                left -= page.groups.iter().map(|group| group.committed.len()).sum::<usize>();
                let last = page.groups.last().map(|group| group.summary.group.group_id.clone());
                all.extend(page.groups);
                match last.filter(|_| page.more) {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        all.sort_unstable_by(|a, b| a.summary.group.group_id.cmp(&b.summary.group.group_id));
        all
    }

    /// Asks every shard, all of them before any answer is waited for.
    async fn ask_all<T>(
        &self,
        message: impl Fn(oneshot::Sender<Result<T, GroupError>>) -> Message,
    ) -> Vec<Result<T, GroupError>> {
        let mut asked = Vec::with_capacity(self.inner.shards.len());
        for shard in &self.inner.shards {
            let (reply, answer) = oneshot::channel();
            asked.push(shard.send(message(reply)).await.map(|()| answer));
        }
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            // An owner that is gone has been stopped with the broker.
            let stopped = Err(GroupError::CoordinatorNotAvailable);
            answers.push(match answer {
                Ok(answer) => answer.await.unwrap_or(stopped),
                Err(_) => stopped,
            });
        }
        answers
    }

    /// A topic has been deleted: what groups have committed for it goes too. A shard that is still reading its log
    /// fails; the caller may try again, or leave the offsets to expire.
    pub async fn topic_deleted(&self, topic: &str) -> Result<(), GroupError> {
        let topic: Arc<str> = Arc::from(topic);
        let told = self.ask_all(|reply| Message::TopicDeleted { topic: Arc::clone(&topic), reply }).await;
        told.into_iter().fold(Ok(()), Result::and)
    }

    /// Has each shard look whether its log has grown so much that a snapshot is due. Ends when none is under way any
    /// more; nobody has to wait for that.
    pub fn snapshot_when_due(&self) -> impl Future<Output = ()> + use<> {
        let mut under_way = Vec::with_capacity(self.inner.shards.len());
        for shard in &self.inner.shards {
            let (over, ended) = oneshot::channel();
            // One whose queue is full is asked again the next time.
            drop(shard.try_send(Message::SnapshotWhenDue { over }));
            under_way.push(ended);
        }
        async move {
            for ended in under_way {
                // Nothing is said: it is over when the other end is gone.
                let _: Result<(), _> = ended.await;
            }
        }
    }

    /// Refuses waiting and new requests, as a coordinator that is moving does: clients look for another and join again.
    /// Requests whose records are on their way to the log are still answered.
    pub async fn stop(&self) {
        for shard in &self.inner.shards {
            // One that has stopped already needs no telling.
            drop(shard.send(Message::Stop).await);
        }
    }

    async fn writable(&self) -> Result<(), GroupError> {
        self.ensure_topic().await.map_err(|error| {
            tracing::warn!(%error, "groups cannot be served until `__consumer_offsets` can be created");
            GroupError::CoordinatorNotAvailable
        })
    }

    fn next_waiter(&self) -> Waiter {
        Waiter(self.inner.next_waiter.fetch_add(1, Ordering::Relaxed))
    }

    fn shard(&self, group: &str) -> mpsc::Sender<Message> {
        self.inner.shards[partition_of(group, self.inner.shards.len())].clone()
    }

    async fn ask<T>(
        &self,
        group: &str,
        message: impl FnOnce(GroupId, oneshot::Sender<Result<T, GroupError>>) -> Message,
    ) -> Result<T, GroupError> {
        let group = GroupId::from(group);
        ask(&self.shard(&group), |reply| message(group, reply)).await
    }
}

async fn ask<T>(
    shard: &mpsc::Sender<Message>,
    message: impl FnOnce(oneshot::Sender<Result<T, GroupError>>) -> Message,
) -> Result<T, GroupError> {
    let (reply, answer) = oneshot::channel();
    // An owner that is gone has been stopped with the broker.
    shard.send(message(reply)).await.map_err(|_| GroupError::CoordinatorNotAvailable)?;
    answer.await.map_err(|_| GroupError::CoordinatorNotAvailable)?
}

/// Tells the owner when a JoinGroup is given up before it was answered, because its connection has closed.
struct ParkedJoin {
    shard: mpsc::Sender<Message>,
    group: GroupId,
    member_id: String,
    waiter: Waiter,
    answered: bool,
}

impl Drop for ParkedJoin {
    fn drop(&mut self) {
        if !self.answered {
            let group = self.group.clone();
            let member_id = std::mem::take(&mut self.member_id);
            // A full queue loses the hint; then the member's time-out finds out.
            let hint = Message::AbandonJoin { group, member_id, waiter: self.waiter };
            drop(self.shard.try_send(hint));
        }
    }
}

/// The partition of `__consumer_offsets` that a group belongs to: Java's string hash, as Kafka places groups.
pub fn partition_of(group: &str, partitions: usize) -> usize {
    let hash =
        group.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's absolute value takes the smallest number for 0.
    let hash = hash.checked_abs().unwrap_or(0).unsigned_abs() as usize;
    hash % partitions
}

#[cfg(test)]
mod tests;
