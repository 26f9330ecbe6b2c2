//! Takes requests off a socket: a 32-bit length, then that many bytes. A length is a claim: it is checked against the
//! limit, and the memory for it is asked from the broker's budget, before anything is allocated.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::vitals::Vitals;

/// Room made for a read when nothing is known of what comes. Small requests share one allocation of this size.
const READ_CHUNK: usize = 16 * 1024;
/// Most room made for a request like the last one before its length is known, in bytes.
const EXPECTED_MAX: usize = 64 * 1024;

const LENGTH_BYTES: usize = 4;

/// Why no more requests come from a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("a request of {len} bytes is larger than `socket.request.max.bytes` ({max})")]
    TooLarge { len: u32, max: u32 },
    #[error("a request has the length {0}")]
    BadLength(i32),
    #[error("the connection ended inside a request")]
    Truncated,
    #[error("the broker is stopping")]
    Stopping,
}

/// One request, and its share of the broker's memory for requests.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) share: OwnedSemaphorePermit,
}

/// The reading half of a connection.
pub(crate) struct FrameReader<'a> {
    stream: &'a TcpStream,
    vitals: &'a Vitals,
    budget: Arc<Semaphore>,
    max_frame: u32,
    buffer: BytesMut,
    /// Room for the next read of a length. A client that sends large requests sends them in one size: exactly that much
    /// room gives each an allocation of its own, filled by one read and copied by nobody.
    expected: usize,
}

impl<'a> FrameReader<'a> {
    pub(crate) fn new(
        stream: &'a TcpStream,
        vitals: &'a Vitals,
        budget: Arc<Semaphore>,
        max_frame: u32,
    ) -> Self {
        FrameReader { stream, vitals, budget, max_frame, buffer: BytesMut::new(), expected: READ_CHUNK }
    }

    /// The next request; `None` when the client has closed its side between two requests. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        let Some(len) = self.length().await? else { return Ok(None) };
        let share = self.share(len).await?;
        let whole = LENGTH_BYTES + len as usize;
        self.make_room(whole);
        while self.buffer.len() < whole {
            if self.fill(whole - self.buffer.len()).await? == 0 {
                return Err(ReadError::Truncated);
            }
        }
        self.expected = if whole > READ_CHUNK / 2 { whole.min(EXPECTED_MAX) } else { READ_CHUNK };
        // A part that is split off shares its allocation; what is all of it need not.
        let mut bytes = match self.buffer.len() == whole {
            true => std::mem::take(&mut self.buffer).freeze(),
            false => self.buffer.split_to(whole).freeze(),
        };
        self.vitals.request_whole();
        Ok(Some(Frame { bytes: bytes.split_off(LENGTH_BYTES), share }))
    }

    /// Room for a request of `whole` bytes, and no more where that needs an allocation.
    fn make_room(&mut self, whole: usize) {
        if self.buffer.capacity() < whole {
            let mut exact = BytesMut::with_capacity(whole);
            exact.extend_from_slice(&self.buffer);
            self.buffer = exact;
        }
    }

    /// The length of the next request, which stays in the buffer.
    async fn length(&mut self) -> Result<Option<u32>, ReadError> {
        while self.buffer.len() < LENGTH_BYTES {
            self.make_room(self.expected);
            if self.fill(self.buffer.capacity() - self.buffer.len()).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
        self.vitals.request_begun();
        let mut prefix = [0; LENGTH_BYTES];
        prefix.copy_from_slice(&self.buffer[..LENGTH_BYTES]);
        let len = i32::from_be_bytes(prefix);
        match u32::try_from(len) {
            Ok(0) | Err(_) => Err(ReadError::BadLength(len)),
            Ok(len) if len > self.max_frame => Err(ReadError::TooLarge { len, max: self.max_frame }),
            Ok(len) => Ok(Some(len)),
        }
    }

    /// Waits for memory for a request of `len` bytes.
    async fn share(&self, len: u32) -> Result<OwnedSemaphorePermit, ReadError> {
        let budget = Arc::clone(&self.budget);
        match Arc::clone(&budget).try_acquire_many_owned(len) {
            Ok(share) => Ok(share),
            // Closed only when the broker stops.
            Err(_) => budget.acquire_many_owned(len).await.map_err(|_| ReadError::Stopping),
        }
    }

    /// Reads what is there, at most `room` bytes, waiting for something; 0 at the end of the stream.
    async fn fill(&mut self, room: usize) -> Result<usize, ReadError> {
        loop {
            match self.stream.try_read_buf(&mut (&mut self.buffer).limit(room)) {
                Ok(n) => {
                    if n > 0 {
                        self.vitals.request_begun();
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.readable().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// What a reader with a limit of 100 bytes makes of these bytes, sent in pieces of `piece` bytes.
    async fn read(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let bytes = bytes.to_vec();
        let sender = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let vitals = Vitals::new();
        let budget = Arc::new(Semaphore::new(1000));
        let mut reader = FrameReader::new(&stream, &vitals, Arc::clone(&budget), 100);
        let mut frames = Vec::new();
        let error = loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame.bytes.to_vec()),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        sender.await.unwrap();
        assert_eq!(budget.available_permits(), 1000, "every share came back");
        (frames, error)
    }

    #[tokio::test]
    async fn frames_in_any_pieces() {
        let stream =
            b"\0\0\0\x01a\0\0\0\x03bcd\0\0\0\x64".iter().copied().chain([7; 100]).collect::<Vec<_>>();
        for piece in [1, 3, 5, 1000] {
            let (frames, error) = read(&stream, piece).await;
            assert_eq!(error, None);
            assert_eq!(frames, [b"a".to_vec(), b"bcd".to_vec(), vec![7; 100]], "pieces of {piece}");
        }
    }

    /// The log writes its offset into the bytes that came, if nobody else holds them.
    #[tokio::test]
    async fn large_requests_have_allocations_of_their_own() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut sent = Vec::new();
        for len in [20_000_u32, 20_000, 20_000, 9_000, 9_000, 70_000] {
            sent.extend(len.to_be_bytes());
            sent.extend(vec![7; len as usize]);
        }
        let writing = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client
        });
        let vitals = Vitals::new();
        let mut reader = FrameReader::new(&stream, &vitals, Arc::new(Semaphore::new(1 << 20)), 1 << 20);
        for (len, alone) in
            [(20_000, true), (20_000, true), (20_000, true), (9_000, false), (9_000, false), (70_000, true)]
        {
            let frame = reader.next().await.unwrap().unwrap();
            assert_eq!((frame.bytes.len(), frame.bytes.is_unique() || !alone), (len, true));
        }
        drop(writing.await.unwrap());
    }

    #[tokio::test]
    async fn hostile_lengths_end_the_connection() {
        let check = async |bytes: &[u8], expect: &str| {
            let (frames, error) = read(bytes, 1000).await;
            assert!(frames.is_empty());
            assert!(error.as_deref().is_some_and(|text| text.contains(expect)), "{bytes:?}: {error:?}");
        };
        check(b"\x7f\xff\xff\xff", "2147483647 bytes is larger than `socket.request.max.bytes` (100)").await;
        check(b"\0\0\0\x65", "101 bytes is larger").await;
        check(b"\xff\xff\xff\xff", "length -1").await;
        check(b"\0\0\0\0", "length 0").await;
        check(b"\0\0\0", "inside a request").await;
        check(b"\0\0\0\x04abc", "inside a request").await;
    }

    #[tokio::test]
    async fn a_body_waits_for_its_share_of_memory() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(b"\0\0\0\x06abcdef\0\0\0\x06ghijkl").await.unwrap();
        let vitals = Vitals::new();
        let mut reader = FrameReader::new(&stream, &vitals, Arc::new(Semaphore::new(10)), 100);
        let first = reader.next().await.unwrap().unwrap();
        let mut second = Box::pin(reader.next());
        let early =
            std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_ready())).await;
        assert!(!early, "12 bytes do not fit into 10");
        drop(first);
        assert_eq!(&second.await.unwrap().unwrap().bytes[..], b"ghijkl");
    }
}
