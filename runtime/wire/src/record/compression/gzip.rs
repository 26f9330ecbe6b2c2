//! gzip, of one or several members.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Fault, corrupt, reserve_within};

/// The first piece that is unpacked; pieces then double.
const FIRST_PIECE_BYTES: usize = 16 * 1024;

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let level = level.map_or(Compression::default(), |level| Compression::new(level.clamp(1, 9) as u32));
    let mut encoder = GzEncoder::new(out, level);
    encoder.write_all(input).and_then(|()| encoder.finish().map(drop)).map_err(|error| error.to_string())
}

pub(super) fn decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut decoder = MultiGzDecoder::new(input);
    let (start, mut end) = (out.len(), out.len());
    let result = loop {
        let produced = end - start;
        if produced == limit {
            break match decoder.read(&mut [0]) {
                Ok(0) => Ok(()),
                Ok(_) => Err(Fault::TooLarge),
                Err(error) => Err(corrupt(error)),
            };
        }
        if end == out.len() {
            let piece = produced.max(FIRST_PIECE_BYTES).min(limit - produced);
            reserve_within(out, piece, limit - produced);
            out.resize(end + piece, 0);
        }
        match decoder.read(&mut out[end..]) {
            Ok(0) => break Ok(()),
            Ok(read) => end += read,
            Err(error) => break Err(corrupt(error)),
        }
    };
    out.truncate(end);
    result
}
