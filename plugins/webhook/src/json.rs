//! A record as JSON. What is text is a string; other bytes are an object with their base64, so that nothing is lost.

use std::fmt::Write;

use pelton_sdk::Record;

pub(crate) fn object(record: Record<'_>) -> String {
    let mut out = String::from("{\"topic\":");
    string(&mut out, record.topic());
    let (partition, offset, timestamp) = (record.partition(), record.offset(), record.timestamp());
    let _ = write!(out, ",\"partition\":{partition},\"offset\":{offset},\"timestamp\":{timestamp}");
    for (name, field) in [("key", record.key()), ("value", record.value())] {
        let _ = write!(out, ",\"{name}\":");
        bytes(&mut out, field);
    }
    out.push_str(",\"headers\":[");
    for (i, (name, value)) in record.headers().enumerate() {
        out.push_str(if i == 0 { "[" } else { ",[" });
        string(&mut out, &String::from_utf8_lossy(name));
        out.push(',');
        bytes(&mut out, value);
        out.push(']');
    }
    out.push_str("]}");
    out
}

fn bytes(out: &mut String, field: Option<&[u8]>) {
    match field.map(std::str::from_utf8) {
        None => out.push_str("null"),
        Some(Ok(text)) => string(out, text),
        Some(Err(_)) => {
            out.push_str("{\"base64\":\"");
            base64(out, field.unwrap_or_default());
            out.push_str("\"}");
        }
    }
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn base64(out: &mut String, bytes: &[u8]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for i in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
}
