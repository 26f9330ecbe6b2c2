//! Reads requests from a socket: a 32-bit length, then that many bytes. The length is checked against the limit, and
//! memory is charged and allocated as the bytes arrive, not when they are announced.

use std::io;
use std::sync::Arc;

use super::request_memory::{RequestMemory, SMALL_REQUEST, Share};
use super::transport::Transport;
use super::vitals::Vitals;
use bytes::{BufMut, Bytes, BytesMut};

/// Buffer for a read while the next length is unknown. Small requests share one allocation of this size.
const READ_CHUNK: usize = SMALL_REQUEST;
/// Most bytes allocated for a request of the last one's size before its length is known.
const EXPECTED_MAX: usize = 64 * 1024;
/// Most bytes allocated at once for a request whose length is known. Only pages that are written to take memory.
const KNOWN_MAX: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Why reading from a connection ended.
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
}

/// One request with its share of the request memory, which suffices to decode it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) share: Share,
}

/// The reading half of a connection.
pub(crate) struct FrameReader<'a> {
    transport: &'a Transport,
    vitals: &'a Vitals,
    memory: Arc<RequestMemory>,
    max_frame: u32,
    buffer: BytesMut,
    /// Bytes to allocate before the next length is read. Clients send large requests in one size: an allocation of
    /// exactly that size is filled by one read and never copied.
    expected: usize,
    /// Bytes of the last request.
    last: usize,
}

impl<'a> FrameReader<'a> {
    pub(crate) fn new(
        transport: &'a Transport,
        vitals: &'a Vitals,
        memory: Arc<RequestMemory>,
        max_frame: u32,
    ) -> Self {
        let (buffer, expected) = (BytesMut::new(), READ_CHUNK);
        FrameReader { transport, vitals, memory, max_frame, buffer, expected, last: 0 }
    }

    /// Reads the next request; `None` if the client closed its side between two requests. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        let Some(len) = self.length().await? else { return Ok(None) };
        let whole = LENGTH_BYTES + len as usize;
        let mut share = self.memory.nothing();
        while self.buffer.len() < whole {
            let arrived = self.buffer.len();
            let room = share.for_more(arrived, whole, self.vitals).await;
            // Doubling copies each byte once on average.
            self.make_room(room.max(2 * arrived).max(self.last.min(KNOWN_MAX)).min(whole));
            if self.fill(room - arrived).await? == 0 {
                return Err(ReadError::Truncated);
            }
        }
        share.for_decoding(len as usize, self.vitals).await;
        self.last = whole;
        self.expected = if whole > READ_CHUNK / 2 { whole.min(EXPECTED_MAX) } else { READ_CHUNK };
        // A split-off part shares the allocation; a request that fills all of it need not.
        let mut bytes = match self.buffer.len() == whole {
            true => std::mem::take(&mut self.buffer).freeze(),
            false => self.buffer.split_to(whole).freeze(),
        };
        self.vitals.request_whole();
        Ok(Some(Frame { bytes: bytes.split_off(LENGTH_BYTES), share }))
    }

    /// Makes room for `bytes` of a request, exactly if that takes an allocation.
    fn make_room(&mut self, bytes: usize) {
        if self.buffer.capacity() < bytes {
            let mut exact = BytesMut::with_capacity(bytes);
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

    /// Reads at least one and at most `room` bytes; 0 at the end of the stream.
    async fn fill(&mut self, room: usize) -> Result<usize, ReadError> {
        loop {
            match self.transport.try_read(&mut (&mut self.buffer).limit(room)) {
                Ok(n) => {
                    if n > 0 {
                        self.vitals.request_begun();
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.transport.readable().await?,
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
    use tokio::net::{TcpListener, TcpStream};

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
        let memory = RequestMemory::new(1 << 20);
        let transport = Transport::Plain(stream);
        let mut reader = FrameReader::new(&transport, &vitals, Arc::clone(&memory), 100);
        let mut frames = Vec::new();
        let error = loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame.bytes.to_vec()),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        sender.await.unwrap();
        assert_eq!(memory.in_use(), 0, "every share came back");
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
        let transport = Transport::Plain(stream);
        let mut reader = FrameReader::new(&transport, &vitals, RequestMemory::new(16 << 20), 1 << 20);
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

    /// Two requests of 900 KiB and what they may decode to do not fit at once; nor are they read in one piece.
    #[tokio::test]
    async fn a_request_waits_for_its_share_of_memory() {
        const LEN: usize = 900 * 1024;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let request = [&(LEN as u32).to_be_bytes()[..], &[7; LEN]].concat();
        let writing = tokio::spawn(async move {
            client.write_all(&request).await.unwrap();
            client.write_all(&request).await.unwrap();
            client
        });
        let vitals = Vitals::new();
        let transport = Transport::Plain(stream);
        let mut reader = FrameReader::new(&transport, &vitals, RequestMemory::new(2 << 20), 1 << 20);
        let first = reader.next().await.unwrap().unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), reader.next()).await;
        assert!(early.is_err(), "the first has what there is");
        drop(first);
        assert!(reader.next().await.unwrap().unwrap().bytes == [7; LEN][..]);
        drop(writing.await.unwrap());
    }
}
