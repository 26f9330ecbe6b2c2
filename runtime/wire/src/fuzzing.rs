//! What tests and fuzzers of this codec share: valid messages from a seed, and one entry that runs all of it on
//! arbitrary bytes. Built with the feature `fuzzing` only.

use bytes::Bytes;

use crate::api::{ApiKey, range};
pub use crate::codec::Sampler;
use crate::codec::{Ctx, Field, Reader, Writer};
use crate::header::{RequestHeader, ResponseHeader};
use crate::message::Message;

/// A valid message of this version.
pub fn sample<M: Message + Field>(sampler: &mut Sampler, version: i16, flexible: bool) -> M {
    M::sample(sampler, Ctx { version, flexible })
}

/// Which of the two messages of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From client to broker.
    Request,
    /// From broker to client.
    Response,
}

/// Calls a generic function with the message type of an API and a direction.
macro_rules! dispatch {
    ($($key:ident $request:ident $response:ident,)*) => {
        /// The bytes of a valid message.
        pub fn sample_bytes(sampler: &mut Sampler, key: ApiKey, version: i16, direction: Direction) -> Bytes {
            match (key, direction) {
                $(
                    (ApiKey::$key, Direction::Request) => sampled::<crate::message::$request>(sampler, key, version),
                    (ApiKey::$key, Direction::Response) => sampled::<crate::message::$response>(sampler, key, version),
                )*
            }
        }

        /// Decodes a message. If that works, what it encodes to must decode to the same message again, and encode to
        /// the same bytes. Returns whether it worked.
        ///
        /// # Panics
        /// When the codec disagrees with itself.
        pub fn round_trip(body: Bytes, key: ApiKey, version: i16, direction: Direction) -> bool {
            match (key, direction) {
                $(
                    (ApiKey::$key, Direction::Request) => round_tripped::<crate::message::$request>(body, version),
                    (ApiKey::$key, Direction::Response) => round_tripped::<crate::message::$response>(body, version),
                )*
            }
        }
    };
}

crate::for_each_api!(dispatch);

fn encoded<M: Message>(message: &M, version: i16) -> Bytes {
    let mut w = Writer::new();
    message.encode(&mut w, version).expect("what was sampled or decoded for a version can be encoded in it");
    w.into_bytes().expect("nothing sampled or decoded is external")
}

fn sampled<M: Message + Field>(sampler: &mut Sampler, key: ApiKey, version: i16) -> Bytes {
    let message: M = sample(sampler, version, range(key).is_flexible(version));
    encoded(&message, version)
}

fn round_tripped<M: Message + PartialEq + std::fmt::Debug>(body: Bytes, version: i16) -> bool {
    let Ok(message) = M::decode(&mut Reader::new(body), version) else { return false };
    let bytes = encoded(&message, version);
    let mut r = Reader::new(bytes.clone());
    let again = M::decode(&mut r, version).expect("what was encoded can be decoded");
    r.finish().expect("nothing is left of what was encoded");
    assert_eq!(again, message);
    assert_eq!(encoded(&again, version), bytes);
    true
}

/// The entry for fuzzers. The first three bytes choose what the rest is taken for: the API, the version (also those
/// just outside of the range), and one of request, response, request with header, response header, record batches.
///
/// # Panics
/// When the codec panics or disagrees with itself: that is what is looked for.
pub fn fuzz_one(data: &[u8]) {
    let [key, version, kind, body @ ..] = data else { return };
    let key = ApiKey::ALL[usize::from(*key) % ApiKey::ALL.len()];
    let known = range(key);
    let version = known.min_decoded - 1 + i16::from(*version) % (known.max - known.min_decoded + 3);
    let body = Bytes::copy_from_slice(body);
    match kind % 5 {
        0 => _ = round_trip(body, key, version, Direction::Request),
        1 => _ = round_trip(body, key, version, Direction::Response),
        2 => fuzz_request(body),
        3 => _ = ResponseHeader::decode(&mut Reader::new(body), key, version),
        _ => crate::record::fuzz_batch(&body),
    }
}

/// What a broker does with a frame.
fn fuzz_request(frame: Bytes) {
    let mut r = Reader::new(frame);
    if let Ok(header) = RequestHeader::decode(&mut r) {
        let body = r.bytes(r.remaining()).expect("what remains is there");
        round_trip(body, header.api_key, header.api_version, Direction::Request);
    }
}
