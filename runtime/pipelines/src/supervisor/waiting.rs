//! Waiting until what a pipeline keeps reflects an offset: of a topic that its task reads, or of one whose records come to it
//! through topics of the pipeline's own. Of those, what was in them when the records before were done has to be done as well.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Supervisor;
use super::asking::{Asked, AskedOffset, StateAskError};
use crate::readers::Offsets;

/// How often a wait looks whether the pipeline it waits for was started again.
const LOOK: Duration = Duration::from_millis(100);

/// A place that has to be passed.
#[derive(Debug, Clone)]
struct Wanted {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Supervisor {
    /// Waits until a table reflects these offsets, at most so long.
    ///
    /// # Errors
    /// It did not, or there is none.
    pub async fn state_wait(
        &self,
        name: &str,
        key: Option<&[u8]>,
        wanted: &[AskedOffset],
        patience: Duration,
    ) -> Result<(), StateAskError> {
        let end = tokio::time::Instant::now() + patience;
        let mut wanted = self.places(&self.asked(name)?, key, wanted)?;
        loop {
            let asked = self.asked(name)?;
            let mut moved = asked.board.readers().watch();
            moved.borrow_and_update();
            let Some(behind) = self.pass(&asked, &mut wanted)? else { return Ok(()) };
            let now = tokio::time::Instant::now();
            if now >= end {
                return Err(behind);
            }
            // A board that was replaced never moves again, so it is looked for once more.
            let looked = tokio::time::timeout_at(end.min(now + LOOK), moved.changed());
            drop(looked.await);
        }
    }

    /// The places that offsets mean.
    fn places(
        &self,
        asked: &Asked,
        key: Option<&[u8]>,
        wanted: &[AskedOffset],
    ) -> Result<Vec<Wanted>, StateAskError> {
        let (direct, all) = (asked.read_topics(), asked.topics_before());
        let own = |topic: &&String| !pelton_wire::topic_name::is_internal(topic);
        let users: Vec<&String> = all.iter().filter(own).collect();
        let which = || {
            let topics = users.iter().map(|topic| (*topic).clone()).collect();
            StateAskError::WhichOffset { table: asked.name.clone(), topics }
        };
        let place = |AskedOffset { topic, partition, offset }: &AskedOffset| {
            let topic = match (topic, &users[..]) {
                (Some(topic), _) => all.get(topic).ok_or_else(which)?,
                (None, [only]) => *only,
                (None, _) => return Err(which()),
            };
            let count = self.spec.io.partitions(topic).unwrap_or(0).cast_signed();
            let of_key = || {
                let partitions = self.partitions_asked(asked, key);
                <[i32; 1]>::try_from(partitions).ok().filter(|_| direct.contains(topic)).map(|[only]| only)
            };
            let only = (count == 1).then_some(0);
            let partition =
                partition.or(only).or_else(of_key).filter(|partition| (0..count).contains(partition));
            let partition = partition.ok_or_else(which)?;
            Ok(Wanted { topic: topic.clone(), partition, offset: *offset })
        };
        wanted.iter().map(place).collect()
    }

    /// Takes the places out that the table has passed; why it has not passed one of them.
    fn pass(&self, asked: &Asked, wanted: &mut Vec<Wanted>) -> Result<Option<StateAskError>, StateAskError> {
        let direct = asked.read_topics();
        while let Some(Wanted { topic, partition, offset: wanted_offset }) = wanted.last().cloned() {
            let reached = if direct.contains(&topic) {
                let mut offsets = Offsets::new();
                if let Err(error) = asked.read(partition, &mut offsets, |_| Ok(())) {
                    return Ok(Some(error));
                }
                offsets.get(&topic).and_then(|partitions| partitions.get(&partition)).copied()
            } else {
                let is_it =
                    |task: &&crate::status::TaskStatus| task.topic == topic && task.partition == partition;
                asked.board.snapshot().tasks.iter().find(is_it).map(|task| task.committed - 1)
            };
            let offset = reached.unwrap_or(-1);
            if offset < wanted_offset {
                let (table, wanted) = (asked.name.clone(), wanted_offset);
                return Ok(Some(StateAskError::Behind { table, topic, partition, offset, wanted }));
            }
            wanted.pop();
            if direct.contains(&topic) && pelton_wire::topic_name::is_internal(&topic) {
                continue;
            }
            // What was made of it is in these by now, and is committed.
            for between in asked.topics_behind(&topic) {
                let ends = self.spec.io.readable_ends(&between);
                wanted.extend((0..).zip(ends).map(|(partition, end)| Wanted {
                    topic: between.clone(),
                    partition,
                    offset: end - 1,
                }));
            }
        }
        Ok(None)
    }
}

impl Asked {
    /// The topics that the tasks read which keep the table.
    fn read_topics(&self) -> BTreeSet<String> {
        let sources = self.topology.sub_topologies[self.table.sub_topology].sources.iter();
        sources.map(|source| self.topology.sources[*source].topic.clone()).collect()
    }

    /// These, and all that records come to them from.
    fn topics_before(&self) -> BTreeSet<String> {
        let mut found = self.read_topics();
        loop {
            let before: BTreeSet<String> = self
                .topology
                .repartitions()
                .filter(|(_, topic)| found.contains(*topic))
                .flat_map(|(output, _)| self.topology.sources_of_output(output))
                .map(|source| self.topology.sources[source].topic.clone())
                .collect();
            if before.is_subset(&found) {
                return found;
            }
            found.extend(before);
        }
    }

    /// The pipeline's own topics that records of a topic go into on their way to the table.
    fn topics_behind(&self, topic: &str) -> Vec<String> {
        let before = self.topics_before();
        let source = self.topology.sources.iter().position(|source| source.topic == topic);
        let comes_from = |output: usize| {
            source.is_some_and(|source| self.topology.sources_of_output(output).contains(&source))
        };
        let behind =
            self.topology.repartitions().filter(|(output, to)| before.contains(*to) && comes_from(*output));
        behind.map(|(_, topic)| topic.clone()).collect()
    }
}
