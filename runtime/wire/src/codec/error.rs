//! Decode and encode errors.

use crate::api::ApiKey;

/// Why a frame could not be decoded.
///
/// The first two are about what the peer asks for, the third about bytes that are no message at all: a broker answers
/// some and closes the connection for others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// This codec has no API with the key.
    #[error("unknown API key {0}")]
    UnknownApiKey(i16),
    /// The API has no such version here.
    #[error("version {version} of {} is not supported (supported: {min} to {max})", api.name())]
    UnsupportedVersion {
        /// The API asked for.
        api: ApiKey,
        /// The version asked for.
        version: i16,
        /// The lowest version that can be decoded.
        min: i16,
        /// The highest version that can be decoded.
        max: i16,
    },
    /// The bytes are not a message of this kind and version.
    #[error("malformed field `{structure}.{field}`: {fact}")]
    Malformed {
        /// The innermost structure of the schema that was being read.
        structure: &'static str,
        /// Its field.
        field: &'static str,
        /// What is wrong with it.
        fact: Malformed,
    },
}

/// What exactly is wrong with a malformed field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The frame ends inside the field.
    #[error("it needs {needed} bytes, {remaining} are left")]
    Truncated {
        /// Bytes the field needs at least.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A count of elements that cannot fit in the bytes that are left.
    #[error("it claims {count} elements, at most {most} fit in the bytes that are left")]
    CountTooLarge {
        /// The count on the wire.
        count: usize,
        /// What fits at the smallest size an element can have.
        most: usize,
    },
    /// A length below −1 (−1 stands for null).
    #[error("its length is {0}")]
    NegativeLength(i64),
    /// A string longer than the 32767 bytes that Kafka allows in any version.
    #[error("it is a string of {0} bytes, which is more than 32767")]
    StringTooLong(usize),
    /// Null where this version has no null.
    #[error("it is null, which this version does not allow")]
    Null,
    /// Text that is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A variable-length integer that does not fit its type.
    #[error("its variable-length integer is too long")]
    VarintTooLong,
    /// A byte that should say whether a structure is present and says neither.
    #[error("its presence byte is {0}, neither -1 nor 1")]
    Presence(i8),
    /// A tagged field whose content and announced size differ.
    #[error("tagged field {tag} announces {declared} bytes and uses {used}")]
    TaggedSize {
        /// The tag.
        tag: u32,
        /// The size on the wire.
        declared: usize,
        /// What its content took.
        used: usize,
    },
    /// The frame would take more memory than a frame of its size may.
    #[error("decoding it would take {wanted} bytes of memory, {left} are left for this frame")]
    OverBudget {
        /// What the field would take.
        wanted: usize,
        /// What is left of the budget.
        left: usize,
    },
    /// The message ended before its frame did.
    #[error("{0} bytes follow the end of the message")]
    Trailing(usize),
}

impl DecodeError {
    /// Names the field, unless a deeper structure has done so.
    #[must_use]
    pub fn at(self, structure: &'static str, field: &'static str) -> Self {
        match self {
            Self::Malformed { structure: "", fact, .. } => Self::Malformed { structure, field, fact },
            other => other,
        }
    }
}

impl From<Malformed> for DecodeError {
    /// The field is named later, by [`DecodeError::at`].
    fn from(fact: Malformed) -> Self {
        Self::Malformed { structure: "", field: "", fact }
    }
}

/// Why a value could not be encoded. All of these are mistakes of the caller, never of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message has no such version.
    #[error("version {version} of {} cannot be written (known: {min} to {max})", api.name())]
    UnsupportedVersion {
        /// The API.
        api: ApiKey,
        /// The version asked for.
        version: i16,
        /// The lowest known version.
        min: i16,
        /// The highest known version.
        max: i16,
    },
    /// The field is set, but this version cannot carry it, and leaving it out would change the meaning.
    #[error("`{structure}.{field}` is set, but version {version} cannot carry it")]
    NotInVersion {
        /// The structure of the schema.
        structure: &'static str,
        /// Its field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// The field is null, but this version has no null for it.
    #[error("`{structure}.{field}` is null, which version {version} does not allow")]
    NullNotAllowed {
        /// The structure of the schema.
        structure: &'static str,
        /// Its field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A string, byte field, array or frame is longer than its length field can say.
    #[error("`{structure}.{field}` has length {len}, the most that can be written is {max}")]
    TooLong {
        /// The structure of the schema.
        structure: &'static str,
        /// Its field.
        field: &'static str,
        /// Its length in bytes or elements.
        len: usize,
        /// The largest length.
        max: usize,
    },
    /// The message has external records, which only the caller can turn into bytes.
    #[error("the message holds external records and cannot be given as plain bytes")]
    ExternalRecords,
}

impl EncodeError {
    /// A length that its length field cannot say; the field is named later, by [`EncodeError::at`].
    pub(crate) fn too_long(len: usize, max: usize) -> Self {
        Self::TooLong { structure: "", field: "", len, max }
    }

    /// Names the field, unless a deeper structure has done so.
    #[must_use]
    pub fn at(self, structure: &'static str, field: &'static str) -> Self {
        match self {
            Self::TooLong { structure: "", len, max, .. } => Self::TooLong { structure, field, len, max },
            other => other,
        }
    }
}
