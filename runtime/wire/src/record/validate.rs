//! What a broker checks in a batch before it appends it for a client; Kafka's `LogValidator`.

use super::compression::{Codec, DecompressError, DecompressLimit, lz4_is_portable};
use super::header::{BatchHeader, NO_TIMESTAMP, TimestampType, UnknownCodec};
use super::records::RecordError;
use super::view::BatchView;

/// Most records that one refusal names. A client needs the first to see what is wrong; a batch can hold millions.
pub const MAX_RECORD_ERRORS: usize = 10_000;

/// What is asked of a batch, from the topic's settings and the request's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendRules {
    /// Every record needs a key: `cleanup.policy` contains `compact`.
    pub keys_required: bool,
    /// Zstandard is allowed: Produce from version 7.
    pub zstd_allowed: bool,
    /// The smallest timestamp allowed (ms): now − `message.timestamp.before.max.ms`. Not for
    /// [`TimestampType::LogAppendTime`] topics, whose records' timestamps do not matter.
    pub min_timestamp: i64,
    /// The largest timestamp allowed (ms): now + `message.timestamp.after.max.ms`.
    pub max_timestamp: i64,
    /// How much the batch may unpack to.
    pub limit: DecompressLimit,
    /// Largest record of a compressed batch, without the bytes of its length: `max.decompressed.message.bytes`.
    pub max_record_bytes: usize,
}

impl Default for AppendRules {
    fn default() -> AppendRules {
        AppendRules {
            keys_required: false,
            zstd_allowed: true,
            min_timestamp: i64::MIN,
            max_timestamp: i64::MAX,
            limit: DecompressLimit::default(),
            max_record_bytes: usize::MAX,
        }
    }
}

/// What is known of a batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Records in it, at least 1.
    pub records_count: i32,
    /// The largest timestamp of its records (ms). Where the header says something else, the broker corrects it with
    /// [`BatchMut::set_max_timestamp`](super::BatchMut::set_max_timestamp).
    pub max_timestamp: i64,
    /// The offsets inside are not 0, 1, 2 …, as some old clients write them: the batch has to be written anew with
    /// [`rewrite_offsets`](super::rewrite_offsets).
    pub offsets_wrong: bool,
    /// Bytes of its records without compression.
    pub uncompressed_bytes: usize,
}

/// Why a batch is not appended. Kafka's error code for each is in the words of its variant.
#[derive(Debug, thiserror::Error)]
pub enum AppendRefusal {
    /// INVALID_RECORD: offsets and count do not fit each other, or there is no record.
    #[error("the batch covers {offsets} offsets and counts {count} records")]
    Count {
        /// Offsets it covers.
        offsets: i64,
        /// Records it counts.
        count: i32,
    },
    /// INVALID_RECORD: only brokers write control records.
    #[error("clients cannot write control records")]
    Control,
    /// INVALID_RECORD: a batch of an idempotent producer needs a sequence.
    #[error("a batch of producer id `{producer_id}` has the sequence `{base_sequence}`")]
    Sequence {
        /// As in the header.
        producer_id: i64,
        /// As in the header.
        base_sequence: i32,
    },
    /// INVALID_RECORD: a transactional batch needs a producer.
    #[error("a transactional batch needs a producer id")]
    TransactionWithoutProducer,
    /// INVALID_RECORD: the delete horizon is for compaction to set; from a client it would drop tombstones early.
    #[error("clients cannot set a delete horizon")]
    DeleteHorizon,
    /// INVALID_TIMESTAMP: append times are for the broker to set.
    #[error("clients cannot set the timestamp type to LogAppendTime")]
    TimestampType,
    /// UNSUPPORTED_COMPRESSION_TYPE: Zstandard before version 7 of Produce.
    #[error("zstd needs version 7 of Produce or later")]
    ZstdTooOld,
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error(transparent)]
    Codec(#[from] UnknownCodec),
    /// CORRUPT_MESSAGE: Java's clients could not read what was stored.
    #[error(
        "the batch is not one lz4 frame with independent blocks, the only kind that Kafka's Java clients can read"
    )]
    Lz4NotPortable,
    /// CORRUPT_MESSAGE, or MESSAGE_TOO_LARGE where the limit was reached.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// INVALID_RECORD: a record unpacks to more than the topic allows.
    #[error("record number {index} has {size} bytes, the topic's max.decompressed.message.bytes is {max}")]
    RecordTooLarge {
        /// Which record of the batch, from 0.
        index: i32,
        /// Its bytes.
        size: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// INVALID_RECORD: the records are not well-formed.
    #[error(transparent)]
    Malformed(RecordError),
    /// INVALID_RECORD, or INVALID_TIMESTAMP if all problems are about timestamps; with a list of records.
    #[error("{count} records are refused, the first (number {}) {}", first.index, first.kind)]
    Records {
        /// The first of them.
        first: RecordProblem,
        /// All of them, the first included, up to [`MAX_RECORD_ERRORS`].
        problems: Vec<RecordProblem>,
        /// How many there are.
        count: usize,
    },
}

/// A record that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordProblem {
    /// Which record of the batch, from 0: `batch_index` in the response.
    pub index: i32,
    /// Why.
    pub kind: RecordProblemKind,
}

/// Why a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblemKind {
    /// INVALID_RECORD: compaction needs keys.
    #[error("has no key, which a compacted topic needs")]
    NoKey,
    /// INVALID_TIMESTAMP.
    #[error("has the timestamp `{0}`, which is out of the topic's range")]
    Timestamp(i64),
}

/// Checks a batch that a client sent. Everything is read once: a compressed batch is unpacked into `scratch`, records
/// are walked without building them.
pub fn validate_for_append(
    view: &BatchView<'_>,
    rules: &AppendRules,
    scratch: &mut Vec<u8>,
) -> Result<Validated, AppendRefusal> {
    check_header(view.header(), rules)?;
    if view.header().codec()? == Codec::Lz4 && !lz4_is_portable(view.payload()) {
        // The decoder's error says more about bytes that are no lz4 frame at all.
        view.decompressed(scratch, rules.limit).map_err(refusal)?;
        return Err(AppendRefusal::Lz4NotPortable);
    }
    walk(view, rules, scratch)
}

fn check_header(header: &BatchHeader, rules: &AppendRules) -> Result<(), AppendRefusal> {
    let (offsets, count) = (i64::from(header.last_offset_delta) + 1, header.records_count);
    if count <= 0 || offsets != i64::from(count) {
        return Err(AppendRefusal::Count { offsets, count });
    }
    if header.is_control() {
        return Err(AppendRefusal::Control);
    }
    if header.has_producer() && header.base_sequence < 0 {
        let BatchHeader { producer_id, base_sequence, .. } = *header;
        return Err(AppendRefusal::Sequence { producer_id, base_sequence });
    }
    if header.is_transactional() && !header.has_producer() {
        return Err(AppendRefusal::TransactionWithoutProducer);
    }
    if header.delete_horizon().is_some() {
        return Err(AppendRefusal::DeleteHorizon);
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(AppendRefusal::TimestampType);
    }
    if header.codec()? == Codec::Zstd && !rules.zstd_allowed {
        return Err(AppendRefusal::ZstdTooOld);
    }
    Ok(())
}

fn walk(
    view: &BatchView<'_>,
    rules: &AppendRules,
    scratch: &mut Vec<u8>,
) -> Result<Validated, AppendRefusal> {
    let mut records = view.records(scratch, rules.limit).map_err(refusal)?.with_any_offsets();
    let mut found = Validated {
        records_count: 0,
        max_timestamp: i64::MIN,
        offsets_wrong: false,
        uncompressed_bytes: records.data().len(),
    };
    let max = if view.header().codec()?.is_compressed() { rules.max_record_bytes } else { usize::MAX };
    let mut problems = Problems::default();
    while let Some(raw) = records.next_raw() {
        let raw = raw.map_err(refusal)?;
        let (index, timestamp) = (found.records_count, records.timestamp_of(&raw));
        if raw.size > max {
            return Err(AppendRefusal::RecordTooLarge { index, size: raw.size, max });
        }
        if rules.keys_required && raw.key.is_none() {
            problems.add(RecordProblem { index, kind: RecordProblemKind::NoKey });
        } else if timestamp != NO_TIMESTAMP
            && !(rules.min_timestamp..=rules.max_timestamp).contains(&timestamp)
        {
            problems.add(RecordProblem { index, kind: RecordProblemKind::Timestamp(timestamp) });
        }
        found.offsets_wrong |= raw.offset_delta != index;
        found.max_timestamp = found.max_timestamp.max(timestamp);
        found.records_count += 1;
    }
    problems.refuse()?;
    Ok(found)
}

#[derive(Default)]
struct Problems {
    listed: Vec<RecordProblem>,
    count: usize,
}

impl Problems {
    #[cold]
    fn add(&mut self, problem: RecordProblem) {
        self.count += 1;
        if self.listed.len() < MAX_RECORD_ERRORS {
            self.listed.push(problem);
        }
    }

    fn refuse(self) -> Result<(), AppendRefusal> {
        match self.listed.first() {
            None => Ok(()),
            Some(first) => {
                Err(AppendRefusal::Records { first: *first, problems: self.listed, count: self.count })
            }
        }
    }
}

fn refusal(error: RecordError) -> AppendRefusal {
    match error {
        RecordError::Codec(error) => AppendRefusal::Codec(error),
        RecordError::Decompress(error) => AppendRefusal::Decompress(error),
        error @ (RecordError::Malformed { .. } | RecordError::Trailing { .. }) => {
            AppendRefusal::Malformed(error)
        }
    }
}
