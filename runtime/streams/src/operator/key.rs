//! Keys whose bytes sort as what they mean.

use std::borrow::Cow;

use super::row::{Window, WindowKind};

/// First bytes of the keys of stores that have several kinds of entries. See the module of operators.
pub mod tag {
    /// Stream time and the like: the only key of one byte.
    pub const META: u8 = 0x00;
    /// Windows of fixed places.
    pub const WINDOW: u8 = 0x01;
    /// All that is alive of a key.
    pub const LIVE: u8 = 0x02;
    /// When that has to be looked at.
    pub const DUE: u8 = 0x03;
    /// Closed windows, for readers.
    pub const CLOSED: u8 = 0x04;
    /// When they are forgotten.
    pub const EXPIRY: u8 = 0x05;
    /// Rows of a stream-stream join.
    pub const ROWS: u8 = 0x06;
    /// Those that have not matched.
    pub const UNMATCHED: u8 = 0x07;
    /// Versions that are not the latest.
    pub const VERSION: u8 = 0x08;
    /// When they are forgotten.
    pub const UNTIL: u8 = 0x09;
    /// Rows that wait.
    pub const WAITING: u8 = 0x0a;
    /// Subscriptions of a foreign-key join.
    pub const SUBSCRIPTION: u8 = 0x0b;
    /// Timers by time.
    pub const TIMER: u8 = 0x0c;
    /// The time of a timer, by name.
    pub const TIMER_NAME: u8 = 0x0d;
    /// The time at which the latest version deleted its key.
    pub const GONE: u8 = 0x0e;
    /// Left rows of a foreign-key join.
    pub const LEFT_ROW: u8 = 0x0f;
    /// Windows that a plugin keeps.
    pub const PLUGIN_WINDOW: u8 = 0x10;
    /// When they are forgotten.
    pub const PLUGIN_UNTIL: u8 = 0x11;
    /// Rows that wait until all is out that closes before them.
    pub const BACKLOG: u8 = 0x12;
    /// Sessions and sliding windows that have closed and are not out.
    pub const CLOSING: u8 = 0x13;
    /// Rows that have passed deduplication.
    pub const SEEN: u8 = 0x14;
    /// When they are forgotten.
    pub const SEEN_UNTIL: u8 = 0x15;
}

/// What stands for a zero byte within an escaped field: a zero and this.
const ESCAPED_ZERO: u8 = 0xff;
/// What ends an escaped field: a zero and this. It is below every byte that may follow a zero, so a field sorts before
/// those that it begins.
const END: u8 = 0x01;

/// Appends bytes so that they sort, and so that what is appended next sorts within them.
pub fn push_escaped(out: &mut Vec<u8>, field: &[u8]) {
    out.reserve(field.len() + 2);
    let mut rest = field;
    while let Some(zero) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[0, ESCAPED_ZERO]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, END]);
}

/// Reads what [`push_escaped`] wrote; the rest of the key follows. None if it is not that.
pub fn read_escaped(key: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut unescaped: Option<Vec<u8>> = None;
    let mut from = 0;
    loop {
        let zero = from + key[from..].iter().position(|byte| *byte == 0)?;
        match *key.get(zero + 1)? {
            END => {
                let field = match unescaped {
                    None => Cow::Borrowed(&key[..zero]),
                    Some(mut field) => {
                        field.extend_from_slice(&key[from..zero]);
                        Cow::Owned(field)
                    }
                };
                return Some((field, &key[zero + 2..]));
            }
            ESCAPED_ZERO => {
                unescaped.get_or_insert_default().extend_from_slice(&key[from..=zero]);
                from = zero + 2;
            }
            _ => return None,
        }
    }
}

/// Appends a number so that negative ones sort before others.
pub fn push_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&sortable(value));
}

/// The bytes of [`push_i64`].
pub fn sortable(value: i64) -> [u8; 8] {
    (value.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// Reads what [`push_i64`] wrote.
pub fn read_i64(key: &[u8]) -> Option<(i64, &[u8])> {
    let (bytes, rest) = key.split_first_chunk::<8>()?;
    Some(((u64::from_be_bytes(*bytes) ^ (1 << 63)).cast_signed(), rest))
}

/// Appends a number so that larger ones sort first.
pub fn push_i64_descending(out: &mut Vec<u8>, value: i64) {
    push_i64(out, !value);
}

/// Reads what [`push_i64_descending`] wrote.
pub fn read_i64_descending(key: &[u8]) -> Option<(i64, &[u8])> {
    let (value, rest) = read_i64(key)?;
    Some((!value, rest))
}

/// Appends a count.
pub fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Reads what [`push_u64`] wrote.
pub fn read_u64(key: &[u8]) -> Option<(u64, &[u8])> {
    let (bytes, rest) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*bytes), rest))
}

/// The key of a windowed result as Kafka Streams writes it to a topic: the key, then the start of the window; for a
/// session its end and its start. Both as big endian numbers.
pub fn windowed(key: &[u8], window: &Window) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 16);
    out.extend_from_slice(key);
    if window.kind == WindowKind::Session {
        out.extend_from_slice(&window.end.to_be_bytes());
    }
    out.extend_from_slice(&window.start.to_be_bytes());
    out
}

/// A key that begins with a tag.
pub(super) fn tagged(out: &mut Vec<u8>, tag: u8) {
    out.clear();
    out.push(tag);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0_u8), Just(1), Just(0xff), any::<u8>()];
        proptest::collection::vec(byte, 0..6)
    }

    fn composed(a: &[u8], b: i64, c: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_escaped(&mut out, a);
        push_i64(&mut out, b);
        push_escaped(&mut out, c);
        out
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_fields(
            left in (bytes(), any::<i64>(), bytes()),
            right in (bytes(), any::<i64>(), bytes()),
        ) {
            let (l, r) = (composed(&left.0, left.1, &left.2), composed(&right.0, right.1, &right.2));
            prop_assert_eq!(l.cmp(&r), left.cmp(&right));
        }

        #[test]
        fn keys_are_read_back(a in bytes(), b in any::<i64>(), c in bytes()) {
            let key = composed(&a, b, &c);
            let (field, rest) = read_escaped(&key).unwrap();
            prop_assert_eq!(&*field, &a[..]);
            let (number, rest) = read_i64(rest).unwrap();
            prop_assert_eq!(number, b);
            let (field, rest) = read_escaped(rest).unwrap();
            prop_assert_eq!(&*field, &c[..]);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn descending_numbers(a in any::<i64>(), b in any::<i64>()) {
            let key = |value| { let mut out = Vec::new(); push_i64_descending(&mut out, value); out };
            prop_assert_eq!(key(a).cmp(&key(b)), b.cmp(&a));
            prop_assert_eq!(read_i64_descending(&key(a)).unwrap().0, a);
        }

        #[test]
        fn no_bytes_make_it_panic(key in bytes()) {
            let _ = read_escaped(&key);
            let _ = read_i64(&key);
        }
    }

    #[test]
    fn windowed_keys_are_those_of_kafka_streams() {
        let time = Window { kind: WindowKind::Time, start: 3_600_000, end: 7_200_000 };
        assert_eq!(windowed(b"k", &time), b"k\0\0\0\0\x00\x36\xee\x80");
        let session = Window { kind: WindowKind::Session, start: 3, end: 10 };
        assert_eq!(windowed(b"k", &session), b"k\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\x03");
    }
}
