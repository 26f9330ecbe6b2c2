//! Request and response headers.

use crate::api::{ApiKey, range};
use crate::codec::{Ctx, DecodeError, EncodeError, Field, Reader, Writer};
use crate::error_code::ErrorCode;
use crate::message::api_versions::advertised;
use crate::message::{ApiVersionsResponse, Message};

/// The header of a request.
///
/// Its own version follows from API and version of the request: 2 (with tagged fields) where those are flexible, else
/// 1. Version 0, which has no client id, was used by an API that is gone (ControlledShutdown v0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api_key: ApiKey,
    /// The version of the request, and of its response.
    pub api_version: i16,
    /// Chosen by the client and sent back with the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
}

/// The start of a request's header, which has the same shape in every version: enough to refuse the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestPreamble {
    /// The API key on the wire, whether this codec has it or not.
    pub api_key: i16,
    /// The version on the wire, whether this codec has it or not.
    pub api_version: i16,
    /// Chosen by the client and sent back with the response.
    pub correlation_id: i32,
}

impl RequestPreamble {
    /// Reads key, version and correlation id.
    ///
    /// # Errors
    /// When the frame is shorter than that.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let at = |error: crate::codec::Malformed| DecodeError::from(error).at("RequestHeader", "preamble");
        Ok(Self {
            api_key: r.i16().map_err(at)?,
            api_version: r.i16().map_err(at)?,
            correlation_id: r.i32().map_err(at)?,
        })
    }
}

/// The client id is not compact even where the rest of the header is (KIP-482: a broker must be able to read it without
/// knowing the API).
const CLIENT_ID: Ctx = Ctx { version: 1, flexible: false };

impl RequestHeader {
    /// Reads a header; the message follows.
    ///
    /// A broker that wants to answer what it cannot read (an unknown version of ApiVersions, KIP-511) looks at
    /// [`RequestPreamble`] of the same frame first.
    ///
    /// # Errors
    /// [`DecodeError::UnknownApiKey`], [`DecodeError::UnsupportedVersion`], or malformed bytes.
    pub fn decode(r: &mut Reader) -> Result<Self, DecodeError> {
        let preamble = RequestPreamble::decode(r)?;
        let api_key =
            ApiKey::from_key(preamble.api_key).ok_or(DecodeError::UnknownApiKey(preamble.api_key))?;
        let ctx = Ctx::to_decode(api_key, preamble.api_version)?;
        let client_id =
            Option::<String>::decode(r, CLIENT_ID).map_err(|error| error.at("RequestHeader", "client_id"))?;
        if ctx.flexible {
            r.tagged_fields(|_, _| Ok(false)).map_err(|error| error.at("RequestHeader", "tagged fields"))?;
        }
        let RequestPreamble { api_version, correlation_id, .. } = preamble;
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header.
    ///
    /// # Errors
    /// When the API has no such version, or the client id is longer than 32767 bytes.
    pub fn encode(&self, w: &mut Writer) -> Result<(), EncodeError> {
        let ctx = Ctx::to_encode(self.api_key, self.api_version)?;
        w.i16(self.api_key as i16);
        w.i16(self.api_version);
        w.i32(self.correlation_id);
        self.client_id.encode(w, CLIENT_ID).map_err(|error| error.at("RequestHeader", "client_id"))?;
        if ctx.flexible {
            w.uvarint(0);
        }
        Ok(())
    }
}

/// The header of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The one of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Whether the header has tagged fields. That of ApiVersions never has: a client must be able to read the answer
    /// before it knows which versions the broker speaks (KIP-511).
    fn flexible(key: ApiKey, version: i16) -> bool {
        key != ApiKey::ApiVersions && range(key).is_flexible(version)
    }

    /// Reads the header of a response to a request of this API and version.
    ///
    /// # Errors
    /// When the bytes are malformed.
    pub fn decode(r: &mut Reader, key: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let correlation_id =
            r.i32().map_err(|fact| DecodeError::from(fact).at("ResponseHeader", "correlation_id"))?;
        if Self::flexible(key, version) {
            r.tagged_fields(|_, _| Ok(false)).map_err(|error| error.at("ResponseHeader", "tagged fields"))?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes the header of a response to a request of this API and version.
    pub fn encode(&self, w: &mut Writer, key: ApiKey, version: i16) {
        w.i32(self.correlation_id);
        if Self::flexible(key, version) {
            w.uvarint(0);
        }
    }
}

/// Writes header and body that answer an ApiVersions request of a version that is not known: UNSUPPORTED_VERSION in
/// version 0, which every client reads, with the versions of ApiVersions itself, so that the client can ask again in
/// one of them (KIP-511). Any other API in an unknown version is not answered: Kafka closes the connection.
///
/// The request cannot be read; its correlation id is in the [`RequestPreamble`].
///
/// # Errors
/// None in practice: the response has a fixed content of a few bytes.
pub fn refuse_api_versions(w: &mut Writer, correlation_id: i32) -> Result<(), EncodeError> {
    const READ_BY_ALL: i16 = 0;
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: advertised(&[ApiKey::ApiVersions]),
        ..Default::default()
    };
    ResponseHeader { correlation_id }.encode(w, ApiKey::ApiVersions, READ_BY_ALL);
    Message::encode(&response, w, READ_BY_ALL)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::Malformed;

    fn check_request(key: ApiKey, version: i16, hex_bytes: &str) {
        let header = RequestHeader {
            api_key: key,
            api_version: version,
            correlation_id: 7,
            client_id: Some("me".to_owned()),
        };
        let mut w = Writer::new();
        header.encode(&mut w).unwrap();
        let bytes = w.into_bytes().unwrap();
        assert_eq!(hex::encode(&bytes), hex_bytes, "{key:?} v{version}");
        let mut r = Reader::new(bytes);
        assert_eq!(RequestHeader::decode(&mut r).unwrap(), header);
        r.finish().unwrap();
    }

    #[test]
    fn the_client_id_is_never_compact() {
        check_request(ApiKey::Metadata, 8, "000300080000000700026d65");
        check_request(ApiKey::Metadata, 9, "000300090000000700026d6500");
        check_request(ApiKey::ApiVersions, 3, "001200030000000700026d6500");
    }

    #[test]
    fn the_response_header_of_api_versions_is_always_version_0() {
        for (key, version, expect) in [
            (ApiKey::ApiVersions, 0, "00000007"),
            (ApiKey::ApiVersions, 4, "00000007"),
            (ApiKey::Metadata, 8, "00000007"),
            (ApiKey::Metadata, 9, "0000000700"),
        ] {
            let mut w = Writer::new();
            ResponseHeader { correlation_id: 7 }.encode(&mut w, key, version);
            let bytes = w.into_bytes().unwrap();
            assert_eq!(hex::encode(&bytes), expect, "{key:?} v{version}");
            let mut r = Reader::new(bytes);
            assert_eq!(ResponseHeader::decode(&mut r, key, version).unwrap().correlation_id, 7);
            r.finish().unwrap();
        }
    }

    /// A client of the future asks in version 127 and learns that 0 to 4 are spoken.
    #[test]
    fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
        let mut request =
            Reader::new(Bytes::from_static(&[0, 18, 0, 127, 0, 0, 0, 7, 0, 2, b'm', b'e', 0, 9, 9]));
        let preamble = RequestPreamble::decode(&mut request).unwrap();
        assert_eq!((preamble.api_key, preamble.api_version), (18, 127));
        let mut w = Writer::framed();
        refuse_api_versions(&mut w, preamble.correlation_id).unwrap();
        assert_eq!(hex::encode(w.into_bytes().unwrap()), "0000001000000007002300000001001200000005");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let decode =
            |bytes: &'static [u8]| RequestHeader::decode(&mut Reader::new(Bytes::from_static(bytes)));
        assert_eq!(decode(&[0, 99, 0, 0, 0, 0, 0, 1, 0, 0]), Err(DecodeError::UnknownApiKey(99)));
        assert_eq!(
            decode(&[0, 18, 0, 127, 0, 0, 0, 1, 0, 0]),
            Err(DecodeError::UnsupportedVersion { api: ApiKey::ApiVersions, version: 127, min: 0, max: 5 })
        );
        // A frame of fewer than 4 bytes: a panic in another codec.
        for len in 0..8 {
            let error = decode(&[0; 8][..len]).unwrap_err();
            assert!(
                matches!(error, DecodeError::Malformed { fact: Malformed::Truncated { .. }, .. }),
                "{error}"
            );
        }
    }
}
