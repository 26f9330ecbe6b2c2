//! From one generation to the next.

use super::*;

fn ms(ms: i32) -> u64 {
    u64::try_from(ms).unwrap()
}

#[test]
fn a_first_member_waits_for_others_then_leads_them() {
    let mut scene = Scene::new();
    let first = scene.member_id();
    let waiter = scene.join(&member(&first));
    scene.advance(ms(DELAY_MS) - 1);
    assert_eq!(scene.joined(waiter), None);
    let second = scene.member_id();
    let other = scene.join(&member(&second));
    scene.advance(1);
    assert_eq!(scene.joined(waiter), None, "somebody came, so the delay starts anew");
    scene.advance(ms(DELAY_MS));
    let leads = scene.joined(waiter).unwrap().unwrap();
    let follows = scene.joined(other).unwrap().unwrap();
    assert_eq!((leads.generation_id, follows.generation_id), (1, 1));
    assert_eq!((&*leads.leader, &*follows.leader), (&*first, &*first));
    assert_eq!(leads.protocol_name.as_deref(), Some("range"));
    assert_eq!(leads.protocol_type.as_deref(), Some("consumer"));
    let mut told: Vec<_> = leads.members.iter().map(|m| m.member_id.to_string()).collect();
    told.sort();
    assert_eq!(told, [first.clone(), second.clone()]);
    assert_eq!(leads.members[0].metadata, subscription::of(&["t"]));
    assert!(follows.members.is_empty());

    // The follower asks first; nobody is answered before the assignment is durable.
    scene.quick = false;
    let follower = scene.sync(&second, 1, &[]);
    let leader = scene.sync(&first, 1, &[(&first, "p0"), (&second, "p1"), ("stranger", "p2")]);
    assert_eq!((scene.synced(follower), scene.synced(leader)), (None, None));
    assert_eq!(scene.state(), Some(State::CompletingRebalance));
    assert_eq!(scene.replayed().groups().count(), 0);
    scene.land(true);
    assert_eq!(scene.synced(follower).unwrap().unwrap().assignment, "p1");
    assert_eq!(scene.synced(leader).unwrap().unwrap().assignment, "p0");
    assert_eq!(scene.state(), Some(State::Stable));
    scene.check_invariants();
}

#[test]
fn the_initial_delay_ends_at_the_rebalance_timeout_however_many_come() {
    let mut scene = Scene::new();
    let first = scene.member_id();
    let waiter = scene.join(&member(&first));
    let mut ids = vec![first];
    let mut waited = 0;
    while scene.joined(waiter).is_none() {
        ids.push(scene.member_id());
        let id = ids.last().unwrap().clone();
        scene.join(&member(&id));
        scene.advance(1_000);
        waited += 1_000;
        assert!(waited <= ms(REBALANCE_MS), "the delay does not end");
    }
    assert_eq!(waited, ms(REBALANCE_MS));
}

#[test]
fn a_new_member_rebalances_a_stable_group() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    let new = scene.member_id();
    let joining = scene.join(&member(&new));
    assert_eq!(scene.joined(joining), None);
    assert_eq!(scene.beat(&ids[0], 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.commit(identity(&ids[0], 1), "t", 7), Ok(()), "work of the old generation is not lost");
    let again = scene.join(&member(&ids[0]));
    let leads = scene.joined(again).unwrap().unwrap();
    assert_eq!((leads.generation_id, leads.members.len()), (2, 2));
    assert_eq!(&*scene.joined(joining).unwrap().unwrap().leader, &*ids[0]);
    scene.settle(&[ids[0].clone(), new.clone()]);
    assert_eq!(scene.state(), Some(State::Stable));
    assert_eq!(scene.committed("t"), Some(7));
    scene.check_invariants();
}

#[test]
fn metadata_reaches_the_leader_as_it_was_sent() {
    // Cooperative assignors carry owned partitions and generations in it: the coordinator must not touch it.
    let mut scene = Scene::eager();
    let first = scene.member_id();
    let raw =
        Protocol { name: "cooperative-sticky".into(), metadata: Bytes::from_static(b"\0\x03\xff owned") };
    let who = Joiner { protocols: vec![raw.clone(), protocol("range", &["t"])], ..member(&first) };
    let waiter = scene.join(&who);
    let joined = scene.joined(waiter).unwrap().unwrap();
    assert_eq!(joined.protocol_name.as_deref(), Some("cooperative-sticky"));
    assert_eq!(joined.members[0].metadata, raw.metadata);
    scene.settle(std::slice::from_ref(&first));
    // The second round of a cooperative rebalance: the follower's changed metadata starts it.
    let changed = Protocol { metadata: Bytes::from_static(b"\0\x03\xff less"), ..raw };
    let waiter = scene.join(&Joiner { protocols: vec![changed.clone(), protocol("range", &["t"])], ..who });
    let joined = scene.joined(waiter).unwrap().unwrap();
    assert_eq!((joined.generation_id, joined.members[0].metadata.clone()), (2, changed.metadata));
}

#[test]
fn the_leader_can_ask_for_a_rebalance_and_a_follower_learns_where_it_is() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let generation = scene.group().generation;
    let follower = scene.join(&member(&ids[1]));
    let told = scene.joined(follower).unwrap().unwrap();
    assert_eq!((told.generation_id, &*told.leader, told.members.len()), (generation, &*ids[0], 0));
    assert_eq!(scene.state(), Some(State::Stable));
    let leader = scene.join(&member(&ids[0]));
    assert_eq!(scene.joined(leader), None);
    assert_eq!(scene.state(), Some(State::PreparingRebalance));
}

#[test]
fn a_member_that_does_not_join_again_is_out() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let generation = scene.group().generation;
    let leader = scene.join(&member(&ids[0]));
    // The other sends heartbeats to the end, so its session is fine, but it does not join.
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(scene.joined(leader), None);
        assert_eq!(scene.beat(&ids[1], generation), Err(GroupError::RebalanceInProgress));
        scene.advance(5_000);
    }
    let leads = scene.joined(leader).unwrap().unwrap();
    assert_eq!((leads.generation_id, leads.members.len()), (generation + 1, 1));
    assert_eq!(scene.beat(&ids[1], generation), Err(GroupError::UnknownMemberId));
    scene.check_invariants();
}

#[test]
fn another_member_leads_when_the_leader_does_not_come() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let changed = Joiner { protocols: vec![protocol("range", &["t", "u"])], ..member(&ids[1]) };
    let follower = scene.join(&changed);
    scene.advance(ms(SESSION_MS));
    let leads = scene.joined(follower).unwrap().unwrap();
    assert_eq!((&*leads.leader, leads.members.len()), (&*ids[1], 1));
}

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let generation = scene.group().generation;
    scene.advance(ms(SESSION_MS) - 1);
    assert_eq!(scene.beat(&ids[0], generation), Ok(()));
    scene.advance(1);
    assert_eq!(scene.beat(&ids[0], generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.beat(&ids[1], generation), Err(GroupError::UnknownMemberId));
    let rejoined = scene.join(&member(&ids[0]));
    assert_eq!(scene.joined(rejoined).unwrap().unwrap().members.len(), 1);
    scene.check_invariants();
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    for offset in 0..10 {
        scene.advance(ms(SESSION_MS) - 1);
        assert_eq!(scene.commit(identity(&ids[0], 1), "t", offset), Ok(()));
    }
}

#[test]
fn nobody_expires_while_it_waits_for_an_answer() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let waiting = scene.join(&member(&ids[0]));
    // Longer than a session, but the rebalance goes on: the other member sends heartbeats.
    for _ in 0..5 {
        scene.advance(ms(SESSION_MS) / 2);
        let generation = scene.group().generation;
        assert_eq!(scene.beat(&ids[1], generation), Err(GroupError::RebalanceInProgress));
    }
    assert!(scene.joined(waiting).is_none());
    scene.join(&member(&ids[1]));
    assert!(scene.joined(waiting).unwrap().is_ok());
    // A slow assignment: the follower waits with a parked SyncGroup past its session.
    let generation = scene.group().generation;
    let syncing = scene.sync(&ids[1], generation, &[]);
    for _ in 0..4 {
        scene.advance(ms(SESSION_MS) / 2);
        assert_eq!(
            scene.beat(&ids[0], generation),
            Ok(()),
            "no reason to join again while the leader assigns"
        );
    }
    scene.sync(&ids[0], generation, &[(&ids[1], "p")]);
    assert_eq!(scene.synced(syncing).unwrap().unwrap().assignment, "p");
    scene.check_invariants();
}

#[test]
fn members_that_never_ask_for_their_assignment_are_out() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    scene.join(&member(&ids[0]));
    scene.join(&member(&ids[1]));
    let generation = scene.group().generation;
    let leader = scene.sync(&ids[0], generation, &[]);
    assert!(scene.synced(leader).unwrap().is_ok());
    for _ in 0..REBALANCE_MS / 5_000 {
        scene.advance(5_000);
        let _ = scene.beat(&ids[0], generation);
        let _ = scene.beat(&ids[1], generation);
    }
    assert_eq!(scene.beat(&ids[1], generation), Err(GroupError::UnknownMemberId));
    assert_eq!(scene.beat(&ids[0], generation), Err(GroupError::RebalanceInProgress));
    scene.check_invariants();
}

#[test]
fn an_id_told_in_advance_is_waited_for_and_forgotten() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    let told = scene.member_id();
    let leader = scene.join(&member(&ids[0]));
    assert_eq!(scene.joined(leader), None, "the new member is on its way");
    scene.advance(ms(SESSION_MS));
    assert_eq!(scene.joined(leader).unwrap().unwrap().members.len(), 1);
    let late = scene.join(&member(&told));
    assert_eq!(scene.join_error(late), GroupError::UnknownMemberId);
    // One that says it leaves is not waited for.
    scene.settle(&ids);
    let told = scene.member_id();
    let leader = scene.join(&member(&ids[0]));
    assert_eq!(scene.leave(&told, None), Ok(()));
    assert!(scene.joined(leader).is_some());
    scene.check_invariants();
}

#[test]
fn old_clients_join_without_being_told_an_id_first() {
    let mut scene = Scene::eager();
    for version in 0..=3 {
        let waiter = scene.join_to("old", &Joiner { version, ..new_member() });
        match scene.joined(waiter) {
            Some(result) => assert!(result.is_ok(), "version {version}"),
            None => assert_eq!(scene.shard.get("old").unwrap().state, State::PreparingRebalance),
        }
    }
    assert_eq!(scene.shard.get("old").unwrap().members.len(), 4);
}

#[test]
fn an_abandoned_join_of_an_old_client_does_not_stay() {
    // Without a known id a retry makes another member; the first would keep partitions that nobody reads.
    let mut scene = Scene::new();
    let old = Joiner { version: 2, ..new_member() };
    let abandoned = scene.join(&old);
    let id = scene.group().leader.clone().unwrap();
    let effects = scene.shard.abandon_join("g", &id, abandoned, scene.now);
    scene.take(effects);
    let retried = scene.join(&old);
    scene.advance(ms(DELAY_MS) * 2);
    assert_eq!(scene.joined(retried).unwrap().unwrap().members.len(), 1);
    scene.check_invariants();
    // A hint that comes too late does nothing.
    let id = scene.group().leader.clone().unwrap();
    let effects = scene.shard.abandon_join("g", &id, retried, scene.now);
    scene.take(effects);
    assert_eq!(scene.group().members.len(), 1);
}

#[test]
fn a_member_that_knows_its_id_keeps_its_place_when_its_connection_closes() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let parked = scene.join(&member(&ids[1]));
    let asked = scene.join(&Joiner { protocols: vec![protocol("range", &["u"])], ..member(&ids[1]) });
    assert!(scene.joined(parked).is_some());
    let effects = scene.shard.abandon_join("g", &ids[1], asked, scene.now);
    scene.take(effects);
    assert_eq!(scene.group().members.len(), 2);
    let again = scene.join(&member(&ids[1]));
    scene.join(&member(&ids[0]));
    assert_eq!(scene.joined(again).unwrap().map(|_| ()), Ok(()));
}

#[test]
fn a_join_that_is_never_answered_times_out() {
    let mut scene = Scene::eager();
    let ids = scene.stable(1);
    let generation = scene.group().generation;
    scene.join(&Joiner { version: 2, session_ms: 1_800_000, ..new_member() });
    // The member of the first generation keeps the rebalance open with heartbeats: its time-out is what ends it.
    let mut waited = 0;
    while scene.group().members.len() == 2 && waited < 400_000 {
        let _ = scene.beat(&ids[0], generation);
        scene.advance(5_000);
        waited += 5_000;
    }
    assert_eq!(waited, ms(REBALANCE_MS));
    scene.check_invariants();
}

#[test]
fn a_retried_request_takes_the_place_of_the_one_before() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let first = scene.join(&member(&ids[0]));
    let retry = scene.join(&member(&ids[0]));
    assert_eq!(scene.join_error(first), GroupError::RebalanceInProgress);
    scene.join(&member(&ids[1]));
    let joined = scene.joined(retry).unwrap().unwrap();
    // The answer was lost: with the same metadata the same answer comes again, and no rebalance.
    let again = scene.join(&member(&ids[0]));
    assert_eq!(scene.joined(again).unwrap().unwrap(), joined);
    let generation = joined.generation_id;
    let first = scene.sync(&ids[1], generation, &[]);
    let retry = scene.sync(&ids[1], generation, &[]);
    assert_eq!(scene.synced(first), Some(Err(GroupError::RebalanceInProgress)));
    scene.quick = false;
    scene.sync(&ids[0], generation, &[(&ids[1], "a")]);
    scene.sync(&ids[0], generation, &[(&ids[1], "b")]);
    assert_eq!(scene.in_flight.len(), 1, "a retried assignment is written once");
    scene.land(true);
    assert_eq!(scene.synced(retry).unwrap().unwrap().assignment, "a");
    scene.check_invariants();
}

#[test]
fn an_assignment_that_a_rebalance_overtook_reaches_nobody() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    scene.join(&member(&ids[0]));
    scene.join(&member(&ids[1]));
    let generation = scene.group().generation;
    scene.quick = false;
    let leader = scene.sync(&ids[0], generation, &[(&ids[0], "all")]);
    assert_eq!(scene.leave(&ids[1], None), Ok(()));
    assert_eq!(scene.synced(leader), Some(Err(GroupError::RebalanceInProgress)));
    scene.land(true);
    assert_eq!(scene.state(), Some(State::PreparingRebalance));
    scene.check_invariants();
}

#[test]
fn an_assignment_that_cannot_be_written_calls_everybody_in_again() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    scene.join(&member(&ids[0]));
    scene.join(&member(&ids[1]));
    let generation = scene.group().generation;
    scene.quick = false;
    let follower = scene.sync(&ids[1], generation, &[]);
    let leader = scene.sync(&ids[0], generation, &[]);
    scene.land(false);
    let told = Some(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!((scene.synced(follower), scene.synced(leader)), (told.clone(), told));
    assert_eq!(scene.state(), Some(State::PreparingRebalance));
    assert_eq!(scene.replayed().get("g").unwrap().generation, generation - 1);
    scene.check_invariants();
}

#[test]
fn a_group_that_everybody_left_keeps_its_generation_and_can_start_again() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    scene.commit(identity(&ids[0], scene.group().generation), "t", 5).unwrap();
    let generation = scene.group().generation;
    for id in &ids {
        scene.leave(id, None).unwrap();
    }
    assert_eq!((scene.state(), scene.group().generation), (Some(State::Empty), generation + 1));
    assert_eq!(scene.replayed().get("g").unwrap().state, State::Empty);
    let again = scene.member_id();
    let waiter = scene.join(&member(&again));
    assert_eq!(scene.joined(waiter).unwrap().unwrap().generation_id, generation + 2);
    assert_eq!(scene.committed("t"), Some(5));
    scene.check_invariants();
}

#[test]
fn members_survive_a_restart_and_have_a_session_to_come_back() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let generation = scene.group().generation;
    scene.shard = scene.replayed();
    assert_eq!(scene.state(), Some(State::Stable));
    scene.advance(ms(SESSION_MS) - 1);
    assert_eq!(scene.beat(&ids[0], generation), Ok(()));
    let synced = scene.sync(&ids[0], generation, &[]);
    assert_eq!(scene.synced(synced).unwrap().unwrap().assignment, ids[0]);
    scene.advance(1);
    assert_eq!(scene.beat(&ids[1], generation), Err(GroupError::UnknownMemberId));
    scene.check_invariants();
}

#[test]
fn leaving_members_are_judged_one_by_one_and_rebalance_once() {
    let mut scene = Scene::eager();
    let ids = scene.stable(3);
    let leaving = |id: &str| LeavingMember { member_id: id.to_owned(), group_instance_id: None };
    let (left, effects) =
        scene.shard.leave("g", vec![leaving(&ids[1]), leaving("stranger"), leaving(&ids[2])], scene.now);
    scene.take(effects);
    let results: Vec<_> = left.unwrap().into_iter().map(|l| l.result).collect();
    assert_eq!(results, [Ok(()), Err(GroupError::UnknownMemberId), Ok(())]);
    assert_eq!((scene.state(), scene.group().members.len()), (Some(State::PreparingRebalance), 1));
}

#[test]
fn descriptions_follow_the_state() {
    let mut scene = Scene::eager();
    let ids = scene.stable(2);
    let described = scene.shard.describe("g").unwrap();
    assert_eq!(
        (described.state, &*described.protocol_type, &*described.protocol),
        ("Stable", "consumer", "range")
    );
    let own = described.members.iter().find(|m| *m.member_id == *ids[1]).unwrap();
    assert_eq!(
        (own.metadata.clone(), own.assignment.clone()),
        (subscription::of(&["t"]), ids[1].clone().into())
    );
    assert_eq!((&*own.client_id, &*own.client_host), ("client", "/127.0.0.1"));
    scene.join(&member(&ids[0]));
    let described = scene.shard.describe("g").unwrap();
    assert_eq!((described.state, &*described.protocol), ("PreparingRebalance", ""));
    assert!(described.members.iter().all(|m| m.metadata.is_empty()));
    let list = scene.shard.list();
    assert_eq!((list.len(), list[0].state, &*list[0].protocol_type), (1, "PreparingRebalance", "consumer"));
}
