//! The coordinator whole, over a store in memory and a paused clock.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::group::store::KeyValue;
use crate::group::store::fake::MemoryStore;
use crate::group::types::{NO_GENERATION, OffsetToCommit, Protocol};
use pelton_partitions::clock::ManualClock;

const SESSION_MS: i32 = 10_000;

fn start(store: &MemoryStore, delay_ms: i32) -> Groups {
    let limits = GroupLimits { initial_rebalance_delay_ms: delay_ms, ..GroupLimits::default() };
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    Groups::start(&limits, 4, Arc::new(store.clone()), clock)
}

fn join(member_id: &str, fresh: &str, known_first: bool) -> JoinRequest {
    JoinRequest {
        member_id: member_id.to_owned(),
        group_instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol { name: "range".to_owned(), metadata: Bytes::from_static(b"m") }],
        require_known_member_id: known_first,
        supports_skip_assignment: true,
        fresh_member_id: Arc::from(fresh),
    }
}

fn sync(member_id: &str, generation_id: i32, given: &[(&str, &'static str)]) -> SyncRequest {
    SyncRequest {
        member_id: member_id.to_owned(),
        group_instance_id: None,
        generation_id,
        protocol_type: None,
        protocol_name: None,
        assignments: given
            .iter()
            .map(|(id, a)| ((*id).to_owned(), Bytes::from_static(a.as_bytes())))
            .collect(),
    }
}

fn who(member_id: &str, generation_id: i32) -> MemberIdentity {
    MemberIdentity { member_id: member_id.to_owned(), group_instance_id: None, generation_id }
}

fn commit(offset: i64) -> CommitRequest {
    let at = TopicPartition { topic: Arc::from("t"), partition: 0 };
    CommitRequest {
        who: who("", NO_GENERATION),
        retention_ms: None,
        knows_group_id_not_found: true,
        transaction: None,
        offsets: vec![OffsetToCommit { at, offset, leader_epoch: -1, metadata: String::new() }],
    }
}

async fn committed(groups: &Groups, group: &str) -> Result<Option<i64>, GroupError> {
    let request = FetchRequest { topics: Some(vec![(Arc::from("t"), vec![0])]), require_stable: true };
    let fetched = groups.fetch(group, request).await?;
    fetched[0].1[0].result.clone().map(|value| value.map(|v| v.offset))
}

fn committing(producer: ProducerIdentity) -> TxnMarker {
    TxnMarker { producer, commit: true, coordinator_epoch: None }
}

/// Lets everything run that can, without time passing.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn groups_are_placed_as_kafka_places_them() {
    for (group, hash) in
        [("", 0), ("abc", 96_354), ("hello", 99_162_322), ("polygenelubricants", 0), ("é€", 15_587)]
    {
        assert_eq!(partition_of(group, usize::MAX), hash, "{group}");
        assert_eq!(partition_of(group, 50), hash % 50, "{group}");
    }
    // A negative hash: "my-group" is -1906497762 in Java.
    assert_eq!(partition_of("my-group", 50), 1_906_497_762 % 50);
}

#[tokio::test(start_paused = true)]
async fn two_members_rebalance_and_survive_a_restart() {
    let store = MemoryStore::default();
    let groups = start(&store, 0);
    let first = groups.join("g", join("", "a", true)).await.unwrap_err();
    assert_eq!((first.error, &*first.member_id), (GroupError::MemberIdRequired, "a"));
    let joined = groups.join("g", join("a", "x", true)).await.unwrap();
    assert_eq!((joined.generation_id, &*joined.leader), (1, "a"));
    let synced = groups.sync("g", sync("a", 1, &[("a", "p0 p1")])).await.unwrap();
    assert_eq!(synced.assignment, "p0 p1");

    groups.join("g", join("", "b", true)).await.unwrap_err();
    let (handle, request) = (groups.clone(), join("b", "x", true));
    let second = tokio::spawn(async move { handle.join("g", request).await });
    settle().await;
    assert_eq!(groups.heartbeat("g", who("a", 1)).await, Err(GroupError::RebalanceInProgress));
    let leads = groups.join("g", join("a", "x", true)).await.unwrap();
    let follows = second.await.unwrap().unwrap();
    assert_eq!((leads.generation_id, leads.members.len(), follows.members.len()), (2, 2, 0));
    let handle = groups.clone();
    let waiting = tokio::spawn(async move { handle.sync("g", sync("b", 2, &[])).await });
    groups.sync("g", sync("a", 2, &[("a", "p0"), ("b", "p1")])).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().assignment, "p1");
    let own = CommitRequest { who: who("b", 2), ..commit(42) };
    assert_eq!(groups.commit("g", own).await, Ok(vec![Ok(())]));
    drop(groups);

    let again = start(&store, 0);
    settle().await;
    assert_eq!(committed(&again, "g").await, Ok(Some(42)));
    assert_eq!(again.heartbeat("g", who("b", 2)).await, Ok(()));
    assert_eq!(again.sync("g", sync("b", 2, &[])).await.unwrap().assignment, "p1");
    let described = again.describe("g").await.unwrap().unwrap();
    assert_eq!((described.state, described.members.len()), ("Stable", 2));
    // Nobody is heard of any more: the sessions end, the offsets stay.
    tokio::time::sleep(Duration::from_millis(100_000)).await;
    let list = again.list().await.unwrap();
    assert_eq!((list.len(), list[0].state), (1, "Empty"));
    assert_eq!(committed(&again, "g").await, Ok(Some(42)));
    assert_eq!(again.delete("g").await, Ok(()));
    assert_eq!((again.list().await, again.count()), (Ok(vec![]), 0));
    let third = start(&store, 0);
    settle().await;
    assert_eq!(third.list().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_it_is_durable() {
    let store = MemoryStore::default();
    let groups = start(&store, 0);
    groups.commit("g", commit(1)).await.unwrap();
    store.hold();
    let mut pending = Vec::new();
    for offset in [2, 3] {
        let handle = groups.clone();
        pending.push(tokio::spawn(async move { handle.commit("g", commit(offset)).await.is_ok() }));
        settle().await;
    }
    let handle = groups.clone();
    pending.push(tokio::spawn(async move { handle.delete("g").await.is_ok() }));
    settle().await;
    // Tells that the group is gone, so it waits; and so does a description.
    let handle = groups.clone();
    pending.push(tokio::spawn(async move { handle.list().await == Ok(vec![]) }));
    let handle = groups.clone();
    pending.push(tokio::spawn(async move { handle.describe("g").await == Ok(None) }));
    settle().await;
    assert!(pending.iter().all(|task| !task.is_finished()));
    assert_eq!(committed(&groups, "g").await, Ok(Some(1)), "reads go on, over what is durable");
    store.release();
    for task in pending {
        assert!(task.await.unwrap());
    }
    assert_eq!(committed(&groups, "g").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_cannot_be_written_is_refused_and_can_be_repeated() {
    let store = MemoryStore::default();
    let groups = start(&store, 0);
    groups.commit("g", commit(1)).await.unwrap();
    for (error, expect) in [
        (StoreError::TooLarge, GroupError::CommitTooLarge),
        (StoreError::Unavailable { reason: "full".into() }, GroupError::CoordinatorNotAvailable),
    ] {
        store.fail(Some(error));
        assert_eq!(groups.commit("g", commit(2)).await, Err(expect));
        assert!(groups.delete("g").await.is_err());
        assert_eq!(committed(&groups, "g").await, Ok(Some(1)));
    }
    store.fail(None);
    assert_eq!(groups.commit("g", commit(3)).await, Ok(vec![Ok(())]));
    assert_eq!(committed(&groups, "g").await, Ok(Some(3)));
}

#[tokio::test(start_paused = true)]
async fn requests_are_refused_while_the_log_is_read() {
    let store = MemoryStore::default();
    let groups = start(&store, 0);
    for offset in 1..=10 {
        groups.commit("g", commit(offset)).await.unwrap();
    }
    drop(groups);
    let go = store.hold_reads();
    let groups = start(&store, 0);
    let loading = GroupError::CoordinatorLoadInProgress;
    assert_eq!(committed(&groups, "g").await, Err(loading));
    assert_eq!(groups.commit("g", commit(11)).await, Err(loading));
    assert_eq!(groups.join("g", join("", "a", true)).await.unwrap_err().error, loading);
    assert_eq!(groups.list().await, Err(loading));
    assert_eq!(groups.committed(1).await, []);
    assert_eq!(groups.summaries("", 1).await, []);
    go.send(true).unwrap();
    settle().await;
    assert_eq!(committed(&groups, "g").await, Ok(Some(10)));
    let all = groups.committed(1).await;
    assert_eq!((all.len(), all[0].summary.members, all[0].committed[0].1), (1, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_by_pages() {
    let groups = start(&MemoryStore::default(), 0);
    // More than an owner copies in one go.
    let names: Vec<String> = (0..1_100).map(|i| format!("g{i:04}")).collect();
    for name in &names {
        groups.commit(name, commit(1)).await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = groups.summaries(&after, 500).await;
        assert!(page.iter().all(|group| group.offsets == 1 && group.members == 0));
        seen.extend(page.iter().map(|group| group.group.group_id.to_string()));
        match page.last() {
            Some(last) => after = last.group.group_id.to_string(),
            None => break,
        }
    }
    assert_eq!(seen, names);
    let all = groups.committed(1_000_000).await;
    let shown = all.iter().map(|group| (group.summary.group.group_id.to_string(), group.committed.len()));
    assert!(shown.eq(names.iter().map(|name| (name.clone(), 1))));
    let some = groups.committed(700).await;
    assert_eq!(some.len(), names.len(), "every group is named");
    assert_eq!(some.iter().map(|group| group.committed.len()).sum::<usize>(), 700);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_takes_its_parked_join_along() {
    let store = MemoryStore::default();
    let groups = start(&store, 3_000);
    let handle = groups.clone();
    let parked = tokio::spawn(async move { handle.join("g", join("", "gone", false)).await });
    settle().await;
    parked.abort();
    settle().await;
    let joined = groups.join("g", join("", "stays", false)).await.unwrap();
    assert_eq!(joined.members.len(), 1);
    assert_eq!(&*joined.leader, "stays");
}

#[tokio::test(start_paused = true)]
async fn a_stop_refuses_what_is_parked_and_answers_what_is_written() {
    let store = MemoryStore::default();
    let groups = start(&store, 3_000);
    let handle = groups.clone();
    let parked = tokio::spawn(async move { handle.join("g", join("", "a", false)).await });
    settle().await;
    store.hold();
    let handle = groups.clone();
    let written = tokio::spawn(async move { handle.commit("h", commit(1)).await });
    settle().await;
    groups.stop().await;
    assert_eq!(parked.await.unwrap().unwrap_err().error, GroupError::CoordinatorNotAvailable);
    assert_eq!(groups.heartbeat("g", who("a", 1)).await, Err(GroupError::CoordinatorNotAvailable));
    assert!(!written.is_finished());
    store.release();
    assert_eq!(written.await.unwrap(), Ok(vec![Ok(())]));
    groups.stop().await;
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_deleted_topic_go() {
    let store = MemoryStore::default();
    let groups = start(&store, 0);
    for group in ["g", "h", "i"] {
        groups.commit(group, commit(1)).await.unwrap();
    }
    groups.topic_deleted("t").await.unwrap();
    assert_eq!((groups.list().await, groups.count()), (Ok(vec![]), 0));
}

#[tokio::test(start_paused = true)]
async fn unused_offsets_expire_by_themselves() {
    let store = MemoryStore::default();
    let limits = GroupLimits { offsets_retention_ms: 0, ..GroupLimits::default() };
    let clock = Arc::new(ManualClock::new(0));
    let groups = Groups::start(&limits, 2, Arc::new(store.clone()), clock);
    groups.commit("g", commit(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(599)).await;
    settle().await;
    assert_eq!(groups.count(), 1 - usize::from(partition_of("g", 2) == 0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    assert_eq!(groups.count(), 0);
}

/// A shard whose log has grown keeps what it says, and no more.
#[tokio::test(start_paused = true)]
async fn a_snapshot_takes_the_place_of_what_came_before() {
    let store = MemoryStore::default();
    let limits = GroupLimits { snapshot_min_bytes: 1_000, ..GroupLimits::default() };
    let start = || {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        Groups::start(&limits, 1, Arc::new(store.clone()), clock)
    };
    let groups = start();
    for offset in 0..10 {
        groups.commit("a", commit(offset)).await.unwrap().remove(0).unwrap();
    }
    groups.snapshot_when_due().await;
    assert_eq!(store.records(0).len(), 10, "ten records are not enough to be worth it");
    // A transaction is open: what it has written stays.
    let producer = ProducerIdentity { id: 5, epoch: 0 };
    groups.commit_in_transaction("b", commit(77), producer, Box::new(|_| {})).await.unwrap();
    groups.snapshot_when_due().await;
    assert_eq!(store.records(0).len(), 2, "the snapshot, and what is open");
    let applied = groups.end_transaction(0, committing(producer)).await.unwrap();
    applied.await.unwrap().unwrap();
    groups.commit("a", commit(9)).await.unwrap().remove(0).unwrap();
    for again in [groups, start()] {
        settle().await;
        assert_eq!(committed(&again, "a").await, Ok(Some(9)));
        assert_eq!(committed(&again, "b").await, Ok(Some(77)));
    }
}

/// There is no moment at which nothing is open, and none at which nothing is on its way.
#[tokio::test(start_paused = true)]
async fn transactions_that_overlap_do_not_keep_the_log_from_shrinking() {
    let store = MemoryStore::default();
    let limits = GroupLimits { snapshot_min_bytes: 1_000, ..GroupLimits::default() };
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let groups = Groups::start(&limits, 1, Arc::new(store.clone()), clock);
    let producer = |id| ProducerIdentity { id, epoch: 0 };
    groups.commit("a", commit(0)).await.unwrap().remove(0).unwrap();
    let mut longest = 0;
    for round in 0..1_000 {
        let (begins, ends) = (round % 2, (round + 1) % 2);
        let placed = Box::new(|_| {});
        groups.commit_in_transaction("b", commit(round), producer(begins), placed).await.unwrap();
        drop(groups.snapshot_when_due());
        let applied = groups.end_transaction(0, committing(producer(ends))).await.unwrap();
        applied.await.unwrap().unwrap();
        settle().await;
        longest = longest.max(store.records(0).len());
    }
    assert!(longest < 60, "{longest} records");
    let applied = groups.end_transaction(0, committing(producer(1))).await.unwrap();
    applied.await.unwrap().unwrap();
    assert_eq!(committed(&groups, "b").await, Ok(Some(999)));
}

#[tokio::test(start_paused = true)]
async fn groups_beside_a_record_that_does_not_read_are_not_served() {
    let store = MemoryStore::default();
    let groups = start(&store, 0);
    assert_eq!(groups.commit("g", commit(1)).await, Ok(vec![Ok(())]));
    let partition = groups.partition_of("g");
    let elsewhere = ["a", "b", "c", "d"].into_iter().find(|id| groups.partition_of(id) != partition);
    let elsewhere = elsewhere.expect("four groups are not all in one partition");
    let offset = store.records(usize::try_from(partition).unwrap()).len();
    let key = Bytes::from_static(b"\0\x02\0\x01g");
    let newer = KeyValue { key, value: Some(Bytes::from_static(b"\0\x63")) };
    drop(store.append(partition, None, vec![newer], 0).unwrap());
    drop(groups);

    let again = start(&store, 0);
    let record = again.loaded().await.unwrap_err();
    assert_eq!((record.partition, record.offset), (partition, i64::try_from(offset).unwrap()));
    settle().await;
    assert_eq!(committed(&again, "g").await, Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(again.commit("g", commit(2)).await, Err(GroupError::CoordinatorNotAvailable));
    let kept = store.records(usize::try_from(partition).unwrap()).len();
    assert_eq!(kept, offset + 1, "nothing is written beside it");
    assert_eq!(again.commit(elsewhere, commit(2)).await, Ok(vec![Ok(())]));
    again.stop().await;
}
