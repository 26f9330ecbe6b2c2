//! What counts as JSON.

use serde::de::IgnoredAny;

/// True if these bytes are one JSON text, which is UTF-8 (RFC 8259). `serde_json` alone passes over strings that nobody asks
/// for without looking at their bytes.
pub fn is_json(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_utf8() {
        for good in [&b"{\"a\": [1.10, \"\xc3\xa4\"]}"[..], b"null", b" 1 "] {
            assert!(is_json(good), "{good:?}");
        }
        for bad in [&b""[..], b"{,}", b"1 2", b"\"\xff\"", b"{\"\xff\": 1}", b"[1, \"\xc3\"]"] {
            assert!(!is_json(bad), "{bad:?}");
        }
    }
}
