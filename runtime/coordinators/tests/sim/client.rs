//! A transactional producer as client libraries are: one request at a time, what is uncertain is asked again, and who
//! is fenced begins anew. It remembers what it may expect of each of its transactions.

use std::collections::{BTreeMap, BTreeSet};

use pelton_commitlog::storage::sim::SimRng;
use pelton_wire::ErrorCode;
use tokio::task::JoinHandle;

use crate::core::{Core, TOPICS};
use crate::requests::{Ask, Told, Who, begin};
use pelton_coordinators::txn::origin::RequestOrigin;
use pelton_partitions::producer_id::ProducerIdentity;

/// Records of a transaction, at most.
const RECORDS_MAX: usize = 5;

/// What a reader may see of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing, ever: nobody has asked to commit it, or the answer was a refusal.
    Never,
    /// All of it or nothing: the commit was asked for, and nobody knows.
    Unknown,
    /// All of it: the commit was acknowledged.
    Committed,
}

#[derive(Clone, Debug)]
pub(crate) struct Txn {
    pub(crate) number: i64,
    pub(crate) values: Vec<String>,
    /// Its number is the offset that it commits.
    pub(crate) has_offset: bool,
    pub(crate) fate: Fate,
    /// How it is being ended, and how often that was asked for.
    end: Option<bool>,
    ends_asked: u32,
    /// A write has failed: it can only be aborted.
    broken: bool,
}

pub(crate) struct Client {
    pub(crate) who: Who,
    /// Has a producer id and epoch that nobody has refused yet.
    ready: bool,
    /// Says who it was when it asks for the next epoch, and may have a transaction open.
    says_who: bool,
    sequences: BTreeMap<(&'static str, i32), i32>,
    added: BTreeSet<(&'static str, i32)>,
    added_offsets: bool,
    open: Option<Txn>,
    past: Vec<Txn>,
    asked: Option<(Ask, JoinHandle<Told>)>,
    /// What a network may deliver again.
    sent: Vec<(Who, Ask)>,
    /// Of copies, and of who was here before.
    ignored: Vec<JoinHandle<Told>>,
    /// Who was taken over, and what it will ask for.
    frozen: Option<(Who, Ask)>,
    zombies: Vec<JoinHandle<Told>>,
}

fn is_fenced(code: ErrorCode) -> bool {
    matches!(
        code,
        // The answer to an EndTxn of the newer protocol that comes after the time-out.
        ErrorCode::INVALID_TXN_STATE
            | ErrorCode::PRODUCER_FENCED
            | ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING
    )
}

/// Nothing was done, or what was done is found done: the client asks again.
fn is_retriable(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::CONCURRENT_TRANSACTIONS)
}

impl Client {
    pub(crate) fn new(index: usize, newer: bool) -> Client {
        let producer = ProducerIdentity { id: -1, epoch: -1 };
        let place = RequestOrigin { connection: index as u64, correlation_id: 0 };
        Client {
            who: Who { id: format!("tx-{index}"), newer, producer, place },
            ready: false,
            says_who: false,
            sequences: BTreeMap::new(),
            added: BTreeSet::new(),
            added_offsets: false,
            open: None,
            past: Vec::new(),
            asked: None,
            sent: Vec::new(),
            ignored: Vec::new(),
            frozen: None,
            zombies: Vec::new(),
        }
    }

    /// Every transaction, oldest first.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = &Txn> {
        self.past.iter().chain(&self.open)
    }

    /// Does the next thing, unless it waits for an answer.
    pub(crate) fn act(&mut self, core: &Core, rng: &mut SimRng, connections: &mut u64) {
        if self.asked.is_some() {
            return;
        }
        if !self.ready {
            let before = self.says_who.then_some(self.who.producer);
            return self.ask(core, Ask::Init { before });
        }
        if rng.chance(2) {
            return self.take_over(core, rng, connections);
        }
        if rng.chance(4) && !self.sent.is_empty() {
            let (who, ask) = self.sent[rng.up_to(self.sent.len() - 1)].clone();
            self.ignored.push(tokio::spawn(begin(core, who, ask)));
        }
        let number = self.past.len() as i64 + 1;
        let txn = self.open.get_or_insert_with(|| Txn {
            number,
            values: Vec::new(),
            has_offset: false,
            fate: Fate::Never,
            end: None,
            ends_asked: 0,
            broken: false,
        });
        let empty = txn.values.is_empty() && !txn.has_offset;
        if txn.broken && txn.end.is_none() && rng.chance(50) {
            // The way without EndTxn: the next epoch, which aborts what is open.
            self.lose();
            self.says_who = true;
            return;
        }
        if let Some(commit) = txn.end.or(txn.broken.then_some(false)) {
            return self.end(core, commit);
        }
        match rng.up_to(99) {
            0..55 if txn.values.len() < RECORDS_MAX => self.write(core, rng),
            _ if empty => self.write(core, rng),
            55..70 if !txn.has_offset && !self.who.newer && !self.added_offsets => {
                self.ask(core, Ask::AddOffsets)
            }
            55..70 if !txn.has_offset => self.ask(core, Ask::CommitOffset { offset: number }),
            _ => self.end(core, rng.chance(75)),
        }
    }

    fn write(&mut self, core: &Core, rng: &mut SimRng) {
        let (topic, partitions) = TOPICS[rng.up_to(TOPICS.len() - 1)];
        let partition = rng.up_to(partitions as usize - 1) as i32;
        if !self.who.newer && !self.added.contains(&(topic, partition)) {
            return self.ask(core, Ask::AddPartition { topic, partition });
        }
        let sequence = self.sequences.get(&(topic, partition)).copied().unwrap_or(0);
        let txn = self.open.as_mut().expect("a transaction is open");
        let value = format!("{}/{}/{}/{topic}-{partition}", self.who.id, txn.number, txn.values.len());
        txn.values.push(value.clone());
        self.ask(core, Ask::Write { topic, partition, sequence, value });
    }

    fn end(&mut self, core: &Core, commit: bool) {
        let txn = self.open.as_mut().expect("a transaction is open");
        if commit && txn.end.is_none() {
            txn.fate = Fate::Unknown;
        }
        txn.end = Some(commit);
        txn.ends_asked += 1;
        self.ask(core, Ask::End { commit });
    }

    fn ask(&mut self, core: &Core, ask: Ask) {
        self.who.place.correlation_id += 1;
        if !matches!(ask, Ask::Init { .. }) {
            self.sent.push((self.who.clone(), ask.clone()));
        }
        let told = begin(core, self.who.clone(), ask.clone());
        self.asked = Some((ask, tokio::spawn(told)));
    }

    /// Another process starts with the same transactional id, and the first one will go on as if nothing were.
    fn take_over(&mut self, core: &Core, rng: &mut SimRng, connections: &mut u64) {
        self.lose();
        *connections += 1;
        let ask = if rng.chance(50) {
            Ask::End { commit: true }
        } else {
            let (topic, partition) = ("a", 0);
            let sequence = self.sequences.get(&(topic, partition)).copied().unwrap_or(0);
            Ask::Write { topic, partition, sequence, value: "of a zombie".to_owned() }
        };
        self.frozen = Some((self.who.clone(), ask));
        self.who.place = RequestOrigin { connection: *connections, correlation_id: 0 };
        self.who.newer = rng.chance(50);
        self.ask(core, Ask::Init { before: None });
    }

    /// Whatever was open is none of this client's any more.
    fn lose(&mut self) {
        self.ready = false;
        self.says_who = false;
        self.past.extend(self.open.take());
    }

    /// Takes what was answered.
    pub(crate) async fn hear(&mut self, core: &Core, trace: &mut Vec<String>) {
        for zombie in take_finished(&mut self.zombies) {
            let (code, _) = zombie.await.unwrap();
            assert!(code.is_err(), "{}: who was taken over is served", self.who.id);
        }
        drop(take_finished(&mut self.ignored));
        let Some((ask, told)) = self.asked.take_if(|(_, told)| told.is_finished()) else { return };
        let (code, producer) = told.await.unwrap();
        trace.push(format!("{} {ask:?} {code} {producer:?}", self.who.id));
        self.take(ask, code, producer);
        if self.ready
            && let Some((mut who, ask)) = self.frozen.take()
        {
            who.place.correlation_id += 1;
            self.zombies.push(tokio::spawn(begin(core, who, ask)));
        }
    }

    fn take(&mut self, ask: Ask, code: ErrorCode, producer: ProducerIdentity) {
        if is_fenced(code) {
            if let Some(txn) = self.open.as_mut().filter(|txn| txn.end.is_some() && txn.ends_asked == 1) {
                // A refusal, and there was no request before of which one cannot know.
                txn.fate = Fate::Never;
            }
            // Nobody else takes over here: it was the time-out.
            assert!(!matches!(ask, Ask::Init { before: Some(_) }), "{}: it was not taken over", self.who.id);
            self.lose();
            self.says_who = self.past.len().is_multiple_of(2);
            return;
        }
        match (ask, code) {
            (Ask::Init { .. }, ErrorCode::NONE) => {
                self.who.producer = producer;
                (self.ready, self.says_who) = (true, false);
                self.sequences.clear();
                self.begin_next();
            }
            (Ask::AddPartition { topic, partition }, ErrorCode::NONE) => {
                self.added.insert((topic, partition));
            }
            (Ask::AddOffsets, ErrorCode::NONE) => self.added_offsets = true,
            (Ask::Write { topic, partition, sequence, .. }, ErrorCode::NONE) => {
                self.sequences.insert((topic, partition), sequence + 1);
            }
            (Ask::Write { .. }, ErrorCode::KAFKA_STORAGE_ERROR | ErrorCode::NOT_ENOUGH_REPLICAS) => {
                self.open.as_mut().expect("it has written").broken = true;
            }
            (Ask::CommitOffset { .. }, ErrorCode::NONE) => {
                self.open.as_mut().expect("it has committed an offset").has_offset = true;
            }
            (Ask::End { commit }, ErrorCode::NONE) => {
                let mut txn = self.open.take().expect("it has ended one");
                txn.fate = if commit { Fate::Committed } else { Fate::Never };
                // What failed may or may not have its sequence: only a new epoch knows.
                self.ready = !txn.broken || self.who.newer;
                self.says_who = !self.ready;
                self.past.push(txn);
                if self.who.producer != producer {
                    self.sequences.clear();
                }
                self.who.producer = producer;
                self.begin_next();
            }
            (_, code) if is_retriable(code) => {}
            (ask, code) => panic!("{}: {ask:?} was answered with {code}", self.who.id),
        }
    }

    fn begin_next(&mut self) {
        self.added.clear();
        self.added_offsets = false;
        // Copies of what belongs to the epoch before, or the transaction before, and one more.
        let keep = self.sent.len().saturating_sub(3);
        self.sent.drain(..keep);
    }
}

fn take_finished(all: &mut Vec<JoinHandle<Told>>) -> Vec<JoinHandle<Told>> {
    let (done, rest) = std::mem::take(all).into_iter().partition(|told| told.is_finished());
    *all = rest;
    done
}
