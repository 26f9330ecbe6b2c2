//! The random operations, and what must hold after each.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pelton_commitlog::producer_state::AppendOrigin;
use pelton_commitlog::storage::sim::SimRng;
use pelton_commitlog::{AppendError, AppendMeta, Log, OffsetSequence, ReadError};
use pelton_wire::record::{CheckedBatch, batches, hole_batch};

use crate::batches::{Producer, Sent, marker, random};
use crate::model::{Aborted, Model, Role, Stored};
use crate::rig::Rig;

struct World {
    rng: SimRng,
    rig: Rig,
    log: Option<Log>,
    /// Where the log's offsets come from, in some runs: other logs take some, too.
    sequence: Option<Arc<OffsetSequence>>,
    model: Model,
    /// Next sequence of each producer, and whether it is in a transaction.
    producers: BTreeMap<i64, (i32, bool)>,
    now_ms: i64,
    epoch: i32,
    /// A disk that was full may lack a snapshot, and with it the past of producers below the log start.
    may_lose_snapshots: bool,
}

pub(crate) fn run(seed: u64, steps: usize) {
    let mut rng = SimRng::new(seed);
    let (rig, log) = Rig::new(&mut rng);
    let mut world = World {
        rng,
        rig,
        log: Some(log),
        sequence: seed.is_multiple_of(3).then(|| Arc::new(OffsetSequence::starting_at(0))),
        model: Model::default(),
        producers: BTreeMap::new(),
        now_ms: 1_000_000,
        epoch: 0,
        may_lose_snapshots: seed % 2 == 1,
    };
    world.share_offsets();
    for _ in 0..steps {
        world.step();
        world.check_offsets();
    }
    world.check_everything();
    let log = world.log.take().unwrap();
    world.log = Some(world.rig.reopen_cleanly(log, &mut world.rng, world.now_ms));
    world.check_everything();
}

impl World {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn share_offsets(&mut self) {
        if let Some(sequence) = self.sequence.clone() {
            self.log().share_offsets(sequence);
        }
    }

    /// What a client's batch that is not there yet gets for its first offset. Below it is a batch without records.
    fn next_offset(&mut self) -> i64 {
        let end = self.model.end;
        let Some(sequence) = &self.sequence else { return end };
        if self.rng.chance(40) {
            sequence.at_least(sequence.next() + 1 + self.rng.up_to(100) as i64);
        }
        let next = sequence.next().max(end);
        self.note_hole(next);
        next
    }

    fn note_hole(&mut self, to: i64) {
        let base = self.model.end;
        if to > base {
            let hole = hole_batch((to - base) as i32).unwrap().placed(base, self.epoch).into_bytes();
            let (last, timestamps, role, producer) = (to - 1, Vec::new(), Role::Plain, None);
            self.model.history.push(Stored { base, last, bytes: hole, timestamps, role, producer });
            self.model.end = to;
        }
    }

    fn step(&mut self) {
        self.now_ms += self.rng.up_to(50) as i64;
        match self.rng.up_to(99) {
            0..=49 => self.append(),
            50..=69 => self.read(),
            70..=75 => self.settle(),
            76..=77 => self.roll(),
            78..=79 => self.truncate(),
            80..=82 => self.delete_records(),
            83..=85 => self.retention(),
            86..=88 => self.rig.checkpoint(),
            89..=90 if self.may_lose_snapshots => self.full_disk(),
            91..=92 => self.reopen(),
            93..=94 => self.crash(),
            95 => self.epoch += 1,
            96 => self.check_everything(),
            _ => self.timestamps(),
        }
    }

    fn append(&mut self) {
        match self.rng.up_to(9) {
            0..=4 => self.append_plain(),
            5..=8 => self.append_of_producer(),
            _ => self.end_transaction(),
        }
    }

    fn append_plain(&mut self) {
        let sent = random(&mut self.rng, self.now_ms, None);
        self.append_new(sent, AppendOrigin::Client, Role::Plain);
    }

    fn append_of_producer(&mut self) {
        let id = 1 + self.rng.up_to(3) as i64;
        let (sequence, open) = *self.producers.entry(id).or_insert((0, false));
        let transactional = open || self.rng.chance(30);
        let producer = Producer { id, epoch: 0, sequence, transactional };
        let sent = random(&mut self.rng, self.now_ms, Some(producer));
        let count = sent.timestamps.len() as i32;
        let role = if transactional { Role::InTransaction { producer_id: id } } else { Role::Plain };
        let base = self.append_new(sent.clone(), AppendOrigin::Client, role);
        self.producers.insert(id, (sequence + count, transactional));
        if self.rng.chance(20) {
            // A retry gets the offsets of the first time.
            let again = self.append_bytes(&sent.bytes, AppendOrigin::Client).unwrap();
            assert!(again.duplicate);
            assert_eq!((again.base_offset, again.last_offset), (base, base + i64::from(count) - 1));
        }
        if self.rng.chance(10) {
            let ahead = Producer { sequence: sequence + count + 1, ..producer };
            let ahead = random(&mut self.rng, self.now_ms, Some(ahead));
            let refused = self.append_bytes(&ahead.bytes, AppendOrigin::Client);
            assert!(matches!(refused, Err(AppendError::OutOfOrderSequence { .. })), "{refused:?}");
        }
    }

    fn end_transaction(&mut self) {
        let Some((id, _)) = self.producers.iter().find(|(_, (_, open))| *open).map(|(id, s)| (*id, *s))
        else {
            return;
        };
        let committed = self.rng.chance(50);
        let producer = Producer { id, epoch: 0, sequence: -1, transactional: true };
        let bytes = marker(committed, producer, self.now_ms);
        let refused = self.append_bytes(&bytes, AppendOrigin::Client);
        assert!(matches!(refused, Err(AppendError::InvalidBatch(_))), "{refused:?}");
        let sent = Sent { bytes, timestamps: vec![self.now_ms], producer: None };
        self.append_new(sent, AppendOrigin::Coordinator, Role::Marker { producer_id: id, committed });
        self.producers.get_mut(&id).unwrap().1 = false;
    }

    fn append_bytes(
        &mut self,
        bytes: &Bytes,
        origin: AppendOrigin,
    ) -> Result<pelton_commitlog::Appended, AppendError> {
        let meta = AppendMeta { leader_epoch: self.epoch, origin, now_ms: self.now_ms };
        self.log().append(CheckedBatch::check(bytes.clone()).unwrap(), meta)
    }

    fn append_new(&mut self, sent: Sent, origin: AppendOrigin, role: Role) -> i64 {
        let base = match origin {
            AppendOrigin::Client => self.next_offset(),
            AppendOrigin::Coordinator => self.model.end,
        };
        let last = base + sent.timestamps.len() as i64 - 1;
        let appended = self.append_bytes(&sent.bytes, origin).unwrap();
        assert_eq!((appended.base_offset, appended.last_offset, appended.duplicate), (base, last, false));
        let mut bytes = sent.bytes.to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        let Sent { timestamps, producer, .. } = sent;
        self.model.history.push(Stored { base, last, bytes: bytes.into(), timestamps, role, producer });
        self.model.end = last + 1;
        base
    }

    /// Makes frames durable and moves the high watermark.
    fn settle(&mut self) {
        let keep_back = if self.rng.chance(50) { 0 } else { self.rng.up_to(5) };
        self.rig.sink.settle(keep_back);
        let durable = self.durable_end();
        self.log().set_high_watermark(durable);
        self.model.high_watermark = self.model.high_watermark.max(durable);
    }

    fn durable_end(&self) -> i64 {
        let (mut end, mut start) = (self.rig.end, self.rig.log_start);
        for (meta, payload) in self.rig.sink.durable_frames() {
            crate::sink::apply(&meta, payload.len(), &mut end, &mut start);
        }
        end.offset
    }

    fn roll(&mut self) {
        let now_ms = self.now_ms;
        self.log().roll(now_ms).unwrap();
    }

    fn truncate(&mut self) {
        let (low, high) = (self.model.log_start, self.model.end);
        // Mostly near the end, as it happens in life.
        let low = if self.rng.chance(80) { low.max(high - 30) } else { low };
        let offset = self.rng.range(low as u64, high as u64 + 1) as i64;
        let now_ms = self.now_ms;
        let end = self.log().truncate_to(offset, now_ms).unwrap();
        if offset < high {
            assert_eq!(end, self.model.truncate(offset));
            self.learn_producers();
        }
    }

    fn delete_records(&mut self) {
        let high_watermark = self.model.high_watermark;
        let offset = self.rng.range(self.model.log_start as u64, high_watermark as u64 + 2) as i64;
        let result = self.log().delete_records_before(offset);
        if offset > high_watermark {
            assert!(result.is_err());
        } else {
            assert_eq!(result.unwrap(), self.model.log_start.max(offset));
            self.model.log_start = self.model.log_start.max(offset);
        }
    }

    fn retention(&mut self) {
        let mut config = self.log().config().clone();
        config.retention_ms = self.rng.chance(50).then(|| self.rng.range(0, 4000) as i64);
        config.retention_bytes = self.rng.chance(50).then(|| self.rng.range(0, 400_000));
        let now_ms = self.now_ms;
        self.log().set_config(config);
        let before = self.log().end();
        self.log().reader().learn_timestamps().unwrap();
        let deleted = self.log().apply_retention(now_ms).unwrap();
        assert!(deleted.iter().all(|s| s.base_offset <= before.segment_base));
        let start = self.log().offsets().log_start;
        assert!(start >= self.model.log_start && start <= self.model.high_watermark);
        self.model.log_start = start;
        self.log().housekeep(now_ms);
        // Often something else happens between the decision and the removal.
        let removal = self.log().removable();
        if self.rng.chance(50) {
            self.append_plain();
            self.roll();
        }
        if let Some(removal) = removal {
            let removed = removal.run();
            self.log().settle(removed);
        }
    }

    /// A full disk refuses appends and breaks nothing.
    fn full_disk(&mut self) {
        let disk = self.rig.disk.clone();
        let used: u64 = {
            disk.set_capacity(Some(u64::MAX));
            u64::MAX - pelton_commitlog::storage::Storage::space(&disk, &self.rig.dir).unwrap().free_bytes
        };
        disk.set_capacity(Some(used + self.rng.up_to(20_000) as u64));
        for _ in 0..10 {
            let sent = random(&mut self.rng, self.now_ms, None);
            match self.append_bytes(&sent.bytes, AppendOrigin::Client) {
                Ok(appended) => {
                    self.note_hole(appended.base_offset);
                    assert_eq!(appended.base_offset, self.model.end);
                    self.note_plain(sent);
                }
                // There may have been room for the hole before it.
                Err(AppendError::Full(_)) => {
                    let end = self.log().offsets().log_end;
                    assert!(end == self.model.end || self.sequence.is_some());
                    self.note_hole(end);
                }
                Err(error) => panic!("{error}"),
            }
        }
        disk.set_capacity(None);
        self.append_plain();
    }

    fn note_plain(&mut self, sent: Sent) {
        let base = self.model.end;
        let last = base + sent.timestamps.len() as i64 - 1;
        let mut bytes = sent.bytes.to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        let (bytes, timestamps) = (bytes.into(), sent.timestamps);
        let (role, producer) = (Role::Plain, None);
        self.model.history.push(Stored { base, last, bytes, timestamps, role, producer });
        self.model.end = last + 1;
    }

    fn reopen(&mut self) {
        let log = self.log.take().unwrap();
        self.log = Some(self.rig.reopen_cleanly(log, &mut self.rng, self.now_ms));
        self.share_offsets();
        self.model.high_watermark = self.model.end;
        self.check_everything();
    }

    fn crash(&mut self) {
        let durable = self.durable_end();
        let log = self.log.take().unwrap();
        self.log = Some(self.rig.crash(log, &mut self.rng, self.now_ms));
        self.share_offsets();
        // A start that was not durable is forgotten. Nothing below it was deleted.
        self.model.log_start = self.rig.log_start;
        self.model.truncate(durable);
        self.model.end = durable;
        self.model.high_watermark = durable;
        self.learn_producers();
        self.check_everything();
    }

    /// What the log knows of producers after a cut must be what the batches say.
    fn learn_producers(&mut self) {
        for id in 1..=4 {
            let known = self.log.as_ref().unwrap().producers().get(id).and_then(|state| {
                let last = state.batches.back()?.last_sequence;
                Some((last, state.current_txn_first_offset.is_some()))
            });
            let expect = self.model.last_sequence(id);
            match (known, expect) {
                (Some((last, open)), Some((expect, _))) => {
                    assert_eq!(last, expect, "producer {id}");
                    self.producers.insert(id, (last + 1, open));
                }
                (None, expect) => {
                    let below_start = expect.is_none_or(|(_, offset)| offset < self.model.log_start);
                    assert!(below_start, "producer {id} is forgotten");
                    self.producers.remove(&id);
                }
                (Some(known), None) => panic!("producer {id} has state {known:?} of batches that are gone"),
            }
        }
    }

    fn read(&mut self) {
        let (start, end) = (self.model.log_start, self.model.end);
        let from = start - 2 + self.rng.up_to((end - start) as usize + 4) as i64;
        let up_to = match self.rng.up_to(2) {
            0 => self.model.high_watermark,
            1 => self.model.last_stable(),
            _ => start + self.rng.up_to((end - start) as usize) as i64,
        };
        let max_bytes = [0, 1, 100, 5_000, 50_000, 1 << 20][self.rng.up_to(5)];
        let min_one = self.rng.chance(70);
        self.check_read(from, max_bytes, up_to, min_one);
    }

    fn check_read(&mut self, from: i64, max_bytes: u64, up_to: i64, min_one: bool) -> i64 {
        let reader = self.log().reader();
        let (start, end) = (self.model.log_start, self.model.end);
        let range = match reader.read(from, max_bytes, up_to, min_one) {
            Ok(range) => range,
            Err(ReadError::OffsetOutOfRange { log_start, log_end, .. }) => {
                assert_eq!((log_start, log_end), (start, end));
                assert!(from < start || from > end);
                return from;
            }
            Err(error) => panic!("{error}"),
        };
        assert!(from >= start && from <= end);
        let expect: Vec<&Stored> = self.model.readable(from, up_to).collect();
        let (base, next, total) = (range.base_offset, range.next_offset, range.bytes);
        let bytes = range.into_bytes().unwrap();
        assert_eq!(bytes.len() as u64, total);
        let views: Vec<_> = batches(&bytes).map(|b| b.unwrap()).collect();
        assert_eq!(views.iter().map(|v| v.bytes().len()).sum::<usize>(), bytes.len(), "whole batches only");
        for (view, stored) in views.iter().zip(&expect) {
            assert_eq!(view.bytes(), &stored.bytes[..], "batch at {}", stored.base);
        }
        assert!(views.len() <= expect.len(), "a read up to {up_to} went too far");
        let Some(last) = views.last() else {
            assert_eq!((base, next), (from, from));
            if let Some(first) = expect.first() {
                assert!(!min_one && first.bytes.len() as u64 > max_bytes, "no progress at {from}");
            }
            return from;
        };
        assert_eq!(base, expect[0].base);
        assert_eq!(next, last.header().next_offset());
        assert!(total <= max_bytes || (views.len() == 1 && min_one));
        next
    }

    fn timestamps(&mut self) {
        let timestamp = self.now_ms - self.rng.up_to(30_000) as i64 + 1000;
        let up_to = self.model.high_watermark;
        let found = self.log().reader().offset_for_timestamp(timestamp, up_to).unwrap();
        let found = found.map(|f| (f.offset, f.timestamp));
        assert_eq!(found, self.model.at_timestamp(timestamp, up_to), "timestamp {timestamp} up to {up_to}");
        let largest = self.log().reader().max_timestamp_offset(up_to).unwrap();
        assert_eq!(largest.map(|f| f.timestamp), self.model.at_max_timestamp(up_to));
    }

    fn check_offsets(&mut self) {
        let offsets = self.log().offsets();
        assert_eq!(offsets.log_end, self.model.end);
        assert_eq!(offsets.log_start, self.model.log_start);
        assert_eq!(offsets.high_watermark, self.model.high_watermark);
        if !self.may_lose_snapshots {
            let (_, first_unstable) = self.model.transactions();
            let producers = self.log().producers().clone();
            assert_eq!(
                offsets.last_stable,
                self.model.last_stable(),
                "{offsets:?}, first unstable {first_unstable:?}, {producers:?}"
            );
        }
    }

    /// A consumer with a fetch size of its own gets every batch once; aborted transactions are known.
    fn check_everything(&mut self) {
        let max_bytes = [1, 700, 9_000, 1 << 20][self.rng.up_to(3)];
        let up_to = self.model.high_watermark;
        let mut cursor = self.model.log_start;
        loop {
            let next = self.check_read(cursor, max_bytes, up_to, true);
            if next == cursor {
                break;
            }
            cursor = next;
        }
        assert!(self.model.readable(cursor, up_to).next().is_none(), "stopped at {cursor} of {up_to}");
        let (aborted, _) = self.model.transactions();
        let (from, upper) =
            (self.model.log_start, self.rng.range(self.model.log_start as u64, up_to as u64 + 1) as i64);
        let found = self.log().reader().aborted_transactions(from, upper).unwrap();
        let mut found: Vec<Aborted> = found
            .iter()
            .map(|t| Aborted { last: t.last_offset, first: t.first_offset, producer_id: t.producer_id })
            .collect();
        found.sort_unstable();
        if self.may_lose_snapshots {
            return;
        }
        let expect: Vec<Aborted> =
            aborted.into_iter().filter(|t| t.last >= from && t.first < upper).collect();
        assert_eq!(found, expect, "aborted in {from}..{upper}");
    }
}
