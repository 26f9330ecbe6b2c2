//! Sums that are exact: in whatever order numbers are added, taken away again, and sums of sessions are merged, the
//! result is that of the numbers which are in it, rounded once. So a table's mean does not drift as its rows change.
//!
//! Whole numbers are summed as 128-bit integers. Floats are kept as a sum of floats whose digits do not overlap
//! (Shewchuk, "Adaptive precision floating-point arithmetic", 1997): mostly one or two of them, at most 40.

use super::super::scalar::Scalar;

/// The whole range of floats has 2,098 binary digits, and each float of the sum holds 53 that no other one has.
const MAX_PARTIALS: usize = 40;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ExactSum {
    int: i128,
    /// Smallest first.
    partials: Vec<f64>,
}

impl ExactSum {
    /// Adds a number, or takes it away. None if the sum is beyond what a float can say; it is the same as before then.
    pub(super) fn add(&mut self, number: &Scalar<'_>, negative: bool) -> Option<()> {
        match number {
            Scalar::Int(int) => {
                let int = i128::from(*int);
                self.int = self.int.checked_add(if negative { -int } else { int })?;
            }
            Scalar::Float(float) => self.add_float(if negative { -*float } else { *float })?,
            _ => return None,
        }
        Some(())
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: &ExactSum) -> Option<()> {
        self.int = self.int.checked_add(other.int)?;
        other.partials.iter().try_for_each(|partial| self.add_float(*partial))
    }

    fn add_float(&mut self, mut float: f64) -> Option<()> {
        let before = self.partials.len();
        let mut kept = Vec::with_capacity(before + 1);
        for &partial in &self.partials {
            let (large, small) =
                if float.abs() < partial.abs() { (partial, float) } else { (float, partial) };
            let sum = large + small;
            let error = small - (sum - large);
            if error != 0.0 {
                kept.push(error);
            }
            float = sum;
        }
        if float != 0.0 {
            kept.push(float);
        }
        (float.is_finite() && kept.len() <= MAX_PARTIALS).then(|| self.partials = kept)
    }

    /// The sum: whole if no float that is in it has left anything behind.
    pub(super) fn value(&self) -> Number {
        if self.partials.is_empty() { Number::Int(self.int) } else { Number::Float(self.rounded()) }
    }

    /// The sum divided by how many numbers are in it.
    pub(super) fn mean(&self, count: u64) -> f64 {
        self.rounded() / count as f64
    }

    /// The float nearest to the sum.
    fn rounded(&self) -> f64 {
        if self.partials.is_empty() {
            return self.int as f64;
        }
        let mut all = self.clone();
        let mut int = std::mem::take(&mut all.int);
        // The integer as floats that are together exactly as large.
        while int != 0 {
            let part = int as f64;
            // Beyond a float's range it cannot get: 128 bits are far below it.
            let _ = all.add_float(part);
            int -= part as i128;
        }
        round(&all.partials)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.int.to_be_bytes());
        // At most 40.
        out.push(self.partials.len() as u8);
        self.partials.iter().for_each(|partial| out.extend_from_slice(&partial.to_be_bytes()));
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(ExactSum, &[u8])> {
        let (int, rest) = bytes.split_first_chunk::<16>()?;
        let (count, rest) = rest.split_first()?;
        let (partials, rest) = rest.split_at_checked(usize::from(*count) * 8)?;
        let partials = partials.as_chunks::<8>().0.iter().map(|bytes| f64::from_be_bytes(*bytes)).collect();
        Some((ExactSum { int: i128::from_be_bytes(*int), partials }, rest))
    }
}

/// A sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

/// The float nearest to a sum of floats that do not overlap, smallest first; a tie goes to the even one.
fn round(partials: &[f64]) -> f64 {
    let mut rest = partials.iter().rev();
    let Some(&first) = rest.next() else { return 0.0 };
    let (mut high, mut low) = (first, 0.0);
    let mut rest = rest.peekable();
    for &next in rest.by_ref() {
        let before = high;
        high = before + next;
        low = next - (high - before);
        if low != 0.0 {
            break;
        }
    }
    // Half way between two floats, what is further down decides.
    if let Some(&&next) = rest.peek()
        && ((low < 0.0 && next < 0.0) || (low > 0.0 && next > 0.0))
    {
        let twice = low * 2.0;
        let further = high + twice;
        if further - high == twice {
            high = further;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn sum(numbers: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        numbers.iter().for_each(|n| sum.add(&Scalar::float(*n).unwrap(), false).unwrap());
        sum
    }

    #[test]
    fn sums_are_rounded_once() {
        for (numbers, expect) in [
            (&[0.1; 10][..], 1.0),
            (&[1e16, 1.5, -1e16], 1.5),
            (&[1e308, 1e-308, -1e308], 1e-308),
            (&[0.5, 9_007_199_254_740_992.0, 0.5, 1e-20], 9_007_199_254_740_994.0),
            (&[1.5, 2.5], 4.0),
        ] {
            assert_eq!(sum(numbers).rounded(), expect, "{numbers:?}");
        }
        let mut between = sum(&[0.25, 0.25]);
        between.add(&Scalar::Int(9_007_199_254_740_993), false).unwrap();
        assert_eq!(between.value(), Number::Float(9_007_199_254_740_994.0));
        assert_eq!(sum(&[2.0, 3.0]).value(), Number::Int(5));
        assert_eq!(sum(&[2.5, 3.0, -2.5]).value(), Number::Int(3));
        assert_eq!(sum(&[1.0, 2.0]).mean(2), 1.5);
        let mut most = sum(&[1.7e308]);
        assert_eq!(most.add(&Scalar::Float(1.7e308), false), None);
        assert_eq!(most.value(), Number::Float(1.7e308));
    }

    /// Numbers of all sizes, added in any order, some of them taken away again, split and merged: always the same.
    #[test]
    fn order_does_not_matter() {
        for seed in 0..500 {
            let mut random = SmallRng::seed_from_u64(seed);
            let number = |random: &mut SmallRng| {
                let scale = 10_f64.powi(random.random_range(-300..300));
                if random.random_bool(0.3) {
                    f64::from(random.random_range(-1000..1000))
                } else {
                    random.random_range(-1.0..1.0) * scale
                }
            };
            let mut kept: Vec<f64> = (0..random.random_range(1..20)).map(|_| number(&mut random)).collect();
            let gone: Vec<f64> = (0..random.random_range(0..20)).map(|_| number(&mut random)).collect();
            let expect = sum(&kept);
            let mut steps: Vec<(f64, bool)> = kept.iter().map(|n| (*n, false)).collect();
            steps.extend(gone.iter().flat_map(|n| [(*n, false), (*n, true)]));
            steps.shuffle(&mut random);
            let cut = random.random_range(0..=steps.len());
            let [mut left, right] = [&steps[..cut], &steps[cut..]].map(|steps| {
                let mut sum = ExactSum::default();
                steps
                    .iter()
                    .for_each(|(n, negative)| sum.add(&Scalar::float(*n).unwrap(), *negative).unwrap());
                sum
            });
            left.merge(&right).unwrap();
            assert_eq!(left.value(), expect.value(), "seed {seed}");
            let mut bytes = Vec::new();
            left.encode(&mut bytes);
            assert_eq!(ExactSum::decode(&bytes), Some((left, &[][..])));
            kept.shuffle(&mut random);
            assert_eq!(sum(&kept).value(), expect.value(), "seed {seed}");
        }
    }
}
