//! The stores of one task in one database.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pelton_streams::state::{
    Blob, ChangelogPosition, Changes, KeyRange, Position, Restored, StateBackend, StateBatch, StateError,
    StateReader, StateSize, StateView, StoreIndex, StoreSpec, Visit,
};
use pelton_wire::mutant::Mutant;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, Error, ErrorKind, FlushOptions,
    IngestExternalFileOptions, Options, ReadOptions, Snapshot, SstFileWriter, WriteBatch, WriteOptions,
};

use crate::options::StateOptions;

mod stall;

use stall::Stall;

const POSITION_KEY: [u8; 1] = [0];
const KEY_PREFIX: u8 = 1;
/// The first key behind all keys of a store.
const KEYS_END: [u8; 1] = [KEY_PREFIX + 1];
const POSITION_BYTES: usize = 32;
/// Chunks of fewer keys are written as a transaction is: they are not worth a file of their own.
const SMALL_CHUNK: usize = 10_000;
const IS_WRITE_STOPPED: &str = "rocksdb.is-write-stopped";
/// RocksDB's own family, which holds nothing.
const DEFAULT_FAMILY: &str = "default";

/// See the module. One owner writes.
pub struct RocksState {
    db: Arc<Database>,
    position: Position,
    /// Which say so instead of waiting for as long as the database takes no writes.
    at_once: WriteOptions,
    /// Which are slowed down where flushes and compactions do not keep up.
    slowed: WriteOptions,
    store_options: Options,
    /// Where chunks of a restore are written before the database takes them in.
    chunks: PathBuf,
}

struct Database {
    db: DB,
    names: Vec<String>,
}

impl Database {
    fn family(&self, store: StoreIndex) -> Result<&ColumnFamily, StateError> {
        let name = &self.names[store];
        self.db.cf_handle(name).ok_or_else(|| StateError::Storage(format!("there is no store `{name}`")))
    }

    /// Whether it takes no writes until something is flushed or compacted.
    fn is_stopped(&self) -> Result<bool, StateError> {
        Ok(self.db.property_int_value(IS_WRITE_STOPPED).map_err(failed)?.is_some_and(|stopped| stopped > 0))
    }
}

impl RocksState {
    /// Opens the stores of a task in `dir`, and makes what is not there. A family that is in no spec is of an earlier
    /// revision of the pipeline: it is dropped.
    ///
    /// # Errors
    /// The directory cannot be used, or what is in it is damaged. Another process that has it open is an error too.
    pub fn open(dir: &Path, specs: &[StoreSpec], options: &StateOptions) -> Result<RocksState, StateError> {
        let database = options.database();
        let is_new = !dir.join("CURRENT").exists();
        let found = if is_new { Vec::new() } else { DB::list_cf(&database, dir).map_err(failed)? };
        let wanted = specs.iter().map(|spec| spec.name.clone());
        let dropped: Vec<_> = found
            .into_iter()
            .filter(|name| name != DEFAULT_FAMILY && specs.iter().all(|s| s.name != *name))
            .collect();
        let families = wanted.chain(dropped.clone()).chain([DEFAULT_FAMILY.to_owned()]);
        let families = families.map(|name| ColumnFamilyDescriptor::new(name, options.store()));
        let mut db = DB::open_cf_descriptors(&database, dir, families).map_err(failed)?;
        for name in dropped {
            db.drop_cf(&name).map_err(failed)?;
        }
        let chunks = dir.join("restore");
        // What an interrupted restore has left.
        match std::fs::remove_dir_all(&chunks) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StateError::Storage(format!("remove `{}`: {error}", chunks.display())));
            }
            Err(_) | Ok(()) => {}
        }
        let names = specs.iter().map(|spec| spec.name.clone()).collect();
        let db = Arc::new(Database { db, names });
        let position = (0..specs.len())
            .map(|store| {
                let bytes = db.db.get_pinned_cf(db.family(store)?, POSITION_KEY).map_err(failed)?;
                bytes.map_or(Ok(ChangelogPosition::default()), |bytes| decode_position(&bytes))
            })
            .collect::<Result<Position, _>>()?;
        let [mut at_once, mut slowed] = [WriteOptions::default(), WriteOptions::default()];
        at_once.disable_wal(true);
        at_once.set_no_slowdown(true);
        slowed.disable_wal(true);
        Ok(RocksState { db, position, at_once, slowed, store_options: options.store(), chunks })
    }

    /// Changes, with the position that they lead to, as one write.
    fn writes(&self, batch: &StateBatch) -> Result<WriteBatch, StateError> {
        let mut writes = WriteBatch::default();
        for (store, (changes, position)) in batch.changes.iter().zip(&batch.position).enumerate() {
            let family = self.db.family(store)?;
            if !Mutant::PositionNotMoved.is_on() {
                writes.put_cf(family, POSITION_KEY, encode_position(*position));
            }
            let mut prefixed = vec![KEY_PREFIX];
            for (key, value) in changes {
                prefixed.truncate(1);
                prefixed.extend_from_slice(key);
                match value {
                    Some(value) => writes.put_cf(family, &prefixed, value),
                    None => writes.delete_cf(family, &prefixed),
                }
            }
        }
        Ok(writes)
    }

    /// Writes the changes of one store, sorted, into a file and has the database take it in.
    fn ingest<'c>(
        &self,
        store: StoreIndex,
        changes: impl Iterator<Item = (&'c [u8], Option<&'c [u8]>)>,
        position: ChangelogPosition,
    ) -> Result<(), StateError> {
        let make = |error| StateError::Storage(format!("create `{}`: {error}", self.chunks.display()));
        std::fs::create_dir_all(&self.chunks).map_err(make)?;
        let family = self.db.family(store)?;
        let path = self.chunks.join(format!("{store}.sst"));
        let mut file = SstFileWriter::create(&self.store_options);
        file.open(&path).map_err(failed)?;
        file.put(POSITION_KEY, encode_position(position)).map_err(failed)?;
        let mut prefixed = vec![KEY_PREFIX];
        for (key, value) in changes {
            prefixed.truncate(1);
            prefixed.extend_from_slice(key);
            match value {
                Some(value) => file.put(&prefixed, value),
                None => file.delete(&prefixed),
            }
            .map_err(failed)?;
        }
        file.finish().map_err(failed)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.db.ingest_external_file_cf_opts(family, &options, vec![&path]).map_err(failed)
    }
}

impl StateBackend for RocksState {
    fn position(&self) -> &Position {
        &self.position
    }

    fn multi_get(&self, store: StoreIndex, keys: &[&[u8]]) -> Result<Vec<Option<Blob>>, StateError> {
        let family = self.db.family(store)?;
        if let [key] = keys {
            let value = self.db.db.get_pinned_cf(family, prefixed(key)).map_err(failed)?;
            return Ok(vec![value.map(|value| Blob::from(&*value))]);
        }
        let mut bytes = Vec::with_capacity(keys.iter().map(|key| key.len() + 1).sum());
        for key in keys {
            bytes.push(KEY_PREFIX);
            bytes.extend_from_slice(key);
        }
        let mut rest = &bytes[..];
        let prefixed: Vec<&[u8]> = keys
            .iter()
            .map(|key| {
                let (key, after) = rest.split_at(key.len() + 1);
                rest = after;
                key
            })
            .collect();
        let values = self.db.db.batched_multi_get_cf(family, prefixed, true);
        let blob = |value: rocksdb::DBPinnableSlice<'_>| Blob::from(&*value);
        values.into_iter().map(|value| Ok(value.map_err(failed)?.map(blob))).collect()
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        let iterator = self.db.db.raw_iterator_cf_opt(self.db.family(store)?, bounded(range));
        walk(iterator, range, visit)
    }

    fn apply(&mut self, batch: StateBatch) -> Result<(), StateError> {
        let mut stall = Stall::default();
        let mut how = &self.at_once;
        loop {
            match self.db.db.write_opt(self.writes(&batch)?, how) {
                Err(error) if error.kind() == ErrorKind::Incomplete => {
                    how = if self.db.is_stopped()? {
                        stall.wait(self.db.db.path())?;
                        &self.at_once
                    } else {
                        &self.slowed
                    };
                }
                Err(error) => return Err(failed(error)),
                Ok(()) => break,
            }
        }
        self.position = batch.position;
        Ok(())
    }

    /// Each store takes its chunk with its position in one file, so a crash between two stores leaves each of them
    /// right.
    fn restore(&mut self, batch: StateBatch) -> Result<(), StateError> {
        for (store, (changes, position)) in batch.changes.iter().zip(&batch.position).enumerate() {
            if *position != self.position[store] {
                let changes = changes.iter().map(|(key, value)| (&**key, value.as_deref()));
                self.ingest(store, changes, *position)?;
                self.position[store] = *position;
            }
        }
        Ok(())
    }

    fn restore_store(
        &mut self,
        store: StoreIndex,
        chunk: &Restored,
        position: ChangelogPosition,
    ) -> Result<(), StateError> {
        if chunk.len() >= SMALL_CHUNK {
            self.ingest(store, chunk.iter(), position)?;
            self.position[store] = position;
            return Ok(());
        }
        let mut positions = self.position.clone();
        let mut changes: Vec<Changes> = vec![Vec::new(); positions.len()];
        (positions[store], changes[store]) = (position, chunk.to_changes());
        self.apply(StateBatch { changes, position: positions })
    }

    fn flush(&mut self) -> Result<(), StateError> {
        let mut stall = Stall::default();
        while self.db.is_stopped()? {
            stall.wait(self.db.db.path())?;
        }
        let families =
            (0..self.db.names.len()).map(|store| self.db.family(store)).collect::<Result<Vec<_>, _>>()?;
        self.db.db.flush_cfs_opt(&families, &FlushOptions::default()).map_err(failed)
    }

    fn reader(&self) -> Arc<dyn StateReader> {
        self.db.clone()
    }
}

impl StateReader for Database {
    fn view(&self) -> Result<Box<dyn StateView + '_>, StateError> {
        let snapshot = self.db.snapshot();
        let position = (0..self.names.len())
            .map(|store| {
                let bytes = snapshot.get_pinned_cf(self.family(store)?, POSITION_KEY).map_err(failed)?;
                bytes.map_or(Ok(ChangelogPosition::default()), |bytes| decode_position(&bytes))
            })
            .collect::<Result<Position, _>>()?;
        Ok(Box::new(View { database: self, snapshot, position }))
    }

    fn pinned(&self) -> Result<Box<dyn StateView + '_>, StateError> {
        self.view()
    }

    fn size(&self) -> Result<StateSize, StateError> {
        let mut size = StateSize::default();
        for store in 0..self.names.len() {
            let StateSize { bytes, keys } = self.store_size(store)?;
            (size.bytes, size.keys) = (size.bytes + bytes, size.keys + keys);
        }
        Ok(size)
    }

    fn store_size(&self, store: StoreIndex) -> Result<StateSize, StateError> {
        let family = self.family(store)?;
        let number = |name: &str| {
            let value = self.db.property_int_value_cf(family, name).map_err(failed)?;
            Ok::<u64, StateError>(value.unwrap_or(0))
        };
        let bytes = number("rocksdb.total-sst-files-size")? + number("rocksdb.cur-size-all-mem-tables")?;
        // One key is the position.
        let keys = number("rocksdb.estimate-num-keys")?.saturating_sub(1);
        Ok(StateSize { bytes, keys })
    }
}

/// Pins old versions of what is overwritten meanwhile, so readers take what they need and drop it.
struct View<'a> {
    database: &'a Database,
    snapshot: Snapshot<'a>,
    position: Position,
}

impl StateView for View<'_> {
    fn position(&self) -> &Position {
        &self.position
    }

    fn get(&self, store: StoreIndex, key: &[u8]) -> Result<Option<Blob>, StateError> {
        let value =
            self.snapshot.get_pinned_cf(self.database.family(store)?, prefixed(key)).map_err(failed)?;
        Ok(value.map(|value| Blob::from(&*value)))
    }

    fn range(&self, store: StoreIndex, range: KeyRange<'_>, visit: &mut Visit<'_>) -> Result<(), StateError> {
        let iterator = self.snapshot.raw_iterator_cf_opt(self.database.family(store)?, bounded(range));
        walk(iterator, range, visit)
    }
}

fn prefixed(key: &[u8]) -> Vec<u8> {
    let mut prefixed = Vec::with_capacity(key.len() + 1);
    prefixed.push(KEY_PREFIX);
    prefixed.extend_from_slice(key);
    prefixed
}

/// Bounds keep the iterator from reading deleted keys outside of the range.
fn bounded(range: KeyRange<'_>) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(prefixed(range.from));
    options.set_iterate_upper_bound(range.to.map_or_else(|| KEYS_END.to_vec(), prefixed));
    options
}

fn walk(
    mut iterator: DBRawIterator<'_>,
    range: KeyRange<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), StateError> {
    if range.is_empty() {
        return Ok(());
    }
    if range.reverse {
        iterator.seek_to_last()
    } else {
        iterator.seek_to_first()
    }
    while let Some((key, value)) = iterator.item() {
        let Some((_, key)) = key.split_first() else { break };
        if visit(key, value) == ControlFlow::Break(()) {
            return Ok(());
        }
        if range.reverse { iterator.prev() } else { iterator.next() }
    }
    iterator.status().map_err(failed)
}

fn encode_position(position: ChangelogPosition) -> [u8; POSITION_BYTES] {
    let mut bytes = [0; POSITION_BYTES];
    bytes[..16].copy_from_slice(&position.topic_id);
    bytes[16..24].copy_from_slice(&position.offset.to_be_bytes());
    bytes[24..].copy_from_slice(&position.caught_up_ms.to_be_bytes());
    bytes
}

fn decode_position(bytes: &[u8]) -> Result<ChangelogPosition, StateError> {
    let damaged =
        || StateError::Corrupt(format!("the position has {} bytes, not {POSITION_BYTES}", bytes.len()));
    let bytes: &[u8; POSITION_BYTES] = bytes.try_into().map_err(|_| damaged())?;
    let number = |at: usize| bytes[at..].first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes));
    let mut topic_id = [0; 16];
    topic_id.copy_from_slice(&bytes[..16]);
    Ok(ChangelogPosition { topic_id, offset: number(16), caught_up_ms: number(24) })
}

fn failed(error: Error) -> StateError {
    told(error.kind(), error.to_string())
}

/// What RocksDB says, in words of the operating system, of a file that a database needs and that is not there, or cannot be
/// read where it is: as with a bad checksum, the files are of no use, and the changelog has what was in them.
const LOST: [&str; 3] = ["No such file or directory", "Input/output error", "Structure needs cleaning"];
/// What it says when there is no room.
const NO_ROOM: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

fn told(kind: ErrorKind, text: String) -> StateError {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match kind {
        _ if Mutant::DamageNotTold.is_on() => StateError::Storage(text),
        ErrorKind::Corruption => StateError::Corrupt(text),
        // A failed write says of all later ones what it was.
        _ if says(&NO_ROOM) => StateError::Full(text),
        ErrorKind::IOError if says(&LOST) => StateError::Corrupt(text),
        _ => StateError::Storage(text),
    }
}

#[cfg(test)]
mod tests;
