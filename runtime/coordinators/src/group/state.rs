//! The state of one group and the moves between its states. Pure: requests and times come in, replies and records go
//! out.
//!
//! ```text
//!             join                 all joined, or time is up             leader's assignment durable
//!   Empty ---------> PreparingRebalance -------------> CompletingRebalance -----------------> Stable
//!     ^                 |        ^                             |                                |
//!     +-- nobody left --+        +------ join, leave, expiry --+--------------------------------+
//!   Empty -- deleted or expired --> Dead (until its tombstone is durable)
//! ```

use std::collections::BTreeSet;

use super::config::GroupLimits;
use super::error::GroupError;
use super::members::Members;
use super::offsets::Offsets;
use super::records::{GroupMetadata, MemberMetadata};
use super::subscription;
use super::types::{Append, Effects, GroupId, GroupRecord, JoinRefused, MemberId, Now, Reply, Then};
use crate::timer::TimerQueue;

/// The protocol type of consumers, whose metadata tells which topics they are subscribed to.
pub(super) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// How long a JoinGroup of a member that has never been answered may wait, in milliseconds. Kafka's value. The client
/// cannot send heartbeats yet, so nothing else would tell that it has gone.
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// Kafka's states of a classic group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No members; offsets may remain.
    Empty,
    /// Waiting for the members to join.
    PreparingRebalance,
    /// All have joined; waiting for the leader to assign.
    CompletingRebalance,
    /// Every member has, or can fetch, its assignment.
    Stable,
    /// Deleted; gone as soon as that is durable.
    Dead,
}

impl State {
    /// Kafka's name, as ListGroups and DescribeGroups tell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
            State::Dead => "Dead",
        }
    }
}

/// A deadline of a group: how long it waits …
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum GroupTimer {
    /// for its members to join;
    Join,
    /// for its members to ask for their assignment;
    Sync,
    /// for a heartbeat of a member;
    Session(MemberId),
    /// for a member to join with the id that it was given.
    Pending(MemberId),
}

/// The first rebalance of a group waits a while, since members of a new application start one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialDelay {
    /// How much longer the delay may be extended.
    pub remaining_ms: i32,
    /// A member has joined since the delay was set.
    pub newcomer: bool,
}

/// One consumer group: its members and its committed offsets.
#[derive(Debug)]
pub(super) struct Group {
    pub id: GroupId,
    pub state: State,
    /// When the state was entered; part of the record, and where the retention of an empty group starts.
    pub state_since_ms: i64,
    // Invariant: never falls while the group lives.
    pub generation: i32,
    /// `None` for a group that only ever committed offsets.
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    // Invariant: one of `members`, unless there are none.
    pub leader: Option<MemberId>,
    pub members: Members,
    /// Ids given out but not yet joined with (KIP-394).
    pub pending_members: BTreeSet<MemberId>,
    /// Members of this generation that have not asked for their assignment.
    // Invariant: a subset of `members`.
    pub pending_sync: BTreeSet<MemberId>,
    pub initial_delay: Option<InitialDelay>,
    /// The generation whose assignment is on its way to the log.
    pub assigning: Option<i32>,
    /// Topics of this generation's subscriptions; `None` when they cannot be told.
    pub subscribed: Option<BTreeSet<String>>,
    pub timers: TimerQueue<GroupTimer>,
    pub offsets: Offsets,
    /// Whether the log has, or is about to have, a record of the group's members.
    pub recorded: bool,
    /// Where the last durable one is.
    pub members_recorded_at: Option<i64>,
    /// How often the group was to be deleted.
    pub deletions: u32,
}

impl Group {
    pub(super) fn new(id: GroupId, now: Now) -> Group {
        Group {
            id,
            state: State::Empty,
            state_since_ms: now.wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::default(),
            pending_members: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            initial_delay: None,
            assigning: None,
            subscribed: None,
            timers: TimerQueue::default(),
            offsets: Offsets::default(),
            recorded: false,
            members_recorded_at: None,
            deletions: 0,
        }
    }

    /// Nothing in it, and nothing in the log that would bring it back.
    pub(super) fn is_vacant(&self) -> bool {
        self.state == State::Empty
            && !self.recorded
            && self.members.is_empty()
            && self.pending_members.is_empty()
            && self.offsets.is_vacant()
    }

    pub(super) fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    pub(super) fn move_to(&mut self, state: State, now: Now) {
        let legal = match state {
            State::Empty | State::CompletingRebalance => self.state == State::PreparingRebalance,
            State::PreparingRebalance => {
                matches!(self.state, State::Empty | State::CompletingRebalance | State::Stable)
            }
            State::Stable => self.state == State::CompletingRebalance,
            State::Dead => self.state == State::Empty,
        };
        assert!(legal, "a group does not go from {:?} to {state:?}", self.state);
        self.state = state;
        self.state_since_ms = now.wall_ms;
    }

    /// A sign of life: the session starts anew.
    pub(super) fn arm_session(&mut self, id: &MemberId, now: Now) {
        if let Some(member) = self.members.get(id) {
            let ms = if member.is_new { NEW_MEMBER_JOIN_TIMEOUT_MS } else { member.session_timeout_ms };
            self.timers.set(GroupTimer::Session(id.clone()), now.after(ms));
        }
    }

    /// Removes a member and answers its waiting requests. The caller goes on with [`Group::after_removal`].
    pub(super) fn remove_member(&mut self, id: &MemberId, out: &mut Effects) {
        let Some(member) = self.members.remove(id) else { return };
        self.timers.cancel(&GroupTimer::Session(id.clone()));
        self.drop_pending_sync(id);
        let unknown = GroupError::UnknownMemberId;
        if let Some(waiter) = member.awaiting_join {
            out.replies
                .push(Reply::Join(waiter, Err(JoinRefused { error: unknown, member_id: id.to_string() })));
        }
        if let Some(waiter) = member.awaiting_sync {
            out.replies.push(Reply::Sync(waiter, Err(unknown)));
        }
        if self.is_leader(id) {
            self.leader = self.members.iter().next().map(|m| m.id.clone());
        }
    }

    /// Forgets an id that no member has joined with.
    pub(super) fn remove_pending_member(&mut self, id: &MemberId) {
        self.pending_members.remove(id);
        self.timers.cancel(&GroupTimer::Pending(id.clone()));
    }

    pub(super) fn drop_pending_sync(&mut self, id: &MemberId) {
        if self.pending_sync.remove(id) && self.pending_sync.is_empty() {
            self.timers.cancel(&GroupTimer::Sync);
        }
    }

    /// Moves the group on after members were removed.
    pub(super) fn after_removal(&mut self, limits: &GroupLimits, now: Now, out: &mut Effects) {
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(limits, now, out),
            State::PreparingRebalance => self.maybe_complete_join(now, out),
            State::Empty | State::Dead => {}
        }
    }

    /// The group as its record tells it, with the given assignments.
    pub(super) fn metadata(&self, assignment: impl Fn(&MemberId) -> bytes::Bytes) -> GroupMetadata {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self
            .members
            .iter()
            .map(|m| MemberMetadata {
                member_id: m.id.to_string(),
                group_instance_id: m.group_instance_id.as_deref().map(str::to_owned),
                client_id: m.client_id.clone(),
                client_host: m.client_host.clone(),
                rebalance_timeout_ms: m.rebalance_timeout_ms,
                session_timeout_ms: m.session_timeout_ms,
                subscription: m.metadata(protocol),
                assignment: assignment(&m.id),
            })
            .collect();
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            state_since_ms: self.state_since_ms,
            members,
        }
    }

    pub(super) fn metadata_record(&self, value: Option<GroupMetadata>) -> GroupRecord {
        GroupRecord::Metadata { group: self.id.clone(), value }
    }

    pub(super) fn append(&self, record: GroupRecord, then: Then) -> Append {
        Append { group: self.id.clone(), transaction: None, records: vec![record], then }
    }

    /// The topics that the members of this generation are subscribed to. `None` when the protocol is not the
    /// consumers' or a member's metadata does not read: then no topic may be taken for unused.
    pub(super) fn find_subscribed(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER_PROTOCOL_TYPE) {
            return None;
        }
        let Some(protocol) = &self.protocol else { return Some(BTreeSet::new()) };
        let mut topics = BTreeSet::new();
        for member in self.members.iter() {
            topics.extend(subscription::topics(member.metadata(protocol))?);
        }
        Some(topics)
    }

    /// Whether a member may be subscribed to `topic`.
    pub(super) fn may_be_subscribed(&self, topic: &str) -> bool {
        self.state != State::Empty && self.subscribed.as_ref().is_none_or(|topics| topics.contains(topic))
    }
}
