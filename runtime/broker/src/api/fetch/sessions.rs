//! Fetch sessions (KIP-227): a consumer names a partition once, and is told only what has changed. The number of
//! sessions and of their partitions is bounded; an unused session is evicted for a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pelton_wire::ErrorCode;
use tokio::time::Instant;

/// The id and the epochs with a meaning of their own.
pub(super) const NO_SESSION: i32 = 0;
pub(super) const NO_SESSION_EPOCH: i32 = -1;
pub(super) const NEW_SESSION_EPOCH: i32 = 0;
const FIRST_EPOCH: i32 = 1;

/// A session that is unused for this time may be evicted for a new one, and one of this age for a larger one. Kafka's
/// value.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// The epoch of the next request.
fn epoch_after(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(FIRST_EPOCH)
}

/// One session with its partitions.
pub(super) struct Session<T> {
    pub(super) id: i32,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The expected epoch.
    epoch: i32,
    kept: T,
}

/// The current request of a session.
pub(super) struct Turn<T> {
    pub(super) session: Arc<Session<T>>,
    /// The epoch that the session has while no later request has come.
    epoch: i32,
}

impl<T> Clone for Turn<T> {
    fn clone(&self) -> Self {
        Turn { session: Arc::clone(&self.session), epoch: self.epoch }
    }
}

impl<T> Session<T> {
    /// Begins a request and applies its changes. An earlier request that is still waiting has lost its turn.
    pub(super) fn take_turn<R>(
        self: &Arc<Self>,
        epoch: i32,
        change: impl FnOnce(&mut T) -> Result<R, ErrorCode>,
    ) -> Result<(Turn<T>, R), ErrorCode> {
        // Another request of the session is reading now.
        let mut state = self.state.try_lock().ok_or(ErrorCode::INVALID_FETCH_SESSION_EPOCH)?;
        if state.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        let changed = change(&mut state.kept)?;
        state.epoch = epoch_after(epoch);
        Ok((Turn { session: Arc::clone(self), epoch: state.epoch }, changed))
    }
}

impl<T> Turn<T> {
    /// Runs `work` on the partitions, unless a later request has come.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Result<R, ErrorCode> {
        match self.session.state.try_lock() {
            Some(mut state) if state.epoch == self.epoch => Ok(work(&mut state.kept)),
            _ => Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH),
        }
    }
}

pub(crate) struct Sessions<T> {
    sessions_max: usize,
    partitions_max: usize,
    open: Mutex<Open<T>>,
}

struct Open<T> {
    sessions: HashMap<i32, Entry<T>>,
    /// Of all sessions.
    partitions: usize,
}

struct Entry<T> {
    session: Arc<Session<T>>,
    partitions: usize,
    created: Instant,
    used: Instant,
}

impl<T> Sessions<T> {
    pub(crate) fn new(sessions_max: usize, partitions_max: usize) -> Self {
        let open = Mutex::new(Open { sessions: HashMap::new(), partitions: 0 });
        Sessions { sessions_max, partitions_max, open }
    }

    /// The number of sessions, and of their partitions.
    pub(crate) fn count(&self) -> (usize, usize) {
        let open = self.open.lock();
        (open.sessions.len(), open.partitions)
    }

    /// Creates a session of this many partitions, if there is room; its id.
    pub(super) fn create(&self, partitions: usize, kept: T, now: Instant) -> Option<i32> {
        let mut open = self.open.lock();
        if partitions == 0 || !self.make_room(&mut open, partitions, now) {
            return None;
        }
        let id = open.new_id();
        let session = Arc::new(Session { id, state: Mutex::new(State { epoch: FIRST_EPOCH, kept }) });
        open.partitions += partitions;
        open.sessions.insert(id, Entry { session, partitions, created: now, used: now });
        Some(id)
    }

    /// Evicts sessions until one more of this many partitions has room: unused ones, and old ones that are smaller.
    fn make_room(&self, open: &mut Open<T>, partitions: usize, now: Instant) -> bool {
        if partitions > self.partitions_max {
            return false;
        }
        while open.sessions.len() >= self.sessions_max || open.partitions + partitions > self.partitions_max {
            let is_over = |since: Instant| now.saturating_duration_since(since) > EVICTABLE_AFTER;
            let longest_unused = open.sessions.iter().min_by_key(|(_, entry)| entry.used);
            let unused = longest_unused.filter(|(_, entry)| is_over(entry.used)).map(|(id, _)| *id);
            let old = open.sessions.iter().filter(|(_, entry)| is_over(entry.created));
            let smallest_old = old.min_by_key(|(id, entry)| (entry.partitions, **id));
            let smaller = smallest_old.filter(|(_, entry)| entry.partitions < partitions).map(|(id, _)| *id);
            match unused.or(smaller) {
                Some(id) => open.remove(id),
                None => return false,
            }
        }
        true
    }

    /// Finds the session of a request and marks it used.
    pub(super) fn get(&self, id: i32, now: Instant) -> Result<Arc<Session<T>>, ErrorCode> {
        let mut open = self.open.lock();
        let entry = open.sessions.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        entry.used = now;
        Ok(Arc::clone(&entry.session))
    }

    /// Updates the size of a session. It is closed if there is no room for its partitions.
    pub(super) fn resized(&self, id: i32, partitions: usize, now: Instant) -> Result<(), ErrorCode> {
        let mut open = self.open.lock();
        let Some(entry) = open.sessions.get_mut(&id) else {
            return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        };
        let before = std::mem::replace(&mut entry.partitions, partitions);
        open.partitions = open.partitions - before + partitions;
        if open.partitions <= self.partitions_max || partitions <= before {
            return Ok(());
        }
        // Evicts as for a new session of that size; this one was just used and does not evict itself.
        let entry = open.sessions.remove(&id);
        open.partitions -= partitions;
        match entry.filter(|_| self.make_room(&mut open, partitions, now)) {
            Some(entry) => {
                open.partitions += partitions;
                open.sessions.insert(id, entry);
                Ok(())
            }
            None => Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
        }
    }

    /// Closes a session, if it exists.
    pub(super) fn remove(&self, id: i32) {
        self.open.lock().remove(id);
    }
}

impl<T> Open<T> {
    fn remove(&mut self, id: i32) {
        if let Some(entry) = self.sessions.remove(&id) {
            self.partitions -= entry.partitions;
        }
    }

    fn new_id(&mut self) -> i32 {
        loop {
            // Random, so that other clients cannot guess it.
            let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
            let id = i32::try_from(random >> 33).unwrap_or(NO_SESSION);
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOT_FOUND: Option<ErrorCode> = Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
    const INVALID: Option<ErrorCode> = Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH);

    fn later(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn requests_take_turns_by_their_epochs() {
        let (sessions, now) = (Sessions::new(10, 10), Instant::now());
        let id = sessions.create(1, 0, now).unwrap();
        let session = sessions.get(id, now).unwrap();
        let add = |by: i32| {
            move |sum: &mut i32| {
                *sum += by;
                Ok(*sum)
            }
        };
        assert_eq!(session.take_turn(2, add(1)).err(), INVALID, "the first epoch is 1");
        let (first, sum) = session.take_turn(1, add(1)).unwrap();
        assert_eq!((sum, first.with(|sum| *sum)), (1, Ok(1)));
        assert_eq!(session.take_turn(1, add(1)).err(), INVALID, "a turn is taken once");
        let refused = session.take_turn(2, |_| Err::<(), _>(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        assert_eq!(refused.err(), Some(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR));
        let (second, sum) = session.take_turn(2, add(1)).unwrap();
        assert_eq!((sum, first.with(|sum| *sum).err(), second.with(|sum| *sum)), (2, INVALID, Ok(2)));
        assert_eq!((epoch_after(1), epoch_after(i32::MAX)), (2, FIRST_EPOCH));
        sessions.remove(id);
        assert_eq!(sessions.get(id, now).err(), NOT_FOUND);
        assert_eq!(sessions.count(), (0, 0));
    }

    #[test]
    fn sessions_are_bounded_and_give_way() {
        let (sessions, start) = (Sessions::new(3, 100), Instant::now());
        assert_eq!(sessions.create(0, (), start), None, "of nothing");
        assert_eq!(sessions.create(101, (), start), None, "larger than all may be together");
        let [small, large, used] = [10, 60, 20].map(|size| sessions.create(size, (), start).unwrap());
        assert_eq!(sessions.create(5, (), later(start, 100)), None, "none is out of use yet");
        sessions.get(used, later(start, 100)).unwrap();
        sessions.get(large, later(start, 60)).unwrap();
        sessions.get(small, later(start, 70)).unwrap();
        // All are old by now, and in use: a larger one takes the place of the smallest.
        assert_eq!(sessions.create(10, (), later(start, 130)), None, "not larger than the smallest");
        let larger = sessions.create(15, (), later(start, 130)).unwrap();
        assert_eq!(sessions.get(small, later(start, 130)).err(), NOT_FOUND);
        assert_eq!(sessions.count(), (3, 95));
        // The one that was not used for longest goes, however large it is.
        assert!(sessions.create(1, (), later(start, 181)).is_some());
        assert_eq!(sessions.get(large, later(start, 181)).err(), NOT_FOUND);
        assert!(sessions.get(larger, later(start, 181)).is_ok());
        assert_eq!(sessions.count(), (3, 36));
    }

    #[test]
    fn a_session_that_outgrows_the_bound_is_closed() {
        let (sessions, now) = (Sessions::new(10, 100), Instant::now());
        let [one, other] = [40, 50].map(|size| sessions.create(size, (), now).unwrap());
        assert_eq!(sessions.resized(one, 50, now), Ok(()));
        assert_eq!(sessions.resized(other, 51, now).err(), NOT_FOUND);
        assert_eq!(sessions.count(), (1, 50));
        assert_eq!(sessions.resized(other, 1, now).err(), NOT_FOUND);
        assert_eq!(sessions.resized(one, 100, now), Ok(()));
        let new = sessions.create(60, (), later(now, 200)).unwrap();
        assert_eq!(sessions.get(one, later(now, 200)).err(), NOT_FOUND, "out of use");
        assert_eq!(sessions.resized(new, 100, later(now, 200)), Ok(()));
    }
}
