//! An aggregate that a plugin computes.
//!
//! Operators fold one row at a time, and a call of a plugin costs as much as folding dozens of records. So an operator that can
//! say what it is going to fold says it first (a [`Plan`]: which record goes into which group, in order), and the plugin does all of
//! it with a few calls, each for many groups. The rows then go their way one by one, as with any aggregate, and find the answer
//! where the plan foresaw the question: the same record, and the same state of its group before it. Anything else is asked with a
//! call of its own, so a plan saves time and decides nothing.
//!
//! The state of a group is what the plugin makes, and so is the result.

use bytes::Bytes;
use pelton_wire::mutant::Mutant;

use super::{Aggregator, Group, Item, Way};
use crate::batch::{Headers, OwnedBatch, RecordIn};
use crate::node_state::{ColumnOut, Refused};
use crate::operator::{Context, OperatorError, RowError};
use crate::plugin::{AggregatorPlugin, PluginError};

/// Records of one call.
const CALL_RECORDS: usize = 4_096;
/// Bytes of states that one call is expected to answer: a plugin answers one for each record.
const CALL_BYTES: usize = 4 << 20;

/// Where bytes are.
type Span = std::ops::Range<usize>;

/// What an operator is going to fold.
#[derive(Debug, Default)]
pub struct Plan {
    /// States, one after the other.
    data: Vec<u8>,
    /// The state of each group before the plan; none for one that begins.
    groups: Vec<Option<Span>>,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    group: usize,
    way: Way,
    /// The place of its row in the call of the operator.
    row: usize,
    key: Bytes,
    value: Bytes,
    timestamp: i64,
}

impl Plan {
    /// A group that has this state, or begins.
    pub fn group(&mut self, state: Option<&[u8]>) -> usize {
        self.groups.push(state.map(|state| push(&mut self.data, state)));
        self.groups.len() - 1
    }

    /// A record of the group with this key, from the row at this place, comes or goes.
    pub fn step(
        &mut self,
        (group, way): (usize, Way),
        row: usize,
        (key, value, timestamp): (Bytes, Bytes, i64),
    ) {
        self.steps.push(Step { group, way, row, key, value, timestamp });
    }
}

fn push(data: &mut Vec<u8>, bytes: &[u8]) -> Span {
    data.extend_from_slice(bytes);
    data.len() - bytes.len()..data.len()
}

/// What was folded ahead.
#[derive(Debug, Default)]
struct Ahead {
    data: Vec<u8>,
    answers: Vec<Answered>,
    next: usize,
}

#[derive(Debug)]
struct Answered {
    way: Way,
    value: Bytes,
    timestamp: i64,
    before: Option<Span>,
    after: Span,
}

impl Ahead {
    /// The answer to the next question, if that is what was foreseen.
    fn take(&mut self, way: Way, state: Option<&[u8]>, item: Item<'_>) -> Option<&[u8]> {
        let next = self.answers.get(self.next)?;
        let before = next.before.clone().map(|before| &self.data[before]);
        let is_it = next.way == way
            && next.timestamp == item.timestamp
            && std::ptr::eq(&next.value[..], item.value)
            && before == state;
        if !is_it {
            // A row that was not planned, before those that were; or else the plan is of no use any more.
            if std::ptr::eq(&next.value[..], item.value) {
                self.answers.clear();
            }
            return None;
        }
        self.next += 1;
        Some(&self.data[next.after.clone()])
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct PluginAggregate {
    /// The value of a group without records.
    created: Option<Vec<u8>>,
    ahead: Ahead,
}

impl PluginAggregate {
    fn created(&mut self, cx: &mut Context<'_>) -> Result<&[u8], OperatorError> {
        if self.created.is_none() {
            self.created = Some(cx.aggregator()?.create()?);
        }
        Ok(self.created.as_deref().unwrap_or_default())
    }

    fn fold(
        &mut self,
        cx: &mut Context<'_>,
        way: Way,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        if let Some(state) = self.ahead.take(way, group.state, item) {
            out.extend_from_slice(state);
            return Ok(());
        }
        let mut plan = Plan::default();
        let of = plan.group(group.state);
        let bytes = Bytes::copy_from_slice;
        plan.step((of, way), 0, (bytes(item.key), bytes(item.value), item.timestamp));
        let Ahead { data, answers, .. } = self.run(cx, plan)?;
        out.extend_from_slice(&data[answers[0].after.clone()]);
        Ok(())
    }

    /// Folds all of a plan. Records of one group keep their order; in each round those that come are added, and those that go are
    /// taken out, of as many groups as there are.
    fn run(&mut self, cx: &mut Context<'_>, plan: Plan) -> Result<Ahead, OperatorError> {
        let Plan { data, groups, steps } = plan;
        let created =
            if groups.iter().any(Option::is_none) { self.created(cx)?.to_vec() } else { Vec::new() };
        let spans: Vec<(Option<Span>, Span)> = steps.iter().map(|_| (None, 0..0)).collect();
        let mut run = Run { data, created, now: groups, steps: &steps, spans };
        let mut rest: Vec<usize> = (0..steps.len()).collect();
        while !rest.is_empty() {
            for way in [Way::Out, Way::In] {
                // Behind a record that has to wait, its group waits.
                let mut waits = vec![false; run.now.len()];
                let (ready, waiting): (Vec<usize>, Vec<usize>) = rest.iter().partition(|step| {
                    let Step { group, way: other, .. } = steps[**step];
                    waits[group] |= other != way;
                    !waits[group]
                });
                run.call_all(cx.aggregator()?, way, &ready)?;
                rest = waiting;
            }
        }
        let Run { data, spans, .. } = run;
        let answer = |(step, (before, after)): (Step, (Option<Span>, Span))| {
            let Step { way, value, timestamp, .. } = step;
            Answered { way, value, timestamp, before, after }
        };
        Ok(Ahead { data, answers: steps.into_iter().zip(spans).map(answer).collect(), next: 0 })
    }
}

/// A plan on its way.
struct Run<'p> {
    data: Vec<u8>,
    /// The value of a group without records.
    created: Vec<u8>,
    /// The state of each group.
    now: Vec<Option<Span>>,
    steps: &'p [Step],
    /// Of each step: the state of its group before and behind it.
    spans: Vec<(Option<Span>, Span)>,
}

impl Run<'_> {
    fn call_all(
        &mut self,
        plugin: &mut dyn AggregatorPlugin,
        way: Way,
        steps: &[usize],
    ) -> Result<(), OperatorError> {
        let mut from = 0;
        while from < steps.len() {
            let (mut to, mut bytes) = (from, 0);
            while to < steps.len() && to - from < CALL_RECORDS && (to == from || bytes < CALL_BYTES) {
                bytes += self.now[self.steps[steps[to]].group].as_ref().map_or(0, Span::len);
                to += 1;
            }
            self.call(plugin, way, &steps[from..to])?;
            from = to;
        }
        Ok(())
    }

    fn call(
        &mut self,
        plugin: &mut dyn AggregatorPlugin,
        way: Way,
        steps: &[usize],
    ) -> Result<(), OperatorError> {
        if way == Way::Out && Mutant::SubtractLeftOut.is_on() {
            for step in steps {
                let before = self.now[self.steps[*step].group].clone();
                self.spans[*step] = (before.clone(), before.unwrap_or(0..0));
            }
            return Ok(());
        }
        // A group's place among the values of the call.
        let mut places: Vec<Option<u32>> = vec![None; self.now.len()];
        let (mut values, mut groups) = (ColumnOut::default(), Vec::with_capacity(steps.len()));
        let (reads_keys, reads_values) = plugin.reads();
        let mut batch = OwnedBatch::new("", 0);
        for step in steps.iter().map(|step| &self.steps[*step]) {
            let place = places[step.group].unwrap_or_else(|| {
                let state = self.now[step.group].clone().map_or(&self.created[..], |state| &self.data[state]);
                values.push(Some(state));
                values.len() as u32 - 1
            });
            places[step.group] = Some(place);
            groups.push(place);
            let record = RecordIn {
                offset: -1,
                timestamp: step.timestamp,
                key: Some(&step.key[..]).filter(|_| reads_keys),
                value: Some(&step.value[..]).filter(|_| reads_values),
                headers: Headers::default(),
            };
            let full = |error: crate::batch::BatchFull| OperatorError::row(error.to_string());
            batch.push(record, [].into_iter()).map_err(full)?;
        }
        let answer = plugin.fold(way, &values, &batch.as_batch(), &groups);
        let answer = answer.map_err(|error| self.failed(error, steps))?;
        let answer = values_of(&answer, steps.len())?;
        for (step, value) in steps.iter().zip(answer) {
            let after = push(&mut self.data, value);
            let before = self.now[self.steps[*step].group].replace(after.clone());
            self.spans[*step] = (before, after);
        }
        Ok(())
    }

    /// Turns indexes of a rejection into places of rows. The first row is named; the others are found without it.
    fn failed(&self, error: PluginError, steps: &[usize]) -> OperatorError {
        let PluginError::Reject(rejected) = error else { return error.into() };
        let row = |index: u32| steps.get(index as usize).map(|step| self.steps[*step].row);
        let first = rejected.iter().map(|one| (row(one.index), one)).min_by_key(|(row, _)| *row);
        match first {
            Some((Some(index), one)) => {
                let reason = format!("the plugin rejects the record: {}", one.reason);
                RowError { index, reason }.into()
            }
            _ => {
                let (named, records) = (rejected.len(), steps.len());
                let what =
                    format!("it rejects {named} records by index, not all of them in the batch of {records}");
                PluginError::IllFormed { what }.into()
            }
        }
    }
}

/// The values of an answer, as many as there should be.
fn values_of(answer: &ColumnOut, wanted: usize) -> Result<Vec<&[u8]>, OperatorError> {
    let ill_formed = |what: String| OperatorError::from(PluginError::IllFormed { what });
    let values = answer.as_in().keys("aggregates").map_err(|Refused(what)| ill_formed(what))?;
    if values.len() != wanted {
        let has = values.len();
        return Err(ill_formed(format!("it answers {has} aggregates, but should answer {wanted}")));
    }
    Ok(values)
}

impl Aggregator for PluginAggregate {
    fn plans(&self) -> bool {
        true
    }

    fn prepare(&mut self, cx: &mut Context<'_>, plan: Plan) -> Result<(), OperatorError> {
        self.ahead = Ahead::default();
        self.ahead = self.run(cx, plan)?;
        Ok(())
    }

    fn add(
        &mut self,
        cx: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        self.fold(cx, Way::In, group, item, out)
    }

    fn subtract(
        &mut self,
        cx: &mut Context<'_>,
        group: Group<'_>,
        item: Item<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        if group.state.is_some() { self.fold(cx, Way::Out, group, item, out) } else { Ok(()) }
    }

    fn merge(
        &mut self,
        cx: &mut Context<'_>,
        _: &[u8],
        into: Group<'_>,
        from: Group<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let (Some(left), Some(right)) = (into.state, from.state) else {
            out.extend_from_slice(into.state.or(from.state).unwrap_or_default());
            return Ok(());
        };
        let [left, right] = [left, right].map(|state| {
            let mut column = ColumnOut::default();
            column.push(Some(state));
            column
        });
        let answer = cx.aggregator()?.merge(&left, &right)?;
        out.extend_from_slice(values_of(&answer, 1)?[0]);
        Ok(())
    }

    fn result(&mut self, _: &[u8], state: &[u8], out: &mut Vec<u8>) -> Result<bool, OperatorError> {
        out.extend_from_slice(state);
        Ok(true)
    }
}
