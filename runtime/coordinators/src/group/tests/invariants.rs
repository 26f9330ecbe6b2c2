//! What holds after every step, whatever the steps were.

use std::collections::BTreeMap;

use super::super::state::GroupTimer;
use super::*;

impl Scene {
    pub(super) fn check_invariants(&self) {
        for group in self.shard.groups() {
            check_group(group);
        }
        self.shard.check_transactions();
        self.shard.check_expiries();
        self.check_replay();
        self.check_let_go();
        for (_, result) in self.answers.values().filter_map(|reply| match reply {
            Reply::Join(waiter, Ok(joined)) => Some((waiter, joined)),
            Reply::Join(_, Err(_)) | Reply::Sync(..) => None,
        }) {
            let leads = &*result.member_id == result.leader.as_str();
            assert!(leads || result.members.is_empty(), "a follower was told the members: {result:?}");
        }
    }

    /// What snapshots have let go is missed nowhere.
    fn check_let_go(&self) {
        let (all, left) = (self.replayed_from(0), self.replayed());
        let said = |shard: &Shard| -> BTreeMap<GroupId, _> {
            let groups = shard.groups().filter(|group| !group.is_vacant());
            let said = groups.map(|group| {
                let offsets: Vec<_> =
                    group.offsets.iter().map(|(at, value)| (at.clone(), value.clone())).collect();
                let members = group.recorded.then(|| group.metadata(|id| group.assignment_of(id)));
                (group.id.clone(), (offsets, group.offsets.pending().clone(), members))
            });
            said.collect()
        };
        assert_eq!(said(&all), said(&left), "the log from {} on", self.start);
    }

    /// What is durable replays to what is served: offsets always, members whenever the group is settled.
    fn check_replay(&self) {
        let replayed = self.replayed();
        for live in self.shard.groups() {
            let again = replayed.get(&live.id);
            let live_offsets: Vec<_> = live.offsets.iter().collect();
            let again_offsets: Vec<_> = again.map(|g| g.offsets.iter().collect()).unwrap_or_default();
            assert_eq!(live_offsets, again_offsets, "offsets of {}", live.id);
            let open = |g: &Group| g.offsets.pending().clone();
            assert_eq!(open(live), again.map(open).unwrap_or_default(), "open transactions of {}", live.id);
            if live.state == State::Stable && self.in_flight.is_empty() {
                let assigned = |g: &Group| g.metadata(|id| g.assignment_of(id)).members;
                let again = again.expect("a stable group is in the log");
                assert_eq!(again.state, State::Stable);
                assert_eq!(live.generation, again.generation);
                assert_eq!(live.protocol, again.protocol);
                assert_eq!(live.leader.is_some(), again.leader.is_some());
                assert_eq!(assigned(live), assigned(again));
            }
        }
        if self.in_flight.is_empty() {
            let gone =
                replayed.groups().filter(|again| self.shard.get(&again.id).is_none() && !again.is_vacant());
            assert_eq!(gone.count(), 0, "a group that is gone would come back");
        }
    }

    /// Everybody whose request waits. Each must be a member of exactly one group.
    pub(super) fn parked(&self) -> Vec<Waiter> {
        let members = self.shard.groups().flat_map(|g| g.members.iter());
        let mut parked: Vec<_> = members.flat_map(|m| [m.awaiting_join, m.awaiting_sync]).flatten().collect();
        parked.extend(self.in_flight.iter().filter_map(|(append, _)| match &append.then {
            Then::ReplaceStatic { waiter, .. } => Some(*waiter),
            Then::Assign { .. }
            | Then::Emptied
            | Then::Offsets(_)
            | Then::Pending { .. }
            | Then::EndTransaction { .. }
            | Then::Delete { .. } => None,
        }));
        parked.sort();
        parked
    }
}

fn check_group(group: &Group) {
    let members = &group.members;
    let parked = members.iter().filter(|m| m.awaiting_join.is_some()).count();
    assert_eq!(members.awaiting_join(), parked);
    match &group.leader {
        Some(leader) => assert!(members.get(leader).is_some(), "the leader is a member"),
        None => assert!(members.is_empty(), "members without a leader"),
    }
    assert!(group.pending_sync.iter().all(|id| members.get(id).is_some()));
    assert!(group.pending_members.iter().all(|id| members.get(id).is_none()));
    for id in &group.pending_members {
        assert!(group.timers.is_set(&GroupTimer::Pending(id.clone())), "a told id would stay for ever");
    }
    for member in members.iter() {
        let watched = group.timers.is_set(&GroupTimer::Session(member.id.clone()));
        assert!(watched || member.cannot_expire(), "member {} would stay for ever", member.id);
        assert!(member.awaiting_join.is_none() || group.state == State::PreparingRebalance);
        assert!(member.awaiting_sync.is_none() || group.state == State::CompletingRebalance);
    }
    match group.state {
        State::Empty | State::Dead => assert!(members.is_empty()),
        State::PreparingRebalance => {
            assert!(group.timers.is_set(&GroupTimer::Join), "a rebalance without end")
        }
        State::CompletingRebalance => {
            let assigning = group.assigning == Some(group.generation);
            assert!(assigning || group.timers.is_set(&GroupTimer::Sync), "an assignment without end");
            assert!(group.protocol.is_some());
        }
        State::Stable => assert!(group.protocol.is_some() && !members.is_empty()),
    }
}
