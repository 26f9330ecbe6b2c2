//! A histogram of times. `prometheus_client`'s own takes a lock for each observation; this one increments atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets, in microseconds: from a sync of a fast disk to a client's request timeout.
const BOUNDS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 10_000_000,
];

/// The histogram. The last bucket has no bound.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let seconds = |us: u64| us as f64 / 1e6;
        let bounds = BOUNDS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn times_fall_into_the_bucket_that_holds_them() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 1_000, 99_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut registry = Registry::default();
        registry.register("took_seconds", "How long it took", histogram);
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        for line in [
            "took_seconds_bucket{le=\"5e-05\"} 2",
            "took_seconds_bucket{le=\"0.0001\"} 3",
            "took_seconds_bucket{le=\"0.001\"} 4",
            "took_seconds_bucket{le=\"10\"} 4",
            "took_seconds_bucket{le=\"+Inf\"} 5",
            "took_seconds_sum 99.001101",
            "took_seconds_count 5",
        ] {
            assert!(page.lines().any(|got| got == line), "{line} is not in\n{page}");
        }
    }
}
