//! Counts the records of each group, as text.

use pelton_sdk::{Aggregator, Config, Failure, Record};

#[derive(Default)]
struct Count {
    reject_at: u64,
    trap_at: u64,
}

fn number(value: &[u8]) -> u64 {
    value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

impl Aggregator for Count {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.reject_at = config.parse("reject_at")?.unwrap_or(0);
        self.trap_at = config.parse("trap_at")?.unwrap_or(0);
        Ok(())
    }

    fn add(&mut self, value: &mut Vec<u8>, _: Record<'_>) -> Result<(), Failure> {
        let count = number(value) + 1;
        assert_ne!(count, self.trap_at, "told to trap");
        if count == self.reject_at {
            return Err(Failure::reject("told to reject"));
        }
        *value = count.to_string().into_bytes();
        Ok(())
    }

    fn subtract(&mut self, value: &mut Vec<u8>, _: Record<'_>) -> Result<(), Failure> {
        *value = (number(value) - 1).to_string().into_bytes();
        Ok(())
    }

    fn merge(&mut self, value: &mut Vec<u8>, other: &[u8]) -> Result<(), Failure> {
        *value = (number(value) + number(other)).to_string().into_bytes();
        Ok(())
    }
}

pelton_sdk::export_aggregator!(Count);
