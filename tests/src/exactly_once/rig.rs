//! The load while it runs, and what is known when it has ended.

use super::history::Event;
use super::judge::{Role, Topic, View};
use super::ledger::Ledger;
use super::load::{self, COPIED, EVENTS, ORDERS, Shared, TOPICS, WRITERS, lock};
use super::reader::read_on;
use crate::load::create_topic;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Work = Box<dyn FnOnce(&Arc<Shared>) -> Result<()> + Send>;

/// The running load.
pub struct Running {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Result<()>>>,
    copier: JoinHandle<Result<()>>,
    sights: JoinHandle<Result<()>>,
}

/// What is known when the load has ended.
pub struct History {
    /// What happened, in that order.
    pub events: Vec<Event>,
    /// What clients met on the way and should not have.
    pub problems: Vec<String>,
    /// Errors that ended producers, and how often.
    pub fatal: BTreeMap<String, u32>,
    /// Producers made.
    pub producers: u32,
    ledger: Ledger,
}

impl History {
    /// Copies the ledger, for somebody to look at.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn keep(&mut self, to: &Path) -> Result<()> {
        self.ledger.keep(to)
    }
}

/// The topics of the load, and those that a pipeline makes of `events`.
pub fn topics(derived: &[(&str, u32)]) -> Vec<(Topic, u32)> {
    let of = |name: &str| TOPICS.iter().position(|(topic, _)| *topic == name).unwrap_or_default() as u32;
    let role = |name: &str| if name == COPIED.0 { Role::Copy { of: of(ORDERS.0) } } else { Role::Source };
    let own = TOPICS.iter().map(|(name, partitions)| (name, role(name), *partitions));
    let made =
        derived.iter().map(|(name, partitions)| (name, Role::Derived { of: of(EVENTS.0) }, *partitions));
    own.chain(made).map(|(name, role, n)| (Topic { name: (*name).to_owned(), role }, n)).collect()
}

/// Creates the load's topics. Small segments, so that transactions and their markers lie across several.
///
/// # Errors
/// The broker refused.
pub fn create_topics(bootstrap: &str, topics: &[(Topic, u32)]) -> Result<()> {
    for (topic, partitions) in topics {
        create_topic(bootstrap, &topic.name, *partitions, &[("segment.bytes", "1048576")])?;
    }
    Ok(())
}

/// Reads all topics as a read-committed consumer finds them.
///
/// # Errors
/// A transaction hangs, or the read does not come to its end.
pub fn view(bootstrap: &str, topics: &[(Topic, u32)]) -> Result<View> {
    topics
        .iter()
        .map(|(topic, partitions)| {
            let derived = matches!(topic.role, Role::Derived { .. });
            read_on(bootstrap, &topic.name, derived, &mut vec![0; *partitions as usize])
        })
        .collect()
}

impl Running {
    /// Starts all clients.
    pub fn start(bootstrap: &str, ledger: Ledger, seed: u64) -> Running {
        let shared = Arc::new(Shared::new(ledger));
        let spawn = |work: Work| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared))
        };
        let address = || bootstrap.to_owned();
        let writers = (0..WRITERS)
            .map(|number| {
                let address = address();
                spawn(Box::new(move |shared| load::write(shared, &address, number, seed)))
            })
            .collect();
        let (from, beside) = (address(), address());
        let copier = spawn(Box::new(move |shared| load::copy(shared, &from, seed)));
        let sights = spawn(Box::new(move |shared| load::see(shared, &beside)));
        Running { shared, writers, copier, sights }
    }

    /// Transactions that are open.
    pub fn open(&self) -> u32 {
        self.shared.open.load(Ordering::Acquire)
    }

    /// Records in them.
    pub fn in_flight(&self) -> u64 {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Waits until each producer's commit has been acknowledged once more.
    ///
    /// # Errors
    /// One was not in time, or has given up.
    pub fn progress(&self, limit: Duration) -> Result<()> {
        let counts = || self.shared.commits.iter().map(|n| n.load(Ordering::Acquire)).collect::<Vec<_>>();
        let (before, end) = (counts(), Instant::now() + limit);
        loop {
            let now = counts();
            if now.iter().zip(&before).all(|(now, before)| now > before) {
                return Ok(());
            }
            let ended = self.writers.iter().position(JoinHandle::is_finished);
            ensure!(
                Instant::now() < end && ended.is_none() && !self.copier.is_finished(),
                "commits went from {before:?} to {now:?} within {limit:?}, writer {ended:?} has given up; {:?}",
                self.problems()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What went wrong so far.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.shared.problems).clone()
    }

    /// Ends the writers, lets the copier come to the end of what they wrote, and hands the history over.
    ///
    /// # Errors
    /// The broker does not answer any more, or the ledger cannot be read.
    pub fn finish(self, bootstrap: &str) -> Result<History> {
        let Running { shared, writers, copier, sights } = self;
        shared.stop.store(true, Ordering::Release);
        let join = |who: &str, thread: JoinHandle<Result<()>>| match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => shared.problem(format!("{who}: {error:#}")),
            Err(_) => shared.problem(format!("{who} panicked")),
        };
        for (number, writer) in writers.into_iter().enumerate() {
            join(&format!("writer {number}"), writer);
        }
        let mut ends = vec![0; ORDERS.1 as usize];
        if let Err(error) = read_on(bootstrap, ORDERS.0, false, &mut ends) {
            shared.problem(format!("{error:#}"));
        }
        *lock(&shared.copy_until) = Some(ends);
        join("the copier", copier);
        shared.stop_sights.store(true, Ordering::Release);
        join("the consumer beside the load", sights);
        let shared = Arc::into_inner(shared).context("a client of the load is left over")?;
        let inner = |mutex: std::sync::Mutex<Vec<String>>| mutex.into_inner().unwrap_or_default();
        let mut ledger = shared.ledger.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(History {
            events: ledger.read()?,
            problems: inner(shared.problems),
            fatal: shared.fatal.into_inner().unwrap_or_default(),
            producers: shared.anew.load(Ordering::Acquire),
            ledger,
        })
    }
}
