//! The memory that requests may take, all connections together.
//!
//! A request is charged as its bytes arrive, not when its length is claimed, and then for what it may decode to; once
//! it is decoded, what it did not need is given back. A request that fits into the buffer that each connection has
//! anyway is charged only once it is whole, and falls back on a reserve: heartbeats pass while large requests wait.
//!
//! Large requests hold part of what they need while they wait for more, so they could all wait for each other. One of
//! them at a time is therefore *excepted*: it is read, decoded and answered beside the limit. What requests take is
//! bounded by `queued.max.request.bytes` and one largest request with what it decodes to.

use std::sync::Arc;

use pelton_wire::codec::decoded_limit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::vitals::Vitals;

/// A request of up to this size fits the connection's own buffer and is charged once it is whole.
pub(super) const SMALL_REQUEST: usize = 16 * 1024;
/// The reserve for small requests is one part of this many.
const RESERVE_PART: u64 = 8;
/// A large request is charged ahead for as many bytes as have arrived, or for this many.
const LARGEST_STEP: usize = 1024 * 1024;
/// What one request may decode to, however long it is. The largest that a client has reason to send names every
/// partition of a broker, which is some MiB.
pub(crate) const DECODED_MAX: usize = 32 * 1024 * 1024;

/// Bytes of memory that a request of this length may decode to.
pub(crate) fn decode_limit(len: usize) -> usize {
    decoded_limit(len).min(DECODED_MAX)
}

/// The memory of all requests.
#[derive(Debug)]
pub(crate) struct RequestMemory {
    shared: Pool,
    reserve: Pool,
    /// One permit: its holder is read beside the limit.
    exception: Arc<Semaphore>,
}

#[derive(Debug)]
struct Pool {
    free: Arc<Semaphore>,
    total: usize,
}

impl Pool {
    fn new(bytes: u64) -> Pool {
        let total = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Pool { free: Arc::new(Semaphore::new(total)), total }
    }

    /// `bytes` of it as a number of permits, if it ever has so many.
    fn permits(&self, bytes: usize) -> Option<u32> {
        u32::try_from(bytes).ok().filter(|_| bytes <= self.total)
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(self.permits(bytes)?).ok()
    }

    /// Waits for ever for more than there is.
    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let Some(permits) = self.permits(bytes) else { return std::future::pending().await };
        let permit = Arc::clone(&self.free).acquire_many_owned(permits).await;
        permit.expect("the semaphore is never closed")
    }
}

impl RequestMemory {
    /// So many bytes for all requests; the reserve has room for one small request at least.
    pub(crate) fn new(bytes: u64) -> Arc<RequestMemory> {
        let one_small = SMALL_REQUEST + decode_limit(SMALL_REQUEST);
        let reserve = (bytes / RESERVE_PART).max(one_small as u64);
        Arc::new(RequestMemory {
            shared: Pool::new(bytes.saturating_sub(reserve)),
            reserve: Pool::new(reserve),
            exception: Arc::new(Semaphore::new(1)),
        })
    }

    /// Bytes charged to requests now.
    pub(crate) fn in_use(&self) -> u64 {
        let used = |pool: &Pool| pool.total.saturating_sub(pool.free.available_permits());
        (used(&self.shared) + used(&self.reserve)) as u64
    }

    /// The share of a request before its first byte.
    pub(super) fn nothing(self: &Arc<Self>) -> Share {
        Share { memory: Arc::clone(self), held: Held::Counted(None) }
    }
}

/// The share of one request. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<RequestMemory>,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Permits of one of the pools, one for each byte.
    Counted(Option<OwnedSemaphorePermit>),
    /// All that a request can need.
    Excepted { _permit: OwnedSemaphorePermit },
}

impl Share {
    /// Waits until more of a request of `whole` bytes may be read when `arrived` bytes are here; up to how many.
    pub(super) async fn for_more(&mut self, arrived: usize, whole: usize, vitals: &Vitals) -> usize {
        if arrived < SMALL_REQUEST {
            return whole.min(SMALL_REQUEST);
        }
        let room = arrived.saturating_add(arrived.min(LARGEST_STEP)).min(whole);
        self.grow(room, vitals).await;
        room
    }

    /// Waits for the memory that a whole request of `len` bytes and what it decodes to may take.
    pub(super) async fn for_decoding(&mut self, len: usize, vitals: &Vitals) {
        let bytes = len.saturating_add(decode_limit(len));
        if len > SMALL_REQUEST {
            return self.grow(bytes, vitals).await;
        }
        let memory = &self.memory;
        let permit = match memory.shared.try_take(bytes).or_else(|| memory.reserve.try_take(bytes)) {
            Some(permit) => permit,
            None => vitals.waiting_for_us(memory.reserve.take(bytes)).await,
        };
        self.held = Held::Counted(Some(permit));
    }

    /// Makes it `bytes`, or the exception.
    async fn grow(&mut self, bytes: usize, vitals: &Vitals) {
        let Held::Counted(held) = &mut self.held else { return };
        let missing = bytes.saturating_sub(held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return;
        }
        let memory = Arc::clone(&self.memory);
        let more = match memory.shared.try_take(missing) {
            Some(more) => more,
            None => {
                let either = async {
                    tokio::select! {
                        biased;
                        more = memory.shared.take(missing) => Ok(more),
                        excepted = Arc::clone(&memory.exception).acquire_owned() => Err(excepted),
                    }
                };
                match vitals.waiting_for_us(either).await {
                    Ok(more) => more,
                    Err(excepted) => {
                        let _permit = excepted.expect("the semaphore is never closed");
                        self.held = Held::Excepted { _permit };
                        return;
                    }
                }
            }
        };
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
    }

    /// Gives back all but the `bytes` that the decoded request takes.
    pub(crate) fn settle(&mut self, bytes: usize) {
        match &mut self.held {
            Held::Counted(held) => {
                let spare = held.as_ref().map_or(0, |held| held.num_permits().saturating_sub(bytes));
                drop(held.as_mut().and_then(|held| held.split(spare)));
            }
            // Another request may need the exception now.
            Held::Excepted { .. } => {
                if let Some(permit) = self.memory.shared.try_take(bytes) {
                    self.held = Held::Counted(Some(permit));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::vitals::PATIENCE;

    const LARGE: usize = 1024 * 1024;

    /// Takes all memory that large requests could have.
    async fn used_up() -> (Arc<RequestMemory>, impl Sized) {
        let memory = RequestMemory::new(64 * 1024 * 1024);
        let all = memory.shared.take(memory.shared.total).await;
        let exception = Arc::clone(&memory.exception).acquire_owned().await;
        (memory, (all, exception))
    }

    fn is_ready(future: std::pin::Pin<&mut impl Future>) -> bool {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn a_claim_costs_nothing_and_bytes_cost_at_most_twice() {
        let memory = RequestMemory::new(64 * 1024 * 1024);
        let (mut share, vitals) = (memory.nothing(), Vitals::new());
        let mut arrived = 4;
        while arrived < LARGE {
            let room = share.for_more(arrived, LARGE, &vitals).await;
            assert!(room > arrived && room <= LARGE);
            let charged = memory.in_use();
            assert!(
                charged <= 2 * arrived as u64 && (arrived > 4 || charged == 0),
                "{charged} for {arrived}"
            );
            arrived = room;
        }
        assert_eq!(memory.in_use(), LARGE as u64);
    }

    #[tokio::test]
    async fn what_a_request_decodes_to_is_its_share_as_well() {
        let (memory, vitals) = (RequestMemory::new(64 * 1024 * 1024), Vitals::new());
        for len in [100, LARGE] {
            let mut share = memory.nothing();
            share.for_decoding(len, &vitals).await;
            assert_eq!(memory.in_use(), (len + decode_limit(len)) as u64);
            share.settle(3 * len);
            assert_eq!(memory.in_use(), 3 * len as u64);
            drop(share);
            assert_eq!(memory.in_use(), 0);
        }
        assert_eq!(decode_limit(usize::MAX), DECODED_MAX);
    }

    #[tokio::test]
    async fn small_requests_have_a_reserve() {
        let (memory, held) = used_up().await;
        let vitals = Vitals::new();
        let (mut large, mut small) = (memory.nothing(), memory.nothing());
        let mut waiting = std::pin::pin!(large.for_more(SMALL_REQUEST, LARGE, &vitals));
        assert!(!is_ready(waiting.as_mut()));
        small.for_decoding(100, &vitals).await;
        drop(held);
        waiting.await;
    }

    /// Each has half of what it needs, and there is no more.
    #[tokio::test]
    async fn requests_that_wait_for_each_other_come_to_an_end() {
        let (memory, vitals) = (RequestMemory::new(2 * 1024 * 1024), Vitals::new());
        let half = memory.shared.total / 2;
        let (mut one, mut other) = (memory.nothing(), memory.nothing());
        one.grow(half, &vitals).await;
        other.grow(half, &vitals).await;
        one.for_decoding(LARGE, &vitals).await;
        {
            let mut waiting = std::pin::pin!(other.for_decoding(LARGE, &vitals));
            assert!(!is_ready(waiting.as_mut()), "only one at a time is beside the limit");
            drop(one);
            waiting.await;
        }
        assert_eq!(memory.in_use(), 0, "the exception is not counted");
        other.settle(LARGE);
        assert_eq!(memory.in_use(), LARGE as u64, "there is room for it again");
        assert_eq!(memory.exception.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_memory_is_not_the_clients_slowness() {
        use crate::net::vitals::Expired;
        let pass = |ms| tokio::time::advance(std::time::Duration::from_millis(ms));
        let (memory, held) = used_up().await;
        let vitals = Vitals::new();
        vitals.request_begun();
        pass(600).await;
        let mut share = memory.nothing();
        {
            let mut waiting = std::pin::pin!(share.for_more(SMALL_REQUEST, LARGE, &vitals));
            assert!(!is_ready(waiting.as_mut()));
            pass(50_000).await;
            assert_eq!(vitals.check(PATIENCE), Ok(()));
            drop(held);
            waiting.await;
        }
        assert_eq!(vitals.check(PATIENCE), Ok(()));
        pass(600).await;
        assert_eq!(vitals.check(PATIENCE), Err(Expired::SlowRequest), "its own 1200 ms count");
    }
}
