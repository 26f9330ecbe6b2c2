//! Percentiles and rates.

use std::time::Duration;

/// Latencies of one run.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    nanos: Vec<u64>,
}

impl Latencies {
    pub(crate) fn add(&mut self, time: Duration) {
        self.nanos.push(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn merge(&mut self, other: Latencies) {
        self.nanos.extend(other.nanos);
    }

    pub(crate) fn len(&self) -> usize {
        self.nanos.len()
    }

    /// The given part of all is not above this, in milliseconds.
    pub(crate) fn ms(&mut self, part: f64) -> f64 {
        self.nanos.sort_unstable();
        let Some(last) = self.nanos.len().checked_sub(1) else { return f64::NAN };
        let index = ((self.nanos.len() as f64 * part) as usize).min(last);
        self.nanos[index] as f64 / 1e6
    }

    /// "p50 / p99 / p99.9" in milliseconds.
    pub(crate) fn text(&mut self) -> String {
        format!("p50 {:.2}  p99 {:.2}  p99.9 {:.2} ms", self.ms(0.50), self.ms(0.99), self.ms(0.999))
    }
}

/// Decimal megabytes a second.
pub(crate) fn mb_per_s(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut latencies = Latencies::default();
        for ms in (1..=100).rev() {
            latencies.add(Duration::from_millis(ms));
        }
        assert!((latencies.ms(0.50) - 51.0).abs() < 0.001);
        assert!((latencies.ms(0.99) - 100.0).abs() < 0.001);
        assert!(Latencies::default().ms(0.5).is_nan());
    }
}
