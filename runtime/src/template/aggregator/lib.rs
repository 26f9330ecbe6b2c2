//! An aggregator: `add` puts a record into the value of its key, or of a window of it. The value is the result.

use pelton_sdk::{Aggregator, Failure, Record};

/// The longest value of each key.
#[derive(Default)]
struct Plugin;

impl Aggregator for Plugin {
    fn add(&mut self, value: &mut Vec<u8>, record: Record<'_>) -> Result<(), Failure> {
        let other = record.value().ok_or_else(|| Failure::reject("there is no value"))?;
        if other.len() > value.len() {
            *value = other.to_vec();
        }
        Ok(())
    }

    /// Two sessions of a key have met.
    fn merge(&mut self, value: &mut Vec<u8>, other: &[u8]) -> Result<(), Failure> {
        if other.len() > value.len() {
            *value = other.to_vec();
        }
        Ok(())
    }
}

pelton_sdk::export_aggregator!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{AggregateRun, TestRecord};

    #[test]
    fn the_longest_value_stays() {
        let mut run = AggregateRun::<Plugin>::new(&[]);
        run.add("a", &TestRecord::value("abc")).unwrap();
        assert_eq!(run.add("a", &TestRecord::value("ab")).unwrap(), b"abc");
    }
}
