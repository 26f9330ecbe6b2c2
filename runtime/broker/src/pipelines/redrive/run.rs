//! One redrive: step by step through the partitions of dead letters, a transaction for each step.

use std::collections::BTreeSet;
use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use pelton_partitions::intake::owner_of;
use pelton_pipelines::supervisor::LetterTopics;
use pelton_streams::BatchIn;
use pelton_streams::dead_letter::DeadLetter;
use pelton_wire::record::Columns;
use pelton_wire::topic_name;

use super::{
    LETTERS_MAX, LettersRead, Place, READS_MAX, Redrive, RedriveError, RedriveRequest, Redriven,
    RefusedLetter,
};
use crate::api::produce::Producing;
use crate::blocking::run_blocking;
use crate::group::error::GroupError;
use crate::group::types::{CommitRequest, FetchRequest, OffsetToCommit, TopicPartition};
use crate::partition::Partition;
use crate::pipelines::broker_io::committer::commit_of;
use crate::pipelines::broker_io::outputs::staging::{Closed, Rules, Staging, Written};
use crate::pipelines::broker_io::redrive_group_of;
use crate::pipelines::{ReadFault, read_committed};
use crate::producer_id::ProducerIdentity;
use crate::topics::Topic;
use crate::txn::embedded::TransactionalBatch;

fn unavailable(error: &dyn std::fmt::Display) -> RedriveError {
    RedriveError::Unavailable(error.to_string())
}

/// A topic that letters go back to.
struct Target {
    name: String,
    /// That topic, or its intake.
    stored_in: Arc<Topic>,
    rules: Rules,
}

/// What became of one letter.
enum Fate {
    /// It was taken, or is passed over.
    Done,
    /// So many letters have gone back as were asked for.
    Enough,
    Refused(String),
}

pub(in crate::pipelines) struct Run<'a> {
    redrive: &'a Redrive,
    pipeline: &'a str,
    /// The group, and the transactional id.
    id: String,
    /// Topics that letters may go back to.
    sources: BTreeSet<String>,
    /// Those of them whose records are rows of tables, unless those are asked for.
    left_out: BTreeSet<String>,
    /// None in a dry run.
    producer: Option<ProducerIdentity>,
    /// What the next transaction writes, by the number of a target and a partition.
    staging: Staging,
    targets: Vec<Target>,
    left: u64,
    reads_left: u32,
    done: Redriven,
}

impl<'a> Run<'a> {
    pub(in crate::pipelines) fn new(
        redrive: &'a Redrive,
        pipeline: &'a str,
        topics: LetterTopics,
        request: &RedriveRequest,
    ) -> Run<'a> {
        let id = redrive_group_of(pipeline);
        Run {
            redrive,
            pipeline,
            sources: topics.sources,
            left_out: if request.tables { BTreeSet::new() } else { topics.tables },
            producer: None,
            staging: Staging::default(),
            targets: Vec::new(),
            left: request.limit.unwrap_or(LETTERS_MAX).min(LETTERS_MAX),
            reads_left: READS_MAX,
            done: Redriven { group: id.clone(), ..Redriven::default() },
            id,
        }
    }

    pub(super) async fn all(
        mut self,
        places: Vec<Place>,
        request: &RedriveRequest,
    ) -> Result<Redriven, RedriveError> {
        if !request.dry_run {
            self.begin().await?;
        }
        for place in places {
            if let Err(error) = self.partition(&place, request).await {
                if self.producer.is_some()
                    && let Err(left) = self.parts().transactions.abandon(&self.id).await
                {
                    tracing::warn!(id = self.id, error = %left, "a transaction stays open until it times out");
                }
                return Err(error);
            }
        }
        let is_done = |read: &LettersRead| read.next >= read.end;
        self.done.complete = self.done.refused.is_none() && self.done.letters.iter().all(is_done);
        Ok(self.done)
    }

    fn parts(&self) -> &'a Producing {
        &self.redrive.parts
    }

    /// Becomes the only one that puts these letters back; what an earlier one has left open is aborted.
    pub(in crate::pipelines) async fn begin(&mut self) -> Result<(), RedriveError> {
        self.redrive.groups.ensure_topic().await.map_err(|error| unavailable(&error))?;
        let made = self.parts().transactions.init_embedded(&self.id).await;
        let producer = made.map_err(|error| unavailable(&error))?;
        (self.producer, self.staging) = (Some(producer), Staging::new(Some(producer)));
        Ok(())
    }

    /// Puts the letters of one partition back.
    async fn partition(&mut self, place: &Place, request: &RedriveRequest) -> Result<(), RedriveError> {
        let Place { topic, partition: index } = place;
        let partition = Arc::clone(topic.partition(*index).map_err(|error| unavailable(&error))?);
        let stable = partition.offsets().last_stable;
        let asked = request.until.as_ref().and_then(|ends| ends.get(&topic.name)?.get(index)).copied();
        let end = asked.unwrap_or(stable).min(stable);
        let position = self.position(topic, *index).await?.unwrap_or(0);
        let wanted = position.max(request.from.unwrap_or(0));
        let from = wanted.max(partition.log_start_offset());
        self.done.deleted += (from - wanted).unsigned_abs();
        let mut at = from;
        while at < end && self.done.refused.is_none() && self.reads_left > 0 {
            self.reads_left -= 1;
            let Step { records, read_to, deleted } = read(&partition, at, end).await?;
            self.done.deleted += deleted;
            let batch = BatchIn::new(&topic.name, index.unsigned_abs(), &records).below(end);
            let next = self.take(batch, read_to.min(end).max(at));
            if next == at {
                break;
            }
            self.commit(topic, *index, next).await?;
            at = next;
        }
        let (topic, partition) = (topic.name.clone(), *index);
        self.done.letters.push(LettersRead { topic, partition, from, next: at, end });
        Ok(())
    }

    /// The offset that is committed for a partition of the topic of now.
    async fn position(&self, topic: &Topic, partition: i32) -> Result<Option<i64>, RedriveError> {
        let wanted = Some(vec![(topic.name.as_str().into(), vec![partition])]);
        // A dry run may come in the midst of a redrive that a crash has interrupted.
        let wanted = FetchRequest { topics: wanted, require_stable: self.producer.is_some() };
        let fetched = match self.redrive.groups.fetch(&self.id, wanted).await {
            Ok(fetched) => fetched,
            Err(GroupError::GroupIdNotFound) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        let mut offsets = fetched.into_iter().flat_map(|(_, offsets)| offsets);
        match offsets.find(|found| found.partition == partition).map(|found| found.result) {
            None | Some(Ok(None)) => Ok(None),
            // One that was set by hand has no topic.
            Some(Ok(Some(committed))) => {
                let of = committed.metadata;
                Ok(Some(committed.offset).filter(|_| of.is_empty() || of == topic.id.to_string()))
            }
            Some(Err(error)) => Err(unavailable(&error)),
        }
    }

    /// Stages the letters of a batch that go back. The offset behind what was done.
    pub(in crate::pipelines) fn take(&mut self, letters: BatchIn<'_>, read_to: i64) -> i64 {
        for record in letters.records() {
            let letter = DeadLetter::read(record).filter(|letter| letter.pipeline == self.pipeline);
            let Some(letter) = letter else {
                self.done.others += 1;
                continue;
            };
            match self.put(&letter) {
                Fate::Done => {}
                Fate::Enough => return record.offset,
                Fate::Refused(why) => {
                    let (topic, partition) = (letters.topic.to_owned(), letters.partition.cast_signed());
                    self.done.refused = Some(RefusedLetter { topic, partition, offset: record.offset, why });
                    return record.offset;
                }
            }
        }
        read_to
    }

    fn put(&mut self, letter: &DeadLetter<'_>) -> Fate {
        if self.left_out.contains(letter.topic) {
            self.done.rows += 1;
            return Fate::Done;
        }
        if self.left == 0 {
            return Fate::Enough;
        }
        let put = self.target(letter.topic).and_then(|number| {
            let Target { name, stored_in, rules } = &self.targets[number];
            if !stored_in.has_partition(letter.partition) {
                return Err(format!("topic {name} has no partition {}", letter.partition));
            }
            let put = self.staging.put((number, letter.partition), &letter.record, rules);
            put.map_err(|why| {
                format!("topic {name}, partition {} does not take its record: {why}", letter.partition)
            })
        });
        if let Err(why) = put {
            return Fate::Refused(why);
        }
        self.left -= 1;
        *self.done.redriven.entry(letter.topic.to_owned()).or_default() += 1;
        Fate::Done
    }

    /// The number of a topic among those that letters go back to.
    fn target(&mut self, name: &str) -> Result<usize, String> {
        if let Some(known) = self.targets.iter().position(|target| target.name == name) {
            return Ok(known);
        }
        // Anybody may have written what a letter says.
        if !self.sources.contains(name) {
            return Err(format!("its record is of topic {name}, which the pipeline does not read"));
        }
        let topics = &self.parts().topics;
        let gone = || format!("topic {name}, of which its record is, does not exist any more");
        // Of a router: the record waits to be routed again.
        let owner = owner_of(name).map(|owner| topics.by_id(owner).ok_or_else(gone)).transpose()?;
        let topic = owner.or_else(|| topics.get(name)).ok_or_else(gone)?;
        let stored_in = topics.intake(&topic).map_err(|_| gone())?.unwrap_or_else(|| Arc::clone(&topic));
        let is_between = topic_name::is_internal(&topic.name);
        let written = if is_between { Written::Between } else { Written::Records };
        let rules = Rules::new(&topic.config, written, self.parts().clock.now_ms());
        self.targets.push(Target { name: name.to_owned(), stored_in, rules });
        Ok(self.targets.len() - 1)
    }

    /// Writes what is staged and commits the position behind it, in one transaction. Durable when it returns.
    pub(in crate::pipelines) async fn commit(
        &mut self,
        letters: &Topic,
        partition: i32,
        next: i64,
    ) -> Result<(), RedriveError> {
        let staged = self.staging.close().map_err(|error| unavailable(&error))?;
        let Some(producer) = self.producer else { return Ok(()) };
        let at = TopicPartition { topic: letters.name.as_str().into(), partition };
        let metadata = letters.id.to_string();
        let offsets = commit_of(vec![OffsetToCommit { at, offset: next, leader_epoch: -1, metadata }]);
        if staged.is_empty() {
            let alone = self.parts().transactions.commit_offsets_alone(&self.id, producer, &self.id, offsets);
            return alone.await.map_err(|error| unavailable(&error));
        }
        if Mutant::RedrivePositionApart.is_on() {
            let alone =
                self.parts().transactions.commit_offsets_alone(&self.id, producer, &self.id, offsets.clone());
            alone.await.map_err(|error| unavailable(&error))?;
        }
        self.write(staged, producer, offsets).await
    }

    async fn write(
        &self,
        staged: Vec<Closed>,
        producer: ProducerIdentity,
        offsets: CommitRequest,
    ) -> Result<(), RedriveError> {
        let mut batches = Vec::with_capacity(staged.len());
        let (mut records, mut bytes) = (0, 0);
        for Closed { slot: (number, partition), batch, .. } in staged {
            let stored_in = &self.targets[number].stored_in;
            let found = Arc::clone(stored_in.partition(partition).map_err(|error| unavailable(&error))?);
            self.check_room(&found, stored_in)?;
            records += u64::try_from(batch.header().records_count).unwrap_or(0);
            bytes += batch.len();
            let at = TopicPartition { topic: stored_in.name.as_str().into(), partition };
            let durability = stored_in.config.durability;
            batches.push(TransactionalBatch { at, partition: found, batch, durability });
        }
        let room = self.parts().log_dir.permit(bytes as u64).await.map_err(|error| unavailable(&error))?;
        let transactions = &self.parts().transactions;
        let mut held = transactions.lock(&self.id).await.map_err(|error| unavailable(&error))?;
        let wrote = transactions.write(&mut held, producer, Some(&self.id), batches, &room);
        wrote.map_err(|error| unavailable(&error))?;
        drop((held, room));
        let ending = transactions.commit_with_offsets(&self.id, producer, &self.id, offsets).await;
        ending.map_err(|error| unavailable(&error))?.settled().await.map_err(|error| unavailable(&error))?;
        self.parts().metrics.produced(records, bytes);
        Ok(())
    }

    /// Whether a topic that places its records itself has room for what it has yet to place.
    fn check_room(&self, partition: &Partition, stored_in: &Topic) -> Result<(), RedriveError> {
        let Some(intake) = partition.intake() else { return Ok(()) };
        let topic = owner_of(&stored_in.name).and_then(|owner| self.parts().topics.by_id(owner));
        let max = topic.and_then(|topic| Some(topic.config.partitioner.as_ref()?.intake_max_bytes));
        if max.is_some_and(|max| intake.unrouted_bytes() >= max) {
            let why = "more of the topic is not routed yet than `pelton.intake.max.bytes` allows";
            return Err(unavailable(&why));
        }
        Ok(())
    }
}

/// What a read has found.
struct Step {
    records: Columns,
    /// Where to read next.
    read_to: i64,
    /// Offsets that retention has taken.
    deleted: u64,
}

/// Records from an offset on.
async fn read(partition: &Arc<Partition>, at: i64, end: i64) -> Result<Step, RedriveError> {
    let partition = Arc::clone(partition);
    run_blocking(move || {
        let mut records = Columns::new();
        match read_committed(&partition, at, end, true, &mut records) {
            Ok(read_to) => Ok(Step { records, read_to, deleted: 0 }),
            // Retention was faster.
            Err(ReadFault::Deleted) => {
                let read_to = partition.log_start_offset();
                Ok(Step { records, read_to, deleted: (read_to.min(end) - at).max(0).unsigned_abs() })
            }
            Err(ReadFault::Unreadable(error)) => Err(unavailable(&error)),
            Err(ReadFault::BadBatch { offset, reason }) => {
                Err(unavailable(&format!("the dead letter at offset {offset} cannot be read: {reason}")))
            }
        }
    })
    .await
}
