//! Static members (KIP-345): known by an instance id, they keep their place over restarts.

use super::*;

fn instance(name: &str) -> Joiner {
    Joiner { instance: Some(name.to_owned()), ..new_member() }
}

/// A stable group of the instances `a` (leads) and `b`. Gives back their member ids and the generation.
fn two(scene: &mut Scene) -> (String, String, i32) {
    let first = scene.join(&instance("a"));
    let second = scene.join(&instance("b"));
    let a = scene.joined(first).map(|r| r.unwrap().member_id).unwrap();
    let again = scene.join(&Joiner { member: a.to_string(), ..instance("a") });
    let joined = scene.joined(again).unwrap().unwrap();
    let b = scene.joined(second).unwrap().unwrap().member_id;
    scene.settle(&[a.to_string(), b.to_string()]);
    assert_eq!(scene.state(), Some(State::Stable));
    (a.to_string(), b.to_string(), joined.generation_id)
}

#[test]
fn no_id_is_told_in_advance() {
    let mut scene = Scene::eager();
    let waiter = scene.join(&instance("a"));
    let joined = scene.joined(waiter).unwrap().unwrap();
    assert!(joined.member_id.starts_with("a-"));
    assert_eq!(joined.members[0].group_instance_id.as_deref(), Some("a"));
}

#[test]
fn a_follower_that_returns_keeps_the_generation_and_fences_its_former_self() {
    let mut scene = Scene::eager();
    let (a, b, generation) = two(&mut scene);
    scene.quick = false;
    let returned = scene.join(&instance("b"));
    assert_eq!(scene.joined(returned), None, "its new id must be durable first");
    scene.land(true);
    let joined = scene.joined(returned).unwrap().unwrap();
    assert_eq!((joined.generation_id, &*joined.leader, joined.skip_assignment), (generation, &*a, false));
    assert_ne!(*joined.member_id, *b);
    let synced = scene.sync_as(&joined.member_id, Some("b"), generation, &[]);
    assert_eq!(scene.synced(synced).unwrap().unwrap().assignment, b, "the assignment of its former self");
    let fenced = |instance: Option<&str>| MemberIdentity {
        member_id: b.clone(),
        group_instance_id: instance.map(str::to_owned),
        generation_id: generation,
    };
    let beat = scene.shard.heartbeat("g", &fenced(Some("b")), scene.now);
    assert_eq!(beat, Err(GroupError::FencedInstanceId));
    assert_eq!(scene.commit(fenced(Some("b")), "t", 1), Err(GroupError::FencedInstanceId));
    assert_eq!(scene.commit(fenced(None), "t", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(scene.leave(&b, Some("b")), Err(GroupError::FencedInstanceId));
    let late = scene.sync_as(&b, Some("b"), generation, &[]);
    assert_eq!(scene.synced(late), Some(Err(GroupError::FencedInstanceId)));
    let late = scene.join(&Joiner { member: b, ..instance("b") });
    assert_eq!(scene.join_error(late), GroupError::FencedInstanceId);
    scene.check_invariants();
}

#[test]
fn a_leader_that_returns_is_told_not_to_assign() {
    for (version, skip, members) in [(9, true, 2), (8, false, 0), (5, false, 0)] {
        let mut scene = Scene::eager();
        let (a, _, generation) = two(&mut scene);
        let returned = scene.join(&Joiner { version, ..instance("a") });
        let joined = scene.joined(returned).unwrap().unwrap();
        assert_eq!(
            (joined.generation_id, joined.skip_assignment, joined.members.len()),
            (generation, skip, members)
        );
        let leads = *joined.leader == *joined.member_id;
        assert_eq!(leads, skip, "version {version} would assign although it must not");
        assert_eq!(*joined.leader == *a, !skip);
        assert_eq!(scene.group().leader.as_deref(), Some(&*joined.member_id));
        scene.check_invariants();
    }
}

#[test]
fn a_return_that_cannot_be_written_gives_up_the_place() {
    // Giving the place back to the former self was not enough: it had lost its own metadata to the newcomer's.
    let mut scene = Scene::eager();
    let (a, b, generation) = two(&mut scene);
    scene.quick = false;
    let returned = scene.join(&instance("b"));
    scene.land(false);
    assert_eq!(scene.join_error(returned), GroupError::CoordinatorNotAvailable);
    assert_eq!(scene.beat(&a, generation), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.beat(&b, generation), Err(GroupError::UnknownMemberId));
    scene.quick = true;
    let again = scene.join(&instance("b"));
    scene.join(&Joiner { member: a, ..instance("a") });
    assert_eq!(scene.joined(again).unwrap().unwrap().generation_id, generation + 1);
    scene.check_invariants();
}

#[test]
fn a_return_during_a_rebalance_joins_it() {
    for state in [State::PreparingRebalance, State::CompletingRebalance] {
        let mut scene = Scene::eager();
        let (a, b, generation) = two(&mut scene);
        scene.join(&Joiner { member: a.clone(), ..instance("a") });
        let parked = if state == State::CompletingRebalance {
            scene.join(&Joiner { member: b.clone(), ..instance("b") });
            let parked = scene.sync_as(&b, Some("b"), generation + 1, &[]);
            Some(parked)
        } else {
            None
        };
        assert_eq!(scene.state(), Some(state));
        let returned = scene.join(&instance("b"));
        if let Some(parked) = parked {
            assert_eq!(scene.synced(parked), Some(Err(GroupError::FencedInstanceId)));
            // The leader may be assigning to the former id, so everybody joins again.
            assert_eq!(scene.state(), Some(State::PreparingRebalance));
            scene.join(&Joiner { member: a.clone(), ..instance("a") });
        }
        let joined = scene.joined(returned).unwrap().unwrap();
        assert!(joined.generation_id > generation);
        assert_eq!(scene.group().members.len(), 2);
        scene.check_invariants();
    }
}

#[test]
fn a_parked_join_of_the_former_self_is_fenced() {
    let mut scene = Scene::new();
    let first = scene.join(&instance("a"));
    let second = scene.join(&instance("a"));
    assert_eq!(scene.join_error(first), GroupError::FencedInstanceId);
    scene.advance(u64::try_from(DELAY_MS).unwrap() * 2);
    assert_eq!(scene.joined(second).unwrap().unwrap().members.len(), 1);
    scene.check_invariants();
}

#[test]
fn an_absent_static_member_keeps_its_place_until_its_session_ends() {
    let mut scene = Scene::eager();
    let (a, b, generation) = two(&mut scene);
    let long = Joiner { session_ms: 600_000, ..instance("b") };
    let returned = scene.join(&Joiner { member: b, ..long });
    assert!(scene.joined(returned).unwrap().is_ok());
    let b = scene.group().members.instance("b").cloned().unwrap();
    // The session of the follower is renewed with its join, at the length it had.
    let rejoin = scene.join(&Joiner { member: a.clone(), ..instance("a") });
    scene.advance(u64::try_from(SESSION_MS).unwrap() - 1);
    assert_eq!(scene.joined(rejoin), None);
    let known = MemberIdentity {
        member_id: b.to_string(),
        group_instance_id: Some("b".into()),
        generation_id: generation,
    };
    assert_eq!(scene.shard.heartbeat("g", &known, scene.now), Err(GroupError::RebalanceInProgress));
    scene.advance(1);
    assert_eq!(scene.joined(rejoin), None, "it was heard of");
    scene.advance(u64::try_from(SESSION_MS).unwrap());
    assert_eq!(scene.joined(rejoin).unwrap().unwrap().members.len(), 1);
}

#[test]
fn the_rebalance_timeout_spares_static_members() {
    let mut scene = Scene::eager();
    let first = scene.join(&Joiner { session_ms: 600_000, ..instance("a") });
    let a = scene.joined(first).unwrap().unwrap().member_id;
    scene.settle(&[a.to_string()]);
    let new = scene.member_id();
    let joining = scene.join(&member(&new));
    scene.advance(u64::try_from(REBALANCE_MS).unwrap());
    let joined = scene.joined(joining).unwrap().unwrap();
    assert_eq!(
        (&*joined.leader, joined.members.len()),
        (&*new, 2),
        "it has its share, and somebody else leads"
    );
    scene.check_invariants();
}

#[test]
fn with_nobody_but_absent_static_members_the_rebalance_waits() {
    let mut scene = Scene::eager();
    let (a, b, _) = two(&mut scene);
    let new = scene.member_id();
    scene.join(&member(&new));
    assert_eq!(scene.leave(&new, None), Ok(()));
    assert_eq!(scene.state(), Some(State::PreparingRebalance));
    scene.advance(u64::try_from(SESSION_MS).unwrap() - 1);
    assert_eq!(scene.group().members.len(), 2);
    scene.check_invariants();
    for (id, name) in [(&a, "a"), (&b, "b")] {
        scene.join(&Joiner { member: id.clone(), ..instance(name) });
    }
    assert_eq!(scene.state(), Some(State::CompletingRebalance));
}

#[test]
fn an_administrator_removes_an_instance_by_name() {
    let mut scene = Scene::eager();
    two(&mut scene);
    assert_eq!(scene.leave("", Some("nobody")), Err(GroupError::UnknownMemberId));
    assert_eq!(scene.leave("", Some("b")), Ok(()));
    assert_eq!(scene.group().members.len(), 1);
    assert_eq!(scene.state(), Some(State::PreparingRebalance));
    scene.check_invariants();
}

#[test]
fn a_return_fits_into_a_full_group() {
    let limits = GroupLimits { max_size: 1, initial_rebalance_delay_ms: 0, ..GroupLimits::default() };
    let mut scene = Scene::with(limits);
    let first = scene.join(&instance("a"));
    let id = scene.joined(first).unwrap().unwrap().member_id.to_string();
    scene.settle(&[id]);
    let returned = scene.join(&instance("a"));
    assert!(scene.joined(returned).unwrap().is_ok());
}

#[test]
fn a_return_with_another_protocol_rebalances() {
    let mut scene = Scene::eager();
    let both = vec![protocol("range", &["t"]), protocol("sticky", &["t"])];
    let first = scene.join(&Joiner { protocols: both.clone(), ..instance("a") });
    let id = scene.joined(first).unwrap().unwrap().member_id.to_string();
    scene.settle(&[id]);
    let swapped = both.into_iter().rev().collect();
    let returned = scene.join(&Joiner { protocols: swapped, ..instance("a") });
    let joined = scene.joined(returned).unwrap().unwrap();
    assert_eq!((joined.generation_id, joined.protocol_name.as_deref()), (2, Some("sticky")));
}
