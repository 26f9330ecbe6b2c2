//! `pelton log`: look into segment files without a broker.

use super::topic::print_line;
use crate::cli;
use crate::report::failed;
use anyhow::Context;
use pelton_wire::record::{DecompressLimit, batches};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(crate) fn run(command: &cli::Log) -> anyhow::Result<()> {
    match command {
        cli::Log::Dump { path, records } => segments(path)?.iter().try_for_each(|file| dump(file, *records)),
        cli::Log::Verify { path } => verify(&segments(path)?),
    }
}

/// The file itself, or the segments of a partition directory in order.
fn segments(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
        let file = entry.with_context(|| format!("list {}", path.display()))?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            found.push(file);
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(failed(format!("{} holds no segment (*.log)", path.display())));
    }
    Ok(found)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("read {}", file.display()))
}

fn dump(file: &Path, records: bool) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let mut scratch = Vec::new();
    let mut position = 0;
    for batch in batches(&bytes) {
        let place = || format!("{} at byte {position}", file.display());
        let view = batch.with_context(place)?;
        view.verify_crc().with_context(place)?;
        let header = view.header();
        let line = json!({
            "position": position,
            "bytes": view.bytes().len(),
            "base_offset": header.base_offset,
            "last_offset": header.last_offset(),
            "records": header.records_count,
            "codec": header.codec().map_or_else(|_| "unknown".to_owned(), |codec| format!("{codec:?}").to_lowercase()),
            "leader_epoch": header.partition_leader_epoch,
            "max_timestamp": header.max_timestamp,
            "producer_id": header.producer_id,
            "producer_epoch": header.producer_epoch,
            "base_sequence": header.base_sequence,
            "transactional": header.is_transactional(),
            "control": header.is_control(),
        });
        print_line(&line.to_string())?;
        if records {
            for record in view.records(&mut scratch, DecompressLimit::STORED)? {
                let record = record?;
                let line = json!({
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                    "key": record.key.map(String::from_utf8_lossy),
                    "value": record.value.map(String::from_utf8_lossy),
                });
                print_line(&format!("  {line}"))?;
            }
        }
        position += view.bytes().len();
    }
    Ok(())
}

fn verify(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut next_offset = None;
    let mut bad = 0_usize;
    for file in files {
        let bytes = read(file)?;
        let mut whole = 0;
        let mut count = 0_u64;
        for batch in batches(&bytes) {
            let checked = batch.and_then(|view| view.verify_crc().map(|()| view));
            let view = match checked {
                Ok(view) => view,
                Err(error) => {
                    bad += 1;
                    print_line(&format!("{}: bad batch at byte {whole}: {error}", file.display()))?;
                    break;
                }
            };
            let header = view.header();
            if next_offset.is_some_and(|next| header.base_offset < next) {
                bad += 1;
                print_line(&format!(
                    "{}: base offset {} at byte {whole} is below the end of the batch before it",
                    file.display(),
                    header.base_offset
                ))?;
            }
            next_offset = Some(header.last_offset().saturating_add(1));
            whole += view.bytes().len();
            count += 1;
        }
        let rest = bytes.len() - whole;
        let tail =
            if rest > 0 { format!(", {rest} bytes after the last whole batch") } else { String::new() };
        print_line(&format!("{}: {count} batches, {whole} bytes{tail}", file.display()))?;
    }
    if bad > 0 {
        return Err(failed(format!("{bad} bad batches found")));
    }
    Ok(())
}
