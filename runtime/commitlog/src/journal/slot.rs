//! The bytes of a checkpoint slot and of a partition-ends file (FORMAT.md, "Checkpoint slots" and "Partition ends").

use std::sync::Arc;

use uuid::Uuid;

use super::group::{Fields, Writer};
use crate::id::LogEnd;
use crate::storage::DIRECT_ALIGN;
use pelton_wire::record::crc32c;

/// Bytes of one slot: a unit of direct I/O.
pub(crate) const SLOT_BYTES: usize = DIRECT_ALIGN;
/// Slots in the file `journal/checkpoint`.
pub(crate) const SLOTS: u64 = 2;
/// A slot names at most so many ring files; [`super::Ring`] never has more.
pub(crate) const RING_FILES_MAX: usize = 256;

const SLOT_MAGIC: [u8; 4] = *b"PJS1";
const ENDS_MAGIC: [u8; 4] = *b"PJE1";
const VERSION: u16 = 1;
const FLAG_CLEAN: u16 = 1;
const FLAG_DELETED: u16 = 1;
const FLAG_WRITTEN_THROUGH: u16 = 2;
const SLOT_HEADER_BYTES: usize = 96;
const RING_FILE_BYTES: usize = 12;
const ENDS_HEADER_BYTES: usize = 36;
const END_BYTES: usize = 56;

const _: () = assert!(SLOT_HEADER_BYTES + RING_FILES_MAX * RING_FILE_BYTES + 4 <= SLOT_BYTES);

/// A boundary between two groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalPoint {
    pub(crate) lsn: u64,
    /// Number of the group that begins here.
    pub(crate) group: u64,
    /// Ring file in which the group before ended; 0 if there is none.
    pub(crate) file: u32,
    /// Where in that file.
    pub(crate) position: u64,
}

/// What a checkpoint has made true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) directory_id: Uuid,
    pub(crate) generation: u64,
    pub(crate) epoch: u64,
    /// All segments are durable up to here.
    pub(crate) point: JournalPoint,
    pub(crate) durable_lsn: u64,
    /// The server stopped in order, and `point` is the end of the journal.
    pub(crate) clean: bool,
    pub(crate) ends_len: u64,
    pub(crate) ends_crc: u32,
    /// Number and length of every ring file.
    pub(crate) ring_files: Vec<(u32, u64)>,
}

impl Slot {
    /// Which of the two slots, and which ends file, this generation uses.
    pub(crate) fn index(&self) -> u64 {
        self.generation % SLOTS
    }

    pub(crate) fn encode(&self) -> [u8; SLOT_BYTES] {
        assert!(self.ring_files.len() <= RING_FILES_MAX, "the ring has {} files", self.ring_files.len());
        let mut out = [0; SLOT_BYTES];
        let mut w = Writer { out: &mut out, at: 0 };
        w.put(&SLOT_MAGIC);
        w.put(&VERSION.to_be_bytes());
        w.put(&if self.clean { FLAG_CLEAN } else { 0 }.to_be_bytes());
        w.put(self.directory_id.as_bytes());
        w.put(&self.generation.to_be_bytes());
        w.put(&self.epoch.to_be_bytes());
        w.put(&self.point.lsn.to_be_bytes());
        w.put(&self.point.group.to_be_bytes());
        w.put(&self.durable_lsn.to_be_bytes());
        w.put(&self.point.file.to_be_bytes());
        w.put(&[0; 4]);
        w.put(&self.point.position.to_be_bytes());
        w.put(&self.ends_len.to_be_bytes());
        w.put(&self.ends_crc.to_be_bytes());
        let count = u32::try_from(self.ring_files.len()).expect("at most RING_FILES_MAX");
        w.put(&count.to_be_bytes());
        for (number, len) in &self.ring_files {
            w.put(&number.to_be_bytes());
            w.put(&len.to_be_bytes());
        }
        let crc = crc32c(&out[..SLOT_BYTES - 4]);
        out[SLOT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// `None` if these bytes are no slot: never written, torn, or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Slot> {
        let bytes = bytes.get(..SLOT_BYTES)?;
        let crc = u32::from_be_bytes(Fields(&bytes[SLOT_BYTES - 4..]).take());
        if crc != crc32c(&bytes[..SLOT_BYTES - 4]) {
            return None;
        }
        let mut r = Fields(bytes);
        if r.take::<4>() != SLOT_MAGIC || u16::from_be_bytes(r.take()) != VERSION {
            return None;
        }
        let clean = u16::from_be_bytes(r.take()) & FLAG_CLEAN != 0;
        let directory_id = Uuid::from_bytes(r.take());
        let generation = u64::from_be_bytes(r.take());
        let epoch = u64::from_be_bytes(r.take());
        let lsn = u64::from_be_bytes(r.take());
        let group = u64::from_be_bytes(r.take());
        let durable_lsn = u64::from_be_bytes(r.take());
        let file = u32::from_be_bytes(r.take());
        let _reserved = r.take::<4>();
        let position = u64::from_be_bytes(r.take());
        let ends_len = u64::from_be_bytes(r.take());
        let ends_crc = u32::from_be_bytes(r.take());
        let count = u32::from_be_bytes(r.take()) as usize;
        if count > RING_FILES_MAX {
            return None;
        }
        let ring_files =
            (0..count).map(|_| (u32::from_be_bytes(r.take()), u64::from_be_bytes(r.take()))).collect();
        let point = JournalPoint { lsn, group, file, position };
        Some(Slot {
            directory_id,
            generation,
            epoch,
            point,
            durable_lsn,
            clean,
            ends_len,
            ends_crc,
            ring_files,
        })
    }
}

/// A partition as a checkpoint saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionEnd {
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
    pub(crate) topic: Arc<str>,
    pub(crate) log_start: i64,
    pub(crate) end: LogEnd,
    /// A partition-delete frame is durable, but the directory may still be there.
    pub(crate) deleted: bool,
    /// The last batch was in the segment before the journal had it.
    pub(crate) written_through: bool,
}

impl PartitionEnd {
    fn flags(&self) -> u16 {
        let flag = |is_set: bool, flag: u16| if is_set { flag } else { 0 };
        flag(self.deleted, FLAG_DELETED) | flag(self.written_through, FLAG_WRITTEN_THROUGH)
    }
}

/// The content of a partition-ends file.
pub(crate) fn encode_ends<'a>(
    directory_id: Uuid,
    generation: u64,
    ends: impl ExactSizeIterator<Item = &'a PartitionEnd>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(ENDS_HEADER_BYTES + ends.len() * (END_BYTES + 24));
    let count = u32::try_from(ends.len()).expect("fewer partitions than 2^32 fit into memory");
    out.extend_from_slice(&ENDS_MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(directory_id.as_bytes());
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    for end in ends {
        let name = end.topic.as_bytes();
        let name_len = u16::try_from(name.len()).expect("create bounds a topic's name");
        out.extend_from_slice(end.topic_id.as_bytes());
        out.extend_from_slice(&end.partition.to_be_bytes());
        out.extend_from_slice(&end.log_start.to_be_bytes());
        out.extend_from_slice(&end.end.offset.to_be_bytes());
        out.extend_from_slice(&end.end.segment_base.to_be_bytes());
        out.extend_from_slice(&end.end.position.to_be_bytes());
        out.extend_from_slice(&end.flags().to_be_bytes());
        out.extend_from_slice(&name_len.to_be_bytes());
        out.extend_from_slice(name);
    }
    out
}

/// Reads a partition-ends file whose length and CRC the slot has vouched for. `None` if it is not that file after all.
pub(crate) fn decode_ends(bytes: &[u8], directory_id: Uuid, generation: u64) -> Option<Vec<PartitionEnd>> {
    let (header, mut rest) = bytes.split_at_checked(ENDS_HEADER_BYTES)?;
    let mut r = Fields(header);
    if r.take::<4>() != ENDS_MAGIC || u16::from_be_bytes(r.take()) != VERSION {
        return None;
    }
    let _reserved = r.take::<2>();
    if Uuid::from_bytes(r.take()) != directory_id || u64::from_be_bytes(r.take()) != generation {
        return None;
    }
    let count = u32::from_be_bytes(r.take()) as usize;
    let mut ends = Vec::with_capacity(count.min(rest.len() / END_BYTES));
    for _ in 0..count {
        let (fixed, after) = rest.split_at_checked(END_BYTES)?;
        let mut r = Fields(fixed);
        let topic_id = Uuid::from_bytes(r.take());
        let partition = i32::from_be_bytes(r.take());
        let log_start = i64::from_be_bytes(r.take());
        let offset = i64::from_be_bytes(r.take());
        let segment_base = i64::from_be_bytes(r.take());
        let position = u64::from_be_bytes(r.take());
        let flags = u16::from_be_bytes(r.take());
        let (deleted, written_through) = (flags & FLAG_DELETED != 0, flags & FLAG_WRITTEN_THROUGH != 0);
        let name_len = usize::from(u16::from_be_bytes(r.take()));
        let (name, after) = after.split_at_checked(name_len)?;
        let topic = std::str::from_utf8(name).ok()?.into();
        let end = LogEnd { segment_base, position, offset };
        ends.push(PartitionEnd { topic_id, partition, topic, log_start, end, deleted, written_through });
        rest = after;
    }
    rest.is_empty().then_some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot {
            directory_id: Uuid::from_u128(5),
            generation: 7,
            epoch: 3,
            point: JournalPoint { lsn: 4096, group: 1, file: 2, position: 4096 },
            durable_lsn: 8192,
            clean: true,
            ends_len: 100,
            ends_crc: 0xdead_beef,
            ring_files: (1..=RING_FILES_MAX as u32).map(|n| (n, u64::from(n) << 22)).collect(),
        }
    }

    fn ends() -> Vec<PartitionEnd> {
        ["a", "", &"long".repeat(60)]
            .into_iter()
            .zip(0..)
            .map(|(topic, n)| PartitionEnd {
                topic_id: Uuid::from_u128(n as u128),
                partition: n,
                topic: topic.into(),
                log_start: 1,
                end: LogEnd { segment_base: 10, position: 200, offset: 3000 },
                deleted: n == 1,
                written_through: n == 2,
            })
            .collect()
    }

    #[test]
    fn a_slot_comes_back_and_any_flipped_bit_is_noticed() {
        for slot in [slot(), Slot { ring_files: Vec::new(), clean: false, ..slot() }] {
            let bytes = slot.encode();
            assert_eq!(Slot::decode(&bytes).as_ref(), Some(&slot));
            for bit in (0..SLOT_BYTES * 8).step_by(7) {
                let mut bad = bytes;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Slot::decode(&bad), None, "bit {bit}");
            }
        }
        assert_eq!(Slot::decode(&[0; SLOT_BYTES]), None);
    }

    #[test]
    fn ends_come_back_and_wrong_files_are_refused() {
        let id = Uuid::from_u128(5);
        let bytes = encode_ends(id, 7, ends().iter());
        assert_eq!(decode_ends(&bytes, id, 7), Some(ends()));
        assert_eq!(decode_ends(&bytes, id, 8), None);
        assert_eq!(decode_ends(&bytes, Uuid::from_u128(6), 7), None);
        for cut in 0..bytes.len() {
            assert_eq!(decode_ends(&bytes[..cut], id, 7), None, "cut at {cut}");
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert_eq!(decode_ends(&longer, id, 7), None);
    }

    #[test]
    fn the_bytes_stay_what_format_md_says() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let slot = Slot { ring_files: vec![(1, 4 << 20)], ..slot() };
        assert_eq!(
            hex(&slot.encode()[..SLOT_HEADER_BYTES + RING_FILE_BYTES]),
            "504a533100010001000000000000000000000000000000050000000000000007\
             0000000000000003000000000000100000000000000000010000000000002000\
             000000020000000000000000000010000000000000000064deadbeef00000001\
             000000010000000000400000"
        );
        assert_eq!(
            hex(&encode_ends(Uuid::from_u128(5), 7, ends()[..1].iter())),
            "504a453100010000000000000000000000000000000000050000000000000007\
             000000010000000000000000000000000000000000000000000000000000\
             00010000000000000bb8000000000000000a00000000000000c80000000161"
        );
    }
}
