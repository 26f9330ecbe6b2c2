//! Timers of plugins on the clock: an idle pipeline wakes for them.

use std::sync::atomic::Ordering;

use pelton_streams::log::LogLevel;
use pelton_streams::task::{Outside, RecordError, StepError};

use super::{Driver, DriverError, Progress};

/// A task's timers fire no more often than this: one that is set for now each time it fires does not take the thread.
const TICK_MS: i64 = 10;

impl Driver<'_> {
    /// Has timers of a task fire that are due.
    pub(super) fn tick(&mut self, index: usize) -> Result<Progress, DriverError> {
        let now_ms = self.now_ms();
        let driver_task = &mut self.tasks[index];
        let id = driver_task.task.id();
        let failed = |error| DriverError::State { task: id, error };
        driver_task.next_tick_ms = driver_task.task.next_tick().map_err(failed)?;
        let Some(due) = driver_task.next_tick_ms else { return Ok(Progress::Idle) };
        let due = due.max(driver_task.ticked_ms.saturating_add(TICK_MS));
        driver_task.next_tick_ms = Some(due);
        // What waits in a task comes first.
        if due > now_ms || driver_task.task.is_behind().map_err(failed)? {
            return Ok(Progress::Idle);
        }
        driver_task.ticked_ms = now_ms;
        self.calling.store(id.partition, Ordering::Relaxed);
        driver_task.task.set_clock(now_ms);
        let stop = &self.spec.stop;
        let interrupted = || stop.is_set();
        let mut outside = Outside {
            plugins: &mut self.plugins,
            sink: &mut *self.io,
            globals: &self.globals,
            interrupted: &interrupted,
        };
        let ticked = driver_task.task.tick(&mut outside);
        self.counting.totals.add_calls(driver_task.task.take_calls());
        let output = match ticked {
            Ok(output) => output,
            Err(StepError::Failed(failure)) => {
                return Err(match failure.error {
                    RecordError::State(error) => failed(error),
                    _ => DriverError::Task(failure),
                });
            }
            Err(StepError::Retry { delay_ms, attempt, attempts, failure }) => {
                driver_task.not_before_ms = now_ms.saturating_add(i64::from(delay_ms));
                let text = format!("{failure}; attempt {attempt} of {attempts} in {delay_ms} ms");
                self.spec.board.say(&failure.node, failure.partition, LogLevel::Warn, &text);
                return Ok(Progress::Idle);
            }
        };
        self.io.flush()?;
        output.notices.iter().for_each(|notice| self.say_notice(notice));
        self.counting.totals.add(&output.counts);
        self.uncommitted.bytes += output.counts.bytes_out;
        self.uncommitted.since_ms.get_or_insert(now_ms);
        Ok(Progress::Some)
    }
}
