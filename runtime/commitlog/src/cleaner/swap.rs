//! A cleaned segment takes the place of the segments that it was made of, so that a crash at any moment leaves the old
//! ones or the new one, never both. `format/cleaner.md` has the steps and what a start does after each.

use std::io;
use std::path::{Path, PathBuf};

use super::output::cleaned_path;
use crate::error::{IoContext, StorageFailure};
use crate::metadata::remove_if_there;
use crate::mutant::Mutant;
use crate::names::SEGMENT_FILES;
use crate::names::{self, FileKind, file_path, swap_path};
use crate::storage::{NotOpened, Storage};

/// How far a swap came that failed.
#[derive(Debug)]
pub(crate) struct SwapFailed {
    /// The next start finishes it, or finds nothing of it; only the disk knows.
    pub(crate) is_begun: bool,
    /// A sync of a directory failed in which others rely on syncs, too.
    pub(crate) is_final: bool,
    pub(crate) failure: StorageFailure,
}

/// Puts the cleaned segment at `base` in the place of all segments up to `end`, of which those at `others` have other names.
pub(crate) fn swap(
    storage: &dyn Storage,
    dir: &Path,
    (base, end): (i64, i64),
    others: &[i64],
) -> Result<(), SwapFailed> {
    let before = |failure| failed(false, failure);
    if Mutant::SwapUncommitted.is_on() {
        remove_segments(storage, dir, others).map_err(before)?;
    }
    // The names of all files of the new segment, before the one that makes them count.
    storage.sync_dir(dir).at("sync", dir).map_err(before)?;
    let cleaned = cleaned_path(dir, base, FileKind::Log);
    storage.rename(&cleaned, &swap_path(dir, base, end)).at("rename", &cleaned).map_err(before)?;
    complete(storage, dir, (base, end), others).map_err(|failure| failed(true, failure))
}

fn failed(is_begun: bool, failure: StorageFailure) -> SwapFailed {
    let is_final = failure.action == "sync" && !NotOpened::is_in(&failure.source);
    SwapFailed { is_begun, is_final, failure }
}

/// Does what is left to do once the cleaned segment counts. Repeating it changes nothing.
fn complete(
    storage: &dyn Storage,
    dir: &Path,
    (base, end): (i64, i64),
    others: &[i64],
) -> Result<(), StorageFailure> {
    let sync = || storage.sync_dir(dir).at("sync", dir);
    sync()?;
    for kind in [FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex] {
        let cleaned = cleaned_path(dir, base, kind);
        match storage.rename(&cleaned, &file_path(dir, base, kind)) {
            // Done before, or there is none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.at("rename", &cleaned)?,
        }
    }
    remove_segments(storage, dir, others)?;
    // The others are gone for good before nothing says any more that they have to go.
    sync()?;
    let swap = swap_path(dir, base, end);
    // Not synced: after a crash that undoes it, all of this is done again. Whatever happens to these files next begins or ends
    // with a sync of the directory.
    storage.rename(&swap, &file_path(dir, base, FileKind::Log)).at("rename", &swap)
}

fn remove_segments(storage: &dyn Storage, dir: &Path, bases: &[i64]) -> Result<(), StorageFailure> {
    for base in bases {
        for kind in SEGMENT_FILES {
            remove_if_there(storage, &file_path(dir, *base, kind))?;
        }
    }
    Ok(())
}

/// Finishes the swaps that a crash has interrupted in a directory with these files.
pub(crate) fn finish_interrupted(
    storage: &dyn Storage,
    dir: &Path,
    files: &[PathBuf],
) -> Result<(), StorageFailure> {
    for (base, end) in files.iter().filter_map(|path| names::parse_swap(path)) {
        let segments = files.iter().filter_map(|path| names::parse(path));
        let mut others: Vec<i64> =
            segments.map(|(other, _)| other).filter(|other| base < *other && *other < end).collect();
        others.dedup();
        tracing::info!(dir = %dir.display(), base, end, "a cleaned segment takes its place after a crash");
        complete(storage, dir, (base, end), &others)?;
    }
    Ok(())
}
