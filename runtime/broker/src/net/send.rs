//! Puts a response on a socket: bytes by `writev`, ranges of files by `sendfile`, without ever waiting for a disk on
//! the runtime's threads and without copying records.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use pelton_commitlog::Slice;
use pelton_commitlog::storage::{File, ahead_of, read_exact_at};

use super::residency::{is_resident, reads_without_waiting};
use super::transport::Transport;
use super::vitals::Vitals;

/// Buffers handed to one `writev`. The kernel takes 1024; each costs a copy of its address here.
const MAX_IOVECS: usize = 256;

/// Bytes handed to one `sendfile`, and looked up or read ahead at once. Measured: from 64 KiB to 1 MiB `sendfile` moves
/// about the same, and a bigger piece lets one connection hold its thread for longer.
const FILE_PIECE: u64 = 1024 * 1024;

/// A consumer that takes less than this at once is not read ahead for: the kernel reads ahead as much by itself.
const AHEAD_FROM: u64 = 128 * 1024;

/// Bytes of a response that are looked up, and brought in, before the first of them is sent.
const COLD_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of one read when cold pages are brought in.
const READ_AHEAD_CHUNK: usize = 128 * 1024;

/// Runs in memory below this size are copied together: a system call with a thousand pieces of 100 bytes costs more
/// than the copy.
const COPY_BELOW: usize = 4 * 1024;

/// Sends all slices in order. A cancelled send leaves the stream in the middle of a response.
pub(crate) async fn send(transport: &Transport, slices: Vec<Slice>, vitals: &Vitals) -> io::Result<()> {
    let mut runs = Runs::default();
    let mut slices = VecDeque::from(slices);
    // So many bytes of the next files were looked at, and brought in.
    let mut known = 0;
    while let Some(slice) = slices.pop_front() {
        match slice {
            Slice::Memory(run) => runs.push(run),
            Slice::File { ref file, position, len } => {
                send_bytes(transport, runs.take(), true, vitals).await?;
                if known == 0 && transport.can_sendfile() {
                    let (cold, looked) = cold_pieces(std::iter::once(&slice).chain(&slices));
                    known = looked;
                    if !cold.is_empty() {
                        bring_in(cold).await?;
                    }
                }
                known = send_file(transport, Arc::clone(file), position, len, known, vitals).await?;
            }
        }
    }
    send_bytes(transport, runs.take(), false, vitals).await
}

/// A range of a file.
struct Piece {
    file: Arc<dyn File>,
    position: u64,
    len: u64,
}

/// What is not in the page cache of the next [`COLD_BYTES`] of files, and how many of these there are. A response of many partitions has
/// many small pieces: brought in one by one each would cost two hops between threads.
fn cold_pieces<'s>(slices: impl Iterator<Item = &'s Slice>) -> (Vec<Piece>, u64) {
    let (mut cold, mut left) = (Vec::new(), COLD_BYTES);
    for slice in slices {
        if left == 0 {
            break;
        }
        let Slice::File { file, position, len } = slice else { continue };
        let len = left.min(*len);
        left -= len;
        if file.fd().is_some_and(|fd| !is_resident(fd, *position, len)) {
            cold.push(Piece { file: Arc::clone(file), position: *position, len });
        }
    }
    (cold, COLD_BYTES - left)
}

/// Collects runs of bytes, small ones that follow each other as one.
#[derive(Default)]
struct Runs {
    whole: Vec<Bytes>,
    small: Vec<Bytes>,
    small_bytes: usize,
}

impl Runs {
    fn push(&mut self, run: Bytes) {
        if run.len() < COPY_BELOW {
            self.small_bytes += run.len();
            self.small.push(run);
        } else {
            self.join_small();
            self.whole.push(run);
        }
    }

    fn join_small(&mut self) {
        match &mut self.small[..] {
            [] => {}
            [one] => self.whole.push(std::mem::take(one)),
            many => {
                let mut joined = BytesMut::with_capacity(self.small_bytes);
                many.iter().for_each(|run| joined.extend_from_slice(run));
                self.whole.push(joined.freeze());
            }
        }
        self.small.clear();
        self.small_bytes = 0;
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.join_small();
        std::mem::take(&mut self.whole)
    }
}

/// Sends the runs of bytes. `more` tells the kernel that a file follows.
async fn send_bytes(
    transport: &Transport,
    mut runs: Vec<Bytes>,
    more: bool,
    vitals: &Vitals,
) -> io::Result<()> {
    let mut first = 0;
    while first < runs.len() {
        let batch = &runs[first..runs.len().min(first + MAX_IOVECS)];
        let slices: Vec<IoSlice<'_>> = batch.iter().map(|run| IoSlice::new(run)).collect();
        let sent = transport.try_write(&slices, more);
        drop(slices);
        match sent {
            Ok(sent) => {
                vitals.send_moved();
                first += advance(&mut runs[first..], sent);
            }
            Err(error) => blocked(transport, error, vitals).await?,
        }
    }
    Ok(())
}

/// Takes `sent` bytes off the front of the runs; returns how many runs are now empty.
fn advance(runs: &mut [Bytes], mut sent: usize) -> usize {
    let mut finished = 0;
    for run in runs {
        if sent < run.len() {
            run.advance(sent);
            break;
        }
        sent -= run.len();
        finished += 1;
    }
    finished
}

/// Sends a range of a file, by `sendfile` if the transport can. `known` bytes from its start on are in the page cache; how many
/// behind it are.
async fn send_file(
    transport: &Transport,
    file: Arc<dyn File>,
    mut position: u64,
    len: u64,
    mut known: u64,
    vitals: &Vitals,
) -> io::Result<u64> {
    let end = position + len;
    while position < end {
        let len = FILE_PIECE.min(end - position);
        match file.fd().filter(|_| transport.can_sendfile()) {
            Some(fd) => {
                if known < len && !is_resident(fd, position, len) {
                    bring_in(vec![Piece { file: Arc::clone(&file), position, len }]).await?;
                } else if len >= AHEAD_FROM && !is_ahead(fd, position + len, len) {
                    let (file, end) = (Arc::clone(&file), position + len);
                    tokio::task::spawn_blocking(move || file.will_need(end, ahead_of(len)));
                }
                let has_waited = send_piece(transport, fd, position, len, vitals).await?;
                // While a consumer is waited for, pages may go.
                known = if has_waited { 0 } else { known.saturating_sub(len) };
            }
            None => {
                let bytes = read_whole(Arc::clone(&file), position, len).await?;
                send_bytes(transport, vec![bytes], position + len < end, vitals).await?;
            }
        }
        position += len;
    }
    Ok(known)
}

/// Whether the socket had to be waited for.
async fn send_piece(
    transport: &Transport,
    file: BorrowedFd<'_>,
    mut position: u64,
    len: u64,
    vitals: &Vitals,
) -> io::Result<bool> {
    let (end, mut has_waited) = (position + len, false);
    while position < end {
        let most = usize::try_from(end - position).unwrap_or(usize::MAX);
        match transport.try_sendfile(file, position, most) {
            // The log reader said that these bytes exist.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => {
                vitals.send_moved();
                position += sent as u64;
            }
            Err(error) => {
                blocked(transport, error, vitals).await?;
                has_waited = true;
            }
        }
    }
    Ok(has_waited)
}

/// Waits until the socket takes bytes again if the error is `WouldBlock`.
async fn blocked(transport: &Transport, error: io::Error, vitals: &Vitals) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            vitals.send_blocked();
            transport.writable().await
        }
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// Whether what a consumer reads next, behind a piece of `len` bytes, is on its way already. Past the end of the file it is.
fn is_ahead(file: BorrowedFd<'_>, end: u64, len: u64) -> bool {
    reads_without_waiting(file, end + ahead_of(len) / 2, 1)
}

/// Brings ranges into the page cache, on a thread that may wait for the disk, and has the disk go on behind long ones: whoever
/// reads what is cold reads on.
async fn bring_in(pieces: Vec<Piece>) -> io::Result<()> {
    let read = move || {
        for Piece { file, position, len } in &pieces {
            file.will_need(*position, *len);
            if *len >= AHEAD_FROM {
                file.will_need(position + len, ahead_of(*len));
            }
        }
        pieces.iter().try_for_each(wait_for)
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

/// Waits until a piece that was asked for is there.
fn wait_for(Piece { file, position, len }: &Piece) -> io::Result<()> {
    let (position, len) = (*position, *len);
    // The disk reads in pieces that are larger than a chunk: the last byte of each says that the chunk is there, at less than
    // the cost of a copy.
    let mut last = [0];
    for chunk in (0..len).step_by(READ_AHEAD_CHUNK) {
        let end = len.min(chunk + READ_AHEAD_CHUNK as u64);
        read_exact_at(&**file, &mut last, position + end - 1)?;
    }
    if file.fd().is_some_and(|fd| is_resident(fd, position, len)) {
        return Ok(());
    }
    // A file system that takes no advice, or a machine that is short of memory.
    let mut scratch = vec![0; READ_AHEAD_CHUNK];
    for chunk in (0..len).step_by(READ_AHEAD_CHUNK) {
        let want = READ_AHEAD_CHUNK.min(usize::try_from(len - chunk).unwrap_or(READ_AHEAD_CHUNK));
        read_exact_at(&**file, &mut scratch[..want], position + chunk)?;
    }
    Ok(())
}

async fn read_whole(file: Arc<dyn File>, position: u64, len: u64) -> io::Result<Bytes> {
    let read = move || {
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        read_exact_at(&*file, &mut bytes, position)?;
        Ok(Bytes::from(bytes))
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    /// A file on disk, or one without a descriptor.
    struct TestFile(std::fs::File, bool);

    impl File for TestFile {
        fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
            std::os::unix::fs::FileExt::read_at(&self.0, buf, position)
        }
        fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
            std::os::unix::fs::FileExt::write_all_at(&self.0, buf, position)
        }
        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
        fn write_back(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.metadata()?.len())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn fd(&self) -> Option<BorrowedFd<'_>> {
            self.1.then(|| self.0.as_fd())
        }
    }

    fn pattern(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|i| (i * 31 / 7) as u8).collect()
    }

    /// Sends `pieces` to a reader that takes its time, and compares what arrived.
    async fn check(pieces: Vec<Slice>, expect: Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reader = tokio::spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let mut got = Vec::new();
            socket.read_to_end(&mut got).await.unwrap();
            got
        });
        let (stream, _) = listener.accept().await.unwrap();
        send(&Transport::Plain(stream), pieces, &Vitals::new()).await.unwrap();
        let got = reader.await.unwrap();
        assert_eq!(got.len(), expect.len());
        assert!(got == expect, "the bytes differ");
    }

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order() {
        let content = pattern(0, 5 << 20);
        for has_fd in [true, false] {
            let file: Arc<dyn File> = Arc::new(TestFile(tempfile::tempfile().unwrap(), has_fd));
            file.write_all_at(&content, 0).unwrap();
            let range = |position: usize, len: usize| Slice::File {
                file: Arc::clone(&file),
                position: position as u64,
                len: len as u64,
            };
            let bytes = |from: usize, len: usize| Slice::Memory(Bytes::from(pattern(from, len)));
            let mut pieces =
                vec![bytes(0, 10), range(3, 3 << 20), bytes(0, 0), bytes(5, 700_000), range(0, 1)];
            pieces.extend((0..200).map(|i| bytes(i, 3)));
            let mut expect = pattern(0, 10);
            expect.extend(&content[3..3 + (3 << 20)]);
            expect.extend(pattern(5, 700_000));
            expect.push(content[0]);
            (0..200).for_each(|i| expect.extend(pattern(i, 3)));
            check(pieces, expect).await;
        }
    }

    #[tokio::test]
    async fn a_file_shorter_than_promised_is_an_error() {
        let file: Arc<dyn File> = Arc::new(TestFile(tempfile::tempfile().unwrap(), true));
        file.write_all_at(b"short", 0).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let pieces = vec![Slice::File { file, position: 0, len: 6 }];
        let error = send(&Transport::Plain(stream), pieces, &Vitals::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn advancing_over_runs() {
        let check = |sent: usize, finished: usize, rest: &[u8]| {
            let mut runs = [Bytes::from_static(b"ab"), Bytes::from_static(b"cde")];
            assert_eq!(advance(&mut runs, sent), finished);
            assert_eq!(runs.get(finished).map(|run| &run[..]).unwrap_or_default(), rest, "{sent}");
        };
        check(0, 0, b"ab");
        check(1, 0, b"b");
        check(2, 1, b"cde");
        check(4, 1, b"e");
        check(5, 2, b"");
    }
}
