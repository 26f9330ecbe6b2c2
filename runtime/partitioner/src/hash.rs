//! What the clients compute of a key.

use siphasher::sip::SipHasher24;

/// Standard CRC-32, as zlib has it.
const CRC32: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc32IsoHdlc;
const MURMUR2_SEED: u32 = 0x9747_b28c;
const MURMUR2_M: u32 = 0x5bd1_e995;
/// The key of SipHash's published test vectors, which Guava's `Hashing.sipHash24()` has too.
const SIPHASH_KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The 32-bit murmur2 of Kafka's Java client, seed 0x9747b28c.
pub(crate) fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = MURMUR2_M;
    // The length is folded in as 32 bits; no key is longer.
    let mut h = MURMUR2_SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        h ^= little_endian(tail);
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The murmur2 of kafkajs' `LegacyPartitioner`. It is computed in JavaScript's numbers: products are rounded to 53 bits
/// before 32 of them are used. And the bytes behind the last whole word are mixed in twice, first as a word.
pub(crate) fn kafkajs_legacy(key: &[u8]) -> u32 {
    // A product is below 2^62, so it fits an i64; JavaScript's `^` takes its low 32 bits.
    let times_m = |n: u32| (f64::from(n.cast_signed()) * f64::from(MURMUR2_M)) as i64 as u32;
    let mut h = MURMUR2_SEED ^ (key.len() as u32);
    let (words, tail) = key.as_chunks::<4>();
    let words = words.iter().map(|word| u32::from_le_bytes(*word));
    let last = (!tail.is_empty()).then(|| little_endian(tail));
    for word in words.chain(last) {
        let mut k = times_m(word);
        k ^= k >> 24;
        h = times_m(h) ^ times_m(k);
    }
    if let Some(last) = last {
        h = times_m(h ^ last);
    }
    h ^= h >> 13;
    h = times_m(h);
    h ^ (h >> 15)
}

/// Up to four bytes as a number, the first one lowest.
fn little_endian(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// The 32-bit FNV-1a.
pub(crate) fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |h, &byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The CRC-32 of zlib.
pub fn crc32(key: &[u8]) -> u32 {
    // The algorithm has 32 bits; the crate answers in 64.
    crc_fast::checksum(CRC32, key) as u32
}

/// SipHash-2-4 with the key 00 01 … 0f.
pub(crate) fn siphash(key: &[u8]) -> u64 {
    SipHasher24::new_with_key(&SIPHASH_KEY).hash(key)
}

/// The jump consistent hash of Lamping and Veach (2014): the bucket, below `buckets`, of a number. From n to n + 1
/// buckets one number in n + 1 moves, and it moves to the new bucket. At least one bucket.
pub(crate) fn jump(number: u64, buckets: u32) -> u32 {
    let (mut state, mut bucket, mut next) = (number, 0, 0.0);
    // `next` is where the number jumps to while buckets are added one by one.
    while next < f64::from(buckets) {
        // Below `buckets`.
        bucket = next as u32;
        state = state.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // The upper 31 bits, from 1 to 2^31, so that the jump is at least to the next bucket.
        let fraction = ((state >> 33) + 1) as f64 / f64::from(1_u32 << 31);
        next = (f64::from(bucket + 1) / fraction).floor();
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from the unit tests of Kafka (`UtilsTest`), librdkafka (`rdmurmur2.c`) and the FNV reference.
    #[test]
    fn hashes_are_those_of_the_clients() {
        for (key, expect) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("kafka", 0xd067_cf64_u32.cast_signed()),
            ("giberish123456789", 0x8f55_2b0c_u32.cast_signed()),
            ("1234", 0x9fc9_7b14_u32.cast_signed()),
            ("", 0x106e_08d9),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expect, "{key}");
        }
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// The test vector of the SipHash paper, and values that implementations of jump hash agree on.
    #[test]
    fn consistent_placement_is_of_published_algorithms() {
        assert_eq!(siphash(&SIPHASH_KEY[..15]), 0xa129_ca61_49be_45e5);
        for (number, buckets, expect) in
            [(1, 1, 0), (42, 57, 43), (0xdead_10cc, 1, 0), (0xdead_10cc, 666, 361), (256, 1024, 520)]
        {
            assert_eq!(jump(number, buckets), expect, "{number} {buckets}");
        }
    }
}
