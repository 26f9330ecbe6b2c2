//! Memory that starts at a multiple of [`DIRECT_ALIGN`], as direct I/O asks for.

use super::DIRECT_ALIGN;

/// A growing byte buffer whose first byte is aligned. Plain `Vec` memory with the unaligned front left unused, so no unsafe code is needed.
pub(crate) struct AlignedBuf {
    memory: Vec<u8>,
    /// Where the aligned part begins. Valid as long as `memory` is not reallocated.
    start: usize,
    len: usize,
}

impl AlignedBuf {
    pub(crate) fn new() -> AlignedBuf {
        AlignedBuf { memory: Vec::new(), start: 0, len: 0 }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> AlignedBuf {
        let mut buf = AlignedBuf::new();
        buf.reserve(len);
        buf.len = len;
        buf
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }

    /// Empties the buffer, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let at = self.start + self.len;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Adds zeros up to the next multiple of `unit`.
    pub(crate) fn pad_to(&mut self, unit: usize) {
        let end = self.len.next_multiple_of(unit);
        self.reserve(end - self.len);
        let at = self.start + self.len;
        self.memory[at..self.start + end].fill(0);
        self.len = end;
    }

    fn capacity(&self) -> usize {
        self.memory.len().saturating_sub(self.start)
    }

    fn reserve(&mut self, more: usize) {
        let need = self.len + more;
        if need <= self.capacity() {
            return;
        }
        let capacity = need.max(2 * self.capacity()).next_multiple_of(DIRECT_ALIGN);
        let memory = vec![0; capacity + DIRECT_ALIGN];
        let start = memory.as_ptr().align_offset(DIRECT_ALIGN);
        let mut new = AlignedBuf { memory, start, len: self.len };
        new.memory[start..start + self.len].copy_from_slice(self.as_slice());
        *self = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_and_keeps_its_bytes_while_it_grows() {
        let mut buf = AlignedBuf::new();
        let mut expect = Vec::new();
        for round in 1..200_usize {
            let piece = vec![u8::try_from(round).expect("small"); round * 37];
            buf.extend(&piece);
            expect.extend_from_slice(&piece);
            assert_eq!(buf.as_slice(), expect);
            assert_eq!(buf.as_slice().as_ptr().align_offset(DIRECT_ALIGN), 0, "round {round}");
        }
        buf.pad_to(DIRECT_ALIGN);
        assert_eq!(buf.len() % DIRECT_ALIGN, 0);
        assert!(buf.as_slice()[expect.len()..].iter().all(|b| *b == 0));
    }

    #[test]
    fn padding_is_zero_in_used_memory_too() {
        let mut buf = AlignedBuf::zeroed(2 * DIRECT_ALIGN);
        buf.as_mut_slice().fill(0xff);
        buf.clear();
        buf.extend(b"x");
        buf.pad_to(DIRECT_ALIGN);
        assert!(buf.as_slice()[1..].iter().all(|b| *b == 0));
    }
}
