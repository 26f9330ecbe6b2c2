//! Follows what becomes of the topics of a pipeline: partitions that are added, topics that are deleted and created again.

use std::ops::Range;
use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use pelton_streams::log::LogLevel;
use pelton_streams::manifest::values::Start;
use pelton_streams::task::TaskId;
use pelton_streams::{Task, TopologyError};

use super::{Driver, DriverError, DriverTask, NO_TOPIC, TaskPosition};
use crate::io::{Change, Input};
use crate::status::{FailureStatus, PipelineState};

impl Driver<'_> {
    pub(super) fn follow_changes(&mut self) -> Result<(), DriverError> {
        let changes = self.io.changes()?;
        if changes.is_empty() && self.has_begun {
            return Ok(());
        }
        for change in &changes {
            if let Change::Assigned { source, partitions } = change {
                self.sources[*source] = partitions.end.unsigned_abs();
            }
        }
        for change in changes {
            match change {
                Change::Output { output, partitions } => {
                    self.outputs[output] = partitions;
                    let tasks = self.tasks.iter_mut().map(|task| &mut task.task);
                    tasks.for_each(|task| task.set_output_partitions(output, partitions));
                    let delivered = self.deliveries.all.iter_mut().map(|one| &mut one.delivery);
                    delivered.for_each(|delivery| delivery.set_output_partitions(output, partitions));
                }
                Change::Assigned { source, partitions } => {
                    self.check_partitions()?;
                    self.assign(source, partitions)?;
                }
                Change::Revoked { source } => self.revoke(source)?,
            }
        }
        self.has_begun = true;
        self.show_missing();
        self.publish();
        Ok(())
    }

    /// Whether the records of a key, and what is kept of them, are in one task.
    fn check_partitions(&self) -> Result<(), DriverError> {
        let topology = &self.spec.topology;
        topology.check_partitions(&self.sources)?;
        for (output, &has) in topology.outputs.iter().zip(&self.outputs) {
            let Some(sub) = output.changelog_of else { continue };
            let sources = topology.sub_topologies[sub].sources.iter();
            let needs = sources.map(|source| (self.sources[*source], *source)).max().unwrap_or_default();
            if needs.0 > has {
                let topic = topology.sources[needs.1].topic.clone();
                let (changelog, partitions) = (output.topic.clone(), needs.0);
                return Err(TopologyError::Grown { topic, partitions, changelog, has }.into());
            }
        }
        Ok(())
    }

    /// An input of a task for each new partition of a source.
    fn assign(&mut self, source: usize, partitions: Range<i32>) -> Result<(), DriverError> {
        let topology = Arc::clone(&self.spec.topology);
        let spec = &topology.sources[source];
        let mut renewed = self.missing.remove(&source) && self.has_begun;
        let is_own = |partition: &i32| {
            topology.takes(source, *partition) && self.spec.lane.has(topology.task_of(source, *partition))
        };
        let partitions: Vec<i32> = partitions.filter(is_own).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        self.start_plugins(source)?;
        for partition in partitions {
            let input = Input { source, partition };
            // What was created while the pipeline ran has nothing in it that was there before.
            let start = match spec.start {
                Start::Latest if self.has_begun => Start::Earliest,
                start => start,
            };
            let position = self.io.position(input, start)?;
            renewed |= position.renewed;
            let anchored = position.committed || start == Start::Earliest;
            if !anchored {
                // A pause before the first record must not lose what is written meanwhile.
                self.uncommitted.since_ms.get_or_insert(self.now_ms());
            }
            let (topic, offset) = (spec.topic.clone(), position.offset);
            let (next_offset, committed, end_offset) = (offset, offset, offset);
            let at = TaskPosition { input, topic, next_offset, committed, anchored, end_offset };
            match topology.consumer_of(source) {
                Some(node) => self.add_delivery(node, at),
                None => self.add_input(at)?,
            }
        }
        if renewed && self.speaks_of(source) {
            self.say(
                LogLevel::Info,
                &format!("topic {} was created again; the pipeline reads it from its start", spec.topic),
            );
        }
        Ok(())
    }

    /// An input of the task that reads this partition, which is made if it is the first one.
    fn add_input(&mut self, at: TaskPosition) -> Result<(), DriverError> {
        let topology = Arc::clone(&self.spec.topology);
        let id = topology.task_of(at.input.source, at.input.partition);
        let index = match self.tasks.iter().position(|task| task.task.id() == id) {
            Some(index) => index,
            None => {
                let mut task = Task::new(id, Arc::clone(&topology), &self.outputs);
                if let Some(graph) = &topology.sub_topologies[id.sub_topology].graph {
                    task = task.with_stores(self.open_stores(id, graph)?, self.state_limits());
                }
                if let Some(stores) = task.stores() {
                    self.gates.open(id, stores.reader());
                }
                let (inputs, told) = (Vec::new(), Default::default());
                let (not_before_ms, next_tick_ms, ticked_ms) = (i64::MIN, None, i64::MIN);
                self.tasks.push(DriverTask { task, inputs, not_before_ms, told, next_tick_ms, ticked_ms });
                self.tasks.len() - 1
            }
        };
        self.tasks[index].inputs.push(at);
        self.tell_readers(index);
        Ok(())
    }

    /// A source's topic is gone. What was made of its records stays; its offsets mean nothing any more.
    fn revoke(&mut self, source: usize) -> Result<(), DriverError> {
        // A commit in flight is of the topic that is gone, not of one that gets its name.
        self.settle(true)?;
        self.tasks.iter_mut().for_each(|task| task.inputs.retain(|position| position.input.source != source));
        self.deliveries.all.retain(|one| one.position.input.source != source);
        // What was kept of its records stays as well: it is committed before the tasks end that keep it.
        if !Mutant::GoneUnkept.is_on() {
            self.commit_all()?;
        }
        let ended = self.tasks.iter().filter(|task| task.inputs.is_empty());
        ended.for_each(|task| self.gates.close(task.task.id()));
        self.tasks.retain(|task| !task.inputs.is_empty());
        self.missing.insert(source);
        self.sources[source] = 0;
        let topic = &self.spec.topology.sources[source].topic;
        self.spec.board.remove_tasks(self.spec.lane, topic);
        if self.speaks_of(source) {
            self.say(
                LogLevel::Warn,
                &format!("topic {topic} was deleted; the pipeline reads it again once it is created"),
            );
        }
        Ok(())
    }

    /// Of all lanes, the one that reads the first partition says what becomes of a topic.
    fn speaks_of(&self, source: usize) -> bool {
        let sub_topology = self.spec.topology.sub_topology_of(source);
        self.spec.lane.has(TaskId { sub_topology, partition: 0 })
    }

    /// Which topics the pipeline waits for, if it does.
    pub(super) fn show_missing(&self) {
        let sources = &self.spec.topology.sources;
        let missing: Vec<&str> = self.missing.iter().map(|source| sources[*source].topic.as_str()).collect();
        let [first, ..] = missing[..] else {
            let (board, lane) = (&self.spec.board, self.spec.lane);
            let waited = board.lane_failure(lane).is_some_and(|failure| failure.kind == NO_TOPIC);
            let waits = !self.globals.is_ready();
            let state = if waits { PipelineState::Starting } else { PipelineState::Running };
            board.set_lane(lane, state, None);
            if waited && lane.number == 0 {
                self.say(LogLevel::Info, "all topics are there: the pipeline goes on");
            }
            return;
        };
        let failure = FailureStatus {
            reason: format!(
                "topic {}, which is read, does not exist; the pipeline goes on when it is created",
                missing.join(" and topic ")
            ),
            kind: NO_TOPIC,
            topic: Some(first.to_owned()),
            partition: None,
            offset: None,
            at_ms: self.now_ms(),
        };
        self.spec.board.set_lane(self.spec.lane, PipelineState::Retrying, Some(failure));
    }

    pub(super) fn say(&self, level: LogLevel, text: &str) {
        tracing::info!(pipeline = self.spec.topology.name, "{text}");
        self.spec.board.say("source", -1, level, text);
    }
}
