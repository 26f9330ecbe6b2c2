//! What becomes of two values that are joined.

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::OperatorError;
use super::scalar::{write, write_json_bytes};
use crate::json::is_json;

/// A function of two values, of which one may be missing. Tables make what was before again with it, so it must give
/// the same for the same.
pub trait Joiner: Send {
    /// Appends the joined value to `out`.
    ///
    /// # Errors
    /// The values cannot be joined.
    fn join(
        &mut self,
        key: Option<&[u8]>,
        left: Option<&[u8]>,
        right: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError>;
}

impl<F> Joiner for F
where
    F: FnMut(Option<&[u8]>, Option<&[u8]>, Option<&[u8]>, &mut Vec<u8>) -> Result<(), OperatorError> + Send,
{
    fn join(
        &mut self,
        key: Option<&[u8]>,
        left: Option<&[u8]>,
        right: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        self(key, left, right, out)
    }
}

/// Where a side is in the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    /// Its members are members of the result: it is a JSON object. Nothing if it is missing.
    Spread,
    /// It is a member of this name: JSON as it is, anything else as text. Null if it is missing.
    Member(String),
    /// It is not there.
    Omit,
}

/// Joins values into a JSON object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonJoin {
    /// The left value.
    left: Side,
    /// The right value.
    right: Side,
}

/// A join that would not be an object with each name once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinSpecError {
    /// Two objects may have members of the same name.
    #[error("of the two values only one can be spread into the result: give the other one a name")]
    TwoSpread,
    /// One name for both.
    #[error("both values would have the same name in the result")]
    SameName,
}

impl JsonJoin {
    /// A join of these sides.
    ///
    /// # Errors
    /// The result could have a name twice.
    pub fn new(left: Side, right: Side) -> Result<JsonJoin, JoinSpecError> {
        match (&left, &right) {
            (Side::Spread, Side::Spread) => Err(JoinSpecError::TwoSpread),
            (Side::Member(a), Side::Member(b)) if a == b => Err(JoinSpecError::SameName),
            _ => Ok(JsonJoin { left, right }),
        }
    }
}

impl Joiner for JsonJoin {
    fn join(
        &mut self,
        _: Option<&[u8]>,
        left: Option<&[u8]>,
        right: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), OperatorError> {
        let start = out.len();
        out.push(b'{');
        for (side, value, other) in [(&self.left, left, &self.right), (&self.right, right, &self.left)] {
            let name = match side {
                Side::Omit => continue,
                Side::Spread => {
                    if let Some(value) = value {
                        let taken = if let Side::Member(name) = other { Some(name.as_str()) } else { None };
                        push_members(out, start, value, taken)?;
                    }
                    continue;
                }
                Side::Member(name) => name,
            };
            separate(out, start);
            write(out, name);
            out.push(b':');
            match value {
                None => out.extend_from_slice(b"null"),
                Some(value) if is_json(value) => out.extend_from_slice(value),
                Some(value) => write_json_bytes(out, value),
            }
        }
        out.push(b'}');
        Ok(())
    }
}

fn separate(out: &mut Vec<u8>, start: usize) {
    if out.len() > start + 1 {
        out.push(b',');
    }
}

/// Appends the members of an object. `taken` is a name that the result has besides them.
fn push_members(
    out: &mut Vec<u8>,
    start: usize,
    value: &[u8],
    taken: Option<&str>,
) -> Result<(), OperatorError> {
    let refused = |error: &dyn std::fmt::Display| {
        OperatorError::row(format!("the value cannot be joined into an object: {error}"))
    };
    // What is passed over is copied too, so all of it must be text.
    let text = std::str::from_utf8(value).map_err(|error| refused(&error))?;
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Members { taken }).and_then(|()| json.end()).map_err(|error| refused(&error))?;
    let inner = value.trim_ascii();
    let inner = inner[1..inner.len() - 1].trim_ascii();
    if !inner.is_empty() {
        separate(out, start);
        out.extend_from_slice(inner);
    }
    Ok(())
}

/// Reads an object through.
struct Members<'n> {
    taken: Option<&'n str>,
}

impl<'v> Visitor<'v> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<std::borrow::Cow<'_, str>>()? {
            if self.taken == Some(&*name) {
                return Err(A::Error::custom(format!(
                    "it has a member `{name}`, which the result has already"
                )));
            }
            members.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_one_object() {
        let member = |name: &str| Side::Member(name.to_owned());
        let cases = [
            (Side::Spread, member("r"), Some(r#" {"a":1} "#), Some("[2]"), r#"{"a":1,"r":[2]}"#),
            (Side::Spread, member("r"), Some("{ }"), None, r#"{"r":null}"#),
            (Side::Spread, member("r"), None, Some("text"), r#"{"r":"text"}"#),
            (member("l"), Side::Spread, Some("\"x\""), Some(r#"{"b":{}}"#), r#"{"l":"x","b":{}}"#),
            (member("l"), member("r"), Some("1"), Some(""), r#"{"l":1,"r":""}"#),
            (Side::Omit, member("r"), Some("1"), Some("2"), r#"{"r":2}"#),
            (Side::Spread, Side::Omit, Some("{}"), Some("2"), "{}"),
        ];
        for (left, right, l, r, expect) in cases {
            let mut out = b"before ".to_vec();
            let mut join = JsonJoin::new(left, right).unwrap();
            join.join(None, l.map(str::as_bytes), r.map(str::as_bytes), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("before {expect}"));
        }
    }

    /// A member that nobody asks for is in the result as well.
    #[test]
    fn what_is_no_text_is_not_joined_into_an_object() {
        let mut join = JsonJoin::new(Side::Spread, Side::Omit).unwrap();
        let mut out = Vec::new();
        assert!(join.join(None, Some(b"{\"a\":\"\xff\"}"), None, &mut out).is_err());
        let mut join = JsonJoin::new(Side::Member("l".to_owned()), Side::Omit).unwrap();
        join.join(None, Some(b"\"\xff\""), None, &mut out).unwrap();
        assert!(String::from_utf8(out).is_ok());
    }

    #[test]
    fn values_that_cannot_be_joined() {
        let member = |name: &str| Side::Member(name.to_owned());
        assert_eq!(JsonJoin::new(Side::Spread, Side::Spread), Err(JoinSpecError::TwoSpread));
        assert_eq!(JsonJoin::new(member("a"), member("a")), Err(JoinSpecError::SameName));
        let mut join = JsonJoin::new(Side::Spread, member("r")).unwrap();
        for left in ["[]", "{", "1", "", r#"{"r":1}"#, r#"{"\u0072":1}"#] {
            let error = join.join(None, Some(left.as_bytes()), None, &mut Vec::new());
            assert!(matches!(error, Err(OperatorError::Row(_))), "{left}");
        }
    }
}
