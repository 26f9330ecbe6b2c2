//! The checks of the one batch that a client sends to a partition, and the batch that is stored. Pure: bytes in, bytes
//! or a refusal out.

use bytes::Bytes;
use pelton_wire::ErrorCode;
use pelton_wire::record::{
    AppendRefusal, AppendRules, BatchError, BuildError, CheckedBatch, DecompressLimit, RecordProblem,
    RecordProblemKind, recompress, rewrite_offsets, validate_for_append,
};

use crate::topic_config::{CompressionType, TopicConfig};

/// First version of Produce whose clients know zstd.
const ZSTD_SINCE: i16 = 7;

/// Everything that the check depends on besides the batch.
pub struct Rules<'a> {
    pub topic: &'a TopicConfig,
    pub version: i16,
    pub now_ms: i64,
    pub limit: DecompressLimit,
}

/// Why a batch was refused. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("a produce request needs one record batch for each partition")]
    NoBatch,
    #[error("the batch has {len} bytes, the topic's max.message.bytes is {max}")]
    TooLarge { len: usize, max: i32 },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Append(#[from] AppendRefusal),
    #[error("it cannot be written anew as the topic's settings ask: {0}")]
    Rewrite(#[from] BuildError),
}

impl Refusal {
    /// Kafka's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Refusal::NoBatch | Refusal::Rewrite(_) => ErrorCode::INVALID_RECORD,
            Refusal::TooLarge { .. } => ErrorCode::MESSAGE_TOO_LARGE,
            Refusal::Batch(error) => batch_code(error),
            Refusal::Append(refusal) => append_code(refusal),
        }
    }

    /// The records that are to blame.
    pub fn record_problems(&self) -> &[RecordProblem] {
        match self {
            Refusal::Append(AppendRefusal::Records { problems, .. }) => problems,
            _ => &[],
        }
    }
}

fn batch_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Magic(_) | BatchError::Trailing { .. } => ErrorCode::INVALID_RECORD,
        BatchError::Short { .. }
        | BatchError::Length(_)
        | BatchError::Truncated { .. }
        | BatchError::OffsetRange { .. }
        | BatchError::RecordsCount(_)
        | BatchError::Crc { .. } => ErrorCode::CORRUPT_MESSAGE,
    }
}

fn append_code(refusal: &AppendRefusal) -> ErrorCode {
    use pelton_wire::record::DecompressError;
    match refusal {
        AppendRefusal::Count { .. }
        | AppendRefusal::Control
        | AppendRefusal::Sequence { .. }
        | AppendRefusal::TransactionWithoutProducer
        | AppendRefusal::DeleteHorizon
        | AppendRefusal::RecordTooLarge { .. }
        | AppendRefusal::Malformed(_) => ErrorCode::INVALID_RECORD,
        AppendRefusal::TimestampType => ErrorCode::INVALID_TIMESTAMP,
        AppendRefusal::ZstdTooOld | AppendRefusal::Codec(_) => ErrorCode::UNSUPPORTED_COMPRESSION_TYPE,
        AppendRefusal::Lz4NotPortable => ErrorCode::CORRUPT_MESSAGE,
        AppendRefusal::Decompress(DecompressError::TooLarge { .. }) => ErrorCode::MESSAGE_TOO_LARGE,
        AppendRefusal::Decompress(DecompressError::Corrupt { .. }) => ErrorCode::CORRUPT_MESSAGE,
        AppendRefusal::Records { problems, .. } => {
            let only_time = problems.iter().all(|p| matches!(p.kind, RecordProblemKind::Timestamp(_)));
            if only_time { ErrorCode::INVALID_TIMESTAMP } else { ErrorCode::INVALID_RECORD }
        }
    }
}

/// Checks a batch and brings it into the form in which it is stored. Untouched batches are not copied.
pub fn check(
    records: Option<Bytes>,
    rules: &Rules<'_>,
    scratch: &mut Vec<u8>,
) -> Result<CheckedBatch, Refusal> {
    let records = records.filter(|bytes| !bytes.is_empty()).ok_or(Refusal::NoBatch)?;
    let max = rules.topic.max_message_bytes;
    let is_too_large = |len| i64::try_from(len).unwrap_or(i64::MAX) > i64::from(max);
    if is_too_large(records.len()) {
        return Err(Refusal::TooLarge { len: records.len(), max });
    }
    let mut batch = CheckedBatch::check(records)?;
    let view = batch.view();
    let validated = validate_for_append(&view, &append_rules(rules), scratch)?;
    if validated.offsets_wrong {
        batch = rewrite_offsets(&view, scratch, rules.limit)?;
    }
    if let CompressionType::Fixed { codec, level } = rules.topic.compression
        && batch.header().codec().ok() != Some(codec)
    {
        batch = recompress(&batch.view(), codec, level, scratch, rules.limit)?;
    }
    if rules.topic.log_append_time {
        batch = batch.with_log_append_time(rules.now_ms);
    } else if batch.header().max_timestamp != validated.max_timestamp {
        batch = batch.with_max_timestamp(validated.max_timestamp);
    }
    if is_too_large(batch.len()) {
        return Err(Refusal::TooLarge { len: batch.len(), max });
    }
    Ok(batch)
}

fn append_rules(rules: &Rules<'_>) -> AppendRules {
    let topic = rules.topic;
    let (min_timestamp, max_timestamp) = if topic.log_append_time {
        (i64::MIN, i64::MAX)
    } else {
        (
            rules.now_ms.saturating_sub(topic.timestamp_before_max_ms),
            rules.now_ms.saturating_add(topic.timestamp_after_max_ms),
        )
    };
    AppendRules {
        keys_required: topic.compact,
        zstd_allowed: rules.version >= ZSTD_SINCE,
        min_timestamp,
        max_timestamp,
        limit: rules.limit,
        max_record_bytes: topic.max_decompressed_message_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic_config::Overrides;
    use bytes::BytesMut;
    use pelton_wire::record::{BatchBuilder, BatchMut, BatchOptions, BatchView, Codec, TimestampType};

    const NOW: i64 = 1_700_000_000_000;

    fn batch(options: BatchOptions, records: &[(i64, Option<&str>)]) -> Bytes {
        let mut builder = BatchBuilder::new(options);
        for (timestamp, key) in records {
            builder
                .append(*timestamp, key.map(str::as_bytes), Some(b"value value value value"), &[])
                .unwrap();
        }
        builder.finish().unwrap()
    }

    fn plain() -> Bytes {
        batch(BatchOptions::default(), &[(NOW, Some("k")), (NOW - 5, None)])
    }

    fn run(records: Option<Bytes>, settings: &[(&str, &str)], version: i16) -> Result<CheckedBatch, Refusal> {
        let overrides: Overrides = settings.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let topic = TopicConfig::resolve(&Overrides::new(), &overrides);
        let limit = DecompressLimit { max_bytes: 1 << 20 };
        check(records, &Rules { topic: &topic, version, now_ms: NOW, limit }, &mut Vec::new())
    }

    fn refused(records: Option<Bytes>, settings: &[(&str, &str)], version: i16, expect: ErrorCode) {
        let refusal = run(records, settings, version).unwrap_err();
        assert_eq!(refusal.code(), expect, "{refusal}");
    }

    #[test]
    fn a_batch_is_stored_as_it_came() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let sent = batch(BatchOptions { codec, ..BatchOptions::default() }, &[(NOW, None)]);
            let stored = run(Some(sent.clone()), &[], 9).unwrap();
            assert_eq!(stored.bytes().as_ptr(), sent.as_ptr(), "{codec}: not copied");
        }
    }

    #[test]
    fn refusals_have_kafkas_codes() {
        refused(None, &[], 9, ErrorCode::INVALID_RECORD);
        refused(Some(Bytes::new()), &[], 9, ErrorCode::INVALID_RECORD);
        refused(Some([plain(), plain()].concat().into()), &[], 9, ErrorCode::INVALID_RECORD);
        refused(Some(plain().slice(..80)), &[], 9, ErrorCode::CORRUPT_MESSAGE);
        refused(Some(plain()), &[("max.message.bytes", "80")], 9, ErrorCode::MESSAGE_TOO_LARGE);
        let mut flipped = BytesMut::from(plain());
        flipped[70] ^= 1;
        refused(Some(flipped.freeze()), &[], 9, ErrorCode::CORRUPT_MESSAGE);
        let mut old = BytesMut::from(plain());
        old[16] = 1;
        refused(Some(old.freeze()), &[], 9, ErrorCode::INVALID_RECORD);
        let zstd = batch(BatchOptions { codec: Codec::Zstd, ..BatchOptions::default() }, &[(NOW, None)]);
        refused(Some(zstd), &[], 6, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
        let control = BatchOptions { control: true, ..BatchOptions::default() };
        refused(Some(batch(control, &[(NOW, Some("k"))])), &[], 9, ErrorCode::INVALID_RECORD);
        let packed = BatchOptions { codec: Codec::Gzip, ..BatchOptions::default() };
        let large = [("max.decompressed.message.bytes", "20")];
        refused(Some(batch(packed, &[(NOW, None)])), &large, 9, ErrorCode::INVALID_RECORD);
        let bomb = BatchOptions { codec: Codec::Gzip, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(bomb);
        builder.append(NOW, None, Some(&vec![0; 2 << 20]), &[]).unwrap();
        refused(Some(builder.finish().unwrap()), &[], 9, ErrorCode::MESSAGE_TOO_LARGE);
    }

    #[test]
    fn records_without_keys_are_named_on_a_compacted_topic() {
        let refusal = run(Some(plain()), &[("cleanup.policy", "compact")], 9).unwrap_err();
        assert_eq!(refusal.code(), ErrorCode::INVALID_RECORD);
        let errors = refusal.record_problems();
        assert_eq!(errors.iter().map(|e| e.index).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn timestamps_out_of_range() {
        let ahead = batch(BatchOptions::default(), &[(NOW + 3_600_001, None)]);
        refused(Some(ahead.clone()), &[], 9, ErrorCode::INVALID_TIMESTAMP);
        assert!(run(Some(ahead), &[("message.timestamp.type", "LogAppendTime")], 9).is_ok());
        let behind = batch(BatchOptions::default(), &[(NOW - 11, None)]);
        refused(Some(behind), &[("message.timestamp.before.max.ms", "10")], 9, ErrorCode::INVALID_TIMESTAMP);
    }

    #[test]
    fn settings_that_change_the_batch() {
        let accepted = run(Some(plain()), &[("message.timestamp.type", "LogAppendTime")], 9).unwrap();
        let view = BatchView::check(accepted.bytes()).unwrap();
        assert_eq!(
            (view.header().timestamp_type(), view.header().max_timestamp),
            (TimestampType::LogAppendTime, NOW)
        );
        assert_eq!(accepted.header(), view.header());

        let accepted = run(Some(plain()), &[("compression.type", "lz4")], 9).unwrap();
        let view = BatchView::check(accepted.bytes()).unwrap();
        assert_eq!((view.header().codec().unwrap(), view.header().records_count), (Codec::Lz4, 2));

        let noise: Vec<String> = (0..2000).map(|i: i32| format!("{}", i.wrapping_mul(40_503))).collect();
        let long = noise.join(" ");
        for (codec, key) in [("gzip", "compression.gzip.level"), ("zstd", "compression.zstd.level")] {
            let size = |level: &str| {
                let sent = batch(BatchOptions::default(), &[(NOW, Some(&long))]);
                run(Some(sent), &[("compression.type", codec), (key, level)], 9).unwrap().len()
            };
            assert!(size("9") < size("1"), "{codec}: {} bytes, {} at level 1", size("9"), size("1"));
        }

        let sent = plain();
        let accepted = run(Some(sent.clone()), &[("compression.type", "uncompressed")], 9).unwrap();
        assert_eq!(accepted.bytes().as_ptr(), sent.as_ptr(), "the codec is right already");
    }

    #[test]
    fn a_wrong_largest_timestamp_is_corrected() {
        let mut sent = BytesMut::from(plain());
        BatchMut::new(&mut sent).unwrap().set_max_timestamp(NOW + 77);
        let accepted = run(Some(sent.freeze()), &[], 9).unwrap();
        assert_eq!(BatchView::check(accepted.bytes()).unwrap().header().max_timestamp, NOW);
    }
}
