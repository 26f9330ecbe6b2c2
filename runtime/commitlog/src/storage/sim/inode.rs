//! One simulated file: what readers see, what the medium holds, and the changes in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SECTOR;
use super::rng::SimRng;

#[derive(Default)]
pub(super) struct Inode {
    /// What a reader sees.
    pub(super) live: Vec<u8>,
    /// What is on the medium for certain.
    durable: Vec<u8>,
    /// What was done to `durable` to give `live`, oldest first.
    pending: Vec<Change>,
    /// Up to here there is room, whatever the length. A crash gives it back.
    reserved: u64,
    /// Its other owners are the open handles.
    alive: Arc<()>,
}

#[derive(Clone)]
enum Change {
    Write { position: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Clone for Inode {
    fn clone(&self) -> Inode {
        Inode {
            live: self.live.clone(),
            durable: self.durable.clone(),
            pending: self.pending.clone(),
            reserved: self.reserved,
            alive: Arc::new(()),
        }
    }
}

impl Inode {
    pub(super) fn handle(&self) -> Arc<()> {
        self.alive.clone()
    }

    pub(super) fn has_handles(&self) -> bool {
        Arc::strong_count(&self.alive) > 1
    }

    /// Bytes of the disk that nobody else can have.
    pub(super) fn room_taken(&self) -> u64 {
        self.reserved.max(self.live.len() as u64)
    }

    pub(super) fn reserve(&mut self, end: u64) {
        self.reserved = self.reserved.max(end);
    }

    pub(super) fn read(&self, buf: &mut [u8], position: u64) -> usize {
        let start = (position as usize).min(self.live.len());
        let len = buf.len().min(self.live.len() - start);
        buf[..len].copy_from_slice(&self.live[start..start + len]);
        len
    }

    pub(super) fn write(&mut self, data: &[u8], position: u64) {
        if !data.is_empty() {
            let change = Change::Write { position: position as usize, data: data.to_vec() };
            change.apply(&mut self.live);
            self.pending.push(change);
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.reserved = 0;
        if len != self.live.len() {
            let change = Change::SetLen(len);
            change.apply(&mut self.live);
            self.pending.push(change);
        }
    }

    pub(super) fn make_durable(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// After a failed sync: the pages count as clean, though the medium never got them.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn corrupt(&mut self, position: u64, change: impl FnOnce(&mut [u8])) {
        self.make_durable();
        let start = (position as usize).min(self.durable.len());
        change(&mut self.durable[start..]);
        self.live.clone_from(&self.durable);
    }

    /// Each sector gets the first `n` of its changes, the length the first `m` of all changes.
    pub(super) fn crash(&mut self, rng: &mut SimRng) {
        let changes = std::mem::take(&mut self.pending);
        if !changes.is_empty() {
            let mut lengths = vec![self.durable.len()];
            let mut content = self.durable.clone();
            let mut cuts: BTreeMap<usize, usize> = BTreeMap::new();
            // Some crashes keep nearly all, some nearly nothing, some a mix: each finds other faults.
            let keep_all = [0, 10, 50, 90, 100][rng.up_to(4)];
            for (index, change) in changes.iter().enumerate() {
                let widest = content.len().max(change.end());
                content.resize(widest, 0);
                for sector in change.sectors(widest) {
                    let cut = *cuts.entry(sector).or_insert_with(|| {
                        if rng.chance(keep_all) { changes.len() } else { rng.up_to(changes.len()) }
                    });
                    if index < cut {
                        change.apply_to_sector(&mut content, sector);
                    }
                }
                let before = *lengths.last().expect("starts with one");
                lengths.push(change.length_after(before));
            }
            let kept = if rng.chance(keep_all) { changes.len() } else { rng.up_to(changes.len()) };
            content.resize(lengths[kept], 0);
            self.durable = content;
        }
        self.live.clone_from(&self.durable);
        self.reserved = 0;
        self.alive = Arc::new(());
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { position, data } => {
                let end = position + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(data);
            }
            Change::SetLen(len) => content.resize(*len, 0),
        }
    }

    fn end(&self) -> usize {
        match self {
            Change::Write { position, data } => position + data.len(),
            Change::SetLen(len) => *len,
        }
    }

    fn length_after(&self, before: usize) -> usize {
        match self {
            Change::Write { .. } => before.max(self.end()),
            Change::SetLen(len) => *len,
        }
    }

    /// The sectors that this change touches in a file that is `widest` bytes long at most.
    fn sectors(&self, widest: usize) -> std::ops::Range<usize> {
        match self {
            Change::Write { position, .. } => position / SECTOR..self.end().div_ceil(SECTOR),
            Change::SetLen(len) => len / SECTOR..widest.div_ceil(SECTOR),
        }
    }

    fn apply_to_sector(&self, content: &mut [u8], sector: usize) {
        let low = sector * SECTOR;
        let high = (low + SECTOR).min(content.len());
        match self {
            Change::Write { position, data } => {
                let start = low.max(*position);
                let end = high.min(self.end());
                if start < end {
                    content[start..end].copy_from_slice(&data[start - position..end - position]);
                }
            }
            Change::SetLen(len) => {
                let start = low.max(*len);
                if start < high {
                    content[start..high].fill(0);
                }
            }
        }
    }
}
