use std::collections::BTreeMap;

use pelton_wire::record::{BatchBuilder, BatchOptions, BatchView, Columns, DecompressLimit, Select};

use super::*;
use crate::state::{MemoryState, StateBackend};

const TOPIC: [u8; 16] = [7; 16];

fn definition() -> TableDefinition {
    TableDefinition {
        topic: "planes".to_owned(),
        scope: Scope::Partitioned,
        partitioner: KeyPlacement::Murmur2,
        store: StoreKind::Rocksdb,
        value: ValueFormat::Json,
        partitions: 4,
        created_at_ms: 17,
    }
}

fn mark(next_offset: i64, as_of_ms: i64) -> Mark {
    Mark { topic_id: TOPIC, next_offset, as_of_ms }
}

/// Records as they are read: key, value, timestamp.
fn columns(records: &[(Option<&str>, Option<&str>, i64)]) -> Columns {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (key, value, timestamp) in records {
        builder.append(*timestamp, key.map(str::as_bytes), value.map(str::as_bytes), &[]).unwrap();
    }
    let bytes = builder.finish().unwrap();
    let mut columns = Columns::new();
    let select = Select { from_offset: 0, headers: false };
    columns.append(&BatchView::check(&bytes).unwrap(), select, DecompressLimit::STORED).unwrap();
    columns
}

fn store(records: &[(Option<&str>, Option<&str>, i64)]) -> MemoryState {
    let mut chunk = Chunk::default();
    chunk.take(&columns(records));
    let mut state = MemoryState::new(1);
    state.apply(chunk.finish(&BTreeMap::from([(0, mark(records.len() as i64, 5))]))).unwrap();
    state
}

fn text(row: &Row) -> (String, String, i64) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&row.key), text(&row.value), row.timestamp)
}

fn scan(views: &[&dyn crate::state::StateView], range: &RowRange) -> Vec<(usize, String, String)> {
    let cursors = views.iter().map(|view| Cursor::new(*view, range.clone())).collect();
    let mut merged = Merged::new(cursors);
    let mut rows = Vec::new();
    while let Some((store, row)) = merged.next().unwrap() {
        let (key, value, _) = text(&row);
        rows.push((store, key, value));
    }
    rows
}

#[test]
fn the_last_record_of_a_key_is_its_row_and_one_without_a_value_deletes_it() {
    let state = store(&[
        (Some("a"), Some("1"), 10),
        (Some("b"), Some("2"), 20),
        (None, Some("nobody's"), 30),
        (Some("a"), Some("3"), 5),
        (Some("c"), None, 40),
        (Some("b"), None, 50),
        (Some("d"), Some(""), 60),
    ]);
    let reader = state.reader();
    let view = reader.view().unwrap();
    let get = |key: &str| row(&*view, key.as_bytes()).unwrap().map(|row| text(&row));
    // The order of the log counts, not that of timestamps.
    assert_eq!(get("a"), Some(("a".to_owned(), "3".to_owned(), 5)));
    assert_eq!((get("b"), get("c"), get("")), (None, None, None));
    assert_eq!(get("d"), Some(("d".to_owned(), String::new(), 60)));
    assert_eq!(marks_of(&*view).unwrap(), BTreeMap::from([(0, mark(7, 5))]));
}

#[test]
fn what_became_of_records_is_counted() {
    let mut chunk = Chunk::default();
    chunk.take(&columns(&[
        (Some("a"), Some("1"), 1),
        (Some("a"), None, 2),
        (None, None, 3),
        (None, Some("x"), 4),
    ]));
    assert_eq!(chunk.counts(), Counts { puts: 1, tombstones: 1, null_keys: 2 });
    assert!(chunk.bytes() > 0);
    let batch = chunk.finish(&BTreeMap::new());
    assert_eq!((batch.changes[0].len(), chunk.bytes(), chunk.counts()), (1, 0, Counts::default()));
}

#[test]
fn ranges_are_by_bytes() {
    let state = store(&[
        (Some("a"), Some("1"), 0),
        (Some("ab"), Some("2"), 0),
        (Some("b"), Some("3"), 0),
        (Some("ba"), Some("4"), 0),
    ]);
    let reader = state.reader();
    let view = reader.view().unwrap();
    let keys = |from: Option<&str>, to: Option<&str>, prefix: Option<&str>| -> String {
        let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let range = RowRange::new(bytes(from), bytes(to), prefix.map(str::as_bytes));
        let rows = scan(&[&*view], &range);
        assert!(rows.iter().all(|(_, key, _)| range.contains(key.as_bytes())), "{range:?}");
        rows.into_iter().map(|(_, key, _)| key).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(None, None, None), "a ab b ba");
    assert_eq!(keys(Some("ab"), Some("ba"), None), "ab b");
    assert_eq!(keys(None, None, Some("a")), "a ab");
    assert_eq!(keys(Some("aa"), None, Some("a")), "ab");
    assert_eq!(keys(Some("c"), None, None), "");
    assert_eq!(keys(None, Some("a"), Some("b")), "");
    assert_eq!(keys(Some("b"), Some("a"), None), "");
    let behind = RowRange::default().behind(b"ab");
    assert_eq!(scan(&[&*view], &behind).len(), 2);
}

/// More rows than a cursor takes at once, over several stores.
#[test]
fn stores_are_merged_in_the_order_of_keys() {
    let key = |i: usize| format!("{i:05}");
    let mut records = vec![Vec::new(); 3];
    for i in 0..2000 {
        records[i % 3].push((key(i), format!("of {}", i % 3), 1));
    }
    // The same key in two of them: the later one counts, whichever store has it.
    records[0].push((key(1), "later".to_owned(), 9));
    records[2].push((key(3), "earlier".to_owned(), 0));
    let states: Vec<MemoryState> = records
        .iter()
        .map(|records| {
            let records: Vec<_> =
                records.iter().map(|(k, v, t)| (Some(k.as_str()), Some(v.as_str()), *t)).collect();
            store(&records)
        })
        .collect();
    let readers: Vec<_> = states.iter().map(StateBackend::reader).collect();
    let views: Vec<_> = readers.iter().map(|reader| reader.view().unwrap()).collect();
    let views: Vec<&dyn crate::state::StateView> = views.iter().map(|view| &**view).collect();
    let rows = scan(&views, &RowRange::default());
    let expect: Vec<_> = (0..2000)
        .map(|i| match i {
            1 => (0, key(1), "later".to_owned()),
            _ => (i % 3, key(i), format!("of {}", i % 3)),
        })
        .collect();
    assert_eq!(rows, expect);
}

#[test]
fn a_store_is_trusted_or_made_again() {
    const RETENTION: i64 = 1_000;
    let log = LogState { topic_id: TOPIC, start: 10, end: 20, delete_retention_ms: RETENTION };
    let now = 50_000;
    let decide = |mark| opening(3, mark, &log, now);
    assert_eq!(decide(None), Opening::Begin);
    for next in [10, 15, 20] {
        let mark = mark(next, now - RETENTION);
        assert_eq!(decide(Some(mark)), Opening::Resume(mark));
    }
    let rebuild = |mark| match decide(Some(mark)) {
        Opening::Rebuild(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(rebuild(Mark { topic_id: [8; 16], ..mark(15, now) }), Rebuild::OtherTopic);
    assert_eq!(rebuild(mark(9, now)), Rebuild::LostStart { partition: 3, next: 9, start: 10 });
    assert_eq!(rebuild(mark(21, now)), Rebuild::LostEnd { partition: 3, next: 21, end: 20 });
    let away = Rebuild::Away { partition: 3, away_ms: RETENTION + 1, retention_ms: RETENTION };
    assert_eq!(rebuild(mark(15, now - RETENTION - 1)), away);
    // A clock that went back says nothing of tombstones.
    assert_eq!(decide(Some(mark(15, now + 5))), Opening::Resume(mark(15, now + 5)));
}

#[test]
fn a_look_up_asks_one_partition_where_that_is_sure() {
    let table = definition();
    let one = table.partition_of(b"21", 4);
    assert_eq!(one, Some(0));
    assert_eq!(table.partition_of(b"21", 5), None, "the topic has grown");
    let with = |partitioner| TableDefinition { partitioner, ..definition() };
    assert_eq!(with(KeyPlacement::Unknown).partition_of(b"21", 4), None);
    assert_eq!(with(KeyPlacement::Crc32).partition_of(b"21", 4), Some(0));
    assert!(with(KeyPlacement::Consistent).partition_of(b"21", 4).is_some_and(|partition| partition < 4));
    assert_eq!(with(KeyPlacement::Crc32).partition_of(b"", 4), None, "librdkafka places it at random");
    assert_eq!(TableDefinition { scope: Scope::Global, ..definition() }.partition_of(b"21", 4), None);
}

#[test]
fn a_definition_reads_back() {
    let json = serde_json::to_string(&definition()).unwrap();
    assert_eq!(
        json,
        r#"{"topic":"planes","scope":"partitioned","partitioner":"murmur2","store":"rocksdb","value":"json","partitions":4,"created_at_ms":17}"#
    );
    assert_eq!(serde_json::from_str::<TableDefinition>(&json).unwrap(), definition());
}

#[test]
fn names_are_those_of_directories_too() {
    for good in ["a", "planes", "0.b-c_d", &"x".repeat(100)] {
        assert_eq!(check_name(good), Ok(()));
    }
    for bad in ["", ".", "..", "-a", "A", "a/b", "ä", "@a", &"x".repeat(101)] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_mark_of_another_layout_is_not_guessed_at() {
    let mut bytes = mark(5, 6).encode();
    assert_eq!(Mark::decode(&bytes), Some(mark(5, 6)));
    bytes[0] = 2;
    assert_eq!(Mark::decode(&bytes), None);
    assert_eq!(Mark::decode(&bytes[1..]), None);
}
