//! The four codecs of Kafka, with a bound on everything that is unpacked.
//!
//! A batch of a few bytes can claim to hold gigabytes. So [`Codec::decompress`] takes the most bytes that it may
//! produce, reserves from what the input can really hold (never from a size that the input claims alone), and stops
//! with [`DecompressError::TooLarge`] at the bound.

mod gzip;
mod lz4;
mod snappy;
#[cfg(test)]
mod tests;
mod zstd;

pub use lz4::is_portable as lz4_is_portable;

use super::header::UnknownCodec;

/// Most bytes that a batch may unpack to. Clients send batches of up to `max.message.bytes` (1 MiB by default)
/// compressed, and text compresses tenfold and more: this leaves room for that and bounds what one request can cost.
/// The ratio is not bounded: 15 MB of one byte value, which real records do have, are 600 bytes of zstd.
pub const DEFAULT_MAX_DECOMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// How the records of a batch are compressed. The discriminants are Kafka's ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy: read with and without the framing of xerial (which Java uses), written with it.
    Snappy = 2,
    /// LZ4 in its frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl Codec {
    /// All codecs, in the order of their ids.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec with this id in the attributes of a batch.
    pub fn from_id(id: u8) -> Result<Codec, UnknownCodec> {
        Codec::ALL.get(usize::from(id)).copied().ok_or(UnknownCodec(id))
    }

    /// The id in the attributes of a batch.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The name in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The codec that `compression.type` names. `producer` and `uncompressed` are the caller's matter.
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Whether it changes the bytes.
    pub fn is_compressed(self) -> bool {
        self != Codec::None
    }

    /// Appends `input`, compressed, to `out`. `level` is the codec's own (gzip 1 to 9, zstd -131072 to 22), brought
    /// into its range; `None` is what Kafka's producer takes by default (gzip 6, zstd 3). Snappy and lz4 have none
    /// here.
    pub fn compress(self, level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
        let result = match self {
            Codec::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Codec::Gzip => gzip::compress(level, input, out),
            Codec::Snappy => snappy::compress(input, out),
            Codec::Lz4 => lz4::compress(input, out),
            Codec::Zstd => zstd::compress(level, input, out),
        };
        result.map_err(|reason| CompressError { codec: self, reason })
    }

    /// Appends the unpacked `input` to `out`, at most `limit` bytes. After an error `out` is as it was.
    pub fn decompress(self, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), DecompressError> {
        let start = out.len();
        let result = match self {
            Codec::None if input.len() > limit => Err(Fault::TooLarge),
            Codec::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Codec::Gzip => gzip::decompress(input, limit, out),
            Codec::Snappy => snappy::decompress(input, limit, out),
            Codec::Lz4 => lz4::decompress(input, limit, out),
            Codec::Zstd => zstd::decompress(input, limit, out),
        };
        result.map_err(|fault| {
            out.truncate(start);
            match fault {
                Fault::TooLarge => DecompressError::TooLarge { codec: self, limit, input: input.len() },
                Fault::Corrupt(reason) => DecompressError::Corrupt { codec: self, reason },
            }
        })
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How much a batch may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecompressLimit {
    /// Most bytes.
    pub max_bytes: usize,
}

impl Default for DecompressLimit {
    fn default() -> DecompressLimit {
        DecompressLimit { max_bytes: DEFAULT_MAX_DECOMPRESSED_BYTES }
    }
}

impl DecompressLimit {
    /// For batches that were checked before they were stored, under the limit of that day: the most that a limit is
    /// ever set to. What was acknowledged stays readable when the limit changes.
    pub const STORED: DecompressLimit = DecompressLimit { max_bytes: 1 << 30 };
}

/// Why bytes cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// They unpack to more than is allowed.
    #[error("{input} bytes of {codec} unpack to more than the {limit} bytes allowed")]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// The bound (bytes).
        limit: usize,
        /// Compressed bytes.
        input: usize,
    },
    /// They are not what the codec's format says.
    #[error("not valid {codec}: {reason}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What is wrong.
        reason: String,
    },
}

/// Why bytes cannot be compressed. No input causes it: it means that memory or the library failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{codec} could not compress: {reason}")]
pub struct CompressError {
    /// The codec.
    pub codec: Codec,
    /// What the library says.
    pub reason: String,
}

/// As [`DecompressError`], before the codec is known.
#[derive(Debug)]
enum Fault {
    TooLarge,
    Corrupt(String),
}

fn corrupt(reason: impl ToString) -> Fault {
    Fault::Corrupt(reason.to_string())
}

/// The first `N` bytes of `input`, which then starts after them.
fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Fault> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or_else(ends_early)?;
    *input = rest;
    Ok(*head)
}

/// The first `len` bytes of `input`, which then starts after them.
fn take_slice<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], Fault> {
    let (head, rest) = input.split_at_checked(len).ok_or_else(ends_early)?;
    *input = rest;
    Ok(head)
}

/// Makes room for `additional` bytes at the end of `out`, doubling as a vector does, but never for more than
/// `remaining` bytes: what the limit still allows.
fn reserve_within(out: &mut Vec<u8>, additional: usize, remaining: usize) {
    if out.capacity() - out.len() < additional {
        out.reserve_exact(additional.max(out.len()).min(remaining).max(additional));
    }
}

fn ends_early() -> Fault {
    corrupt("the data ends early")
}
