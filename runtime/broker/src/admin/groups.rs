//! Consumer groups: list, describe, and delete groups and committed offsets.

use std::sync::Arc;

use super::Admin;
use crate::group::error::GroupError;
use crate::group::lag::lag;
use crate::group::service::GroupSummary;
use crate::group::types::{FetchRequest, GroupDescription, GroupListing, TopicPartition};

/// A group's committed offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupPosition {
    pub(crate) at: TopicPartition,
    pub(crate) committed: i64,
    /// `None` if the partition is gone.
    pub(crate) high_watermark: Option<i64>,
}

impl GroupPosition {
    pub(crate) fn lag(&self) -> Option<i64> {
        self.high_watermark.map(|end| lag(self.committed, end))
    }
}

impl Admin {
    pub(crate) async fn list_groups(&self) -> Result<Vec<GroupListing>, GroupError> {
        self.groups.list().await
    }

    /// At most `limit` groups by name, those that come after `after`.
    pub(crate) async fn group_page(&self, after: &str, limit: usize) -> Vec<GroupSummary> {
        self.groups.summaries(after, limit).await
    }

    /// State and members of a group; `None` if the group does not exist.
    pub(crate) async fn describe_group(&self, group: &str) -> Result<Option<GroupDescription>, GroupError> {
        self.groups.describe(group).await
    }

    /// The committed offsets of a group, with the high watermark of each partition.
    pub(crate) async fn group_positions(&self, group: &str) -> Result<Vec<GroupPosition>, GroupError> {
        let everything = FetchRequest { topics: None, require_stable: false };
        let mut positions = Vec::new();
        for (name, partitions) in self.groups.fetch(group, everything).await? {
            let topic = self.topics.get(&name);
            for fetched in partitions {
                let Ok(Some(committed)) = fetched.result else { continue };
                let partition = topic.as_ref().and_then(|topic| topic.partition(fetched.partition).ok());
                positions.push(GroupPosition {
                    at: TopicPartition { topic: Arc::from(&*name), partition: fetched.partition },
                    committed: committed.offset,
                    high_watermark: partition.map(|partition| partition.high_watermark()),
                });
            }
        }
        positions.sort_by(|a, b| (&a.at.topic, a.at.partition).cmp(&(&b.at.topic, b.at.partition)));
        Ok(positions)
    }

    /// Deletes a group without members, and its committed offsets.
    pub(crate) async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        self.pipelines.unless_running(group, GroupError::NonEmptyGroup)?;
        self.groups.delete(group).await
    }

    /// Deletes committed offsets of topics that no member subscribes to.
    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        // A running pipeline counts as subscribed to every topic that it has offsets of.
        let in_use = GroupError::GroupSubscribedToTopic;
        match self.pipelines.unless_running(group, in_use) {
            Ok(()) => self.groups.delete_offsets(group, partitions).await,
            Err(error) if error == in_use => Ok(vec![Err(in_use); partitions.len()]),
            Err(error) => Err(error),
        }
    }
}
