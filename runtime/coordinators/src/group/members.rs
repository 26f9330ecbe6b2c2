//! The members of a group, and the counts over them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use super::member::Member;
use super::types::{JoinRequest, JoinedMember, MemberId, Protocol, Waiter};

/// All members by id, in an order that does not depend on hashing.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<MemberId, Member>,
    // Invariant: exactly the static members of `by_id`, by instance id.
    by_instance: HashMap<Arc<str>, MemberId>,
    // Invariant: for each protocol name, how many members of `by_id` list it; no zeros.
    support: HashMap<String, usize>,
    // Invariant: how many members of `by_id` have `awaiting_join`.
    awaiting_join: usize,
    // Invariant: the bytes of all metadata of `by_id`.
    metadata_bytes: usize,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }

    pub(super) fn ids(&self) -> Vec<MemberId> {
        self.by_id.keys().cloned().collect()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }

    pub(super) fn instance(&self, group_instance_id: &str) -> Option<&MemberId> {
        self.by_instance.get(group_instance_id)
    }

    /// Members whose JoinGroup waits.
    pub(super) fn awaiting_join(&self) -> usize {
        self.awaiting_join
    }

    /// Bytes of metadata that there would be with `id` listing `protocols`.
    pub(super) fn metadata_bytes_with(&self, id: &str, protocols: &[Protocol]) -> usize {
        let own = self.get(id).map_or(0, |m| metadata_bytes(&m.protocols));
        self.metadata_bytes - own + metadata_bytes(protocols)
    }

    /// The longest time that a member may take to join again.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.iter().map(|m| m.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Whether `id` is a member, and the one that its instance id belongs to.
    pub(super) fn check(&self, id: &str, group_instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = group_instance_id {
            match self.by_instance.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(known) if &**known != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.by_id.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Adds a member. Its id and instance id must be free.
    pub(super) fn insert(&mut self, member: Member) {
        assert!(!self.by_id.contains_key(&member.id), "a member id is given once");
        if let Some(instance) = &member.group_instance_id {
            let before = self.by_instance.insert(instance.clone(), member.id.clone());
            assert!(before.is_none(), "an instance id belongs to one member");
        }
        self.count(&member.protocols, 1);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.metadata_bytes += metadata_bytes(&member.protocols);
        self.by_id.insert(member.id.clone(), member);
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        if let Some(instance) = &member.group_instance_id {
            self.by_instance.remove(instance);
        }
        self.count(&member.protocols, -1);
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
        self.metadata_bytes -= metadata_bytes(&member.protocols);
        Some(member)
    }

    /// Takes over the metadata of a joining member.
    pub(super) fn update(&mut self, id: &str, request: &JoinRequest) {
        let Some(mut member) = self.remove(id) else { return };
        member.protocols.clone_from(&request.protocols);
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.session_timeout_ms = request.session_timeout_ms;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.insert(member);
    }

    /// Gives a member another id; everything else stays.
    pub(super) fn rename(&mut self, from: &str, to: &MemberId) {
        let Some(mut member) = self.remove(from) else { return };
        member.id = to.clone();
        self.insert(member);
    }

    /// Parks a JoinGroup; gives back the one it replaces.
    pub(super) fn park_join(&mut self, id: &str, waiter: Waiter) -> Option<Waiter> {
        let member = self.by_id.get_mut(id)?;
        let before = member.awaiting_join.replace(waiter);
        self.awaiting_join += usize::from(before.is_none());
        before
    }

    /// Takes the parked JoinGroup.
    pub(super) fn take_join(&mut self, id: &str) -> Option<Waiter> {
        let before = self.by_id.get_mut(id)?.awaiting_join.take()?;
        self.awaiting_join -= 1;
        Some(before)
    }

    /// Parks a SyncGroup; gives back the one it replaces.
    pub(super) fn park_sync(&mut self, id: &str, waiter: Waiter) -> Option<Waiter> {
        self.by_id.get_mut(id)?.awaiting_sync.replace(waiter)
    }

    /// Takes the parked SyncGroup.
    pub(super) fn take_sync(&mut self, id: &str) -> Option<Waiter> {
        self.by_id.get_mut(id)?.awaiting_sync.take()
    }

    pub(super) fn set_assignment(&mut self, id: &str, assignment: Bytes) {
        if let Some(member) = self.by_id.get_mut(id) {
            member.assignment = assignment;
        }
    }

    /// The member has been answered, so it knows its id and sends heartbeats.
    pub(super) fn mark_known(&mut self, id: &str) {
        if let Some(member) = self.by_id.get_mut(id) {
            member.is_new = false;
        }
    }

    /// Whether one of `protocols` is listed by every member.
    pub(super) fn share_one_of(&self, protocols: &[Protocol]) -> bool {
        protocols.iter().any(|p| self.is_common(&p.name))
    }

    /// The protocol of the next generation: each member votes for the first of its list that all members have. A tie
    /// goes to the name that sorts first, so that the same votes give the same answer.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.iter() {
            let vote = member.protocols.iter().find(|p| self.is_common(&p.name))?;
            *votes.entry(&vote.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// The members, as the leader gets them.
    pub(super) fn for_leader(&self, protocol: &str) -> Vec<JoinedMember> {
        self.iter()
            .map(|m| JoinedMember {
                member_id: m.id.clone(),
                group_instance_id: m.group_instance_id.as_deref().map(str::to_owned),
                metadata: m.metadata(protocol),
            })
            .collect()
    }

    fn is_common(&self, protocol: &str) -> bool {
        self.support.get(protocol) == Some(&self.by_id.len())
    }

    fn count(&mut self, protocols: &[Protocol], by: isize) {
        for protocol in protocols {
            let count = self.support.entry(protocol.name.clone()).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.support.remove(&protocol.name);
            }
        }
    }
}

fn metadata_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|p| p.metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, instance: Option<&str>, protocols: &[&str]) -> Member {
        let protocols =
            protocols.iter().map(|p| Protocol { name: (*p).to_owned(), metadata: Bytes::new() }).collect();
        Member {
            id: Arc::from(id),
            group_instance_id: instance.map(Arc::from),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 10,
            rebalance_timeout_ms: 20,
            protocols,
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    #[test]
    fn the_protocol_is_voted_for_among_the_common_ones() {
        let check = |lists: &[&[&str]], expect: Option<&str>| {
            let mut members = Members::default();
            for (i, list) in lists.iter().enumerate() {
                members.insert(member(&format!("m{i}"), None, list));
            }
            assert_eq!(members.select_protocol().as_deref(), expect, "{lists:?}");
        };
        check(&[&["range"]], Some("range"));
        check(&[&["range", "sticky"], &["sticky", "range"], &["sticky", "range"]], Some("sticky"));
        check(&[&["range", "sticky"], &["sticky", "range"]], Some("range"));
        check(&[&["new", "range"], &["range"]], Some("range"));
        check(&[&["a"], &["b"]], None);
        check(&[], None);
    }

    #[test]
    fn an_instance_belongs_to_its_newest_member() {
        let mut members = Members::default();
        members.insert(member("a", Some("i"), &["range"]));
        members.insert(member("b", None, &["range"]));
        members.rename("a", &Arc::from("a2"));
        for (id, instance, expect) in [
            ("a2", Some("i"), Ok(())),
            ("a", Some("i"), Err(GroupError::FencedInstanceId)),
            ("a2", Some("other"), Err(GroupError::UnknownMemberId)),
            ("a2", None, Ok(())),
            ("a", None, Err(GroupError::UnknownMemberId)),
            ("b", None, Ok(())),
            ("", None, Err(GroupError::UnknownMemberId)),
        ] {
            assert_eq!(members.check(id, instance), expect, "{id} {instance:?}");
        }
    }

    #[test]
    fn counts_follow_every_change() {
        let mut members = Members::default();
        members.insert(member("a", None, &["x", "y"]));
        members.insert(member("b", None, &["y"]));
        assert_eq!(members.park_join("a", Waiter(1)), None);
        assert_eq!(members.park_join("a", Waiter(2)), Some(Waiter(1)));
        assert_eq!(members.awaiting_join(), 1);
        members.rename("a", &Arc::from("c"));
        assert_eq!(members.awaiting_join(), 1);
        assert_eq!(members.take_join("c"), Some(Waiter(2)));
        assert_eq!(members.take_join("c"), None);
        assert_eq!(members.awaiting_join(), 0);
        let x = [Protocol { name: "x".into(), metadata: Bytes::new() }];
        assert!(!members.share_one_of(&x));
        members.remove("b");
        assert!(members.share_one_of(&x));
        let long = [Protocol { name: "z".into(), metadata: Bytes::from_static(b"12345") }];
        assert_eq!(members.metadata_bytes_with("c", &long), 5);
        members.insert(Member { protocols: long.to_vec(), ..member("d", None, &[]) });
        assert_eq!(members.metadata_bytes_with("c", &long), 10);
        assert_eq!(members.metadata_bytes_with("d", &x), 0);
    }
}
