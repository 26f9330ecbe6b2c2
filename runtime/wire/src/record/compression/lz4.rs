//! LZ4 in its frame format.
//!
//! The frame is taken apart here and the blocks go to `lz4_flex`: its own frame decoder allocates two blocks of the
//! size in the frame header first, and clients in Go write 4 MiB there for every small batch.

use std::io::Write;

use lz4_flex::block::{self, DecompressError};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

use super::{Fault, corrupt, reserve_within, take, take_slice};

const FRAME_MAGIC: u32 = 0x184d_2204;
/// The last hexadecimal digit is free.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// The high bit of a block length: the block is stored as it is.
const STORED: u32 = 1 << 31;
/// How far back a block may refer.
const DICTIONARY_BYTES: usize = 64 * 1024;
/// The space that a block is first given, per compressed byte; it is tried again with more if that is too little.
const FIRST_GUESS: usize = 6;
const MIN_GUESS_BYTES: usize = 4 * 1024;
const HASH_SEED: u32 = 0;
const CHECKSUM_BYTES: usize = 4;

/// Kafka's own reader takes independent blocks only; 64 KiB is its writer's block.
pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let frame = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(input).map_err(|error| error.to_string())?;
    encoder.finish().map(drop).map_err(|error| error.to_string())
}

/// Whether Java's clients can read this: they refuse blocks that refer to earlier ones, and stop after the first frame.
/// Reads lengths alone. Bytes that are no frame are not portable.
pub fn is_portable(mut input: &[u8]) -> bool {
    let Ok(Some(descriptor @ Descriptor { linked: false, .. })) = Descriptor::read(&mut input) else {
        return false;
    };
    skip_frame(&descriptor, &mut input).is_ok() && input.is_empty()
}

fn skip_frame(descriptor: &Descriptor, input: &mut &[u8]) -> Result<(), Fault> {
    loop {
        let header = u32::from_le_bytes(take(input)?);
        if header == 0 {
            break;
        }
        let checksum = if descriptor.block_checksums { CHECKSUM_BYTES } else { 0 };
        take_slice(input, (header & !STORED) as usize + checksum)?;
    }
    take_slice(input, if descriptor.content_checksum { CHECKSUM_BYTES } else { 0 })?;
    Ok(())
}

pub(super) fn decompress(mut input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if input.is_empty() {
        return Err(super::ends_early());
    }
    let start = out.len();
    while !input.is_empty() {
        if let Some(descriptor) = Descriptor::read(&mut input)? {
            frame(&descriptor, &mut input, limit - (out.len() - start), out)?;
        }
    }
    Ok(())
}

/// What the header of a frame says.
struct Descriptor {
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    max_block: usize,
}

impl Descriptor {
    /// `None` is a skippable frame, which was skipped.
    fn read(input: &mut &[u8]) -> Result<Option<Descriptor>, Fault> {
        let magic = u32::from_le_bytes(take(input)?);
        if magic & 0xffff_fff0 == SKIPPABLE_MAGIC {
            let length = u32::from_le_bytes(take(input)?);
            take_slice(input, length as usize)?;
            return Ok(None);
        }
        if magic != FRAME_MAGIC {
            return Err(corrupt(format!("unknown frame magic `{magic:08x}`")));
        }
        let hashed = *input;
        let [flags, block] = take(input)?;
        let max_block = match (block >> 4) & 7 {
            code @ 4..=7 => 1 << (8 + 2 * code),
            code => return Err(corrupt(format!("unknown block size code `{code}`"))),
        };
        if flags >> 6 != 1 {
            return Err(corrupt(format!("unknown frame version `{}`", flags >> 6)));
        }
        if flags & 0x02 != 0 || block & 0x8f != 0 {
            return Err(corrupt("reserved bits are set in the frame header"));
        }
        if flags & 0x01 != 0 {
            return Err(corrupt("the frame needs a dictionary"));
        }
        let content_size = match flags & 0x08 {
            0 => None,
            _ => Some(u64::from_le_bytes(take(input)?)),
        };
        let hashed = &hashed[..hashed.len() - input.len()];
        let [checksum] = take(input)?;
        if checksum != (XxHash32::oneshot(HASH_SEED, hashed) >> 8) as u8 {
            return Err(corrupt("the checksum of the frame header does not match"));
        }
        Ok(Some(Descriptor {
            linked: flags & 0x20 == 0,
            block_checksums: flags & 0x10 != 0,
            content_checksum: flags & 0x04 != 0,
            content_size,
            max_block,
        }))
    }
}

fn frame(descriptor: &Descriptor, input: &mut &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    loop {
        let header = u32::from_le_bytes(take(input)?);
        if header == 0 {
            break;
        }
        let data = take_slice(input, (header & !STORED) as usize)?;
        if descriptor.block_checksums {
            verify(data, take(input)?, "block")?;
        }
        if data.len() > descriptor.max_block {
            return Err(corrupt("a block is larger than the frame allows"));
        }
        let limit = limit - (out.len() - start);
        if header & STORED != 0 {
            if data.len() > limit {
                return Err(Fault::TooLarge);
            }
            reserve_within(out, data.len(), limit);
            out.extend_from_slice(data);
        } else {
            let history = if descriptor.linked { (out.len() - start).min(DICTIONARY_BYTES) } else { 0 };
            unpack_block(data, history, descriptor.max_block, limit, out)?;
        }
    }
    if descriptor.content_checksum {
        verify(&out[start..], take(input)?, "content")?;
    }
    match descriptor.content_size {
        Some(size) if size != (out.len() - start) as u64 => {
            Err(corrupt("the content has another size than the frame says"))
        }
        _ => Ok(()),
    }
}

/// Unpacks one block, which may refer to the last `history` bytes of `out`.
fn unpack_block(
    data: &[u8],
    history: usize,
    max_block: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let start = out.len();
    let most = max_block.min(limit);
    let mut space = data.len().saturating_mul(FIRST_GUESS).max(MIN_GUESS_BYTES).min(most);
    loop {
        out.truncate(start);
        reserve_within(out, space, limit);
        out.resize(start + space, 0);
        let (before, block) = out.split_at_mut(start);
        let result = match history {
            0 => block::decompress_into(data, block),
            _ => block::decompress_into_with_dict(data, block, &before[start - history..]),
        };
        match result {
            Ok(len) => {
                out.truncate(start + len);
                return Ok(());
            }
            Err(DecompressError::OutputTooSmall { .. }) if space < most => {
                space = space.saturating_mul(4).min(most);
            }
            Err(DecompressError::OutputTooSmall { .. }) if most < max_block => return Err(Fault::TooLarge),
            Err(error) => return Err(corrupt(error)),
        }
    }
}

fn verify(data: &[u8], stored: [u8; 4], of: &str) -> Result<(), Fault> {
    if XxHash32::oneshot(HASH_SEED, data) == u32::from_le_bytes(stored) {
        return Ok(());
    }
    Err(corrupt(format!("the checksum of the {of} does not match")))
}
