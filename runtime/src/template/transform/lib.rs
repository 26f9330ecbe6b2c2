//! A transform: `record` sees a record and says what to emit.

use pelton_sdk::{Config, Failure, Out, Record, Transform};

/// Capitals for every value that is longer than a limit; shorter ones are dropped.
#[derive(Default)]
struct Plugin {
    longer_than: usize,
}

impl Transform for Plugin {
    /// Called once, with the settings of plugin.toml and pipeline.toml.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.longer_than = config.parse("longer_than")?.unwrap_or(0);
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let value = record.value().ok_or_else(|| Failure::reject("there is no value"))?;
        if value.len() > self.longer_than {
            out.edit(record, |value| value.make_ascii_uppercase());
        }
        Ok(())
    }
}

pelton_sdk::export_transform!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{TestRecord, run};

    #[test]
    fn long_values_are_shouted() {
        let out = run::<Plugin>(&[("longer_than", "2")], &[TestRecord::value("abc"), TestRecord::value("no")]);
        assert_eq!(out.unwrap(), [TestRecord::value("ABC")]);
    }
}
