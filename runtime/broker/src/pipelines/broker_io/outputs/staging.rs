//! What a driver's step has written and not appended yet: batches that their topics take. A record that a topic would refuse
//! is refused here, by itself, with what the topic's settings say of the record as it would be stored.

use pelton_streams::batch::NO_TIMESTAMP;
use pelton_streams::sink::{MAX_REFUSALS, Refusal, Refused};
use pelton_streams::topology::OutputTopic;
use pelton_streams::{Emissions, RecordIn};
use pelton_wire::record::{
    BatchBuilder, BatchOptions, BuildError, BuilderMark, CheckedBatch, Codec, Header, TimestampType,
    sequence_add,
};

use crate::producer_id::ProducerIdentity;
use crate::topic_config::{CompressionType, TopicConfig};

/// A batch is closed when its records have so many bytes, or what its topic takes in any codec if that is less.
const BATCH_BYTES: usize = 256 << 10;
/// What a batch has besides its records, at the most.
const BATCH_OVERHEAD_BYTES: usize = 128;
/// What a record or a header takes besides its bytes, at the most: the varints of its lengths and deltas.
const FRAME_BYTES: usize = 40;
/// A codec makes bytes that cannot be compressed larger, none of them by more than the fifth part.
const CODEC_GROWTH_PART: usize = 5;
/// How a record is stored that is too large otherwise, where the topic leaves the codec to its producers.
const LAST_RESORT_CODEC: Codec = Codec::Zstd;

/// An index in the topology's outputs, and a partition.
pub(in crate::pipelines) type Slot = (usize, i32);

/// What a topic takes now.
#[derive(Debug, Clone)]
pub(in crate::pipelines) struct Rules {
    codec: Codec,
    level: Option<i32>,
    /// For a record that is too large in `codec`.
    last_resort: Codec,
    max_bytes: usize,
    /// A batch with so many bytes is not too large in any codec.
    safe_bytes: usize,
    key_needed: bool,
    timestamps: (i64, i64),
    append_time: Option<i64>,
    /// What a record without a timestamp is stored with.
    no_time: i64,
}

/// What is written to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipelines) enum Written {
    /// Results, or changes of a store.
    Records,
    /// They are compressed, whatever the topic leaves to its producers: they have more bytes than the records that they are
    /// about.
    DeadLetters,
    /// Records on their way to another part of the pipeline. Those have the time that they came with, or none: what is made
    /// of them does not depend on whether there is a topic on their way.
    Between,
}

impl Written {
    pub(in crate::pipelines) fn of(output: &OutputTopic) -> Written {
        match output {
            OutputTopic { dead_letter: true, .. } => Written::DeadLetters,
            OutputTopic { repartition: Some(_), .. } => Written::Between,
            OutputTopic { .. } => Written::Records,
        }
    }
}

impl Rules {
    pub(in crate::pipelines) fn new(topic: &TopicConfig, written: Written, now_ms: i64) -> Rules {
        let max_bytes = usize::try_from(topic.max_message_bytes).unwrap_or(0);
        let (codec, level, last_resort) = match topic.compression {
            CompressionType::Fixed { codec, level } => (codec, level, codec),
            CompressionType::Producer if written == Written::DeadLetters => {
                (LAST_RESORT_CODEC, None, LAST_RESORT_CODEC)
            }
            CompressionType::Producer => (Codec::None, None, LAST_RESORT_CODEC),
        };
        let growth = match codec {
            Codec::None => 0,
            Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd => {
                max_bytes / CODEC_GROWTH_PART + BATCH_OVERHEAD_BYTES
            }
        };
        let (before, after) = (topic.timestamp_before_max_ms, topic.timestamp_after_max_ms);
        Rules {
            codec,
            level,
            last_resort,
            max_bytes,
            safe_bytes: max_bytes.saturating_sub(growth),
            key_needed: topic.compact,
            timestamps: match topic.log_append_time || written == Written::Between {
                true => (i64::MIN, i64::MAX),
                false => (now_ms.saturating_sub(before), now_ms.saturating_add(after)),
            },
            append_time: topic.log_append_time.then_some(now_ms),
            no_time: if written == Written::Between { NO_TIMESTAMP } else { now_ms },
        }
    }

    fn check(&self, record: &RecordIn<'_>, timestamp: i64) -> Result<(), Refusal> {
        let (min, max) = self.timestamps;
        if self.key_needed && record.key.is_none() {
            return Err(Refusal::NoKey);
        }
        if !(min..=max).contains(&timestamp) {
            return Err(Refusal::Timestamp { timestamp, min, max });
        }
        Ok(())
    }
}

enum Batch {
    Open(BatchBuilder),
    /// Of one large record.
    Closed(CheckedBatch),
}

/// What is staged for one partition.
#[derive(Default)]
struct Staged {
    /// In order.
    batches: Vec<Batch>,
    /// Of the record that comes next.
    next_sequence: i32,
    /// Where it was before the write that is under way, once that has touched it.
    before: Option<Mark>,
    /// The offset of the input that each record comes from, if that is kept.
    origins: Vec<i64>,
}

/// A batch that is ready to be appended.
pub(in crate::pipelines) struct Closed {
    pub(in crate::pipelines) slot: Slot,
    pub(in crate::pipelines) batch: CheckedBatch,
    /// The offset of the input that each of its records comes from, if that is kept.
    pub(in crate::pipelines) origins: Vec<i64>,
}

struct Mark {
    batches: usize,
    origins: usize,
    last: Option<BuilderMark>,
    next_sequence: i32,
}

#[derive(Default)]
pub(in crate::pipelines) struct Staging {
    /// `None`: without transactions, and without sequences.
    producer: Option<ProducerIdentity>,
    keeps_origins: bool,
    /// By output and partition.
    partitions: Vec<Vec<Staged>>,
    /// Those that have something staged, in the order in which they were touched.
    touched: Vec<Slot>,
}

impl Staging {
    /// For a producer in a new epoch, in which sequences begin at 0.
    pub(in crate::pipelines) fn new(producer: Option<ProducerIdentity>) -> Staging {
        Staging { producer, ..Staging::default() }
    }

    /// The same, which says of each record where it comes from, or does not.
    pub(in crate::pipelines) fn keeping_origins(self, keeps_origins: bool) -> Staging {
        Staging { keeps_origins, ..self }
    }

    pub(in crate::pipelines) fn producer(&self) -> Option<ProducerIdentity> {
        self.producer
    }

    /// Takes all of these records or none. `rules` has those of each output.
    pub(in crate::pipelines) fn write(
        &mut self,
        records: Emissions<'_>,
        rules: &[Rules],
    ) -> Result<(), Vec<Refused>> {
        let (producer, keeps_origins) = (self.producer, self.keeps_origins);
        let mut refused = Vec::new();
        let mut touched = Vec::new();
        for (index, emitted) in records.iter().enumerate() {
            let record = emitted.record;
            let staged = self.at((emitted.output, emitted.partition));
            if staged.before.is_none() {
                staged.before = Some(staged.mark());
                touched.push((emitted.output, emitted.partition));
            }
            let rules = &rules[emitted.output];
            let timestamp = if record.timestamp == NO_TIMESTAMP { rules.no_time } else { record.timestamp };
            if let Err(why) = staged.take(&record, timestamp, rules, producer) {
                refused.push(Refused { index, why });
                if refused.len() >= MAX_REFUSALS {
                    break;
                }
            }
            if keeps_origins {
                staged.origins.push(record.offset);
            }
        }
        for slot in touched {
            let staged = self.at(slot);
            let Some(before) = staged.before.take() else { continue };
            if !refused.is_empty() {
                staged.rollback(before);
            } else if before.batches == 0 {
                self.touched.push(slot);
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }

    /// Takes one record, or refuses it.
    pub(in crate::pipelines) fn put(
        &mut self,
        slot: Slot,
        record: &RecordIn<'_>,
        rules: &Rules,
    ) -> Result<(), Refusal> {
        let producer = self.producer;
        let timestamp = if record.timestamp == NO_TIMESTAMP { rules.no_time } else { record.timestamp };
        let staged = self.at(slot);
        let is_untouched = staged.batches.is_empty();
        staged.take(record, timestamp, rules, producer)?;
        if is_untouched {
            self.touched.push(slot);
        }
        Ok(())
    }

    fn at(&mut self, (output, partition): Slot) -> &mut Staged {
        let partition = usize::try_from(partition).unwrap_or(0);
        if self.partitions.len() <= output {
            self.partitions.resize_with(output + 1, Vec::new);
        }
        let partitions = &mut self.partitions[output];
        if partitions.len() <= partition {
            partitions.resize_with(partition + 1, Staged::default);
        }
        &mut partitions[partition]
    }

    /// Closes what is staged, in the order in which to append it. From here on it counts as appended.
    pub(in crate::pipelines) fn close(&mut self) -> Result<Vec<Closed>, BuildError> {
        let mut closed = Vec::new();
        for slot in std::mem::take(&mut self.touched) {
            let staged = self.at(slot);
            let mut origins = std::mem::take(&mut staged.origins).into_iter();
            for batch in std::mem::take(&mut staged.batches) {
                let batch = match batch {
                    Batch::Open(builder) => builder.build()?,
                    Batch::Closed(batch) => batch,
                };
                let records = usize::try_from(batch.header().records_count).unwrap_or(0);
                closed.push(Closed { slot, batch, origins: origins.by_ref().take(records).collect() });
            }
        }
        Ok(closed)
    }
}

impl Staged {
    fn mark(&self) -> Mark {
        let last = match self.batches.last() {
            Some(Batch::Open(builder)) => Some(builder.mark()),
            Some(Batch::Closed(_)) | None => None,
        };
        Mark {
            batches: self.batches.len(),
            origins: self.origins.len(),
            last,
            next_sequence: self.next_sequence,
        }
    }

    fn rollback(&mut self, mark: Mark) {
        self.batches.truncate(mark.batches);
        self.origins.truncate(mark.origins);
        self.next_sequence = mark.next_sequence;
        if let (Some(Batch::Open(builder)), Some(mark)) = (self.batches.last_mut(), mark.last) {
            builder.rollback(mark);
        }
    }

    fn take(
        &mut self,
        record: &RecordIn<'_>,
        timestamp: i64,
        rules: &Rules,
        producer: Option<ProducerIdentity>,
    ) -> Result<(), Refusal> {
        rules.check(record, timestamp)?;
        let bytes = size_bound(record);
        if BATCH_OVERHEAD_BYTES + bytes > rules.safe_bytes {
            let batch = alone(record, timestamp, rules, options(producer, self.next_sequence, rules))?;
            self.batches.push(Batch::Closed(batch));
        } else {
            let limit = rules.safe_bytes.min(BATCH_BYTES);
            let fits = |builder: &BatchBuilder| builder.uncompressed_bytes() + bytes <= limit;
            match self.batches.last_mut() {
                Some(Batch::Open(builder)) if fits(builder) => append(builder, record, timestamp)?,
                _ => {
                    let mut builder = BatchBuilder::new(options(producer, self.next_sequence, rules));
                    append(&mut builder, record, timestamp)?;
                    self.batches.push(Batch::Open(builder));
                }
            }
        }
        if producer.is_some() {
            self.next_sequence = sequence_add(self.next_sequence, 1);
        }
        Ok(())
    }
}

/// A batch of one record that may be too large: whether it is shows when it is compressed.
fn alone(
    record: &RecordIn<'_>,
    timestamp: i64,
    rules: &Rules,
    options: BatchOptions,
) -> Result<CheckedBatch, Refusal> {
    let mut builder = BatchBuilder::new(options.clone());
    append(&mut builder, record, timestamp)?;
    let mut codec = rules.codec;
    if builder.uncompressed_bytes() > rules.max_bytes && codec != rules.last_resort {
        codec = rules.last_resort;
        builder = BatchBuilder::new(BatchOptions { codec, ..options });
        append(&mut builder, record, timestamp)?;
    }
    let batch = builder.build().map_err(|error| Refusal::Unwritable(error.to_string()))?;
    if batch.len() > rules.max_bytes {
        let (bytes, max) = (batch.len(), rules.max_bytes);
        return Err(Refusal::TooLarge { bytes, codec: codec.name(), max });
    }
    Ok(batch)
}

fn append(builder: &mut BatchBuilder, record: &RecordIn<'_>, timestamp: i64) -> Result<(), Refusal> {
    let delta = builder.records_count();
    let headers = record.headers.map(|(key, value)| Header { key, value });
    let appended = builder.append_at(delta, timestamp, record.key, record.value, headers);
    appended.map_err(|error| Refusal::Unwritable(error.to_string()))
}

/// Bytes that a record takes in a batch, or a little less.
fn size_bound(record: &RecordIn<'_>) -> usize {
    let size = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let of_headers = record.headers.map(|(key, value)| FRAME_BYTES + key.len() + size(value));
    FRAME_BYTES + size(record.key) + size(record.value) + of_headers.sum::<usize>()
}

fn options(producer: Option<ProducerIdentity>, base_sequence: i32, rules: &Rules) -> BatchOptions {
    let timestamp_type = match rules.append_time {
        Some(_) => TimestampType::LogAppendTime,
        None => TimestampType::CreateTime,
    };
    let options = BatchOptions {
        codec: rules.codec,
        level: rules.level,
        timestamp_type,
        max_timestamp: rules.append_time,
        ..BatchOptions::default()
    };
    match producer {
        None => options,
        Some(ProducerIdentity { id, epoch }) => BatchOptions {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence,
            transactional: true,
            ..options
        },
    }
}

#[cfg(test)]
mod tests;
