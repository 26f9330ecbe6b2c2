//! Counters and histograms for `/metrics`. No decision depends on them.

mod histogram;

use pelton_wire::api::ApiKey;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;

pub(crate) use self::histogram::Histogram;

/// Api keys are below this; a request of any other key closes its connection.
const APIS: usize = 128;

#[derive(Debug)]
pub(crate) struct Metrics {
    requests: [Counter; APIS],
    request_bytes: Counter,
    produced_bytes: Counter,
    produced_records: Counter,
    fetched_bytes: Counter,
    /// From the arrival of a produce request to the end of its response.
    pub(crate) produce: Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: std::array::from_fn(|_| Counter::default()),
            request_bytes: Counter::default(),
            produced_bytes: Counter::default(),
            produced_records: Counter::default(),
            fetched_bytes: Counter::default(),
            produce: Histogram::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that has arrived whole.
    pub(crate) fn request(&self, api: ApiKey, bytes: usize) {
        if let Some(count) = usize::try_from(api as i16).ok().and_then(|key| self.requests.get(key)) {
            count.inc();
        }
        self.request_bytes.inc_by(bytes as u64);
    }

    /// Counts a client's batch that was appended.
    pub(crate) fn produced(&self, records: u64, bytes: usize) {
        self.produced_records.inc_by(records);
        self.produced_bytes.inc_by(bytes as u64);
    }

    /// Counts bytes of records sent to a consumer.
    pub(crate) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.inc_by(bytes);
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Requests of Kafka clients.";
        let mut family = encoder.encode_descriptor("pelton_requests", help, None, MetricType::Counter)?;
        for (key, count) in self.requests.iter().enumerate().filter(|(_, count)| count.get() > 0) {
            let api = i16::try_from(key).ok().and_then(ApiKey::from_key);
            let labels = [("api", api.map_or("unknown", ApiKey::name))];
            count.encode(family.encode_family(&labels)?)?;
        }
        let single: [(&str, &str, &dyn EncodeMetric); 5] = [
            ("pelton_request_bytes", "Bytes of the requests of Kafka clients.", &self.request_bytes),
            ("pelton_produced_records", "Records that clients appended.", &self.produced_records),
            ("pelton_produced_bytes", "Stored bytes of those records.", &self.produced_bytes),
            ("pelton_fetched_bytes", "Stored bytes that went to consumers.", &self.fetched_bytes),
            (
                "pelton_produce_seconds",
                "Time from the arrival of a produce request to the end of its response.",
                &self.produce,
            ),
        ];
        for (name, help, metric) in single {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)?;
        }
        Ok(())
    }
}
