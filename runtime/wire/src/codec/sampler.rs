//! Pseudo-random values of the types of fields, for tests and fuzzers.

use bytes::Bytes;

use super::SPLICE_MIN;

/// A source of pseudo-random values. The same seed gives the same values on every machine.
#[derive(Clone, Debug)]
pub struct Sampler {
    state: u64,
    longest: usize,
    /// Array elements that may still be made: keeps deeply nested messages small.
    elements: usize,
}

impl Sampler {
    /// A source of messages of up to a few kilobytes, some of them with byte fields that are not copied when encoded.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, longest: SPLICE_MIN + 100, elements: 40 }
    }

    /// A source of messages of some dozen bytes.
    pub fn small(seed: u64) -> Self {
        Self { state: seed, longest: 5, elements: 6 }
    }

    /// The next 64 bits (SplitMix64).
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A length: mostly short, now and then around the places where the encoding of lengths changes.
    fn len(&mut self) -> usize {
        let len = match self.below(12) {
            0 => 0,
            1 => 126 + self.below(4),
            2 => self.longest - self.below(200).min(self.longest),
            _ => self.below(12),
        };
        len.min(self.longest)
    }

    /// A count of array elements.
    pub(super) fn count(&mut self) -> usize {
        let count = self.below(4).min(self.elements);
        self.elements -= count;
        count
    }

    pub(super) fn bytes(&mut self) -> Bytes {
        let len = self.len();
        (0..len).map(|_| self.bits() as u8).collect()
    }

    pub(super) fn string(&mut self) -> String {
        /// One, two, three and four bytes long.
        const LETTERS: [char; 8] = ['a', 'b', '.', '-', 'é', 'Ж', '中', '🦀'];
        let len = self.len() / 2;
        (0..len).map(|_| LETTERS[self.below(LETTERS.len())]).collect()
    }
}
