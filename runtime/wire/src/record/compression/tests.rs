use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::*;

/// Text that compresses, over several blocks of every codec.
fn text() -> Vec<u8> {
    (0..40_000u32)
        .flat_map(|n| format!("line {} of {}\n", n, n.wrapping_mul(2_654_435_761) >> 20).into_bytes())
        .collect()
}

fn unpack(codec: Codec, input: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let mut out = Vec::new();
    codec.decompress(input, 64 << 20, &mut out).map(|()| out)
}

fn pack(codec: Codec, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    codec.compress(None, input, &mut out).expect("can be packed");
    out
}

#[track_caller]
fn check(codec: Codec, input: &[u8], expect: &[u8]) {
    let out = unpack(codec, input).expect("can be unpacked");
    assert!(out == expect, "{codec}: {} bytes came out, {} expected", out.len(), expect.len());
    // One byte less than needed is refused, and nothing else is.
    let mut out = Vec::new();
    assert_eq!(codec.decompress(input, expect.len(), &mut out), Ok(()));
    if !expect.is_empty() {
        let result = codec.decompress(input, expect.len() - 1, &mut Vec::new());
        assert!(matches!(result, Err(DecompressError::TooLarge { .. })), "{codec}: {result:?}");
    }
}

#[track_caller]
fn check_corrupt(codec: Codec, input: &[u8], reason: &str) {
    match unpack(codec, input) {
        Err(DecompressError::Corrupt { reason: found, .. }) => assert!(found.contains(reason), "{found}"),
        other => panic!("{codec}: {:?} instead of an error about: {reason}", other.map(|out| out.len())),
    }
}

#[test]
fn ids_and_names() {
    for (id, name) in [(0, "none"), (1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")] {
        let codec = Codec::from_id(id).expect("known");
        assert_eq!((codec.id(), codec.name(), Codec::from_name(name)), (id, name, Some(codec)));
    }
    assert_eq!(Codec::from_id(5), Err(UnknownCodec(5)));
    assert_eq!(Codec::from_name("producer"), None);
}

#[test]
fn round_trips() {
    for codec in Codec::ALL {
        for input in [&text()[..], b"", b"x", &[0; 200_000]] {
            check(codec, &pack(codec, input), input);
        }
    }
}

#[test]
fn levels_out_of_range_are_brought_into_it() {
    for codec in [Codec::Gzip, Codec::Zstd] {
        for level in [i32::MIN, -1, 0, 1, 9, 22, i32::MAX] {
            let mut out = Vec::new();
            codec.compress(Some(level), b"abc abc abc", &mut out).expect("can be packed");
            check(codec, &out, b"abc abc abc");
        }
    }
    let size = |level| {
        let mut out = Vec::new();
        Codec::Zstd.compress(Some(level), &text(), &mut out).map(|()| out.len()).expect("can be packed")
    };
    assert!(size(19) < size(1));
}

#[test]
fn garbage_and_cuts_are_corrupt() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = pack(codec, &text());
        for input in [&b""[..], b"\x05", b"garbage garbage garbage", &[0xff; 40]] {
            assert!(
                matches!(unpack(codec, input), Err(DecompressError::Corrupt { .. })),
                "{codec} {input:02x?}"
            );
        }
        for end in [1, 5, 15, packed.len() / 2, packed.len() - 1] {
            let result = unpack(codec, &packed[..end]);
            assert!(matches!(result, Err(DecompressError::Corrupt { .. })), "{codec} cut at {end}");
        }
    }
}

#[test]
fn gzip_of_several_members() {
    let (first, second) = (text(), b"second".to_vec());
    let packed = [pack(Codec::Gzip, &first), pack(Codec::Gzip, b""), pack(Codec::Gzip, &second)].concat();
    check(Codec::Gzip, &packed, &[first, second].concat());
    let mut damaged = pack(Codec::Gzip, &text());
    let checksum_at = damaged.len() - 8;
    damaged[checksum_at] ^= 1;
    check_corrupt(Codec::Gzip, &damaged, "corrupt");
}

#[test]
fn snappy_with_and_without_framing() {
    let text = text();
    let raw = snap::raw::Encoder::new().compress_vec(&text).expect("can be packed");
    check(Codec::Snappy, &raw, &text);

    let framed = pack(Codec::Snappy, &text);
    assert_eq!(&framed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", "the header that Java writes");
    // One stream after another, as appending writers leave them.
    check(Codec::Snappy, &[&framed[..], &framed[..]].concat(), &[&text[..], &text[..]].concat());
    // Versions in the other byte order, and no block at all.
    check(Codec::Snappy, b"\x82SNAPPY\0\x01\0\0\0\x01\0\0\0", b"");

    check_corrupt(Codec::Snappy, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff", "ends early");
    check_corrupt(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0], "claim");
}

/// The densest snappy there is stays below what [`snappy`] takes for possible.
#[test]
fn snappy_claims_of_real_data_pass() {
    let zeros = vec![0; 10 << 20];
    let raw = snap::raw::Encoder::new().compress_vec(&zeros).expect("can be packed");
    assert!(zeros.len() / raw.len() >= 20);
    check(Codec::Snappy, &raw, &zeros);
}

fn lz4_frame(info: FrameInfo, input: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input).expect("writes to memory");
    encoder.finish().expect("writes to memory")
}

#[test]
fn lz4_frames_of_all_kinds() {
    let text = text();
    for mode in [BlockMode::Independent, BlockMode::Linked] {
        for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
            for checksums in [false, true] {
                let info = FrameInfo::new()
                    .block_mode(mode)
                    .block_size(size)
                    .block_checksums(checksums)
                    .content_checksum(checksums)
                    .content_size(checksums.then_some(text.len() as u64));
                let frame = lz4_frame(info, &text);
                check(Codec::Lz4, &frame, &text);
                assert_eq!(lz4_is_portable(&frame), mode == BlockMode::Independent);
                if checksums {
                    let mut damaged = frame.clone();
                    *damaged.last_mut().expect("not empty") ^= 1;
                    check_corrupt(Codec::Lz4, &damaged, "content");
                }
            }
        }
    }
    let noise: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    check(Codec::Lz4, &pack(Codec::Lz4, &noise), &noise);
}

#[test]
fn lz4_frames_one_after_another() {
    let skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
    let frame = pack(Codec::Lz4, b"abc");
    check(Codec::Lz4, &[&skippable[..], &frame, skippable, &frame].concat(), b"abcabc");
    assert!(lz4_is_portable(&frame));
    assert!(!lz4_is_portable(&frame.repeat(2)), "Java stops after the first");
    assert!(!lz4_is_portable(skippable));
    assert!(!lz4_is_portable(b"no frame"));
    check_corrupt(Codec::Lz4, &[&frame[..], b"rest"].concat(), "magic");
}

#[test]
fn lz4_header_faults() {
    let frame = pack(Codec::Lz4, &text());
    assert_eq!(
        frame[4..6],
        [0x60, 0x40],
        "as Java writes it: version 1, independent blocks of 64 KiB, no checksums"
    );
    let with = |at: usize, byte: u8| {
        let mut frame = frame.clone();
        frame[at] = byte;
        frame
    };
    check_corrupt(Codec::Lz4, &with(4, 0xa0), "version");
    check_corrupt(Codec::Lz4, &with(4, 0x62), "reserved");
    check_corrupt(Codec::Lz4, &with(4, 0x61), "dictionary");
    check_corrupt(Codec::Lz4, &with(5, 0x30), "block size");
    check_corrupt(Codec::Lz4, &with(5, 0x50), "checksum of the frame header");
    check_corrupt(Codec::Lz4, &with(9, 0x7f), "");
    // A block longer than the frame's blocks may be.
    let stored = [&frame[..7], &(70_000u32 | 1 << 31).to_le_bytes(), &[7; 70_000], &[0; 4]].concat();
    check_corrupt(Codec::Lz4, &stored, "larger than the frame allows");
}

#[test]
fn zstd_frames_of_all_kinds() {
    let text = text();
    // Java writes a stream, without the size of the content.
    let stream = ::zstd::stream::encode_all(&text[..], 3).expect("can be packed");
    check(Codec::Zstd, &stream, &text);
    let mut flushed = ::zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    flushed.include_checksum(true).expect("a known parameter");
    for piece in text.chunks(1000) {
        flushed.write_all(piece).and_then(|()| flushed.flush()).expect("writes to memory");
    }
    let flushed = flushed.finish().expect("writes to memory");
    check(Codec::Zstd, &flushed, &text);
    // A window of 128 MiB, as the highest levels ask for.
    let mut wide = ::zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    wide.window_log(27).expect("a known parameter");
    wide.write_all(&text).expect("writes to memory");
    let wide = wide.finish().expect("writes to memory");
    check(Codec::Zstd, &wide, &text);
    let mut wider = wide.clone();
    wider[5] += 1;
    check_corrupt(Codec::Zstd, &wider, "window");

    let skippable = b"\x5a\x2a\x4d\x18\x03\0\0\0abc";
    check(Codec::Zstd, &[&stream[..], skippable, &flushed].concat(), &[&text[..], &text[..]].concat());
    check_corrupt(Codec::Zstd, &[&stream[..], b"rest"].concat(), "magic");
    let mut damaged = flushed;
    *damaged.last_mut().expect("not empty") ^= 1;
    check_corrupt(Codec::Zstd, &damaged, "checksum");
}

#[test]
fn an_error_leaves_the_output_alone() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let packed = pack(codec, &text());
        let mut out = b"before".to_vec();
        assert!(codec.decompress(&packed, 100_000, &mut out).is_err());
        assert!(codec.decompress(&packed[..packed.len() - 1], 64 << 20, &mut out).is_err());
        assert_eq!(out, b"before", "{codec}");
    }
}
