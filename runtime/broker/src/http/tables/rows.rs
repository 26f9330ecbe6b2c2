//! Rows as JSON. A value that is JSON is put in as it is, byte for byte: no number of it is read and written again.

use pelton_streams::tables::{Row, ValueFormat};
use serde::Serialize;

use super::is_json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Appends a value of our own as JSON.
pub(super) fn push_json<T: Serialize + ?Sized>(body: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(body, value).expect("strings, numbers and maps of them always serialise");
}

/// An answer about a table: which one, what `rest` appends, and which offsets it reflects.
pub(super) fn answer(
    body: &mut Vec<u8>,
    table: &str,
    offsets: &impl Serialize,
    rest: impl FnOnce(&mut Vec<u8>),
) {
    body.extend_from_slice(b"{\"table\":");
    push_json(body, table);
    body.extend_from_slice(b",\"offsets\":");
    push_json(body, offsets);
    rest(body);
    body.push(b'}');
}

/// Appends the fields of a row.
pub(super) fn push_fields(body: &mut Vec<u8>, row: &Row, format: ValueFormat) {
    push_key(body, &row.key);
    push_value(body, Some(&row.value), format);
    body.extend_from_slice(b",\"timestamp\":");
    push_json(body, &row.timestamp);
}

/// Appends `key`, or `key_base64` if it is no text.
pub(super) fn push_key(body: &mut Vec<u8>, key: &[u8]) {
    match std::str::from_utf8(key) {
        Ok(text) => {
            body.extend_from_slice(b"\"key\":");
            push_json(body, text);
        }
        Err(_) => {
            body.extend_from_slice(b"\"key_base64\":");
            push_json(body, &STANDARD.encode(key));
        }
    }
}

/// Appends `value`, or `value_base64` if it is not what the table's values are.
pub(super) fn push_value(body: &mut Vec<u8>, value: Option<&[u8]>, format: ValueFormat) {
    let Some(value) = value else {
        body.extend_from_slice(b",\"value\":null");
        return;
    };
    let text = std::str::from_utf8(value).ok().filter(|_| format == ValueFormat::Raw);
    if let Some(text) = text {
        body.extend_from_slice(b",\"value\":");
        push_json(body, text);
    } else if is_json(format, value) {
        body.extend_from_slice(b",\"value\":");
        // Outside of its strings, which have none, line ends are white space. Events end at line ends.
        body.extend(value.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    } else {
        body.extend_from_slice(b",\"value_base64\":");
        push_json(body, &STANDARD.encode(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shown_as_they_are_or_in_base64() {
        let shown = |key: &[u8], value: &[u8], format| {
            let mut body = b"{".to_vec();
            let row = Row { key: key.to_vec(), value: value.to_vec(), timestamp: 7 };
            push_fields(&mut body, &row, format);
            body.push(b'}');
            serde_json::from_slice::<serde_json::Value>(&body).expect("it is JSON");
            String::from_utf8(body).unwrap()
        };
        let (json, raw) = (ValueFormat::Json, ValueFormat::Raw);
        assert_eq!(
            shown(b"a", b"{\"n\": 1.10,\n\"m\": [\"x\"]}", json),
            r#"{"key":"a","value":{"n": 1.10, "m": ["x"]},"timestamp":7}"#
        );
        assert_eq!(shown(b"a\"", b"{}", raw), r#"{"key":"a\"","value":"{}","timestamp":7}"#);
        assert_eq!(shown(b"", b"", raw), r#"{"key":"","value":"","timestamp":7}"#);
        assert_eq!(shown(b"a", b"{,}", json), r#"{"key":"a","value_base64":"eyx9","timestamp":7}"#);
        assert_eq!(
            shown(b"\xff", b"\xfe", raw),
            r#"{"key_base64":"/w==","value_base64":"/g==","timestamp":7}"#
        );
        assert_eq!(shown(b"a", b"\"\xff\"", json), r#"{"key":"a","value_base64":"Iv8i","timestamp":7}"#);
    }
}
