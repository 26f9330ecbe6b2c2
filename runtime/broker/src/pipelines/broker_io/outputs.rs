//! Writes batches: what was staged becomes appends, in a transaction under exactly-once.

use std::sync::Arc;

use pelton_commitlog::AppendPermit;
use pelton_streams::topology::OutputTopic;
use pelton_streams::{Emissions, Refused, Sink};
use pelton_wire::record::CheckedBatch;

pub(super) use self::staging::Staging;
use self::staging::{Closed, Rules, Slot, Written};
use super::{BrokerIo, embedded};
use crate::group::types::TopicPartition;
use crate::partition::Partition;
use crate::producer_id::ProducerIdentity;
use crate::topic_config::Overrides;
use crate::topics::Topic;
use crate::txn::embedded::{EmbeddedError, TransactionalBatch};
use pelton_pipelines::io::{IoError, Outputs};

pub(in crate::pipelines) mod staging;

impl Sink for BrokerIo {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let now_ms = self.clock.now_ms();
        let rules = self.rules(now_ms);
        self.staging.write(records, &rules)
    }
}

impl Outputs for BrokerIo {
    fn flush(&mut self) -> Result<(), IoError> {
        let staged = self.staging.close();
        let staged = staged.map_err(|error| IoError::Unavailable(format!("write outputs: {error}")))?;
        if staged.is_empty() {
            return Ok(());
        }
        let find = |((output, partition), batch): (Slot, CheckedBatch)| {
            let topic = self.topology.outputs[output].topic.as_str();
            let found = self.known.intakes[output].as_ref().or(self.known.outputs[output].as_ref());
            let found = found.and_then(|topic| Some((topic, topic.partition(partition).ok()?)));
            let (found, target) = found.ok_or_else(|| IoError::NoOutput { topic: topic.to_owned() })?;
            self.check_intake(output, target)?;
            let at = TopicPartition { topic: found.name.as_str().into(), partition };
            let (partition, durability) = (Arc::clone(target), found.config.durability);
            Ok(TransactionalBatch { at, partition, batch, durability })
        };
        let (staged, origins): (Vec<_>, Vec<_>) = staged
            .into_iter()
            .map(|Closed { slot, batch, origins }| ((slot, batch), (slot, origins)))
            .unzip();
        let batches = staged.into_iter().map(find).collect::<Result<Vec<_>, IoError>>()?;
        let Some(room) = self.room(&batches)? else { return Ok(()) };
        let Some(producer) = self.staging.producer() else { return self.append_plain(batches, &room) };
        let written = self.write_in_transaction(producer, batches, &room)?;
        if let Some(placing) = &mut self.placing {
            for (((output, partition), origins), first) in origins.into_iter().zip(written) {
                if !self.topology.outputs[output].dead_letter {
                    placing.written(partition, first, &origins);
                }
            }
        }
        Ok(())
    }
}

impl BrokerIo {
    /// Appends to the transaction, and begins one if there is none; the first offset of each batch.
    pub(super) fn write_in_transaction(
        &mut self,
        producer: ProducerIdentity,
        batches: Vec<TransactionalBatch>,
        room: &AppendPermit,
    ) -> Result<Vec<i64>, IoError> {
        let id = self.transactional_id.as_str();
        let held = match self.transactions.try_lock(id) {
            // Another task holds the lock, or the transaction timed out.
            Ok(None) => self.runtime.block_on(self.transactions.lock(id)),
            Ok(Some(held)) => Ok(held),
            Err(error) => Err(error),
        };
        let mut held = held.map_err(|error| embedded(error.into()))?;
        self.open = true;
        self.transactions.write(&mut held, producer, Some(&self.group), batches, room).map_err(embedded)
    }

    /// Whether the topic of an output has room for what its router has to do still.
    fn check_intake(&self, output: usize, target: &Partition) -> Result<(), IoError> {
        let topic = self.known.outputs[output].as_ref();
        let max = topic.and_then(|topic| Some(topic.config.partitioner.as_ref()?.intake_max_bytes));
        let (Some(intake), Some(max)) = (target.intake(), max) else { return Ok(()) };
        let unrouted = intake.unrouted_bytes();
        if unrouted < max {
            return Ok(());
        }
        let topic = &self.topology.outputs[output].topic;
        Err(IoError::Unavailable(format!(
            "{unrouted} bytes of topic {topic} are not routed yet, and `pelton.intake.max.bytes` is {max}"
        )))
    }

    /// What the output topics take now.
    fn rules(&self, now_ms: i64) -> Vec<Rules> {
        let rules = |(output, topic): (&OutputTopic, &Option<Arc<Topic>>)| match topic {
            Some(topic) => Rules::new(&topic.config, Written::of(output), now_ms),
            // Nothing is written before all of them are known.
            None => Rules::new(&self.topics.resolve(&Overrides::new()), Written::of(output), now_ms),
        };
        self.topology.outputs.iter().zip(&self.known.outputs).map(rules).collect()
    }

    /// Waits for room in the journal, unless the pipeline is to stop.
    pub(super) fn room(&self, batches: &[TransactionalBatch]) -> Result<Option<AppendPermit>, IoError> {
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
}
