//! What a read hands out: runs of bytes in memory or in a file.

use std::sync::Arc;

use bytes::Bytes;

use crate::storage::File;

/// A run of bytes of a log.
#[derive(Clone)]
pub enum Slice {
    /// In memory.
    Memory(Bytes),
    /// In a segment's file, which stays readable however the log changes.
    File {
        /// The `.log` file.
        file: Arc<dyn File>,
        /// Where the run starts.
        position: u64,
        /// Its bytes.
        len: u64,
    },
}

impl Slice {
    /// Bytes in the run.
    pub fn len(&self) -> u64 {
        match self {
            Slice::Memory(bytes) => bytes.len() as u64,
            Slice::File { len, .. } => *len,
        }
    }

    /// True if there is nothing in it. A read never returns such a slice.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
