//! What a read-committed consumer sees.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use pelton_wire::record::{DecompressLimit, batches};

use crate::core::{Core, TOPICS};
use crate::requests::group_of;
use pelton_coordinators::group::types::FetchRequest;
use pelton_partitions::partition::{Partition, Replayed};

/// Values by partition.
pub(crate) type Found = BTreeMap<String, Vec<String>>;

/// Every record that is committed, per partition and in order, as far as the last stable offset goes: by the index of
/// aborted transactions, as clients do it, and by the markers, which must come to the same.
pub(crate) fn committed(core: &Core) -> Found {
    let mut all = BTreeMap::new();
    for (name, _) in TOPICS {
        let topic = core.topics.get(name).expect("the topic is there");
        for partition in &topic.local {
            let seen = by_index(partition);
            assert_eq!(seen, by_markers(partition), "{name}-{}", partition.index());
            all.insert(format!("{name}-{}", partition.index()), seen);
        }
    }
    all
}

fn by_index(partition: &Partition) -> Vec<String> {
    const CHUNK: u64 = 700;
    let mut values = Vec::new();
    let (mut next, end) = (partition.log_start_offset(), partition.offsets().last_stable);
    while next < end {
        let range = partition.reader().read(next, CHUNK, end, true).expect("the log reads");
        assert!(range.next_offset > next, "a reader waits below the last stable offset");
        let aborted = partition.reader().aborted_transactions(range.base_offset, range.next_offset);
        let mut aborted: VecDeque<_> = aborted.expect("the index reads").into();
        aborted.make_contiguous().sort_by_key(|txn| txn.first_offset);
        let mut skipped: BTreeSet<i64> = BTreeSet::new();
        next = range.next_offset;
        for view in batches(&range.into_bytes().expect("the file reads")) {
            let view = view.expect("batches are whole");
            let header = *view.header();
            while aborted.front().is_some_and(|txn| txn.first_offset <= header.base_offset) {
                skipped.extend(aborted.pop_front().map(|txn| txn.producer_id));
            }
            let mut scratch = Vec::new();
            for record in view.records(&mut scratch, DecompressLimit::default()).expect("records read") {
                let record = record.expect("a record reads");
                if header.is_control() {
                    skipped.remove(&header.producer_id);
                } else if !skipped.contains(&header.producer_id) {
                    values.push(text(record.value));
                }
            }
        }
    }
    values
}

fn by_markers(partition: &Partition) -> Vec<String> {
    let end = partition.offsets().last_stable;
    let mut open: BTreeMap<i64, Vec<(i64, String)>> = BTreeMap::new();
    let mut values = Vec::new();
    let met = partition.replay_until(0, end, |met| match met {
        Replayed::Record { offset, producer_id: Some(id), value, .. } => {
            open.entry(id).or_default().push((offset, text(value)));
        }
        Replayed::Record { .. } => panic!("a record outside of a transaction"),
        Replayed::Marker { producer_id, commit } => {
            let records = open.remove(&producer_id).unwrap_or_default();
            values.extend(records.into_iter().filter(|_| commit));
        }
    });
    met.expect("the log reads");
    let first_open = open.values().flatten().map(|(offset, _)| *offset).min().unwrap_or(i64::MAX);
    assert!(first_open >= end, "the last stable offset {end} is beyond an open transaction at {first_open}");
    values.retain(|(offset, _)| *offset < end);
    values.sort();
    values.into_iter().map(|(_, value)| value).collect()
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8(value.expect("a value").to_vec()).expect("text")
}

/// What the group of a producer has committed; `None` for nothing, an error while it is not known.
pub(crate) async fn committed_offset(
    core: &Core,
    id: &str,
    require_stable: bool,
) -> Result<Option<i64>, String> {
    let request = FetchRequest { topics: Some(vec![(Arc::from("a"), vec![0])]), require_stable };
    let groups = core.groups.clone();
    let group = group_of(id);
    let mut asked = tokio::spawn(async move { groups.fetch(&group, request).await });
    core.settle().await;
    if !asked.is_finished() {
        return Err("the owner waits for the disk".to_owned());
    }
    let fetched = (&mut asked).await.unwrap().map_err(|error| error.to_string())?;
    match &fetched[0].1[0].result {
        Ok(found) => Ok(found.as_ref().map(|found| found.offset)),
        Err(error) => Err(error.to_string()),
    }
}
