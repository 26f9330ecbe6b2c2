//! Where things are below a data directory, and what the names of partition directories mean.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::id::PartitionId;

/// The topic whose partition lies beside `topics/`, not in it: the cluster's own metadata.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// Bytes of a file name, on every file system we know.
const NAME_MAX_BYTES: usize = 255;
/// Longest topic name: Kafka's limit.
pub(crate) const TOPIC_MAX_BYTES: usize = 249;

const DELETE: &str = "-delete";
const STRAY: &str = "-stray";

pub(crate) fn journal_dir(root: &Path) -> PathBuf {
    root.join("journal")
}

pub(crate) fn topics_dir(root: &Path) -> PathBuf {
    root.join("topics")
}

/// The directory in which this topic's partition directories lie.
pub(crate) fn parent_of(root: &Path, topic: &str) -> PathBuf {
    if topic == METADATA_TOPIC { root.to_owned() } else { topics_dir(root) }
}

/// True for what belongs to the metadata topic, by its name.
pub(crate) fn lies_beside_topics(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(METADATA_TOPIC))
}

pub(crate) fn partition_dir(root: &Path, id: &PartitionId) -> PathBuf {
    parent_of(root, &id.topic).join(id.dir_name())
}

/// Where a deleted partition waits for its removal.
pub(crate) fn deleted_dir(dir: &Path, topic_id: Uuid) -> PathBuf {
    renamed(dir, topic_id, DELETE)
}

/// Where a directory goes that no checkpoint and no frame knows. `n`: how many such names are taken.
pub(crate) fn stray_dir(dir: &Path, topic_id: Uuid, n: u32) -> PathBuf {
    let number = if n == 0 { String::new() } else { format!(".{n}") };
    renamed(dir, topic_id, &format!("{number}{STRAY}"))
}

/// `<name>.<id>-<suffix>`, the name without its front if the whole would be too long: the partition's number stays.
fn renamed(dir: &Path, topic_id: Uuid, suffix: &str) -> PathBuf {
    let ending = format!(".{}{suffix}", topic_id.simple());
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let mut from = (name.len() + ending.len()).saturating_sub(NAME_MAX_BYTES);
    while !name.is_char_boundary(from) {
        from += 1;
    }
    dir.with_file_name(format!("{}{ending}", &name[from..]))
}

/// What a directory in `topics/` is, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DirName {
    /// A partition's, if anybody knows it.
    Partition,
    /// To be removed.
    Deleted,
    /// To be left alone: stray directories, and what is not ours.
    Other,
}

pub(crate) fn parse_dir_name(dir: &Path) -> DirName {
    let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { return DirName::Other };
    if name.ends_with(STRAY) {
        return DirName::Other;
    }
    if name.ends_with(DELETE) {
        return DirName::Deleted;
    }
    let Some((topic, number)) = name.rsplit_once('-') else { return DirName::Other };
    match number.parse::<i32>() {
        Ok(partition) if partition >= 0 && !topic.is_empty() && format!("{partition}") == number => {
            DirName::Partition
        }
        _ => DirName::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_directory_is() {
        for (name, expect) in [
            ("t-0", DirName::Partition),
            ("a-b-12", DirName::Partition),
            ("__consumer_offsets-49", DirName::Partition),
            ("t-01", DirName::Other),
            ("t--1", DirName::Partition),
            ("t", DirName::Other),
            ("-0", DirName::Other),
            ("t-x", DirName::Other),
            ("lost+found", DirName::Other),
            ("t-0.00000000000000000000000000000007-delete", DirName::Deleted),
            ("t-0.00000000000000000000000000000007-stray", DirName::Other),
        ] {
            assert_eq!(parse_dir_name(&Path::new("/topics").join(name)), expect, "{name}");
        }
    }

    #[test]
    fn renamed_directories_fit_into_a_file_name() {
        for topic in ["t".to_owned(), "x".repeat(249)] {
            let id = PartitionId { topic_id: Uuid::from_u128(7), topic, partition: 12345 };
            let dir = partition_dir(Path::new("/d"), &id);
            let moved = deleted_dir(&dir, id.topic_id);
            assert!(moved.to_string_lossy().contains("-12345."));
            assert_eq!(parse_dir_name(&moved), DirName::Deleted);
            assert_eq!(parse_dir_name(&stray_dir(&dir, id.topic_id, 3)), DirName::Other);
            assert!(moved.file_name().unwrap().len() <= NAME_MAX_BYTES);
            assert_eq!(moved.parent(), dir.parent());
        }
        let id = PartitionId { topic_id: Uuid::from_u128(7), topic: METADATA_TOPIC.to_owned(), partition: 0 };
        assert_eq!(partition_dir(Path::new("/d"), &id), Path::new("/d/__cluster_metadata-0"));
    }
}
