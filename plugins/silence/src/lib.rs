//! Says of which keys there was no news for a while: once for each silence. A message has the key, the time of its last record as
//! value, and the time at which the silence was long enough. The records themselves are not handed on.

use pelton_sdk::{Config, Emit, Failure, Out, Record, Stores, Timer, TimerDomain, TimerTransform, Timers};

/// The plugin.
pub struct Silence {
    after_ms: i64,
    domain: TimerDomain,
}

impl Default for Silence {
    fn default() -> Silence {
        Silence { after_ms: 300_000, domain: TimerDomain::StreamTime }
    }
}

impl TimerTransform for Silence {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.after_ms = config.parse("after_ms")?.unwrap_or(self.after_ms);
        self.domain = match config.get("clock") {
            None | Some("records") => TimerDomain::StreamTime,
            Some("machine") => TimerDomain::WallClock,
            Some(other) => return Err(format!("clock is `{other}`, but must be `records` or `machine`")),
        };
        if self.after_ms < 1 { Err("after_ms must be at least 1".to_owned()) } else { Ok(()) }
    }

    fn record(
        &mut self,
        record: Record<'_>,
        _: &mut Stores<'_>,
        timers: &mut Timers<'_>,
        _: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let key = record.key().ok_or_else(|| Failure::reject("there is no key"))?;
        let now = match self.domain {
            TimerDomain::StreamTime => record.timestamp(),
            TimerDomain::WallClock => timers.clock(),
        };
        if now < 0 {
            return Err(Failure::reject("the record has no time"));
        }
        // One for each key, which every record moves.
        timers.set(self.domain, key, now + self.after_ms);
        Ok(())
    }

    fn fire(
        &mut self,
        timer: &Timer,
        _: &mut Stores<'_>,
        _: &mut Timers<'_>,
        emit: &mut Emit,
    ) -> Result<(), Failure> {
        let last = (timer.at - self.after_ms).to_string();
        emit.record(Some(&timer.name), Some(last.as_bytes()), timer.at);
        Ok(())
    }
}

pelton_sdk::export_timer_transform!(Silence);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, TestRecord, TimerRun};

    use super::*;

    fn at(key: &str, timestamp: i64) -> TestRecord {
        TestRecord { timestamp, ..TestRecord::value("news").with_key(key) }
    }

    fn shown(out: &[TestRecord]) -> Vec<String> {
        let one = |record: &TestRecord| {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            format!("{key} since {} at {}", record.text(), record.timestamp)
        };
        out.iter().map(one).collect()
    }

    #[test]
    fn a_silence_is_told_once() {
        let mut run = TimerRun::<Silence>::new(&[("after_ms", "100")]);
        assert_eq!(shown(&run.give(&[at("a", 0), at("b", 50), at("a", 99)]).unwrap()), [""; 0]);
        assert_eq!(shown(&run.give(&[at("c", 160)]).unwrap()), ["b since 50 at 150"]);
        let out = run.give(&[at("b", 500), at("b", 501)]).unwrap();
        assert_eq!(shown(&out), ["a since 99 at 199", "c since 160 at 260"]);
    }

    #[test]
    fn the_machines_clock_needs_no_records() {
        let mut run = TimerRun::<Silence>::new(&[("after_ms", "100"), ("clock", "machine")]);
        assert_eq!(shown(&run.tick(1_000).unwrap()), [""; 0]);
        run.give(&[at("a", 5)]).unwrap();
        assert_eq!(shown(&run.tick(1_099).unwrap()), [""; 0]);
        assert_eq!(shown(&run.tick(1_100).unwrap()), ["a since 1000 at 1100"]);
        assert_eq!(shown(&run.tick(9_000).unwrap()), [""; 0]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut run = TimerRun::<Silence>::new(&[("clock", "moon")]);
        assert!(matches!(run.give(&[]), Err(RunError::Configure(_))));
        let mut run = TimerRun::<Silence>::new(&[]);
        assert!(matches!(run.give(&[TestRecord::value("x")]), Err(RunError::Rejected(_))));
    }
}
