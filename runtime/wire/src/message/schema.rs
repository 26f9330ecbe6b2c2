//! The table language in which the messages are written.
//!
//! ```text
//! messages! {
//!     api ListGroups: ListGroupsRequest => ListGroupsResponse;
//!
//!     /// What it is.
//!     pub struct ListGroupsRequest {
//!         states_filter: Vec<String> [4..],
//!         types_filter: Vec<String> [5..],
//!     }
//! }
//! ```
//!
//! A field is `name: Type`, and then, where they are not the usual:
//!
//! * in brackets, in this order: the versions that have the field (default: all), `null` and the versions in which it may be
//!   null (default for an `Option`: all), `tag` and its number for a tagged field, `ignorable`;
//! * `= value`, the default of the schema (default: the type's).
//!
//! A field that is set although the version has no place for it is an error when encoding, unless it is `ignorable`.
//! Tagged fields stand in the order of their tags.

/// Whether a field exists in a version.
macro_rules! in_version {
    ($version:expr;) => {
        true
    };
    ($version:expr; null $($rest:tt)*) => {
        true
    };
    ($version:expr; tag $($rest:tt)*) => {
        true
    };
    ($version:expr; $range:expr $(, $($rest:tt)*)?) => {
        ($range).contains(&$version)
    };
}

/// Whether a field may be null in a version.
macro_rules! null_in_version {
    ($version:expr;) => { true };
    ($version:expr; null $range:expr $(, $($rest:tt)*)?) => { ($range).contains(&$version) };
    ($version:expr; $skip:tt $($rest:tt)*) => { null_in_version!($version; $($rest)*) };
}

/// The tag of a field, if it has one.
macro_rules! tag_of {
    () => { None::<u32> };
    (tag $tag:literal $($rest:tt)*) => { Some::<u32>($tag) };
    ($skip:tt $($rest:tt)*) => { tag_of!($($rest)*) };
}

/// Whether a field may be left out silently where a version has no place for it.
macro_rules! is_ignorable {
    () => { false };
    (ignorable) => { true };
    ($skip:tt $($rest:tt)*) => { is_ignorable!($($rest)*) };
}

/// The default of a field.
macro_rules! default_of {
    ($ty:ty) => {
        <$ty>::default()
    };
    ($ty:ty, $value:expr) => {
        $value
    };
}

/// Defines the structures of one API: see the module's description.
macro_rules! messages {
    (
        api $key:ident: $request:ident => $response:ident;
        $(
            $(#[$meta:meta])*
            pub struct $name:ident {
                $($field:ident: $ty:ty $([$($opt:tt)*])? $(= $default:expr)?,)*
            }
        )*
    ) => {
        top_level!($key, $request);
        top_level!($key, $response);

        impl crate::message::Request for $request {
            const KEY: crate::api::ApiKey = crate::api::ApiKey::$key;
            type Response = $response;
        }

        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $name {
                $(pub $field: $ty,)*
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($field: default_of!($ty $(, $default)?),)* }
                }
            }

            structure! { $name { $($field: $ty [$($($opt)*)?] (default_of!($ty $(, $default)?)),)* } }
        )*
    };
}

/// Makes a structure a request or response of its own.
macro_rules! top_level {
    ($key:ident, $name:ident) => {
        impl crate::message::Message for $name {
            fn decode(r: &mut crate::codec::Reader, version: i16) -> Result<Self, crate::codec::DecodeError> {
                let ctx = crate::codec::Ctx::to_decode(crate::api::ApiKey::$key, version)?;
                crate::codec::Field::decode(r, ctx)
            }

            fn encode(
                &self,
                w: &mut crate::codec::Writer,
                version: i16,
            ) -> Result<(), crate::codec::EncodeError> {
                let ctx = crate::codec::Ctx::to_encode(crate::api::ApiKey::$key, version)?;
                crate::codec::Field::encode(self, w, ctx)
            }
        }
    };
}

/// Reads and writes the fields of a structure in the order of the table.
macro_rules! structure {
    ($name:ident { $($field:ident: $ty:ty [$($opt:tt)*] ($default:expr),)* }) => {
        impl crate::codec::Field for $name {
            fn min_size(ctx: crate::codec::Ctx) -> usize {
                let tagged_count = usize::from(ctx.flexible);
                tagged_count $(+ match tag_of!($($opt)*) {
                    None if in_version!(ctx.version; $($opt)*) => <$ty as crate::codec::Field>::min_size(ctx),
                    _ => 0,
                })*
            }

            fn decode(
                r: &mut crate::codec::Reader,
                ctx: crate::codec::Ctx,
            ) -> Result<Self, crate::codec::DecodeError> {
                const STRUCTURE: &str = stringify!($name);
                let mut message = Self::default();
                $(
                    if tag_of!($($opt)*).is_none() && in_version!(ctx.version; $($opt)*) {
                        let null_allowed = null_in_version!(ctx.version; $($opt)*);
                        message.$field = $crate::message::schema::decode_field(r, ctx, null_allowed)
                            .map_err(|error| error.at(STRUCTURE, stringify!($field)))?;
                    }
                )*
                if ctx.flexible {
                    r.tagged_fields(|r, tag| {
                        $(
                            if tag_of!($($opt)*) == Some(tag) && in_version!(ctx.version; $($opt)*) {
                                let null_allowed = null_in_version!(ctx.version; $($opt)*);
                                message.$field = $crate::message::schema::decode_field(r, ctx, null_allowed)
                                    .map_err(|error| error.at(STRUCTURE, stringify!($field)))?;
                                return Ok(true);
                            }
                        )*
                        // A tag of a later version: skipped.
                        let _ = (r, tag);
                        Ok(false)
                    })
                    .map_err(|error| error.at(STRUCTURE, "tagged fields"))?;
                }
                Ok(message)
            }

            fn encode(
                &self,
                w: &mut crate::codec::Writer,
                ctx: crate::codec::Ctx,
            ) -> Result<(), crate::codec::EncodeError> {
                const STRUCTURE: &str = stringify!($name);
                let mut tagged = 0;
                $(
                    if !in_version!(ctx.version; $($opt)*) {
                        if !is_ignorable!($($opt)*) && self.$field != $default {
                            let (field, version) = (stringify!($field), ctx.version);
                            return Err(crate::codec::EncodeError::NotInVersion {
                                structure: STRUCTURE,
                                field,
                                version,
                            });
                        }
                    } else if tag_of!($($opt)*).is_some() {
                        tagged += u32::from(self.$field != $default);
                    } else {
                        let null_allowed = null_in_version!(ctx.version; $($opt)*);
                        $crate::message::schema::encode_field(&self.$field, w, ctx, null_allowed, STRUCTURE, stringify!($field))?;
                    }
                )*
                if !ctx.flexible {
                    return Ok(());
                }
                w.uvarint(tagged);
                if tagged > 0 {
                    $(
                        if let Some(tag) = tag_of!($($opt)*)
                            && in_version!(ctx.version; $($opt)*)
                            && self.$field != $default
                        {
                            let null_allowed = null_in_version!(ctx.version; $($opt)*);
                            w.tagged_field(tag, |w| {
                                $crate::message::schema::encode_field(&self.$field, w, ctx, null_allowed, STRUCTURE, stringify!($field))
                            })?;
                        }
                    )*
                }
                Ok(())
            }

            #[cfg(feature = "fuzzing")]
            fn sample(sampler: &mut crate::codec::Sampler, ctx: crate::codec::Ctx) -> Self {
                let mut message = Self::default();
                $(
                    // A tagged field is left out half of the time, because then the encoding leaves it out.
                    let left_out = tag_of!($($opt)*).is_some() && sampler.one_in(2);
                    if in_version!(ctx.version; $($opt)*) && !left_out {
                        let null_allowed = null_in_version!(ctx.version; $($opt)*);
                        message.$field = $crate::message::schema::sample_field(sampler, ctx, null_allowed);
                    }
                )*
                message
            }
        }
    };
}

use crate::codec::{Ctx, DecodeError, EncodeError, Field, Malformed, Reader, Writer};

/// Reads a field, which is null only where the version allows it.
pub(crate) fn decode_field<T: Field>(r: &mut Reader, ctx: Ctx, null_allowed: bool) -> Result<T, DecodeError> {
    let value = T::decode(r, ctx)?;
    if !null_allowed && value.is_null() {
        return Err(Malformed::Null.into());
    }
    Ok(value)
}

/// Writes a field, which is null only where the version allows it.
pub(crate) fn encode_field<T: Field>(
    value: &T,
    w: &mut Writer,
    ctx: Ctx,
    null_allowed: bool,
    structure: &'static str,
    field: &'static str,
) -> Result<(), EncodeError> {
    if !null_allowed && value.is_null() {
        return Err(EncodeError::NullNotAllowed { structure, field, version: ctx.version });
    }
    value.encode(w, ctx).map_err(|error| error.at(structure, field))
}

/// A value for a field, which is null only where the version allows it.
#[cfg(feature = "fuzzing")]
pub(crate) fn sample_field<T: Field>(sampler: &mut crate::codec::Sampler, ctx: Ctx, null_allowed: bool) -> T {
    loop {
        let value = T::sample(sampler, ctx);
        if null_allowed || !value.is_null() {
            return value;
        }
    }
}
