//! One value out of a record: as JSON has them, with an order over all of them.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD as STANDARD, Engine as _};
use serde::Serialize;

use super::key::{push_escaped, read_escaped};

/// One value. A float that is a whole number within the 64-bit integers is an [`Scalar::Int`], so equal numbers are
/// equal values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'v> {
    Null,
    Bool(bool),
    Int(i64),
    /// Finite.
    Float(f64),
    Text(Cow<'v, str>),
    /// Of a field that is not JSON.
    Bytes(&'v [u8]),
    /// A whole value that is a JSON list or object.
    Document(&'v str),
}

/// First bytes of encoded values: they order values of different types.
mod kind {
    pub(super) const FALSE: u8 = 0x10;
    pub(super) const TRUE: u8 = 0x11;
    pub(super) const NUMBER: u8 = 0x20;
    pub(super) const TEXT: u8 = 0x30;
    pub(super) const BYTES: u8 = 0x40;
    pub(super) const DOCUMENT: u8 = 0x50;
}

/// 2^63: the first float above the 64-bit integers.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

impl<'v> Scalar<'v> {
    /// A number; none if it is not finite.
    pub(super) fn float(value: f64) -> Option<Scalar<'v>> {
        if !value.is_finite() {
            return None;
        }
        let whole = value.trunc() == value && (-INT_END..INT_END).contains(&value);
        Some(if whole { Scalar::Int(value as i64) } else { Scalar::Float(value) })
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Scalar::Null)
    }

    /// The number that it is, or that its bytes are the decimal text of; none if it is something else.
    pub(super) fn number(&self) -> Option<Scalar<'static>> {
        match self {
            Scalar::Int(int) => Some(Scalar::Int(*int)),
            Scalar::Float(float) => Some(Scalar::Float(*float)),
            Scalar::Bytes(bytes) => {
                let text = std::str::from_utf8(bytes).ok()?.trim_ascii();
                match text.parse::<i64>() {
                    Ok(int) => Some(Scalar::Int(int)),
                    Err(_) => Scalar::float(text.parse().ok()?),
                }
            }
            Scalar::Null | Scalar::Bool(_) | Scalar::Text(_) | Scalar::Document(_) => None,
        }
    }

    /// The bytes of a key: text and bytes as they are, anything else as JSON. None for null.
    pub(super) fn key_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Scalar::Null => None,
            Scalar::Text(text) => Some(text.as_bytes().to_vec()),
            Scalar::Bytes(bytes) => Some(bytes.to_vec()),
            other => {
                let mut out = Vec::new();
                other.write_json(&mut out);
                Some(out)
            }
        }
    }

    /// Appends a form that sorts as the values do, and ends by itself. Null cannot be encoded: it is no value.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Scalar::Null => {}
            Scalar::Bool(value) => out.push(if *value { kind::TRUE } else { kind::FALSE }),
            Scalar::Int(int) => {
                // The nearest float sorts it among floats; what that is off by is at most 512.
                let float = *int as f64;
                let off = i128::from(*int) - float as i128;
                push_number(out, float, off as i16);
            }
            Scalar::Float(float) => push_number(out, *float, 0),
            Scalar::Text(text) => {
                out.push(kind::TEXT);
                push_escaped(out, text.as_bytes());
            }
            Scalar::Bytes(bytes) => {
                out.push(kind::BYTES);
                push_escaped(out, bytes);
            }
            Scalar::Document(text) => {
                out.push(kind::DOCUMENT);
                push_escaped(out, text.as_bytes());
            }
        }
    }

    /// Appends its JSON form. Bytes are text where they are UTF-8, and `base64:` with their base64 otherwise.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Scalar::Null => out.extend_from_slice(b"null"),
            Scalar::Bool(value) => write(out, value),
            Scalar::Int(int) => write(out, int),
            Scalar::Float(float) => write(out, float),
            Scalar::Text(text) => write(out, text),
            Scalar::Bytes(bytes) => write_json_bytes(out, bytes),
            Scalar::Document(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

/// Appends bytes as a JSON string.
pub(super) fn write_json_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => write(out, text),
        Err(_) => {
            out.extend_from_slice(b"\"base64:");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// Appends a value as JSON.
pub(super) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Numbers and text have a JSON form, and a vector takes it.
    let _: Result<(), serde_json::Error> = serde_json::to_writer(out, value);
}

/// The bits of a float sort as the floats do once negative ones are turned over.
fn push_number(out: &mut Vec<u8>, float: f64, off: i16) {
    // There is one zero.
    let bits = (float + 0.0).to_bits();
    let sortable = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    out.push(kind::NUMBER);
    out.extend_from_slice(&sortable.to_be_bytes());
    out.extend_from_slice(&(off.cast_unsigned() ^ 1 << 15).to_be_bytes());
}

/// A value that [`Scalar::encode`] wrote, and what follows it.
pub(super) fn decode(bytes: &[u8]) -> Option<(OwnedScalar, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    Some(match *kind {
        kind::FALSE => (OwnedScalar::Bool(false), rest),
        kind::TRUE => (OwnedScalar::Bool(true), rest),
        kind::NUMBER => {
            let (sortable, rest) = rest.split_first_chunk::<8>()?;
            let (off, rest) = rest.split_first_chunk::<2>()?;
            let sortable = u64::from_be_bytes(*sortable);
            let bits = if sortable >> 63 == 1 { sortable ^ 1 << 63 } else { !sortable };
            let off = i128::from((u16::from_be_bytes(*off) ^ 1 << 15).cast_signed());
            (number(f64::from_bits(bits), off), rest)
        }
        kind::TEXT => {
            let (text, rest) = read_escaped(rest)?;
            (OwnedScalar::Text(String::from_utf8(text.into_owned()).ok()?), rest)
        }
        kind::BYTES => {
            let (bytes, rest) = read_escaped(rest)?;
            (OwnedScalar::Bytes(bytes.into_owned()), rest)
        }
        kind::DOCUMENT => {
            let (text, rest) = read_escaped(rest)?;
            (OwnedScalar::Document(String::from_utf8(text.into_owned()).ok()?), rest)
        }
        _ => return None,
    })
}

fn number(float: f64, off: i128) -> OwnedScalar {
    let whole = float.trunc() == float && (-INT_END..=INT_END).contains(&float);
    match i64::try_from(float as i128 + off) {
        Ok(int) if whole => OwnedScalar::Int(int),
        _ => OwnedScalar::Float(float),
    }
}

/// A value that was stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OwnedScalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Document(String),
}

impl OwnedScalar {
    pub(super) fn as_scalar(&self) -> Scalar<'_> {
        match self {
            OwnedScalar::Bool(value) => Scalar::Bool(*value),
            OwnedScalar::Int(int) => Scalar::Int(*int),
            OwnedScalar::Float(float) => Scalar::Float(*float),
            OwnedScalar::Text(text) => Scalar::Text(Cow::Borrowed(text)),
            OwnedScalar::Bytes(bytes) => Scalar::Bytes(bytes),
            OwnedScalar::Document(text) => Scalar::Document(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(scalar: &Scalar<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        scalar.encode(&mut out);
        out
    }

    /// In their order.
    fn ladder() -> Vec<Scalar<'static>> {
        let int = |int| Scalar::Int(int);
        let text = |text| Scalar::Text(Cow::Borrowed(text));
        vec![
            Scalar::Bool(false),
            Scalar::Bool(true),
            Scalar::Float(-1e300),
            Scalar::Float(-9_223_372_036_854_777_856.0),
            int(i64::MIN),
            int(i64::MIN + 1),
            int(-9_007_199_254_740_993),
            int(-9_007_199_254_740_992),
            Scalar::Float(-1.5),
            int(-1),
            Scalar::Float(-f64::MIN_POSITIVE),
            int(0),
            Scalar::Float(f64::MIN_POSITIVE),
            Scalar::Float(0.1),
            int(1),
            Scalar::Float(1.5),
            int(2),
            int(9_007_199_254_740_992),
            int(9_007_199_254_740_993),
            int(9_007_199_254_740_994),
            int(i64::MAX - 1),
            int(i64::MAX),
            Scalar::Float(INT_END),
            Scalar::Float(1e300),
            text(""),
            text("a"),
            text("a\0"),
            text("a\0b"),
            text("ab"),
            text("é"),
            Scalar::Bytes(b""),
            Scalar::Bytes(b"\xff"),
            Scalar::Document("[]"),
        ]
    }

    #[test]
    fn encoded_values_sort_and_are_read_back() {
        let ladder = ladder();
        for (i, a) in ladder.iter().enumerate() {
            for (j, b) in ladder.iter().enumerate() {
                let order = encoded(a).cmp(&encoded(b));
                assert_eq!(order, i.cmp(&j), "{a:?} {b:?}");
            }
            let mut bytes = encoded(a);
            bytes.extend_from_slice(b"rest");
            let (back, rest) = decode(&bytes).unwrap();
            assert_eq!((&back.as_scalar(), rest), (a, &b"rest"[..]));
        }
        assert_eq!(Scalar::float(-0.0), Some(Scalar::Int(0)));
        assert_eq!(Scalar::float(INT_END), Some(Scalar::Float(INT_END)));
        assert_eq!(Scalar::float(f64::NAN), None);
        for cut in 0..11 {
            assert!(decode(&encoded(&Scalar::Float(1.5))[..cut]).is_none());
        }
    }

    #[test]
    fn bytes_in_json() {
        for (bytes, expect) in [
            (&b"a\"b"[..], r#""a\"b""#),
            (b"\xff", r#""base64:/w==""#),
            (b"\xff\xfe", r#""base64://4=""#),
            (b"\xff\xfe\xfd", r#""base64://79""#),
            (b"\xff\xfe\xfd\0", r#""base64://79AA==""#),
        ] {
            let mut out = Vec::new();
            write_json_bytes(&mut out, bytes);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        }
    }

    #[test]
    fn numbers_of_bytes() {
        for (text, expect) in [
            ("12", Some(Scalar::Int(12))),
            (" -1.50 ", Some(Scalar::Float(-1.5))),
            ("1e3", Some(Scalar::Int(1000))),
            ("", None),
            ("NaN", None),
            ("inf", None),
            ("1x", None),
        ] {
            assert_eq!(Scalar::Bytes(text.as_bytes()).number(), expect, "{text}");
        }
    }
}
