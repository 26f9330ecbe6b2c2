//! The partitions of one fetch or of a fetch session: the requested offset of each, the offsets that the client knows,
//! and which partitions have to be looked at.
//!
//! A partition is *open* while there may be news of it: the request just named it, it has more to read, it has failed,
//! or its log has changed. Only open partitions are looked at. So a waiting fetch costs what changes meanwhile, and a
//! request of a session costs what has changed since the previous one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::fetch::{
    EpochEndOffset, FetchPartition, FetchTopic, FetchableTopicResponse, ForgottenTopic, PartitionData,
};
use uuid::Uuid;

use super::round::Round;
use crate::api::support::error_map;
use crate::partition::delayed::{ReadyList, Watch};
use crate::partition::{Isolation, Partition};
use crate::topics::{Topic, Topics};

/// A topic as requests name it: by id, or by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TopicKey {
    name: String,
    id: Uuid,
}

/// The offsets of a partition that the client was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start: i64,
}

/// One partition.
struct Slot {
    /// The number of its topic.
    topic: u32,
    asked: FetchPartition,
    found: Result<Arc<Partition>, ErrorCode>,
    /// Reports changes of its log.
    watch: Option<Arc<Watch>>,
    told: Option<Told>,
    /// Its number is in [`FetchList::open`].
    is_open: bool,
    /// Its number is in [`FetchList::news`].
    is_news: bool,
    /// Number of the last look at it.
    looked: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.finish();
        }
    }
}

/// The result of a look at one partition.
enum Seen {
    /// The client knows everything.
    Nothing,
    /// New log start offset or high watermark, and no records.
    News(PartitionData),
    /// Records, or an error.
    Found(PartitionData),
    /// Records that exceed the bytes left.
    NoRoom(PartitionData),
}

/// Indexes by the names that requests use.
#[derive(Default)]
struct Places {
    topics: HashMap<TopicKey, u32>,
    /// By topic number and partition index.
    slots: HashMap<(u32, i32), u32>,
}

/// The partitions of one fetch or of a fetch session.
pub(crate) struct FetchList {
    catalogue: Arc<Topics>,
    by_id: bool,
    isolation: Isolation,
    topics: Vec<TopicKey>,
    slots: Vec<Option<Slot>>,
    /// Numbers without a slot.
    free: Vec<u32>,
    /// `None` until a second request names partitions.
    places: Option<Places>,
    /// Numbers to look at, in order; some may be of partitions that were forgotten since.
    open: VecDeque<u32>,
    /// Partitions that a look has closed and whose news the client has not been told.
    news: Vec<u32>,
    /// Number of looks so far.
    looks: u64,
    ready: Arc<ReadyList>,
    is_watching: bool,
}

impl FetchList {
    /// The partitions of a request, without duplicates if `each_once`. With `by_id` topics are named by id.
    pub(super) fn new(
        catalogue: &Arc<Topics>,
        by_id: bool,
        isolation: Isolation,
        asked: Vec<FetchTopic>,
        each_once: bool,
    ) -> FetchList {
        let mut list = FetchList {
            catalogue: Arc::clone(catalogue),
            by_id,
            isolation,
            topics: Vec::with_capacity(asked.len()),
            slots: Vec::with_capacity(asked.iter().map(|topic| topic.partitions.len()).sum()),
            free: Vec::new(),
            places: each_once.then(Places::default),
            open: VecDeque::new(),
            news: Vec::new(),
            looks: 0,
            ready: Arc::default(),
            is_watching: false,
        };
        asked.into_iter().for_each(|topic| list.name(topic));
        list
    }

    /// The number of partitions.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn by_id(&self) -> bool {
        self.by_id
    }

    pub(super) fn ready(&self) -> &Arc<ReadyList> {
        &self.ready
    }

    /// Adds or updates the partitions of a topic in a request.
    fn name(&mut self, asked: FetchTopic) {
        let FetchTopic { topic: name, topic_id: id, partitions, .. } = asked;
        let key = TopicKey { name, id };
        let known = find(&self.catalogue, &key, self.by_id);
        let topic = self.topic(key);
        for asked in partitions {
            let places = self.places.as_ref();
            match places.and_then(|places| places.slots.get(&(topic, asked.partition)).copied()) {
                Some(number) => {
                    if let Some(slot) = &mut self.slots[number as usize] {
                        slot.asked = asked;
                    }
                    self.reopen(number);
                }
                None => {
                    let found = known
                        .as_ref()
                        .map_err(|code| *code)
                        .and_then(|topic| Ok(topic.partition(asked.partition).cloned()?));
                    self.add(Slot {
                        topic,
                        asked,
                        found,
                        watch: None,
                        told: None,
                        is_open: false,
                        is_news: false,
                        looked: 0,
                    });
                }
            }
        }
    }

    /// The number of a topic, a new one if need be.
    fn topic(&mut self, key: TopicKey) -> u32 {
        let next = number(self.topics.len());
        if let Some(places) = &mut self.places {
            if let Some(known) = places.topics.get(&key) {
                return *known;
            }
            places.topics.insert(key.clone(), next);
        }
        self.topics.push(key);
        next
    }

    fn add(&mut self, mut slot: Slot) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            number(self.slots.len() - 1)
        });
        if let Some(places) = &mut self.places {
            places.slots.insert((slot.topic, slot.asked.partition), number);
        }
        if self.is_watching {
            watch(&mut slot, number, &self.ready);
        }
        self.slots[number as usize] = Some(slot);
        self.reopen(number);
    }

    fn reopen(&mut self, number: u32) {
        if let Some(Some(slot)) = self.slots.get_mut(number as usize)
            && !slot.is_open
        {
            slot.is_open = true;
            self.open.push_back(number);
        }
    }

    /// Applies the next request of a session: partitions to add, update and forget.
    pub(super) fn update(
        &mut self,
        isolation: Isolation,
        asked: Vec<FetchTopic>,
        forgotten: Vec<ForgottenTopic>,
    ) {
        if self.places.is_none() && !(asked.is_empty() && forgotten.is_empty()) {
            self.places = Some(self.find_places());
        }
        asked.into_iter().for_each(|topic| self.name(topic));
        for ForgottenTopic { topic: name, topic_id: id, partitions, .. } in forgotten {
            let key = TopicKey { name, id };
            let topic = self.places.as_ref().and_then(|places| places.topics.get(&key).copied());
            let Some(topic) = topic else { continue };
            partitions.into_iter().for_each(|partition| self.forget((topic, partition)));
        }
        self.drop_topics();
        self.drop_closed();
        if self.isolation != isolation {
            self.isolation = isolation;
            self.open_all();
        }
    }

    fn find_places(&self) -> Places {
        let topics = self.topics.iter().cloned().zip(0..).collect();
        let slots = self.slots.iter().zip(0..);
        let place = |(slot, number): (&Option<Slot>, u32)| {
            slot.as_ref().map(|slot| ((slot.topic, slot.asked.partition), number))
        };
        Places { topics, slots: slots.filter_map(place).collect() }
    }

    fn forget(&mut self, place: (u32, i32)) {
        let known = self.places.as_mut().and_then(|places| places.slots.remove(&place));
        let Some(number) = known else { return };
        self.slots[number as usize] = None;
        self.free.push(number);
    }

    /// Drops the numbers of forgotten partitions once they are the majority.
    fn drop_closed(&mut self) {
        const FEW: usize = 64;
        if self.open.len() > FEW.max(2 * self.len()) {
            let mut seen = HashSet::new();
            let is_open =
                |number: &u32| self.slots[*number as usize].as_ref().is_some_and(|slot| slot.is_open);
            self.open.retain(|number| is_open(number) && seen.insert(*number));
        }
    }

    /// Drops topics without partitions once they are the majority.
    fn drop_topics(&mut self) {
        const FEW: usize = 64;
        if self.topics.len() <= FEW.max(2 * self.len()) {
            return;
        }
        let old = std::mem::take(&mut self.topics);
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        for slot in self.slots.iter_mut().flatten() {
            slot.topic = *numbers.entry(slot.topic).or_insert_with(|| {
                self.topics.push(old[slot.topic as usize].clone());
                number(self.topics.len() - 1)
            });
        }
        self.places = Some(self.find_places());
    }

    /// Starts to watch: a change of a partition's log opens it. False if it was watched already.
    pub(super) fn watch(&mut self) -> bool {
        if std::mem::replace(&mut self.is_watching, true) {
            return false;
        }
        for (slot, number) in self.slots.iter_mut().zip(0..) {
            if let Some(slot) = slot {
                watch(slot, number, &self.ready);
            }
        }
        true
    }

    /// Opens the partitions whose logs have changed.
    pub(super) fn take_ready(&mut self) {
        for number in self.ready.take() {
            if let Some(Some(Slot { watch: Some(watch), .. })) = self.slots.get(number as usize) {
                watch.taken();
            }
            self.reopen(number);
        }
    }

    /// Opens the partitions whose logs have changed, and those with untold news.
    pub(super) fn open_news(&mut self) {
        self.take_ready();
        for number in std::mem::take(&mut self.news) {
            if let Some(Some(slot)) = self.slots.get_mut(number as usize) {
                slot.is_news = false;
            }
            self.reopen(number);
        }
    }

    /// Whether the last look gave all news.
    pub(super) fn has_told_the_rest(&self) -> bool {
        self.news.is_empty()
    }

    pub(super) fn open_all(&mut self) {
        (0..number(self.slots.len())).for_each(|number| self.reopen(number));
    }

    /// Whether a look reads memory only and cannot wait for the disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.open.iter().all(|number| match &self.slots[*number as usize] {
            Some(Slot { found: Ok(partition), asked, .. }) => partition.is_in_memory(asked.fetch_offset),
            _ => true,
        })
    }

    /// Looks at the open partitions and reads up to `max_bytes`. The first partition with records gives at least one
    /// whole batch, however large, so that the consumer makes progress (KIP-74). With `all`, partitions that exceed the
    /// limit are answered too, without records. Partitions with only news are closed: a round that is not answered goes
    /// to [`FetchList::unanswered`].
    pub(super) fn look(&mut self, max_bytes: u64, all: bool) -> Round {
        let mut round = Round::default();
        // Other partitions come first the next time.
        let mut found = Vec::new();
        self.looks += 1;
        for _ in 0..self.open.len() {
            let Some(number) = self.open.pop_front() else { break };
            // A number can be listed twice: for a forgotten partition, and for the one that reuses it.
            let is_due = |slot: &mut Slot| slot.is_open && slot.looked != self.looks;
            let Some(mut slot) = self.slots[number as usize].take_if(is_due) else { continue };
            slot.looked = self.looks;
            let seen = self.look_at(number, &mut slot, max_bytes, &mut round);
            slot.is_open = matches!(seen, Seen::Found(_) | Seen::NoRoom(_));
            self.slots[number as usize] = Some(slot);
            match seen {
                Seen::Nothing => {}
                Seen::News(data) => round.answers.push((number, data)),
                Seen::Found(data) => {
                    round.answers.push((number, data));
                    found.push(number);
                }
                Seen::NoRoom(data) if all => {
                    round.answers.push((number, data));
                    self.open.push_back(number);
                }
                Seen::NoRoom(_) => {
                    self.open.push_front(number);
                    break;
                }
            }
        }
        self.open.extend(found);
        round
    }

    fn look_at(&self, number: u32, slot: &mut Slot, max_bytes: u64, round: &mut Round) -> Seen {
        let index = slot.asked.partition;
        if slot.found.is_err() {
            // The topic may exist by now.
            let topic = find(&self.catalogue, &self.topics[slot.topic as usize], self.by_id);
            slot.found = topic.and_then(|topic| Ok(topic.partition(index).cloned()?));
            if self.is_watching {
                watch(slot, number, &self.ready);
            }
        }
        let partition = match &slot.found {
            Ok(partition) => Arc::clone(partition),
            Err(code) => return Seen::Found(round.fail(index, *code)),
        };
        let asked = &slot.asked;
        if let Err(code) = error_map::leader_epoch(asked.current_leader_epoch, partition.leader_epoch()) {
            return Seen::Found(round.fail(index, code));
        }
        if let Some(diverging_epoch) = diverging(&partition, asked) {
            // No error code, but the client must act on it.
            return Seen::Found(PartitionData { diverging_epoch, ..round.fail(index, ErrorCode::NONE) });
        }
        let room = max_bytes.saturating_sub(round.bytes);
        let most = u64::try_from(asked.partition_max_bytes).unwrap_or(0).min(room);
        match partition.fetch(asked.fetch_offset, most, round.bytes == 0, self.isolation) {
            Ok(fetched) => {
                let has_records = fetched.bytes > 0;
                let told = Told {
                    high_watermark: fetched.offsets.high_watermark,
                    log_start: fetched.offsets.log_start,
                };
                let end = match self.isolation {
                    Isolation::ReadUncommitted => fetched.offsets.high_watermark,
                    Isolation::ReadCommitted => fetched.offsets.last_stable,
                };
                let has_more = end > asked.fetch_offset;
                if !has_records && !has_more && slot.told == Some(told) {
                    return Seen::Nothing;
                }
                let data = round.add(index, fetched, self.isolation);
                match (has_records, has_more) {
                    (true, _) => Seen::Found(data),
                    (false, true) => Seen::NoRoom(data),
                    (false, false) => Seen::News(data),
                }
            }
            Err(error) => {
                let offsets = partition.offsets();
                let code = error_map::partition_read(&error);
                if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                    // A topic created again under the same name is another one.
                    slot.found = Err(code);
                    slot.watch.take().inspect(|watch| watch.finish());
                }
                Seen::Found(PartitionData {
                    high_watermark: offsets.high_watermark,
                    log_start_offset: offsets.log_start,
                    ..round.fail(index, code)
                })
            }
        }
    }

    /// The round was not answered, so its news is kept. A fetch without a session answers with everything anyway.
    pub(super) fn unanswered(&mut self, round: Round, all: bool) {
        for (number, _) in round.answers {
            if let Some(Some(slot)) = self.slots.get_mut(number as usize)
                && !(all || slot.is_open || slot.is_news)
            {
                slot.is_news = true;
                self.news.push(number);
            }
        }
    }

    /// The round as topics of a response; the client knows these offsets from now on.
    pub(super) fn tell(&mut self, mut answers: Vec<(u32, PartitionData)>) -> Vec<FetchableTopicResponse> {
        let mut topics: Vec<FetchableTopicResponse> = Vec::new();
        let mut last = None;
        let topic_of =
            |slots: &[Option<Slot>], number: u32| slots[number as usize].as_ref().map(|slot| slot.topic);
        answers.sort_by_key(|(number, _)| topic_of(&self.slots, *number));
        for (number, data) in answers {
            let Some(slot) = &mut self.slots[number as usize] else { continue };
            slot.told = Some(Told { high_watermark: data.high_watermark, log_start: data.log_start_offset });
            if last.replace(slot.topic) != Some(slot.topic) {
                let TopicKey { name, id } = self.topics[slot.topic as usize].clone();
                topics.push(FetchableTopicResponse { topic: name, topic_id: id, partitions: Vec::new() });
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(data);
            }
        }
        topics
    }
}

/// An index as a number; frames and sessions are bounded far below `u32`.
fn number(index: usize) -> u32 {
    u32::try_from(index).expect("there are fewer than 4 billion")
}

fn watch(slot: &mut Slot, number: u32, ready: &Arc<ReadyList>) {
    if let (Ok(partition), None) = (&slot.found, &slot.watch) {
        let watch = Watch::new(ready, number);
        partition.watch(&watch);
        slot.watch = Some(watch);
    }
}

fn find(catalogue: &Topics, key: &TopicKey, by_id: bool) -> Result<Arc<Topic>, ErrorCode> {
    if by_id {
        catalogue.by_id(key.id).ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        catalogue.get(&key.name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

/// The end of the last epoch that a diverged fetcher shares with this log (KIP-595).
fn diverging(partition: &Partition, asked: &FetchPartition) -> Option<EpochEndOffset> {
    if asked.last_fetched_epoch < 0 {
        return None;
    }
    let (epoch, end_offset) = partition.epoch_end(asked.last_fetched_epoch).unwrap_or((-1, -1));
    let parts = epoch < asked.last_fetched_epoch || end_offset < asked.fetch_offset;
    parts.then_some(EpochEndOffset { epoch, end_offset })
}
