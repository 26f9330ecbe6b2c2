//! CRC-32C, and the CRC of two runs of bytes from those of each.

/// CRC-32C, the checksum of batches.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The polynomial of CRC-32C, its highest power in the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// `a` times `b` modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = if b & 1 == 1 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    product
}

/// `SHIFTS[k][n]`: what `n * 256^k` bytes of zeros behind some bytes do to their CRC, as a factor.
static SHIFTS: [[u32; 256]; 4] = shifts();

const fn shifts() -> [[u32; 256]; 4] {
    let mut table = [[ONE; 256]; 4];
    // x^8: one byte.
    let mut unit = ONE >> 8;
    let mut k = 0;
    while k < 4 {
        let mut n = 1;
        while n < 256 {
            table[k][n] = multiply(table[k][n - 1], unit);
            n += 1;
        }
        unit = multiply(table[k][255], unit);
        k += 1;
    }
    table
}

/// The CRC-32C of some bytes with the CRC `first`, followed by `len` bytes with the CRC `second`. Costs the same for
/// any length, about as much as reading 4 KiB.
pub fn combine(first: u32, second: u32, len: usize) -> u32 {
    let mut shifted = first;
    let mut rest = len as u64;
    for powers in SHIFTS.iter().take(4) {
        let n = (rest & 0xff) as usize;
        if n != 0 {
            shifted = multiply(powers[n], shifted);
        }
        rest >>= 8;
        if rest == 0 {
            break;
        }
    }
    debug_assert_eq!(rest, 0, "a batch, and a group of them, is shorter than 4 GiB");
    shifted ^ second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_of_a_whole_is_that_of_its_parts() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = crc32c(&bytes);
        for at in [0, 1, 21, 255, 256, 257, 4096, 65_535, 65_536, 65_537, 199_999, 200_000] {
            let (first, second) = bytes.split_at(at);
            assert_eq!(combine(crc32c(first), crc32c(second), second.len()), whole, "cut at {at}");
        }
        assert_eq!(combine(crc32c(b""), crc32c(b"123456789"), 9), 0xe306_9283, "the check value");
        let zeros = vec![0; 17 << 20];
        let expect = crc32c(&[b"some bytes".as_slice(), &zeros].concat());
        assert_eq!(combine(crc32c(b"some bytes"), crc32c(&zeros), zeros.len()), expect);
    }
}
