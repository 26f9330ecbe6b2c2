//! Plugins with timers, within a pass. Timers on stream time fire before the record that brings stream time there, whatever the
//! batches in which records come: a batch is parted at such records, and a call that has set a timer which is due before one of its
//! own records is undone and made again in two parts. Those on the clock fire at a tick. Both fire in the order of time, then name.
//!
//! A round is what is due when it begins: a timer that is set while others fire, for a time that has passed, fires with the next record
//! or tick, so no round goes on for ever. Of a round as many timers fire with one call as [`FIRED_AT_ONCE`] says, and as many in one
//! pass as other things close (`operator::backlog`). A record that brings more than that waits in the node's store, with all behind it
//! that is of the same record of the source; the round goes on in passes of its own before anything else is read.
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
use crate::operator::{Row, TimerDomain, is_time};
use crate::plugin::PluginError;
use crate::state::StateError;

/// Timers of one call.
const FIRED_AT_ONCE: usize = 1_000;
/// Timers on the clock of one tick: the rest comes with the next one.
pub(super) const FIRED_PER_TICK: usize = 10_000;
/// The offset of what timers emit.
const NO_OFFSET: i64 = -1;
/// Among what is left out: timers of a node whose firing fails, behind the last attempt.
pub(super) const FAILING: i64 = -2;

type Answers<'a> = Vec<(Cow<'a>, Arc<Answer>)>;
/// What one call has answered; nothing if nothing was given.
type Answered<'a> = Option<(Cow<'a>, Arc<Answer>)>;

impl GraphRun<'_, '_> {
    /// Gives records to a plugin with timers, and has those fire that become due. All answers, in order. Records wait if not all fire
    /// in this pass that are due before them.
    pub(super) fn with_timers<'a>(&mut self, node: usize, batch: Cow<'a>) -> Result<Answers<'a>, RangeError> {
        let batch = self.run.without_excluded(Some(Place::Node(node)), batch);
        let (timers, state) = self.timers(node);
        let failed = |error| RangeError::of_state(node, error);
        if timers.backlog.is_waiting(state).map_err(failed)? {
            self.wait(node, &batch, 0)?;
            return Ok(Vec::new());
        }
        let mut left = self.kept.at_once;
        let (answers, done) = self.fire_and_call(node, batch.clone(), &mut left)?;
        let input = batch.as_batch();
        if done < input.len() {
            let cause = input.offsets.get(done).copied().unwrap_or(NO_OFFSET);
            if self.origin.is_many {
                return Err(RangeError::alone(Place::Node(node), cause));
            }
            self.try_call(node, select(input, |i| i == done))?;
            self.wait(node, &batch, done)?;
        }
        Ok(answers)
    }

    /// The records of a batch from `from` on wait.
    fn wait(&mut self, node: usize, batch: &Cow<'_>, from: usize) -> Result<(), RangeError> {
        let rows = self.rows_of(&batch.as_batch());
        let (timers, state) = self.timers(node);
        let put = rows[from..].iter().try_for_each(|row| timers.backlog.put(state, 0, row));
        put.map_err(|error| RangeError::of_state(node, error))
    }

    /// Finds out whether a plugin fails at a record that is going to wait, while it is known which one that is.
    fn try_call(&mut self, node: usize, record: Cow<'_>) -> Result<(), RangeError> {
        let (timers, state) = self.timers(node);
        timers.begin(NO_OFFSET);
        let savepoint = state.savepoint();
        let called = self.run.call(node, record, Some(&mut *self.kept));
        let (_, state) = self.timers(node);
        state.roll_back(savepoint);
        self.kept.reset_node(node);
        called.map(drop)
    }

    /// Goes on with a round that is open, or else with records that wait.
    pub(super) fn node_goes_on<'a>(&mut self, node: usize) -> Result<Answers<'a>, RangeError> {
        let failed = |error: StateError| RangeError::of_state(node, error);
        let mut left = self.kept.at_once;
        let (timers, state) = self.timers(node);
        if let Some(now) = timers.open(state).map_err(failed)? {
            let mut answers = Vec::new();
            self.fire(node, TimerDomain::StreamTime, (now, NO_OFFSET), &mut left, &mut answers)?;
            return Ok(answers);
        }
        let mut rows = timers.backlog.first(state, left).map_err(failed)?;
        rows.iter_mut().for_each(|(_, row)| row.sequence = self.origin.first);
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        let batch = self.batch_of(&rows).map_err(|full| RangeError::too_large(node, full))?;
        let batch = self.run.without_excluded(Some(Place::Node(node)), Cow::Shared(Arc::new(batch)));
        let (answers, done) = self.fire_and_call(node, batch.clone(), &mut left)?;
        // Those that are left out wait no more either.
        let done = if batch.as_batch().is_empty() { rows.len() } else { done };
        let (timers, state) = self.timers(node);
        timers.backlog.done(state, done).map_err(failed)?;
        Ok(answers)
    }

    /// Gives records to a plugin and has timers fire, `left` at the most. The answers, and how many records are done: not all if a
    /// round is open.
    fn fire_and_call<'a>(
        &mut self,
        node: usize,
        batch: Cow<'a>,
        left: &mut usize,
    ) -> Result<(Answers<'a>, usize), RangeError> {
        let input = batch.as_batch();
        let time = |i: usize| input.timestamps.get(i).copied().filter(|time| is_time(*time));
        let failed = |error| RangeError::of_state(node, error);
        let mut answers = Vec::new();
        let mut todo = vec![(0, input.len())];
        while let Some((from, to)) = todo.pop() {
            if from == to {
                continue;
            }
            let (timers, state) = self.timers(node);
            let before = timers.stream_time(state).map_err(failed)?;
            let mut now = before.max(time(from).unwrap_or(before));
            let cause = input.offsets.get(from).copied().unwrap_or(NO_OFFSET);
            if !self.fire(node, TimerDomain::StreamTime, (now, cause), left, &mut answers)? {
                let (timers, state) = self.timers(node);
                timers.observe(state, now).map_err(failed)?;
                return Ok((answers, from));
            }
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
            match self.call_with_timers(node, part, if end - from > 1 { now } else { NO_OFFSET })? {
                Some(answer) => answers.extend(answer),
                None => {
                    let half = from + (end - from) / 2;
                    todo.extend([(half, end), (from, half)]);
                    continue;
                }
            }
            let (timers, state) = self.timers(node);
            timers.observe(state, now).map_err(failed)?;
        }
        Ok((answers, input.len()))
    }

    /// Calls a plugin with records up to a time. Nothing, and it was undone: it has set a timer that may be due before one of them.
    fn call_with_timers<'a>(
        &mut self,
        node: usize,
        part: Cow<'a>,
        up_to: i64,
    ) -> Result<Option<Answered<'a>>, RangeError> {
        let (timers, state) = self.timers(node);
        timers.begin(up_to);
        let savepoint = state.savepoint();
        let called = self.run.call(node, part, Some(&mut *self.kept));
        let (timers, state) = self.timers(node);
        if timers.was_early() && called.is_ok() {
            state.roll_back(savepoint);
            self.kept.reset_node(node);
            return Ok(None);
        }
        state.release(savepoint);
        called.map(Some)
    }

    fn timers(
        &mut self,
        node: usize,
    ) -> (&mut crate::node_state::timers::Timers, &mut crate::state::TaskState) {
        self.kept.timers(node).expect("the node has timers, and is not called now")
    }

    /// One round of timers: those that are due now, before the record at an offset; `left` of them at the most. Whether those were
    /// all.
    pub(super) fn fire<'a>(
        &mut self,
        node: usize,
        domain: TimerDomain,
        (now, cause): (i64, i64),
        left: &mut usize,
        answers: &mut Answers<'a>,
    ) -> Result<bool, RangeError> {
        let failed = |error: StateError| RangeError::of_state(node, error);
        let (timers, state) = self.timers(node);
        let is_open = domain == TimerDomain::StreamTime && timers.open(state).map_err(failed)?.is_some();
        if !is_open && timers.next(state, domain).map_err(failed)?.is_none_or(|next| next > now) {
            return Ok(true);
        }
        let (due, more) = timers.due(state, domain, now, *left).map_err(failed)?;
        *left -= due.len();
        if domain == TimerDomain::StreamTime {
            let round = if more { timers.open_round(state, now) } else { timers.end_round(state) };
            round.map_err(failed)?;
        }
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
        Ok(!more)
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
            return Err(RangeError::new(Place::Node(node), error));
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
