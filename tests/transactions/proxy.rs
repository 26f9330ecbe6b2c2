//! A network between a client and the broker that delays, repeats and loses requests of transactions, and connections.
//!
//! A request that is held back, and a copy of one that was not, is delivered after the client has gone on: after it has ended
//! a transaction and written to the next. Such a client has a new connection by then, and the late one comes on the old, as
//! networks do it; or, where asked for, on one of its own, as no network does.

use anyhow::{Context, Result};
use pelton_tests::say;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const PRODUCE: i16 = 0;
const ADD_PARTITIONS_TO_TXN: i16 = 24;
const ADD_OFFSETS_TO_TXN: i16 = 25;
const END_TXN: i16 = 26;
const TXN_OFFSET_COMMIT: i16 = 28;
/// What is disturbed.
const DISTURBED: [i16; 4] = [ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT];

/// Of a hundred requests, how many are disturbed.
const DISTURBED_PERCENT: u32 = 20;
/// A delay, at most.
const DELAY_MAX_MS: u64 = 30;
/// A late request that the client has not gone on from by then is dropped.
const LATE_MAX: Duration = Duration::from_secs(10);
/// Longest frame that is believed; tests send far less.
const FRAME_MAX: usize = 16 << 20;

/// What may happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It comes later, and all behind it on its connection.
    Delay,
    /// It is lost, and its connection with it.
    CutBefore,
    /// Its answer is lost, and its connection with it.
    CutAfter,
    /// Its connection is lost to the client, and it comes when the client has gone on.
    Hold,
    /// It comes, its connection is lost to the client, and it comes again when the client has gone on.
    CopyLater,
    /// It comes twice in a row.
    CopyNow,
    /// It comes, and again on a connection of its own when the client has gone on.
    CopyElsewhere,
}

const FAULTS: [Fault; 7] = [
    Fault::Delay,
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::Hold,
    Fault::CopyLater,
    Fault::CopyNow,
    Fault::CopyElsewhere,
];

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Requests that were disturbed.
    pub(crate) disturbed: u64,
    /// Late requests that came while a later transaction was open.
    pub(crate) late: u64,
    /// Of those and of copies: answered, and hung up on.
    pub(crate) answered: u64,
    pub(crate) hung_up: u64,
}

/// A connection to the broker, as the late requests share it with the client's.
struct Upstream {
    stream: TcpStream,
    /// Late requests and copies that were written to it, and not answered yet.
    copies: Mutex<Vec<Copied>>,
}

/// A request that no client waits for the answer of.
struct Copied {
    correlation_id: Vec<u8>,
    /// The client has sent it too, and its answer comes first.
    after_original: bool,
}

struct Late {
    frame: Vec<u8>,
    /// Where it goes; a connection of its own without.
    on: Option<Arc<Upstream>>,
    since: Instant,
    /// So many ends of transactions must have gone by, and then a write.
    after_ends: u64,
    after_writes: Option<u64>,
}

struct Shared {
    broker: Mutex<String>,
    rng: Mutex<StdRng>,
    faults: Vec<Fault>,
    on: AtomicBool,
    ends: AtomicU64,
    writes: AtomicU64,
    late: Mutex<Vec<Late>>,
    counts: Mutex<Counts>,
}

/// The proxy; its threads end with the process.
pub(crate) struct Proxy {
    /// Where clients connect.
    pub(crate) address: String,
    shared: Arc<Shared>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens. `elsewhere` allows copies on connections of their own.
    pub(crate) fn start(seed: u64, elsewhere: bool) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
        let address = listener.local_addr()?.to_string();
        let faults = FAULTS.into_iter().filter(|fault| elsewhere || *fault != Fault::CopyElsewhere);
        let shared = Arc::new(Shared {
            broker: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            faults: faults.collect(),
            on: AtomicBool::new(false),
            ends: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            late: Mutex::default(),
            counts: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepting);
                // Ends when either side hangs up.
                std::thread::spawn(move || drop(serve(&client, &shared)));
            }
        });
        let releasing = Arc::clone(&shared);
        std::thread::spawn(move || {
            loop {
                release(&releasing);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Ok(Proxy { address, shared })
    }

    /// Where the broker is.
    pub(crate) fn reach(&self, broker: &str) {
        broker.clone_into(&mut lock(&self.shared.broker));
    }

    /// Begins or ceases to disturb. What is late by then still comes.
    pub(crate) fn disturb(&self, on: bool) {
        self.shared.on.store(on, Ordering::Release);
    }

    /// What happened so far.
    pub(crate) fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }
}

fn read_frame(from: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let len = u32::from_be_bytes(length) as usize;
    anyhow::ensure!(len <= FRAME_MAX, "a frame of {len} bytes");
    let mut frame = vec![0; 4 + len];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

impl Upstream {
    /// Writes a request that is late, or that has been answered before.
    fn copy(&self, frame: &[u8]) -> Result<()> {
        self.expect_copy(frame, false);
        Ok((&self.stream).write_all(frame)?)
    }

    fn expect_copy(&self, frame: &[u8], after_original: bool) {
        // Length, key, version, correlation id.
        let correlation_id = frame.get(8..12).unwrap_or_default().to_vec();
        lock(&self.copies).push(Copied { correlation_id, after_original });
    }

    /// Whether an answer is to a copy.
    fn answers_copy(&self, answer: &[u8]) -> bool {
        let mut copies = lock(&self.copies);
        let id = answer.get(4..8);
        let Some(at) = copies.iter().position(|copy| id == Some(&copy.correlation_id)) else { return false };
        if copies[at].after_original {
            copies[at].after_original = false;
            return false;
        }
        copies.remove(at);
        true
    }
}

fn api_key(frame: &[u8]) -> i16 {
    frame.get(4..6).map_or(-1, |bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
}

fn connect(shared: &Shared) -> Result<Arc<Upstream>> {
    let stream = TcpStream::connect(lock(&shared.broker).as_str())?;
    stream.set_nodelay(true)?;
    Ok(Arc::new(Upstream { stream, copies: Mutex::default() }))
}

fn serve(client: &TcpStream, shared: &Arc<Shared>) -> Result<()> {
    client.set_nodelay(true)?;
    let upstream = connect(shared)?;
    let back = (Arc::clone(&upstream), client.try_clone()?, Arc::clone(shared));
    std::thread::spawn(move || bring_back(&back.0, Some(&back.1), &back.2));
    let mut from = client.try_clone()?;
    loop {
        let frame = match read_frame(&mut from) {
            Ok(frame) => frame,
            Err(error) => {
                // The client has gone; what it has sent is answered to nobody.
                let _ = upstream.stream.shutdown(Shutdown::Write);
                return Err(error);
            }
        };
        if !pass(frame, client, &upstream, shared)? {
            return Ok(());
        }
    }
}

/// Brings a request to the broker, or does what a network may do. False when the client's connection is cut.
fn pass(frame: Vec<u8>, client: &TcpStream, upstream: &Arc<Upstream>, shared: &Shared) -> Result<bool> {
    let key = api_key(&frame);
    let fault = choose(key, shared);
    let cut = || client.shutdown(Shutdown::Both);
    match fault {
        Some(Fault::CutBefore) => {
            cut()?;
            upstream.stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        Some(Fault::Hold) => {
            cut()?;
            hold(frame, Some(upstream), shared);
            return Ok(false);
        }
        Some(Fault::Delay) => {
            let ms = lock(&shared.rng).random_range(0..DELAY_MAX_MS);
            std::thread::sleep(Duration::from_millis(ms));
        }
        Some(Fault::CutAfter | Fault::CopyLater | Fault::CopyNow | Fault::CopyElsewhere) | None => {}
    }
    if fault == Some(Fault::CopyNow) {
        upstream.expect_copy(&frame, true);
        (&upstream.stream).write_all(&[&frame[..], &frame[..]].concat())?;
    } else {
        (&upstream.stream).write_all(&frame)?;
    }
    match key {
        END_TXN => drop(shared.ends.fetch_add(1, Ordering::AcqRel)),
        PRODUCE => drop(shared.writes.fetch_add(1, Ordering::AcqRel)),
        _ => {}
    }
    match fault {
        Some(Fault::CutAfter) => {
            cut()?;
            return Ok(false);
        }
        Some(Fault::CopyLater) => {
            cut()?;
            hold(frame, Some(upstream), shared);
            return Ok(false);
        }
        Some(Fault::CopyElsewhere) => hold(frame, None, shared),
        Some(Fault::Delay | Fault::CopyNow | Fault::CutBefore | Fault::Hold) | None => {}
    }
    Ok(true)
}

fn choose(key: i16, shared: &Shared) -> Option<Fault> {
    if !shared.on.load(Ordering::Acquire) || !DISTURBED.contains(&key) {
        return None;
    }
    let mut rng = lock(&shared.rng);
    if rng.random_range(0..100) >= DISTURBED_PERCENT {
        return None;
    }
    lock(&shared.counts).disturbed += 1;
    Some(shared.faults[rng.random_range(0..shared.faults.len())])
}

fn hold(frame: Vec<u8>, on: Option<&Arc<Upstream>>, shared: &Shared) {
    let after_ends = shared.ends.load(Ordering::Acquire) + 1;
    // Its own end has gone by already, unless it is held back itself.
    let after_ends = if api_key(&frame) == END_TXN && on.is_none() { after_ends - 1 } else { after_ends };
    let since = Instant::now();
    lock(&shared.late).push(Late { frame, on: on.cloned(), since, after_ends, after_writes: None });
}

/// Delivers what is late and whose client has gone on.
fn release(shared: &Arc<Shared>) {
    let (ends, writes) = (shared.ends.load(Ordering::Acquire), shared.writes.load(Ordering::Acquire));
    let mut due = Vec::new();
    lock(&shared.late).retain_mut(|late| {
        if ends >= late.after_ends && late.after_writes.is_none() {
            late.after_writes = Some(writes);
        }
        let is_due = late.after_writes.is_some_and(|before| writes > before);
        if is_due {
            due.push((std::mem::take(&mut late.frame), late.on.take()));
        }
        !is_due && late.since.elapsed() < LATE_MAX
    });
    for (frame, on) in due {
        if let Err(error) = deliver(&frame, on, shared) {
            say(format_args!("a late request found no way: {error:#}"));
        }
    }
}

fn deliver(frame: &[u8], on: Option<Arc<Upstream>>, shared: &Arc<Shared>) -> Result<()> {
    let upstream = match on {
        Some(upstream) => upstream,
        None => {
            let upstream = connect(shared)?;
            let back = (Arc::clone(&upstream), Arc::clone(shared));
            std::thread::spawn(move || bring_back(&back.0, None, &back.1));
            upstream
        }
    };
    upstream.copy(frame)?;
    lock(&shared.counts).late += 1;
    // Nothing else will come on it; what the broker says is still heard.
    upstream.stream.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Brings answers to the client, each once, and counts those to requests that no client waits for.
fn bring_back(upstream: &Upstream, client: Option<&TcpStream>, shared: &Shared) {
    let mut from = &upstream.stream;
    let mut to = client;
    while let Ok(frame) = read_frame(&mut from) {
        if upstream.answers_copy(&frame) {
            lock(&shared.counts).answered += 1;
        } else if let Some(mut stream) = to
            && stream.write_all(&frame).is_err()
        {
            // It is gone, and what is late may still be answered.
            to = None;
        }
    }
    let unanswered = lock(&upstream.copies).len() as u64;
    lock(&shared.counts).hung_up += unanswered;
    if let Some(client) = client {
        // It may be gone already.
        let _ = client.shutdown(Shutdown::Both);
    }
}
