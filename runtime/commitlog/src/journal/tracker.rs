//! What the durable part of the journal says about every partition, and what the next checkpoint has to make durable. Memory only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::slot::{JournalPoint, PartitionEnd};
use crate::id::LogEnd;
use crate::names::{FileKind, file_path};
use crate::segment::SegmentFile;
use crate::sink::{DurableListener, FrameKind, FrameMeta};

/// A partition, by topic id and number.
pub(crate) type Key = (Uuid, i32);

/// A frame, or a part of one, that is durable in the journal.
pub(crate) struct DurableFrame {
    pub(crate) meta: FrameMeta,
    /// Bytes of the payload in this frame.
    pub(crate) len: u64,
    /// More parts of the same batch follow.
    pub(crate) more: bool,
    /// The segment had it before.
    pub(crate) written_through: bool,
    /// Name of a created partition's topic.
    pub(crate) topic: Option<Arc<str>>,
    pub(crate) file: Option<Arc<SegmentFile>>,
    pub(crate) listener: Arc<dyn DurableListener>,
}

/// What to tell a listener about a group.
pub(crate) struct Notice {
    pub(crate) listener: Arc<dyn DurableListener>,
    pub(crate) end_offset: i64,
}

/// A segment that was appended to since the last checkpoint.
pub(crate) struct DirtyFile {
    /// The topic where it is known, partition number and base offset: to name the file in an error.
    pub(crate) name: (Option<Arc<str>>, i32, i64),
    pub(crate) file: Arc<SegmentFile>,
    /// The range of bytes that was appended, and is durable in the journal.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl DirtyFile {
    /// What to call it in an error.
    pub(crate) fn display_path(&self) -> PathBuf {
        let (topic, partition, base) = &self.name;
        let dir = format!("{}-{partition}", topic.as_deref().unwrap_or("(deleted)"));
        file_path(Path::new(&dir), *base, FileKind::Log)
    }
}

/// What a checkpoint works on.
pub(crate) struct Snapshot {
    /// Where the checkpoint will be.
    pub(crate) point: JournalPoint,
    pub(crate) files: Vec<DirtyFile>,
    pub(crate) ends: Vec<PartitionEnd>,
}

/// The state of all partitions at the durable end of the journal.
pub(crate) struct Tracker {
    partitions: HashMap<Key, Tracked, foldhash::fast::RandomState>,
    dirty: Vec<DirtyFile>,
    /// Raised when `dirty` is taken: tells old indexes into it from new ones.
    dirty_round: u64,
    durable: JournalPoint,
}

struct Tracked {
    end: PartitionEnd,
    /// Round and index in `dirty` of the file that was written last.
    dirty: Option<(u64, usize)>,
    /// Group and index in its notices.
    notice: Option<(u64, usize)>,
}

impl Tracker {
    pub(crate) fn new(ends: impl IntoIterator<Item = PartitionEnd>, start: JournalPoint) -> Tracker {
        let partitions = ends
            .into_iter()
            .map(|end| ((end.topic_id, end.partition), Tracked { end, dirty: None, notice: None }))
            .collect();
        Tracker { partitions, dirty: Vec::new(), dirty_round: 0, durable: start }
    }

    /// Takes in a group that is durable up to `point`, and returns the listeners to call: in the order of the frames, and once for all
    /// frames of a partition that follow each other with the same listener.
    pub(crate) fn apply(&mut self, group: Vec<DurableFrame>, point: JournalPoint) -> Vec<Notice> {
        let mut notices = Vec::new();
        for frame in group {
            self.apply_frame(frame, point.group, &mut notices);
        }
        self.durable = point;
        notices
    }

    fn apply_frame(&mut self, frame: DurableFrame, group: u64, notices: &mut Vec<Notice>) {
        let meta = frame.meta;
        let key = (meta.topic_id, meta.partition);
        if let (FrameKind::PartitionCreate, Some(topic)) = (meta.kind, &frame.topic) {
            let end = PartitionEnd {
                topic_id: meta.topic_id,
                partition: meta.partition,
                topic: topic.clone(),
                log_start: 0,
                end: LogEnd::EMPTY,
                deleted: false,
                written_through: frame.written_through,
            };
            self.partitions.insert(key, Tracked { end, dirty: None, notice: None });
        }
        let mut tracked = self.partitions.get_mut(&key);
        if let Some(file) = frame.file {
            let topic = tracked.as_ref().map(|tracked| tracked.end.topic.clone());
            let name = (topic, meta.partition, meta.segment_base);
            let dirty = DirtyFile { name, file, from: meta.position, to: meta.position + frame.len };
            let known = tracked.as_mut().map(|t| &mut t.dirty);
            add_dirty(&mut self.dirty, self.dirty_round, known, dirty);
        }
        if frame.more {
            return;
        }
        let Some(tracked) = tracked else {
            // A partition that was deleted meanwhile; whoever appended still waits.
            notices.push(Notice { listener: frame.listener, end_offset: meta.end_offset() });
            return;
        };
        tracked.end.apply(&meta, frame.len);
        if meta.kind == FrameKind::Data {
            tracked.end.written_through = frame.written_through;
        }
        match tracked.notice.filter(|(g, _)| *g == group).map(|(_, index)| &mut notices[index]) {
            Some(notice) if is_same(&notice.listener, &frame.listener) => {
                notice.end_offset = meta.end_offset()
            }
            _ => {
                tracked.notice = Some((group, notices.len()));
                notices.push(Notice { listener: frame.listener, end_offset: meta.end_offset() });
            }
        }
    }

    /// Takes what a checkpoint needs.
    pub(crate) fn snapshot(&mut self) -> Snapshot {
        self.dirty_round += 1;
        Snapshot {
            point: self.durable,
            files: std::mem::take(&mut self.dirty),
            ends: self.partitions.values().map(|tracked| tracked.end.clone()).collect(),
        }
    }

    /// Gives back files that were taken and could not be synced now. One that was written again since is in there twice.
    pub(crate) fn put_back(&mut self, files: Vec<DirtyFile>) {
        self.dirty.extend(files);
    }

    /// Segments that the next checkpoint has to sync.
    pub(crate) fn dirty_files(&self) -> usize {
        self.dirty.len()
    }

    pub(crate) fn durable(&self) -> JournalPoint {
        self.durable
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&PartitionEnd> {
        self.partitions.get(key).map(|tracked| &tracked.end)
    }

    /// Every partition that is not deleted.
    pub(crate) fn live(&self) -> impl Iterator<Item = &PartitionEnd> {
        self.partitions.values().map(|tracked| &tracked.end).filter(|end| !end.deleted)
    }

    /// The directory of a deleted partition is out of the way.
    pub(crate) fn forget(&mut self, key: &Key) {
        self.partitions.remove(key);
    }
}

impl PartitionEnd {
    /// Moves the end as this complete frame says.
    pub(crate) fn apply(&mut self, meta: &FrameMeta, payload_len: u64) {
        match meta.kind {
            FrameKind::Data => {
                let position = meta.position + payload_len;
                self.end = LogEnd { segment_base: meta.segment_base, position, offset: meta.end_offset() };
            }
            FrameKind::Truncate => {
                let offset = meta.base_offset;
                self.end = LogEnd { segment_base: meta.segment_base, position: meta.position, offset };
            }
            FrameKind::LogStart => self.log_start = meta.base_offset,
            FrameKind::PartitionCreate => {}
            FrameKind::PartitionDelete => self.deleted = true,
        }
    }
}

/// One and the same listener.
pub(crate) fn is_same(a: &Arc<dyn DurableListener>, b: &Arc<dyn DurableListener>) -> bool {
    Arc::as_ptr(a).addr() == Arc::as_ptr(b).addr()
}

fn add_dirty(all: &mut Vec<DirtyFile>, round: u64, known: Option<&mut Option<(u64, usize)>>, new: DirtyFile) {
    let last = known.as_deref().copied().flatten().filter(|(r, _)| *r == round).map(|(_, index)| index);
    if let Some(dirty) = last.map(|index| &mut all[index])
        && Arc::ptr_eq(&dirty.file, &new.file)
    {
        dirty.from = dirty.from.min(new.from);
        dirty.to = dirty.to.max(new.to);
        return;
    }
    all.push(new);
    if let Some(known) = known {
        *known = Some((round, all.len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StorageFailure;
    use crate::storage::{OpenMode, SimStorage, Storage};

    /// Not of size zero, so that two of them have two addresses.
    struct Nobody(u8);

    impl DurableListener for Nobody {
        fn durable(&self, _end_offset: i64) {
            assert_ne!(self.0, 0);
        }
        fn failed(&self, _reason: &StorageFailure) {}
    }

    fn file(name: &str) -> Arc<SegmentFile> {
        let storage = SimStorage::new();
        storage.create_dir_all(Path::new("/")).unwrap();
        Arc::new(SegmentFile::new(storage.open(Path::new(name), OpenMode::Create).unwrap(), 0))
    }

    fn frame(kind: FrameKind, partition: i32, base: i64, last: i64, position: u64) -> DurableFrame {
        let meta = FrameMeta {
            kind,
            topic_id: Uuid::from_u128(1),
            partition,
            base_offset: base,
            last_offset: last,
            segment_base: 0,
            position,
            leader_epoch: 0,
        };
        let topic = (kind == FrameKind::PartitionCreate).then(|| "t".into());
        DurableFrame {
            meta,
            len: 100,
            more: false,
            written_through: false,
            topic,
            file: None,
            listener: Arc::new(Nobody(9)),
        }
    }

    fn point(group: u64) -> JournalPoint {
        JournalPoint { lsn: group * 4096, group, ..JournalPoint::default() }
    }

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new([], JournalPoint::default());
        let create = (0..3).map(|p| frame(FrameKind::PartitionCreate, p, 0, -1, 0)).collect();
        tracker.apply(create, point(1));
        tracker
    }

    fn end_of(tracker: &Tracker, partition: i32) -> (i64, i64, u64) {
        let end = tracker.get(&(Uuid::from_u128(1), partition)).unwrap();
        (end.log_start, end.end.offset, end.end.position)
    }

    #[test]
    fn a_group_moves_ends_and_each_listener_hears_in_order() {
        let mut tracker = tracker();
        let (one, other): (Arc<dyn DurableListener>, Arc<dyn DurableListener>) =
            (Arc::new(Nobody(1)), Arc::new(Nobody(2)));
        let with = |listener: &Arc<dyn DurableListener>, frame: DurableFrame| DurableFrame {
            listener: listener.clone(),
            ..frame
        };
        let group = vec![
            with(&one, frame(FrameKind::Data, 1, 0, 4, 0)),
            with(&other, frame(FrameKind::Data, 0, 0, 0, 0)),
            with(&one, frame(FrameKind::Data, 1, 5, 9, 100)),
            with(&other, frame(FrameKind::LogStart, 1, 3, 2, 0)),
            with(&one, frame(FrameKind::Data, 1, 10, 10, 200)),
        ];
        let notices = tracker.apply(group, point(2));
        let heard: Vec<_> = notices.iter().map(|n| (is_same(&n.listener, &one), n.end_offset)).collect();
        assert_eq!(heard, [(true, 10), (false, 1), (false, 3), (true, 11)]);
        assert_eq!(end_of(&tracker, 1), (3, 11, 300));
        assert_eq!(end_of(&tracker, 0), (0, 1, 100));
        let notices = tracker.apply(vec![frame(FrameKind::Truncate, 1, 5, 4, 100)], point(3));
        assert_eq!(notices[0].end_offset, 5);
        assert_eq!(end_of(&tracker, 1), (3, 5, 100));
    }

    #[test]
    fn a_part_of_a_batch_moves_nothing() {
        let mut tracker = tracker();
        let part = |more, position| DurableFrame { more, ..frame(FrameKind::Data, 0, 0, 9, position) };
        assert!(tracker.apply(vec![part(true, 0)], point(2)).is_empty());
        assert_eq!(end_of(&tracker, 0), (0, 0, 0));
        assert_eq!(tracker.apply(vec![part(false, 100)], point(3)).len(), 1);
        assert_eq!(end_of(&tracker, 0), (0, 10, 200));
        assert_eq!(tracker.snapshot().point, point(3));
    }

    #[test]
    fn dirty_files_are_merged_until_they_are_taken() {
        let mut tracker = tracker();
        let (a, b) = (file("/a"), file("/b"));
        let write = |file: &Arc<SegmentFile>, position| DurableFrame {
            file: Some(file.clone()),
            ..frame(FrameKind::Data, 0, 0, 0, position)
        };
        let ranges = |tracker: &mut Tracker| {
            tracker.snapshot().files.iter().map(|f| (f.from, f.to)).collect::<Vec<_>>()
        };
        tracker.apply(vec![write(&a, 50), write(&a, 150), write(&b, 0)], point(2));
        assert_eq!(tracker.dirty_files(), 2);
        assert_eq!(ranges(&mut tracker), [(50, 250), (0, 100)]);
        tracker.apply(vec![write(&b, 100)], point(3));
        assert_eq!(ranges(&mut tracker), [(100, 200)]);
        let unknown = DurableFrame { file: Some(a), ..frame(FrameKind::Data, 99, 0, 0, 0) };
        assert_eq!(tracker.apply(vec![unknown], point(4)).len(), 1);
        assert_eq!(ranges(&mut tracker), [(0, 100)]);
    }

    #[test]
    fn a_deleted_partition_is_kept_until_it_is_forgotten() {
        let mut tracker = tracker();
        tracker.apply(vec![frame(FrameKind::PartitionDelete, 2, 0, -1, 0)], point(2));
        assert_eq!((tracker.live().count(), tracker.snapshot().ends.len()), (2, 3));
        tracker.forget(&(Uuid::from_u128(1), 2));
        assert_eq!(tracker.snapshot().ends.len(), 2);
    }
}
