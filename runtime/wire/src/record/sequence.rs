//! Arithmetic on the sequence numbers of idempotent producers, which go from 2147483647 to 0.

/// The sequence `count` records after `sequence`, both not negative.
pub fn sequence_add(sequence: i32, count: i32) -> i32 {
    // The numbers live modulo 2^31: clearing the sign bit of the wrapped sum is that modulus.
    sequence.wrapping_add(count) & i32::MAX
}

/// The sequence after `sequence`.
pub fn next_sequence(sequence: i32) -> i32 {
    sequence_add(sequence, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        let cases = [
            (0, 0, 0),
            (0, 1, 1),
            (41, 1, 42),
            (i32::MAX - 1, 1, i32::MAX),
            (i32::MAX, 0, i32::MAX),
            (i32::MAX, 1, 0),
            (i32::MAX, 2, 1),
            (i32::MAX - 2, 5, 2),
            (i32::MAX, i32::MAX, i32::MAX - 1),
        ];
        for (sequence, count, expect) in cases {
            assert_eq!(sequence_add(sequence, count), expect, "{sequence} + {count}");
        }
        assert_eq!(next_sequence(i32::MAX), 0);
        assert_eq!(next_sequence(-1), 0, "the first sequence follows NO_SEQUENCE");
    }
}
