//! The names of the files of a partition, as Kafka names them.

use std::path::{Path, PathBuf};

/// What a file named after an offset holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// Record batches.
    Log,
    /// Offset index.
    Index,
    /// Time index.
    TimeIndex,
    /// Aborted transactions.
    TxnIndex,
    /// Producer state at the offset of the name.
    Snapshot,
}

impl FileKind {
    const ALL: [FileKind; 5] =
        [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex, FileKind::Snapshot];

    fn extension(self) -> &'static str {
        match self {
            FileKind::Log => "log",
            FileKind::Index => "index",
            FileKind::TimeIndex => "timeindex",
            FileKind::TxnIndex => "txnindex",
            FileKind::Snapshot => "snapshot",
        }
    }
}

/// The files of a segment that go with it.
pub(crate) const SEGMENT_FILES: [FileKind; 4] =
    [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex];

/// Leader epochs of a partition.
pub(crate) const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
/// Topic id of a partition.
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// How far a partition was cleaned.
pub(crate) const CLEANER_OFFSET_CHECKPOINT: &str = "cleaner-offset-checkpoint";
/// Ending of files that are about to be removed.
pub(crate) const DELETED: &str = "deleted";
/// Ending of files that are being written and were not renamed yet.
pub(crate) const TEMPORARY: &str = "tmp";
/// Ending of files that the cleaner writes, which are not part of the log yet.
pub(crate) const CLEANED: &str = "cleaned";
/// Ending of a cleaned segment that is part of the log, and whose predecessors are not any more.
const SWAP: &str = "swap";

/// Path of a file named after an offset: 20 digits, so that names sort as offsets do.
pub(crate) fn file_path(dir: &Path, offset: i64, kind: FileKind) -> PathBuf {
    dir.join(format!("{offset:020}.{}", kind.extension()))
}

/// `path` with one more ending.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The `.log` file of a cleaned segment that takes the place of all segments from `base` up to `end`, while it does: the
/// end is in the name, because nothing in the segment need reach up to it.
pub(crate) fn swap_path(dir: &Path, base: i64, end: i64) -> PathBuf {
    dir.join(format!("{base:020}.log.{end:020}.{SWAP}"))
}

/// Base and end that the name of such a file says.
pub(crate) fn parse_swap(path: &Path) -> Option<(i64, i64)> {
    let name = path.file_name()?.to_str()?.strip_suffix(SWAP)?.strip_suffix('.')?;
    let (base, end) = name.split_once(".log.")?;
    Some((parse_offset(base)?, parse_offset(end)?))
}

fn parse_offset(text: &str) -> Option<i64> {
    let is_offset = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| is_offset)
}

/// Offset and kind that a file name says, or `None` for any other file.
pub(crate) fn parse(path: &Path) -> Option<(i64, FileKind)> {
    let (stem, extension) = path.file_name()?.to_str()?.split_once('.')?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    Some((parse_offset(stem)?, kind))
}

/// True for a file that an interrupted deletion, rewrite or clean left behind.
pub(crate) fn is_leftover(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == DELETED || e == TEMPORARY || e == CLEANED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_offsets_convert_both_ways() {
        for kind in FileKind::ALL {
            for offset in [0, 42, i64::MAX] {
                assert_eq!(parse(&file_path(Path::new("/d"), offset, kind)), Some((offset, kind)));
            }
        }
        let path = file_path(Path::new("/d"), 7, FileKind::TimeIndex);
        assert_eq!(path, Path::new("/d/00000000000000000007.timeindex"));
        let no_match = [
            "7.log",
            "00000000000000000007.log.deleted",
            "00000000000000000007.lo",
            "+0000000000000000007.log",
            "99999999999999999999.log",
            LEADER_EPOCH_CHECKPOINT,
            "",
        ];
        for name in no_match {
            assert_eq!(parse(Path::new(name)), None, "{name}");
        }
        assert!(is_leftover(&with_suffix(&path, DELETED)));
        assert!(is_leftover(&with_suffix(&path, CLEANED)));
        assert!(!is_leftover(&path));
        let swap = swap_path(Path::new("/d"), 7, 19);
        assert_eq!(swap, Path::new("/d/00000000000000000007.log.00000000000000000019.swap"));
        assert_eq!((parse_swap(&swap), parse(&swap), is_leftover(&swap)), (Some((7, 19)), None, false));
        for name in ["00000000000000000007.log.swap", "7.log.9.swap", "00000000000000000007.log", "swap"] {
            assert_eq!(parse_swap(Path::new(name)), None, "{name}");
        }
    }
}
