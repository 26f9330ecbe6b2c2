//! Several lanes of a pipeline over one world: a thread each, of which one runs at a time. Whenever a lane reads, writes or
//! waits, a number from the test's seed says who goes on, so a run can be repeated.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::{Condvar, Mutex};
use pelton_streams::Topology;

use super::{Fate, Run, Shared};
use crate::driver::DriverError;
use crate::io::StopSignal;
use crate::lanes::Lane;
use crate::logs::PipelineLog;
use crate::status::StatusBoard;
use crate::stores::TaskStores;

/// Who goes on.
pub(super) struct Baton {
    turn: Mutex<Turn>,
    changed: Condvar,
}

struct Turn {
    /// Of a generator (splitmix64).
    random: u64,
    now: u32,
    running: BTreeSet<u32>,
    /// Lanes that have found nothing to do since somebody wrote something.
    idle: BTreeSet<u32>,
}

impl Turn {
    fn next(&mut self) {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let which = (mixed ^ (mixed >> 31)) % self.running.len().max(1) as u64;
        self.now = self.running.iter().nth(which as usize).copied().unwrap_or(u32::MAX);
    }
}

impl Baton {
    fn new(lanes: u32, seed: u64) -> Baton {
        let mut turn = Turn { random: seed, now: 0, running: (0..lanes).collect(), idle: BTreeSet::new() };
        turn.next();
        Baton { turn: Mutex::new(turn), changed: Condvar::new() }
    }

    fn wait(&self, lane: u32) {
        self.changed.wait_while(&mut self.turn.lock(), |turn| turn.now != lane);
    }

    /// Somebody goes on, who may be the same lane.
    pub(super) fn pass(&self, lane: u32) {
        self.turn.lock().next();
        self.changed.notify_all();
        self.wait(lane);
    }

    /// Others may have something to read now.
    pub(super) fn wrote(&self) {
        self.turn.lock().idle.clear();
    }

    /// A lane has nothing to do. Whether that is so for all of them.
    pub(super) fn rests(&self, lane: u32) -> bool {
        let mut turn = self.turn.lock();
        turn.idle.insert(lane);
        turn.running.iter().all(|lane| turn.idle.contains(lane))
    }

    fn ends(&self, lane: u32) {
        let mut turn = self.turn.lock();
        turn.running.remove(&lane);
        turn.next();
        self.changed.notify_all();
    }
}

/// What becomes of a lane that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// It begins again, and the others go on.
    Alone,
    /// All of them stop.
    All,
}

/// The lanes of a pipeline until all is read, or until one fails and all are to stop. How often a lane has begun again.
///
/// # Errors
/// Why it failed.
pub fn drive_lanes(
    threads: u32,
    failing: Failing,
    stores: Arc<dyn TaskStores>,
    (world, topology, partitions): (&Shared, &Arc<Topology>, i32),
    clock: &Arc<AtomicI64>,
    seed: u64,
) -> Result<u32, DriverError> {
    world.lock().reading.clear();
    // As who starts a pipeline does.
    world.lock().decide(None, Fate::Aborted);
    let (baton, stop) = (Arc::new(Baton::new(threads, seed)), Arc::new(StopSignal::default()));
    let board = StatusBoard::of_lanes(Arc::new(|| 7), threads, None, PipelineLog::passing());
    let ended: Mutex<Result<u32, DriverError>> = Mutex::new(Ok(0));
    std::thread::scope(|scope| {
        for lane in Lane::all(threads) {
            let (baton, stop, board, ended) = (&baton, &stop, &board, &ended);
            let stores = &stores;
            scope.spawn(move || {
                let _ends = Ends(baton, lane.number);
                baton.wait(lane.number);
                loop {
                    let run = Run {
                        lane,
                        baton: Some(Arc::clone(baton)),
                        stop: Arc::clone(stop),
                        board: Arc::clone(board),
                        commit: super::hasty(),
                        stores: Arc::clone(stores),
                    };
                    let Err(error) = run.drive(world, topology, partitions, clock) else { return };
                    if failing == Failing::All || !error.is_transient() {
                        stop.set();
                        *ended.lock() = Err(error);
                        return;
                    }
                    if let Ok(restarts) = &mut *ended.lock() {
                        *restarts += 1;
                    }
                    // It aborts what it has left, as who started it does.
                    world.lock().decide(Some(lane.number), Fate::Aborted);
                    baton.wrote();
                }
            });
        }
    });
    ended.into_inner()
}

/// Gives the baton on when its lane ends, however it does.
struct Ends<'b>(&'b Baton, u32);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.ends(self.1);
    }
}
