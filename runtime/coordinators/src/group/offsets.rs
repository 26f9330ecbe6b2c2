//! The committed offsets of a group. Reads see durable offsets; those on their way to the log are only counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;

use super::types::TopicPartition;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to read.
    pub offset: i64,
    /// Leader epoch of the last record read; −1 when the client did not tell.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: String,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub commit_timestamp_ms: i64,
    /// When it goes, if the client asked for a retention of its own.
    pub expire_timestamp_ms: Option<i64>,
    /// Where its record is in `__consumer_offsets`; decides between a plain and a transactional commit.
    pub record_offset: i64,
}

impl CommittedOffset {
    /// Whether it may go at `now_ms`, when its retention of `retention_ms` started at `since_ms`.
    fn is_expired(&self, since_ms: i64, retention_ms: i64, now_ms: i64) -> bool {
        match self.expire_timestamp_ms {
            Some(at) => now_ms >= at,
            None => now_ms.saturating_sub(since_ms) >= retention_ms,
        }
    }
}

/// Offsets in the order in which they may go.
#[derive(Debug, Default)]
struct Ages {
    /// Those with an expiry of their own, by that.
    own: BTreeSet<(i64, TopicPartition)>,
    /// The others, by when they were committed.
    committed: BTreeSet<(i64, TopicPartition)>,
}

impl Ages {
    fn of(&mut self, value: &CommittedOffset) -> (i64, &mut BTreeSet<(i64, TopicPartition)>) {
        match value.expire_timestamp_ms {
            Some(at_ms) => (at_ms, &mut self.own),
            None => (value.commit_timestamp_ms, &mut self.committed),
        }
    }

    fn insert(&mut self, at: &TopicPartition, value: &CommittedOffset) {
        let (ms, ages) = self.of(value);
        ages.insert((ms, at.clone()));
    }

    fn remove(&mut self, at: &TopicPartition, value: &CommittedOffset) {
        let (ms, ages) = self.of(value);
        ages.remove(&(ms, at.clone()));
    }

    /// When the first of them may go.
    fn first_ms(&self, retention_ms: i64) -> Option<i64> {
        let own = self.own.first().map(|(ms, _)| *ms);
        let committed = self.committed.first().map(|(ms, _)| ms.saturating_add(retention_ms));
        own.into_iter().chain(committed).min()
    }

    /// Those that may go at `now_ms`.
    fn due(&self, retention_ms: i64, now_ms: i64) -> impl Iterator<Item = &TopicPartition> {
        let own = self.own.iter().take_while(move |(ms, _)| *ms <= now_ms);
        let old = move |ms: &i64| now_ms.saturating_sub(*ms) >= retention_ms;
        own.chain(self.committed.iter().take_while(move |(ms, _)| old(ms))).map(|(_, at)| at)
    }
}

/// When the offsets of a group start to expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryStart {
    /// All of them, when the group became empty; or when they were committed, if that was later.
    Since(i64),
    /// Each of them, when it was committed.
    Commit,
}

/// The committed offsets of one group.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    // Invariant: exactly what is committed.
    ages: Ages,
    /// Appends per partition that are not durable yet, commits and tombstones alike.
    // Invariant: no zeros.
    in_flight: BTreeMap<TopicPartition, u32>,
    /// By producer id: offsets of open transactions, which count from their commit marker on.
    pending: BTreeMap<i64, BTreeMap<TopicPartition, CommittedOffset>>,
}

impl Offsets {
    /// Nothing committed, nothing on its way.
    pub(super) fn is_vacant(&self) -> bool {
        self.committed.is_empty() && self.in_flight.is_empty() && self.pending.is_empty()
    }

    /// When the first of them may expire.
    pub(super) fn first_expiry_ms(&self, retention_ms: i64) -> Option<i64> {
        self.ages.first_ms(retention_ms)
    }

    fn set(&mut self, at: TopicPartition, value: CommittedOffset) {
        self.ages.insert(&at, &value);
        if let Some(before) = self.committed.get(&at)
            && (before.expire_timestamp_ms, before.commit_timestamp_ms)
                != (value.expire_timestamp_ms, value.commit_timestamp_ms)
        {
            self.ages.remove(&at, before);
        }
        self.committed.insert(at, value);
    }

    pub(super) fn get(&self, at: &TopicPartition) -> Option<&CommittedOffset> {
        self.committed.get(at)
    }

    /// How many partitions have a durable offset.
    pub(super) fn len(&self) -> usize {
        self.committed.len()
    }

    /// Everything durable, in order of topic and partition.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &CommittedOffset)> {
        self.committed.iter()
    }

    /// Whether an open transaction is going to commit an offset here.
    pub(super) fn is_unstable(&self, at: &TopicPartition) -> bool {
        self.pending.values().any(|offsets| offsets.contains_key(at))
    }

    /// Whether something is on its way to the log here, or waits for its transaction.
    fn is_open(&self, at: &TopicPartition) -> bool {
        self.in_flight.contains_key(at) || self.is_unstable(at)
    }

    /// Everywhere where something is on its way to the log, or waits for its transaction.
    pub(super) fn open(&self) -> BTreeSet<&TopicPartition> {
        self.in_flight.keys().chain(self.pending.values().flat_map(BTreeMap::keys)).collect()
    }

    /// Whether the log has, or may soon have, an offset here.
    pub(super) fn may_be_logged(&self, at: &TopicPartition) -> bool {
        self.committed.contains_key(at) || self.is_open(at)
    }

    /// Where the first record of an open transaction is.
    pub(super) fn first_pending(&self) -> Option<i64> {
        self.pending.values().flat_map(BTreeMap::values).map(|value| value.record_offset).min()
    }

    /// Every partition that a deletion of the group needs a tombstone for.
    pub(super) fn may_be_logged_all(&self) -> Vec<TopicPartition> {
        let pending = self.pending.values().flat_map(BTreeMap::keys);
        let mut all: Vec<_> =
            self.committed.keys().chain(self.in_flight.keys()).chain(pending).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// A record for this partition goes to the log.
    pub(super) fn started(&mut self, at: &TopicPartition) {
        *self.in_flight.entry(at.clone()).or_default() += 1;
    }

    /// A record for this partition is durable, or has failed.
    pub(super) fn ended(&mut self, at: &TopicPartition) {
        if let Some(count) = self.in_flight.get_mut(at) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(at);
            }
        }
    }

    /// Takes over a durable record: a commit, or with `None` its deletion. A deletion also ends what transactions
    /// had in mind for the partition.
    pub(super) fn apply(&mut self, at: TopicPartition, value: Option<CommittedOffset>) {
        match value {
            Some(value) => self.set(at, value),
            None => {
                if let Some(before) = self.committed.remove(&at) {
                    self.ages.remove(&at, &before);
                }
                self.pending.retain(|_, offsets| {
                    offsets.remove(&at);
                    !offsets.is_empty()
                });
            }
        }
    }

    /// Takes over a durable record of a transaction that is still open.
    pub(super) fn apply_pending(&mut self, producer_id: i64, at: TopicPartition, value: CommittedOffset) {
        self.pending.entry(producer_id).or_default().insert(at, value);
    }

    /// The transaction of a producer has ended. Where a plain commit came after its record, that stays.
    pub(super) fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        let Some(offsets) = self.pending.remove(&producer_id) else { return };
        if !commit && !Mutant::OffsetsOnAbort.is_on() {
            return;
        }
        for (at, value) in offsets {
            let newer = self.committed.get(&at).is_none_or(|c| c.record_offset < value.record_offset);
            if newer || Mutant::OlderOffsetWins.is_on() {
                self.set(at, value);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn check_ages(&self) {
        let mut ages = Ages::default();
        self.committed.iter().for_each(|(at, value)| ages.insert(at, value));
        assert_eq!((&self.ages.own, &self.ages.committed), (&ages.own, &ages.committed));
    }

    #[cfg(test)]
    pub(super) fn pending(&self) -> &BTreeMap<i64, BTreeMap<TopicPartition, CommittedOffset>> {
        &self.pending
    }

    /// What may go. Partitions with something on its way or in an open transaction stay.
    pub(super) fn expired(
        &self,
        start: ExpiryStart,
        retention_ms: i64,
        now_ms: i64,
        spared: impl Fn(&str) -> bool,
    ) -> Vec<TopicPartition> {
        let is_expired = |at: &TopicPartition, value: &CommittedOffset| {
            let since_ms = match start {
                ExpiryStart::Since(ms) => ms.max(value.commit_timestamp_ms),
                ExpiryStart::Commit => value.commit_timestamp_ms,
            };
            value.is_expired(since_ms, retention_ms, now_ms) && !spared(&at.topic) && !self.is_open(at)
        };
        let due = self.ages.due(retention_ms, now_ms);
        let mut gone: Vec<_> = due
            .filter(|at| self.committed.get(at).is_some_and(|value| is_expired(at, value)))
            .cloned()
            .collect();
        gone.sort();
        gone
    }

    /// Every partition of a topic that the log may have an offset for.
    pub(super) fn of_topic(&self, topic: &Arc<str>) -> Vec<TopicPartition> {
        let of = |partition| TopicPartition { topic: Arc::clone(topic), partition };
        let range = of(i32::MIN)..=of(i32::MAX);
        let pending =
            self.pending.values().flat_map(|offsets| offsets.range(range.clone()).map(|(at, _)| at));
        let in_flight = self.in_flight.range(range.clone()).map(|(at, _)| at);
        let committed = self.committed.range(range.clone()).map(|(at, _)| at);
        let mut all: Vec<_> = committed.chain(in_flight).chain(pending).cloned().collect();
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::from(topic), partition }
    }

    fn value(offset: i64, commit_timestamp_ms: i64, record_offset: i64) -> CommittedOffset {
        CommittedOffset {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms,
            expire_timestamp_ms: None,
            record_offset,
        }
    }

    #[test]
    fn a_transaction_counts_from_its_marker_on_and_the_later_record_wins() {
        let check = |plain: Option<i64>, pending: i64, commit: bool, expect: Option<i64>| {
            let mut offsets = Offsets::default();
            offsets.apply_pending(7, at("t", 0), value(200, 0, pending));
            if let Some(record) = plain {
                offsets.apply(at("t", 0), Some(value(100, 0, record)));
            }
            assert!(offsets.is_unstable(&at("t", 0)));
            offsets.end_transaction(8, true);
            assert!(offsets.is_unstable(&at("t", 0)));
            offsets.end_transaction(7, commit);
            assert!(!offsets.is_unstable(&at("t", 0)));
            assert_eq!(offsets.get(&at("t", 0)).map(|v| v.offset), expect, "{plain:?} {pending} {commit}");
        };
        check(None, 5, true, Some(200));
        check(None, 5, false, None);
        check(Some(4), 5, true, Some(200));
        check(Some(6), 5, true, Some(100));
        check(Some(4), 5, false, Some(100));
    }

    #[test]
    fn a_deletion_covers_what_is_on_its_way() {
        let mut offsets = Offsets::default();
        offsets.apply(at("t", 0), Some(value(1, 0, 0)));
        offsets.started(&at("t", 1));
        offsets.started(&at("t", 1));
        offsets.apply_pending(7, at("u", 2), value(1, 0, 0));
        assert_eq!(offsets.may_be_logged_all(), [at("t", 0), at("t", 1), at("u", 2)]);
        assert_eq!(offsets.of_topic(&Arc::from("u")), [at("u", 2)]);
        offsets.ended(&at("t", 1));
        assert!(offsets.may_be_logged(&at("t", 1)));
        offsets.ended(&at("t", 1));
        assert!(!offsets.may_be_logged(&at("t", 1)));
        offsets.apply(at("t", 0), None);
        offsets.apply(at("u", 2), None);
        assert!(offsets.is_vacant());
    }

    #[test]
    fn offsets_expire_by_their_own_time_or_by_the_group_s() {
        let mut offsets = Offsets::default();
        offsets.apply(at("old", 0), Some(value(1, 1_000, 0)));
        offsets.apply(at("new", 0), Some(value(1, 5_000, 0)));
        offsets.apply(
            at("own", 0),
            Some(CommittedOffset { expire_timestamp_ms: Some(2_000), ..value(1, 0, 0) }),
        );
        offsets.apply(at("busy", 0), Some(value(1, 1_000, 0)));
        offsets.started(&at("busy", 0));
        offsets.apply(at("open", 0), Some(value(1, 1_000, 0)));
        offsets.apply_pending(1, at("open", 0), value(1, 1_000, 0));
        let check = |start: ExpiryStart, now_ms: i64, spared: &str, expect: &[&str]| {
            let topics: Vec<_> = offsets
                .expired(start, 100, now_ms, |t| t == spared)
                .iter()
                .map(|at| at.topic.to_string())
                .collect();
            assert_eq!(topics, expect, "{start:?} {now_ms}");
        };
        check(ExpiryStart::Commit, 1_099, "", &[]);
        check(ExpiryStart::Commit, 1_100, "", &["old"]);
        check(ExpiryStart::Commit, 1_100, "old", &[]);
        check(ExpiryStart::Commit, 5_100, "", &["new", "old", "own"]);
        check(ExpiryStart::Since(3_000), 3_099, "", &["own"]);
        check(ExpiryStart::Since(3_000), 3_100, "", &["old", "own"]);
        check(ExpiryStart::Since(i64::MAX), 3_100, "", &["own"]);
        check(ExpiryStart::Commit, i64::MIN, "", &[]);
        check(ExpiryStart::Since(i64::MIN), i64::MAX, "", &["new", "old", "own"]);
    }
}
