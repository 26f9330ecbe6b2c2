//! Bytes that are no messages: cut off, overwritten, or made to claim more than they hold. None may panic, none may cost memory
//! out of proportion. Alone in its binary, for its allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use pelton_wire::api::{ApiKey, range};
use pelton_wire::codec::{DECODED_MULTIPLE, DecodeError, Malformed, Reader};
use pelton_wire::fuzzing::{Direction, Sampler, fuzz_one, round_trip, sample_bytes};
use pelton_wire::message::{self, Message};

/// What decoding may hold at once, per byte of the frame: the budget, and half as much again while an array moves to a
/// larger place.
const PEAK_MULTIPLE: usize = DECODED_MULTIPLE * 3 / 2;

/// What decoding may hold at once for any frame.
const PEAK_ALLOWANCE: usize = 64 * 1024;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

fn taken(bytes: usize) {
    // After the thread's own data is gone there is nothing to count.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().wrapping_add(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn given_back(bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().wrapping_sub(bytes)));
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its nature; this one passes everything on")]
// SAFETY: every call goes to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        given_back(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }
    /// The old place and the new one count at the same time.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        taken(size);
        given_back(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What became of a frame.
struct Outcome {
    /// Whether it was a message.
    decoded: bool,
    /// Bytes that decoding it held at once.
    peak: usize,
}

/// Decodes a message and drops it; checks what that held at most.
fn decode_bounded<M: Message>(frame: &Bytes, version: i16) -> Outcome {
    let before = LIVE.get();
    PEAK.set(before);
    let decoded = M::decode(&mut Reader::new(frame.clone()), version).is_ok();
    let peak = PEAK.get() - before;
    let most = frame.len() * PEAK_MULTIPLE + PEAK_ALLOWANCE;
    assert!(peak <= most, "{peak} bytes for a frame of {}, {most} are allowed", frame.len());
    Outcome { decoded, peak }
}

macro_rules! dispatch {
    ($($key:ident $request:ident $response:ident,)*) => {
        /// As [`decode_bounded`], for any message.
        fn decode_any(frame: &Bytes, key: ApiKey, version: i16, direction: Direction) -> Outcome {
            match (key, direction) {
                $(
                    (ApiKey::$key, Direction::Request) => decode_bounded::<message::$request>(frame, version),
                    (ApiKey::$key, Direction::Response) => decode_bounded::<message::$response>(frame, version),
                )*
            }
        }
    };
}

pelton_wire::for_each_api!(dispatch);

fn every_message() -> impl Iterator<Item = (ApiKey, i16, Direction)> {
    ApiKey::ALL.iter().flat_map(|&key| {
        (range(key).min_decoded..=range(key).max).flat_map(move |version| {
            [Direction::Request, Direction::Response].map(|direction| (key, version, direction))
        })
    })
}

/// The request that aborts other codecs: four bytes that promise two billion topics.
#[test]
fn the_metadata_bomb() {
    let bomb = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    let outcome = decode_any(&bomb, ApiKey::Metadata, 1, Direction::Request);
    assert_eq!((outcome.decoded, outcome.peak), (false, 0));
    assert_eq!(
        message::MetadataRequest::decode(&mut Reader::new(bomb), 1),
        Err(DecodeError::Malformed {
            structure: "MetadataRequest",
            field: "topics",
            fact: Malformed::CountTooLarge { count: 0x7fff_ffff, most: 0 },
        })
    );
}

#[test]
fn a_message_cut_off_anywhere_is_refused() {
    for (key, version, direction) in every_message() {
        for seed in 0..20 {
            let whole = sample_bytes(&mut Sampler::small(seed), key, version, direction);
            assert!(decode_any(&whole, key, version, direction).decoded);
            for len in 0..whole.len() {
                let cut = whole.slice(..len);
                assert!(
                    !decode_any(&cut, key, version, direction).decoded,
                    "{key:?} v{version} {direction:?}: {len} of {} bytes are taken for a message",
                    whole.len()
                );
            }
        }
    }
}

/// Every place of a message in turn becomes a count, a length or a size that is far too large.
#[test]
fn claims_that_nothing_stands_behind() {
    const CLAIMS: &[&[u8]] = &[
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x00, 0x0f, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff, 0xff, 0x03],
        &[0x7f, 0xff],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0x80, 0x00],
    ];
    for (key, version, direction) in every_message() {
        for seed in 0..6 {
            let valid = sample_bytes(&mut Sampler::small(seed), key, version, direction);
            for at in 0..valid.len() {
                for claim in CLAIMS {
                    let mut frame = valid.to_vec();
                    frame.truncate(at);
                    frame.extend_from_slice(claim);
                    frame.extend_from_slice(valid.get(at + claim.len()..).unwrap_or_default());
                    decode_any(&frame.into(), key, version, direction);
                }
            }
        }
    }
}

/// Frames of nothing but the smallest elements, with counts that the frame can just hold: what takes the most memory for its
/// size. The fillings are a zero, an empty compact string or array, a compact string of one byte, and text.
#[test]
fn frames_as_dense_as_they_can_be() {
    const FRAME: usize = 64 * 1024;
    let mut worst = 0;
    for (key, version, direction) in every_message() {
        for fill in [0x00, 0x01, 0x02, b'a'] {
            for at in 0..24 {
                for share in [1, 2, 3, 4, 8, 16] {
                    let count = (FRAME - at) / share - 8;
                    let mut frame = vec![fill; FRAME];
                    if range(key).is_flexible(version) {
                        let varint = [count as u8 | 0x80, (count >> 7) as u8 | 0x80, (count >> 14) as u8];
                        frame[at..at + 3].copy_from_slice(&varint);
                    } else {
                        frame[at..at + 4].copy_from_slice(&(count as u32).to_be_bytes());
                    }
                    worst = worst.max(decode_any(&frame.into(), key, version, direction).peak);
                }
            }
        }
    }
    assert!(worst > FRAME * DECODED_MULTIPLE / 2, "no frame took more than {worst} bytes: none was dense");
}

/// Valid messages, mutated, through the entry that fuzzers use.
#[test]
fn mutated_messages_do_no_harm() {
    const ROUNDS: u64 = 200;
    let mut decoded = 0;
    for (key, version, direction) in every_message() {
        for seed in 0..ROUNDS {
            let mut dice = Sampler::new(seed ^ 0x6d75_7461);
            let mut frame = sample_bytes(&mut Sampler::small(seed), key, version, direction).to_vec();
            for _ in 0..=dice.below(3) {
                mutate(&mut frame, &mut dice);
            }
            decoded += usize::from(round_trip(frame.clone().into(), key, version, direction));
            let key_byte = ApiKey::ALL.iter().position(|&k| k == key).unwrap() as u8;
            let version_byte = (version - range(key).min_decoded + 1) as u8;
            for kind in 0..5 {
                fuzz_one(&[&[key_byte, version_byte, kind][..], &frame].concat());
            }
        }
    }
    assert!(
        decoded > 1000,
        "only {decoded} mutated messages could be decoded: the mutations are too wild to test anything"
    );
}

fn mutate(frame: &mut Vec<u8>, dice: &mut Sampler) {
    const EDGES: [u8; 8] = [0x00, 0x01, 0x02, 0x7f, 0x80, 0x81, 0xfe, 0xff];
    let at = dice.below(frame.len() + 1);
    match dice.below(5) {
        0 => frame.truncate(at),
        1 => frame.insert(at, EDGES[dice.below(EDGES.len())]),
        2 if at < frame.len() => frame[at] ^= 1 << dice.below(8),
        3 if at < frame.len() => frame[at] = EDGES[dice.below(EDGES.len())],
        _ => {
            let part = frame[at..].to_vec();
            frame.extend_from_slice(&part);
        }
    }
}
