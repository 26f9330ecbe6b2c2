//! The changelogs of a pipeline's stores: topics that it alone writes.

use std::sync::Arc;

use pelton_pipelines::io::{ChangelogEnds, Changelogs, Filled, IoError};
use pelton_wire::record::Columns;

use super::BrokerIo;
use crate::partition::Partition;
use crate::topics::Topic;

impl Changelogs for BrokerIo {
    fn changelog(&self, output: usize, partition: i32) -> Result<ChangelogEnds, IoError> {
        let (topic, found) = self.changelog_partition(output, partition)?;
        Ok(ChangelogEnds {
            topic_id: *topic.id.as_bytes(),
            start: found.log_start_offset(),
            end: found.log_end_offset(),
            delete_retention_ms: topic.config.compaction.delete_retention_ms,
        })
    }

    fn fill_changelog(
        &self,
        output: usize,
        partition: i32,
        offset: i64,
        records: &mut Columns,
    ) -> Result<Filled, IoError> {
        let (topic, found) = self.changelog_partition(output, partition)?;
        self.fill_from(topic, found, offset, records)
    }

    fn wait_changelog(&self, output: usize, partition: i32, offset: i64, timeout_ms: u64) {
        let found = self.changelog_partition(output, partition).ok().map(|(_, found)| found);
        self.wait_for(found.into_iter().map(|found| (found, offset)), timeout_ms);
    }
}

impl BrokerIo {
    fn changelog_partition(
        &self,
        output: usize,
        partition: i32,
    ) -> Result<(&Arc<Topic>, &Arc<Partition>), IoError> {
        let topic = self.known.outputs.get(output).and_then(Option::as_ref);
        let found = topic.and_then(|topic| Some((topic, topic.partition(partition).ok()?)));
        found.ok_or_else(|| IoError::NoOutput { topic: self.topology.outputs[output].topic.clone() })
    }
}
