//! What the machine can do at most: the limits that stand beside pelton's figures.

use crate::Bench;
use crate::stats::{Latencies, mb_per_s};
use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// What direct writes are aligned to.
const ALIGN: usize = 4096;
/// The file that raw writers write into: zero-filled and written again, as a journal is.
const FILE_BYTES: u64 = 256 << 20;

/// A raw writer's figures.
pub(crate) struct Limit {
    pub(crate) mb_per_s: f64,
    pub(crate) latencies: Latencies,
}

pub(crate) fn print_limits(bench: &Bench) -> anyhow::Result<()> {
    for group in [4 << 10, 64 << 10, 1 << 20] {
        let mut limit = journal(bench, group)?;
        let text = limit.latencies.text();
        println!(
            "raw sync: {:>5} KiB a write, O_DIRECT|O_DSYNC: {:>6.0} MB/s  {text}",
            group >> 10,
            limit.mb_per_s
        );
    }
    Ok(())
}

/// Writes groups of `group` bytes with `O_DIRECT|O_DSYNC` into a zero-filled file, one after the other.
pub(crate) fn journal(bench: &Bench, group: usize) -> anyhow::Result<Limit> {
    let path = bench.dir.path().join("raw");
    let file = open_journal(&path)?;
    let block = Aligned::new(group.next_multiple_of(ALIGN));
    let mut latencies = Latencies::default();
    let started = Instant::now();
    let (mut position, mut bytes) = (0, 0_u64);
    while started.elapsed() < bench.time.min(Duration::from_secs(3)) {
        let begin = Instant::now();
        write_all_at(&file, block.bytes(), position)?;
        latencies.add(begin.elapsed());
        bytes += block.bytes().len() as u64;
        position += block.bytes().len() as u64;
        if position + block.bytes().len() as u64 > FILE_BYTES {
            position = 0;
        }
    }
    let mb_per_s = mb_per_s(bytes, started.elapsed());
    drop(file);
    std::fs::remove_file(path)?;
    Ok(Limit { mb_per_s, latencies })
}

fn open_journal(path: &Path) -> anyhow::Result<OwnedFd> {
    let mut file = std::fs::File::create(path)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::DSYNC;
    rustix::fs::open(path, flags, Mode::empty()).context("open for direct writes")
}

fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut position: u64) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        let n = rustix::io::pwrite(file.as_fd(), bytes, position)?;
        bytes = &bytes[n..];
        position += n as u64;
    }
    Ok(())
}

/// Memory that a direct write takes.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let memory = vec![0xa5; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Aligned { memory, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// A server that does the least a durable broker can: reads frames, checks the batch's CRC, writes and syncs what came
/// together, answers. It runs in this process; its processor time is that of its own threads.
pub(crate) struct Sink {
    pub(crate) address: String,
    cpu_ns: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// A request that waits for its sync.
struct Pending {
    bytes: Vec<u8>,
    done: mpsc::SyncSender<()>,
}

impl Sink {
    pub(crate) fn start(bench: &Bench) -> anyhow::Result<Sink> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let (cpu_ns, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let path = bench.dir.path().join("sink");
        let file = open_journal(&path)?;
        let (queue, groups) = mpsc::sync_channel::<Pending>(1024);
        let counter = Arc::clone(&cpu_ns);
        std::thread::spawn(move || sync_groups(&file, &groups, &counter));
        let (counter, ended) = (Arc::clone(&cpu_ns), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (queue, counter) = (queue.clone(), Arc::clone(&counter));
                if let Ok(stream) = stream {
                    std::thread::spawn(move || serve(stream, &queue, &counter));
                }
            }
        });
        Ok(Sink { address, cpu_ns, stop })
    }

    pub(crate) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept loop; if it is gone already there is nobody to wake.
        drop(TcpStream::connect(&self.address));
    }
}

/// Adds what this thread has used since the last call.
fn count_cpu(counter: &AtomicU64, last: &mut Duration) {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let now = Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0));
    counter.fetch_add(u64::try_from(now.saturating_sub(*last).as_nanos()).unwrap_or(0), Ordering::Relaxed);
    *last = now;
}

fn sync_groups(file: &OwnedFd, groups: &mpsc::Receiver<Pending>, counter: &AtomicU64) {
    const GROUP_BYTES: usize = 1 << 20;
    let mut block = Aligned::new(GROUP_BYTES + (1 << 20));
    let (mut position, mut last) = (0, Duration::ZERO);
    while let Ok(first) = groups.recv() {
        let mut waiting = vec![first];
        let mut bytes = waiting[0].bytes.len();
        while bytes < GROUP_BYTES
            && let Ok(more) = groups.try_recv()
        {
            bytes += more.bytes.len();
            waiting.push(more);
        }
        let mut at = 0;
        for pending in &waiting {
            block.bytes_mut()[at..at + pending.bytes.len()].copy_from_slice(&pending.bytes);
            at += pending.bytes.len();
        }
        let padded = at.next_multiple_of(ALIGN);
        if position + padded as u64 > FILE_BYTES {
            position = 0;
        }
        if write_all_at(file, &block.bytes()[..padded], position).is_err() {
            return;
        }
        position += padded as u64;
        for pending in waiting {
            // A client that went away needs no answer.
            let _ = pending.done.send(());
        }
        count_cpu(counter, &mut last);
    }
}

fn serve(mut stream: TcpStream, queue: &mpsc::SyncSender<Pending>, counter: &AtomicU64) {
    // The answer is the smallest that the load generator accepts for a Produce: it looks into every 256th.
    let mut last = Duration::ZERO;
    let Ok(mut out) = stream.try_clone() else { return };
    let (answers, waiting) = mpsc::sync_channel::<(mpsc::Receiver<()>, [u8; 4])>(64);
    let writer_counter = &AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut last = Duration::ZERO;
            while let Ok((done, correlation)) = waiting.recv() {
                if done.recv().is_err() || out.write_all(&answer(correlation)).is_err() {
                    return;
                }
                count_cpu(writer_counter, &mut last);
            }
        });
        let mut prefix = [0; 4];
        while stream.read_exact(&mut prefix).is_ok() {
            let Ok(length) = usize::try_from(i32::from_be_bytes(prefix)) else { return };
            let mut bytes = vec![0; length];
            if stream.read_exact(&mut bytes).is_err() {
                return;
            }
            let correlation = [bytes[4], bytes[5], bytes[6], bytes[7]];
            // The batch is the tail of the frame, but for three empty tag sections.
            let tail = bytes.len() - 3;
            if let Some(start) = find_batch(&bytes[..tail])
                && pelton_wire::record::BatchView::check(&bytes[start..tail]).is_err()
            {
                return;
            }
            let (done, receiver) = mpsc::sync_channel(1);
            if queue.send(Pending { bytes, done }).is_err() || answers.send((receiver, correlation)).is_err()
            {
                return;
            }
            count_cpu(counter, &mut last);
        }
        drop(answers);
    });
    counter.fetch_add(writer_counter.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Where the only batch of a Produce frame of the load generator starts: its length field reaches to the end.
fn find_batch(frame: &[u8]) -> Option<usize> {
    const SEARCH_BYTES: usize = 128;
    (0..SEARCH_BYTES.min(frame.len())).find(|start| {
        let header = pelton_wire::record::BatchHeader::parse(&frame[*start..]);
        header.is_ok_and(|header| header.total_len() == frame.len() - start)
    })
}

/// A Produce v9 response without topics.
fn answer(correlation: [u8; 4]) -> [u8; 15] {
    let mut bytes = [0; 15];
    bytes[3] = 11;
    bytes[4..8].copy_from_slice(&correlation);
    // Header tags, an empty compact array of topics (1), throttle time, tags.
    bytes[9] = 1;
    bytes
}
