//! Parts records by a field: each output takes the values that are named for it.

use fields::{Field, Match, Reader, choice, fields, matches};
use pelton_sdk::{Config, Failure, Out, Record, Transform};

/// Outputs beside `rest`, which is the first one.
const OUTPUTS: u32 = 16;

/// The plugin.
#[derive(Default)]
pub struct Route(Option<Settings>);

struct Settings {
    by: Field,
    reader: Reader,
    /// What the outputs that are in use take, with their numbers.
    outputs: Vec<(u32, Vec<Match>)>,
    unmatched: Unmatched,
    null_value: NullValue,
}

#[derive(Clone, Copy)]
enum Unmatched {
    Rest,
    Drop,
    Reject,
}

#[derive(Clone, Copy)]
enum NullValue {
    All,
    Rest,
    Drop,
}

impl Transform for Route {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let named = fields(config.get("by").unwrap_or_default()).map_err(|error| format!("by {error}"))?;
        let [by] = &named[..] else {
            return Err(format!("by names {} fields, and must name one", named.len()));
        };
        let unmatched = [("rest", Unmatched::Rest), ("drop", Unmatched::Drop), ("reject", Unmatched::Reject)];
        let null_values = [("all", NullValue::All), ("rest", NullValue::Rest), ("drop", NullValue::Drop)];
        self.0 = Some(Settings {
            by: by.clone(),
            reader: Reader::new(vec![by.clone()]),
            outputs: outputs(config)?,
            unmatched: choice("unmatched", config.get("unmatched"), &unmatched)?,
            null_value: choice("null_value", config.get("null_value"), &null_values)?,
        });
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let settings = self.0.as_ref().ok_or_else(|| Failure::Fatal("it was not configured".to_owned()))?;
        settings.route(record, out)
    }
}

/// What each output takes. No value is named twice, and at least one output is in use.
fn outputs(config: &Config) -> Result<Vec<(u32, Vec<Match>)>, String> {
    let mut outputs: Vec<(u32, Vec<Match>)> = Vec::new();
    for output in 1..=OUTPUTS {
        let key = format!("out{output}");
        let setting = config.get(&key).unwrap_or_default();
        if setting.trim().is_empty() {
            continue;
        }
        let takes = matches(setting).map_err(|error| format!("{key} {error}"))?;
        for (place, one) in takes.iter().enumerate() {
            let before = outputs.iter().find(|(_, takes)| takes.contains(one)).map(|(before, _)| *before);
            if let Some(before) = before.or(takes[..place].contains(one).then_some(output)) {
                return Err(format!(
                    "{key}: its value {} is one that out{before} takes already, so no record would come here for it",
                    place + 1
                ));
            }
        }
        outputs.push((output, takes));
    }
    if outputs.is_empty() {
        return Err(
            "out1 to out16 are all empty: name what an output takes, as out1 = \"'eu', 'uk'\"".to_owned()
        );
    }
    Ok(outputs)
}

impl Settings {
    fn route(&self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        if record.value().is_none() && matches!(self.by, Field::Json(_) | Field::Raw) {
            match self.null_value {
                NullValue::All => self.outputs.iter().for_each(|(output, _)| {
                    out.keep(record).to(*output);
                }),
                NullValue::Rest | NullValue::Drop => {}
            }
            if matches!(self.null_value, NullValue::All | NullValue::Rest) {
                out.keep(record).to(0);
            }
            return Ok(());
        }
        let found = self.reader.read(record).map_err(Failure::Reject)?;
        let value = found.first().and_then(Option::as_ref);
        let fits = self.outputs.iter().find(|(_, takes)| takes.iter().any(|one| one.takes(value)));
        match (fits, self.unmatched) {
            (Some((output, _)), _) => {
                out.keep(record).to(*output);
            }
            (None, Unmatched::Rest) => {
                out.keep(record).to(0);
            }
            (None, Unmatched::Drop) => {}
            (None, Unmatched::Reject) => {
                return Err(Failure::reject(format!("no output takes what is in `{}`", self.by)));
            }
        }
        Ok(())
    }
}

pelton_sdk::export_transform!(Route);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, TestRecord, run};

    use super::*;

    fn config<'a>(of: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let defaults = [("unmatched", "rest"), ("null_value", "all")];
        let rest = defaults.into_iter().filter(|(key, _)| of.iter().all(|(given, _)| given != key));
        of.iter().copied().chain(rest).collect()
    }

    /// The value and the output of each record that comes out.
    fn routed(of: &[(&str, &str)], given: &[TestRecord]) -> Vec<(String, u32)> {
        let out = run::<Route>(&config(of), given).expect("is processed");
        out.iter().map(|record| (record.text(), record.output)).collect()
    }

    fn regions() -> Vec<TestRecord> {
        [r#"{"r":"eu"}"#, r#"{"r":"eu-west"}"#, r#"{"r":7.0}"#, r#"{"r":null}"#, "{}", r#"{"r":["eu"]}"#]
            .map(TestRecord::value)
            .to_vec()
    }

    const BY_REGION: [(&str, &str); 4] =
        [("by", "json:r"), ("out1", "'eu', 7"), ("out3", "starts with 'eu'"), ("out16", "null")];

    #[test]
    fn records_leave_by_what_is_in_a_field() {
        let outputs = |of: &[(&str, &str)]| -> Vec<u32> {
            routed(of, &regions()).into_iter().map(|(_, output)| output).collect()
        };
        assert_eq!(outputs(&BY_REGION), [1, 3, 1, 16, 16, 0]);
        let dropping = [&BY_REGION[..], &[("unmatched", "drop")]].concat();
        assert_eq!(outputs(&dropping), [1, 3, 1, 16, 16]);
        let of_headers = TestRecord {
            headers: vec![("to".to_owned(), Some(b"a".to_vec()))],
            timestamp: 5,
            ..TestRecord::value("not JSON").with_key("k")
        };
        let by_header = config(&[("by", "header:to"), ("out2", "'a'")]);
        let out = run::<Route>(&by_header, std::slice::from_ref(&of_headers)).expect("is processed");
        assert_eq!(out, [TestRecord { output: 2, ..of_headers }]);
    }

    #[test]
    fn a_record_without_a_value_goes_everywhere() {
        let gone = [TestRecord::default().with_key("eu")];
        let outputs = |of: &[(&str, &str)]| -> Vec<u32> {
            routed(of, &gone).into_iter().map(|(_, output)| output).collect()
        };
        assert_eq!(outputs(&BY_REGION), [1, 3, 16, 0]);
        assert_eq!(outputs(&[&BY_REGION[..], &[("null_value", "rest")]].concat()), [0]);
        assert_eq!(outputs(&[&BY_REGION[..], &[("null_value", "drop")]].concat()), [] as [u32; 0]);
        // Its key is there.
        assert_eq!(outputs(&[("by", "key"), ("out1", "'us'"), ("out2", "'eu'")]), [2]);
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        let of = config(&[&BY_REGION[..], &[("unmatched", "reject")]].concat());
        let given =
            [TestRecord::value("{\"r\":1}"), TestRecord::value("{\"r\":\"eu\"}"), TestRecord::value("x")];
        let Err(RunError::Rejected(rejected)) = run::<Route>(&of, &given) else { panic!("is rejected") };
        let [(0, unmatched), (2, not_json)] = &rejected[..] else { panic!("{rejected:?}") };
        assert_eq!(unmatched, "no output takes what is in `json:r`");
        assert!(not_json.starts_with("the value is not JSON"), "{not_json}");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (of, expect) in [
            (&[("by", ""), ("out1", "1")][..], "by names 0 fields"),
            (&[("by", "json:a, json:b"), ("out1", "1")], "by names 2 fields"),
            (&[("by", "region"), ("out1", "1")], "by has `region` at character 1, where a field"),
            (&[("by", "json:a"), ("out2", "eu")], "out2 has `eu` at character 1, where a number"),
            (&[("by", "json:a")], "out1 to out16 are all empty"),
            (
                &[("by", "json:a"), ("out1", "1"), ("out2", "2, 1.0")],
                "out2: its value 2 is one that out1 takes",
            ),
            (&[("by", "json:a"), ("out1", "'a', 'a'")], "out1: its value 2 is one that out1 takes"),
            (&[("by", "json:a"), ("out1", "1"), ("unmatched", "x")], "unmatched is `x`"),
        ] {
            let Err(RunError::Configure(error)) = run::<Route>(&config(of), &[]) else { panic!("{expect}") };
            assert!(error.starts_with(expect), "{error}");
        }
    }
}
