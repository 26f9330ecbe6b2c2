//! The limits of a plugin, with the defaults and the largest values that a manifest may ask for.

use serde::Deserialize;

use crate::values::ByteSize;

/// Linear memory of one instance when neither manifest says otherwise. Room for a batch of 16 MiB, its copy and a
/// garbage collected heap; a Rust guest uses 1–2 MiB.
pub const DEFAULT_MEMORY: ByteSize = ByteSize::mib(64);
/// The most memory that a manifest may ask for. One instance runs for each node of a pipeline.
pub const MAX_MEMORY: ByteSize = ByteSize::mib(1024);
/// One Wasm page: no compiled language starts with less.
pub const MIN_MEMORY: ByteSize = ByteSize::new(64 * 1024);

/// Wall-clock time of one call when neither manifest says otherwise. A batch of 500 records takes microseconds in a
/// compiled guest and milliseconds in Python; the rest is for a machine that is busy.
pub const DEFAULT_DEADLINE_MS: u32 = 1_000;
/// A call holds its pipeline's thread for as long as this, so pause and stop wait for it.
pub const MAX_DEADLINE_MS: u32 = 60_000;

/// Bytes of one answer (what it emits, inherited columns included) when neither manifest says otherwise.
pub const DEFAULT_OUTPUT: ByteSize = ByteSize::mib(16);
/// Answers are held in memory whole until they are appended.
pub const MAX_OUTPUT: ByteSize = ByteSize::mib(256);

/// Bytes that one call may write to its stores when neither manifest says otherwise.
pub const DEFAULT_STATE: ByteSize = ByteSize::mib(16);
/// Writes are held in memory until they are committed. A task whose stores have changed more ends its transaction early.
pub const MAX_STATE: ByteSize = ByteSize::mib(32);
/// Bytes that each entry which a call writes counts for besides its key and value.
pub const ENTRY_OVERHEAD_BYTES: u64 = 96;

/// Bytes that each emitted record counts for besides its key, value and headers, so that empty records are bounded too.
pub const RECORD_OVERHEAD_BYTES: u64 = 16;

/// Limits as `plugin.toml` and `pipeline.toml` write them. `pipeline.toml` comes before `plugin.toml` before the
/// default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// Linear memory of one instance, as `"32 MiB"`.
    pub memory: Option<ByteSize>,
    /// Wall-clock milliseconds of one call.
    pub deadline_ms: Option<u32>,
    /// Bytes that one answer may emit, as `"8 MiB"`.
    pub output: Option<ByteSize>,
    /// Bytes that one call may write to its stores, as `"16 MiB"`.
    pub state: Option<ByteSize>,
}

/// A limit outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limits.{key} is {given}, but must be between {min} and {max}")]
pub struct LimitError {
    /// The key below `limits`.
    pub key: &'static str,
    /// What was asked for.
    pub given: String,
    /// The smallest value.
    pub min: String,
    /// The largest value.
    pub max: String,
}

impl LimitError {
    pub(crate) fn key_path(&self) -> String {
        format!("limits.{}", self.key)
    }

    pub(crate) fn reason(&self) -> String {
        format!("is {}, but must be between {} and {}", self.given, self.min, self.max)
    }
}

/// The limits that one instance runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginLimits {
    /// Linear memory of the instance, in bytes.
    pub memory_bytes: u64,
    /// Wall-clock time of one call, in milliseconds.
    pub deadline_ms: u32,
    /// What one answer may emit, in bytes: keys, values, headers, and [`RECORD_OVERHEAD_BYTES`] a record.
    pub output_bytes: u64,
    /// What one call may write to its stores, in bytes: keys, values, and [`ENTRY_OVERHEAD_BYTES`] an entry.
    pub state_bytes: u64,
}

impl Default for PluginLimits {
    fn default() -> PluginLimits {
        PluginLimits {
            memory_bytes: DEFAULT_MEMORY.bytes(),
            deadline_ms: DEFAULT_DEADLINE_MS,
            output_bytes: DEFAULT_OUTPUT.bytes(),
            state_bytes: DEFAULT_STATE.bytes(),
        }
    }
}

impl PluginLimits {
    /// Each limit of the pipeline, or else of the plugin, or else the default.
    ///
    /// # Errors
    /// A value outside its range: values are not clamped.
    pub fn resolve(pipeline: &LimitsSpec, plugin: &LimitsSpec) -> Result<PluginLimits, LimitError> {
        let memory = pipeline.memory.or(plugin.memory).unwrap_or(DEFAULT_MEMORY);
        let deadline_ms = pipeline.deadline_ms.or(plugin.deadline_ms).unwrap_or(DEFAULT_DEADLINE_MS);
        let output = pipeline.output.or(plugin.output).unwrap_or(DEFAULT_OUTPUT);
        let state = pipeline.state.or(plugin.state).unwrap_or(DEFAULT_STATE);
        let size = |key, given: ByteSize, min: ByteSize, max: ByteSize| {
            if (min..=max).contains(&given) {
                return Ok(given.bytes());
            }
            Err(LimitError { key, given: given.to_string(), min: min.to_string(), max: max.to_string() })
        };
        if !(1..=MAX_DEADLINE_MS).contains(&deadline_ms) {
            return Err(LimitError {
                key: "deadline_ms",
                given: deadline_ms.to_string(),
                min: "1".to_owned(),
                max: MAX_DEADLINE_MS.to_string(),
            });
        }
        Ok(PluginLimits {
            memory_bytes: size("memory", memory, MIN_MEMORY, MAX_MEMORY)?,
            deadline_ms,
            output_bytes: size("output", output, ByteSize::new(1024), MAX_OUTPUT)?,
            state_bytes: size("state", state, ByteSize::new(1024), MAX_STATE)?,
        })
    }
}

impl PluginLimits {
    /// These, but for what is said over them.
    #[must_use]
    pub fn under(self, said: &LimitsSpec) -> PluginLimits {
        PluginLimits {
            memory_bytes: said.memory.map_or(self.memory_bytes, ByteSize::bytes),
            deadline_ms: said.deadline_ms.unwrap_or(self.deadline_ms),
            output_bytes: said.output.map_or(self.output_bytes, ByteSize::bytes),
            state_bytes: said.state.map_or(self.state_bytes, ByteSize::bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipeline_decides_before_the_plugin_before_the_default() {
        let spec = |memory: Option<u64>, deadline_ms, output: Option<u64>| LimitsSpec {
            memory: memory.map(ByteSize::mib),
            deadline_ms,
            output: output.map(ByteSize::mib),
            state: None,
        };
        let check = |pipeline, plugin, expect: Result<(u64, u32, u64), &str>| {
            let got = PluginLimits::resolve(&pipeline, &plugin);
            let got = got.map(|l| (l.memory_bytes >> 20, l.deadline_ms, l.output_bytes >> 20));
            assert_eq!(got.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
        };
        check(spec(None, None, None), spec(None, None, None), Ok((64, 1000, 16)));
        check(spec(Some(32), None, None), spec(Some(8), Some(5), Some(2)), Ok((32, 5, 2)));
        check(
            spec(Some(4096), None, None),
            spec(None, None, None),
            Err("limits.memory is 4 GiB, but must be between 64 KiB and 1 GiB"),
        );
        check(
            spec(None, Some(0), None),
            spec(None, None, None),
            Err("limits.deadline_ms is 0, but must be between 1 and 60000"),
        );
        check(
            LimitsSpec { state: Some(ByteSize::mib(33)), ..LimitsSpec::default() },
            spec(None, None, None),
            Err("limits.state is 33 MiB, but must be between 1 KiB and 32 MiB"),
        );
    }
}
