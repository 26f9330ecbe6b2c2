//! A transform with state: `record` sees a record and the stores of its partition, and says what to emit.

use pelton_sdk::{Failure, Out, Reads, Record, StateTransform, Stores};

/// What plugin.toml calls the store.
const SEEN: &str = "seen";

/// Counts the records of each key. What is written to a store counts if and only if what is emitted does, through any crash.
#[derive(Default)]
struct Plugin;

impl StateTransform for Plugin {
    /// What `record` will read: all of a batch is asked for at once.
    fn reads(&mut self, record: Record<'_>, reads: &mut Reads) {
        reads.key(SEEN, record.key().unwrap_or_default());
    }

    fn record(&mut self, record: Record<'_>, stores: &mut Stores<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let key = record.key().ok_or_else(|| Failure::reject("there is no key"))?;
        let before = stores.get(SEEN, key).and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok());
        let count = (before.unwrap_or(0) + 1).to_string();
        stores.put(SEEN, key, count.as_str());
        out.value(record, &count);
        Ok(())
    }
}

pelton_sdk::export_state_transform!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{StateRun, TestRecord};

    #[test]
    fn records_are_counted_by_key() {
        let mut run = StateRun::<Plugin>::new(&[]).with_store(SEEN);
        let record = |key: &str| TestRecord::value("x").with_key(key);
        let out = run.give(&[record("a"), record("b"), record("a")]).unwrap();
        assert_eq!(out[2].text(), "2");
        // Stores stay from batch to batch.
        assert_eq!(run.give(&[record("a")]).unwrap()[0].text(), "3");
    }
}
