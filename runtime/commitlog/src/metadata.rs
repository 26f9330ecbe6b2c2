//! `partition.metadata`: which topic a partition directory belongs to, in Kafka's text.

use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::error::{Corruption, IoContext, OpenError, StorageFailure};
use crate::names::{PARTITION_METADATA, TEMPORARY, with_suffix};
use crate::storage::{File, OpenMode, Storage, read_exact_at};

/// A text file of ours larger than this is damaged, in bytes: it is refused before it is read into memory.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// A snapshot or transaction index larger than this is damaged, in bytes: five million producers, seven
/// million aborted transactions in one segment.
const MAX_STATE_BYTES: u64 = 256 << 20;

/// A uuid as Kafka prints it: 22 characters of URL-safe base64.
pub fn uuid_to_text(id: Uuid) -> String {
    URL_SAFE_NO_PAD.encode(id.as_bytes())
}

/// Reads [`uuid_to_text`].
pub fn uuid_from_text(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// The topic id that a partition directory names, `None` if it has no `partition.metadata`.
pub fn read_topic_id(storage: &dyn Storage, dir: &Path) -> Result<Option<Uuid>, OpenError> {
    let path = dir.join(PARTITION_METADATA);
    let Some(bytes) = read_small(storage, &path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let id = match field("version") {
        Some("0") => field("topic_id").and_then(uuid_from_text),
        _ => None,
    };
    match id {
        Some(id) => Ok(Some(id)),
        None => {
            Err(Corruption::new(&path, 0, "expected `version: 0` and `topic_id: <22 characters>`").into())
        }
    }
}

/// Writes `partition.metadata`, unsynced.
pub(crate) fn write_topic_id(
    storage: &dyn Storage,
    dir: &Path,
    id: Uuid,
) -> Result<Arc<dyn File>, StorageFailure> {
    let path = dir.join(PARTITION_METADATA);
    let text = format!("version: 0\ntopic_id: {}", uuid_to_text(id));
    let file = storage.open(&path, OpenMode::Create).at("create", &path)?;
    file.set_len(0).at("cut", &path)?;
    file.write_all_at(text.as_bytes(), 0).at("write", &path)?;
    Ok(file)
}

/// Replaces a small file as a whole, unsynced: after a crash the old or the new content is there, or nothing.
pub(crate) fn replace_small(
    storage: &dyn Storage,
    path: &Path,
    content: &[u8],
) -> Result<Arc<dyn File>, StorageFailure> {
    let temporary = with_suffix(path, TEMPORARY);
    let file = storage.open(&temporary, OpenMode::Create).at("create", &temporary)?;
    file.set_len(0).at("cut", &temporary)?;
    file.write_all_at(content, 0).at("write", &temporary)?;
    storage.rename(&temporary, path).at("rename", &temporary)?;
    Ok(file)
}

/// The whole content of a text file, `None` if it is not there.
pub(crate) fn read_small(storage: &dyn Storage, path: &Path) -> Result<Option<Vec<u8>>, StorageFailure> {
    read_whole(storage, path, MAX_TEXT_BYTES)
}

/// The whole content of a snapshot or transaction index, `None` if it is not there.
pub(crate) fn read_state(storage: &dyn Storage, path: &Path) -> Result<Option<Vec<u8>>, StorageFailure> {
    read_whole(storage, path, MAX_STATE_BYTES)
}

fn read_whole(storage: &dyn Storage, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, StorageFailure> {
    let file = match storage.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageFailure::new("open", path, error)),
    };
    let len = file.len().at("ask the length of", path)?;
    if len > max_bytes {
        return Err(StorageFailure::new(
            "read",
            path,
            io::Error::other(format!("{len} bytes are more than {max_bytes}")),
        ));
    }
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*file, &mut bytes, 0).at("read", path)?;
    Ok(Some(bytes))
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(storage: &dyn Storage, path: &Path) -> Result<(), StorageFailure> {
    match storage.remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.at("remove", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimStorage;

    #[test]
    fn the_topic_id_survives_and_damage_is_named() {
        let disk = SimStorage::new();
        let dir = Path::new("/t-0");
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read_topic_id(&disk, dir).unwrap(), None);
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        write_topic_id(&disk, dir, id).unwrap();
        assert_eq!(
            disk.content(&dir.join(PARTITION_METADATA)).unwrap(),
            b"version: 0\ntopic_id: ASNFZ4mrze8BI0VniavN7w"
        );
        assert_eq!(read_topic_id(&disk, dir).unwrap(), Some(id));
        for bad in
            ["", "version: 1\ntopic_id: ASNFZ4mrze8BI0VniavN7w", "version: 0\ntopic_id: AS", "\0\0\0\0"]
        {
            let file = disk.open(&dir.join(PARTITION_METADATA), OpenMode::Create).unwrap();
            file.set_len(0).unwrap();
            file.write_all_at(bad.as_bytes(), 0).unwrap();
            assert!(matches!(read_topic_id(&disk, dir), Err(OpenError::Corrupt(_))), "{bad:?}");
        }
    }
}
