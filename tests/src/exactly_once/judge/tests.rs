//! A history without fault, and histories that contain each kind of violation: the judge must name each, and no other.

use super::*;

const A: Cell = Cell { topic: 0, partition: 0 };
const B: Cell = Cell { topic: 0, partition: 1 };
const COPY: Cell = Cell { topic: 1, partition: 0 };
const MADE: Cell = Cell { topic: 2, partition: 0 };

fn topics() -> Vec<Topic> {
    let topic = |name: &str, role| Topic { name: name.to_owned(), role };
    vec![
        topic("in", Role::Source),
        topic("copy", Role::Copy { of: 0 }),
        topic("made", Role::Derived { of: 0 }),
    ]
}

/// Transactions of producer 0 write key 0 to partition 0 and key 1 to partition 1; producer 1 copies.
struct World {
    events: Vec<Event>,
    view: View,
}

fn id(producer: u32, number: u64) -> TransactionId {
    TransactionId::new(producer, number)
}

impl World {
    fn transaction(
        &mut self,
        id: TransactionId,
        records: &[(Cell, i64, u32, u64)],
        outcome: Outcome,
        there: bool,
    ) {
        for (index, (to, offset, key, number)) in records.iter().enumerate() {
            let stamp = Stamp { transaction: id, index: index as u32, key: *key, number: *number };
            self.events.push(Event::Sent { stamp, to: *to });
            self.events.push(Event::Acked { transaction: id, index: index as u32, offset: *offset });
            if there {
                self.put(*to, *offset, stamp);
            }
        }
        if id.producer() == 1 {
            let offset = records.iter().map(|(.., number)| *number as i64).max().unwrap_or(0);
            self.events.push(Event::Offset { transaction: id, of: A, offset });
        }
        if outcome != Outcome::Aborted {
            self.events.push(Event::Asked { transaction: id });
        }
        self.events.push(Event::Ended { transaction: id, outcome });
    }

    fn put(&mut self, at: Cell, offset: i64, stamp: Stamp) {
        let records = &mut self.view[at.topic as usize][at.partition as usize];
        records.push(Record { offset, stamp: Some(stamp) });
    }

    fn cell(&mut self, at: Cell) -> &mut Vec<Record> {
        &mut self.view[at.topic as usize][at.partition as usize]
    }

    fn sight(&mut self, at: Cell, which: usize) {
        let Record { offset, stamp } = self.cell(at)[which];
        self.events.push(Event::Sight { stamp: stamp.unwrap(), at, offset });
    }
}

/// Committed, aborted, committed after all, gone; copied twice; made by a pipeline.
fn world() -> World {
    let mut world = World { events: Vec::new(), view: vec![vec![vec![]; 2], vec![vec![]], vec![vec![]]] };
    world.transaction(id(0, 0), &[(A, 0, 0, 1), (B, 0, 1, 1), (A, 1, 0, 2)], Outcome::Committed, true);
    world.sight(A, 0);
    world.transaction(id(0, 1), &[(A, 3, 0, 3), (B, 2, 1, 2)], Outcome::Aborted, false);
    world.transaction(id(0, 2), &[(A, 5, 0, 3), (B, 4, 1, 2)], Outcome::Unknown, true);
    world.transaction(id(0, 3), &[(A, 7, 0, 4)], Outcome::Unknown, false);
    world.transaction(
        id(1, 0),
        &[(COPY, 0, 0, 1), (COPY, 1, 0, 2), (COPY, 2, 1, 1)],
        Outcome::Committed,
        true,
    );
    world.events.push(Event::Found { producer: 1, of: A, offset: 2 });
    world.transaction(id(1, 1), &[(COPY, 4, 0, 3), (COPY, 5, 1, 2)], Outcome::Unknown, true);
    world.events.push(Event::Found { producer: 1, of: A, offset: 3 });
    for (offset, (cell, which)) in [(A, 0), (B, 0), (A, 1), (A, 2), (B, 1)].into_iter().enumerate() {
        let stamp = world.cell(cell)[which].stamp.unwrap();
        world.put(MADE, offset as i64, stamp);
    }
    world
}

/// Does something to the world, and wants exactly these findings, of which the first names these words.
fn check(change: impl FnOnce(&mut World), expect: &[(Count, u64)], named: &[&str]) {
    let mut world = world();
    change(&mut world);
    let verdict = judge(&topics(), &world.events, &world.view, Vec::new());
    for (what, name) in NAMES.iter().filter(|(what, _)| *what >= Count::Lost) {
        let wanted = expect.iter().find(|(kind, _)| kind == what).map_or(0, |(_, n)| *n);
        assert_eq!(verdict.count(*what), wanted, "{name}: {:?}", verdict.findings);
    }
    assert_eq!(verdict.findings.is_empty(), expect.is_empty());
    let text = verdict.findings.join("\n");
    for word in named {
        assert!(text.contains(word), "nothing of `{word}` in {text}");
    }
}

#[test]
fn a_run_without_fault_has_no_findings() {
    check(|_| {}, &[], &[]);
    let World { events, view } = world();
    let verdict = judge(&topics(), &events, &view, Vec::new());
    let counts = [
        (Count::Committed, 2),
        (Count::Aborted, 1),
        (Count::Unknown, 3),
        (Count::UnknownThere, 2),
        (Count::Read, 15),
    ];
    for (what, n) in counts {
        assert_eq!(verdict.count(what), n, "{what:?}");
    }
}

#[test]
fn what_is_missing_is_named() {
    // One record of an acknowledged transaction.
    let named = [
        "torn: transaction 0 of producer 0 (Committed) has 2 of 3",
        "record 1, key 1 number 1, in [1]",
        "Some(0)",
    ];
    check(
        |w| {
            w.cell(B).remove(0);
        },
        &[(Count::Torn, 1), (Count::Gaps, 1)],
        &named,
    );
    // One of a transaction that nobody knew the end of.
    let named = ["transaction 2 of producer 0 (Unknown) has 1 of 2", "key 1 ends at 1 of 2"];
    check(
        |w| {
            w.cell(B).remove(1);
        },
        &[(Count::Torn, 1), (Count::Gaps, 1)],
        &named,
    );
    // All of a transaction; the numbers of key 0 then go from 0 to 3.
    let lose = |w: &mut World| {
        w.cell(A).drain(..2);
        w.cell(B).remove(0);
    };
    check(
        lose,
        &[(Count::Lost, 3), (Count::Gaps, 2), (Count::Vanished, 1)],
        &["lost: transaction 0", "from 0 to 3"],
    );
    // Something that was to be made of a record.
    check(
        |w| {
            w.cell(MADE).remove(2);
        },
        &[(Count::Gaps, 1)],
        &["made [0] offset 3: key 0 goes from 1 to 3"],
    );
    check(
        |w| {
            w.cell(MADE).remove(3);
        },
        &[(Count::Gaps, 1)],
        &["gap: made: key 0 ends at 2 of 3"],
    );
}

#[test]
fn what_is_there_too_often_is_named() {
    let again = |w: &mut World| {
        let stamp = w.cell(A)[2].stamp.unwrap();
        w.put(A, 9, stamp);
    };
    check(again, &[(Count::Doubled, 2)], &["in [0] offset 9 is record 0 of transaction 2", "as offset 5 is"]);
    let again = |w: &mut World| {
        let stamp = w.cell(MADE)[0].stamp.unwrap();
        w.put(MADE, 9, stamp);
    };
    check(again, &[(Count::Doubled, 1)], &["made [0] offset 9: key 0 goes from 3 to 1"]);
    let foreign = Stamp { transaction: id(0, 9), index: 0, key: 0, number: 4 };
    let named = ["foreign: in [0] offset 9 is record 0 of transaction 9 of producer 0, key 0 number 4"];
    check(|w| w.put(A, 9, foreign), &[(Count::Foreign, 1), (Count::Gaps, 1)], &named);
    // What a pipeline made of an aborted record: nobody may ever have seen it.
    let aborted = Stamp { transaction: id(0, 1), index: 1, key: 1, number: 2 };
    let named = ["aborted and read: made [0] offset 9 is made of record 1 of transaction 1 of producer 0"];
    check(|w| w.put(MADE, 9, aborted), &[(Count::AbortedRead, 1), (Count::Doubled, 1)], &named);
    // The copy of a record, where its original should be.
    let copied = Stamp { transaction: id(1, 0), index: 0, key: 0, number: 1 };
    check(
        |w| w.put(MADE, 9, copied),
        &[(Count::Foreign, 1), (Count::Doubled, 1)],
        &["which nobody sent there"],
    );
}

#[test]
fn what_was_aborted_is_never_read() {
    let aborted = Stamp { transaction: id(0, 1), index: 0, key: 0, number: 3 };
    let named =
        ["aborted and read: in [0] offset 3 is record 0 of transaction 1 of producer 0, key 0 number 3"];
    // Key 0 reads 1, 2, 3 of the aborted one, and 3 again.
    let read = |w: &mut World| w.cell(A).insert(2, Record { offset: 3, stamp: Some(aborted) });
    check(read, &[(Count::AbortedRead, 1), (Count::Doubled, 1)], &named);
    let sight = |w: &mut World| w.events.push(Event::Sight { stamp: aborted, at: A, offset: 3 });
    check(sight, &[(Count::AbortedRead, 1), (Count::Vanished, 1)], &["a consumer was given in [0] offset 3"]);
}

#[test]
fn a_consumer_beside_the_load_is_never_given_too_much() {
    let early = |w: &mut World| {
        let Record { offset, stamp } = w.cell(A)[0];
        let asked = w.events.iter().position(|event| matches!(event, Event::Asked { .. })).unwrap();
        w.events.insert(asked, Event::Sight { stamp: stamp.unwrap(), at: A, offset });
    };
    check(
        early,
        &[(Count::Early, 1)],
        &["in [0] offset 0, record 0 of transaction 0 of producer 0", "before its commit"],
    );
    let gone = Stamp { transaction: id(0, 3), index: 0, key: 0, number: 4 };
    let vanished = |w: &mut World| w.events.push(Event::Sight { stamp: gone, at: A, offset: 7 });
    check(vanished, &[(Count::Vanished, 1)], &["offset 7", "at the end it is at None"]);
    let nobodys = Stamp { transaction: id(7, 3), ..gone };
    let foreign = |w: &mut World| w.events.push(Event::Sight { stamp: nobodys, at: A, offset: 7 });
    check(foreign, &[(Count::Foreign, 1)], &["record 0 of transaction 3 of producer 7"]);
}

#[test]
fn places_bytes_and_order_are_those_that_were_named() {
    check(|w| w.cell(A)[2].offset = 6, &[(Count::Moved, 1)], &["moved: in [0] offset 6", "Some(5)"]);
    let elsewhere = |w: &mut World| {
        let record = w.cell(B).remove(1);
        w.cell(A).push(Record { offset: 9, ..record });
    };
    check(
        elsewhere,
        &[(Count::Moved, 1), (Count::Gaps, 1), (Count::Doubled, 1)],
        &["in [0] offset 9 is record 1 of transaction 2"],
    );
    // The second of the transaction is not what it was: it is missing, and so is its number.
    let damaged = |w: &mut World| w.cell(A)[1].stamp = None;
    check(damaged, &[(Count::Damaged, 1), (Count::Torn, 1), (Count::Gaps, 1)], &["damaged: in [0] offset 1"]);
    check(
        |w| w.cell(A)[1].offset = 0,
        &[(Count::Disordered, 1), (Count::Moved, 1)],
        &["came behind offset 0"],
    );
    // Copies of two keys may come in any order, but not behind a later transaction.
    let late = |w: &mut World| {
        let mut records: Vec<Record> = w.cell(COPY).clone();
        records.swap(2, 4);
        for (record, offset) in records.iter_mut().zip([0, 1, 2, 4, 5]) {
            record.offset = offset;
        }
        *w.cell(COPY) = records;
    };
    let expect = [(Count::Disordered, 2), (Count::Moved, 2), (Count::Gaps, 1), (Count::Doubled, 1)];
    check(late, &expect, &["behind record 1 of transaction 1 of producer 1"]);
}

#[test]
fn offsets_are_those_of_the_transactions_that_are_there() {
    let found = |offset| move |w: &mut World| w.events.push(Event::Found { producer: 1, of: A, offset });
    check(found(3), &[], &[]);
    check(
        found(2),
        &[(Count::Offsets, 1)],
        &["in [0] offset 2 is committed, 3 was by transaction 1 of producer 1"],
    );
    check(found(-1), &[(Count::Offsets, 1)], &["offset -1 is committed, 3 was"]);
    let nothing = Event::Found { producer: 1, of: B, offset: 1 };
    check(
        |w| w.events.push(nothing),
        &[(Count::Offsets, 1)],
        &["in [1] offset 1 is committed, and nothing was"],
    );
    // A transaction whose records are gone has no offsets either: offsets without records are torn.
    let torn = |w: &mut World| w.cell(COPY).truncate(3);
    check(torn, &[(Count::Offsets, 1), (Count::Gaps, 2)], &["offset 3 is committed, 2 was by transaction 0"]);
    let back = |w: &mut World| {
        let offsets = w.events.iter_mut().filter_map(|event| match event {
            Event::Offset { offset, .. } => Some(offset),
            _ => None,
        });
        offsets.last().map(|offset| *offset = 1).unwrap();
    };
    check(
        back,
        &[(Count::Offsets, 2)],
        &["transaction 1 of producer 1 commits in [0] offset 1, after 2 of transaction 0"],
    );
}
