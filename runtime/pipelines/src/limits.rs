//! What an operator says of a pipeline while it runs: it belongs to the pipeline, not to a revision, and comes before what
//! `pipeline.toml` and `plugin.toml` say.

use pelton_streams::limits::{LimitError, LimitsSpec, PluginLimits};
use pelton_streams::values::ByteSize;
use serde::{Deserialize, Serialize};

use crate::lanes::Lane;

/// The most lines a second that a pipeline may be allowed.
pub const LOG_LINES_MAX: u32 = 100_000;
/// Percent of a core that a pipeline may be given at the most.
pub const CPU_PERCENT_MAX: u32 = 100_000;

/// The limits of one pipeline; `None`: as its manifest and its plugins say, and no limit of CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineLimits {
    /// CPU of its drivers, in percent of one core: 50 is half of one. Its lanes have an equal part each, 1 at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Log lines that are kept of a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_lines: Option<u32>,
    /// Linear memory of each instance of a plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Milliseconds of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u32>,
    /// Bytes that one answer may emit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<ByteSize>,
    /// Bytes that one call may write to its stores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ByteSize>,
}

impl PipelineLimits {
    /// These, and what others say that they do not.
    #[must_use]
    pub fn or(self, others: PipelineLimits) -> PipelineLimits {
        PipelineLimits {
            cpu_percent: self.cpu_percent.or(others.cpu_percent),
            log_lines: self.log_lines.or(others.log_lines),
            memory: self.memory.or(others.memory),
            deadline_ms: self.deadline_ms.or(others.deadline_ms),
            output: self.output.or(others.output),
            state: self.state.or(others.state),
        }
    }

    /// What is said of its plugins.
    pub fn of_plugins(&self) -> LimitsSpec {
        LimitsSpec {
            memory: self.memory,
            deadline_ms: self.deadline_ms,
            output: self.output,
            state: self.state,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first that is outside its range.
    pub fn check(&self) -> Result<(), LimitError> {
        let range = |key, given: Option<u32>, min: u32, max: u32| match given {
            Some(given) if !(min..=max).contains(&given) => {
                let (given, min, max) = (given.to_string(), min.to_string(), max.to_string());
                Err(LimitError { key, given, min, max })
            }
            _ => Ok(()),
        };
        range("cpu_percent", self.cpu_percent, 1, CPU_PERCENT_MAX)?;
        range("log_lines", self.log_lines, 0, LOG_LINES_MAX)?;
        PluginLimits::resolve(&self.of_plugins(), &LimitsSpec::default()).map(drop)
    }

    /// Percent of a core that each of so many lanes has.
    pub(crate) fn cpu_of_lane(percent: u32, lane: Lane) -> u32 {
        (percent / lane.of.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_now_comes_before_what_was_said() {
        let before =
            PipelineLimits { cpu_percent: Some(10), log_lines: Some(5), ..PipelineLimits::default() };
        let now = PipelineLimits {
            cpu_percent: Some(20),
            memory: Some(ByteSize::mib(8)),
            ..PipelineLimits::default()
        };
        let both = now.or(before);
        assert_eq!(
            (both.cpu_percent, both.log_lines, both.memory),
            (Some(20), Some(5), Some(ByteSize::mib(8)))
        );
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(text, r#"{"cpu_percent":20,"log_lines":5,"memory":"8 MiB"}"#);
        assert_eq!(serde_json::from_str::<PipelineLimits>(&text).unwrap(), both);
        let later = r#"{"cpu_percent":20,"of_a_later_version":1}"#;
        assert_eq!(serde_json::from_str::<PipelineLimits>(later).unwrap().cpu_percent, Some(20));
    }

    #[test]
    fn a_value_outside_its_range_is_named() {
        let refused = |limits: PipelineLimits| limits.check().unwrap_err().key;
        assert_eq!(
            refused(PipelineLimits { cpu_percent: Some(0), ..PipelineLimits::default() }),
            "cpu_percent"
        );
        assert_eq!(
            refused(PipelineLimits { log_lines: Some(u32::MAX), ..PipelineLimits::default() }),
            "log_lines"
        );
        assert_eq!(
            refused(PipelineLimits { deadline_ms: Some(0), ..PipelineLimits::default() }),
            "deadline_ms"
        );
        let small = Some(ByteSize::new(1));
        assert_eq!(refused(PipelineLimits { memory: small, ..PipelineLimits::default() }), "memory");
        assert_eq!(PipelineLimits { log_lines: Some(0), ..PipelineLimits::default() }.check(), Ok(()));
    }
}
