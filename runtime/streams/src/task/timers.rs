//! Plugins with timers, within a pass. Timers on stream time fire before the record that brings stream time there, whatever the
//! batches in which records come: a batch is parted at such records, and a call that has set a timer which is due before one of its
//! own records is undone and made again in two parts. Those on the clock fire at a tick. Both fire in the order of time, then name.
//!
//! A round is what is due when it begins: a timer that is set while others fire, for a time that has passed, fires with the next record
//! or tick, so no round goes on for ever. Of a round as many timers fire with one call as [`FIRED_AT_ONCE`] says.
//!
//! What fires is of no record. A timer whose firing fails is taken out with its own writes alone, where the node's policy says to
//! skip what cannot be processed; what timers emit and a topic does not take is left out for all that fire with the record.

use std::sync::Arc;

use super::RecordError;
use super::graph::GraphRun;
use super::output::Cow;
use super::run::{Place, RangeError, select};
use crate::answer::Answer;
use crate::batch::OwnedBatch;
use crate::manifest::OnError;
use crate::node_state::ColumnOut;
use crate::node_state::timers::Due;
use crate::operator::{MAX_TIMESTAMP, TimerDomain};
use crate::plugin::PluginError;
use crate::state::StateError;

/// Timers of one call.
const FIRED_AT_ONCE: usize = 1_000;
/// Timers on the clock of one tick: the rest comes with the next one.
const FIRED_PER_TICK: usize = 10_000;
/// The offset of what timers emit.
const NO_OFFSET: i64 = -1;
/// Among what is left out: timers of a node whose firing fails, behind the last attempt.
pub(super) const FAILING: i64 = -2;

type Answers<'a> = Vec<(Cow<'a>, Arc<Answer>)>;

impl GraphRun<'_, '_> {
    /// Gives records to a plugin with timers, and has those fire that become due. All answers, in order.
    pub(super) fn with_timers<'a>(&mut self, node: usize, batch: Cow<'a>) -> Result<Answers<'a>, RangeError> {
        let batch = self.run.without_excluded(Some(Place::Node(node)), batch);
        let input = batch.as_batch();
        let time =
            |i: usize| input.timestamps.get(i).copied().filter(|time| (0..=MAX_TIMESTAMP).contains(time));
        let mut answers = Vec::new();
        let mut todo = vec![(0, input.len())];
        while let Some((from, to)) = todo.pop() {
            if from == to {
                continue;
            }
            let failed = |error| RangeError::of_state(node, error);
            let (timers, state) = self.timers(node);
            let before = timers.stream_time(state).map_err(failed)?;
            let mut now = before.max(time(from).unwrap_or(before));
            let cause = input.offsets.get(from).copied().unwrap_or(NO_OFFSET);
            self.fire(node, TimerDomain::StreamTime, (now, cause), &mut answers)?;
            let (timers, state) = self.timers(node);
            let next = timers.next(state, TimerDomain::StreamTime).map_err(failed)?;
            let mut end = from + 1;
            while end < to {
                let then = now.max(time(end).unwrap_or(now));
                if next.is_some_and(|next| next <= then) {
                    break;
                }
                (now, end) = (then, end + 1);
            }
            todo.push((end, to));
            let part = if (from, end) == (0, input.len()) {
                batch.clone()
            } else {
                select(input, |i| (from..end).contains(&i))
            };
            let (timers, state) = self.timers(node);
            timers.begin(if end - from > 1 { now } else { NO_OFFSET });
            let savepoint = state.savepoint();
            let called = self.run.call(node, part, Some(&mut *self.kept));
            let (timers, state) = self.timers(node);
            if timers.was_early() && called.is_ok() {
                state.roll_back(savepoint);
                self.kept.reset_node(node);
                let half = from + (end - from) / 2;
                todo.extend([(half, end), (from, half)]);
                continue;
            }
            state.release(savepoint);
            answers.extend(called?);
            let (timers, state) = self.timers(node);
            timers.observe(state, now).map_err(failed)?;
        }
        Ok(answers)
    }

    fn timers(
        &mut self,
        node: usize,
    ) -> (&mut crate::node_state::timers::Timers, &mut crate::state::TaskState) {
        self.kept.timers(node).expect("the node has timers, and is not called now")
    }

    /// One round of timers: those that are due now, before the record at an offset.
    pub(super) fn fire<'a>(
        &mut self,
        node: usize,
        domain: TimerDomain,
        (now, cause): (i64, i64),
        answers: &mut Answers<'a>,
    ) -> Result<(), RangeError> {
        let failed = |error: StateError| RangeError::of_state(node, error);
        let (timers, state) = self.timers(node);
        if timers.next(state, domain).map_err(failed)?.is_none_or(|next| next > now) {
            return Ok(());
        }
        let limit = if domain == TimerDomain::WallClock { FIRED_PER_TICK } else { usize::MAX };
        let due = timers.due(state, domain, now, limit).map_err(failed)?;
        self.kept.fired.any = true;
        let place = Some(Place::Node(node));
        // What they emit was refused before: they fire, and nothing is told of it.
        let muted = self.run.excluded.contains(&(place, NO_OFFSET));
        let mut todo: Vec<&[Due]> = due.chunks(FIRED_AT_ONCE).rev().collect();
        while let Some(due) = todo.pop() {
            let (_, state) = self.timers(node);
            let savepoint = state.savepoint();
            let called = self.fire_once(node, domain, due);
            let (_, state) = self.timers(node);
            match called {
                Ok(answer) => {
                    state.release(savepoint);
                    answers.extend(answer.filter(|_| !muted));
                    continue;
                }
                Err(FireError::State(error)) => {
                    state.release(savepoint);
                    return Err(failed(error));
                }
                Err(FireError::Plugin(error)) => {
                    state.roll_back(savepoint);
                    self.kept.reset_node(node);
                    if due.len() > 1 {
                        // Which of them is it?
                        let (first, rest) = due.split_at(due.len() / 2);
                        todo.extend([rest, first]);
                        continue;
                    }
                    self.left_out(node, (domain, cause), due, error)?;
                }
            }
        }
        Ok(())
    }

    /// A timer cannot fire. It goes, if the policy says that what cannot be processed is skipped.
    fn left_out(
        &mut self,
        node: usize,
        (domain, cause): (TimerDomain, i64),
        due: &[Due],
        error: PluginError,
    ) -> Result<(), RangeError> {
        let timer =
            due.iter().map(|(_, name)| name.escape_ascii().to_string()).collect::<Vec<_>>().join(", ");
        let error = RecordError::Timer { timer, error };
        let asks = error.asks_again();
        let policy = &self.run.topology.nodes[node].on_error;
        let skips = matches!(policy, OnError::Skip | OnError::DeadLetter { .. })
            || self.run.excluded.contains(&(Some(Place::Node(node)), FAILING));
        if !skips || asks || error.is_final() {
            return Err(RangeError { place: Place::Node(node), error, blamed: Vec::new() });
        }
        let (timers, state) = self.timers(node);
        timers.take(state, domain, due).map_err(|error| RangeError::of_state(node, error))?;
        self.kept.fired.left_out.push((node, cause, error));
        Ok(())
    }

    /// One call. Nothing if none of the timers is set any more.
    fn fire_once<'a>(
        &mut self,
        node: usize,
        domain: TimerDomain,
        due: &[Due],
    ) -> Result<Option<(Cow<'a>, Arc<Answer>)>, FireError> {
        let (timers, state) = self.timers(node);
        let taken = timers.take(state, domain, due)?;
        if taken.is_empty() {
            return Ok(None);
        }
        timers.begin(NO_OFFSET);
        let (mut names, mut at) = (ColumnOut::default(), Vec::with_capacity(taken.len()));
        for (time, name) in &taken {
            names.push(Some(name));
            at.push(*time);
        }
        let batch = OwnedBatch::new(self.origin.batch.topic, self.origin.batch.partition);
        let spec = &self.run.topology.nodes[node];
        let outputs = u32::try_from(spec.outputs.len()).unwrap_or(u32::MAX);
        let plugin = self.run.plugins.get(node);
        self.run.calls.made += 1;
        let called =
            self.kept.lend(node, spec.limits.state_bytes, |lent| plugin.fire(domain, (&names, &at), lent))?;
        let answer = called
            .and_then(|out| Ok(Answer::check(&batch.as_batch(), out, spec.limits.output_bytes, outputs)?))
            .inspect_err(|_| self.run.calls.failed += 1)?;
        Ok(Some((Cow::Shared(Arc::new(batch)), Arc::new(answer))))
    }
}

enum FireError {
    Plugin(PluginError),
    State(StateError),
}

impl From<PluginError> for FireError {
    fn from(error: PluginError) -> FireError {
        FireError::Plugin(error)
    }
}

impl From<StateError> for FireError {
    fn from(error: StateError) -> FireError {
        FireError::State(error)
    }
}
