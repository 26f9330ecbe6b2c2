//! What happens without a record: timers on the clock, and what goes on that a record has begun (`operator::backlog`).

use std::sync::Arc;

use super::failure::{NO_RECORD, TaskFailure};
use super::graph::{GraphRun, Origin};
use super::output::{Notice, NoticeKind, StepCounts, StepOutput};
use super::policy::Policy;
use super::run::{Excluded, RangeError, Run};
use super::timers::FAILING;
use super::{Outside, Partitioner, Piece, RecordError, StepError, Task};
use crate::batch::BatchIn;
use crate::manifest::OnError;
use crate::operator::TimerDomain;
use crate::state::StateError;
use crate::topology::Vertex;

/// What attempts at a tick are counted as: no source has this number.
const NO_SOURCE: usize = usize::MAX;

impl Task {
    /// When the first timer on the clock is due; none if there is none.
    ///
    /// # Errors
    /// A store cannot be read.
    pub fn next_tick(&mut self) -> Result<Option<i64>, StateError> {
        let nodes = self.topology.nodes.len();
        let Some(kept) = self.state.kept() else { return Ok(None) };
        let mut first: Option<i64> = None;
        for node in 0..nodes {
            let Some((timers, state)) = kept.timers(node) else { continue };
            if let Some(next) = timers.next(state, TimerDomain::WallClock)? {
                first = Some(first.map_or(next, |first| first.min(next)));
            }
        }
        Ok(first)
    }

    /// Has timers on the clock fire that are due ([`Task::set_clock`]), and what they emit go its way. It is emitted as that of a step
    /// is; there are no positions.
    ///
    /// # Errors
    /// Nothing was emitted: try again later, or stop.
    pub fn tick(&mut self, outside: &mut Outside<'_>) -> Result<StepOutput, StepError> {
        let mut output = StepOutput::default();
        let mut excluded = Excluded::new();
        loop {
            self.state.savepoints().begin();
            match self.pass_without_record(&excluded, outside, |run, pieces| run.tick(pieces)) {
                Ok(counts) => {
                    self.state.savepoints().keep();
                    output.counts.add(counts);
                    break;
                }
                Err(error) => {
                    self.state.savepoints().undo();
                    self.leave_out(error, &mut excluded, &mut output)?;
                }
            }
        }
        self.end_tick(&mut output);
        Ok(output)
    }

    /// Something was done without a record.
    fn end_tick(&mut self, output: &mut StepOutput) {
        self.retrying = self.retrying.filter(|retrying| retrying.source() != NO_SOURCE);
        let left_out = self.state.kept().map(|kept| std::mem::take(&mut kept.fired.left_out));
        for (node, _, error) in left_out.into_iter().flatten() {
            let failure = self.without_record(self.topology.nodes[node].id.clone(), error);
            output.notices.push(Notice { kind: NoticeKind::Skipped, failure });
        }
        output.counts.skipped += output.notices.len() as u64;
        self.partitioners.iter_mut().for_each(Partitioner::next_step);
    }

    /// The node, if there is one, that goes on before any record is read: something waits in it until all is out that closes
    /// before it (`operator::backlog`).
    pub(super) fn behind(&mut self) -> Result<Option<Vertex>, StateError> {
        let topology = Arc::clone(&self.topology);
        let graph = topology.sub_topologies[self.id.sub_topology].graph.as_ref();
        match (graph, self.state.kept()) {
            (Some(graph), Some(kept)) => kept.behind(graph),
            _ => Ok(None),
        }
    }

    /// Whether [`Task::process`] has something to do without records, and reads none before that is done.
    ///
    /// # Errors
    /// A store cannot be read.
    pub fn is_behind(&mut self) -> Result<bool, StateError> {
        Ok(self.behind()?.is_some())
    }

    /// One part of what waits in a node.
    pub(super) fn go_on(
        &mut self,
        vertex: Vertex,
        outside: &mut Outside<'_>,
    ) -> Result<StepOutput, StepError> {
        let mut output = StepOutput::default();
        let mut excluded = Excluded::new();
        let most = self.state.kept().map_or(1, |kept| kept.at_once);
        loop {
            self.set_at_once(self.going_on);
            self.state.savepoints().begin();
            let done = self.pass_without_record(&excluded, outside, |run, pieces| run.go_on(vertex, pieces));
            self.set_at_once(most);
            match done {
                Ok(counts) => {
                    self.state.savepoints().keep();
                    output.counts.add(counts);
                    break;
                }
                Err(error) => {
                    self.state.savepoints().undo();
                    let is_of_all = error.error.is_final() || error.error.asks_again();
                    if self.going_on > 1 && !is_of_all {
                        // What it is that fails is found by giving less.
                        self.going_on /= 2;
                        continue;
                    }
                    self.leave_out(error, &mut excluded, &mut output)?;
                }
            }
        }
        self.going_on = (self.going_on * 2).min(most);
        self.end_tick(&mut output);
        Ok(output)
    }

    fn set_at_once(&mut self, at_once: usize) {
        if let Some(kept) = self.state.kept() {
            kept.at_once = at_once;
        }
    }

    fn pass_without_record(
        &mut self,
        excluded: &Excluded,
        outside: &mut Outside<'_>,
        pass: impl FnOnce(&mut GraphRun<'_, '_>, &mut Vec<Piece<'_>>) -> Result<(), RangeError>,
    ) -> Result<StepCounts, RangeError> {
        let topology = Arc::clone(&self.topology);
        let sub = &topology.sub_topologies[self.id.sub_topology];
        let (Some(graph), Some(kept)) = (&sub.graph, self.state.kept()) else {
            return Ok(StepCounts::default());
        };
        let topic = sub.sources.first().map_or("", |source| &topology.sources[*source].topic);
        let batch = BatchIn { topic, partition: self.id.partition.unsigned_abs(), ..BatchIn::default() };
        let mut pieces = Vec::new();
        let run =
            Run { plugins: &mut *outside.plugins, topology: &topology, excluded, calls: &mut self.calls };
        let origin = Origin { batch, first: kept.next_number(), start: 0, is_many: false };
        pass(&mut GraphRun { run, graph, kept, globals: outside.globals, origin }, &mut pieces)?;
        self.emit(&pieces, outside)
    }

    /// What becomes of a tick that fails: without what is to blame, it is made again.
    fn leave_out(
        &mut self,
        error: RangeError,
        excluded: &mut Excluded,
        output: &mut StepOutput,
    ) -> Result<(), StepError> {
        let RangeError { place, error, .. } = error;
        let topology = Arc::clone(&self.topology);
        let policy = Policy::of(&topology, place);
        let failure = self.without_record(policy.name.clone(), error.clone());
        let failed = || StepError::Failed(Box::new(failure.clone()));
        if error.is_final() {
            return Err(failed());
        }
        let asked = error.asks_again();
        if let Some(retry) =
            self.retry((NO_SOURCE, NO_RECORD), policy.on_error, asked, || Box::new(failure.clone()))
        {
            return Err(retry);
        }
        let skips = matches!(policy.on_error.last_resort(), OnError::Skip | OnError::DeadLetter { .. });
        let is_of_timer = matches!(error, RecordError::Timer { .. });
        let marker = if is_of_timer { FAILING } else { NO_RECORD };
        if asked || !skips || !excluded.insert((Some(place), marker)) {
            return Err(failed());
        }
        if !is_of_timer {
            output.notices.push(Notice { kind: NoticeKind::Skipped, failure });
        }
        Ok(())
    }

    fn without_record(&self, node: String, error: RecordError) -> TaskFailure {
        let sub = &self.topology.sub_topologies[self.id.sub_topology];
        let topic =
            sub.sources.first().map_or(String::new(), |source| self.topology.sources[*source].topic.clone());
        let partition = self.id.partition;
        TaskFailure { node, topic, partition, offset: NO_RECORD, last_offset: NO_RECORD, error }
    }
}
