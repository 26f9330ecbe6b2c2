//! A transform with timers: `record` sees a record, `fire` a timer that is due.

use pelton_sdk::{Config, Emit, Failure, Out, Record, Stores, Timer, TimerDomain, TimerTransform, Timers};

/// Says of each key that no record of it has come for a while.
#[derive(Default)]
struct Plugin {
    after_ms: i64,
}

impl TimerTransform for Plugin {
    /// Called once, with the settings of plugin.toml and pipeline.toml.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        self.after_ms = config.parse("after_ms")?.unwrap_or(60_000);
        Ok(())
    }

    fn record(
        &mut self,
        record: Record<'_>,
        _stores: &mut Stores<'_>,
        timers: &mut Timers<'_>,
        _out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let key = record.key().ok_or_else(|| Failure::reject("there is no key"))?;
        // A timer for each key, which every record moves.
        let at = timers.clock() + self.after_ms;
        timers.set(TimerDomain::WallClock, key, at);
        Ok(())
    }

    fn fire(
        &mut self,
        timer: &Timer,
        _stores: &mut Stores<'_>,
        _timers: &mut Timers<'_>,
        emit: &mut Emit,
    ) -> Result<(), Failure> {
        emit.record(Some(&timer.name), Some(b"quiet"), timer.at);
        Ok(())
    }
}

pelton_sdk::export_timer_transform!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{TestRecord, TimerRun};

    #[test]
    fn a_key_that_is_quiet_is_told() {
        let mut run = TimerRun::<Plugin>::new(&[("after_ms", "1000")]);
        run.give(&[TestRecord::value("x").with_key("a")]).unwrap();
        assert_eq!(run.tick(999).unwrap(), []);
        assert_eq!(run.tick(1_000).unwrap()[0].text(), "quiet");
    }
}
