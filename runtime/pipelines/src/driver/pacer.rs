//! Keeps a driver within its share of a core: what it has used too much it rests for.

use std::time::Duration;

use super::{Driver, DriverError, PUBLISH_MS};
use crate::cpu::CpuUse;
use crate::limits::PipelineLimits;

/// CPU that a thread has used since it began to count, in microseconds.
pub(crate) type CpuUs = Box<dyn Fn() -> u64>;
/// Begins to count what the calling thread uses.
pub(crate) type StartCpu = fn() -> CpuUs;

/// What may be used at once, in time of a whole core: a share of a small one is not a rest behind each step.
const BURST_US: i64 = 20_000;
/// The most that is owed: one long stretch at once, as a restore, is not rested for longer than for a second of it.
const DEBT_MAX_US: i64 = 1_000_000;
/// The longest rest at once: then a pause, a stop or another share is answered, and a commit that is due is made.
const SLICE: Duration = Duration::from_millis(20);

/// One thread's.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// CPU that was used and is not covered by the share of the time since; negative: what is saved.
    debt_us: i64,
    cpu_us: u64,
    at_ms: i64,
}

impl Pacer {
    /// How long to rest now, if its thread has `percent` of a core, has used `cpu_us` in all, and it is `now_ms`. Asked before
    /// each step.
    pub(super) fn rest(
        &mut self,
        percent: Option<u32>,
        cpu_us: u64,
        now_ms: i64,
        counts: &CpuUse,
    ) -> Option<Duration> {
        let used = cpu_us.saturating_sub(std::mem::replace(&mut self.cpu_us, cpu_us));
        let passed_ms = now_ms.saturating_sub(std::mem::replace(&mut self.at_ms, now_ms));
        let Some(percent) = percent.map(i64::from) else {
            self.debt_us = 0;
            counts.add(used, 0);
            return None;
        };
        // A second that was not used is not saved, and a clock that goes back gives nothing.
        let covered = passed_ms.clamp(0, 1_000) * 1_000 * percent / 100;
        let used_us = i64::try_from(used).unwrap_or(i64::MAX);
        let owed = self.debt_us.saturating_add(used_us).min(DEBT_MAX_US);
        self.debt_us = owed.saturating_sub(covered).max(-BURST_US * percent / 100);
        let rest = u64::try_from(self.debt_us.saturating_mul(100) / percent).ok().filter(|rest| *rest > 0);
        let rest = rest.map(|us| Duration::from_micros(us).min(SLICE));
        counts.add(used, rest.map_or(0, |rest| u64::try_from(rest.as_micros()).unwrap_or(u64::MAX)));
        rest
    }
}

impl Driver<'_> {
    /// How long to rest, because the share of CPU is used up. What is due meanwhile is done.
    pub(super) fn spent(&mut self) -> Result<Option<Duration>, DriverError> {
        let counts = self.spec.board.cpu();
        let percent = counts.percent().map(|percent| PipelineLimits::cpu_of_lane(percent, self.spec.lane));
        let rest = self.pacer.rest(percent, (self.cpu_us)(), self.spec.clock.now_ms(), counts);
        if rest.is_some() {
            self.commit_when_due()?;
            self.publish_when_due();
        }
        Ok(rest)
    }

    pub(super) fn publish_when_due(&mut self) {
        if self.now_ms().saturating_sub(self.published_ms) >= PUBLISH_MS {
            self.publish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps that use 5 ms each, for ten seconds by the clock. CPU in ms, and rests in ms.
    fn run(percent: Option<u32>) -> (u64, u64) {
        let (mut pacer, counts) = (Pacer { at_ms: 1_000, ..Pacer::default() }, CpuUse::default());
        let (mut cpu_us, mut now_us) = (0_u64, 1_000_000_u64);
        while now_us < 11_000_000 {
            match pacer.rest(percent, cpu_us, i64::try_from(now_us / 1_000).unwrap(), &counts) {
                Some(rest) => now_us += u64::try_from(rest.as_micros()).unwrap(),
                None => (cpu_us, now_us) = (cpu_us + 5_000, now_us + 5_000),
            }
        }
        let (_, rested) = counts.so_far();
        (cpu_us / 1_000, u64::try_from(rested.as_millis()).unwrap())
    }

    #[test]
    fn a_busy_driver_has_its_share() {
        for percent in [1, 10, 25, 50, 90] {
            let (cpu_ms, rested_ms) = run(Some(percent));
            let expect = u64::from(percent) * 100;
            assert!(cpu_ms.abs_diff(expect) <= expect / 10 + 25, "{percent}: {cpu_ms}");
            assert!(rested_ms.abs_diff(10_000 - cpu_ms) <= 50, "{percent}: {rested_ms}");
        }
        assert_eq!(run(None), (10_000, 0));
        assert_eq!(run(Some(100)).0, 10_000);
    }

    #[test]
    fn a_long_restore_is_not_rested_for_as_long_again() {
        let (mut pacer, counts) = (Pacer::default(), CpuUse::default());
        // A minute of CPU at once, with half of a core: a second of rest more, not another minute.
        assert_eq!(pacer.rest(Some(50), 60_000_000, 60_000, &counts), Some(SLICE));
        assert_eq!(pacer.rest(Some(50), 60_000_000, 60_900, &counts), Some(SLICE));
        assert_eq!(pacer.rest(Some(50), 60_000_000, 61_000, &counts), None);
    }

    #[test]
    fn what_was_not_used_is_saved_for_a_moment_alone() {
        let (mut pacer, counts) = (Pacer { at_ms: 0, ..Pacer::default() }, CpuUse::default());
        assert_eq!(pacer.rest(Some(50), 0, 60_000, &counts), None);
        // 10 ms are saved, so 30 ms of CPU cost 40 ms of rest, in slices.
        assert_eq!(pacer.rest(Some(50), 30_000, 60_000, &counts), Some(SLICE));
        assert_eq!(pacer.rest(Some(50), 30_000, 60_030, &counts), Some(Duration::from_millis(10)));
        assert_eq!(pacer.rest(Some(50), 30_000, 60_040, &counts), None);
        // Another share holds at once, and no share forgets what was owed.
        assert_eq!(pacer.rest(Some(1), 130_000, 60_040, &counts), Some(SLICE));
        assert_eq!(pacer.rest(None, 130_000, 60_040, &counts), None);
        assert_eq!(pacer.rest(Some(1), 130_000, 60_040, &counts), None);
        assert_eq!(counts.so_far().0, Duration::from_millis(130));
    }
}
