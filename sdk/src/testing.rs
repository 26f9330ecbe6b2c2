//! Runs a plugin natively, as a server would: for unit tests.

use crate::batch::NULL;
use crate::bindings::{self, Batch, HeaderColumns, Output, Slices};
use crate::config::Config;
use crate::partition::Partitioner;
use crate::transform::{Failure, Transform};

mod aggregate;
mod consume;
mod state;
mod timers;

pub use aggregate::AggregateRun;
pub use consume::{consume, consume_http};
pub use state::StateRun;
pub use timers::TimerRun;

/// A record to give, or one that came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// Name and value, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The output that it goes to. Means nothing in a record that is given.
    pub output: u32,
}

impl TestRecord {
    /// A record with a value alone.
    pub fn value(value: impl Into<Vec<u8>>) -> TestRecord {
        TestRecord { value: Some(value.into()), ..TestRecord::default() }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(self, key: impl Into<Vec<u8>>) -> TestRecord {
        TestRecord { key: Some(key.into()), ..self }
    }

    /// The value as text; empty for null.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunError {
    /// The plugin refuses its settings.
    Configure(String),
    /// These records, by index, were rejected; the others were taken.
    Rejected(Vec<(u32, String)>),
    /// The plugin asks for a retry, or wants to stop.
    Failed(Failure),
}

/// Configures a new plugin and gives it the records as one batch of the topic `test`, partition 0, from offset 0.
///
/// # Errors
/// How the plugin failed.
///
/// # Panics
/// If the answer breaks a rule of the contract that the server would refuse.
pub fn run<T: Transform>(
    config: &[(&str, &str)],
    records: &[TestRecord],
) -> Result<Vec<TestRecord>, RunError> {
    let mut plugin = T::default();
    let pairs = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    plugin.configure(&Config::new(pairs)).map_err(RunError::Configure)?;
    let batch = batch(records);
    let output = plugin.batch(&batch).map_err(RunError::from)?;
    Ok(expand(&batch, &output))
}

/// Configures a new partitioner and asks it where the records go, as one batch of the topic `test`.
///
/// # Errors
/// It refuses its settings.
///
/// # Panics
/// If a partition is not there, or their number is not that of the records.
pub fn partitions<T: Partitioner>(
    config: &[(&str, &str)],
    records: &[TestRecord],
    partitions: u32,
) -> Result<Vec<u32>, RunError> {
    let mut plugin = T::default();
    let pairs = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    plugin.configure(&Config::new(pairs)).map_err(RunError::Configure)?;
    let placed = plugin.batch(&batch(records), partitions);
    assert_eq!(placed.len(), records.len(), "a partition for each record");
    assert!(placed.iter().all(|placed| *placed < partitions), "{placed:?} of {partitions} partitions");
    Ok(placed)
}

impl From<bindings::Failure> for RunError {
    fn from(failure: bindings::Failure) -> RunError {
        match failure {
            bindings::Failure::Retry(reason) => RunError::Failed(Failure::Retry(reason)),
            bindings::Failure::Fatal(reason) => RunError::Failed(Failure::Fatal(reason)),
            bindings::Failure::Reject(rejected) => {
                RunError::Rejected(rejected.into_iter().map(|r| (r.index, r.reason)).collect())
            }
        }
    }
}

/// The records as a plugin is given them.
pub fn batch(records: &[TestRecord]) -> Batch {
    let mut data = Vec::new();
    let empty = || Slices { offsets: Vec::new(), lengths: Vec::new() };
    let (mut keys, mut values) = (empty(), empty());
    let mut headers = HeaderColumns { counts: Vec::new(), names: empty(), values: empty() };
    let mut field = |column: &mut Slices, bytes: Option<&[u8]>| {
        column.offsets.push(data.len() as u32);
        column.lengths.push(bytes.map_or(NULL, |bytes| bytes.len() as u32));
        data.extend_from_slice(bytes.unwrap_or_default());
    };
    for record in records {
        field(&mut keys, record.key.as_deref());
        field(&mut values, record.value.as_deref());
        headers.counts.push(record.headers.len() as u32);
        for (name, value) in &record.headers {
            field(&mut headers.names, Some(name.as_bytes()));
            field(&mut headers.values, value.as_deref());
        }
    }
    Batch {
        topic: "test".to_owned(),
        partition: 0,
        data,
        offsets: (0..records.len() as i64).collect(),
        keys,
        values,
        timestamps: records.iter().map(|record| record.timestamp).collect(),
        headers: (!headers.names.offsets.is_empty()).then_some(headers),
    }
}

/// The records that an answer emits.
///
/// # Panics
/// If it breaks a rule of the contract.
pub fn expand(batch: &Batch, output: &Output) -> Vec<TestRecord> {
    let bytes = |column: &Slices, i: usize| -> Option<Vec<u8>> {
        let (offset, length) = (column.offsets[i] as usize, column.lengths[i]);
        if length == NULL {
            return None;
        }
        let (part, start) = match offset.checked_sub(batch.data.len()) {
            None => (&batch.data, offset),
            Some(start) => (&output.data, start),
        };
        Some(part[start..start + length as usize].to_vec())
    };
    let headers_of = |columns: &Option<HeaderColumns>, i: usize| -> Vec<(String, Option<Vec<u8>>)> {
        let Some(columns) = columns else { return Vec::new() };
        let start: u32 = columns.counts[..i].iter().sum();
        let range = start as usize..(start + columns.counts[i]) as usize;
        let name =
            |i| String::from_utf8(bytes(&columns.names, i).unwrap_or_default()).expect("a name is UTF-8");
        range.map(|i| (name(i), bytes(&columns.values, i))).collect()
    };
    let record = |(i, &source): (usize, &u32)| {
        let source = source as usize;
        TestRecord {
            key: output.keys.as_ref().map_or_else(|| bytes(&batch.keys, source), |column| bytes(column, i)),
            value: output
                .values
                .as_ref()
                .map_or_else(|| bytes(&batch.values, source), |column| bytes(column, i)),
            timestamp: output
                .timestamps
                .as_ref()
                .map_or_else(|| batch.timestamps[source], |column| column[i]),
            headers: match &output.headers {
                Some(_) => headers_of(&output.headers, i),
                None => headers_of(&batch.headers, source),
            },
            output: output.route.as_ref().map_or(0, |column| column[i]),
        }
    };
    output.source.iter().enumerate().map(record).collect()
}
