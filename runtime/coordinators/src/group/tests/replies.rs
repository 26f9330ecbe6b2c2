//! What each request is answered in each state.

use super::*;
use GroupError::*;

/// What a client is told, in one word for a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Yes,
    No(GroupError),
    Waits,
}

fn told<T>(result: Option<Result<T, GroupError>>) -> Told {
    match result {
        None => Told::Waits,
        Some(Ok(_)) => Told::Yes,
        Some(Err(error)) => Told::No(error),
    }
}

/// A group in a state, with the ids of its two members: the leader, and one who follows.
fn group_in(state: State) -> (Scene, String, String) {
    let mut scene = Scene::new();
    let ids = scene.stable(2);
    let (leader, follower) = (ids[0].clone(), ids[1].clone());
    match state {
        State::Stable => {}
        State::PreparingRebalance => {
            scene.join(&member(&leader));
        }
        State::CompletingRebalance => {
            scene.join(&member(&leader));
            scene.join(&member(&follower));
        }
        State::Empty => {
            scene.leave(&leader, None).unwrap();
            scene.leave(&follower, None).unwrap();
            scene.advance(u64::try_from(REBALANCE_MS).unwrap());
        }
        State::Dead => {
            for id in &ids {
                scene.leave(id, None).unwrap();
            }
            scene.quick = false;
            let (result, effects) = scene.shard.delete("g", scene.now);
            result.unwrap();
            scene.take(effects);
        }
    }
    assert_eq!(scene.state(), Some(state));
    (scene, leader, follower)
}

const STATES: [State; 5] =
    [State::Empty, State::PreparingRebalance, State::CompletingRebalance, State::Stable, State::Dead];

/// One row: what the request is told in Empty, PreparingRebalance, CompletingRebalance, Stable and Dead.
fn check(what: &str, expect: [Told; 5], ask: impl Fn(&mut Scene, &str, i32) -> Told) {
    for (state, expect) in STATES.into_iter().zip(expect) {
        let (mut scene, _, follower) = group_in(state);
        let generation = scene.group().generation;
        assert_eq!(ask(&mut scene, &follower, generation), expect, "{what} in {state:?}");
        scene.check_invariants();
    }
}

#[test]
fn every_row_of_the_replies_table() {
    use Told::{No, Waits, Yes};
    let gone = No(CoordinatorNotAvailable);
    let unknown = No(UnknownMemberId);
    check("heartbeat", [unknown, No(RebalanceInProgress), Yes, Yes, gone], |s, follower, g| {
        told(Some(s.beat(follower, g)))
    });
    check(
        "heartbeat of a wrong generation",
        [unknown, No(IllegalGeneration), No(IllegalGeneration), No(IllegalGeneration), gone],
        |s, follower, g| told(Some(s.beat(follower, g - 1))),
    );
    check("heartbeat of a stranger", [unknown, unknown, unknown, unknown, gone], |s, _, g| {
        told(Some(s.beat("stranger", g)))
    });
    check("sync", [unknown, No(RebalanceInProgress), Waits, Yes, gone], |s, follower, g| {
        let waiter = s.sync(follower, g, &[]);
        told(s.synced(waiter))
    });
    check(
        "sync of a wrong generation",
        [unknown, No(IllegalGeneration), No(IllegalGeneration), No(IllegalGeneration), gone],
        |s, follower, g| {
            let waiter = s.sync(follower, g + 1, &[]);
            told(s.synced(waiter))
        },
    );
    check("commit of a member", [unknown, Yes, No(RebalanceInProgress), Yes, gone], |s, follower, g| {
        told(Some(s.commit(identity(follower, g), "t", 1)))
    });
    check(
        "commit of a wrong generation",
        [unknown, No(IllegalGeneration), No(IllegalGeneration), No(IllegalGeneration), gone],
        |s, follower, g| told(Some(s.commit(identity(follower, g - 1), "t", 1))),
    );
    check("commit from outside", [Yes, unknown, unknown, unknown, gone], |s, _, _| {
        told(Some(s.commit(identity("", NO_GENERATION), "t", 1)))
    });
    check("leave", [unknown, Yes, Yes, Yes, gone], |s, follower, _| told(Some(s.leave(follower, None))));
    check(
        "join as a member",
        [unknown, Yes, Yes, Yes, gone],
        // With unchanged metadata; in PreparingRebalance this one is the last.
        |s, follower, _| {
            let waiter = s.join(&member(follower));
            told(s.joined(waiter).map(|r| r.map_err(|refused| refused.error)))
        },
    );
    check("join as a member with other metadata", [unknown, Yes, Waits, Waits, gone], |s, follower, _| {
        let who = Joiner { protocols: vec![protocol("range", &["other"])], ..member(follower) };
        let waiter = s.join(&who);
        told(s.joined(waiter).map(|r| r.map_err(|refused| refused.error)))
    });
    check(
        "delete",
        [Yes, No(NonEmptyGroup), No(NonEmptyGroup), No(NonEmptyGroup), No(GroupIdNotFound)],
        |s, _, _| {
            let (result, effects) = s.shard.delete("g", s.now);
            s.take(effects);
            told(Some(result))
        },
    );
}

/// KIP-447: who says that it is a member must be one; a rebalance does not end its transaction.
#[test]
fn every_row_of_the_replies_table_for_transactions() {
    use Told::{No, Yes};
    let (unknown, gone) = (No(UnknownMemberId), No(CoordinatorNotAvailable));
    let commit = |s: &mut Scene, member: &str, g: i32| {
        told(Some(s.commit_in_transaction_as(identity(member, g), 7, "g", "t", 1)))
    };
    let wrong = No(IllegalGeneration);
    check("commit of a wrong generation", [unknown, wrong, wrong, wrong, gone], |s, follower, g| {
        commit(s, follower, g - 1)
    });
    check("commit of a stranger", [unknown, unknown, unknown, unknown, gone], |s, _, g| {
        commit(s, "stranger", g)
    });
    check("commit of a member", [unknown, Yes, Yes, Yes, gone], |s, follower, g| commit(s, follower, g));
    check("commit of nobody in particular", [Yes, Yes, Yes, Yes, gone], |s, _, _| {
        commit(s, "", NO_GENERATION)
    });
}

#[test]
fn a_group_that_is_not_there() {
    let mut scene = Scene::new();
    assert_eq!(scene.beat("m", 1), Err(UnknownMemberId));
    assert_eq!(scene.leave("m", None), Err(UnknownMemberId));
    let waiter = scene.sync("m", 1, &[]);
    assert_eq!(scene.synced(waiter), Some(Err(UnknownMemberId)));
    let waiter = scene.join(&member("m"));
    assert_eq!(scene.join_error(waiter), UnknownMemberId);
    assert_eq!(scene.commit(identity("m", 1), "t", 1), Err(GroupIdNotFound));
    assert_eq!(scene.committed("t"), None);
    assert_eq!(scene.shard.delete("g", scene.now).0, Err(GroupIdNotFound));
    assert_eq!(scene.shard.delete_offsets("g", &[at("t", 0)]).0, Err(GroupIdNotFound));
    assert_eq!(scene.shard.describe("g"), None);
    assert_eq!(scene.shard.groups().count(), 0, "a refused request leaves no group behind");
}

#[test]
fn a_commit_to_a_missing_group_is_told_by_what_the_client_knows() {
    let mut scene = Scene::new();
    let offsets =
        vec![OffsetToCommit { at: at("t", 0), offset: 1, leader_epoch: -1, metadata: String::new() }];
    for (knows_group_id_not_found, expect) in [(true, GroupIdNotFound), (false, IllegalGeneration)] {
        let who = identity("m", 3);
        let request = CommitRequest {
            who,
            retention_ms: None,
            knows_group_id_not_found,
            offsets: offsets.clone(),
            transaction: None,
        };
        let (result, _) = scene.shard.commit(&GroupId::from("g"), request, scene.now);
        assert_eq!(result, Err(expect));
    }
}

#[test]
fn who_may_not_join() {
    let long = "x".repeat(5000);
    let many: Vec<_> = (0..65).map(|i| protocol(&format!("p{i}"), &[])).collect();
    let huge = Protocol { name: "range".into(), metadata: Bytes::from(vec![0; 1024 * 1024 + 1]) };
    for (what, group, who, expect) in [
        ("no group id", "", new_member(), InvalidGroupId),
        ("a long group id", &*long, new_member(), InvalidGroupId),
        ("a short session", "g", Joiner { session_ms: 5_999, ..new_member() }, InvalidSessionTimeout),
        ("a long session", "g", Joiner { session_ms: 1_800_001, ..new_member() }, InvalidSessionTimeout),
        (
            "no protocol type",
            "g",
            Joiner { protocol_type: String::new(), ..new_member() },
            InconsistentGroupProtocol,
        ),
        ("no protocols", "g", Joiner { protocols: vec![], ..new_member() }, InconsistentGroupProtocol),
        ("too many protocols", "g", Joiner { protocols: many, ..new_member() }, InvalidRequest),
        ("too much metadata", "g", Joiner { protocols: vec![huge], ..new_member() }, InvalidRequest),
        ("a long instance id", "g", Joiner { instance: Some(long.clone()), ..new_member() }, InvalidRequest),
        ("an id that was never given", "g", member("made-up"), UnknownMemberId),
    ] {
        let mut scene = Scene::new();
        let waiter = scene.join_to(group, &who);
        assert_eq!(scene.join_error(waiter), expect, "{what}");
        assert_eq!(scene.shard.groups().count(), 0, "{what} leaves no group behind");
    }
}

#[test]
fn members_of_one_group_speak_one_protocol() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    for (what, who) in [
        ("another type", Joiner { protocol_type: "connect".into(), ..new_member() }),
        ("no common protocol", Joiner { protocols: vec![protocol("sticky", &["t"])], ..new_member() }),
    ] {
        let waiter = scene.join(&who);
        assert_eq!(scene.join_error(waiter), InconsistentGroupProtocol, "{what}");
    }
    assert_eq!(scene.beat(&ids[0], 1), Ok(()), "the group did not notice");
    for (protocol_type, protocol_name, expect) in [
        (Some("consumer"), Some("range"), Ok(())),
        (Some("connect"), None, Err(InconsistentGroupProtocol)),
        (None, Some("sticky"), Err(InconsistentGroupProtocol)),
    ] {
        let request = SyncRequest {
            member_id: ids[0].clone(),
            group_instance_id: None,
            generation_id: 1,
            protocol_type: protocol_type.map(str::to_owned),
            protocol_name: protocol_name.map(str::to_owned),
            assignments: vec![],
        };
        scene.next += 1;
        let waiter = Waiter(scene.next);
        let effects = scene.shard.sync("g", request, waiter, scene.now);
        scene.take(effects);
        assert_eq!(scene.synced(waiter).unwrap().map(|_| ()), expect);
    }
}

#[test]
fn a_protocol_that_is_listed_twice_counts_once() {
    // Counted twice, one member's protocol looked like one that two members have in common.
    let mut scene = Scene::eager();
    let twice = vec![protocol("range", &["t"]), protocol("range", &["u"]), protocol("sticky", &["t"])];
    let id = scene.member_id();
    let first = scene.join(&Joiner { protocols: twice.clone(), ..member(&id) });
    assert_eq!(scene.joined(first).unwrap().unwrap().protocol_name.as_deref(), Some("range"));
    let other =
        scene.join(&Joiner { version: 0, protocols: vec![protocol("sticky", &["t"])], ..new_member() });
    scene.join(&Joiner { protocols: twice, ..member(&id) });
    assert_eq!(scene.joined(other).unwrap().unwrap().protocol_name.as_deref(), Some("sticky"));
    scene.check_invariants();
}

#[test]
fn the_metadata_of_all_members_is_bounded() {
    let mut scene = Scene::eager();
    let large =
        |name: &str| vec![Protocol { name: name.to_owned(), metadata: Bytes::from(vec![0; 1024 * 1024]) }];
    let who = Joiner { version: 0, protocols: large("range"), ..new_member() };
    for _ in 0..64 {
        scene.join(&who);
    }
    assert_eq!(scene.group().members.len(), 64);
    let refused = scene.join(&who);
    assert_eq!(scene.join_error(refused), GroupMaxSizeReached);
    let small = scene.join(&Joiner {
        version: 0,
        protocols: vec![Protocol { metadata: Bytes::new(), ..large("range").remove(0) }],
        ..new_member()
    });
    assert_eq!(scene.joined(small), None, "it waits for the others");
}

#[test]
fn a_group_has_a_largest_size_and_the_broker_a_number_of_groups() {
    let limits =
        GroupLimits { max_size: 2, max_groups: 2, initial_rebalance_delay_ms: 0, ..GroupLimits::default() };
    let mut scene = Scene::with(limits);
    let first = scene.member_id();
    let second = scene.member_id();
    let third = scene.join(&new_member());
    assert_eq!(scene.join_error(third), GroupMaxSizeReached, "ids told in advance have the same limit");
    scene.join(&member(&first));
    scene.join(&member(&second));
    scene.advance(1);
    scene.join(&member(&first));
    scene.settle(&[first.clone(), second.clone()]);
    let third = scene.join(&new_member());
    assert_eq!(scene.join_error(third), GroupMaxSizeReached);
    let third = scene.join(&Joiner { instance: Some("i".into()), ..new_member() });
    assert_eq!(scene.join_error(third), GroupMaxSizeReached);
    assert_eq!(scene.group().members.len(), 2);

    let other = scene.join_to("second", &new_member());
    assert_eq!(scene.join_error(other), MemberIdRequired);
    let other = scene.join_to("third", &new_member());
    assert_eq!(scene.join_error(other), GroupMaxSizeReached);
    scene.advance(u64::try_from(SESSION_MS).unwrap());
    assert!(scene.shard.get("second").is_none(), "nobody has come, so the group is gone");
    let other = scene.join_to("third", &new_member());
    assert_eq!(scene.join_error(other), MemberIdRequired);
    scene.check_invariants();
}
