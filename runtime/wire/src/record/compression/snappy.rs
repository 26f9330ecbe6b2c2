//! Snappy, raw (librdkafka) and in the framing of the Java library by xerial (Java, kafka-python, sarama and more).
//!
//! The framing is a header of 16 bytes (magic, version and oldest compatible version), then blocks: a length of four
//! bytes and that many bytes of raw Snappy. Streams may follow one another, each with its own header.

use super::{Fault, corrupt, reserve_within, take, take_slice};

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Version and oldest compatible version, both 1.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// A block length of this value is the start of another header.
const MAGIC_AS_LENGTH: [u8; 4] = [0x82, b'S', b'N', b'A'];
/// What follows those four bytes in a header.
const REST_OF_HEADER_BYTES: usize = 12;
/// Uncompressed bytes in a block; what the Java library takes.
const BLOCK_BYTES: usize = 32 * 1024;
/// The format's densest element, a copy, gives 64 bytes for 3.
const MAX_EXPANSION: usize = 22;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut encoder = snap::raw::Encoder::new();
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    for block in input.chunks(BLOCK_BYTES) {
        let length_at = out.len();
        let data_at = length_at + 4;
        out.resize(data_at + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder.compress(block, &mut out[data_at..]).map_err(|error| error.to_string())?;
        // A block is 32 KiB, so its compressed length fits.
        out[length_at..data_at].copy_from_slice(&(len as u32).to_be_bytes());
        out.truncate(data_at + len);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let start = out.len();
    let mut decoder = snap::raw::Decoder::new();
    let Some(mut rest) = input.strip_prefix(&XERIAL_MAGIC) else {
        return block(&mut decoder, input, limit, out);
    };
    // Versions are not compared: some clients write them in the other byte order, and no other version exists.
    take::<8>(&mut rest)?;
    while !rest.is_empty() {
        let length = take::<4>(&mut rest)?;
        if length == MAGIC_AS_LENGTH {
            take::<REST_OF_HEADER_BYTES>(&mut rest)?;
            continue;
        }
        let length = u32::from_be_bytes(length) as usize;
        let data = take_slice(&mut rest, length)?;
        block(&mut decoder, data, limit - (out.len() - start), out)?;
    }
    Ok(())
}

fn block(
    decoder: &mut snap::raw::Decoder,
    input: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let claimed = snap::raw::decompress_len(input).map_err(corrupt)?;
    if claimed > input.len().saturating_mul(MAX_EXPANSION) {
        return Err(corrupt(format!("{} bytes cannot hold the {claimed} that they claim", input.len())));
    }
    if claimed > limit {
        return Err(Fault::TooLarge);
    }
    let start = out.len();
    reserve_within(out, claimed, limit);
    out.resize(start + claimed, 0);
    let len = decoder.decompress(input, &mut out[start..]).map_err(corrupt)?;
    out.truncate(start + len);
    Ok(())
}
