//! The thread that compacts: one for all partitions, of low priority, at a bounded pace. It looks at every partition of a
//! compacted topic from time to time, and cleans those that are due, the dirtiest first.
//!
//! It asks each topic's settings every time, so a change of them holds from the next look on. A partition that cannot be
//! cleaned says why ([`Cleaning::uncleanable`]), and stops no other.
//!
//! [`Cleaning::uncleanable`]: crate::partition::clean::Cleaning::uncleanable

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pelton_commitlog::{CleanError, Compaction, Dirt, Pace, ReadError};

use crate::clock::Clock;
use crate::partition::Partition;
use crate::partition::clean::CleanLimits;
use crate::topics::Topics;

/// Priority of the thread: producers' threads come first wherever there is something to wait for.
const NICE: i32 = 15;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct CleanerSettings {
    /// `log.cleaner.backoff.ms`: how long it sleeps when nothing is due.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`: memory for the keys of one clean.
    pub map_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: what it reads and writes; 0 is no limit.
    pub bytes_per_second: u64,
    /// Topics that are kept small in another way.
    pub leaves: &'static [&'static str],
    /// A secret of the process, so that nobody can make keys that are taken for one.
    pub hash_key: [u8; 16],
}

/// The running cleaner. Dropping it stops it.
pub struct Cleaner {
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Cleaner {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        topics: &Arc<Topics>,
        clock: Arc<dyn Clock>,
        settings: CleanerSettings,
    ) -> std::io::Result<Cleaner> {
        let stop = Arc::new(Stop::default());
        // Weak: a broker that is dropped lets go of its data directory.
        let worker = Worker { topics: Arc::downgrade(topics), clock, settings, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("pelton-cleaner".to_owned());
        let thread = thread.spawn(move || worker.run())?;
        Ok(Cleaner { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Stops it, in the midst of a clean too. Blocking.
    pub fn stop(&self) {
        self.stop.set();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the cleaner panicked; nothing was compacted since");
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Wakes the thread for good.
#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    /// Waits so long, or until it is set. Whether it is.
    fn wait(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped && !time.is_zero() {
            self.changed.wait_while_for(&mut stopped, |stopped| !*stopped, time);
        }
        *stopped
    }
}

/// Spreads reads and writes over time.
struct Pacer<'a> {
    stop: &'a Stop,
    bytes_per_second: u64,
    /// When what was spent so far is paid for.
    due: Instant,
}

/// So much may be spent at once, in time: shorter waits cost more than they are worth.
const BURST: Duration = Duration::from_millis(20);

impl Pace for Pacer<'_> {
    fn spend(&mut self, bytes: u64) -> bool {
        if self.bytes_per_second == 0 {
            return !self.stop.wait(Duration::ZERO);
        }
        let now = Instant::now();
        self.due = self.due.max(now) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let ahead = self.due - now;
        !self.stop.wait(if ahead > BURST { ahead } else { Duration::ZERO })
    }
}

struct Worker {
    topics: Weak<Topics>,
    clock: Arc<dyn Clock>,
    settings: CleanerSettings,
    stop: Arc<Stop>,
}

/// A partition that is due.
struct Due {
    partition: Arc<Partition>,
    compaction: Compaction,
    dirt: Dirt,
}

impl Worker {
    fn run(&self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "the cleaner runs at the priority of the others");
        }
        loop {
            let due = self.look();
            let backs_off = due.is_empty() || !due.iter().all(|due| self.clean(due));
            let pause = if backs_off { self.settings.backoff } else { Duration::ZERO };
            if self.stop.wait(pause) {
                return;
            }
        }
    }

    /// What is due now, the dirtiest first.
    fn look(&self) -> Vec<Due> {
        let Some(topics) = self.topics.upgrade() else { return Vec::new() };
        let now_ms = self.clock.now_ms();
        let mut due = Vec::new();
        for topic in topics.list() {
            if !topic.config.compact || self.settings.leaves.contains(&&*topic.name) {
                continue;
            }
            for partition in &topic.local {
                let compaction = topic.config.compaction;
                let is_left = partition.cleaning().is_some_and(|cleaning| cleaning.uncleanable.is_some());
                if is_left || self.stop.wait(Duration::ZERO) {
                    continue;
                }
                match partition.dirt(&compaction, now_ms) {
                    Ok(dirt) if dirt.is_due(&compaction) => {
                        due.push(Due { partition: Arc::clone(partition), compaction, dirt });
                    }
                    Ok(_) => {}
                    Err(error) => unreadable(partition, &error),
                }
            }
        }
        due.sort_by(|a, b| b.dirt.ratio().total_cmp(&a.dirt.ratio()));
        due
    }

    /// Cleans one. False: not before a pause.
    fn clean(&self, Due { partition, compaction, dirt }: &Due) -> bool {
        let bytes_per_second = self.settings.bytes_per_second;
        let mut pace = Pacer { stop: &self.stop, bytes_per_second, due: Instant::now() };
        let limits = CleanLimits {
            now_ms: self.clock.now_ms(),
            map_bytes: self.settings.map_bytes,
            hash_key: self.settings.hash_key,
            pace: &mut pace,
        };
        let started = Instant::now();
        match partition.clean(dirt, compaction, limits) {
            Ok(report) => {
                tracing::info!(
                    partition = %partition.id(),
                    bytes_read = report.bytes_read, bytes_written = report.bytes_written,
                    records_read = report.records_read, records_written = report.records_written,
                    segments = report.segments_after, of = report.segments_before,
                    took_ms = started.elapsed().as_millis(), "compacted"
                );
                true
            }
            Err(CleanError::Stopped) => false,
            Err(error) => {
                let lasting = error.is_lasting();
                tracing::warn!(partition = %partition.id(), %error, lasting, "not compacted");
                // The next one may be.
                lasting
            }
        }
    }
}

/// The log of a partition cannot be read, or not now.
fn unreadable(partition: &Partition, error: &ReadError) {
    let passes = match error {
        ReadError::Storage(failure) => failure.is_passing(),
        ReadError::Corrupt(_) | ReadError::OffsetOutOfRange { .. } => false,
    };
    tracing::warn!(partition = %partition.id(), %error, "the cleaner cannot look at a partition");
    // One whose topic was just deleted is not looked at again anyway.
    if !passes {
        partition.note_uncleanable(error.to_string());
    }
}

#[cfg(test)]
mod tests;
