//! The state machine as its clients see it: requests and time go in, answers and records come out.

mod invariants;
mod offsets;
mod random;
mod rebalances;
mod replies;
mod statics;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::config::GroupLimits;
use super::error::GroupError;
use super::records;
use super::shard::{GroupCount, Shard};
use super::state::{Group, State};
use super::store::Stored;
use super::subscription;
use super::types::*;
use pelton_partitions::producer_id::ProducerIdentity;

pub(super) const SESSION_MS: i32 = 10_000;
pub(super) const REBALANCE_MS: i32 = 60_000;
pub(super) const DELAY_MS: i32 = 3_000;
pub(super) const START_MS: i64 = 1_700_000_000_000;

/// A shard, a clock, and a log whose appends become durable when the test says so.
pub(super) struct Scene {
    pub(super) shard: Shard,
    pub(super) now: Now,
    pub(super) limits: GroupLimits,
    pub(super) answers: HashMap<Waiter, Reply>,
    /// Every record appended, and how many of them are durable.
    pub(super) log: Vec<Stored>,
    pub(super) durable: usize,
    /// Records before it are superseded by a snapshot.
    pub(super) start: usize,
    /// The snapshot that is on its way.
    pub(super) snapshot_on_its_way: Option<SnapshotOnItsWay>,
    pub(super) in_flight: VecDeque<(Append, i64)>,
    /// Appends become durable at once.
    pub(super) quick: bool,
    next: u64,
}

/// Appends that have to come to an end, and then those of the snapshot itself, well, before the log lets go what is
/// before an offset.
pub(super) struct SnapshotOnItsWay {
    ahead: usize,
    own: usize,
    before: usize,
}

/// Who joins, and how.
#[derive(Clone)]
pub(super) struct Joiner {
    pub(super) version: i16,
    pub(super) member: String,
    pub(super) instance: Option<String>,
    pub(super) protocol_type: String,
    pub(super) protocols: Vec<Protocol>,
    pub(super) session_ms: i32,
}

/// A member that is new to the group and speaks the version of current clients.
pub(super) fn new_member() -> Joiner {
    Joiner {
        version: 9,
        member: String::new(),
        instance: None,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", &["t"])],
        session_ms: SESSION_MS,
    }
}

pub(super) fn member(id: &str) -> Joiner {
    Joiner { member: id.to_owned(), ..new_member() }
}

pub(super) fn protocol(name: &str, topics: &[&str]) -> Protocol {
    Protocol { name: name.to_owned(), metadata: subscription::of(topics) }
}

pub(super) fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: Arc::from(topic), partition }
}

pub(super) fn identity(member: &str, generation_id: i32) -> MemberIdentity {
    MemberIdentity { member_id: member.to_owned(), group_instance_id: None, generation_id }
}

impl Scene {
    pub(super) fn new() -> Scene {
        Scene::with(GroupLimits { initial_rebalance_delay_ms: DELAY_MS, ..GroupLimits::default() })
    }

    /// A scene in which the first rebalance does not wait.
    pub(super) fn eager() -> Scene {
        Scene::with(GroupLimits { initial_rebalance_delay_ms: 0, ..GroupLimits::default() })
    }

    pub(super) fn with(limits: GroupLimits) -> Scene {
        Scene {
            shard: Shard::new(limits.clone(), GroupCount::default()),
            now: Now { wall_ms: START_MS, mono_ms: 0 },
            limits,
            answers: HashMap::new(),
            log: Vec::new(),
            durable: 0,
            start: 0,
            snapshot_on_its_way: None,
            in_flight: VecDeque::new(),
            quick: true,
            next: 0,
        }
    }

    pub(super) fn group(&self) -> &Group {
        self.shard.get("g").expect("the group of the scene is there")
    }

    pub(super) fn state(&self) -> Option<State> {
        self.shard.get("g").map(|g| g.state)
    }

    pub(super) fn join_to(&mut self, group: &str, who: &Joiner) -> Waiter {
        let (waiter, fresh) = self.fresh(who);
        let request = JoinRequest {
            member_id: who.member.clone(),
            group_instance_id: who.instance.clone(),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: who.session_ms,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: who.protocol_type.clone(),
            protocols: who.protocols.clone(),
            require_known_member_id: who.version >= 4 && who.instance.is_none() && who.member.is_empty(),
            supports_skip_assignment: who.version >= 9,
            fresh_member_id: fresh,
        };
        let effects = self.shard.join(&GroupId::from(group), request, waiter, self.now);
        self.take(effects);
        waiter
    }

    pub(super) fn join(&mut self, who: &Joiner) -> Waiter {
        self.join_to("g", who)
    }

    fn fresh(&mut self, who: &Joiner) -> (Waiter, MemberId) {
        self.next += 1;
        let prefix = who.instance.as_deref().unwrap_or("m");
        (Waiter(self.next), MemberId::from(format!("{prefix}-{}", self.next)))
    }

    pub(super) fn sync(&mut self, member: &str, generation: i32, given: &[(&str, &str)]) -> Waiter {
        self.sync_as(member, None, generation, given)
    }

    pub(super) fn sync_as(
        &mut self,
        member: &str,
        instance: Option<&str>,
        generation_id: i32,
        given: &[(&str, &str)],
    ) -> Waiter {
        self.next += 1;
        let waiter = Waiter(self.next);
        let request = SyncRequest {
            member_id: member.to_owned(),
            group_instance_id: instance.map(str::to_owned),
            generation_id,
            protocol_type: None,
            protocol_name: None,
            assignments: given
                .iter()
                .map(|(id, text)| ((*id).to_owned(), Bytes::copy_from_slice(text.as_bytes())))
                .collect(),
        };
        let effects = self.shard.sync("g", request, waiter, self.now);
        self.take(effects);
        waiter
    }

    pub(super) fn beat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        self.shard.heartbeat("g", &identity(member, generation), self.now)
    }

    pub(super) fn leave(&mut self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        let leaving =
            LeavingMember { member_id: member.to_owned(), group_instance_id: instance.map(str::to_owned) };
        let (left, effects) = self.shard.leave("g", vec![leaving], self.now);
        self.take(effects);
        left.map(|mut left| left.remove(0).result)?
    }

    pub(super) fn commit(&mut self, who: MemberIdentity, topic: &str, offset: i64) -> Result<(), GroupError> {
        let offsets =
            vec![OffsetToCommit { at: at(topic, 0), offset, leader_epoch: -1, metadata: "text".to_owned() }];
        let request = CommitRequest {
            who,
            retention_ms: None,
            knows_group_id_not_found: true,
            offsets,
            transaction: None,
        };
        let (results, effects) = self.shard.commit(&GroupId::from("g"), request, self.now);
        self.take(effects);
        results?.remove(0)
    }

    /// As [`Scene::commit`], in a transaction of this producer.
    pub(super) fn commit_in_transaction(
        &mut self,
        producer_id: i64,
        group: &str,
        topic: &str,
        offset: i64,
    ) -> Result<(), GroupError> {
        self.commit_in_transaction_as(identity("", NO_GENERATION), producer_id, group, topic, offset)
    }

    pub(super) fn commit_in_transaction_as(
        &mut self,
        who: MemberIdentity,
        producer_id: i64,
        group: &str,
        topic: &str,
        offset: i64,
    ) -> Result<(), GroupError> {
        let offsets =
            vec![OffsetToCommit { at: at(topic, 0), offset, leader_epoch: -1, metadata: String::new() }];
        let request = CommitRequest {
            who,
            retention_ms: None,
            knows_group_id_not_found: true,
            offsets,
            transaction: Some(ProducerIdentity { id: producer_id, epoch: 0 }),
        };
        let (results, effects) = self.shard.commit(&GroupId::from(group), request, self.now);
        self.take(effects);
        results?.remove(0)
    }

    /// The marker of a producer's transaction goes to the log.
    pub(super) fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        let then = Then::EndTransaction { producer_id, commit };
        let append = Append { group: "".into(), transaction: None, records: Vec::new(), then };
        self.take(Effects { replies: Vec::new(), appends: vec![append] });
    }

    pub(super) fn committed(&self, topic: &str) -> Option<i64> {
        let request = FetchRequest { topics: Some(vec![(Arc::from(topic), vec![0])]), require_stable: false };
        let fetched = self.shard.fetch(&GroupId::from("g"), &request, self.now);
        fetched[0].1[0].result.clone().unwrap().map(|value| value.offset)
    }

    /// Time passes, deadline by deadline.
    pub(super) fn advance(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while let Some(at) = self.shard.next_deadline_ms().filter(|at| *at <= end) {
            self.move_clock(at.max(self.now.mono_ms));
            while let Some(effects) = self.shard.fire(self.now) {
                self.take(effects);
            }
        }
        self.move_clock(end);
    }

    fn move_clock(&mut self, mono_ms: u64) {
        self.now.wall_ms += i64::try_from(mono_ms - self.now.mono_ms).unwrap();
        self.now.mono_ms = mono_ms;
    }

    pub(super) fn take(&mut self, effects: Effects) {
        for reply in effects.replies {
            let waiter = match &reply {
                Reply::Join(waiter, _) | Reply::Sync(waiter, _) => *waiter,
            };
            assert!(self.answers.insert(waiter, reply).is_none(), "{waiter:?} was answered twice");
        }
        for append in effects.appends {
            let base = i64::try_from(self.log.len()).unwrap();
            let producer_id = append.transaction.map(|producer| producer.id);
            for (offset, record) in (base..).zip(&append.records) {
                let (key, value) = records::encode(record).unwrap();
                self.log.push(Stored::Record { offset, producer_id, key, value });
            }
            if let Then::EndTransaction { producer_id, commit } = append.then {
                self.log.push(Stored::Marker { producer_id, commit });
            }
            self.in_flight.push_back((append, base));
        }
        if self.quick {
            while self.land(true) {}
        }
    }

    /// The oldest append becomes durable, or fails and leaves nothing in the log. (A marker has no place until it is
    /// sure of one: it does not fail.)
    pub(super) fn land(&mut self, well: bool) -> bool {
        let Some((append, base)) = self.in_flight.pop_front() else { return false };
        let result = if let Then::EndTransaction { producer_id, commit } = append.then {
            self.durable += 1;
            self.shard.end_transaction(producer_id, commit);
            Ok(base)
        } else if well {
            self.durable += append.records.len();
            Ok(base)
        } else {
            let (from, count) = (self.durable, append.records.len());
            self.log.drain(from..from + count);
            for record in &mut self.log[from..] {
                if let Stored::Record { offset, .. } = record {
                    *offset -= i64::try_from(count).unwrap();
                }
            }
            self.in_flight.iter_mut().for_each(|(_, base)| *base -= i64::try_from(count).unwrap());
            Err(GroupError::CoordinatorNotAvailable)
        };
        self.landed_before_snapshot(result.is_ok());
        let effects = self.shard.landed(&append.group, append.then, result, self.now);
        self.take(effects);
        true
    }

    /// Writes a snapshot. What it supersedes is let go when it has landed.
    pub(super) fn snapshot(&mut self) {
        let on_their_way = self.in_flight.iter().filter(|(append, _)| append.then.is_of_members());
        let on_their_way = on_their_way.map(|(append, _)| append.group.clone()).collect();
        let (effects, needed) = self.shard.snapshot(&on_their_way);
        let before = needed.map_or(self.durable, |needed| self.durable.min(usize::try_from(needed).unwrap()));
        let (ahead, own) = (self.in_flight.len(), effects.appends.len());
        if own == 0 {
            self.start = self.start.max(before);
        } else {
            self.snapshot_on_its_way = Some(SnapshotOnItsWay { ahead, own, before });
        }
        self.take(effects);
    }

    fn landed_before_snapshot(&mut self, well: bool) {
        let Some(snapshot) = &mut self.snapshot_on_its_way else { return };
        if snapshot.ahead > 0 {
            snapshot.ahead -= 1;
        } else if well {
            snapshot.own -= 1;
        } else {
            self.snapshot_on_its_way = None;
        }
        if let Some(landed) = self.snapshot_on_its_way.take_if(|snapshot| snapshot.own == 0) {
            self.start = self.start.max(landed.before);
        }
    }

    /// The groups as a coordinator that starts now would find them.
    pub(super) fn replayed(&self) -> Shard {
        self.replayed_from(self.start)
    }

    pub(super) fn replayed_from(&self, start: usize) -> Shard {
        let mut shard = Shard::new(self.limits.clone(), GroupCount::default());
        for record in &self.log[start..self.durable] {
            shard.replay(record.clone(), self.now).unwrap();
        }
        shard.resume(self.now);
        shard
    }

    pub(super) fn joined(&self, waiter: Waiter) -> Option<JoinResult> {
        match self.answers.get(&waiter)? {
            Reply::Join(_, result) => Some(result.clone()),
            Reply::Sync(..) => panic!("{waiter:?} is a SyncGroup"),
        }
    }

    pub(super) fn synced(&self, waiter: Waiter) -> Option<SyncResult> {
        match self.answers.get(&waiter)? {
            Reply::Sync(_, result) => Some(result.clone()),
            Reply::Join(..) => panic!("{waiter:?} is a JoinGroup"),
        }
    }

    pub(super) fn join_error(&self, waiter: Waiter) -> GroupError {
        self.joined(waiter).expect("answered").expect_err("refused").error
    }

    /// The id of a dynamic member: told by the refusal of its first JoinGroup.
    pub(super) fn member_id(&mut self) -> String {
        let first = self.join(&new_member());
        let refused = self.joined(first).unwrap().unwrap_err();
        assert_eq!(refused.error, GroupError::MemberIdRequired);
        refused.member_id
    }

    /// A stable group of `count` dynamic members, the leader first. The assignment of each is its own id.
    pub(super) fn stable(&mut self, count: usize) -> Vec<String> {
        let ids: Vec<String> = (0..count).map(|_| self.member_id()).collect();
        for id in &ids {
            self.join(&member(id));
        }
        if self.group().initial_delay.is_some() {
            self.advance(u64::try_from(DELAY_MS).unwrap() * 2);
        }
        // Those that were in before the others came are called in again.
        for id in &ids {
            if self.state() == Some(State::PreparingRebalance) {
                self.join(&member(id));
            }
        }
        self.settle(&ids)
    }

    /// Everybody has joined: the leader assigns to each member its own id.
    pub(super) fn settle(&mut self, ids: &[String]) -> Vec<String> {
        let (generation, leader) =
            (self.group().generation, self.group().leader.clone().unwrap().to_string());
        let given: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        self.sync(&leader, generation, &given);
        let mut ordered = vec![leader.clone()];
        for id in ids.iter().filter(|id| **id != leader) {
            self.sync(id, generation, &[]);
            ordered.push(id.clone());
        }
        ordered
    }
}
