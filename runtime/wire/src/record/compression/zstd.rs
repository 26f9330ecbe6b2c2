//! Zstandard.
//!
//! Unpacked in one step into the output itself: the output is then the window, so what window a frame
//! header asks for costs nothing. Java's clients do not write the size of the content, so the space is reserved
//! from the number of blocks, each of which holds at most 128 KiB.

use std::cell::RefCell;
use std::io::Cursor;

use zstd::zstd_safe::{self, CCtx, DCtx};

use super::{Fault, corrupt, take, take_slice};

const FRAME_MAGIC: u32 = 0xfd2f_b528;
/// The last hexadecimal digit is free.
const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// Most bytes that a block unpacks to.
const MAX_BLOCK_BYTES: usize = 128 * 1024;
/// The largest window of the library's own levels, and the largest that its readers take unless told otherwise.
const MAX_WINDOW_BYTES: u64 = 1 << 27;
const DEFAULT_LEVEL: i32 = 3;

/// Most bytes that a thread keeps for its next compression. The usual levels need 1 to 4 MiB, the highest some hundred.
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;

thread_local! {
    // Making one costs as much as unpacking 20 KiB, and most batches are smaller. Nothing of one call shows in the
    // next.
    static UNPACKER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
    static PACKER: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
}

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let range = zstd::compression_level_range();
    let level = level.unwrap_or(DEFAULT_LEVEL).clamp(*range.start(), *range.end());
    out.reserve(zstd_safe::compress_bound(input.len()));
    PACKER.with_borrow_mut(|kept| {
        let packer = kept.get_or_insert_with(CCtx::create);
        let result = packer.compress(&mut at_end(out), input, level).map(drop).map_err(message);
        if packer.sizeof() > MAX_KEPT_BYTES {
            *kept = None;
        }
        result
    })
}

pub(super) fn decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    let expected = expected_size(input)?.min(limit);
    out.reserve_exact(expected);
    let result = UNPACKER.with_borrow_mut(|unpacker| unpacker.decompress(&mut at_end(out), input));
    result.map_err(|code| match zstd_safe::get_error_name(code) {
        // The space follows from the blocks, so only a limit below them can leave too little.
        _ if expected == limit && is_too_small(code) => Fault::TooLarge,
        name => corrupt(name),
    })?;
    // The allocator may have given more than was asked for.
    if out.len() - start > limit { Err(Fault::TooLarge) } else { Ok(()) }
}

/// A buffer that starts at the end of `out`.
fn at_end(out: &mut Vec<u8>) -> Cursor<&mut Vec<u8>> {
    let mut cursor = Cursor::new(out);
    cursor.set_position(cursor.get_ref().len() as u64);
    cursor
}

fn is_too_small(code: zstd_safe::ErrorCode) -> bool {
    zstd_safe::get_error_name(code) == "Destination buffer is too small"
}

fn message(code: zstd_safe::ErrorCode) -> String {
    zstd_safe::get_error_name(code).to_owned()
}

/// Bytes that the frames in `input` unpack to at most.
fn expected_size(mut input: &[u8]) -> Result<usize, Fault> {
    if input.is_empty() {
        return Err(super::ends_early());
    }
    let mut total = 0usize;
    while !input.is_empty() {
        total = total.saturating_add(frame_size(&mut input)?);
    }
    Ok(total)
}

fn frame_size(input: &mut &[u8]) -> Result<usize, Fault> {
    let magic = u32::from_le_bytes(take(input)?);
    if magic & 0xffff_fff0 == SKIPPABLE_MAGIC {
        let length = u32::from_le_bytes(take(input)?);
        take_slice(input, length as usize)?;
        return Ok(0);
    }
    if magic != FRAME_MAGIC {
        return Err(corrupt(format!("unknown frame magic `{magic:08x}`")));
    }
    let [descriptor] = take(input)?;
    let single_segment = descriptor & 0x20 != 0;
    let checksum = descriptor & 0x04 != 0;
    if !single_segment {
        let [window] = take(input)?;
        check_window(window)?;
    }
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 0x03)];
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(single_segment),
        exponent => 1 << exponent,
    };
    take_slice(input, dictionary_bytes + size_bytes)?;
    let total = blocks_size(input)?;
    if checksum {
        take::<4>(input)?;
    }
    Ok(total)
}

/// A reader that unpacks piece by piece, as Java's does, needs the window and refuses a larger one.
fn check_window(descriptor: u8) -> Result<(), Fault> {
    let base = 1u64 << (10 + (descriptor >> 3));
    let window = base + base / 8 * u64::from(descriptor & 7);
    if window > MAX_WINDOW_BYTES {
        return Err(corrupt(format!("a window of {window} bytes is more than clients can read")));
    }
    Ok(())
}

fn blocks_size(input: &mut &[u8]) -> Result<usize, Fault> {
    let mut total = 0usize;
    loop {
        let [a, b, c] = take(input)?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        let size = (header >> 3) as usize;
        let (stored, unpacked) = match (header >> 1) & 3 {
            0 => (size, size),            // raw
            1 => (1, size),               // one byte, repeated
            2 => (size, MAX_BLOCK_BYTES), // compressed
            _ => return Err(corrupt("reserved block type")),
        };
        take_slice(input, stored)?;
        total = total.saturating_add(unpacked.min(MAX_BLOCK_BYTES));
        if header & 1 != 0 {
            return Ok(total);
        }
    }
}
