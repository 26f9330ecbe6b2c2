//! How much may wait for the journal. Who appends for a client takes a permit first, which may take a while and blocks no
//! thread; the coordinators' records, which hold up everybody if they wait, have a bound of their own that refuses instead.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use super::queue::Queue;
use crate::error::SinkClosed;

/// Bytes of the broker's own records (coordinators, metadata, markers) that may wait for the journal. A stalled disk makes
/// the coordinators refuse, which their clients try again. 64 MiB: the largest component that is deployed fits twice.
pub(crate) const INTERNAL_MAX_BYTES: u64 = 64 << 20;

/// Bytes that wait to become durable, those that were promised to permits, and the appends that wait for a permit.
#[derive(Default)]
pub(super) struct Admission {
    /// Bytes that permits may have waiting; `None`: permits never wait (nobody would make room while they do).
    max_bytes: Option<u64>,
    /// Cost of clients' frames that are not yet durable.
    data: u64,
    /// Cost of all other entries that are not yet durable.
    internal: u64,
    /// Bytes of permits that are held.
    promised: u64,
    /// By the order of their coming.
    waiting: BTreeMap<u64, Waiting>,
    granted: BTreeMap<u64, u64>,
    next_wait: u64,
}

struct Waiting {
    bytes: u64,
    waker: Waker,
}

/// What an entry costs, by the bound that it counts against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) data: u64,
    pub(crate) internal: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.data += other.data;
        self.internal += other.internal;
    }
}

impl Admission {
    pub(super) fn new(max_bytes: Option<u64>) -> Admission {
        Admission { max_bytes, ..Admission::default() }
    }

    pub(super) fn entered(&mut self, cost: Cost) {
        self.data += cost.data;
        self.internal += cost.internal;
    }

    /// Who has a permit now must be woken by the caller.
    #[must_use]
    pub(super) fn finished(&mut self, cost: Cost) -> Vec<Waker> {
        self.data -= cost.data;
        self.internal -= cost.internal;
        self.grant()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.data + self.internal
    }

    pub(super) fn is_behind(&self) -> bool {
        self.max_bytes.is_some() && self.internal >= INTERNAL_MAX_BYTES
    }

    /// What is larger than the bound goes alone.
    fn fits(&self, bytes: u64) -> bool {
        let taken = self.data + self.promised;
        self.max_bytes.is_none_or(|max| taken == 0 || taken + bytes <= max)
    }

    fn try_promise(&mut self, bytes: u64) -> bool {
        let fits = self.waiting.is_empty() && self.fits(bytes);
        self.promised += if fits { bytes } else { 0 };
        fits
    }

    fn grant(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while let Some((_, first)) = self.waiting.first_key_value()
            && self.fits(first.bytes)
            && let Some((id, first)) = self.waiting.pop_first()
        {
            self.promised += first.bytes;
            self.granted.insert(id, first.bytes);
            wakers.push(first.waker);
        }
        wakers
    }

    /// All waiting appends, when nothing will be taken any more.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.waiting.values().map(|waiting| waiting.waker.clone()).collect()
    }
}

/// Room for an append. What was appended under it counts by itself from then on, so it is dropped after the append.
#[must_use = "an append needs it"]
pub struct AppendPermit {
    queue: Arc<Queue>,
    bytes: u64,
}

impl Drop for AppendPermit {
    fn drop(&mut self) {
        let wakers = {
            let mut state = self.queue.lock();
            state.admission.promised -= self.bytes;
            state.admission.grant()
        };
        wake(wakers);
    }
}

/// Waits for a permit, in the order in which permits were asked for. Dropping it gives the place up.
#[must_use = "it does nothing unless it is polled"]
pub struct PermitWait {
    queue: Arc<Queue>,
    bytes: u64,
    /// The place in the order, once it waits.
    id: Option<u64>,
}

impl PermitWait {
    /// Waits on this thread, which must not be one of a runtime.
    pub fn wait(mut self) -> Result<AppendPermit, SinkClosed> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(permit) => return permit,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for PermitWait {
    type Output = Result<AppendPermit, SinkClosed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.queue.lock();
        let is_granted = match this.id {
            Some(id) => state.admission.granted.remove(&id).is_some(),
            None => state.closed.is_none() && state.admission.try_promise(this.bytes),
        };
        if is_granted {
            this.id = None;
            return Poll::Ready(Ok(AppendPermit { queue: this.queue.clone(), bytes: this.bytes }));
        }
        if let Some(closed) = &state.closed {
            return Poll::Ready(Err(closed.clone()));
        }
        let waiting = Waiting { bytes: this.bytes, waker: cx.waker().clone() };
        let next = state.admission.next_wait;
        state.admission.waiting.insert(*this.id.get_or_insert(next), waiting);
        state.admission.next_wait = next + 1;
        Poll::Pending
    }
}

impl Drop for PermitWait {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let wakers = {
            let mut state = self.queue.lock();
            state.admission.waiting.remove(&id);
            // It was granted after its append had given up.
            let granted = state.admission.granted.remove(&id);
            state.admission.promised -= granted.unwrap_or(0);
            state.admission.grant()
        };
        wake(wakers);
    }
}

pub(super) fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl Queue {
    /// Room for an append of `bytes`, if there is some now and no append waits for it.
    pub(crate) fn try_permit(self: &Arc<Queue>, bytes: u64) -> Result<Option<AppendPermit>, SinkClosed> {
        let mut state = self.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.clone());
        }
        let promised = state.admission.try_promise(bytes);
        Ok(promised.then(|| AppendPermit { queue: self.clone(), bytes }))
    }

    /// Room for an append of `bytes`, as soon as there is some.
    pub(crate) fn permit(self: &Arc<Queue>, bytes: u64) -> PermitWait {
        PermitWait { queue: self.clone(), bytes, id: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::queue::{Entry, Taken};
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const KIB: u64 = 1024;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One that waits, and how often it was woken.
    struct Waiter(PermitWait, Arc<Count>);

    impl Waiter {
        fn new(queue: &Arc<Queue>, bytes: u64) -> Waiter {
            Waiter(queue.permit(bytes), Arc::default())
        }

        fn poll(&mut self) -> Poll<Result<AppendPermit, SinkClosed>> {
            let waker = Waker::from(self.1.clone());
            Pin::new(&mut self.0).poll(&mut Context::from_waker(&waker))
        }

        fn permit(&mut self) -> Option<AppendPermit> {
            match self.poll() {
                Poll::Ready(permit) => Some(permit.expect("the queue is open")),
                Poll::Pending => None,
            }
        }

        fn woken(&self) -> usize {
            self.1.0.load(Ordering::Relaxed)
        }
    }

    fn queue() -> Arc<Queue> {
        Arc::new(Queue::new(Some(10 * KIB)))
    }

    #[test]
    fn permits_are_given_in_order_and_no_more_than_fit() {
        let queue = queue();
        let first = queue.try_permit(6 * KIB).unwrap().expect("there is room");
        let mut large = Waiter::new(&queue, 8 * KIB);
        let mut small = Waiter::new(&queue, KIB);
        assert!(large.permit().is_none());
        assert!(queue.try_permit(KIB).unwrap().is_none(), "it would fit, but somebody waits");
        assert!(small.permit().is_none());
        drop(first);
        assert_eq!((large.woken(), small.woken()), (1, 1));
        let (large, small) = (large.permit().expect("granted"), small.permit().expect("granted"));
        assert!(queue.try_permit(2 * KIB).unwrap().is_none());
        drop((large, small));
        let alone = queue.try_permit(100 * KIB).unwrap().expect("what is too large goes alone");
        assert!(queue.try_permit(1).unwrap().is_none());
        drop(alone);
        assert!(queue.try_permit(1).unwrap().is_some());
    }

    #[test]
    fn what_was_appended_counts_until_it_is_durable() {
        let queue = queue();
        let permit = queue.try_permit(8 * KIB).unwrap().expect("there is room");
        assert!(queue.push(Entry::for_tests(9 * KIB as usize)).is_ok());
        drop(permit);
        let mut waiter = Waiter::new(&queue, 4 * KIB);
        assert!(waiter.permit().is_none());
        let mut taken = VecDeque::new();
        assert_eq!(queue.take(&mut taken, false), Taken::Entries);
        assert!(waiter.permit().is_none(), "taken is not durable");
        queue.finished(taken[0].cost());
        assert_eq!(waiter.woken(), 1);
        assert!(waiter.permit().is_some());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn who_gives_up_holds_up_nobody() {
        let queue = queue();
        let held = queue.try_permit(9 * KIB).unwrap();
        let (mut first, mut second) = (Waiter::new(&queue, 9 * KIB), Waiter::new(&queue, KIB));
        assert!(first.permit().is_none() && second.permit().is_none());
        drop(first);
        assert_eq!(second.woken(), 1, "it fits beside what is held");
        drop(second);
        drop(held);
        assert!(queue.try_permit(10 * KIB).unwrap().is_some(), "what was granted and not fetched came back");
    }

    #[test]
    fn a_closed_queue_ends_every_wait() {
        let queue = queue();
        let _held = queue.try_permit(10 * KIB).unwrap();
        let mut waiter = Waiter::new(&queue, KIB);
        assert!(waiter.permit().is_none());
        let blocked = std::thread::spawn({
            let wait = queue.permit(KIB);
            move || wait.wait().is_err()
        });
        queue.close("the disk is gone");
        assert_eq!(waiter.woken(), 1);
        assert!(matches!(waiter.poll(), Poll::Ready(Err(closed)) if closed.reason == "the disk is gone"));
        assert!(blocked.join().unwrap());
        assert!(queue.try_permit(1).is_err());
        assert!(queue.permit(1).wait().is_err());
    }

    #[test]
    fn without_a_thread_that_writes_nobody_waits() {
        let queue = Arc::new(Queue::new(None));
        let permits: Vec<_> = (0..10).map(|_| queue.try_permit(1 << 40).unwrap()).collect();
        assert!(permits.iter().all(Option::is_some));
    }

    #[test]
    fn the_brokers_own_records_pass_a_full_queue_up_to_their_own_bound() {
        let queue = queue();
        let _held = queue.try_permit(10 * KIB).unwrap();
        assert!(queue.push(Entry::Barrier(Box::new(|_| {}))).is_ok(), "it does not block");
        assert!(!queue.is_behind());
        queue.lock().admission.entered(Cost { data: 0, internal: INTERNAL_MAX_BYTES });
        assert!(queue.is_behind());
        assert!(queue.try_permit(1).unwrap().is_none());
    }
}
