//! Reading tables. An answer comes from one view of each store, and says which offset of each partition it reflects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pelton_streams::state::{StateError, StateReader, StateView};
use pelton_streams::tables::{Cursor, Merged, Row, RowRange, marks_of, row};

use crate::store::{Store, StoreId, Table};

/// Bytes of rows in a page, at least one row.
const PAGE_BYTES: usize = 4 << 20;

/// The last offset that an answer reflects, by partition; -1 for none.
pub(crate) type Offsets = BTreeMap<u32, i64>;

/// A look-up by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub row: Option<Row>,
    /// The last offset that the answer reflects, by partition that was asked.
    pub offsets: BTreeMap<u32, i64>,
}

/// Rows in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub rows: Vec<Row>,
    /// The last key, if there are more behind it.
    pub next: Option<Vec<u8>>,
    /// The last offset that the page reflects, by partition.
    pub offsets: BTreeMap<u32, i64>,
}

/// Why a table gives no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AskError {
    #[error("there is no table `{0}`")]
    Unknown(String),
    #[error("table `{table}` is a view of topic `{topic}`, which does not exist")]
    NoTopic { table: String, topic: String },
    /// With how far it is, from 0 to 1.
    #[error("table `{table}` is being restored from its topic: {percent} % of it is done", percent = (.restored * 100.0).floor())]
    Restoring { table: String, restored: f64 },
    #[error("table `{table}` cannot be read now: {reason}; it tries again by itself")]
    Failed { table: String, reason: String },
    #[error("table `{table}` reflects partition {partition} up to offset {offset} and not {wanted} yet")]
    Behind { table: String, partition: u32, offset: i64, wanted: i64 },
    #[error("the topic of table `{table}` has no partition {partition}")]
    NoPartition { table: String, partition: u32 },
    #[error("the store of table `{table}` cannot be read: {error}")]
    Store { table: String, error: StateError },
    #[error("{0} readers follow tables, which is `pelton.table.followers.max`; try again later, or raise it")]
    TooManyFollowers(u32),
    #[error("table `{table}` has ended: {why}")]
    Ended { table: String, why: &'static str },
}

/// A store that can be read, with the generation that it was handed out in.
pub(crate) struct Readable {
    pub(crate) store: Arc<Store>,
    pub(crate) reader: Arc<dyn StateReader>,
    pub(crate) generation: u64,
}

/// The stores that have a key, or all of them.
pub(crate) fn stores_for(table: &Table, key: Option<&[u8]>) -> Result<Vec<Readable>, AskError> {
    let name = || table.name.clone();
    let Some(topic) = table.topic() else {
        return Err(AskError::NoTopic { table: name(), topic: table.definition.topic.clone() });
    };
    let one = key.and_then(|key| table.definition.partition_of(key, topic.partitions));
    let wanted: Vec<StoreId> = match (table.definition.scope, one) {
        (pelton_streams::tables::Scope::Global, _) => vec![StoreId::Global],
        (_, Some(partition)) => vec![StoreId::Partition(partition)],
        (_, None) => (0..topic.partitions).map(StoreId::Partition).collect(),
    };
    let mut found = Vec::with_capacity(wanted.len());
    for id in wanted {
        let store = table.store(id).ok_or_else(|| AskError::Restoring { table: name(), restored: 0.0 })?;
        let Some((reader, generation)) = store.reader() else { return Err(not_live(table, &store)) };
        found.push(Readable { store, reader, generation });
    }
    Ok(found)
}

fn not_live(table: &Table, store: &Store) -> AskError {
    let (table, status) = (table.name.clone(), store.status());
    if let Some(reason) = status.failure {
        return AskError::Failed { table, reason };
    }
    let partitions = status.partitions.len().max(1) as f64;
    let restored = status.partitions.iter().map(|partition| partition.restored).sum::<f64>() / partitions;
    AskError::Restoring { table, restored }
}

/// What a store's view reflects, added to `offsets`.
pub(crate) fn reflect(view: &dyn StateView, offsets: &mut Offsets) -> Result<(), StateError> {
    offsets.extend(marks_of(view)?.into_iter().map(|(partition, mark)| (partition, mark.next_offset - 1)));
    Ok(())
}

/// The row of a key. Of several stores that have the key, the row with the latest timestamp counts.
pub(crate) fn get(table: &Table, key: &[u8]) -> Result<Found, AskError> {
    let mut found = Found { row: None, offsets: Offsets::new() };
    for Readable { store, reader, .. } in stores_for(table, Some(key))? {
        let read = || {
            let view = reader.view()?;
            reflect(&*view, &mut found.offsets)?;
            row(&*view, key)
        };
        let row = told(table, &store, read)()?;
        if let Some(row) = row
            && found.row.as_ref().is_none_or(|best| row.timestamp >= best.timestamp)
        {
            found.row = Some(row);
        }
    }
    Ok(found)
}

/// Reports damage to the store's owner.
fn told<T>(
    table: &Table,
    store: &Store,
    read: impl FnOnce() -> Result<T, StateError>,
) -> impl FnOnce() -> Result<T, AskError> {
    move || {
        read().map_err(|error| {
            store.report(&error);
            AskError::Store { table: table.name.clone(), error }
        })
    }
}

/// At most `limit` rows of a range.
pub(crate) fn scan(table: &Table, range: &RowRange, limit: usize) -> Result<Page, AskError> {
    let stores = stores_for(table, None)?;
    let read = || {
        let views = stores.iter().map(|readable| readable.reader.view()).collect::<Result<Vec<_>, _>>()?;
        let mut page = Page { rows: Vec::new(), next: None, offsets: Offsets::new() };
        for view in &views {
            reflect(&**view, &mut page.offsets)?;
        }
        let mut rows = Merged::new(views.iter().map(|view| Cursor::new(&**view, range.clone())).collect());
        let mut bytes = 0;
        while let Some((_, row)) = rows.next()? {
            if page.rows.len() >= limit || bytes >= PAGE_BYTES {
                page.next = page.rows.last().map(|last| last.key.clone());
                break;
            }
            bytes += row.key.len() + row.value.len();
            page.rows.push(row);
        }
        Ok(page)
    };
    read().map_err(|error: StateError| {
        stores.iter().for_each(|readable| readable.store.report(&error));
        AskError::Store { table: table.name.clone(), error }
    })
}

/// Waits until a table reflects these offsets, by partition, at most so long.
pub(crate) async fn wait_for(
    table: &Table,
    wanted: &BTreeMap<u32, i64>,
    patience: Duration,
) -> Result<(), AskError> {
    let mut moved = table.watch();
    let end = tokio::time::Instant::now() + patience;
    loop {
        moved.borrow_and_update();
        let Some(behind) = behind(table, wanted)? else { return Ok(()) };
        if let Some(why) = table.ended() {
            return Err(AskError::Ended { table: table.name.clone(), why });
        }
        match tokio::time::timeout_at(end, moved.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(behind),
        }
    }
}

/// The first of the offsets that the table does not reflect.
fn behind(table: &Table, wanted: &BTreeMap<u32, i64>) -> Result<Option<AskError>, AskError> {
    let name = || table.name.clone();
    for (partition, wanted) in wanted {
        if table.topic().is_some_and(|topic| *partition >= topic.partitions) {
            return Err(AskError::NoPartition { table: name(), partition: *partition });
        }
        let store = table.store(StoreId::Global).or_else(|| table.store(StoreId::Partition(*partition)));
        let Some(store) = store else { return Ok(stores_for(table, None).err()) };
        match store.next(*partition) {
            None => return Ok(Some(not_live(table, &store))),
            Some(next) if next > *wanted => {}
            Some(next) => {
                let (partition, offset, wanted) = (*partition, next - 1, *wanted);
                return Ok(Some(AskError::Behind { table: name(), partition, offset, wanted }));
            }
        }
    }
    Ok(None)
}
