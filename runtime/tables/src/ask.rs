//! Reading tables. An answer comes from one view of each store, and says which offset of each partition it reflects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pelton_streams::state::{StateError, StateReader, StateView};
use pelton_streams::tables::{Cursor, Merged, Row, RowRange, marks_of, row};

use crate::source::Source;
use crate::store::{Store, StoreId, StoreState, Table};

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
    /// With how far the stores are that were asked, from 0 to 1, and which of them have not had all of their topic yet.
    #[error(
        "table `{table}` is being restored from its topic: {percent} % of it is done{stores}",
        percent = (.restored * 100.0).floor(), stores = which(.waiting, *.asked)
    )]
    Restoring { table: String, restored: f64, waiting: Vec<String>, asked: usize },
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
    let stores: Vec<(StoreId, Option<Arc<Store>>)> =
        wanted.into_iter().map(|id| (id, table.store(id))).collect();
    let readable = |(_, store): &(StoreId, Option<Arc<Store>>)| {
        let store = store.as_ref()?;
        let (reader, generation) = store.reader()?;
        Some(Readable { store: Arc::clone(store), reader, generation })
    };
    let found: Option<Vec<Readable>> = stores.iter().map(readable).collect();
    found.ok_or_else(|| not_live(table, &stores))
}

/// Why stores are not read: that of one that has failed, or how far they are.
fn not_live(table: &Table, stores: &[(StoreId, Option<Arc<Store>>)]) -> AskError {
    let (table, asked) = (table.name.clone(), stores.len());
    let (mut waiting, mut restored) = (Vec::new(), 0.0);
    for (id, store) in stores {
        let status = store.as_ref().map(|store| store.status());
        let is_live = status.as_ref().is_some_and(|status| status.state == StoreState::Live);
        if is_live {
            restored += 1.0;
            continue;
        }
        waiting.push(id.name());
        let Some(status) = status else { continue };
        if let Some(reason) = status.failure {
            let reason = if asked > 1 { format!("partition {}: {reason}", status.store) } else { reason };
            return AskError::Failed { table, reason };
        }
        let partitions = status.partitions.len().max(1) as f64;
        restored += status.partitions.iter().map(|partition| partition.restored).sum::<f64>() / partitions;
    }
    AskError::Restoring { table, restored: restored / asked.max(1) as f64, waiting, asked }
}

/// Stores that an error names.
const NAMED: usize = 5;

/// Which of several stores are not there yet.
fn which(waiting: &[String], asked: usize) -> String {
    if asked < 2 {
        return String::new();
    }
    let (named, more) = (waiting.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "), waiting.len());
    let more = more.checked_sub(NAMED).filter(|more| *more > 0);
    let more = more.map_or(String::new(), |more| format!(" and {more} more"));
    format!("; the answer needs {asked} partitions, and these are not there yet: {named}{more}")
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
    source: &dyn Source,
    wanted: &BTreeMap<u32, i64>,
    patience: Duration,
) -> Result<(), AskError> {
    let mut moved = table.watch();
    let end = tokio::time::Instant::now() + patience;
    loop {
        moved.borrow_and_update();
        let Some(behind) = behind(table, source, wanted)? else { return Ok(()) };
        if let Some(why) = table.ended() {
            return Err(AskError::Ended { table: table.name.clone(), why });
        }
        match tokio::time::timeout_at(end, moved.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(behind),
        }
    }
}

/// The first of the offsets that the table does not reflect. They are of the topic that has the name now.
fn behind(
    table: &Table,
    source: &dyn Source,
    wanted: &BTreeMap<u32, i64>,
) -> Result<Option<AskError>, AskError> {
    let name = || table.name.clone();
    let topic = &table.definition.topic;
    let Some(topic_id) = source.topic(topic).map(|topic| topic.id) else {
        return Ok(Some(AskError::NoTopic { table: name(), topic: topic.clone() }));
    };
    for (partition, wanted) in wanted {
        if table.topic().is_some_and(|topic| *partition >= topic.partitions) {
            return Err(AskError::NoPartition { table: name(), partition: *partition });
        }
        let store = table.store(StoreId::Global).or_else(|| table.store(StoreId::Partition(*partition)));
        let Some(store) = store else { return Ok(stores_for(table, None).err()) };
        match store.next_of(topic_id, *partition) {
            None => return Ok(Some(not_live(table, &[(store.id, Some(store))]))),
            Some(next) if next > *wanted => {}
            Some(next) => {
                let (partition, offset, wanted) = (*partition, next - 1, *wanted);
                return Ok(Some(AskError::Behind { table: name(), partition, offset, wanted }));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use pelton_streams::state::{MemoryState, StateBackend};
    use pelton_streams::tables::{KeyPlacement, Scope, StoreKind, TableDefinition, ValueFormat};

    use super::*;
    use crate::source::TopicNow;
    use crate::store::PartNow;

    /// A key may be in any partition, so a look-up waits for all of them, and says for which.
    #[test]
    fn an_answer_says_which_partitions_it_waits_for() {
        let definition = TableDefinition {
            topic: "t".to_owned(),
            scope: Scope::Partitioned,
            partitioner: KeyPlacement::Unknown,
            store: StoreKind::Memory,
            value: ValueFormat::Raw,
            partitions: 4,
            created_at_ms: 0,
        };
        let table = Table::new("t".to_owned(), definition);
        let topic = TopicNow { id: [1; 16], partitions: 4, only_compacts: true, delete_retention_ms: 1 };
        table.set_topic(5, Some(topic));
        // A thread that is late.
        table.set_topic(4, None);

        let part = |next| PartNow { next, readable: 100, begin: 0, target: 100 };
        for (partition, next) in [(0, 100), (1, 50), (2, 100)] {
            let store = table.add(StoreId::Partition(partition));
            store.opened([1; 16], MemoryState::new(1).reader(), BTreeMap::from([(partition, part(next))]));
            if partition != 1 {
                store.live();
            }
        }
        let error = get(&table, b"a").unwrap_err();
        let expect = "table `t` is being restored from its topic: 62 % of it is done; the answer needs 4 partitions, and \
                      these are not there yet: 1, 3";
        assert_eq!(error.to_string(), expect);
        table.store(StoreId::Partition(1)).unwrap().failed(Some("the disk is full".to_owned()));
        let error = scan(&table, &RowRange::default(), 1).unwrap_err();
        let expect = "table `t` cannot be read now: partition 1: the disk is full; it tries again by itself";
        assert_eq!(error.to_string(), expect);
        assert_eq!(
            which(&["a"; 7].map(str::to_owned), 9).split(": ").nth(1),
            Some("a, a, a, a, a and 2 more")
        );
    }
}
