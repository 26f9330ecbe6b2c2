//! The bytes of a group and its frames (FORMAT.md, "Group" and "Frame"). Encodes into and decodes from memory only.

use std::fmt;

use bytes::Bytes;
use pelton_wire::record::{combine_crc32c, crc32c};
use uuid::Uuid;

use crate::sink::{FrameKind, FrameMeta};
use crate::storage::{AlignedBuf, DIRECT_ALIGN};

/// First bytes of a group.
const MAGIC: [u8; 4] = *b"PJG1";
/// The version of group and frame that this code writes, and the only one it reads.
const VERSION: u16 = 1;
/// Bytes of a group's header; the frames follow at once.
pub(crate) const GROUP_HEADER_BYTES: usize = 72;
/// Bytes of a frame's header; its payload follows at once.
pub(crate) const FRAME_HEADER_BYTES: usize = 72;

/// `len` rounded up to the unit of journal writes.
pub(crate) fn round_up(len: usize) -> usize {
    len.next_multiple_of(DIRECT_ALIGN)
}

/// The bytes that a group with this much frame data takes in the ring.
pub(crate) fn group_bytes(payload: usize) -> usize {
    round_up(GROUP_HEADER_BYTES + payload)
}

/// Flag of a data frame: the batch goes on in the next frame of this partition.
const FLAG_MORE: u8 = 1;
/// Flag of a data or partition-create frame: the partition's segments have batches before the journal has them.
const FLAG_WRITTEN_THROUGH: u8 = 2;

/// The fixed part of a frame as it stands in a group. A batch that is larger than a group is split into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// `position` is that of this part.
    pub(crate) meta: FrameMeta,
    /// Another part of the same batch follows.
    pub(crate) more: bool,
    /// See [`crate::sink::Frame::written_through`].
    pub(crate) written_through: bool,
}

impl FrameHeader {
    fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        flag(self.more, FLAG_MORE) | flag(self.written_through, FLAG_WRITTEN_THROUGH)
    }
}

/// The header of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    pub(crate) directory_id: Uuid,
    pub(crate) epoch: u64,
    pub(crate) lsn: u64,
    pub(crate) number: u64,
    pub(crate) durable_lsn: u64,
    pub(crate) payload_len: u32,
    pub(crate) frame_count: u32,
    pub(crate) payload_crc: u32,
}

impl GroupHeader {
    /// Bytes of the whole group in the ring.
    pub(crate) fn total_bytes(&self) -> usize {
        group_bytes(self.payload_len as usize)
    }

    /// Reads a header. `None` if these bytes are no group header: other bytes, another version, damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
        let mut r = Fields(bytes);
        if r.take::<4>() != MAGIC || u16::from_be_bytes(r.take()) != VERSION {
            return None;
        }
        let _reserved = r.take::<2>();
        let header = GroupHeader {
            directory_id: Uuid::from_bytes(r.take()),
            epoch: u64::from_be_bytes(r.take()),
            lsn: u64::from_be_bytes(r.take()),
            number: u64::from_be_bytes(r.take()),
            durable_lsn: u64::from_be_bytes(r.take()),
            payload_len: u32::from_be_bytes(r.take()),
            frame_count: u32::from_be_bytes(r.take()),
            payload_crc: u32::from_be_bytes(r.take()),
        };
        let crc = u32::from_be_bytes(r.take());
        (crc == crc32c(&bytes[..GROUP_HEADER_BYTES - 4])).then_some(header)
    }
}

/// Collects frames into one aligned buffer, which is then written as it is.
pub(crate) struct GroupBuilder {
    buf: AlignedBuf,
    frame_count: u32,
    crc: RunningCrc,
}

/// The CRC-32C of what stands behind the header of a group so far.
#[derive(Default)]
struct RunningCrc {
    crc: u32,
    /// Bytes of the group that it covers, its header included.
    end: usize,
}

impl RunningCrc {
    /// From here on the CRC of a payload is taken over; shorter ones are read again, which costs less than to combine.
    const LARGE_BYTES: usize = 4096;

    /// Takes in what was added to the group, whose last bytes are a payload with a known CRC.
    fn add_payload(&mut self, group: &[u8], len: usize, crc: u32) {
        if len >= Self::LARGE_BYTES {
            self.catch_up(&group[..group.len() - len]);
            self.crc = combine_crc32c(self.crc, crc, len);
            self.end = group.len();
        }
    }

    fn catch_up(&mut self, group: &[u8]) {
        let new = &group[self.end..];
        if !new.is_empty() {
            self.crc = combine_crc32c(self.crc, crc32c(new), new.len());
            self.end = group.len();
        }
    }
}

/// What the journal knows about the place of a group; the rest of its header follows from its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupPlace {
    pub(crate) directory_id: Uuid,
    pub(crate) epoch: u64,
    pub(crate) lsn: u64,
    pub(crate) number: u64,
    pub(crate) durable_lsn: u64,
}

impl GroupBuilder {
    pub(crate) fn new() -> GroupBuilder {
        let mut builder = GroupBuilder { buf: AlignedBuf::new(), frame_count: 0, crc: RunningCrc::default() };
        builder.clear();
        builder
    }

    /// Forgets all frames, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.buf.clear();
        self.buf.extend(&[0; GROUP_HEADER_BYTES]);
        self.frame_count = 0;
        self.crc = RunningCrc { crc: 0, end: GROUP_HEADER_BYTES };
    }

    pub(crate) fn frame_count(&self) -> u32 {
        self.frame_count
    }

    /// Bytes that the group takes in the ring as it stands.
    pub(crate) fn total_bytes(&self) -> usize {
        round_up(self.buf.len())
    }

    /// Bytes that the group would take with one more frame of this payload.
    pub(crate) fn total_bytes_with(&self, payload: usize) -> usize {
        round_up(self.buf.len() + FRAME_HEADER_BYTES + payload)
    }

    /// Adds a frame, whose payload has this CRC-32C. The payload is copied here, once.
    pub(crate) fn push(&mut self, header: &FrameHeader, payload: &[u8], payload_crc: u32) {
        let mut h = [0_u8; FRAME_HEADER_BYTES];
        let len = u32::try_from(payload.len()).expect("the journal refuses longer payloads");
        let mut w = Writer { out: &mut h, at: 0 };
        w.put(&len.to_be_bytes());
        let meta = &header.meta;
        w.put(&[meta.kind as u8, header.flags(), 0, 0]);
        w.put(meta.topic_id.as_bytes());
        w.put(&meta.partition.to_be_bytes());
        w.put(&meta.leader_epoch.to_be_bytes());
        w.put(&meta.base_offset.to_be_bytes());
        w.put(&meta.last_offset.to_be_bytes());
        w.put(&meta.segment_base.to_be_bytes());
        w.put(&meta.position.to_be_bytes());
        w.put(&payload_crc.to_be_bytes());
        let crc = crc32c(&h[..FRAME_HEADER_BYTES - 4]);
        h[FRAME_HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        self.buf.extend(&h);
        self.buf.extend(payload);
        self.crc.add_payload(self.buf.as_slice(), payload.len(), payload_crc);
        self.frame_count += 1;
    }

    /// Completes the group for its place and returns the bytes to write.
    pub(crate) fn seal(&mut self, place: &GroupPlace) -> &[u8] {
        let payload = &self.buf.as_slice()[GROUP_HEADER_BYTES..];
        let payload_len = u32::try_from(payload.len()).expect("the journal bounds a group below 4 GiB");
        self.crc.catch_up(self.buf.as_slice());
        let mut h = [0_u8; GROUP_HEADER_BYTES];
        let mut w = Writer { out: &mut h, at: 0 };
        w.put(&MAGIC);
        w.put(&VERSION.to_be_bytes());
        w.put(&[0, 0]);
        w.put(place.directory_id.as_bytes());
        w.put(&place.epoch.to_be_bytes());
        w.put(&place.lsn.to_be_bytes());
        w.put(&place.number.to_be_bytes());
        w.put(&place.durable_lsn.to_be_bytes());
        w.put(&payload_len.to_be_bytes());
        w.put(&self.frame_count.to_be_bytes());
        w.put(&self.crc.crc.to_be_bytes());
        let crc = crc32c(&h[..GROUP_HEADER_BYTES - 4]);
        h[GROUP_HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        self.buf.as_mut_slice()[..GROUP_HEADER_BYTES].copy_from_slice(&h);
        self.buf.pad_to(DIRECT_ALIGN);
        self.buf.as_slice()
    }
}

/// A valid group that holds something this version cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// A frame type that a newer version writes.
    UnknownType(u8),
    /// Lengths or CRCs inside the group contradict each other although the group's CRC holds.
    Damaged,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFrame::UnknownType(code) => write!(f, "it holds a frame of the unknown type {code}"),
            BadFrame::Damaged => f.write_str("its frames are damaged"),
        }
    }
}

/// The frames of a group's payload, in order.
pub(crate) fn decode_frames(
    header: &GroupHeader,
    payload: &Bytes,
) -> Result<Vec<(FrameHeader, Bytes)>, BadFrame> {
    let most = payload.len() / FRAME_HEADER_BYTES;
    let mut frames = Vec::with_capacity((header.frame_count as usize).min(most));
    let mut at = 0;
    while at < payload.len() {
        let bytes = payload.get(at..at + FRAME_HEADER_BYTES).ok_or(BadFrame::Damaged)?;
        let (frame, len, payload_crc) = decode_frame_header(bytes)?;
        at += FRAME_HEADER_BYTES;
        if len > payload.len() - at {
            return Err(BadFrame::Damaged);
        }
        let body = payload.slice(at..at + len);
        if crc32c(&body) != payload_crc {
            return Err(BadFrame::Damaged);
        }
        at += len;
        frames.push((frame, body));
    }
    if frames.len() != header.frame_count as usize {
        return Err(BadFrame::Damaged);
    }
    Ok(frames)
}

/// Header, payload length, payload CRC.
fn decode_frame_header(bytes: &[u8]) -> Result<(FrameHeader, usize, u32), BadFrame> {
    let crc = u32::from_be_bytes(Fields(&bytes[FRAME_HEADER_BYTES - 4..]).take());
    if crc != crc32c(&bytes[..FRAME_HEADER_BYTES - 4]) {
        return Err(BadFrame::Damaged);
    }
    let mut r = Fields(bytes);
    let len = u32::from_be_bytes(r.take()) as usize;
    let [code, flags, ..] = r.take::<4>();
    let kind = FrameKind::from_byte(code).ok_or(BadFrame::UnknownType(code))?;
    let topic_id = Uuid::from_bytes(r.take());
    let partition = i32::from_be_bytes(r.take());
    let leader_epoch = i32::from_be_bytes(r.take());
    let base_offset = i64::from_be_bytes(r.take());
    let last_offset = i64::from_be_bytes(r.take());
    let segment_base = i64::from_be_bytes(r.take());
    let position = u64::from_be_bytes(r.take());
    let meta = FrameMeta {
        kind,
        topic_id,
        partition,
        base_offset,
        last_offset,
        segment_base,
        position,
        leader_epoch,
    };
    let written_through = flags & FLAG_WRITTEN_THROUGH != 0;
    let frame = FrameHeader { meta, more: flags & FLAG_MORE != 0, written_through };
    Ok((frame, len, u32::from_be_bytes(r.take())))
}

/// Takes fixed-size fields off the front of a slice whose length the caller has checked.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) =
            self.0.split_first_chunk().expect("the caller checked the length of the whole structure");
        self.0 = rest;
        *field
    }
}

/// Puts fields one after the other into a buffer that is large enough for all of them.
pub(super) struct Writer<'a> {
    pub(super) out: &'a mut [u8],
    pub(super) at: usize,
}

impl Writer<'_> {
    pub(super) fn put(&mut self, field: &[u8]) {
        self.out[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: FrameKind) -> FrameHeader {
        let meta = FrameMeta {
            kind,
            topic_id: Uuid::from_u128(7),
            partition: 3,
            leader_epoch: 4,
            base_offset: 5,
            last_offset: 6,
            segment_base: 1,
            position: 99,
        };
        FrameHeader { meta, more: false, written_through: false }
    }

    fn place() -> GroupPlace {
        GroupPlace { directory_id: Uuid::from_u128(9), epoch: 2, lsn: 8192, number: 1, durable_lsn: 8192 }
    }

    fn sealed(frames: &[(FrameHeader, &[u8])]) -> Vec<u8> {
        let mut builder = GroupBuilder::new();
        for (header, payload) in frames {
            builder.push(header, payload, crc32c(payload));
        }
        builder.seal(&place()).to_vec()
    }

    fn payload_of(bytes: &[u8]) -> (GroupHeader, Bytes) {
        let group = GroupHeader::decode(bytes).expect("a sealed group decodes");
        let end = GROUP_HEADER_BYTES + group.payload_len as usize;
        (group, Bytes::copy_from_slice(&bytes[GROUP_HEADER_BYTES..end]))
    }

    #[test]
    fn a_group_gives_back_its_frames() {
        let big = vec![7_u8; 5000];
        let mut frames: Vec<(FrameHeader, &[u8])> =
            vec![(FrameHeader { more: true, written_through: true, ..header(FrameKind::Data) }, &big)];
        frames.extend(
            (0..=u8::MAX).filter_map(FrameKind::from_byte).map(|kind| (header(kind), &b"payload"[..])),
        );
        frames.push((header(FrameKind::Data), &big));
        frames.push((header(FrameKind::Data), &big[..RunningCrc::LARGE_BYTES]));
        frames.push((header(FrameKind::Data), &big[..RunningCrc::LARGE_BYTES - 1]));
        let bytes = sealed(&frames);
        assert_eq!(bytes.len() % DIRECT_ALIGN, 0);
        let (group, payload) = payload_of(&bytes);
        assert_eq!(group.payload_crc, crc32c(&payload), "however it was put together");
        assert_eq!((group.lsn, group.epoch, group.number), (8192, 2, 1));
        assert_eq!(group.total_bytes(), bytes.len());
        let back = decode_frames(&group, &payload).expect("frames decode");
        let expect: Vec<_> = frames.iter().map(|(h, p)| (*h, Bytes::copy_from_slice(p))).collect();
        assert_eq!(back, expect);
    }

    #[test]
    fn the_bytes_stay_what_format_md_says() {
        let bytes = sealed(&[(header(FrameKind::Data), b"abc")]);
        let hex: String =
            bytes[..GROUP_HEADER_BYTES + FRAME_HEADER_BYTES + 3].iter().map(|b| format!("{b:02x}")).collect();
        let group = "504a473100010000\
             00000000000000000000000000000009\
             0000000000000002000000000000200000000000000000010000000000002000\
             0000004b00000001";
        let frame = "0000000301000000\
             00000000000000000000000000000007\
             0000000300000004000000000000000500000000000000060000000000000001\
             0000000000000063364b3fb7";
        assert_eq!(&hex[..group.len()], group);
        assert_eq!(&hex[GROUP_HEADER_BYTES * 2..][..frame.len()], frame);
        assert_eq!(&hex[hex.len() - 6..], "616263");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let bytes = sealed(&[(header(FrameKind::Data), b"abcdefgh"), (header(FrameKind::Truncate), b"")]);
        let (whole, _) = payload_of(&bytes);
        let used = GROUP_HEADER_BYTES + whole.payload_len as usize;
        for bit in 0..used * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let header = GroupHeader::decode(&bad);
            let body_holds = crc32c(&bad[GROUP_HEADER_BYTES..used]) == whole.payload_crc;
            assert!(header.is_none() || !body_holds, "bit {bit} changed nothing");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let bytes = sealed(&[(header(FrameKind::Data), b"abcdefgh")]);
        let (group, payload) = payload_of(&bytes);
        for cut in 0..payload.len() {
            let short = payload.slice(..cut);
            assert!(
                decode_frames(&group, &short).is_err() || cut == 0 && group.frame_count == 0,
                "cut at {cut}"
            );
        }
        let more = GroupHeader { frame_count: u32::MAX, ..group };
        assert_eq!(decode_frames(&more, &payload), Err(BadFrame::Damaged));
    }

    #[test]
    fn a_reserved_type_is_named() {
        let mut bytes = sealed(&[(header(FrameKind::Data), b"x")]);
        let frame = &mut bytes[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + FRAME_HEADER_BYTES];
        frame[4] = 6;
        let crc = crc32c(&frame[..FRAME_HEADER_BYTES - 4]);
        frame[FRAME_HEADER_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
        let (group, payload) = payload_of(&bytes);
        assert_eq!(decode_frames(&group, &payload), Err(BadFrame::UnknownType(6)));
    }
}
