use super::*;

fn at(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

fn who(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity { id, epoch }
}

const OLDER: Protocol = Protocol::Classic;
const NEWER: Protocol = Protocol::EpochPerTransaction;

fn empty() -> Transaction {
    Transaction::new("tx".into(), 7, 60_000, 1000)
}

fn open(protocol: Protocol) -> Transaction {
    empty().add([at("t")], protocol, 2000).unwrap()
}

fn ended(from: &Transaction, commit: bool, epoch: EpochAfter) -> Transaction {
    from.prepare(commit, epoch, None, 3000).complete(3000)
}

#[test]
fn who_may_init() {
    let bumped = empty().init(Some(who(7, 0)), None, 60_000, 2000);
    let check = |txn: &Transaction, before: Option<ProducerIdentity>, expect: Result<Init, TxnError>| {
        assert_eq!(txn.check_init(before), expect, "{:?} of {:?}", before, txn.producer);
    };
    assert_eq!(bumped.producer, who(7, 1));
    check(&empty(), None, Ok(Init::Bump));
    check(&empty(), Some(who(7, 0)), Ok(Init::Bump));
    check(&bumped, Some(who(7, 1)), Ok(Init::Bump));
    check(&bumped, Some(who(7, 0)), Ok(Init::Again));
    check(&bumped, Some(who(8, 1)), Err(TxnError::Fenced));
    check(&open(OLDER), None, Ok(Init::Bump));
    check(&open(OLDER), Some(who(7, 5)), Err(TxnError::Fenced));
    check(&open(OLDER).prepare(true, EpochAfter::Same, None, 0), None, Err(TxnError::Concurrent));
    // Taken over by another: who was there before is fenced.
    let taken = bumped.init(None, None, 60_000, 2000);
    check(&taken, Some(who(7, 1)), Err(TxnError::Fenced));
    let last = Transaction { producer: who(7, i16::MAX - 1), ..empty() };
    check(&last, None, Ok(Init::Rotate));
    let rotated = last.init(Some(who(7, i16::MAX - 1)), Some(9), 60_000, 2000);
    assert_eq!((rotated.producer, rotated.previous_producer_id), (who(9, 0), 7));
    check(&rotated, Some(who(7, i16::MAX - 1)), Ok(Init::Again));
    // Another has taken over, and got the new producer id.
    check(&last.init(None, Some(9), 60_000, 2000), Some(who(7, i16::MAX - 1)), Err(TxnError::Fenced));
}

#[test]
fn a_repeated_init_that_had_to_abort_gets_what_the_first_one_got() {
    let before = Some(who(7, 0));
    let aborted = ended(&open(OLDER), false, EpochAfter::Fencing);
    assert_eq!(open(OLDER).check_init(before), Ok(Init::Bump));
    let next = aborted.init(before, None, 60_000, 3000);
    assert_eq!((next.producer, next.check_init(before)), (who(7, 2), Ok(Init::Again)));
    assert_eq!(next.check_init(Some(who(7, 1))), Err(TxnError::Fenced), "an epoch that nobody was given");
    // The same when no epoch is left.
    let last = i16::MAX - 1;
    let open = Transaction { producer: who(7, last), ..open(OLDER) };
    assert_eq!(open.check_init(Some(who(7, last))), Ok(Init::Rotate));
    let next = ended(&open, false, EpochAfter::Fencing).init(Some(who(7, last)), Some(9), 60_000, 3000);
    assert_eq!((next.producer, next.check_init(Some(who(7, last)))), (who(9, 0), Ok(Init::Again)));
}

/// As Apache Kafka 4.4 answers, in both protocols.
#[test]
fn who_timed_out_goes_on_in_the_next_epoch_unless_another_has_taken_over() {
    for protocol in [OLDER, NEWER] {
        let timed_out = ended(&open(protocol), false, EpochAfter::Fencing);
        let before = Some(who(7, 0));
        assert_eq!((timed_out.producer, timed_out.check_init(before)), (who(7, 1), Ok(Init::Again)));
        // It goes on, and has lost its place in the epoch before.
        assert_eq!(timed_out.check_init(Some(who(7, 1))), Ok(Init::Bump));
        let open = timed_out.add([at("t")], protocol, 4000).unwrap();
        assert_eq!(open.check_init(before), Err(TxnError::Fenced), "a copy");
        let next = timed_out.init(Some(who(7, 1)), None, 60_000, 4000);
        assert_eq!(next.check_init(before), Err(TxnError::Fenced));
        let taken = timed_out.init(None, None, 60_000, 4000);
        assert_eq!((taken.producer, taken.check_init(before)), (who(7, 2), Err(TxnError::Fenced)));
    }
    // The same for who has not heard of the end that it asked for itself.
    let ended = ended(&open(NEWER), true, EpochAfter::Next);
    assert_eq!(ended.check_init(Some(who(7, 0))), Ok(Init::Again));
}

#[test]
fn a_time_out_in_the_last_epoch_leaves_a_place_for_a_new_producer_id() {
    let last = i16::MAX - 1;
    let open = Transaction { producer: who(7, last), ..open(NEWER) };
    let aborted = ended(&open, false, EpochAfter::Fencing);
    assert_eq!(aborted.producer, who(7, i16::MAX));
    assert_eq!(aborted.check_init(None), Ok(Init::Rotate));
    assert_eq!(aborted.check_init(Some(who(7, last))), Ok(Init::Rotate));
    let rotated = aborted.init(Some(who(7, last)), Some(9), 60_000, 4000);
    assert_eq!((rotated.producer, rotated.check_init(Some(who(7, last)))), (who(9, 0), Ok(Init::Again)));
    assert_eq!(aborted.check_end(who(7, last), true, NEWER), Err(TxnError::InvalidState));
    assert_eq!(aborted.check_end(who(7, last), true, OLDER), Err(TxnError::Fenced));
    assert_eq!(aborted.check_open(who(7, last)), Err(TxnError::Fenced));
}

#[test]
fn partitions_are_added_by_the_current_producer() {
    let txn = open(OLDER);
    assert_eq!((txn.state, txn.start_ms, txn.partitions.len()), (TxnState::Ongoing, 2000, 1));
    assert_eq!(txn.add([at("t")], OLDER, 9000), None, "it is there");
    let more = txn.add([at("u")], OLDER, 9000).unwrap();
    assert_eq!((more.start_ms, more.partitions.len()), (2000, 2), "the clock of the transaction goes on");
    assert_eq!(txn.check_open(who(8, 0)), Err(TxnError::UnknownProducer));
    assert_eq!(txn.check_open(who(7, 1)), Err(TxnError::Fenced));
    assert_eq!(txn.prepare(true, EpochAfter::Same, None, 0).check_open(who(7, 0)), Err(TxnError::Concurrent));
    assert_eq!(txn.check_added(who(7, 0), &at("t")), Ok(()));
    assert_eq!(txn.check_added(who(7, 0), &at("u")), Err(TxnError::NotAdded));
    assert_eq!(ended(&txn, true, EpochAfter::Same).check_added(who(7, 0), &at("t")), Err(TxnError::NotAdded));
    let next = ended(&txn, true, EpochAfter::Same).add([at("u")], OLDER, 9000).unwrap();
    assert_eq!((next.start_ms, next.partitions.len()), (9000, 1), "a new transaction");
}

#[test]
fn ends_of_the_older_protocol() {
    let check = |txn: &Transaction, epoch, commit, expect: Result<End, TxnError>| {
        assert_eq!(txn.check_end(who(7, epoch), commit, OLDER), expect, "{:?} {epoch} {commit}", txn.state);
    };
    let (committed, aborted) =
        (ended(&open(OLDER), true, EpochAfter::Same), ended(&open(OLDER), false, EpochAfter::Same));
    assert_eq!((committed.producer, committed.state), (who(7, 0), TxnState::CompleteCommit));
    check(&open(OLDER), 0, true, Ok(End::Go));
    check(&open(OLDER), 1, true, Err(TxnError::Fenced));
    check(&open(OLDER).prepare(true, EpochAfter::Same, None, 0), 0, true, Err(TxnError::Concurrent));
    check(&empty(), 0, false, Err(TxnError::InvalidState));
    check(&committed, 0, true, Ok(End::Done));
    check(&committed, 0, false, Err(TxnError::InvalidState));
    check(&aborted, 0, false, Ok(End::Done));
    check(&aborted, 0, true, Err(TxnError::InvalidState));
    assert_eq!(
        open(OLDER).check_end(who(8, 0), true, OLDER),
        Err(TxnError::UnknownProducer),
        "another producer id"
    );
}

#[test]
fn every_end_of_the_newer_protocol_raises_the_epoch() {
    let check = |txn: &Transaction, epoch, commit, expect: Result<End, TxnError>| {
        assert_eq!(txn.check_end(who(7, epoch), commit, NEWER), expect, "{:?} {epoch} {commit}", txn.state);
    };
    let (committed, aborted) =
        (ended(&open(NEWER), true, EpochAfter::Next), ended(&open(NEWER), false, EpochAfter::Next));
    assert_eq!(committed.producer, who(7, 1));
    check(&open(NEWER), 0, true, Ok(End::Go));
    check(&committed, 0, true, Ok(End::Done));
    check(&committed, 0, false, Err(TxnError::InvalidState));
    // The coordinator has aborted it after its time-out.
    check(&aborted, 0, true, Err(TxnError::InvalidState));
    check(&aborted, 0, false, Ok(End::Done));
    // A delayed copy when the next transaction is open, or ended.
    let next = committed.add([at("t")], NEWER, 4000).unwrap();
    check(&next, 0, true, Err(TxnError::Fenced));
    check(&ended(&next, true, EpochAfter::Next), 0, true, Err(TxnError::Fenced));
    // Nothing was written: an abort is an end, a commit is a mistake.
    check(&committed, 1, false, Ok(End::Go));
    check(&committed, 1, true, Err(TxnError::InvalidState));
    check(&empty(), 0, false, Ok(End::Go));
    assert_eq!(ended(&committed, false, EpochAfter::Next).producer, who(7, 2));
}

#[test]
fn a_zombie_of_the_newer_protocol_does_not_get_the_epoch_of_an_older_client() {
    // Nothing of it was open, so the one that took over has the next epoch, and keeps it through its own transactions.
    for (added_by, commit) in [(OLDER, true), (OLDER, false), (NEWER, true), (NEWER, false)] {
        let zombie = ended(&open(NEWER), true, EpochAfter::Next);
        let taken = zombie.init(None, None, 60_000, 4000);
        // Some clients end with the older protocol what they have written with the newer.
        let done = ended(&taken.add([at("t")], added_by, 5000).unwrap(), commit, EpochAfter::Same);
        assert_eq!(done.producer, who(7, 2));
        for asked in [true, false] {
            assert_eq!(done.check_end(zombie.producer, asked, NEWER), Err(TxnError::Fenced), "{added_by:?}");
        }
    }
    // The same with a new producer id.
    let zombie = Transaction { producer: who(7, i16::MAX - 1), ..empty() };
    let taken = zombie.init(None, Some(9), 60_000, 4000);
    let done = ended(&taken.add([at("t")], OLDER, 5000).unwrap(), true, EpochAfter::Same);
    assert_eq!(done.check_end(zombie.producer, true, NEWER), Err(TxnError::UnknownProducer));
}

#[test]
fn a_repeated_end_of_the_newer_protocol_is_known_whoever_wrote_before() {
    // Nothing was added, after an older client: the abort that raises the epoch is of the newer protocol all the same.
    let before = ended(&open(OLDER), true, EpochAfter::Same).init(None, None, 60_000, 4000);
    assert_eq!(before.check_end(before.producer, false, NEWER), Ok(End::Go));
    let done = ended(&before, false, EpochAfter::Next);
    assert_eq!(done.check_end(before.producer, false, NEWER), Ok(End::Done));
    assert_eq!(done.check_end(before.producer, true, NEWER), Err(TxnError::InvalidState));
    // As a start finds it.
    let value = crate::txn::records::encode_value(&done);
    let found = crate::txn::records::decode_value("tx".into(), &value).unwrap();
    assert_eq!(found.check_end(before.producer, false, NEWER), Ok(End::Done));
}

#[test]
fn a_repeated_end_is_known_when_partitions_were_added_as_older_clients_do() {
    for commit in [true, false] {
        let done = ended(&open(OLDER), commit, EpochAfter::Next);
        assert_eq!((done.producer, done.check_end(who(7, 0), commit, NEWER)), (who(7, 1), Ok(End::Done)));
        // The coordinator has taken it: its producer did not ask for that.
        let fenced = ended(&open(OLDER), false, EpochAfter::Fencing);
        assert_eq!(fenced.check_end(who(7, 0), commit, NEWER), Err(TxnError::Fenced));
    }
}

#[test]
fn requests_in_every_state() {
    let open = |protocol| empty().add([at("t")], protocol, 2000).unwrap();
    let at_epoch =
        |txn: Transaction, state| Transaction { state, producer: who(7, 5), client_version: 2, ..txn };
    use TxnState::*;
    type Checked = Result<End, TxnError>;
    let (go, done) = (Ok(End::Go), Ok(End::Done));
    let (fenced, invalid, later) =
        (Err(TxnError::Fenced), Err(TxnError::InvalidState), Err(TxnError::Concurrent));
    // Of the older protocol: commit and abort with the current epoch. Of the newer: with the current one, and with the
    // one before.
    type Row = (TxnState, [Checked; 2], [Checked; 2], [Checked; 2]);
    let rows: [Row; 7] = [
        (Empty, [invalid, invalid], [invalid, go], [fenced, fenced]),
        (Ongoing, [go, go], [go, go], [fenced, fenced]),
        (PrepareCommit, [later, invalid], [later, invalid], [later, invalid]),
        (PrepareAbort, [invalid, later], [invalid, later], [invalid, later]),
        (PrepareEpochFence, [later, later], [later, later], [later, later]),
        (CompleteCommit, [done, invalid], [invalid, go], [done, invalid]),
        (CompleteAbort, [invalid, done], [invalid, go], [invalid, done]),
    ];
    for (state, older, newer, newer_before) in rows {
        let txn = at_epoch(open(NEWER), state);
        for (commit, i) in [(true, 0), (false, 1)] {
            assert_eq!(txn.check_end(who(7, 5), commit, OLDER), older[i], "{state:?} {commit}");
            assert_eq!(txn.check_end(who(7, 4), commit, OLDER), fenced, "{state:?} {commit}");
            assert_eq!(txn.check_end(who(7, 5), commit, NEWER), newer[i], "{state:?} {commit}");
            assert_eq!(txn.check_end(who(7, 4), commit, NEWER), newer_before[i], "{state:?} {commit}");
            assert_eq!(txn.check_end(who(7, 3), commit, NEWER), fenced, "{state:?} {commit}");
            assert_eq!(txn.check_end(who(7, 6), commit, NEWER), fenced, "{state:?} {commit}");
        }
        let ending = matches!(state, PrepareCommit | PrepareAbort | PrepareEpochFence);
        assert_eq!(txn.check_open(who(7, 5)), if ending { Err(TxnError::Concurrent) } else { Ok(()) });
        assert_eq!(txn.check_init(None), if ending { Err(TxnError::Concurrent) } else { Ok(Init::Bump) });
    }
}

#[test]
fn an_exhausted_epoch_gives_a_new_producer_id() {
    let last = Transaction { producer: who(7, i16::MAX - 1), ..open(NEWER) };
    assert!(last.must_rotate());
    let prepared = last.prepare(true, EpochAfter::Next, Some(9), 3000);
    assert_eq!(prepared.producer, who(7, i16::MAX), "the markers have an epoch that nobody was given");
    let done = prepared.complete(3000);
    assert_eq!((done.producer, done.previous_producer_id, done.next_producer_id), (who(9, 0), 7, -1));
    assert_eq!(done.check_end(who(7, i16::MAX - 1), true, NEWER), Ok(End::Done));
}

#[test]
fn time_outs_and_expiry() {
    let txn = open(OLDER);
    assert!(!txn.is_timed_out(61_999) && txn.is_timed_out(62_000));
    assert!(!ended(&txn, true, EpochAfter::Same).is_timed_out(i64::MAX));
    assert!(!txn.is_expired(i64::MAX, 1), "an open transaction is in use");
    assert!(!empty().is_expired(1009, 10) && empty().is_expired(1010, 10));
}
