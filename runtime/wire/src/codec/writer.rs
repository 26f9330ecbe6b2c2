//! Writing the fields of a frame, which comes out in pieces.

use bytes::{BufMut, Bytes, BytesMut};

use super::{EncodeError, I32_MAX};

/// Byte fields of at least this many bytes become pieces of their own instead of being copied: below it, copying costs
/// less than another entry in a vectored write.
pub const SPLICE_MIN: usize = 4 * 1024;

/// Part of an encoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// Bytes that the codec has not seen: the caller that built the message finds them by `id`.
    External {
        /// As given in [`Records::External`].
        id: u32,
        /// Length in bytes.
        len: u32,
    },
}

impl Piece {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len as usize,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Records of a Fetch response: in memory, or elsewhere (in a segment file) with a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// These bytes.
    Bytes(Bytes),
    /// `len` bytes that come out of [`Writer::finish`] as [`Piece::External`] with the same `id`.
    External {
        /// Chosen by the caller.
        id: u32,
        /// Length in bytes.
        len: u32,
    },
}

impl Default for Records {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Records {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::External { len, .. } => *len as usize,
        }
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::External { .. } => None,
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

/// Writes one frame (or one message) from front to back.
///
/// Small fields are collected in one buffer. Large byte fields and external records are never copied: they go between
/// parts of that buffer when the frame is finished.
#[derive(Debug, Default)]
pub struct Writer {
    buf: BytesMut,
    /// What goes between the parts of `buf`, with the position in `buf`, in rising order.
    splices: Vec<(usize, Piece)>,
    spliced: usize,
    framed: bool,
}

impl Writer {
    /// A writer of bare bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer of a frame: [`finish`](Self::finish) puts the 32-bit length in front.
    pub fn framed() -> Self {
        let mut writer = Self { framed: true, ..Self::default() };
        writer.buf.reserve(256);
        writer.i32(0);
        writer
    }

    /// Bytes written so far, with external ones and the length prefix.
    pub fn len(&self) -> usize {
        self.buf.len() + self.spliced
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes one byte.
    pub fn i8(&mut self, value: i8) {
        self.buf.put_i8(value);
    }

    /// Writes two bytes, big-endian.
    pub fn i16(&mut self, value: i16) {
        self.buf.put_i16(value);
    }

    /// Writes two bytes without a sign, big-endian.
    pub fn u16(&mut self, value: u16) {
        self.buf.put_u16(value);
    }

    /// Writes four bytes, big-endian.
    pub fn i32(&mut self, value: i32) {
        self.buf.put_i32(value);
    }

    /// Writes eight bytes, big-endian.
    pub fn i64(&mut self, value: i64) {
        self.buf.put_i64(value);
    }

    /// Writes an unsigned variable-length integer.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    /// Copies bytes in, without a length.
    pub fn put(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    /// Adds bytes without a length. Those of at least [`SPLICE_MIN`] are not copied.
    pub fn splice(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_MIN {
            self.put(bytes);
        } else {
            self.push(Piece::Bytes(bytes.clone()));
        }
    }

    /// Adds external records, without a length.
    pub fn external(&mut self, id: u32, len: u32) {
        self.push(Piece::External { id, len });
    }

    fn push(&mut self, piece: Piece) {
        self.spliced += piece.len();
        self.splices.push((self.buf.len(), piece));
    }

    /// A length or count of a compact type; `None` stands for null.
    pub(super) fn compact_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        match len {
            None => self.uvarint(0),
            Some(len) if len < I32_MAX => self.uvarint(len as u32 + 1),
            Some(len) => return Err(EncodeError::too_long(len, I32_MAX - 1)),
        }
        Ok(())
    }

    /// A 32-bit length or count; `None` stands for null.
    pub(super) fn len_i32(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        match len {
            None => self.i32(-1),
            Some(len) => self.i32(i32::try_from(len).map_err(|_| EncodeError::too_long(len, I32_MAX))?),
        }
        Ok(())
    }

    /// A 16-bit length; `None` stands for null.
    pub(super) fn len_i16(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        const MAX: usize = i16::MAX as usize;
        match len {
            None => self.i16(-1),
            Some(len) => self.i16(i16::try_from(len).map_err(|_| EncodeError::too_long(len, MAX))?),
        }
        Ok(())
    }

    /// Writes a tagged field: tag, size, and what `content` writes.
    ///
    /// # Errors
    /// Those of `content`; [`EncodeError::TooLong`] when it is longer than a size can say.
    pub fn tagged_field(
        &mut self,
        tag: u32,
        content: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.uvarint(tag);
        let (buf_start, splice_start, start) = (self.buf.len(), self.splices.len(), self.len());
        content(self)?;
        let size = self.len() - start;
        // The size stands before the content, but is known after it and has no fixed width: write it behind the
        // content, then rotate it to the front. Tagged fields are small.
        let buf_end = self.buf.len();
        self.uvarint(u32::try_from(size).map_err(|_| EncodeError::too_long(size, I32_MAX))?);
        let width = self.buf.len() - buf_end;
        self.buf[buf_start..].rotate_right(width);
        for (at, _) in &mut self.splices[splice_start..] {
            *at += width;
        }
        Ok(())
    }

    /// The finished frame in pieces, in order, none of them empty.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when the frame is longer than its length prefix can say.
    pub fn finish(mut self) -> Result<Vec<Piece>, EncodeError> {
        const PREFIX: usize = 4;
        if self.framed {
            let body = self.len() - PREFIX;
            let body = i32::try_from(body)
                .map_err(|_| EncodeError::too_long(body, I32_MAX).at("frame", "length"))?;
            self.buf[..PREFIX].copy_from_slice(&body.to_be_bytes());
        }
        let buf = self.buf.freeze();
        let mut pieces = Vec::with_capacity(2 * self.splices.len() + 1);
        let mut done = 0;
        for (at, piece) in self.splices {
            if at > done {
                pieces.push(Piece::Bytes(buf.slice(done..at)));
                done = at;
            }
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        if buf.len() > done {
            pieces.push(Piece::Bytes(buf.slice(done..)));
        }
        Ok(pieces)
    }

    /// The finished frame as one run of bytes.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), and [`EncodeError::ExternalRecords`] when the message has some.
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        let len = self.len();
        let mut pieces = self.finish()?;
        if let [Piece::Bytes(bytes)] = &mut pieces[..] {
            return Ok(std::mem::take(bytes));
        }
        let mut whole = BytesMut::with_capacity(len);
        for piece in pieces {
            match piece {
                Piece::Bytes(bytes) => whole.put_slice(&bytes),
                Piece::External { .. } => return Err(EncodeError::ExternalRecords),
            }
        }
        Ok(whole.freeze())
    }
}
