//! Counts the events of each key. Producers that try again send an event twice: a record with the key and the value of another
//! one, at about the same time, is the same event and is left out.

use pelton_sdk::{Config, Failure, Out, Reads, Record, StateTransform, Stores};

/// How many events of a key there were.
const COUNTS: &str = "counts";
/// When an event came: the window that begins at its time.
const EVENTS: &str = "events";

/// The plugin.
#[derive(Default)]
pub struct CountOnce {
    within_ms: i64,
}

impl StateTransform for CountOnce {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.within_ms = config.parse("within_ms")?.unwrap_or(600_000);
        if self.within_ms < 0 { Err("within_ms is negative".to_owned()) } else { Ok(()) }
    }

    fn reads(&mut self, record: Record<'_>, reads: &mut Reads) {
        reads.key(COUNTS, record.key().unwrap_or_default());
    }

    fn record(
        &mut self,
        record: Record<'_>,
        stores: &mut Stores<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let (Some(key), Some(value)) = (record.key(), record.value()) else {
            return Err(Failure::reject("an event has a key and a value"));
        };
        let time = record.timestamp();
        if time < 0 {
            return Err(Failure::reject("the record has no time"));
        }
        let event = event(key, value);
        let (first, last) = (time.saturating_sub(self.within_ms), time.saturating_add(self.within_ms));
        if !stores.windows_of(EVENTS, &event, first, last, 1).windows.is_empty() {
            return Ok(());
        }
        stores.put_window(EVENTS, &event, time, []);
        let before =
            stores.get(COUNTS, key).and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk()?)));
        let count = before.unwrap_or(0) + 1;
        stores.put(COUNTS, key, count.to_be_bytes());
        out.value(record, count.to_string());
        Ok(())
    }
}

/// Key and value as one: the length of the key tells where it ends.
fn event(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&(key.len() as u32).to_be_bytes()[..], key, value].concat()
}

pelton_sdk::export_state_transform!(CountOnce);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, StateRun, TestRecord};

    use super::*;

    fn at(timestamp: i64, key: &str, value: &str) -> TestRecord {
        TestRecord { timestamp, ..TestRecord::value(value).with_key(key) }
    }

    fn run() -> StateRun<CountOnce> {
        StateRun::new(&[("within_ms", "100")]).with_store(COUNTS).with_windows(EVENTS, 1_000)
    }

    fn counts(out: &[TestRecord]) -> Vec<String> {
        let count = |record: &TestRecord| {
            format!(
                "{}={}",
                String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()),
                record.text()
            )
        };
        out.iter().map(count).collect()
    }

    #[test]
    fn an_event_that_repeats_is_counted_once() {
        let mut run = run();
        let out = run.give(&[at(0, "a", "x"), at(50, "a", "x"), at(60, "b", "x"), at(70, "a", "y")]);
        assert_eq!(counts(&out.expect("is fine")), ["a=1", "b=1", "a=2"]);
        // In the next batch as well, until it is long enough ago.
        let out = run.give(&[at(100, "a", "x"), at(101, "a", "x"), at(20, "a", "x")]);
        assert_eq!(counts(&out.expect("is fine")), ["a=3"]);
        assert_eq!(run.entry(COUNTS, "a"), Some(&3_u64.to_be_bytes()[..]));
    }

    #[test]
    fn what_is_no_event_is_named_and_changes_nothing() {
        let mut run = run();
        let records = [at(0, "a", "x"), TestRecord::value("x"), at(-1, "a", "y")];
        let rejected = run.give(&records).expect_err("is rejected");
        let reasons = [(1, "an event has a key and a value"), (2, "the record has no time")];
        let reasons = reasons.map(|(index, reason)| (index, reason.to_owned())).to_vec();
        assert_eq!(rejected, RunError::Rejected(reasons));
        assert_eq!((run.len_of(COUNTS), run.len_of(EVENTS)), (0, 0));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let mut run = StateRun::<CountOnce>::new(&[("within_ms", "-1")]);
        assert!(matches!(run.give(&[]), Err(RunError::Configure(_))));
    }
}
