//! `meta.properties`: which directory this is, and which format its files have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::OpenDirError;
use crate::error::{IoContext, StorageFailure};
use crate::metadata::{read_small, uuid_from_text, uuid_to_text};
use crate::storage::{OpenMode, Storage};

/// The format that this code writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const KAFKA_VERSION: &str = "version";
const FORMAT: &str = "pelton.format.version";
const CLUSTER_ID: &str = "cluster.id";
const DIRECTORY_ID: &str = "directory.id";
const NODE_ID: &str = "node.id";

/// The identity of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What clients are told as the cluster's id.
    pub cluster_id: String,
    /// This directory, for ever.
    pub directory_id: Uuid,
    /// The node that wrote it.
    pub node_id: i32,
}

impl Meta {
    pub(crate) fn path(root: &Path) -> PathBuf {
        root.join("meta.properties")
    }

    fn encode(&self) -> String {
        format!(
            "# Written by pelton. Do not edit.\n{KAFKA_VERSION}=1\n{FORMAT}={FORMAT_VERSION}\n{CLUSTER_ID}={}\n\
             {DIRECTORY_ID}={}\n{NODE_ID}={}\n",
            self.cluster_id,
            uuid_to_text(self.directory_id),
            self.node_id,
        )
    }

    fn decode(path: &Path, text: &str) -> Result<Meta, OpenDirError> {
        let bad = |what: String| OpenDirError::Meta { path: path.to_owned(), what };
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) =
                line.split_once('=').ok_or_else(|| bad(format!("`{line}` is no `key=value` line")))?;
            values.insert(key.trim(), value.trim());
        }
        let get = |key: &str| values.get(key).copied().ok_or_else(|| bad(format!("`{key}` is missing")));
        let format = get(FORMAT)?;
        let version: u32 = format.parse().map_err(|_| bad(format!("`{FORMAT}={format}` is no number")))?;
        if version > FORMAT_VERSION {
            return Err(OpenDirError::NewerFormat {
                path: path.to_owned(),
                found: version,
                known: FORMAT_VERSION,
            });
        }
        let (cluster_id, directory_id, node_id) = (get(CLUSTER_ID)?, get(DIRECTORY_ID)?, get(NODE_ID)?);
        Ok(Meta {
            cluster_id: cluster_id.to_owned(),
            directory_id: uuid_from_text(directory_id)
                .ok_or_else(|| bad(format!("`{DIRECTORY_ID}={directory_id}` is no id")))?,
            node_id: node_id.parse().map_err(|_| bad(format!("`{NODE_ID}={node_id}` is no number")))?,
        })
    }

    /// `None` if there is none: the directory was never used.
    pub(crate) fn load(storage: &dyn Storage, root: &Path) -> Result<Option<Meta>, OpenDirError> {
        let path = Meta::path(root);
        match read_small(storage, &path)? {
            None => Ok(None),
            Some(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| OpenDirError::Meta {
                    path: path.clone(),
                    what: "it is not text".to_owned(),
                })?;
                Meta::decode(&path, &text).map(Some)
            }
        }
    }

    /// Whole or not at all, and durable when this returns.
    pub(crate) fn store(&self, storage: &dyn Storage, root: &Path) -> Result<(), StorageFailure> {
        let path = Meta::path(root);
        let new = path.with_extension("properties.tmp");
        let file = storage.open(&new, OpenMode::Create).at("create", &new)?;
        file.set_len(0).at("cut", &new)?;
        file.write_all_at(self.encode().as_bytes(), 0).at("write", &new)?;
        file.sync_data().at("sync", &new)?;
        storage.rename(&new, &path).at("rename", &new)?;
        storage.sync_dir(root).at("sync", root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::SimStorage;

    #[test]
    fn what_is_stored_is_loaded_and_nothing_else() {
        let storage = SimStorage::new();
        let root = Path::new("/");
        storage.create_dir_all(root).unwrap();
        assert_eq!(Meta::load(&storage, root).unwrap(), None);
        let meta = Meta { cluster_id: "c-1".to_owned(), directory_id: Uuid::from_u128(42), node_id: 3 };
        meta.store(&storage, root).unwrap();
        storage.crash(1);
        assert_eq!(Meta::load(&storage, root).unwrap(), Some(meta.clone()));
        let text = meta.encode();
        let check = |text: &str, expect: &str| {
            let error = Meta::decode(Path::new("/meta.properties"), text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&text.replace("format.version=1", "format.version=2"), "format version 2");
        check(&text.replace("node.id=3", "node.id=x"), "`node.id=x` is no number");
        check(&text.replace("cluster.id=c-1\n", ""), "`cluster.id` is missing");
        check(&text.replace("directory.id=A", "directory.id=?"), "is no id");
        check("nonsense", "no `key=value` line");
    }
}
