//! What clients were told, written down on another file system than the broker's, in the order in which they were told.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of one entry.
const ENTRY: usize = 28;

/// One acknowledged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which of the loads (and so which topic and producer).
    pub load: u32,
    /// Partition that the record went to.
    pub partition: u32,
    /// Offset that the broker named.
    pub offset: i64,
    /// The record's number at its producer.
    pub sequence: u64,
    /// How many kills or cuts there had been when it was acknowledged.
    pub faults: u32,
}

impl Entry {
    fn bytes(self) -> [u8; ENTRY] {
        let mut b = [0; ENTRY];
        b[0..4].copy_from_slice(&self.load.to_le_bytes());
        b[4..8].copy_from_slice(&self.partition.to_le_bytes());
        b[8..16].copy_from_slice(&self.offset.to_le_bytes());
        b[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        b[24..28].copy_from_slice(&self.faults.to_le_bytes());
        b
    }

    fn parse(b: &[u8; ENTRY]) -> Entry {
        let int = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let long = |at: usize| u64::from(int(at)) | u64::from(int(at + 4)) << 32;
        Entry { load: int(0), partition: int(4), offset: long(8) as i64, sequence: long(16), faults: int(24) }
    }
}

/// An open ledger.
pub struct Ledger {
    file: BufWriter<File>,
    path: PathBuf,
    entries: u64,
}

impl Ledger {
    /// A new ledger in `/dev/shm`, or in the temporary directory where there is none.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(name: &str) -> Result<Ledger> {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = dir.join(format!("pelton-ledger-{}-{name}", std::process::id()));
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Ledger { file: BufWriter::new(file), path, entries: 0 })
    }

    /// Notes an acknowledgement.
    ///
    /// # Errors
    /// The ledger's own file system is full.
    pub fn note(&mut self, entry: Entry) -> Result<()> {
        self.entries += 1;
        self.file.write_all(&entry.bytes()).context("write the ledger")
    }

    /// Everything noted so far, read from the file.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold what was noted.
    pub fn read(&mut self) -> Result<Vec<Entry>> {
        self.file.flush()?;
        let mut file = BufReader::new(File::open(&self.path)?);
        let mut entries = Vec::new();
        let mut bytes = [0; ENTRY];
        for _ in 0..self.entries {
            file.read_exact(&mut bytes).context("the ledger is shorter than what was noted")?;
            entries.push(Entry::parse(&bytes));
        }
        Ok(entries)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_bytes() {
        let entry = Entry { load: 3, partition: 7, offset: i64::MAX - 1, sequence: u64::MAX - 2, faults: 9 };
        assert_eq!(Entry::parse(&entry.bytes()), entry);
    }
}
