//! Reading the fields of a frame.

use bytes::Bytes;

use super::{DecodeError, Malformed};

/// How many bytes of memory a decoded message may take per byte of its frame.
///
/// The densest thing a client has reason to send is an array of short names: a three-letter name takes four or five
/// bytes on the wire, and 24 bytes of `String` plus its text in memory. Twelve times leaves room for that and stops
/// frames that are nothing but empty elements.
pub const DECODED_MULTIPLE: usize = 12;

/// Bytes of memory any frame may decode into, however short it is, so that small frames of short names always pass.
pub const DECODED_ALLOWANCE: usize = 32 * 1024;

/// The smallest heap allocation, in bytes: a string of one byte is charged this much.
const MIN_ALLOCATION: usize = 8;

/// Reads one frame from front to back.
///
/// Byte fields are handed out as slices of the frame and keep it alive; nothing else is shared. All methods fail with
/// [`Malformed`] facts and leave the position undefined after a failure.
#[derive(Clone, Debug)]
pub struct Reader {
    frame: Bytes,
    pos: usize,
    /// Reading stops here: the end of the frame, or of the tagged field being read.
    end: usize,
    /// Bytes of memory that decoding may allocate.
    limit: usize,
    /// What is left of `limit`.
    budget: usize,
}

/// Bytes of memory that a frame of this length may decode into.
pub const fn decoded_limit(len: usize) -> usize {
    len.saturating_mul(DECODED_MULTIPLE).saturating_add(DECODED_ALLOWANCE)
}

impl Reader {
    /// A reader over a whole frame (without its length prefix), with the memory budget that a frame of this size gets.
    pub fn new(frame: Bytes) -> Self {
        let limit = decoded_limit(frame.len());
        Self::within(frame, limit)
    }

    /// The same with a memory budget of `limit` bytes.
    pub fn within(frame: Bytes, limit: usize) -> Self {
        let end = frame.len();
        Self { frame, pos: 0, end, limit, budget: limit }
    }

    /// Bytes of memory that decoding has allocated so far, besides the frame.
    pub fn allocated(&self) -> usize {
        self.limit - self.budget
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.pos
    }

    /// Checks that everything was read.
    ///
    /// Kafka ignores what follows a request in its frame, so this is for callers that want to be strict.
    ///
    /// # Errors
    /// [`Malformed::Trailing`] when bytes are left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(Malformed::Trailing(left).into()),
        }
    }

    fn advance(&mut self, n: usize) -> Result<&[u8], Malformed> {
        let remaining = self.remaining();
        if n > remaining {
            return Err(Malformed::Truncated { needed: n, remaining });
        }
        let from = self.pos;
        self.pos += n;
        Ok(&self.frame[from..self.pos])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.advance(N)?);
        Ok(bytes)
    }

    /// One byte, signed.
    ///
    /// # Errors
    /// When the frame has ended.
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    /// Two bytes, signed, big-endian.
    ///
    /// # Errors
    /// When the frame ends before.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    /// Two bytes, unsigned, big-endian.
    ///
    /// # Errors
    /// When the frame ends before.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, signed, big-endian.
    ///
    /// # Errors
    /// When the frame ends before.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// Eight bytes, signed, big-endian.
    ///
    /// # Errors
    /// When the frame ends before.
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// When the frame ends before.
    pub fn uuid(&mut self) -> Result<uuid::Uuid, Malformed> {
        self.array().map(uuid::Uuid::from_bytes)
    }

    /// An unsigned variable-length integer of at most 32 bits.
    ///
    /// # Errors
    /// When the frame ends before, or the value needs more than 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value: u64 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| Malformed::VarintTooLong);
            }
        }
        Err(Malformed::VarintTooLong)
    }

    /// A length of a compact type: `None` stands for null.
    pub(super) fn compact_len(&mut self) -> Result<Option<usize>, Malformed> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    /// A length of a type that is not compact: `None` stands for null.
    pub(super) fn signed_len(value: i64) -> Result<Option<usize>, Malformed> {
        match value {
            -1 => Ok(None),
            _ => usize::try_from(value).map(Some).map_err(|_| Malformed::NegativeLength(value)),
        }
    }

    /// The next `n` bytes as a slice of the frame.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self, n: usize) -> Result<Bytes, Malformed> {
        let from = self.pos;
        self.advance(n)?;
        Ok(self.frame.slice(from..from + n))
    }

    /// The next `n` bytes as text.
    ///
    /// # Errors
    /// When fewer are left, they are not UTF-8, or the frame's memory is used up.
    pub fn string(&mut self, n: usize) -> Result<String, Malformed> {
        if n > 0 {
            // Before the charge: a length beyond the frame is reported as truncated, not as over budget.
            if n > self.remaining() {
                return Err(Malformed::Truncated { needed: n, remaining: self.remaining() });
            }
            self.charge(n.max(MIN_ALLOCATION))?;
        }
        let text = std::str::from_utf8(self.advance(n)?).map_err(|_| Malformed::NotUtf8)?;
        Ok(text.to_owned())
    }

    /// Takes `wanted` bytes from the memory budget of this frame.
    ///
    /// # Errors
    /// [`Malformed::OverBudget`] when it is used up.
    pub(super) fn charge(&mut self, wanted: usize) -> Result<(), Malformed> {
        match self.budget.checked_sub(wanted) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(Malformed::OverBudget { wanted, left: self.budget }),
        }
    }

    /// Checks a count of elements from the wire: against the bytes that are left, and against the memory budget.
    ///
    /// `min_wire` is the fewest bytes an element can take on the wire, `in_memory` what it takes in memory.
    pub(super) fn check_count(
        &mut self,
        count: usize,
        min_wire: usize,
        in_memory: usize,
    ) -> Result<(), Malformed> {
        // No element is free: an element of zero bytes would make any count fit.
        let most = self.remaining() / min_wire.max(1);
        if count > most {
            return Err(Malformed::CountTooLarge { count, most });
        }
        self.charge(count.saturating_mul(in_memory))
    }

    /// Reads a section of tagged fields. `known` reads the field of a tag it knows and returns true; any other field
    /// is skipped whole.
    ///
    /// # Errors
    /// When the section is cut off, counts more fields than fit, or a known field is not as long as it says.
    pub fn tagged_fields(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        /// A tag and a size.
        const MIN_WIRE: usize = 2;
        let count = self.uvarint()?;
        if count == 0 {
            return Ok(());
        }
        self.check_count(count as usize, MIN_WIRE, 0)?;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let declared = self.uvarint()? as usize;
            let remaining = self.remaining();
            if declared > remaining {
                return Err(Malformed::Truncated { needed: declared, remaining }.into());
            }
            let start = self.pos;
            let outer_end = std::mem::replace(&mut self.end, start + declared);
            if known(self, tag)? && self.pos != self.end {
                return Err(Malformed::TaggedSize { tag, declared, used: self.pos - start }.into());
            }
            self.pos = self.end;
            self.end = outer_end;
        }
        Ok(())
    }
}
