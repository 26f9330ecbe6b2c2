//! In which order a task takes the records of its inputs.
//!
//! A task without built-in operators takes its inputs one after the other: nothing that it does with one depends on another.
//! With them, the input whose next record has the lowest timestamp comes next, as in Kafka Streams; of several, the one whose
//! source is written first in the manifest. A record that has no timestamp comes at once. An input that has nothing to read
//! holds up none (`max.task.idle.ms` = 0 there), but one of which there is more to read than the step was given does: its
//! next record may be the earliest. So the order is that of times and sources, whatever the sizes of reads, as far as
//! records are there when they are read.

use super::TaskInput;
use crate::batch::{BatchIn, HeadersIn, SlicesIn};

/// Consecutive records of one input after the other.
pub(super) struct Runs<'a> {
    inputs: Vec<Rest<'a>>,
    /// By time; else one input after the other.
    by_time: bool,
}

/// What is left of an input.
struct Rest<'a> {
    input: TaskInput<'a>,
    from: usize,
    /// Headers of the records before.
    headers: usize,
}

impl<'a> Runs<'a> {
    /// Inputs are in the order of their sources.
    pub(super) fn new(inputs: impl Iterator<Item = TaskInput<'a>>, by_time: bool) -> Runs<'a> {
        let mut inputs: Vec<Rest<'a>> = inputs.map(|input| Rest { input, from: 0, headers: 0 }).collect();
        if by_time {
            inputs.sort_by_key(|rest| rest.input.source);
        }
        // There is nothing to compare with one input.
        let by_time = by_time && inputs.len() > 1;
        Runs { inputs, by_time }
    }

    /// The records that come next; none when all are done, or when which come next cannot be known yet.
    pub(super) fn next(&mut self) -> Option<TaskInput<'a>> {
        if !self.by_time {
            if self.inputs.is_empty() {
                return None;
            }
            return Some(self.inputs.remove(0).input);
        }
        self.inputs.retain(|rest| rest.head().is_some() || rest.input.more);
        let mut heads = Vec::with_capacity(self.inputs.len());
        for (place, rest) in self.inputs.iter().enumerate() {
            heads.push((rest.head()?, place));
        }
        let (_, place) = *heads.iter().min()?;
        let limit = heads.iter().filter(|(_, other)| *other != place).min().copied();
        let rest = &mut self.inputs[place];
        let times = &rest.input.batch.timestamps[rest.from..];
        let count = times.iter().take_while(|time| limit.is_none_or(|limit| (**time, place) < limit)).count();
        // The head itself comes before all others.
        Some(rest.take(count.max(1)))
    }
}

impl<'a> Rest<'a> {
    fn head(&self) -> Option<i64> {
        self.input.batch.timestamps.get(self.from).copied()
    }

    /// The next records as an input of their own.
    fn take(&mut self, count: usize) -> TaskInput<'a> {
        let TaskInput { source, batch, end_offset, more } = self.input;
        let to = self.from + count;
        let part = part(batch, self.from, to, self.headers);
        self.headers += part.headers.map_or(0, |headers| headers.counts.iter().map(|n| *n as usize).sum());
        self.from = to;
        // What lies behind its last record is done when all of it is.
        let end_offset = batch.offsets.get(to).copied().unwrap_or(end_offset);
        TaskInput { source, batch: part, end_offset, more }
    }
}

/// The records from `from` to `to`, before which there are so many headers.
fn part(batch: BatchIn<'_>, from: usize, to: usize, headers: usize) -> BatchIn<'_> {
    BatchIn {
        offsets: &batch.offsets[from..to],
        timestamps: batch.timestamps.get(from..to).unwrap_or_default(),
        keys: slices(batch.keys, from, to),
        values: slices(batch.values, from, to),
        headers: batch.headers.map(|all| {
            let counts = all.counts.get(from..to).unwrap_or_default();
            let end = headers + counts.iter().map(|count| *count as usize).sum::<usize>();
            HeadersIn {
                counts,
                names: slices(all.names, headers, end),
                values: slices(all.values, headers, end),
            }
        }),
        ..batch
    }
}

fn slices(all: SlicesIn<'_>, from: usize, to: usize) -> SlicesIn<'_> {
    SlicesIn {
        offsets: all.offsets.get(from..to).unwrap_or_default(),
        lengths: all.lengths.get(from..to).unwrap_or_default(),
    }
}
