//! Rows that an operator keeps until later.
//!
//! ```text
//! version(1) flags(1): 1 a key, 2 a value, 4 headers, 8 what the operator notes
//! if it has a key: length(4) key
//! if it has headers: count(4) and for each: length(4) name, length(4) value (length 2^32 - 1: null)
//! the value, up to the end
//! ```

use bytes::Bytes;

use super::row::{Header, Row, RowHeaders};
use crate::state::Blob;

const VERSION: u8 = 1;
const KEY: u8 = 1;
const VALUE: u8 = 2;
const HEADERS: u8 = 4;
const NOTED: u8 = 8;
const NULL: u32 = u32::MAX;

/// Appends a row without its time and, where `key` is none, without its key: the place where it is stored has them.
pub(super) fn encode(out: &mut Vec<u8>, key: Option<&[u8]>, row: &Row, noted: bool) {
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let headers = row.headers.as_slice();
    out.push(VERSION);
    out.push(
        flag(key.is_some(), KEY)
            | flag(row.value.is_some(), VALUE)
            | flag(!headers.is_empty(), HEADERS)
            | flag(noted, NOTED),
    );
    if let Some(key) = key {
        push(out, Some(key));
    }
    if !headers.is_empty() {
        out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for Header { name, value } in headers {
            push(out, Some(name));
            push(out, value.as_deref());
        }
    }
    out.extend_from_slice(row.value.as_deref().unwrap_or_default());
}

fn push(out: &mut Vec<u8>, field: Option<&[u8]>) {
    // A record has less than 2 GiB.
    let len = field.map_or(NULL, |field| field.len() as u32);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(field.unwrap_or_default());
}

/// Whether the operator has noted what it notes. None if this version does not know the layout.
pub(super) fn is_noted(stored: &[u8]) -> Option<bool> {
    let (&[version, flags], _) = stored.split_first_chunk::<2>()?;
    (version == VERSION).then_some(flags & NOTED != 0)
}

/// Notes it.
pub(super) fn note(stored: &mut [u8]) {
    if let Some(flags) = stored.get_mut(1) {
        *flags |= NOTED;
    }
}

/// Key, value and headers; none if this version does not know the layout.
pub(super) fn decode(stored: &Blob) -> Option<Row> {
    let whole = Bytes::from_owner(Blob::clone(stored));
    let (&[version, flags], rest) = stored.split_first_chunk::<2>()?;
    if version != VERSION {
        return None;
    }
    let mut fields = Fields { whole: &whole, rest };
    let key = if flags & KEY != 0 { fields.next()? } else { None };
    let mut headers = Vec::new();
    if flags & HEADERS != 0 {
        let (count, rest) = fields.rest.split_first_chunk::<4>()?;
        fields.rest = rest;
        for _ in 0..u32::from_be_bytes(*count) {
            let name = fields.next()??;
            headers.push(Header { name, value: fields.next()? });
        }
    }
    let value = (flags & VALUE != 0).then(|| whole.slice_ref(fields.rest));
    Some(Row { key, value, headers: RowHeaders::new(headers), ..Row::default() })
}

struct Fields<'s> {
    whole: &'s Bytes,
    rest: &'s [u8],
}

impl Fields<'_> {
    /// The next field, which may be null. None if there is none.
    fn next(&mut self) -> Option<Option<Bytes>> {
        let (len, after) = self.rest.split_first_chunk::<4>()?;
        let len = u32::from_be_bytes(*len);
        if len == NULL {
            self.rest = after;
            return Some(None);
        }
        let (field, after) = after.split_at_checked(len as usize)?;
        self.rest = after;
        Some(Some(self.whole.slice_ref(field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back() {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let headers = RowHeaders::new(vec![
            Header { name: bytes("a"), value: Some(bytes("1")) },
            Header { name: bytes(""), value: None },
        ]);
        for key in [None, Some(bytes("")), Some(bytes("key"))] {
            for value in [None, Some(bytes("")), Some(bytes("value"))] {
                for headers in [RowHeaders::default(), headers.clone()] {
                    let row = Row { key: key.clone(), value: value.clone(), headers, ..Row::default() };
                    let mut out = Vec::new();
                    encode(&mut out, key.as_deref(), &row, false);
                    assert_eq!(is_noted(&out), Some(false));
                    note(&mut out);
                    assert_eq!(is_noted(&out), Some(true));
                    assert_eq!(decode(&Blob::from(&out[..])), Some(row));
                    for cut in 0..out.len() {
                        // Shorter: another value, or nothing. Never a panic.
                        let _ = decode(&Blob::from(&out[..cut]));
                    }
                }
            }
        }
    }
}
