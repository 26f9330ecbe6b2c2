//! In which order a task takes the records of its inputs.
//!
//! A task without built-in operators takes its inputs one after the other: nothing that it does with one depends on another.
//! With them, the input whose next record has the lowest timestamp comes next, as in Kafka Streams; of several, the one whose
//! source is written first in the manifest. A record that has no timestamp comes at once. An input that has nothing to read
//! holds up none (`max.task.idle.ms` = 0 there), but one of which there is more to read than the step was given does: its
//! next record may be the earliest. So the order is that of times and sources, whatever the sizes of reads, as far as
//! records are there when they are read.
//!
//! The partitions of an intake have offsets of one sequence, and their records are taken in its order: the lowest offset comes
//! next. How far that is known, who reads them has found out before ([`crate::batch::BatchIn::below`]).

use super::TaskInput;

/// Which input comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// One after the other, all of each.
    Given,
    /// That whose next record is the earliest.
    Time,
    /// That whose next record has the lowest offset.
    Offset,
}

/// Consecutive records of one input after the other.
pub(super) struct Runs<'a> {
    inputs: Vec<Rest<'a>>,
    order: Order,
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
    pub(super) fn new(inputs: impl Iterator<Item = TaskInput<'a>>, order: Order) -> Runs<'a> {
        let mut inputs: Vec<Rest<'a>> = inputs.map(|input| Rest { input, from: 0, headers: 0 }).collect();
        if order != Order::Given {
            inputs.sort_by_key(|rest| rest.input.source);
        }
        // There is nothing to compare with one input.
        let order = if inputs.len() > 1 { order } else { Order::Given };
        Runs { inputs, order }
    }

    /// The records that come next; none when all are done, or when which come next cannot be known yet.
    pub(super) fn next(&mut self) -> Option<TaskInput<'a>> {
        let order = self.order;
        if order == Order::Given {
            if self.inputs.is_empty() {
                return None;
            }
            return Some(self.inputs.remove(0).input);
        }
        self.inputs.retain(|rest| rest.head(order).is_some() || rest.input.more);
        let mut heads = Vec::with_capacity(self.inputs.len());
        for (place, rest) in self.inputs.iter().enumerate() {
            heads.push((rest.head(order)?, place));
        }
        let (_, place) = *heads.iter().min()?;
        let limit = heads.iter().filter(|(_, other)| *other != place).min().copied();
        let rest = &mut self.inputs[place];
        let values = &rest.values(order)[rest.from..];
        let before = |value: &&i64| limit.is_none_or(|limit| (**value, place) < limit);
        let count = values.iter().take_while(before).count();
        // The head itself comes before all others.
        Some(rest.take(count.max(1)))
    }
}

impl<'a> Rest<'a> {
    /// What the order goes by.
    fn values(&self, order: Order) -> &'a [i64] {
        match order {
            Order::Given | Order::Time => self.input.batch.timestamps,
            Order::Offset => self.input.batch.offsets,
        }
    }

    fn head(&self, order: Order) -> Option<i64> {
        self.values(order).get(self.from).copied()
    }

    /// The next records as an input of their own.
    fn take(&mut self, count: usize) -> TaskInput<'a> {
        let TaskInput { source, batch, end_offset, more } = self.input;
        let to = self.from + count;
        let part = batch.part(self.from, to, self.headers);
        self.headers += part.headers.map_or(0, |headers| headers.counts.iter().map(|n| *n as usize).sum());
        self.from = to;
        // What lies behind its last record is done when all of it is.
        let end_offset = batch.offsets.get(to).copied().unwrap_or(end_offset);
        TaskInput { source, batch: part, end_offset, more }
    }
}
