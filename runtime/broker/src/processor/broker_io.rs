//! The driver's I/O over the broker's own partitions and group coordinator.

use std::sync::Arc;
use std::time::Duration;

use pelton_commitlog::mutant::Mutant;
use pelton_commitlog::{AppendPermit, ReadError};
use pelton_streams::manifest::Guarantee;
use pelton_streams::manifest::values::Start;
use pelton_streams::topology::OutputTopic;
use pelton_streams::{Emissions, Refused, Sink, Topology};
use pelton_wire::record::CheckedBatch;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use self::staging::{Rules, Staging};
use super::io::{Change, Chunk, DriverIo, Input, IoError, IoFactory, Position, StopSignal, Ticket, group_of};
use crate::clock::Clock;
use crate::group::error::GroupError;
use crate::group::service::Groups;
use crate::group::types::{
    CommitRequest, FetchRequest, MemberIdentity, NO_GENERATION, OffsetToCommit, TopicPartition,
};
use crate::partition::delayed::{ReadyList, Watch};
use crate::partition::{Isolation, Partition, PartitionAppendError};
use crate::same_journal::SameJournal;
use crate::topic_config::Overrides;
use crate::topics::{Topic, Topics};
use crate::txn::Transactions;
use crate::txn::embedded::{EmbeddedError, TransactionalBatch};

mod staging;

/// Makes [`BrokerIo`].
pub(crate) struct BrokerIoFactory {
    pub(crate) topics: Arc<Topics>,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runtime: Handle,
}

impl IoFactory for BrokerIoFactory {
    fn open(&self, of: &Arc<Topology>, guarantee: Guarantee, stop: Arc<StopSignal>) -> Box<dyn DriverIo> {
        Box::new(BrokerIo {
            group: group_of(&of.name),
            topology: Arc::clone(of),
            guarantee,
            staging: Staging::default(),
            known: Known::none(of),
            open: false,
            transactions: self.transactions.clone(),
            topics: Arc::clone(&self.topics),
            groups: self.groups.clone(),
            clock: Arc::clone(&self.clock),
            runtime: self.runtime.clone(),
            stop,
        })
    }

    fn abandon(&self, pipeline: &str) -> Result<(), IoError> {
        if Mutant::AbandonKeepsOpen.is_on() {
            return Ok(());
        }
        let id = transactional_id_of(&group_of(pipeline)).to_owned();
        let abandoned = self.runtime.block_on(self.transactions.abandon(&id));
        abandoned.map_err(|error| IoError::Unavailable(format!("abort the open transaction: {error}")))
    }

    fn topic_exists(&self, topic: &str) -> bool {
        self.topics.get(topic).is_some()
    }
}

struct BrokerIo {
    group: String,
    topology: Arc<Topology>,
    guarantee: Guarantee,
    /// What was written and not appended. Its producer is the driver's own under exactly-once, once it has begun.
    staging: Staging,
    known: Known,
    /// Whether there is a transaction with outputs in it.
    open: bool,
    transactions: Transactions,
    topics: Arc<Topics>,
    groups: Groups,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    stop: Arc<StopSignal>,
}

impl BrokerIo {
    /// What the output topics take now.
    fn rules(&self, now_ms: i64) -> Vec<Rules> {
        let rules = |(output, topic): (&OutputTopic, &Option<Arc<Topic>>)| match topic {
            Some(topic) => Rules::new(&topic.config, output.dead_letter, now_ms),
            // Nothing is written before all of them are known.
            None => Rules::new(&self.topics.resolve(&Overrides::new()), output.dead_letter, now_ms),
        };
        self.topology.outputs.iter().zip(&self.known.outputs).map(rules).collect()
    }

    /// Waits for room in the journal, unless the pipeline is to stop.
    fn room(&self, batches: &[TransactionalBatch]) -> Result<Option<AppendPermit>, IoError> {
        let Some(first) = batches.first() else { return Ok(None) };
        let bytes = batches.iter().map(|batch| batch.batch.len() as u64).sum();
        let room = first.partition.room(bytes);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                room = room => room.map(Some).map_err(|closed| IoError::Unavailable(closed.to_string())),
                () = self.stop.wait() => Err(IoError::Unavailable("the pipeline is stopping".to_owned())),
            }
        })
    }

    fn append_plain(&self, batches: Vec<TransactionalBatch>, room: &AppendPermit) -> Result<(), IoError> {
        for TransactionalBatch { at, partition, batch, durability } in batches {
            let appended = partition.append_client(batch, room, self.clock.now_ms(), durability, None);
            appended.map_err(|error| embedded(EmbeddedError::Append { at, error }))?;
        }
        Ok(())
    }

    fn input(&self, Input { source, partition }: Input) -> Result<(&Arc<Topic>, &Arc<Partition>), IoError> {
        let topic = self.known.sources.get(source).and_then(Option::as_ref);
        let found = topic.and_then(|topic| Some((topic, topic.partition(partition).ok()?)));
        found.ok_or_else(|| self.no_partition(Input { source, partition }))
    }

    fn no_partition(&self, Input { source, partition }: Input) -> IoError {
        IoError::NoPartition { topic: self.topology.sources[source].topic.clone(), partition }
    }

    /// Why a partition cannot be read. If the topic has been deleted, that is why.
    fn unreadable(&self, input: Input, error: &dyn std::fmt::Display) -> IoError {
        let topic = &self.topology.sources[input.source].topic;
        let known = self.known.sources[input.source].as_ref().map(|topic| topic.id);
        if self.topics.get(topic).map(|topic| topic.id) != known {
            return self.no_partition(input);
        }
        IoError::Unavailable(format!("read {topic} [{}]: {error}", input.partition))
    }

    /// What the group has committed for a partition, and for which topic: the one that had the name then.
    fn committed(&self, topic: &str, partition: i32) -> Result<Option<(i64, String)>, IoError> {
        let wanted =
            FetchRequest { topics: Some(vec![(topic.into(), vec![partition])]), require_stable: true };
        let fetched = match self.runtime.block_on(self.groups.fetch(&self.group, wanted)) {
            Ok(fetched) => fetched,
            Err(GroupError::GroupIdNotFound) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        let offset =
            fetched.into_iter().flat_map(|(_, offsets)| offsets).find(|offset| offset.partition == partition);
        match offset.map(|offset| offset.result) {
            None | Some(Ok(None)) => Ok(None),
            Some(Ok(Some(committed))) => Ok(Some((committed.offset, committed.metadata))),
            Some(Err(error)) => Err(unavailable(&error)),
        }
    }
}

/// The topics of a pipeline as they were looked up, so that nothing is looked up by name while records pass.
struct Known {
    /// [`Topics::changes`] when they were.
    at: Option<u64>,
    sources: Vec<Option<Arc<Topic>>>,
    outputs: Vec<Option<Arc<Topic>>>,
}

impl Known {
    fn none(of: &Topology) -> Known {
        Known { at: None, sources: vec![None; of.sources.len()], outputs: vec![None; of.outputs.len()] }
    }

    /// Looks all topics up again, if any topic has changed.
    fn update(&mut self, of: &Topology, topics: &Topics) -> Result<Vec<Change>, IoError> {
        let at = topics.changes();
        let mut changes = Vec::new();
        if self.at == Some(at) {
            return Ok(changes);
        }
        for (output, (spec, known)) in of.outputs.iter().zip(&mut self.outputs).enumerate() {
            let topic = || spec.topic.clone();
            let found = topics.get(&spec.topic).ok_or_else(|| IoError::NoOutput { topic: topic() })?;
            if known.as_ref().is_some_and(|known| known.id != found.id) {
                return Err(IoError::OutputRenewed { topic: topic() });
            }
            let partitions = u32::try_from(found.partition_count).unwrap_or(0);
            changes.push(Change::Output { output, partitions });
            *known = Some(found);
        }
        for (source, (spec, known)) in of.sources.iter().zip(&mut self.sources).enumerate() {
            let found = topics.get(&spec.topic);
            if known.as_ref().is_some_and(|known| found.as_ref().is_none_or(|found| found.id != known.id)) {
                *known = None;
                changes.push(Change::Revoked { source });
            }
            let count = |topic: Option<&Arc<Topic>>| topic.map_or(0, |topic| topic.partition_count);
            let partitions = count(known.as_ref())..count(found.as_ref());
            if !partitions.is_empty() {
                changes.push(Change::Assigned { source, partitions });
            }
            *known = found;
        }
        self.at = Some(at);
        Ok(changes)
    }
}

impl Sink for BrokerIo {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let now_ms = self.clock.now_ms();
        let rules = self.rules(now_ms);
        self.staging.write(records, &rules, now_ms)
    }
}

impl DriverIo for BrokerIo {
    fn begin(&mut self) -> Result<(), IoError> {
        let producer = match self.guarantee {
            Guarantee::AtLeastOnce => {
                // Of an earlier revision, perhaps.
                let abandoned =
                    self.runtime.block_on(self.transactions.abandon(transactional_id_of(&self.group)));
                abandoned.map_err(|error| embedded(error.into()))?;
                None
            }
            Guarantee::ExactlyOnce => {
                let taken = async {
                    self.groups
                        .ensure_topic()
                        .await
                        .map_err(|error| IoError::Unavailable(error.to_string()))?;
                    self.transactions.init_embedded(transactional_id_of(&self.group)).await.map_err(embedded)
                };
                Some(self.runtime.block_on(taken)?)
            }
        };
        self.staging = Staging::new(producer);
        Ok(())
    }

    fn changes(&mut self) -> Result<Vec<Change>, IoError> {
        self.known.update(&self.topology, &self.topics)
    }

    fn position(&self, input: Input, start: Start) -> Result<Position, IoError> {
        let (topic, found) = self.input(input)?;
        let mut renewed = false;
        if let Some((offset, of)) = self.committed(&topic.name, input.partition)? {
            // Who sets offsets by hand means the topic that there is.
            if of.is_empty() || of == topic.id.to_string() {
                return Ok(Position { offset, committed: true, renewed });
            }
            renewed = true;
        }
        let offsets = found.offsets();
        let offset = match start {
            // All of a topic that is new is new.
            _ if renewed => offsets.log_start,
            Start::Earliest => offsets.log_start,
            Start::Latest => offsets.last_stable,
            Start::Offset(offset) => offset.clamp(offsets.log_start, offsets.last_stable),
            Start::Timestamp(ms) => {
                let at = found.reader().offset_for_timestamp(ms, offsets.last_stable);
                let at = at.map_err(|error| self.unreadable(input, &error))?;
                at.map_or(offsets.last_stable, |at| at.offset)
            }
        };
        Ok(Position { offset, committed: false, renewed })
    }

    fn read(&self, input: Input, offset: i64, max_bytes: usize) -> Result<Chunk, IoError> {
        let (topic, found) = self.input(input)?;
        let end = found.log_end_offset();
        if offset > end {
            let (topic, partition) = (topic.name.clone(), input.partition);
            return Err(IoError::BehindEnd { topic, partition, offset, end });
        }
        let open_too = Mutant::OpenInputRead.is_on();
        let isolation = if open_too { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
        let end_offset = found.readable_end(isolation);
        let range = match found.reader().read(offset, max_bytes as u64, end_offset, true) {
            Ok(range) => range,
            // Retention was faster than the pipeline: go on where the log starts now.
            Err(ReadError::OffsetOutOfRange { .. }) if offset < found.log_start_offset() => {
                let next_offset = found.log_start_offset();
                return Ok(Chunk { next_offset, end_offset, deleted_unread: true, ..Chunk::default() });
            }
            Err(error) => return Err(self.unreadable(input, &error)),
        };
        let next_offset = range.next_offset;
        let aborted = found
            .reader()
            .aborted_transactions(range.base_offset, next_offset)
            .map_err(|error| self.unreadable(input, &error))?;
        let bytes = range.into_bytes().map_err(|error| self.unreadable(input, &error))?;
        let batches = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
        Ok(Chunk { batches, aborted, next_offset, end_offset, deleted_unread: false })
    }

    fn flush(&mut self) -> Result<(), IoError> {
        let staged = self.staging.close();
        let staged = staged.map_err(|error| IoError::Unavailable(format!("write outputs: {error}")))?;
        if staged.is_empty() {
            return Ok(());
        }
        let find = |((output, partition), batch): (staging::Slot, CheckedBatch)| {
            let topic = self.topology.outputs[output].topic.as_str();
            let found = self.known.outputs[output].as_ref();
            let found = found.and_then(|topic| Some((topic, topic.partition(partition).ok()?)));
            let (found, target) = found.ok_or_else(|| IoError::NoOutput { topic: topic.to_owned() })?;
            let (partition, at) = (Arc::clone(target), TopicPartition { topic: topic.into(), partition });
            Ok(TransactionalBatch { at, partition, batch, durability: found.config.durability })
        };
        let batches = staged.into_iter().map(find).collect::<Result<Vec<_>, IoError>>()?;
        let Some(room) = self.room(&batches)? else { return Ok(()) };
        let Some(producer) = self.staging.producer() else { return self.append_plain(batches, &room) };
        let id = transactional_id_of(&self.group);
        let held = match self.transactions.try_lock(id) {
            // Somebody looks at it, or it has had its time.
            Ok(None) => self.runtime.block_on(self.transactions.lock(id)),
            Ok(Some(held)) => Ok(held),
            Err(error) => Err(error),
        };
        let mut held = held.map_err(|error| embedded(error.into()))?;
        self.open = true;
        self.transactions.write(&mut held, producer, &self.group, batches, &room).map_err(embedded)
    }

    fn commit(&mut self, offsets: &[(Input, i64)]) -> Result<Ticket, IoError> {
        let commit = |&(input, offset): &(Input, i64)| {
            let (topic, _) = self.input(input)?;
            let at = TopicPartition { topic: topic.name.as_str().into(), partition: input.partition };
            // An offset means nothing in a topic that is created later under the same name.
            Ok(OffsetToCommit { at, offset, leader_epoch: -1, metadata: topic.id.to_string() })
        };
        let offsets = offsets.iter().map(commit).collect::<Result<Vec<_>, IoError>>()?;
        let request = commit_of(offsets);
        let (sender, ticket) = oneshot::channel();
        let id = transactional_id_of(&self.group);
        if let Some(producer) = self.staging.producer().filter(|_| std::mem::take(&mut self.open)) {
            let ended = self.transactions.commit_with_offsets(id, producer, &self.group, request);
            let ending = self.runtime.block_on(ended).map_err(embedded)?;
            self.runtime.spawn(async move {
                // The driver may have ended: then nobody needs to know.
                let _ = sender.send(ending.settled().await.map_err(|error| embedded(error.into())));
            });
            return Ok(ticket);
        }
        if request.offsets.is_empty() {
            // Nobody has dropped the other end.
            let _ = sender.send(Ok(()));
            return Ok(ticket);
        }
        let group = self.group.clone();
        if let Some(producer) = self.staging.producer() {
            let (transactions, id) = (self.transactions.clone(), id.to_owned());
            self.runtime.spawn(async move {
                let done = transactions.commit_offsets_alone(&id, producer, &group, request).await;
                // The driver may have ended: then nobody needs to know.
                let _ = sender.send(done.map_err(embedded));
            });
            return Ok(ticket);
        }
        let commit = commit_behind(self.groups.clone(), group, request, self.topics.same_journal());
        self.runtime.spawn(async move {
            // The driver may have ended: then nobody needs to know.
            let _ = sender.send(commit.await.map_err(|error| unavailable(&error)));
        });
        Ok(ticket)
    }

    fn wait(&self, positions: &[(Input, i64)], timeout_ms: u64) {
        let news = Arc::new(ReadyList::default());
        // One for all of them: whichever has something new, the driver looks.
        let wait = Watch::new(&news, 0);
        let mut ready = false;
        for (input, offset) in positions {
            if let Ok((_, found)) = self.input(*input) {
                found.watch(&wait);
                // Looked at after the watch is set, so that nothing comes in between.
                ready |= found.readable_end(Isolation::ReadCommitted) > *offset;
            }
        }
        if !ready {
            self.runtime.block_on(async {
                tokio::select! {
                    () = news.changed() => {}
                    () = self.stop.wait() => {}
                    () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => {}
                }
            });
        }
        wait.finish();
    }

    fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

/// A commit of a driver, which is no member of its group.
fn commit_of(offsets: Vec<OffsetToCommit>) -> CommitRequest {
    CommitRequest {
        who: MemberIdentity {
            member_id: String::new(),
            group_instance_id: None,
            generation_id: NO_GENERATION,
        },
        retention_ms: None,
        knows_group_id_not_found: true,
        transaction: None,
        offsets,
    }
}

/// Commits offsets without a transaction, behind the outputs that were appended and may not be durable yet: the journal makes
/// those durable first.
async fn commit_behind(
    groups: Groups,
    group: String,
    offsets: CommitRequest,
    _: SameJournal,
) -> Result<(), GroupError> {
    groups.commit(&group, offsets).await?.into_iter().collect()
}

/// A pipeline's transactional id is the name of its group.
fn transactional_id_of(group: &str) -> &str {
    group
}

/// A fenced driver, a full disk or a coordinator that is not ready: a new driver begins at what is committed.
fn embedded(error: EmbeddedError) -> IoError {
    match error {
        EmbeddedError::Append { at, error: PartitionAppendError::Gone } => {
            IoError::NoOutput { topic: at.topic.as_ref().to_owned() }
        }
        error => IoError::Unavailable(error.to_string()),
    }
}

fn unavailable(error: &GroupError) -> IoError {
    IoError::Unavailable(format!("the group coordinator answered: {error}"))
}

#[cfg(test)]
mod tests;
