//! A consumer: `record` sees a record and acts on it. It reaches nothing but the log; one that sends is of the world
//! `consumer-http`.

use pelton_sdk::{Config, Consumer, Record, Undone, log};

/// Says of values that are longer than a limit that they are.
#[derive(Default)]
struct Plugin {
    longer_than: usize,
}

impl Plugin {
    /// What is to be said of a record, if something.
    fn remark(&self, record: Record<'_>) -> Result<Option<String>, Undone> {
        // Never: it makes no sense to give the record again. `on_error` of the pipeline decides.
        let value = record.value().ok_or_else(|| Undone::never("there is no value"))?;
        Ok((value.len() > self.longer_than).then(|| format!("{} has {} bytes", record.idempotency_key(), value.len())))
    }
}

impl Consumer for Plugin {
    /// Called once, with the settings of plugin.toml and pipeline.toml.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.longer_than = config.parse("longer_than")?.unwrap_or(0);
        Ok(())
    }

    /// A record is given at least once: again after a failure or a restart.
    fn record(&mut self, record: Record<'_>) -> Result<(), Undone> {
        if let Some(remark) = self.remark(record)? {
            log::warn(&remark);
        }
        Ok(())
    }
}

pelton_sdk::export_consumer!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{TestRecord, consume};

    #[test]
    fn a_record_without_a_value_is_not_done() {
        let empty = TestRecord { value: None, ..TestRecord::value("") };
        let undone = consume::<Plugin>(&[("longer_than", "2")], &[TestRecord::value("abc"), empty]);
        assert_eq!(undone.unwrap(), [(1, Undone::never("there is no value"))]);
    }
}
