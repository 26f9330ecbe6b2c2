//! Keeps the records of which a condition is true. The language of conditions is in `plugins/fields`.

use fields::{Condition, choice};
use pelton_sdk::{Config, Failure, Out, Record, Transform};

/// The plugin.
#[derive(Default)]
pub struct Filter(Option<Settings>);

struct Settings {
    condition: Condition,
    unknown: Unknown,
    null_value: NullValue,
}

#[derive(Clone, Copy)]
enum Unknown {
    Drop,
    Pass,
    Reject,
}

#[derive(Clone, Copy)]
enum NullValue {
    Pass,
    Drop,
    Test,
}

impl Transform for Filter {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let condition = Condition::parse(config.get("where").unwrap_or_default());
        let unknowns = [("drop", Unknown::Drop), ("pass", Unknown::Pass), ("reject", Unknown::Reject)];
        let null_values = [("pass", NullValue::Pass), ("drop", NullValue::Drop), ("test", NullValue::Test)];
        self.0 = Some(Settings {
            condition: condition.map_err(|error| format!("where {error}"))?,
            unknown: choice("unknown", config.get("unknown"), &unknowns)?,
            null_value: choice("null_value", config.get("null_value"), &null_values)?,
        });
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let settings = self.0.as_ref().ok_or_else(|| Failure::Fatal("it was not configured".to_owned()))?;
        if settings.passes(record)? {
            out.keep(record);
        }
        Ok(())
    }
}

impl Settings {
    fn passes(&self, record: Record<'_>) -> Result<bool, Failure> {
        match (record.value(), self.null_value) {
            (None, NullValue::Pass) => return Ok(true),
            (None, NullValue::Drop) => return Ok(false),
            (None, NullValue::Test) | (Some(_), _) => {}
        }
        match (self.condition.judge(record).map_err(Failure::Reject)?, self.unknown) {
            (Some(is_true), _) => Ok(is_true),
            (None, Unknown::Drop) => Ok(false),
            (None, Unknown::Pass) => Ok(true),
            (None, Unknown::Reject) => Err(Failure::reject(
                "the condition is neither true nor false, since a field of it is not there, null, or of another type",
            )),
        }
    }
}

pelton_sdk::export_transform!(Filter);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, TestRecord, run};

    use super::*;

    fn config<'a>(of: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let defaults = [("unknown", "drop"), ("null_value", "pass")];
        let rest = defaults.into_iter().filter(|(key, _)| of.iter().all(|(given, _)| given != key));
        of.iter().copied().chain(rest).collect()
    }

    /// The places of the records that pass.
    fn passed(of: &[(&str, &str)], given: &[TestRecord]) -> Vec<usize> {
        let given: Vec<TestRecord> = given
            .iter()
            .enumerate()
            .map(|(i, record)| TestRecord { timestamp: 1_000 + i as i64, ..record.clone() })
            .collect();
        let out = run::<Filter>(&config(of), &given).expect("is processed");
        let places: Vec<usize> = out.iter().map(|record| record.timestamp as usize - 1_000).collect();
        for (record, place) in out.iter().zip(&places) {
            assert_eq!(record, &given[*place], "it is as it was");
        }
        places
    }

    #[test]
    fn records_pass_as_they_are() {
        let header = vec![("source".to_owned(), Some(b"app-1".to_vec()))];
        let given = [
            TestRecord::value(r#" {"amount": 10.50, "id":18446744073709551615 }"#).with_key("k"),
            TestRecord::value(r#"{"amount":10}"#),
            TestRecord::value(r#"{"amount":"11"}"#),
            TestRecord::value(r#"{"amount":null}"#),
            TestRecord { headers: header, ..TestRecord::value("{}") },
            TestRecord::default().with_key("gone"),
        ];
        let over = "json:amount > 10";
        assert_eq!(passed(&[("where", over)], &given), [0, 5]);
        assert_eq!(passed(&[("where", over), ("unknown", "pass")], &given), [0, 2, 3, 4, 5]);
        assert_eq!(passed(&[("where", over), ("null_value", "drop")], &given), [0]);
        let by_key = [("where", "json:amount > 10 or key = 'gone'"), ("null_value", "test")];
        assert_eq!(passed(&by_key, &given), [0, 5]);
        assert_eq!(passed(&[("where", "header:source starts with 'app-'")], &given), [4, 5]);
    }

    #[test]
    fn a_value_that_is_not_json_fails_alone() {
        let given = [TestRecord::value("{\"a\":2}"), TestRecord::value("{\"a\":"), TestRecord::value("{}")];
        let strict = config(&[("where", "json:a > 1"), ("unknown", "reject")]);
        let Err(RunError::Rejected(rejected)) = run::<Filter>(&strict, &given) else { panic!("is rejected") };
        let [(1, not_json), (2, unknown)] = &rejected[..] else { panic!("{rejected:?}") };
        assert!(not_json.starts_with("the value is not JSON: EOF"), "{not_json}");
        assert!(unknown.contains("neither true nor false"), "{unknown}");
    }

    #[test]
    fn a_wrong_condition_is_refused() {
        for (of, expect) in [
            (
                &[("where", "json:a >> 1")][..],
                "where has `> 1` at character 9, where a number, a text in quotes",
            ),
            (&[("where", "")], "where ends where a field"),
            (
                &[("where", "json:a = 1"), ("unknown", "keep")],
                "unknown is `keep`, but must be one of `drop`, `pass`",
            ),
            (&[("where", "json:a = 1"), ("null_value", "x")], "null_value is `x`"),
        ] {
            let Err(RunError::Configure(error)) = run::<Filter>(&config(of), &[]) else { panic!("{expect}") };
            assert!(error.starts_with(expect), "{error}");
        }
    }
}
