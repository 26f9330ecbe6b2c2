//! The entry for fuzzing: everything that reads a batch, on arbitrary bytes.

use super::builder::{BatchBuilder, BatchOptions, recompress};
use super::columns::{Columns, Select};
use super::compression::{Codec, DecompressLimit};
use super::control::EndTransactionMarker;
use super::edit::{BatchMut, seal};
use super::header::BatchHeader;
use super::search::{first_at_or_after, offset_of_max_timestamp};
use super::validate::{AppendRules, validate_for_append};
use super::view::{BatchView, batches};

/// Small, so that a run is fast and a breach shows.
const LIMIT: DecompressLimit = DecompressLimit { max_bytes: 1024 * 1024 };

/// Reads `data` as batches in every way there is. Panics only if something here is wrong.
pub fn fuzz_batch(data: &[u8]) {
    let _ = BatchHeader::parse(data);
    let _ = BatchView::check(data);
    for view in batches(data).flatten() {
        read(&view);
        edit(&view);
    }
    if let Some((first, rest)) = data.split_first()
        && let Ok(codec) = Codec::from_id(first % 5)
    {
        let mut out = Vec::new();
        let limit = LIMIT.max_bytes;
        if codec.decompress(rest, limit, &mut out).is_ok() {
            assert!(out.len() <= limit, "{codec} gave {} bytes, {limit} were allowed", out.len());
        }
    }
}

fn read(view: &BatchView<'_>) {
    let mut scratch = Vec::new();
    let rules = AppendRules { keys_required: true, limit: LIMIT, ..AppendRules::default() };
    let validated = validate_for_append(view, &rules, &mut scratch);
    let mut columns = Columns::new();
    let appended = columns.append(view, Select::default(), LIMIT);
    let mut whole = true;
    let mut count = 0;
    let mut builder = BatchBuilder::new(BatchOptions::like(view.header()));
    if let Ok(records) = view.records(&mut scratch, LIMIT) {
        for record in records {
            let Ok(record) = record else {
                whole = false;
                break;
            };
            let headers = record.headers.count();
            assert_eq!(headers, record.headers.len(), "headers were checked with their record");
            let _ = EndTransactionMarker::parse(&record);
            let _ = builder.append_record(&record);
            count += 1;
        }
    } else {
        whole = false;
    }
    assert_eq!(whole, appended.is_ok(), "columns and records agree on what is well-formed");
    if let Ok(appended) = appended {
        assert_eq!(appended, count);
    }
    if validated.is_ok_and(|found| !found.offsets_wrong) {
        assert!(whole, "what may be appended can be read");
    }
    let _ = builder.finish();
    let header = view.header();
    let _ = (header.last_offset(), header.next_offset(), header.last_sequence(), header.delete_horizon());
    let _ = first_at_or_after(view, header.max_timestamp, header.base_offset, &mut scratch, LIMIT);
    let _ = offset_of_max_timestamp(view, &mut scratch, LIMIT);
    let _ = recompress(view, Codec::Lz4, None, &mut scratch, LIMIT);
}

fn edit(view: &BatchView<'_>) {
    let mut bytes = view.bytes().to_vec();
    seal(&mut bytes);
    let Ok(mut batch) = BatchMut::new(&mut bytes) else { return };
    batch.set_place(i64::MAX - i64::from(i32::MAX), i32::MAX);
    batch.set_log_append_time(i64::MAX);
    batch.set_max_timestamp(i64::MIN);
    let view = BatchView::check(&bytes).expect("an edited batch is whole and sealed");
    assert_eq!(view.header().max_timestamp, i64::MIN);
}
