//! Committed offsets: who may commit, what reads see, and when they go.

use super::*;

const DAY_MS: u64 = 24 * 3_600_000;

fn outside() -> MemberIdentity {
    identity("", NO_GENERATION)
}

impl Scene {
    fn expire(&mut self) {
        let effects = self.shard.expire(self.now);
        self.take(effects);
    }

    fn commit_all(
        &mut self,
        offsets: Vec<OffsetToCommit>,
        retention_ms: Option<i64>,
    ) -> Vec<Result<(), GroupError>> {
        let request = CommitRequest {
            who: outside(),
            retention_ms,
            knows_group_id_not_found: true,
            offsets,
            transaction: None,
        };
        let (results, effects) = self.shard.commit(&GroupId::from("g"), request, self.now);
        self.take(effects);
        results.unwrap()
    }
}

#[test]
fn reads_see_what_is_durable_in_the_order_of_the_log() {
    let mut scene = Scene::new();
    scene.quick = false;
    assert_eq!(scene.commit(outside(), "t", 1), Ok(()));
    assert_eq!(scene.commit(outside(), "t", 2), Ok(()));
    assert_eq!(scene.committed("t"), None);
    scene.land(true);
    assert_eq!(scene.committed("t"), Some(1));
    scene.land(false);
    assert_eq!(scene.committed("t"), Some(1), "what could not be written never happened");
    scene.check_invariants();
}

#[test]
fn all_of_a_commit_comes_back() {
    let mut scene = Scene::new();
    let commit = |topic, partition, offset| OffsetToCommit {
        at: at(topic, partition),
        offset,
        leader_epoch: 3,
        metadata: format!("{topic} {partition}"),
    };
    scene.commit_all(vec![commit("b", 1, 10), commit("a", 0, 20), commit("b", 0, 30)], None);
    let all = FetchRequest { topics: None, require_stable: true };
    let fetched = scene.shard.fetch(&GroupId::from("g"), &all, scene.now);
    let flat: Vec<_> = fetched
        .iter()
        .flat_map(|(topic, offsets)| {
            offsets.iter().map(move |o| {
                let value = o.result.clone().unwrap().unwrap();
                (topic.to_string(), o.partition, value.offset, value.leader_epoch, value.metadata)
            })
        })
        .collect();
    let row = |t: &str, p, o| (t.to_owned(), p, o, 3, format!("{t} {p}"));
    assert_eq!(flat, [row("a", 0, 20), row("b", 0, 30), row("b", 1, 10)]);
    let some = FetchRequest { topics: Some(vec![(Arc::from("b"), vec![1, 7])]), require_stable: false };
    let fetched = scene.shard.fetch(&GroupId::from("g"), &some, scene.now);
    assert_eq!(fetched[0].1[1], FetchedOffset { partition: 7, result: Ok(None) });
    scene.check_invariants();
}

#[test]
fn text_that_is_too_long_fails_alone() {
    let mut scene = Scene::new();
    let commit = |partition, len| OffsetToCommit {
        at: at("t", partition),
        offset: 1,
        leader_epoch: -1,
        metadata: "x".repeat(len),
    };
    let results = scene.commit_all(vec![commit(1, 4097), commit(0, 4096)], None);
    assert_eq!(results, [Err(GroupError::OffsetMetadataTooLarge), Ok(())]);
    assert_eq!(scene.committed("t"), Some(1));
    assert_eq!(scene.log.len(), 1);
}

#[test]
fn an_open_transaction_makes_an_offset_unstable() {
    let mut scene = Scene::new();
    scene.commit(outside(), "t", 1).unwrap();
    let Stored::Record { key, value, .. } = scene.log[0].clone() else { panic!("a record") };
    let pending = Stored::Record { offset: 1, producer_id: Some(9), key, value };
    scene.shard.replay(pending, scene.now).unwrap();
    for (require_stable, unstable) in [(true, true), (false, false)] {
        let request = FetchRequest { topics: Some(vec![(Arc::from("t"), vec![0])]), require_stable };
        let fetched = scene.shard.fetch(&GroupId::from("g"), &request, scene.now);
        assert_eq!(fetched[0].1[0].result == Err(GroupError::UnstableOffsetCommit), unstable);
    }
    scene.advance(30 * DAY_MS);
    scene.expire();
    assert_eq!(scene.committed("t"), Some(1), "it does not expire meanwhile");
    scene.shard.replay(Stored::Marker { producer_id: 9, commit: true }, scene.now).unwrap();
    let request = FetchRequest { topics: None, require_stable: true };
    let fetched = scene.shard.fetch(&GroupId::from("g"), &request, scene.now);
    assert_eq!(fetched[0].1[0].result.clone().unwrap().unwrap().record_offset, 1);
}

#[test]
fn the_end_of_a_transaction_reaches_the_groups_that_are_in_it() {
    for commit in [true, false] {
        let mut scene = Scene::new();
        for (producer, group) in [(7, "g"), (7, "only-pending"), (8, "g"), (8, "other")] {
            scene.commit_in_transaction(producer, group, "t", producer).unwrap();
        }
        // As it is now, and as a start finds it.
        for mut shard in [scene.replayed(), scene.shard] {
            shard.end_transaction(7, commit);
            shard.check_transactions();
            let open = |shard: &Shard, id: &str| {
                shard.get(id).map(|g| g.offsets.pending().keys().copied().collect::<Vec<_>>())
            };
            assert_eq!(open(&shard, "g"), Some(vec![8]));
            assert_eq!(open(&shard, "other"), Some(vec![8]));
            // A group that had nothing else is gone again.
            assert_eq!(open(&shard, "only-pending"), commit.then(Vec::new));
            shard.end_transaction(8, false);
            assert_eq!(open(&shard, "other"), None);
        }
    }
}

/// A snapshot says what is decided; what it does not say stays in the log.
#[test]
fn a_snapshot_leaves_open_transactions_where_they_are() {
    // What the transaction may become, and for a partition that has an offset also what it is before.
    for (topic, needed, before) in [("new", 20, None), ("t", 18, Some(9))] {
        for commit in [true, false] {
            let mut scene = Scene::new();
            for offset in 0..10 {
                scene.commit(outside(), "t", offset).unwrap();
                scene.commit(outside(), "u", offset).unwrap();
            }
            scene.commit_in_transaction(7, "g", topic, 20).unwrap();
            scene.commit(outside(), "u", 30).unwrap();
            scene.snapshot();
            assert_eq!(scene.start, needed);
            scene.check_invariants();
            let end = scene.log.len();
            scene.end_transaction(7, commit);
            scene.check_invariants();
            scene.snapshot();
            assert_eq!(scene.start, end + 1, "nothing is open");
            scene.check_invariants();
            assert_eq!(scene.committed(topic), if commit { Some(20) } else { before });
        }
    }
}

/// One on its way is later than what the snapshot could say.
#[test]
fn a_snapshot_does_not_overtake_what_is_on_its_way() {
    let mut scene = Scene::new();
    scene.commit(outside(), "t", 1).unwrap();
    scene.quick = false;
    scene.commit(outside(), "t", 2).unwrap();
    scene.snapshot();
    while scene.land(true) {}
    scene.check_invariants();
    assert_eq!((scene.committed("t"), scene.start), (Some(2), 0));
}

/// A group in a rebalance is found by the next start as it was before.
#[test]
fn a_snapshot_leaves_rebalances_where_they_are() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let recorded = scene.log.len() - 1;
    scene.commit(identity(&ids[0], scene.group().generation), "t", 1).unwrap();
    scene.join(&member(&ids[0]));
    assert_eq!(scene.state(), Some(State::PreparingRebalance));
    scene.snapshot();
    scene.check_invariants();
    assert_eq!(scene.start, recorded);
}

#[test]
fn offsets_of_a_standalone_consumer_expire_one_by_one() {
    let mut scene = Scene::new();
    scene.commit(outside(), "old", 1).unwrap();
    scene.advance(3 * DAY_MS);
    scene.commit(outside(), "new", 1).unwrap();
    scene.advance(4 * DAY_MS - 1);
    scene.expire();
    assert_eq!(scene.committed("old"), Some(1));
    scene.advance(1);
    scene.expire();
    assert_eq!((scene.committed("old"), scene.committed("new")), (None, Some(1)));
    scene.advance(3 * DAY_MS);
    scene.expire();
    assert_eq!(scene.shard.groups().count(), 0, "nothing is left of the group");
    scene.check_invariants();
}

/// A partition without new records for a week would otherwise be processed again from its beginning.
#[test]
fn the_position_of_a_pipeline_never_expires() {
    let mut scene = Scene::new();
    let group = GroupId::from("pelton.flights");
    let offset = OffsetToCommit { at: at("t", 0), offset: 7, leader_epoch: -1, metadata: String::new() };
    let request = CommitRequest {
        who: outside(),
        retention_ms: None,
        knows_group_id_not_found: true,
        transaction: None,
        offsets: vec![offset],
    };
    let (results, effects) = scene.shard.commit(&group, request, scene.now);
    scene.take(effects);
    assert_eq!(results, Ok(vec![Ok(())]));
    scene.advance(1000 * DAY_MS);
    scene.expire();
    let everything = FetchRequest { topics: None, require_stable: true };
    let fetched = scene.shard.fetch(&group, &everything, scene.now);
    assert_eq!(fetched[0].1[0].result.clone().unwrap().unwrap().offset, 7);
}

#[test]
fn offsets_of_a_group_expire_once_it_has_been_empty_for_long() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    scene.commit(identity(&ids[0], 1), "t", 1).unwrap();
    for _ in 0..100 {
        // The member lives and reads the topic: nothing expires, however long.
        scene.now.wall_ms += i64::try_from(DAY_MS).unwrap();
        scene.beat(&ids[0], 1).unwrap();
        scene.expire();
    }
    assert_eq!(scene.committed("t"), Some(1));
    scene.leave(&ids[0], None).unwrap();
    scene.advance(7 * DAY_MS - 1);
    scene.expire();
    assert_eq!(scene.committed("t"), Some(1));
    scene.advance(1);
    scene.expire();
    assert_eq!(scene.committed("t"), None);
    scene.expire();
    assert_eq!(scene.shard.groups().count(), 0);
    assert_eq!(scene.replayed().groups().filter(|g| !g.is_vacant()).count(), 0);
    scene.check_invariants();
}

#[test]
fn a_topic_that_a_live_group_no_longer_reads_expires() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    scene.commit(identity(&ids[0], 1), "t", 1).unwrap();
    scene.commit(identity(&ids[0], 1), "unsubscribed", 1).unwrap();
    scene.now.wall_ms += i64::try_from(7 * DAY_MS).unwrap();
    scene.expire();
    assert_eq!((scene.committed("t"), scene.committed("unsubscribed")), (Some(1), None));
}

#[test]
fn a_subscription_that_does_not_read_spares_every_topic() {
    let mut scene = Scene::eager();
    let id = scene.member_id();
    let raw = Protocol { name: "range".into(), metadata: Bytes::from_static(b"?") };
    scene.join(&Joiner { protocols: vec![raw], ..member(&id) });
    scene.settle(std::slice::from_ref(&id));
    scene.commit(identity(&id, 1), "t", 1).unwrap();
    scene.now.wall_ms += i64::try_from(70 * DAY_MS).unwrap();
    scene.expire();
    assert_eq!(scene.committed("t"), Some(1));
    let (results, _) = scene.shard.delete_offsets("g", &[at("t", 0)]);
    assert_eq!(results, Ok(vec![Err(GroupError::GroupSubscribedToTopic)]));
}

#[test]
fn a_retention_of_its_own_counts_from_the_commit() {
    let mut scene = Scene::new();
    let offset = OffsetToCommit { at: at("t", 0), offset: 1, leader_epoch: 5, metadata: String::new() };
    scene.commit_all(vec![offset], Some(1_000));
    scene.advance(999);
    scene.expire();
    assert_eq!(scene.committed("t"), Some(1));
    scene.advance(1);
    scene.expire();
    assert_eq!(scene.committed("t"), None);
}

#[test]
fn offsets_are_deleted_for_topics_that_nobody_reads() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    scene.commit(identity(&ids[0], 1), "t", 1).unwrap();
    scene.commit(identity(&ids[0], 1), "u", 1).unwrap();
    let (results, effects) = scene.shard.delete_offsets("g", &[at("t", 0), at("u", 0), at("u", 9)]);
    scene.take(effects);
    assert_eq!(results, Ok(vec![Err(GroupError::GroupSubscribedToTopic), Ok(()), Ok(())]));
    assert_eq!((scene.committed("t"), scene.committed("u")), (Some(1), None));
    scene.leave(&ids[0], None).unwrap();
    let (results, effects) = scene.shard.delete_offsets("g", &[at("t", 0)]);
    scene.take(effects);
    assert_eq!((results, scene.committed("t")), (Ok(vec![Ok(())]), None));
    scene.check_invariants();

    let mut scene = Scene::eager();
    scene.join(&Joiner { protocol_type: "connect".into(), version: 0, ..new_member() });
    assert_eq!(scene.shard.delete_offsets("g", &[at("t", 0)]).0, Err(GroupError::NonEmptyGroup));
}

#[test]
fn a_deleted_group_is_gone_with_what_was_on_its_way() {
    // A commit that was not durable yet when the group was deleted used to come back with a restart.
    let mut scene = Scene::new();
    scene.commit(outside(), "t", 1).unwrap();
    scene.quick = false;
    scene.commit(outside(), "late", 2).unwrap();
    let (result, effects) = scene.shard.delete("g", scene.now);
    result.unwrap();
    scene.take(effects);
    assert_eq!(scene.commit(outside(), "t", 3), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(scene.shard.delete("g", scene.now).0, Err(GroupError::GroupIdNotFound));
    while scene.land(true) {}
    assert_eq!(scene.shard.groups().count(), 0);
    scene.check_invariants();
    assert_eq!(scene.commit(outside(), "t", 4), Ok(()), "the name is free again");
}

#[test]
fn a_deletion_that_cannot_be_written_leaves_the_group() {
    for failing in 0..2 {
        let mut scene = Scene::new();
        scene.commit(outside(), "t", 1).unwrap();
        scene.quick = false;
        let (result, effects) = scene.shard.delete("g", scene.now);
        result.unwrap();
        scene.take(effects);
        for step in 0..2 {
            scene.land(step != failing);
        }
        match failing {
            0 => assert_eq!((scene.state(), scene.committed("t")), (Some(State::Empty), Some(1))),
            // Its offsets are deleted, which leaves nothing of a group that had no members.
            _ => assert_eq!(scene.committed("t"), None),
        }
        scene.check_invariants();
    }
}

#[test]
fn a_deletion_that_failed_in_part_does_not_end_the_next_one() {
    // The tombstone of the group from the first attempt used to remove the group while the second was on its way.
    let mut scene = Scene::new();
    scene.commit(outside(), "t", 1).unwrap();
    scene.quick = false;
    let delete = |scene: &mut Scene| {
        let (result, effects) = scene.shard.delete("g", scene.now);
        scene.take(effects);
        result
    };
    delete(&mut scene).unwrap();
    scene.land(false);
    assert_eq!(scene.state(), Some(State::Empty));
    scene.commit(outside(), "u", 2).unwrap();
    delete(&mut scene).unwrap();
    scene.land(true);
    assert_eq!(scene.state(), Some(State::Dead), "the second attempt is not durable yet");
    scene.check_invariants();
    while scene.land(true) {}
    assert_eq!(scene.state(), None);
    scene.check_invariants();
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut scene = Scene::new();
    scene.commit(outside(), "t", 1).unwrap();
    scene.commit(outside(), "u", 1).unwrap();
    let effects = scene.shard.topic_deleted(&Arc::from("t"));
    scene.take(effects);
    assert_eq!((scene.committed("t"), scene.committed("u")), (None, Some(1)));
    scene.check_invariants();
}

#[test]
fn a_record_with_two_members_of_one_name_does_not_read() {
    let mut scene = Scene::eager();
    scene.stable(2);
    let mut value = scene.group().metadata(|_| Bytes::new());
    value.members[1].member_id = value.members[0].member_id.clone();
    let (key, value) =
        records::encode(&GroupRecord::Metadata { group: GroupId::from("g"), value: Some(value) }).unwrap();
    let mut shard = scene.replayed();
    let broken = Stored::Record { offset: 99, producer_id: None, key, value };
    assert!(shard.replay(broken, scene.now).is_err());
}
