//! Runs a topology without a broker: give it records, look at what comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::answer::Answer;
use crate::batch::{Headers, OwnedBatch, RecordIn};
use crate::operator::NoTables;
use crate::plugin::Plugin;
use crate::sink::{Emissions, Emitted, MAX_REFUSALS, Refusal, Refused, Sink};
use crate::state::{MemoryState, StateLimits};
use crate::task::{Cow, Notice, Outside, Piece, Plugins, StepError, Task, TaskId, TaskInput};
use crate::topology::Topology;

/// A record to give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestRecord {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// Name and value, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl TestRecord {
    /// A record with a value alone.
    pub fn value(value: impl Into<Vec<u8>>) -> TestRecord {
        TestRecord { value: Some(value.into()), ..TestRecord::default() }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> TestRecord {
        self.key = Some(key.into());
        self
    }

    fn push_to(&self, batch: &mut OwnedBatch, offset: i64) {
        let parts = RecordIn {
            offset,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: Headers::default(),
        };
        let headers = self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref()));
        batch.push(parts, headers).expect("test data is small");
    }
}

/// A record that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutput {
    /// The topic that it goes to.
    pub topic: String,
    /// The partition of that topic.
    pub partition: i32,
    /// The offset of the input record that it comes from.
    pub source_offset: i64,
    /// Its content.
    pub record: TestRecord,
}

/// Whether a topic takes a record.
pub type Rule = fn(&TestOutput) -> Result<(), Refusal>;

/// Keeps what topics take.
struct TestSink<'a> {
    topology: &'a Topology,
    rule: Rule,
    taken: Vec<TestOutput>,
}

impl Sink for TestSink<'_> {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let written: Vec<TestOutput> =
            records.iter().map(|emitted| output(self.topology, &emitted)).collect();
        let refused =
            |(index, output): (usize, &TestOutput)| Some(Refused { index, why: (self.rule)(output).err()? });
        let refused: Vec<Refused> =
            written.iter().enumerate().filter_map(refused).take(MAX_REFUSALS).collect();
        if refused.is_empty() {
            self.taken.extend(written);
            return Ok(());
        }
        Err(refused)
    }
}

/// Writes records to partitions of outputs (by index), as a task does.
///
/// # Errors
/// What the sink refuses.
pub fn write(sink: &mut dyn Sink, records: &[(usize, i32, TestRecord)]) -> Result<(), Vec<Refused>> {
    let mut pieces = Vec::new();
    for ((topic, _, record), offset) in records.iter().zip(0..) {
        let mut batch = OwnedBatch::new("in", 0);
        record.push_to(&mut batch, offset);
        let answer = Arc::new(Answer::identity(&batch.as_batch()));
        let (batch, output, topic) = (Cow::Shared(Arc::new(batch)), 0, *topic);
        pieces.push(Piece { batch, answer, output, topic, made_by: None });
    }
    let partitions: Vec<Vec<i32>> = records.iter().map(|(_, partition, _)| vec![*partition]).collect();
    sink.write(Emissions { pieces: &pieces, partitions: &partitions })
}

/// One task of a topology, with the offsets of its input partition.
pub struct TopologyDriver {
    task: Task,
    /// Its plugins. Those of operators are set here.
    pub plugins: Plugins,
    topology: Arc<Topology>,
    next_offset: i64,
    /// What topics take; everything at first.
    pub rule: Rule,
    /// What nodes could not process, so far.
    pub notices: Vec<Notice>,
    /// Delays that the task asked for, in milliseconds; nothing waits for them.
    pub retries: Vec<u32>,
}

impl TopologyDriver {
    /// A driver of the first source's tree on partition 0, with plugins by node id, and `partitions` for every output.
    pub fn new(
        topology: Topology,
        plugins: BTreeMap<&str, Box<dyn Plugin>>,
        partitions: u32,
    ) -> TopologyDriver {
        let topology = Arc::new(topology);
        let index = |id: &str| topology.nodes.iter().position(|node| node.id == id);
        let mut instances = Plugins::default();
        for (id, plugin) in plugins {
            if let Some(node) = index(id) {
                instances.set(node, plugin);
            }
        }
        let counts = vec![partitions; topology.outputs.len()];
        let task = Task::new(TaskId { sub_topology: 0, partition: 0 }, Arc::clone(&topology), &counts);
        let stores = topology.sub_topologies[0].graph.as_ref().map_or(0, |graph| graph.stores.len());
        let task = task.with_stores(Box::new(MemoryState::new(stores)), StateLimits::default());
        let rule: Rule = |_| Ok(());
        let plugins = instances;
        TopologyDriver {
            task,
            plugins,
            topology,
            next_offset: 0,
            rule,
            notices: Vec::new(),
            retries: Vec::new(),
        }
    }

    /// Gives records as one batch, again and again until all of it is done, and returns what comes out.
    ///
    /// # Errors
    /// The failure that stops the task. What came out before it is lost, as the offsets to go on from are.
    pub fn pipe(&mut self, records: &[TestRecord]) -> Result<Vec<TestOutput>, StepError> {
        let mut all = Vec::new();
        let first = self.next_offset;
        let end = first + records.len() as i64;
        while self.next_offset < end {
            let rest = &records[usize::try_from(self.next_offset - first).unwrap_or(0)..];
            all.extend(self.step(rest, end)?);
        }
        while self.task.is_behind().is_ok_and(|is_behind| is_behind) {
            all.extend(self.step(&[], end)?);
        }
        Ok(all)
    }

    /// One step, which may end early.
    ///
    /// # Errors
    /// The failure that stops the task. A retry is made at once.
    pub fn step(&mut self, records: &[TestRecord], end: i64) -> Result<Vec<TestOutput>, StepError> {
        let topic = self.topology.sources[0].topic.clone();
        let mut batch = OwnedBatch::new(&topic, 0);
        for (offset, record) in (self.next_offset..).zip(records) {
            record.push_to(&mut batch, offset);
        }
        let input = [TaskInput { source: 0, batch: batch.as_batch(), end_offset: end, more: false }];
        loop {
            let mut sink = TestSink { topology: &self.topology, rule: self.rule, taken: Vec::new() };
            let plugins = &mut self.plugins;
            let mut outside =
                Outside { plugins, sink: &mut sink, globals: &NoTables, interrupted: &|| false };
            match self.task.process(&input, &mut outside) {
                Ok(out) => {
                    self.next_offset = out.positions.first().map_or(self.next_offset, |(_, next)| *next);
                    self.notices.extend(out.notices);
                    return Ok(sink.taken);
                }
                Err(StepError::Retry { delay_ms, .. }) => self.retries.push(delay_ms),
                Err(failed) => return Err(failed),
            }
        }
    }

    /// The next input offset.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }
}

fn output(topology: &Topology, emitted: &Emitted<'_>) -> TestOutput {
    let record = emitted.record;
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    TestOutput {
        topic: topology.outputs[emitted.output].topic.clone(),
        partition: emitted.partition,
        source_offset: record.offset,
        record: TestRecord {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            timestamp: record.timestamp,
            headers: record.headers.map(|(name, value)| (text(name), value.map(<[u8]>::to_vec))).collect(),
        },
    }
}
