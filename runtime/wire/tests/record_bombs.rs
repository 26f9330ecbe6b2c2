//! Decompression bombs: what is refused, and how much memory that takes. Alone in its binary, for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;

use pelton_wire::record::{
    AppendRefusal, AppendRules, BatchBuilder, BatchMut, BatchOptions, BatchView, Codec, Columns,
    DecompressError, DecompressLimit, HEADER_BYTES, RecordError, Select, validate_for_append,
};

/// What a decoder may take besides its output: hash tables, blocks, its own state.
const DECODER_BYTES: usize = 512 * 1024;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

fn count(bytes: isize) {
    // After the thread's own data is gone there is nothing to count.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one passes everything on")]
// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `work` held at once, beyond what there was.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, usize::try_from(PEAK.get() - before).expect("the peak is not below the start"))
}

/// `bytes` zeros, packed as tightly as the codec allows, piece by piece so that the test needs no memory either.
fn bomb(codec: Codec, bytes: usize) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let pieces = bytes >> 20;
    let mut out = Vec::new();
    match codec {
        Codec::None => out = vec![0; bytes],
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::best());
            (0..pieces).for_each(|_| encoder.write_all(&zeros).expect("writes to memory"));
            encoder.finish().expect("writes to memory");
        }
        Codec::Zstd => {
            let mut encoder = zstd::stream::Encoder::new(&mut out, 19).expect("an encoder");
            (0..pieces).for_each(|_| encoder.write_all(&zeros).expect("writes to memory"));
            encoder.finish().expect("writes to memory");
        }
        Codec::Snappy | Codec::Lz4 => codec.compress(None, &vec![0; bytes], &mut out).expect("can be packed"),
    }
    out
}

fn check(codec: Codec, input: &[u8], limit: usize) {
    let mut out = Vec::new();
    let (result, peak) = peak_of(|| codec.decompress(input, limit, &mut out));
    let expect = DecompressError::TooLarge { codec, limit, input: input.len() };
    assert_eq!(result, Err(expect), "{codec} of {} bytes, limit {limit}", input.len());
    assert!(out.is_empty());
    assert!(peak <= limit + DECODER_BYTES, "{codec}: {peak} bytes held for a limit of {limit}");
}

#[test]
fn bombs_are_refused_within_the_bound() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        // 80 MiB are over every default.
        let input = bomb(codec, 80 << 20);
        for limit in [0, 1, 4096, 1 << 20, 10 << 20, DecompressLimit::default().max_bytes] {
            check(codec, &input, limit);
        }
    }
}

#[test]
fn at_the_limit_it_is_accepted() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let input = bomb(codec, 2 << 20);
        check(codec, &input, (2 << 20) - 1);
        let mut out = Vec::new();
        let (result, peak) = peak_of(|| codec.decompress(&input, 2 << 20, &mut out));
        assert_eq!(result, Ok(()), "{codec}");
        assert_eq!(out, vec![0; 2 << 20]);
        assert!(peak <= (2 << 20) + DECODER_BYTES, "{codec}: {peak} bytes held");
    }
}

/// Real input is that dull: the bytes are bounded, not how many times the input's size they are.
#[test]
fn a_record_of_one_byte_value_is_taken() {
    const VALUE_BYTES: usize = 15_000_000;
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        builder.append(0, None, Some(&vec![b'x'; VALUE_BYTES]), &[]).expect("one record");
        let batch = builder.finish().expect("a batch");
        let view = BatchView::check(&batch).expect("a whole batch");
        let rules = AppendRules::default();
        let (result, peak) = peak_of(|| validate_for_append(&view, &rules, &mut Vec::new()));
        assert_eq!(result.map(|found| found.records_count).ok(), Some(1), "{codec}");
        assert!(peak <= rules.limit.max_bytes + DECODER_BYTES, "{codec}: {peak} bytes held");
    }
}

/// A batch around the bomb: nothing that reads it takes more.
#[test]
fn batches_of_bombs_are_refused() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = batch_of(codec, &bomb(codec, 80 << 20), 1);
        let view = BatchView::check(&batch).expect("a whole batch");
        let limit = DecompressLimit { max_bytes: 8 << 20 };
        let rules = AppendRules { limit, ..AppendRules::default() };
        let allowed = limit.max_bytes + DECODER_BYTES;

        let (result, peak) = peak_of(|| validate_for_append(&view, &rules, &mut Vec::new()));
        assert!(
            matches!(result, Err(AppendRefusal::Decompress(DecompressError::TooLarge { .. }))),
            "{result:?}"
        );
        assert!(peak <= allowed, "{codec}: {peak} bytes held");

        let mut columns = Columns::new();
        let (result, peak) = peak_of(|| columns.append(&view, Select::default(), limit));
        assert!(result.is_err() && columns.is_empty() && columns.data().is_empty());
        assert!(peak <= allowed, "{codec}: {peak} bytes held");
    }
}

/// Sizes and counts that only the input claims cost nothing.
#[test]
fn claims_do_not_allocate() {
    // Raw snappy, 4 GiB claimed; a zstd frame with a content size of 2^62 and one with a window of 2^41 bytes; an lz4
    // frame that promises blocks of 4 MiB.
    let mut lz4 = Vec::new();
    let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max4MB);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, &mut lz4);
    encoder.write_all(b"small").expect("writes to memory");
    encoder.finish().expect("writes to memory");
    let cases: [(Codec, &[u8]); 4] = [
        (Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        (Codec::Zstd, b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x40\x01\0\0"),
        (Codec::Zstd, b"\x28\xb5\x2f\xfd\0\xf8\x01\0\0"),
        (Codec::Lz4, &lz4),
    ];
    for (codec, input) in cases {
        let mut out = Vec::new();
        let (_, peak) = peak_of(|| codec.decompress(input, 64 << 20, &mut out));
        assert!(peak <= 160 * 1024, "{codec}: {peak} bytes held for {} bytes of input", input.len());
    }

    let batch = batch_of(Codec::None, &[0; 20], i32::MAX);
    let view = BatchView::check(&batch).expect("a whole batch");
    let mut columns = Columns::new();
    let (result, peak) = peak_of(|| {
        let malformed =
            view.records(&mut Vec::new(), DecompressLimit::default()).map(|records| records.count());
        let _ = columns.append(&view, Select::default(), DecompressLimit::default());
        let _ = validate_for_append(&view, &AppendRules::default(), &mut Vec::new());
        malformed
    });
    assert!(matches!(result, Ok(1)), "one error: {result:?}");
    assert!(peak <= 4096, "{peak} bytes held for a count of {}", i32::MAX);
    assert!(matches!(
        view.records(&mut Vec::new(), DecompressLimit::default()).map(|mut records| records.next()),
        Ok(Some(Err(RecordError::Malformed { index: 0, .. })))
    ));
}

/// A batch with this payload as it is, sealed.
fn batch_of(codec: Codec, payload: &[u8], count: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(0, None, None, &[]).expect("a small record");
    let mut batch = builder.finish().expect("a small batch").to_vec();
    batch.truncate(HEADER_BYTES);
    batch.extend_from_slice(payload);
    let length = u32::try_from(batch.len() - 12).expect("a small batch");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec.id();
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    BatchMut::new(&mut batch).expect("a whole batch").set_max_timestamp(0);
    batch
}
