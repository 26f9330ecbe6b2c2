//! How the types of Kafka's schema language are read and written.

use bytes::Bytes;
use uuid::Uuid;

#[cfg(feature = "fuzzing")]
use super::Sampler;
use super::{DecodeError, EncodeError, Malformed, Reader, Records, Writer};
use crate::api::{ApiKey, ApiRange, range};
use crate::error_code::ErrorCode;

/// What the encoding of a field depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ctx {
    /// The version of the message.
    pub version: i16,
    /// Whether this version uses compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
}

impl Ctx {
    /// For reading a message of this API and version.
    pub(crate) fn to_decode(api: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let range = range(api);
        if !range.contains(version) {
            let ApiRange { min_decoded: min, max, .. } = range;
            return Err(DecodeError::UnsupportedVersion { api, version, min, max });
        }
        Ok(Self { version, flexible: range.is_flexible(version) })
    }

    /// For writing a message of this API and version.
    pub(crate) fn to_encode(api: ApiKey, version: i16) -> Result<Self, EncodeError> {
        let range = range(api);
        if !range.contains(version) {
            let ApiRange { min_decoded: min, max, .. } = range;
            return Err(EncodeError::UnsupportedVersion { api, version, min, max });
        }
        Ok(Self { version, flexible: range.is_flexible(version) })
    }
}

/// A type that can be a field of a message.
///
/// The nullable half exists because null is encoded in the length of a string or array but takes a byte of its own in
/// front of a structure; `Option<T>` uses it. Its defaults are those of a structure.
pub trait Field: Sized {
    /// The fewest bytes a value takes on the wire: what a count is checked against. Never zero.
    fn min_size(ctx: Ctx) -> usize;

    /// Reads a value.
    ///
    /// # Errors
    /// When the bytes are no such value.
    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, DecodeError>;

    /// Writes a value.
    ///
    /// # Errors
    /// When this version cannot carry it.
    fn encode(&self, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError>;

    /// [`min_size`](Self::min_size) where null is possible.
    fn min_size_nullable(_ctx: Ctx) -> usize {
        1
    }

    /// Reads a value or null.
    ///
    /// # Errors
    /// When the bytes are neither.
    fn decode_nullable(r: &mut Reader, ctx: Ctx) -> Result<Option<Self>, DecodeError> {
        match r.i8()? {
            -1 => Ok(None),
            1 => Self::decode(r, ctx).map(Some),
            other => Err(Malformed::Presence(other).into()),
        }
    }

    /// Writes a value or null.
    ///
    /// # Errors
    /// When this version cannot carry it.
    fn encode_nullable(value: Option<&Self>, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
        match value {
            None => w.i8(-1),
            Some(value) => {
                w.i8(1);
                value.encode(w, ctx)?;
            }
        }
        Ok(())
    }

    /// Whether this value is null: true only for `None`.
    fn is_null(&self) -> bool {
        false
    }

    /// A valid value, for tests.
    #[cfg(feature = "fuzzing")]
    fn sample(sampler: &mut Sampler, ctx: Ctx) -> Self;
}

/// How a type is sampled.
macro_rules! sampled {
    ($sampler:ident => $value:expr) => {
        #[cfg(feature = "fuzzing")]
        fn sample($sampler: &mut Sampler, _: Ctx) -> Self {
            $value
        }
    };
}

macro_rules! number {
    ($($ty:ty: $method:ident, $size:literal;)*) => {$(
        impl Field for $ty {
            fn min_size(_: Ctx) -> usize {
                $size
            }

            fn decode(r: &mut Reader, _: Ctx) -> Result<Self, DecodeError> {
                Ok(r.$method()?)
            }

            fn encode(&self, w: &mut Writer, _: Ctx) -> Result<(), EncodeError> {
                w.$method(*self);
                Ok(())
            }

            sampled!(sampler => sampler.bits() as Self);
        }
    )*};
}

number! {
    i8: i8, 1;
    i16: i16, 2;
    u16: u16, 2;
    i32: i32, 4;
    i64: i64, 8;
}

/// A floating-point number. Two are equal when their bits are, as a message read and written again is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Float64(u64);

impl From<f64> for Float64 {
    fn from(value: f64) -> Self {
        Float64(value.to_bits())
    }
}

impl From<Float64> for f64 {
    fn from(value: Float64) -> Self {
        f64::from_bits(value.0)
    }
}

impl Field for Float64 {
    fn min_size(_: Ctx) -> usize {
        8
    }

    fn decode(r: &mut Reader, _: Ctx) -> Result<Self, DecodeError> {
        Ok(Float64(r.i64()?.cast_unsigned()))
    }

    fn encode(&self, w: &mut Writer, _: Ctx) -> Result<(), EncodeError> {
        w.i64(self.0.cast_signed());
        Ok(())
    }

    sampled!(sampler => Float64(sampler.bits()));
}

impl Field for bool {
    fn min_size(_: Ctx) -> usize {
        1
    }

    /// Any byte but zero is true, as in Kafka.
    fn decode(r: &mut Reader, _: Ctx) -> Result<Self, DecodeError> {
        Ok(r.i8()? != 0)
    }

    fn encode(&self, w: &mut Writer, _: Ctx) -> Result<(), EncodeError> {
        w.i8(i8::from(*self));
        Ok(())
    }

    sampled!(sampler => sampler.one_in(2));
}

impl Field for ErrorCode {
    fn min_size(_: Ctx) -> usize {
        2
    }

    fn decode(r: &mut Reader, _: Ctx) -> Result<Self, DecodeError> {
        Ok(Self(r.i16()?))
    }

    fn encode(&self, w: &mut Writer, _: Ctx) -> Result<(), EncodeError> {
        w.i16(self.0);
        Ok(())
    }

    sampled!(sampler => Self(sampler.bits() as i16));
}

impl Field for Uuid {
    fn min_size(_: Ctx) -> usize {
        16
    }

    fn decode(r: &mut Reader, _: Ctx) -> Result<Self, DecodeError> {
        Ok(r.uuid()?)
    }

    fn encode(&self, w: &mut Writer, _: Ctx) -> Result<(), EncodeError> {
        w.put(self.as_bytes());
        Ok(())
    }

    sampled!(sampler => Self::from_u64_pair(sampler.bits(), sampler.bits()));
}

/// The half of [`Field`] that all types with a length in front share: a value is a nullable value that is not null.
macro_rules! never_null {
    () => {
        fn min_size(ctx: Ctx) -> usize {
            Self::min_size_nullable(ctx)
        }

        fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, DecodeError> {
            Self::decode_nullable(r, ctx)?.ok_or(DecodeError::from(Malformed::Null))
        }

        fn encode(&self, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
            Self::encode_nullable(Some(self), w, ctx)
        }
    };
}

/// Bytes of the longest string. A compact length could say more, but Kafka takes no more in either encoding.
const MAX_STRING: usize = i16::MAX as usize;

impl Field for String {
    never_null!();
    sampled!(sampler => sampler.string());

    fn min_size_nullable(ctx: Ctx) -> usize {
        if ctx.flexible { 1 } else { 2 }
    }

    fn decode_nullable(r: &mut Reader, ctx: Ctx) -> Result<Option<Self>, DecodeError> {
        let len = if ctx.flexible { r.compact_len()? } else { Reader::signed_len(i64::from(r.i16()?))? };
        match len {
            Some(len) if len > MAX_STRING => Err(Malformed::StringTooLong(len).into()),
            _ => Ok(len.map(|len| r.string(len)).transpose()?),
        }
    }

    fn encode_nullable(value: Option<&Self>, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
        let len = value.map(String::len);
        match len {
            Some(len) if len > MAX_STRING => return Err(EncodeError::too_long(len, MAX_STRING)),
            _ if ctx.flexible => w.compact_len(len)?,
            _ => w.len_i16(len)?,
        }
        w.put(value.map_or(b"", |value| value.as_bytes()));
        Ok(())
    }
}

/// The length of bytes or records, or the count of an array.
fn decode_len(r: &mut Reader, ctx: Ctx) -> Result<Option<usize>, Malformed> {
    if ctx.flexible { r.compact_len() } else { Reader::signed_len(i64::from(r.i32()?)) }
}

fn encode_len(len: Option<usize>, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
    if ctx.flexible { w.compact_len(len) } else { w.len_i32(len) }
}

fn len_size(ctx: Ctx) -> usize {
    if ctx.flexible { 1 } else { 4 }
}

impl Field for Bytes {
    never_null!();
    sampled!(sampler => sampler.bytes());

    fn min_size_nullable(ctx: Ctx) -> usize {
        len_size(ctx)
    }

    fn decode_nullable(r: &mut Reader, ctx: Ctx) -> Result<Option<Self>, DecodeError> {
        let len = decode_len(r, ctx)?;
        Ok(len.map(|len| r.bytes(len)).transpose()?)
    }

    fn encode_nullable(value: Option<&Self>, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
        encode_len(value.map(Bytes::len), w, ctx)?;
        if let Some(bytes) = value {
            w.splice(bytes);
        }
        Ok(())
    }
}

impl Field for Records {
    never_null!();
    sampled!(sampler => Self::Bytes(sampler.bytes()));

    fn min_size_nullable(ctx: Ctx) -> usize {
        len_size(ctx)
    }

    fn decode_nullable(r: &mut Reader, ctx: Ctx) -> Result<Option<Self>, DecodeError> {
        Ok(Bytes::decode_nullable(r, ctx)?.map(Self::Bytes))
    }

    fn encode_nullable(value: Option<&Self>, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
        match value {
            None => Bytes::encode_nullable(None, w, ctx),
            Some(Self::Bytes(bytes)) => bytes.encode(w, ctx),
            Some(Self::External { id, len }) => {
                encode_len(Some(*len as usize), w, ctx)?;
                w.external(*id, *len);
                Ok(())
            }
        }
    }
}

/// Elements that room is reserved for before the first is read. Beyond that an array grows by doubling, so that a large
/// count in a short frame costs next to nothing.
const FIRST_ELEMENTS: usize = 32;

impl<T: Field> Field for Vec<T> {
    never_null!();

    fn min_size_nullable(ctx: Ctx) -> usize {
        len_size(ctx)
    }

    fn decode_nullable(r: &mut Reader, ctx: Ctx) -> Result<Option<Self>, DecodeError> {
        let Some(count) = decode_len(r, ctx)? else { return Ok(None) };
        r.check_count(count, T::min_size(ctx), size_of::<T>())?;
        let mut elements = Self::new();
        for done in 0..count {
            if done == elements.capacity() {
                // Never past the count: the budget was charged for exactly that many.
                elements.reserve_exact((count - done).min(done.max(FIRST_ELEMENTS)));
            }
            elements.push(T::decode(r, ctx)?);
        }
        Ok(Some(elements))
    }

    fn encode_nullable(value: Option<&Self>, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
        encode_len(value.map(Vec::len), w, ctx)?;
        value.into_iter().flatten().try_for_each(|element| element.encode(w, ctx))
    }

    #[cfg(feature = "fuzzing")]
    fn sample(sampler: &mut Sampler, ctx: Ctx) -> Self {
        (0..sampler.count()).map(|_| T::sample(sampler, ctx)).collect()
    }
}

impl<T: Field> Field for Option<T> {
    fn min_size(ctx: Ctx) -> usize {
        T::min_size_nullable(ctx)
    }

    fn decode(r: &mut Reader, ctx: Ctx) -> Result<Self, DecodeError> {
        T::decode_nullable(r, ctx)
    }

    fn encode(&self, w: &mut Writer, ctx: Ctx) -> Result<(), EncodeError> {
        T::encode_nullable(self.as_ref(), w, ctx)
    }

    fn is_null(&self) -> bool {
        self.is_none()
    }

    #[cfg(feature = "fuzzing")]
    fn sample(sampler: &mut Sampler, ctx: Ctx) -> Self {
        (!sampler.one_in(4)).then(|| T::sample(sampler, ctx))
    }
}
