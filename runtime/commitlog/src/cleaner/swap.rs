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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{OpenMode, SimStorage};

    const DIR: &str = "/topics/t-0";
    const BASES: [i64; 3] = [0, 10, 20];
    /// What the power may take is random.
    const CRASHES: u64 = 24;

    fn log(base: i64) -> PathBuf {
        file_path(Path::new(DIR), base, FileKind::Log)
    }

    fn write(disk: &SimStorage, path: &Path, text: &str) {
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file.sync_data().unwrap();
    }

    /// Three segments, and a cleaned one for the place of all of them whose name is not durable.
    fn disk() -> SimStorage {
        let disk = SimStorage::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        BASES.iter().for_each(|base| write(&disk, &log(*base), &format!("old {base}")));
        Path::new(DIR).ancestors().for_each(|dir| disk.sync_dir(dir).unwrap());
        write(&disk, &cleaned_path(Path::new(DIR), 0, FileKind::Log), "new");
        disk
    }

    fn found(disk: &SimStorage) -> [Option<String>; 3] {
        BASES.map(|base| disk.content(&log(base)).ok().map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    #[test]
    fn a_power_cut_in_a_swap_leaves_the_old_segments_or_the_new_one() {
        let old = BASES.map(|base| Some(format!("old {base}")));
        let new = [Some("new".to_owned()), None, None];
        let whole = disk();
        let first = whole.sync_points();
        swap(&whole, Path::new(DIR), (0, 30), &BASES[1..]).unwrap();
        assert_eq!(found(&whole), new);
        let mut seen = [0, 0];
        for (point, crash) in (first..=whole.sync_points()).flat_map(|p| (0..CRASHES).map(move |c| (p, c))) {
            let disk = disk();
            disk.cut_power_at_sync_point(point);
            // It fails where the power goes; at the last point it is done.
            let swapped = swap(&disk, Path::new(DIR), (0, 30), &BASES[1..]);
            assert!(swapped.is_ok() || disk.power_is_off());
            disk.crash(crash);
            let files = disk.list(Path::new(DIR)).unwrap();
            finish_interrupted(&disk, Path::new(DIR), &files).unwrap();
            let found = found(&disk);
            let is_new = found == new;
            assert!(is_new || found == old, "power cut at sync point {point}, crash {crash}: {found:?}");
            seen[usize::from(is_new)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 10), "both are seen: {seen:?}");
    }
}
