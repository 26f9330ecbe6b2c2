//! The length in front of every frame.

/// Bytes of the length prefix.
pub const LENGTH_BYTES: usize = 4;

/// Bytes that every request has at least: API key, version and correlation id.
pub const MIN_REQUEST: usize = 8;

/// Why a length prefix was refused. A connection that sent one cannot go on: where the next frame starts is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Too short to be a frame of its kind.
    #[error("frame length {len} is below the {min} bytes that it has at least")]
    TooShort {
        /// The length on the wire.
        len: i32,
        /// The least there can be.
        min: usize,
    },
    /// Above the limit of the receiver.
    #[error("frame length {len} is above the limit of {limit} bytes")]
    TooLong {
        /// The length on the wire.
        len: i32,
        /// The limit.
        limit: usize,
    },
}

/// Reads a length prefix: the number of bytes that follow it.
///
/// `min` is the shortest frame that makes sense ([`MIN_REQUEST`] for a request, 4 for a response), `limit` what the
/// receiver is ready to hold in memory.
///
/// # Errors
/// When the length is outside of `min..=limit`; text that reaches a Kafka port by mistake ("GET ", TLS) ends here.
pub fn parse_length(prefix: [u8; LENGTH_BYTES], min: usize, limit: usize) -> Result<usize, FrameError> {
    let len = i32::from_be_bytes(prefix);
    match usize::try_from(len) {
        Ok(bytes) if bytes > limit => Err(FrameError::TooLong { len, limit }),
        Ok(bytes) if bytes >= min => Ok(bytes),
        _ => Err(FrameError::TooShort { len, min }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        let parse = |prefix: &[u8; 4]| parse_length(*prefix, MIN_REQUEST, 1024);
        assert_eq!(parse(&[0, 0, 0, 8]), Ok(8));
        assert_eq!(parse(&[0, 0, 4, 0]), Ok(1024));
        assert_eq!(parse(&[0, 0, 4, 1]), Err(FrameError::TooLong { len: 1025, limit: 1024 }));
        assert_eq!(parse(&[0, 0, 0, 7]), Err(FrameError::TooShort { len: 7, min: 8 }));
        assert_eq!(parse(&[0xff; 4]), Err(FrameError::TooShort { len: -1, min: 8 }));
        assert_eq!(parse(b"GET "), Err(FrameError::TooLong { len: 0x4745_5420, limit: 1024 }));
    }
}
