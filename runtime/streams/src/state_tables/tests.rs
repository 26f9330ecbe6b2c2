use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::batch::{Headers, OwnedBatch, RecordIn};
use crate::manifest::Manifest;
use crate::operator::NoTables;
use crate::operator::testing::row;
use crate::sink::{Emissions, Refused, Sink};
use crate::state::{ChangelogPosition, MemoryState, StateLimits, StateReader};
use crate::tables::RowRange;
use crate::task::{Outside, Plugins, Task, TaskId, TaskInput};
use crate::topology::Topology;

struct Anything;

impl Sink for Anything {
    fn write(&mut self, _: Emissions<'_>) -> Result<(), Vec<Refused>> {
        Ok(())
    }
}

/// What tasks of a pipeline keep after records of each partition.
struct Kept {
    topology: Arc<Topology>,
    readers: Vec<Arc<dyn StateReader>>,
}

fn run(nodes: &str, partitions: &[&[&str]]) -> Kept {
    let manifest = Manifest::parse(&format!("name='p'\n{nodes}")).unwrap();
    let topology = Arc::new(Topology::link(&manifest, &BTreeMap::new()).unwrap());
    let readers = (0..).zip(partitions).map(|(partition, records)| {
        let id = TaskId { sub_topology: 0, partition };
        let stores = topology.sub_topologies[0].graph.as_ref().unwrap().stores.len();
        let task = Task::new(id, Arc::clone(&topology), &vec![2; topology.outputs.len()]);
        let mut task = task.with_stores(Box::new(MemoryState::new(stores)), StateLimits::default());
        for (source, spec) in topology.sources.iter().enumerate() {
            let mut batch = OwnedBatch::new(&spec.topic, partition.unsigned_abs());
            for (offset, record) in (0..).zip(*records) {
                let (timestamp, headers) = (row(record).timestamp, Headers::default());
                let row = row(record);
                let (key, value) = (row.key.as_deref(), row.value.as_deref());
                batch.push(RecordIn { offset, timestamp, key, value, headers }, [].into_iter()).unwrap();
            }
            let end_offset = records.len() as i64;
            let input = [TaskInput { source, batch: batch.as_batch(), end_offset, more: false }];
            let (mut plugins, mut sink) = (Plugins::default(), Anything);
            let mut outside = Outside {
                plugins: &mut plugins,
                sink: &mut sink,
                globals: &NoTables,
                interrupted: &|| false,
            };
            let done = task.process(&input, &mut outside).unwrap();
            assert_eq!(done.positions, [(source, end_offset)]);
        }
        task.end_transaction(&mut Anything).unwrap();
        let kept = task.stores().unwrap();
        let batch = kept.take_changes(vec![ChangelogPosition::default(); stores]).unwrap();
        kept.apply(batch).unwrap();
        kept.reader()
    });
    Kept { readers: readers.collect(), topology: Arc::clone(&topology) }
}

fn text(row: &StateRow) -> String {
    let window = row.window.map_or_else(String::new, |window| format!("[{},{}]", window.start, window.end));
    let value = row.value.as_ref().map_or("~".to_owned(), |value| String::from_utf8(value.clone()).unwrap());
    format!("{}{window}={value}@{}", String::from_utf8_lossy(&row.key), row.timestamp)
}

impl Kept {
    fn table(&self, store: &str) -> StateTable {
        let mut tables = self.topology.state_tables().into_iter();
        tables.find(|table| table.store == store).unwrap()
    }

    /// All rows, by pages of so many.
    fn all(&self, store: &str, wanted: &Wanted, limit: usize) -> Vec<String> {
        let table = self.table(store);
        let (mut wanted, mut rows) = (wanted.clone(), Vec::new());
        loop {
            let parts = self.readers.iter().map(|reader| {
                table.part(&*reader.view().unwrap(), &wanted, limit, self.readers.len()).unwrap()
            });
            let page = table.page(parts.collect(), limit).unwrap();
            rows.extend(page.rows.iter().map(text));
            match page.next {
                Some(next) => wanted.behind = Some(next),
                None => return rows,
            }
        }
    }

    /// The same whatever the size of pages.
    fn rows(&self, store: &str, wanted: &Wanted) -> Vec<String> {
        let rows = self.all(store, wanted, 1_000);
        for limit in 1..=rows.len() + 1 {
            assert_eq!(self.all(store, wanted, limit), rows, "pages of {limit}");
        }
        rows
    }

    /// The same whatever the size of pages.
    fn windows(&self, store: &str, key: &str, starts: RangeInclusive<i64>) -> Vec<String> {
        let table = self.table(store);
        let all = |limit| {
            let (mut found, mut from) = (Vec::new(), *starts.start());
            loop {
                let starts = from..=*starts.end();
                let part = |reader: &Arc<dyn StateReader>| {
                    table.windows(&*reader.view().unwrap(), key.as_bytes(), starts.clone(), limit).unwrap()
                };
                let page = WindowRows::together(self.readers.iter().map(part).collect(), limit);
                found.extend(page.rows.iter().map(text));
                match page.next {
                    Some(next) => from = next,
                    None => return found,
                }
            }
        };
        let found = all(1_000);
        for limit in 1..=found.len() + 1 {
            assert_eq!(all(limit), found, "pages of {limit}");
        }
        found
    }

    fn get(&self, store: &str, key: &str) -> Vec<String> {
        let table = self.table(store);
        let rows = self.readers.iter();
        let rows = rows.filter_map(|reader| table.get(&*reader.view().unwrap(), key.as_bytes()).unwrap());
        rows.map(|row| text(&row)).collect()
    }
}

fn keys(from: &str, to: &str) -> Wanted {
    let to = (!to.is_empty()).then(|| to.as_bytes().to_vec());
    Wanted { keys: RowRange { from: from.as_bytes().to_vec(), to }, ..Wanted::default() }
}

const SOURCE: &str = "[[source]]\nid='s'\ntopic='s'\n[[sink]]\nfrom='n'\ntopic='out'\n";

#[test]
fn results_are_those_that_were_sent() {
    let nodes = format!(
        "{SOURCE}[[node]]\nid='n'\nfrom='s'\naggregate={{n='count',top='max:json:v'}}\ntable='best'\n"
    );
    let kept = run(
        &nodes,
        &[&[r#"b={"v":1}@1"#, r#"d={"v":2}@2"#, r#"b={"v":5}@1"#], &[r#"a={"v":7}@3"#, r#"c={"x":0}@4"#]],
    );
    let all = [
        r#"a={"n":1,"top":7}@3"#,
        r#"b={"n":2,"top":5}@1"#,
        r#"c={"n":1,"top":null}@4"#,
        r#"d={"n":1,"top":2}@2"#,
    ];
    assert_eq!(kept.rows("n", &Wanted::default()), all);
    assert_eq!(kept.rows("n", &keys("b", "d")), all[1..3]);
    assert_eq!((kept.get("n", "c"), kept.get("n", "x")), (vec![all[2].to_owned()], vec![]));
    let table = kept.table("n");
    assert_eq!(
        (table.table.as_deref(), table.holds.name(), table.placement),
        (Some("best"), "results", None)
    );
}

/// A table's groups, whose state begins with how many rows there are; the table that was grouped; a table that is joined.
#[test]
fn tables_have_their_rows() {
    let groups = "[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='n'\nfrom='t'\ngroup_by='json:g'\naggregate='distinct:json:v'\n\
                  [[sink]]\nfrom='n'\ntopic='out'\n";
    let rows = [r#"a={"g":"x","v":1}@1"#, r#"b={"g":"x","v":2}@2"#, r#"c={"g":"y","v":3}@3"#, "c=~@4"];
    let kept = run(groups, &[&rows]);
    assert_eq!(kept.rows("n", &Wanted::default()), ["x=2@2"]);
    assert_eq!(kept.rows("t", &Wanted::default()), [r#"a={"g":"x","v":1}@1"#, r#"b={"g":"x","v":2}@2"#]);
    assert_eq!(kept.table("n-members").holds, Holds::Internal);
    assert_eq!(kept.rows("n-members", &Wanted::default()), [""; 0]);
    let join =
        format!("{SOURCE}[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='n'\nfrom='s'\njoin={{with='t'}}\n");
    let kept = run(&join, &[&["a={}@1", "b={}@2"]]);
    assert_eq!(kept.rows("n-table", &Wanted::default()), ["a={}@1", "b={}@2"]);
}

/// Windows of each kind, open and kept: by key, by time, page by page, as they are found key by key.
#[test]
fn windows_are_found_by_key_and_by_time() {
    let parts: [&[&str]; 2] = [
        &["b=x@1", "d=x@4", "b=x@12", "b=x@13", "\0=x@30", "d=x@33"],
        &["a=x@2", "a=x@3", "c=x@21", "a=x@33", "a\0=x@34"],
    ];
    for window in ["tumbling='10ms'", "hopping='10ms',advance='5ms'", "sliding='10ms'", "session='4ms'"] {
        for more in ["", ",retention='1d'", ",grace='12ms'", ",emit='on-close',retention='1d'"] {
            let node =
                format!("{SOURCE}[[node]]\nid='n'\nfrom='s'\naggregate='count'\nwindow={{{window}{more}}}\n");
            let kept = run(&node, &parts);
            let sorted = |mut rows: Vec<String>| {
                rows.sort();
                rows
            };
            for starts in [0..=i64::MAX, 5..=21, 40..=50] {
                let wanted = Wanted { starts: starts.clone(), ..Wanted::default() };
                let all = kept.rows("n", &wanted);
                let by_key = ["a", "a\0", "b", "c", "d", "\0"];
                let by_key = by_key.iter().flat_map(|key| kept.windows("n", key, starts.clone())).collect();
                assert_eq!(sorted(all), sorted(by_key), "{window}{more} {starts:?}");
            }
            let of_c = kept.rows("n", &keys("b\u{1}", "d"));
            assert_eq!(sorted(of_c), sorted(kept.windows("n", "c", 0..=i64::MAX)), "{window}{more}");
        }
    }
    let node = format!(
        "{SOURCE}[[node]]\nid='n'\nfrom='s'\naggregate='count'\nwindow={{tumbling='10ms',retention='1d'}}\n"
    );
    let kept = run(&node, &parts);
    let starts = Wanted { starts: 0..=10, ..Wanted::default() };
    assert_eq!(kept.rows("n", &starts), ["a[0,10]=2@3", "b[0,10]=1@1", "d[0,10]=1@4", "b[10,20]=2@13"]);
}

#[test]
fn a_look_up_asks_one_partition_where_that_is_sure() {
    let table = |partitioner: &str, node: &str| {
        let source = format!("[[source]]\nid='s'\ntopic='s'\n{partitioner}[[sink]]\nfrom='n'\ntopic='out'\n");
        run(&format!("{source}[[node]]\nid='n'\nfrom='s'\n{node}\n"), &[]).table("n")
    };
    let of = |table: &StateTable| table.partition_of(b"21", 4);
    let murmur2 = table("partitioner='murmur2'\n", "aggregate='count'");
    assert_eq!(of(&murmur2), Some(0));
    assert_eq!(of(&table("", "aggregate='count'")), None, "nobody knows how");
    assert_eq!(
        of(&table("partitioner='murmur2'\n", "aggregate='count'\ngroup_by='raw'")),
        None,
        "another key"
    );
    let crc32 = table("partitioner='crc32'\n", "aggregate='count'");
    assert!(of(&crc32).is_some() && crc32.partition_of(b"", 4).is_none());
    assert!(of(&table("partitioner='consistent'\n", "aggregate='count'")).is_some());
    assert_eq!(of(&table("partitioner='sticky'\n", "aggregate='count'")), None, "by no key");
}
