//! Producers, a clock and a reader around a core; and the judgement of what is there after a start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use pelton_commitlog::storage::SimStorage;
use pelton_commitlog::storage::sim::{Call, SimRng};
use pelton_wire::ErrorCode;
use tokio::task::JoinHandle;

use crate::client::{Client, Fate, Txn};
use crate::core::{Core, Cut};
use crate::reader::{Found, committed, committed_offset};
use crate::requests::{Ask, TIMEOUT_MS, begin};
use pelton_coordinators::group::store::OFFSETS_TOPIC;
use pelton_coordinators::txn::TRANSACTIONS_TOPIC;
use pelton_coordinators::txn::state::{NO_EPOCH, Transaction};

const CLIENTS: usize = 4;

pub(crate) struct World {
    rng: SimRng,
    clients: Vec<Client>,
    connections: u64,
    /// What a reader has been shown.
    seen: BTreeSet<String>,
    seen_offsets: BTreeMap<String, i64>,
    housekeeping: Option<JoinHandle<()>>,
    /// What was asked and answered.
    pub(crate) trace: Vec<String>,
    /// Partitions of coordinators that have let records go.
    let_go: usize,
    /// What the first start came to: later ones come to the same.
    judged: Option<(Found, Vec<Option<i64>>)>,
}

/// What runs had in them.
#[derive(Debug, Default)]
pub(crate) struct Count {
    runs: usize,
    committed: usize,
    unknown: usize,
    unknown_and_there: usize,
    never: usize,
    records: usize,
    offsets: usize,
    let_go: usize,
}

impl Count {
    pub(crate) fn add(&mut self, other: &Count) {
        self.runs += other.runs;
        self.committed += other.committed;
        self.unknown += other.unknown;
        self.unknown_and_there += other.unknown_and_there;
        self.never += other.never;
        self.records += other.records;
        self.offsets += other.offsets;
        self.let_go += other.let_go;
    }

    pub(crate) fn is_substantial(&self) -> bool {
        let per_run = |what: usize, least: usize| what >= least * self.runs;
        let both = self.runs < 100 || self.unknown_and_there > 0 && self.unknown > self.unknown_and_there;
        per_run(self.let_go, 1)
            && per_run(self.committed, 5)
            && per_run(self.never, 3)
            && per_run(self.records, 10)
            && both
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut rng = SimRng::new(seed);
        let clients = (0..CLIENTS).map(|index| Client::new(index, rng.chance(50))).collect();
        World {
            rng,
            clients,
            connections: CLIENTS as u64,
            seen: BTreeSet::new(),
            seen_offsets: BTreeMap::new(),
            housekeeping: None,
            trace: Vec::new(),
            let_go: 0,
            judged: None,
        }
    }

    /// One thing happens, and everybody does what follows from it without the disk.
    pub(crate) async fn step(&mut self, core: &Core, disk: &SimStorage) -> Result<(), Cut> {
        match self.rng.up_to(999) {
            0..400 => self.sync(core, disk)?,
            400..430 => self.read(core).await,
            430..434 => self.housekeep(core, true),
            434..454 => self.housekeep(core, false),
            454..462 => {
                let (file, skip) = ([".log", "a-0", "__"][self.rng.up_to(2)], self.rng.up_to(5) as u64);
                // An append finds no room, or a checkpoint does, on a file system that breaks its word.
                let call = if self.rng.chance(75) { Call::Reserve } else { Call::Write };
                disk.fail_after(Some(call), file, skip, ErrorKind::StorageFull);
            }
            462..470 => self.snapshot(core, disk).await?,
            _ => {
                let client = self.rng.up_to(CLIENTS - 1);
                self.clients[client].act(core, &mut self.rng, &mut self.connections);
            }
        }
        core.settle().await;
        for client in &mut self.clients {
            client.hear(core, &mut self.trace).await;
        }
        Ok(())
    }

    fn sync(&self, core: &Core, disk: &SimStorage) -> Result<(), Cut> {
        match core.log_dir.step() {
            Ok(_) => Ok(()),
            Err(failure) => {
                assert!(disk.power_is_off(), "the disk failed by itself: {failure}");
                Err(Cut)
            }
        }
    }

    /// What the broker does by itself now and then: transactions that have had their time, and ends that failed.
    fn housekeep(&mut self, core: &Core, time_passes: bool) {
        if self.housekeeping.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        if time_passes {
            core.clock.advance(i64::from(TIMEOUT_MS));
        }
        let transactions = core.transactions.clone();
        self.housekeeping = Some(tokio::spawn(async move {
            transactions.sweep().await;
            drop(transactions.complete_all().await);
        }));
    }

    /// The coordinators say all they know again and let their logs go before it. That is done by other threads too, so
    /// everything is waited for: else a run would not repeat.
    async fn snapshot(&self, core: &Core, disk: &SimStorage) -> Result<(), Cut> {
        let (groups, transactions) = (core.groups.clone(), core.transactions.clone());
        core.drive(disk, async move {
            groups.snapshot_when_due().await;
            transactions.snapshot_when_due().await;
        })
        .await?;
        core.finish(disk).await
    }

    fn by_value(&self) -> BTreeMap<&str, &Txn> {
        let all = self.clients.iter().flat_map(Client::transactions);
        all.flat_map(|txn| txn.values.iter().map(move |value| (value.as_str(), txn))).collect()
    }

    /// A consumer reads along: nothing is shown that nobody has asked to commit.
    async fn read(&mut self, core: &Core) {
        let found: Vec<String> = committed(core).into_values().flatten().collect();
        let by_value = self.by_value();
        for value in &found {
            let txn = by_value.get(value.as_str()).unwrap_or_else(|| panic!("{value} was shown"));
            assert_ne!(txn.fate, Fate::Never, "{value} was shown");
        }
        self.seen.extend(found);
        for client in &self.clients {
            let id = client.who.id.clone();
            let Ok(Some(offset)) = committed_offset(core, &id, true).await else { continue };
            let txn = client.transactions().find(|txn| txn.number == offset);
            assert_ne!(txn.map(|txn| txn.fate), Some(Fate::Never), "offset {offset} of {id} was shown");
            let before = self.seen_offsets.insert(id.clone(), offset);
            assert!(
                before.is_none_or(|before| before <= offset),
                "offset of {id}: {before:?}, then {offset}"
            );
        }
    }

    /// What is there after a start. First what was open is aborted, by those who take over.
    pub(crate) async fn judge(&mut self, core: &Core, disk: &SimStorage) {
        self.check_replay(core).await;
        for client in &self.clients {
            let told = begin(core, client.who.clone(), Ask::Init { before: None });
            let (code, _) = core.drive(disk, told).await.expect("the power is on");
            assert_eq!(code, ErrorCode::NONE, "{}", client.who.id);
        }
        self.check_replay(core).await;
        let found = committed(core);
        self.let_go = [OFFSETS_TOPIC, TRANSACTIONS_TOPIC]
            .iter()
            .filter_map(|name| core.topics.get(name))
            .map(|topic| topic.local.iter().filter(|partition| partition.log_start_offset() > 0).count())
            .sum();
        for (name, topic) in core.topics.list().iter().map(|topic| (&topic.name, topic)) {
            for partition in &topic.local {
                let offsets = partition.offsets();
                let at = partition.index();
                assert_eq!(offsets.last_stable, offsets.high_watermark, "{name}-{at} has something open");
            }
        }
        self.check_records(&found);
        let mut offsets = Vec::new();
        for client in &self.clients {
            let offset = committed_offset(core, &client.who.id, true).await.expect("nothing is open");
            self.check_offset(client, &found, offset);
            offsets.push(offset);
        }
        let now = (found, offsets);
        if let Some(before) = &self.judged {
            assert_eq!(before, &now, "a start changed what was decided");
        }
        self.judged = Some(now);
    }

    fn check_records(&self, found: &Found) {
        let mut there = BTreeSet::new();
        for (partition, values) in found {
            for value in values {
                assert!(there.insert(value.as_str()), "{value} is there twice");
                assert!(value.ends_with(partition.as_str()), "{value} is in {partition}");
            }
        }
        for (value, txn) in self.by_value() {
            let whole = txn.values.iter().all(|value| there.contains(value.as_str()));
            let none = txn.values.iter().all(|value| !there.contains(value.as_str()));
            match txn.fate {
                Fate::Committed => assert!(whole, "{value} or another of its transaction is lost"),
                Fate::Never => assert!(none, "{value} or another of its transaction is there"),
                Fate::Unknown => assert!(whole || none, "the transaction of {value} is torn"),
            }
        }
        for value in &self.seen {
            assert!(there.contains(value.as_str()), "{value} was shown, and is gone");
        }
        let known = self.by_value();
        assert!(there.iter().all(|value| known.contains_key(value)), "nobody has written it: {there:?}");
    }

    /// The offsets of a transaction count if and only if its records do.
    fn check_offset(&self, client: &Client, found: &Found, offset: Option<i64>) {
        let id = &client.who.id;
        let there = |txn: &Txn| txn.values.iter().any(|value| found.values().flatten().any(|v| v == value));
        let mut expect: Vec<Option<i64>> = vec![None];
        for txn in client.transactions().filter(|txn| txn.has_offset) {
            match txn.fate {
                Fate::Never => {}
                _ if there(txn) || txn.fate == Fate::Committed => expect = vec![Some(txn.number)],
                // With nothing but an offset in it nobody can tell, but either is whole.
                Fate::Unknown if txn.values.is_empty() => expect.push(Some(txn.number)),
                Fate::Unknown | Fate::Committed => {}
            }
        }
        assert!(expect.contains(&offset), "{id} has committed {offset:?}, not {expect:?}");
        let seen = self.seen_offsets.get(id).copied();
        assert!(seen <= offset, "{id}: offset {seen:?} was shown, and is {offset:?}");
    }

    /// The coordinator's state is what a replay of its topic gives.
    async fn check_replay(&self, core: &Core) {
        let plain = |txn: Transaction| Transaction { last_epoch: NO_EPOCH, ..txn };
        let live = core.transactions.list().into_iter().map(|txn| plain((*txn).clone()));
        let live: BTreeMap<_, _> = live.map(|txn| (txn.id.to_string(), txn)).collect();
        let replayed = core.transactions.replayed().expect("it reads").into_iter();
        let replayed: BTreeMap<_, _> = replayed.map(|(id, txn)| (id.to_string(), plain(txn))).collect();
        assert_eq!(live, replayed, "`__transaction_state` says something else");
    }

    pub(crate) fn count(&self) -> Count {
        let mut count = Count { runs: 1, let_go: self.let_go, ..Count::default() };
        let Some((found, offsets)) = &self.judged else { return count };
        let there: BTreeSet<&String> = found.values().flatten().collect();
        for txn in self.clients.iter().flat_map(Client::transactions) {
            match txn.fate {
                Fate::Committed => count.committed += 1,
                Fate::Never => count.never += 1,
                Fate::Unknown => {
                    count.unknown += 1;
                    count.unknown_and_there += usize::from(txn.values.iter().any(|v| there.contains(v)));
                }
            }
        }
        count.records = there.len();
        count.offsets = offsets.iter().flatten().count();
        count
    }
}
