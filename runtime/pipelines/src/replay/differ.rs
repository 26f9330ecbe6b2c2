//! Where what came out of two runs differs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::outputs::{Notes, PartitionNotes, ShownRecord, Wanted};

/// What two runs have not in common in one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopicDifference {
    /// Records that only the first run has, and the first of them.
    pub only_before: u64,
    pub first_only_before: Vec<ShownRecord>,
    /// Records that only the second run has, and the first of them.
    pub only_after: u64,
    pub first_only_after: Vec<ShownRecord>,
    /// Partitions in which both have the same records in another order.
    pub reordered: Vec<i32>,
}

/// Where two runs differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// By topic; those that are not here have the same records in the same order.
    pub topics: BTreeMap<String, TopicDifference>,
    /// What only the first run has.
    #[serde(skip)]
    missing: BTreeMap<(String, i32), HashMap<u64, u32>>,
}

impl Difference {
    /// Records of the first run that are to be shown, if there are any.
    pub(crate) fn missing(&self) -> Option<Wanted> {
        (!self.missing.is_empty()).then(|| Wanted::These(self.missing.clone()))
    }
}

/// How many of each hash are in `one` and not in `other`.
fn surplus(one: &PartitionNotes, other: &PartitionNotes) -> HashMap<u64, u32> {
    let more = |(hash, count): (&u64, &u32)| {
        let has = other.counts.get(hash).copied().unwrap_or(0);
        (*count > has).then(|| (*hash, *count - has))
    };
    one.counts.iter().filter_map(more).collect()
}

pub(super) fn difference(before: &Notes, after: &Notes) -> Difference {
    let nothing = PartitionNotes::default();
    let places: BTreeSet<_> = before.partitions.keys().chain(after.partitions.keys()).collect();
    let mut found = Difference::default();
    for place in places {
        let was = before.partitions.get(place).unwrap_or(&nothing);
        let is = after.partitions.get(place).unwrap_or(&nothing);
        if was.sequence == is.sequence && was.records == is.records {
            continue;
        }
        let (lost, new) = (surplus(was, is), surplus(is, was));
        let topic = found.topics.entry(place.0.clone()).or_default();
        let count = |counts: &HashMap<u64, u32>| counts.values().map(|count| u64::from(*count)).sum::<u64>();
        topic.only_before += count(&lost);
        topic.only_after += count(&new);
        if lost.is_empty() && new.is_empty() {
            topic.reordered.push(place.1);
        }
        if !lost.is_empty() {
            found.missing.insert(place.clone(), lost);
        }
    }
    for (name, topic) in &mut found.topics {
        topic.first_only_after = after.kept.get(name).cloned().unwrap_or_default();
    }
    found
}

/// Shows what only the first run has, by another run that has kept it.
pub(super) fn show_missing(difference: &mut Difference, again: &Notes) {
    for (name, topic) in &mut difference.topics {
        topic.first_only_before = again.kept.get(name).cloned().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use pelton_streams::RecordIn;
    use pelton_streams::batch::Headers;

    use super::super::outputs::{Noted, SHOWN_MAX};
    use super::*;

    fn notes(values: &[(i32, &str)], mut wanted: Wanted) -> Notes {
        let mut noted = Noted::default();
        for (partition, value) in values {
            let value = Some(value.as_bytes());
            let record = RecordIn { offset: 0, timestamp: 1, key: None, value, headers: Headers::default() };
            noted.note("out", *partition, &record, &mut wanted).unwrap();
        }
        noted.notes
    }

    fn compare(before: &[(i32, &str)], after: &[(i32, &str)]) -> Option<TopicDifference> {
        let first = notes(before, Wanted::None);
        let second = notes(after, Wanted::other_than(&first));
        let mut difference = difference(&first, &second);
        if let Some(missing) = difference.missing() {
            show_missing(&mut difference, &notes(before, missing));
        }
        difference.topics.remove("out")
    }

    fn values(shown: &[ShownRecord]) -> Vec<(i32, u64, &str)> {
        shown.iter().map(|shown| (shown.partition, shown.index, shown.value.as_deref().unwrap())).collect()
    }

    #[test]
    fn what_is_the_same_is_no_difference() {
        let same = [(0, "a"), (1, "b"), (0, "a")];
        assert_eq!(compare(&same, &same), None);
        assert_eq!(
            compare(&same, &[(1, "b"), (0, "a"), (0, "a")]),
            None,
            "partitions have no order between them"
        );
        assert_eq!(compare(&[], &[]), None);
    }

    #[test]
    fn records_that_only_one_has_are_counted_and_shown() {
        let found =
            compare(&[(0, "a"), (0, "b"), (1, "c"), (0, "a")], &[(0, "a"), (0, "B"), (1, "c"), (1, "d")]);
        let found = found.unwrap();
        assert_eq!((found.only_before, found.only_after), (2, 2));
        // Two of them were there, and one is.
        assert_eq!(values(&found.first_only_before), [(0, 0, "a"), (0, 1, "b")]);
        assert_eq!(values(&found.first_only_after), [(0, 1, "B"), (1, 1, "d")]);
        assert!(found.reordered.is_empty());
        let many: Vec<(i32, &str)> = vec![(0, "x"); 100];
        let found = compare(&[], &many).unwrap();
        assert_eq!((found.only_after, found.first_only_after.len()), (100, SHOWN_MAX));
        // What is elsewhere is another record.
        let moved = compare(&[(0, "a")], &[(1, "a")]).unwrap();
        assert_eq!((moved.only_before, moved.only_after), (1, 1));
    }

    #[test]
    fn another_order_is_a_difference() {
        let found = compare(&[(0, "a"), (0, "b"), (1, "c")], &[(0, "b"), (0, "a"), (1, "c")]).unwrap();
        assert_eq!((found.only_before, found.only_after, found.reordered), (0, 0, vec![0]));
    }
}
