//! Compares a history with what a read-committed consumer finds at the end. Pure, and linear in both.
//!
//! Offsets give the order of versions, values name their transactions, and one producer's transactions follow each other, so
//! nothing has to be searched. What must hold: an acknowledged transaction is there whole, with its group's offsets; an
//! aborted one is not there at all, and never was; one of unknown end is there whole or not at all; everything is
//! at the offset that was named, once, in the order in which it was sent; and the numbers of each key read 1, 2, … to the
//! number of its committed records, in the topic itself and in whatever was made of it.

use super::history::{Cell, Event, Outcome, Stamp, TransactionId};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Findings of one kind that are spelled out.
const SPELLED_OUT: usize = 5;

/// What a topic is to the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Producers of the load number their keys here.
    Source,
    /// Transactions of the load write here what they made of another topic, number by number.
    Copy {
        /// The other topic.
        of: u32,
    },
    /// Something else writes here what it made of another topic; records bear the stamps of their originals.
    Derived {
        /// The other topic.
        of: u32,
    },
}

/// A topic of the load.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What it is to the load.
    pub role: Role,
}

/// A record as the final read found it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// What it says of itself; none when its bytes are damaged.
    pub stamp: Option<Stamp>,
}

/// What a read-committed consumer found: topic, partition, records in the order in which it was given them.
pub type View = Vec<Vec<Vec<Record>>>;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Transactions whose commit was acknowledged.
    Committed,
    /// Transactions that were aborted.
    Aborted,
    /// Transactions of unknown end.
    Unknown,
    /// Those of them that are there.
    UnknownThere,
    /// Records read at the end.
    Read,
    /// Records that a consumer beside the load was given.
    Sights,
    /// Answers about a group's offsets.
    Found,
    /// Records of an acknowledged transaction of which nothing is there.
    Lost,
    /// Records that are missing while others of their transaction are there.
    Torn,
    /// Records that are there again.
    Doubled,
    /// Records of aborted transactions that somebody was given.
    AbortedRead,
    /// Records that somebody was given before their commit was asked for.
    Early,
    /// Records that somebody was given, and that are not there any more.
    Vanished,
    /// Records at another offset or partition than was named.
    Moved,
    /// Records behind one that was sent later, and offsets that do not rise.
    Disordered,
    /// Records that nobody sent.
    Foreign,
    /// Records whose bytes are not what was sent.
    Damaged,
    /// Places where the numbers of a key do not read 1, 2, …
    Gaps,
    /// Group offsets that are not those of the transactions that are there.
    Offsets,
}

const NAMES: [(Count, &str); 19] = [
    (Count::Committed, "acknowledged transactions"),
    (Count::Aborted, "aborted"),
    (Count::Unknown, "unknown"),
    (Count::UnknownThere, "of these there"),
    (Count::Read, "records"),
    (Count::Sights, "sights"),
    (Count::Found, "offset answers"),
    (Count::Lost, "lost"),
    (Count::Torn, "torn"),
    (Count::Doubled, "doubled"),
    (Count::AbortedRead, "aborted and read"),
    (Count::Early, "read early"),
    (Count::Vanished, "vanished"),
    (Count::Moved, "moved"),
    (Count::Disordered, "disordered"),
    (Count::Foreign, "foreign"),
    (Count::Damaged, "damaged"),
    (Count::Gaps, "gaps"),
    (Count::Offsets, "wrong offsets"),
];

/// How the end compares with the history.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    counts: [u64; NAMES.len()],
    /// Details, and what went wrong during the load. Empty when all is well.
    pub findings: Vec<String>,
}

impl Verdict {
    /// How many there are.
    pub fn count(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// Adds another round.
    pub fn add(&mut self, other: Verdict) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, n)| *sum += n);
        self.findings.extend(other.findings);
    }

    fn plus(&mut self, what: Count, n: u64) {
        self.counts[what as usize] += n;
    }

    fn found(&mut self, what: Count, text: impl FnOnce() -> String) {
        let n = &mut self.counts[what as usize];
        *n += 1;
        if *n as usize <= SPELLED_OUT {
            self.findings.push(text());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            NAMES.iter().map(|(what, name)| format!("{name} {}", self.count(*what))).collect();
        f.write_str(&each.join(", "))
    }
}

/// A record as its producer knows it.
struct Sent {
    stamp: Stamp,
    to: Cell,
    named: Option<i64>,
    seen: Option<i64>,
}

#[derive(Default)]
struct Transaction {
    sent: Vec<Sent>,
    offsets: Vec<(Cell, i64)>,
    asked: bool,
    ended: Option<Outcome>,
}

impl Transaction {
    fn outcome(&self) -> Outcome {
        match self.ended {
            Some(outcome) => outcome,
            None if self.asked => Outcome::Unknown,
            None => Outcome::Aborted,
        }
    }

    /// Whether it counts as there. One that has offsets has records too.
    fn there(&self) -> bool {
        match self.outcome() {
            Outcome::Committed => true,
            Outcome::Aborted => false,
            Outcome::Unknown => self.sent.iter().any(|sent| sent.seen.is_some()),
        }
    }
}

struct Judge<'a> {
    topics: &'a [Topic],
    transactions: HashMap<TransactionId, Transaction>,
    /// In the order of their first events, so that findings come in that order.
    order: Vec<TransactionId>,
    verdict: Verdict,
}

/// Judges a run. `problems` are what clients met on the way and should not have.
pub fn judge(topics: &[Topic], events: &[Event], view: &View, problems: Vec<String>) -> Verdict {
    let verdict = Verdict { findings: problems, ..Verdict::default() };
    let mut judge = Judge { topics, transactions: HashMap::new(), order: Vec::new(), verdict };
    judge.collect(events);
    for (cell, records) in cells(view) {
        match topics[cell.topic as usize].role {
            Role::Source | Role::Copy { .. } => judge.partition(cell, records),
            Role::Derived { of } => judge.derived(cell, of, records),
        }
    }
    judge.whole();
    judge.beside(events);
    judge.numbers(view);
    judge.verdict
}

fn cells(view: &View) -> impl Iterator<Item = (Cell, &Vec<Record>)> {
    view.iter().enumerate().flat_map(|(topic, partitions)| {
        partitions.iter().enumerate().map(move |(partition, records)| {
            (Cell { topic: topic as u32, partition: partition as u32 }, records)
        })
    })
}

impl Judge<'_> {
    fn place(&self, cell: Cell, offset: i64) -> String {
        format!("{} [{}] offset {offset}", self.topics[cell.topic as usize].name, cell.partition)
    }

    fn entry(&mut self, id: TransactionId) -> &mut Transaction {
        let order = &mut self.order;
        self.transactions.entry(id).or_insert_with(|| {
            order.push(id);
            Transaction::default()
        })
    }

    /// What was asked for and answered, by transaction.
    fn collect(&mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::Sent { stamp, to } => {
                    self.entry(stamp.transaction).sent.push(Sent { stamp, to, named: None, seen: None });
                }
                Event::Acked { transaction, index, offset } => {
                    if let Some(sent) = self.entry(transaction).sent.get_mut(index as usize) {
                        sent.named = (offset >= 0).then_some(offset);
                    }
                }
                Event::Offset { transaction, of, offset } => {
                    self.entry(transaction).offsets.push((of, offset));
                }
                Event::Asked { transaction } => self.entry(transaction).asked = true,
                Event::Ended { transaction, outcome } => self.entry(transaction).ended = Some(outcome),
                Event::Sight { .. } | Event::Found { .. } => {}
            }
        }
        for transaction in self.transactions.values() {
            let count = match transaction.outcome() {
                Outcome::Committed => Count::Committed,
                Outcome::Aborted => Count::Aborted,
                Outcome::Unknown => Count::Unknown,
            };
            self.verdict.plus(count, 1);
        }
    }

    fn damaged_or_disordered(&mut self, cell: Cell, record: Record, last: &mut i64) -> Option<Stamp> {
        let (offset, at) = (record.offset, self.place(cell, record.offset));
        self.verdict.plus(Count::Read, 1);
        if offset <= *last {
            self.verdict.found(Count::Disordered, || format!("order: {at} came behind offset {last}"));
        }
        *last = offset;
        if record.stamp.is_none() {
            self.verdict.found(Count::Damaged, || format!("damaged: {at}"));
        }
        record.stamp
    }

    /// A partition that transactions of the load write.
    fn partition(&mut self, cell: Cell, records: &[Record]) {
        let mut last = -1;
        let mut newest: HashMap<u32, (TransactionId, u32)> = HashMap::new();
        for record in records {
            let Some(stamp) = self.damaged_or_disordered(cell, *record, &mut last) else { continue };
            let (id, at) = (stamp.transaction, self.place(cell, record.offset));
            let what =
                format!("{at} is record {} of {id}, key {} number {}", stamp.index, stamp.key, stamp.number);
            let transaction = self.transactions.get_mut(&id);
            let outcome = transaction.as_ref().map(|transaction| transaction.outcome());
            let sent = transaction.and_then(|transaction| transaction.sent.get_mut(stamp.index as usize));
            let Some(sent) = sent.filter(|sent| sent.stamp == stamp) else {
                self.verdict.found(Count::Foreign, || format!("foreign: {what}, which nobody sent"));
                continue;
            };
            if let Some(before) = sent.seen {
                self.verdict.found(Count::Doubled, || format!("doubled: {what}, as offset {before} is"));
                continue;
            }
            sent.seen = Some(record.offset);
            if sent.to != cell || sent.named.is_some_and(|named| named != record.offset) {
                let (to, named) = (sent.to, sent.named);
                self.verdict
                    .found(Count::Moved, || format!("moved: {what}, acknowledged at {to:?} {named:?}"));
            }
            if outcome == Some(Outcome::Aborted) {
                self.verdict.found(Count::AbortedRead, || format!("aborted and read: {what}"));
            }
            let newest = newest.entry(id.producer()).or_insert((id, stamp.index));
            if *newest > (id, stamp.index) {
                let (then, index) = *newest;
                self.verdict
                    .found(Count::Disordered, || format!("order: {what}, behind record {index} of {then}"));
            }
            *newest = (*newest).max((id, stamp.index));
        }
    }

    /// A partition that something else writes, of records of this load.
    fn derived(&mut self, cell: Cell, of: u32, records: &[Record]) {
        let mut last = -1;
        for record in records {
            let Some(stamp) = self.damaged_or_disordered(cell, *record, &mut last) else { continue };
            let (id, at) = (stamp.transaction, self.place(cell, record.offset));
            let what = format!("{at} is made of record {} of {id}, key {}", stamp.index, stamp.key);
            let original = self.transactions.get(&id);
            let sent = original.and_then(|transaction| transaction.sent.get(stamp.index as usize));
            if sent.is_none_or(|sent| sent.stamp != stamp || sent.to.topic != of) {
                self.verdict.found(Count::Foreign, || format!("foreign: {what}, which nobody sent there"));
            } else if original.is_some_and(|transaction| transaction.outcome() == Outcome::Aborted) {
                self.verdict.found(Count::AbortedRead, || format!("aborted and read: {what}"));
            }
        }
    }

    /// Every transaction is there whole, or not at all.
    fn whole(&mut self) {
        for id in &self.order {
            let transaction = &self.transactions[id];
            let (outcome, there) = (transaction.outcome(), transaction.there());
            self.verdict.plus(Count::UnknownThere, u64::from(outcome == Outcome::Unknown && there));
            if !there {
                continue;
            }
            let seen = transaction.sent.iter().filter(|sent| sent.seen.is_some()).count();
            for sent in transaction.sent.iter().filter(|sent| sent.seen.is_none()) {
                let topic = &self.topics[sent.to.topic as usize].name;
                let (partition, named, all) = (sent.to.partition, sent.named, transaction.sent.len());
                let Stamp { index, key, number, .. } = sent.stamp;
                let (count, kind) = if seen == 0 { (Count::Lost, "lost") } else { (Count::Torn, "torn") };
                self.verdict.found(count, || {
                    format!(
                        "{kind}: {id} ({outcome:?}) has {seen} of {all} records; record {index}, key {key} number {number}, \
                         {topic} [{partition}], acknowledged at {named:?}, is not there"
                    )
                });
            }
        }
    }

    /// What a consumer beside the load was given, and what the group's owner was told of its offsets, at that time.
    fn beside(&mut self, events: &[Event]) {
        let mut asked: HashSet<TransactionId> = HashSet::new();
        let mut committed: HashMap<(u32, Cell), (i64, TransactionId)> = HashMap::new();
        for event in events {
            match *event {
                Event::Asked { transaction } => drop(asked.insert(transaction)),
                Event::Ended { transaction: id, .. } if self.transactions[&id].there() => {
                    for (cell, offset) in self.transactions[&id].offsets.clone() {
                        let before = committed.insert((id.producer(), cell), (offset, id));
                        if let Some((before, then)) = before.filter(|(before, _)| *before > offset) {
                            let at = self.place(cell, offset);
                            self.verdict.found(Count::Offsets, || {
                                format!("offsets: {id} commits {at}, after {before} of {then}")
                            });
                        }
                    }
                }
                Event::Sight { stamp, at, offset } => self.sight(stamp, at, offset, &asked),
                Event::Found { producer, of, offset } => {
                    self.verdict.plus(Count::Found, 1);
                    let wanted = committed.get(&(producer, of));
                    if wanted.map_or(-1, |(wanted, _)| *wanted) != offset {
                        let (at, wanted) = (self.place(of, offset), wanted.copied());
                        self.verdict.found(Count::Offsets, || match wanted {
                            Some((wanted, id)) => format!("offsets: {at} is committed, {wanted} was by {id}"),
                            None => format!("offsets: {at} is committed, and nothing was"),
                        });
                    }
                }
                Event::Sent { .. } | Event::Acked { .. } | Event::Offset { .. } | Event::Ended { .. } => {}
            }
        }
    }

    fn sight(&mut self, stamp: Stamp, at: Cell, offset: i64, asked: &HashSet<TransactionId>) {
        self.verdict.plus(Count::Sights, 1);
        let id = stamp.transaction;
        let place = self.place(at, offset);
        let what = format!("a consumer was given {place}, record {} of {id}, key {}", stamp.index, stamp.key);
        let Some(transaction) = self.transactions.get(&id) else {
            return self.verdict.found(Count::Foreign, || format!("foreign: {what}, which nobody sent"));
        };
        if transaction.outcome() == Outcome::Aborted {
            self.verdict.found(Count::AbortedRead, || format!("aborted and read: {what}"));
        } else if !asked.contains(&id) {
            self.verdict.found(Count::Early, || format!("early: {what}, before its commit was asked for"));
        }
        let now = transaction
            .sent
            .get(stamp.index as usize)
            .filter(|sent| sent.to == at)
            .and_then(|sent| sent.seen);
        if now != Some(offset) {
            self.verdict.found(Count::Vanished, || format!("vanished: {what}; at the end it is at {now:?}"));
        }
    }

    /// The numbers of each key read 1, 2, … to the number of its committed records.
    fn numbers(&mut self, view: &View) {
        let mut counters: HashMap<(u32, u32), u64> = HashMap::new();
        for transaction in self.transactions.values().filter(|transaction| transaction.there()) {
            for sent in &transaction.sent {
                *counters.entry((sent.to.topic, sent.stamp.key)).or_default() += 1;
            }
        }
        for (number, topic) in self.topics.iter().enumerate() {
            let source = match topic.role {
                Role::Source => number as u32,
                Role::Copy { of } | Role::Derived { of } => of,
            };
            let mut last: HashMap<u32, u64> = HashMap::new();
            for (partition, records) in view[number].iter().enumerate() {
                for (offset, stamp) in
                    records.iter().filter_map(|record| Some((record.offset, record.stamp?)))
                {
                    let Stamp { key, number, transaction, .. } = stamp;
                    let last = last.entry(key).or_default();
                    if number != *last + 1 {
                        let what = format!("{} [{partition}] offset {offset}: key {key}", topic.name);
                        let (count, kind) =
                            if number <= *last { (Count::Doubled, "doubled") } else { (Count::Gaps, "gap") };
                        self.verdict.found(count, || {
                            format!("{kind}: {what} goes from {last} to {number} ({transaction})")
                        });
                    }
                    *last = number.max(*last);
                }
            }
            for (&(_, key), &all) in counters.iter().filter(|((of, _), _)| *of == source) {
                let last = last.get(&key).copied().unwrap_or(0);
                if last != all {
                    let name = &topic.name;
                    self.verdict
                        .found(Count::Gaps, || format!("gap: {name}: key {key} ends at {last} of {all}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
