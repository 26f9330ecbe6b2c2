//! What the broker counts while it works, for `/metrics`. A relaxed atomic each: nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

use pelton_wire::api::ApiKey;

/// Api keys are below this; a request of any other key closes its connection.
const APIS: usize = 128;

/// See the module.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: [AtomicU64; APIS],
    request_bytes: AtomicU64,
    produced_bytes: AtomicU64,
    produced_records: AtomicU64,
    fetched_bytes: AtomicU64,
}

/// A family of one: its name, what it means, and its samples with the api they are of.
pub(crate) type Family = (&'static str, &'static str, Vec<(Option<&'static str>, u64)>);

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            requests: [const { AtomicU64::new(0) }; APIS],
            request_bytes: AtomicU64::new(0),
            produced_bytes: AtomicU64::new(0),
            produced_records: AtomicU64::new(0),
            fetched_bytes: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// A request arrived whole.
    pub(crate) fn request(&self, api: ApiKey, bytes: usize) {
        if let Some(count) = usize::try_from(api as i16).ok().and_then(|key| self.requests.get(key)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A batch of a client was appended.
    pub(crate) fn produced(&self, records: u64, bytes: usize) {
        self.produced_records.fetch_add(records, Ordering::Relaxed);
        self.produced_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Stored bytes went to a consumer.
    pub(crate) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// All of them.
    pub(crate) fn families(&self) -> Vec<Family> {
        let one = |counter: &AtomicU64| vec![(None, counter.load(Ordering::Relaxed))];
        let requests = self.requests.iter().enumerate().filter_map(|(key, count)| {
            let api = ApiKey::try_from(i16::try_from(key).ok()?).ok()?;
            Some((Some(api.name()), count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
        });
        vec![
            ("pelton_requests_total", "Requests of Kafka clients.", requests.collect()),
            ("pelton_request_bytes_total", "Bytes of those requests.", one(&self.request_bytes)),
            ("pelton_produced_records_total", "Records that clients appended.", one(&self.produced_records)),
            ("pelton_produced_bytes_total", "Stored bytes of those records.", one(&self.produced_bytes)),
            ("pelton_fetched_bytes_total", "Stored bytes that went to consumers.", one(&self.fetched_bytes)),
        ]
    }
}
