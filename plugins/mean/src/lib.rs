//! Count, sum and mean of values that are numbers: `{"count":2,"sum":7,"mean":3.5}`. The result is all that is kept, so count and sum
//! are read back from it.

use pelton_sdk::{Aggregator, Failure, Record};

/// The plugin.
#[derive(Default)]
pub struct Mean;

/// What a result says.
#[derive(Default)]
struct Sum {
    count: u64,
    sum: f64,
}

impl Sum {
    fn read(value: &[u8]) -> Result<Sum, Failure> {
        if value.is_empty() {
            return Ok(Sum::default());
        }
        let fields = || {
            let text = std::str::from_utf8(value).ok()?.strip_prefix("{\"count\":")?;
            let (count, rest) = text.split_once(",\"sum\":")?;
            let (sum, _) = rest.split_once(",\"mean\":")?;
            Some(Sum { count: count.parse().ok()?, sum: sum.parse().ok()? })
        };
        fields().ok_or_else(|| Failure::Fatal("what is kept is no result of this plugin".to_owned()))
    }

    fn write(&self, value: &mut Vec<u8>) {
        let Sum { count, sum } = self;
        let mean = if *count == 0 { "null".to_owned() } else { (sum / *count as f64).to_string() };
        *value = format!("{{\"count\":{count},\"sum\":{sum},\"mean\":{mean}}}").into_bytes();
    }
}

fn number(record: Record<'_>) -> Result<f64, Failure> {
    let text = record.value().and_then(|value| std::str::from_utf8(value).ok());
    let number = text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|number| number.is_finite());
    number.ok_or_else(|| Failure::reject("the value is no number"))
}

impl Aggregator for Mean {
    fn add(&mut self, value: &mut Vec<u8>, record: Record<'_>) -> Result<(), Failure> {
        let (sum, number) = (Sum::read(value)?, number(record)?);
        Sum { count: sum.count + 1, sum: sum.sum + number }.write(value);
        Ok(())
    }

    fn subtract(&mut self, value: &mut Vec<u8>, record: Record<'_>) -> Result<(), Failure> {
        let (sum, number) = (Sum::read(value)?, number(record)?);
        Sum { count: sum.count.saturating_sub(1), sum: sum.sum - number }.write(value);
        Ok(())
    }

    fn merge(&mut self, value: &mut Vec<u8>, other: &[u8]) -> Result<(), Failure> {
        let (left, right) = (Sum::read(value)?, Sum::read(other)?);
        Sum { count: left.count + right.count, sum: left.sum + right.sum }.write(value);
        Ok(())
    }
}

pelton_sdk::export_aggregator!(Mean);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{AggregateRun, RunError, TestRecord};

    use super::*;

    fn shown(value: &[u8]) -> &str {
        std::str::from_utf8(value).expect("is text")
    }

    #[test]
    fn numbers_come_and_go_and_groups_meet() {
        let mut run = AggregateRun::<Mean>::new(&[]);
        let number = |text: &str| TestRecord::value(text);
        assert_eq!(shown(run.add("a", &number("3")).unwrap()), r#"{"count":1,"sum":3,"mean":3}"#);
        assert_eq!(shown(run.add("a", &number("4.5")).unwrap()), r#"{"count":2,"sum":7.5,"mean":3.75}"#);
        run.add("b", &number("-1")).unwrap();
        assert_eq!(shown(run.merge("a", "b").unwrap()), r#"{"count":3,"sum":6.5,"mean":2.1666666666666665}"#);
        assert_eq!(shown(run.subtract("a", &number("4.5")).unwrap()), r#"{"count":2,"sum":2,"mean":1}"#);
    }

    #[test]
    fn what_is_no_number_is_rejected() {
        let mut run = AggregateRun::<Mean>::new(&[]);
        let rejected = run.add("a", &TestRecord::value("x")).expect_err("is rejected");
        assert_eq!(rejected, RunError::Rejected(vec![(0, "the value is no number".to_owned())]));
    }
}
