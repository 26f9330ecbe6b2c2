//! How far the records of a topic with a partitioner of its own have come from its intake.

use std::sync::Arc;

use super::Admin;
use crate::partition::Partition;
use crate::routers::router_of;
use crate::topics::{NotHere, Topic};
use pelton_partitions::intake::places_of;
use pelton_pipelines::status::PipelineState;

/// What is routed of a topic.
pub(crate) struct Routing {
    /// Who places its records: a rule, or a plugin.
    pub(crate) partitioner: String,
    /// The pipeline that routes them.
    pub(crate) router: String,
    /// What that does; none if it is not there yet.
    pub(crate) state: Option<PipelineState>,
    /// Why it does not go on.
    pub(crate) failure: Option<String>,
    /// Bytes that clients have written and that are not routed yet.
    pub(crate) unrouted_bytes: u64,
    /// Beyond so many nothing more is taken.
    pub(crate) unrouted_max_bytes: u64,
}

/// What has become of what a client wrote.
pub(crate) struct Ticket {
    /// Whether consumers of the topic can see it.
    pub(crate) routed: bool,
    /// What the router takes next of the partition that the client chose.
    pub(crate) next: i64,
    /// What says where it is, if it is routed.
    pub(crate) places: Option<Arc<Partition>>,
}

impl Admin {
    /// How the records of a topic are routed, if they are.
    pub(crate) fn routing(&self, topic: &Topic) -> Option<Routing> {
        let partitioner = topic.config.partitioner.as_ref()?;
        let router = router_of(&topic.name, topic.id);
        let status = self.pipelines().ok().and_then(|all| all.pipeline(&router)).map(|found| found.status);
        Some(Routing {
            partitioner: partitioner.name.clone(),
            state: status.as_ref().map(|status| status.state),
            failure: status.and_then(|status| status.failure).map(|failure| failure.reason),
            unrouted_bytes: self.unrouted_bytes(topic)?,
            unrouted_max_bytes: partitioner.intake_max_bytes,
            router,
        })
    }

    /// Bytes of a topic that are not routed yet, if it has a partitioner of its own.
    pub(crate) fn unrouted_bytes(&self, topic: &Topic) -> Option<u64> {
        let intake = self.topics.intake(topic).ok()??;
        Some(intake.local.first()?.intake()?.unrouted_bytes())
    }

    /// What has become of the record whose ticket a client has: the partition that it chose, and the offset that it was
    /// answered. None if nothing was written there.
    ///
    /// # Errors
    /// The topic has no intake, or not this partition.
    pub(crate) fn ticket(
        &self,
        topic: &Topic,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Ticket>, NotHere> {
        let intake = self.topics.intake(topic)?.ok_or(NotHere::UnknownPartition)?;
        let found: &Arc<Partition> = intake.partition(partition)?;
        if !(0..found.high_watermark()).contains(&offset) {
            return Ok(None);
        }
        let router = router_of(&topic.name, topic.id);
        let status = self.pipelines().ok().and_then(|all| all.pipeline(&router)).map(|found| found.status);
        let tasks = status.map(|status| status.tasks).unwrap_or_default();
        let task = tasks.iter().find(|task| task.topic == intake.name && task.partition == partition);
        // What was purged is routed, whether the router runs or not.
        let next = task.map_or(0, |task| task.committed).max(found.log_start_offset());
        let routed = offset < next;
        let places = self.topics.get(&places_of(topic.id)).filter(|_| routed);
        let places = places.and_then(|places| places.local.first().cloned());
        Ok(Some(Ticket { routed, next, places }))
    }
}
