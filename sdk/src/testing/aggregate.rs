//! Values of groups in memory, for aggregators.

use std::collections::BTreeMap;

use super::{RunError, TestRecord, batch};
use crate::aggregate::{Aggregator, ExportedAggregator};
use crate::stores::{column, strings};

/// An aggregator, and the value of each group.
pub struct AggregateRun<T> {
    plugin: ExportedAggregator<T>,
    configured: Result<(), String>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<T: Aggregator> AggregateRun<T> {
    /// An aggregator with these settings, and no groups yet.
    pub fn new(config: &[(&str, &str)]) -> AggregateRun<T> {
        let plugin = ExportedAggregator::<T>::default();
        let pairs = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let configured = plugin.configure(pairs.collect());
        AggregateRun { plugin, configured, values: BTreeMap::new() }
    }

    /// Adds a record to a group; its value then.
    ///
    /// # Errors
    /// How the plugin failed. The value stays as it was.
    pub fn add(&mut self, group: impl AsRef<[u8]>, record: &TestRecord) -> Result<&[u8], RunError> {
        self.fold(group.as_ref(), record, true)
    }

    /// Takes a record out of a group; its value then.
    ///
    /// # Errors
    /// As [`AggregateRun::add`].
    pub fn subtract(&mut self, group: impl AsRef<[u8]>, record: &TestRecord) -> Result<&[u8], RunError> {
        self.fold(group.as_ref(), record, false)
    }

    fn fold(&mut self, group: &[u8], record: &TestRecord, adds: bool) -> Result<&[u8], RunError> {
        self.configured.clone().map_err(RunError::Configure)?;
        let before = match self.values.get(group) {
            Some(value) => value.clone(),
            None => self.plugin.create().map_err(RunError::Configure)?,
        };
        let batch = batch(&[record.clone().with_key(group)]);
        let values = column([Some(&before[..])].into_iter());
        let folded = if adds {
            self.plugin.add(&values, &batch, &[0])
        } else {
            self.plugin.subtract(&values, &batch, &[0])
        };
        let value = strings(&folded?).next().flatten().unwrap_or_default();
        let entry = self.values.entry(group.to_vec()).or_default();
        *entry = value;
        Ok(entry)
    }

    /// One group takes in another one, which ends; its value then.
    ///
    /// # Errors
    /// As [`AggregateRun::add`].
    pub fn merge(&mut self, into: impl AsRef<[u8]>, from: impl AsRef<[u8]>) -> Result<&[u8], RunError> {
        let [left, right] = [into.as_ref(), from.as_ref()].map(|group| self.values.get(group).cloned());
        let merged = self
            .plugin
            .merge(&column([left.as_deref()].into_iter()), &column([right.as_deref()].into_iter()))?;
        self.values.remove(from.as_ref());
        let entry = self.values.entry(into.as_ref().to_vec()).or_default();
        *entry = strings(&merged).next().flatten().unwrap_or_default();
        Ok(entry)
    }
}
