//! The parameters of a request about a table. Keys are bytes, so they are taken from the request line as they came.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use crate::http::reply::Refusal;

/// What begins a value that is written in base64.
const BASE64: &[u8] = b"base64:";
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Parameters, decoded.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Takes a query string apart. Every parameter must be among those that are `known`, and come once.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Query, Refusal> {
        let mut parameters: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // As forms write a space.
            let value = bytes_of(&value.replace('+', " "));
            if !known.contains(&name) {
                let known = known.join("`, `");
                return Err(Refusal::bad_request(format!(
                    "there is no parameter `{name}` here; known: `{known}`"
                )));
            }
            if parameters.iter().any(|(before, _)| before == name) {
                return Err(Refusal::bad_request(format!("the parameter `{name}` is there twice")));
            }
            parameters.push((name.to_owned(), value));
        }
        Ok(Query(parameters))
    }

    fn raw(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Bytes: as they are, or in base64 (of either alphabet) behind `base64:`.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let Some(encoded) = value.strip_prefix(BASE64) else { return Ok(Some(value.to_vec())) };
        let plain: Vec<u8> = encoded
            .iter()
            .map(|byte| match byte {
                // A plus that came as it is was read as a space.
                b'+' | b' ' => b'-',
                b'/' => b'_',
                byte => *byte,
            })
            .collect();
        let bytes = LENIENT.decode(plain);
        bytes.map(Some).map_err(|error| Refusal::bad_request(format!("`{name}` is no base64: {error}")))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Refusal> {
        let text = self.raw(name).map(|value| String::from_utf8(value.to_vec())).transpose();
        text.map_err(|_| Refusal::bad_request(format!("`{name}` is no text")))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let number = self.text(name)?.map(|text| text.parse()).transpose();
        number.map_err(|_| Refusal::bad_request(format!("`{name}` is no whole number")))
    }
}

/// The bytes that a percent-encoded text means.
pub(super) fn bytes_of(encoded: &str) -> Vec<u8> {
    percent_decode_str(encoded).collect()
}

/// The text that a percent-encoded text means.
pub(super) fn text_of(encoded: &str) -> Result<String, Refusal> {
    String::from_utf8(bytes_of(encoded)).map_err(|_| Refusal::bad_request("the path is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_any_bytes() {
        let key = |query: &str| Query::parse(Some(query), &["key", "x"]).unwrap().bytes("key");
        assert_eq!(key("key=a%2Fb%00%FF").unwrap().unwrap(), b"a/b\0\xff");
        assert_eq!(key("x=1&key=").unwrap().unwrap(), b"");
        assert_eq!(key("key=a+b%2B").unwrap().unwrap(), b"a b+");
        assert_eq!(key("key=base64:%2Fw%3D%3D").unwrap().unwrap(), b"\xff");
        for alphabet in ["base64:++//", "base64:--__", "base64:%2B%2B//"] {
            assert_eq!(key(&format!("key={alphabet}")).unwrap().unwrap(), b"\xfb\xef\xff");
        }
        assert_eq!(key("x=1").unwrap(), None);
        assert!(key("key=base64:!").is_err());
        assert_eq!(bytes_of("a%2fb+%"), b"a/b+%");
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = |query: &str| format!("{:?}", Query::parse(Some(query), &["limit"]).err().unwrap());
        assert!(refused("limti=3").contains("limti"));
        assert!(refused("limit=3&limit=4").contains("twice"));
        let number = |query: &str| Query::parse(Some(query), &["limit"]).unwrap().number("limit");
        assert_eq!(number("limit=3").unwrap(), Some(3));
        for wrong in ["limit=", "limit=-1", "limit=x", "limit=%FF"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }
}
