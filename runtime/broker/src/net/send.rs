//! Puts a response on a socket: bytes by `writev`, ranges of files by `sendfile`, without ever waiting for a disk on
//! the runtime's threads and without copying records.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use pelton_commitlog::storage::File;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::residency::is_resident;
use super::vitals::Vitals;

/// Buffers handed to one `writev`. The kernel takes 1024; each costs a copy of its address here.
const MAX_IOVECS: usize = 256;

/// Bytes handed to one `sendfile`, and looked up or read ahead at once. Measured: from 64 KiB to 1 MiB `sendfile` moves
/// about the same, and a bigger piece lets one connection hold its thread for longer.
const FILE_PIECE: u64 = 1024 * 1024;

/// Bytes of one read when cold pages are brought in.
const READ_AHEAD_CHUNK: usize = 128 * 1024;

/// A range of a file that is sent without passing through this process.
#[derive(Clone)]
pub(crate) struct FileRange {
    pub(crate) file: Arc<dyn File>,
    pub(crate) position: u64,
    pub(crate) len: u64,
}

/// One piece of what goes out.
#[derive(Clone)]
pub(crate) enum Piece {
    Bytes(Bytes),
    File(FileRange),
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(range) => range.len,
        }
    }
}

/// Sends all pieces in order. Cancelling it leaves the stream in the middle of a response.
pub(crate) async fn send(stream: &TcpStream, pieces: Vec<Piece>, vitals: &Vitals) -> io::Result<()> {
    let mut bytes: Vec<Bytes> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(run) if run.is_empty() => {}
            Piece::Bytes(run) => bytes.push(run),
            Piece::File(range) => {
                send_bytes(stream, &mut bytes, true, vitals).await?;
                send_file(stream, range, vitals).await?;
            }
        }
    }
    send_bytes(stream, &mut bytes, false, vitals).await
}

/// Sends the runs of bytes and empties the list. `more` tells the kernel that a file follows, so that a header does not
/// leave as a packet of its own.
async fn send_bytes(
    stream: &TcpStream,
    runs: &mut Vec<Bytes>,
    more: bool,
    vitals: &Vitals,
) -> io::Result<()> {
    let mut first = 0;
    while first < runs.len() {
        let batch = &runs[first..runs.len().min(first + MAX_IOVECS)];
        let slices: Vec<IoSlice<'_>> = batch.iter().map(|run| IoSlice::new(run)).collect();
        let flags = if more { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        let sent = stream.try_io(Interest::WRITABLE, || {
            Ok(rustix::net::sendmsg(stream.as_fd(), &slices, &mut SendAncillaryBuffer::default(), flags)?)
        });
        drop(slices);
        match sent {
            Ok(sent) => {
                vitals.send_moved();
                first += advance(&mut runs[first..], sent);
            }
            Err(error) => blocked(stream, error, vitals).await?,
        }
    }
    runs.clear();
    Ok(())
}

/// Takes `sent` bytes off the front of the runs; how many runs are now empty.
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

async fn send_file(stream: &TcpStream, range: FileRange, vitals: &Vitals) -> io::Result<()> {
    let end = range.position + range.len;
    let mut position = range.position;
    while position < end {
        let len = FILE_PIECE.min(end - position);
        if let Some(fd) = range.file.fd() {
            if !is_resident(fd, position, len) {
                read_ahead(Arc::clone(&range.file), position, len).await?;
            }
        } else {
            // A storage without descriptors (a test's): the bytes go through memory.
            let mut bytes = vec![read_whole(Arc::clone(&range.file), position, len).await?];
            send_bytes(stream, &mut bytes, position + len < end, vitals).await?;
            position += len;
            continue;
        }
        let piece_end = position + len;
        while position < piece_end {
            let sent = stream.try_io(Interest::WRITABLE, || {
                let fd = range.file.fd().ok_or(io::ErrorKind::Unsupported)?;
                let mut from = position;
                let most = usize::try_from(piece_end - position).unwrap_or(usize::MAX);
                Ok(rustix::fs::sendfile(stream.as_fd(), fd, Some(&mut from), most)?)
            });
            match sent {
                // The reader promised that these bytes exist; a file that ends before is not what was promised.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(sent) => {
                    vitals.send_moved();
                    position += sent as u64;
                }
                Err(error) => blocked(stream, error, vitals).await?,
            }
        }
    }
    Ok(())
}

/// Waits until the socket takes bytes again, if that is what the error says.
async fn blocked(stream: &TcpStream, error: io::Error, vitals: &Vitals) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            vitals.send_blocked();
            stream.writable().await
        }
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// Brings a range into the page cache, on a thread that may wait for the disk.
async fn read_ahead(file: Arc<dyn File>, position: u64, len: u64) -> io::Result<()> {
    let read = move || {
        let mut scratch = vec![0; READ_AHEAD_CHUNK];
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(READ_AHEAD_CHUNK).min(READ_AHEAD_CHUNK);
            match file.read_at(&mut scratch[..want], position + done)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n as u64,
            }
        }
        Ok(())
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

async fn read_whole(file: Arc<dyn File>, position: u64, len: u64) -> io::Result<Bytes> {
    let read = move || {
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        pelton_commitlog::storage::read_exact_at(&*file, &mut bytes, position)?;
        Ok(Bytes::from(bytes))
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::BorrowedFd;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

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
    async fn check(pieces: Vec<Piece>, expect: Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reader = tokio::spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let mut got = Vec::new();
            socket.read_to_end(&mut got).await.unwrap();
            got
        });
        let (stream, _) = listener.accept().await.unwrap();
        send(&stream, pieces, &Vitals::new()).await.unwrap();
        drop(stream);
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
            let range = |position: usize, len: usize| {
                Piece::File(FileRange { file: Arc::clone(&file), position: position as u64, len: len as u64 })
            };
            let bytes = |from: usize, len: usize| Piece::Bytes(Bytes::from(pattern(from, len)));
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
        let pieces = vec![Piece::File(FileRange { file, position: 0, len: 6 })];
        let error = send(&stream, pieces, &Vitals::new()).await.unwrap_err();
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
