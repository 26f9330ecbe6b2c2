//! `filter`, `branch`, `select` and `flat_map` as serde reads them, and the rules that serde cannot say.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use toml::Spanned;

use super::ManifestError;
use super::operator::Work;
use super::raw::invalid;
use super::raw_operator::field;
use crate::operator::{Condition, Field, Selection};
use crate::plugin_manifest::DEFAULT_OUTPUT_NAME;

/// Conditions of one node: each is asked for each record.
const MAX_BRANCHES: usize = 32;
/// Members of one object.
const MAX_MEMBERS: usize = 256;
/// The output for records that meet no condition.
pub(crate) const REST_OUTPUT_NAME: &str = "rest";

/// Texts by name, in the order in which they are written.
pub(super) struct InOrder(Vec<(String, String)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InOrder, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of texts by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<InOrder, A::Error> {
                // A table of TOML is read in the order of names.
                let mut texts: Vec<(usize, String, String)> = Vec::new();
                while let Some((name, value)) = items.next_entry::<String, Spanned<toml::Value>>()? {
                    let start = value.span().start;
                    let toml::Value::String(text) = value.into_inner() else {
                        return Err(A::Error::custom(format!("`{name}` must be a text")));
                    };
                    texts.push((start, name, text));
                }
                texts.sort_by_key(|(start, ..)| *start);
                Ok(InOrder(texts.into_iter().map(|(_, name, text)| (name, text)).collect()))
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

fn condition(at: &str, text: &str) -> Result<Condition, ManifestError> {
    Condition::parse(text).map_err(|reason| invalid(at, format!("is `{text}`, which {reason}")))
}

pub(super) fn filter(at: &str, text: &str) -> Result<Work, ManifestError> {
    condition(at, text).map(Work::Filter)
}

pub(super) fn branch(at: &str, InOrder(branches): InOrder) -> Result<Work, ManifestError> {
    if !(1..=MAX_BRANCHES).contains(&branches.len()) {
        let reason = format!("has {} conditions, but must have 1 to {MAX_BRANCHES}", branches.len());
        return Err(invalid(at, reason));
    }
    let one = |(name, text): (String, String)| {
        let at = format!("{at}.{name}");
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !name.starts_with(word) || !name.chars().all(|c| word(c) || "._-".contains(c)) {
            let reason = "is no name of an output: those have a-z, 0-9, `.`, `_` and `-`, and begin with a letter or a digit";
            return Err(invalid(&at, reason.to_owned()));
        }
        if [REST_OUTPUT_NAME, DEFAULT_OUTPUT_NAME].contains(&&*name) {
            let reason = "has a name that is taken: records that meet no condition leave by `rest`; choose another one";
            return Err(invalid(&at, reason.to_owned()));
        }
        let condition = condition(&at, &text)?;
        Ok((name, condition))
    };
    branches.into_iter().map(one).collect::<Result<_, _>>().map(Work::Branch)
}

pub(super) fn select(at: &str, InOrder(members): InOrder) -> Result<Work, ManifestError> {
    if !(1..=MAX_MEMBERS).contains(&members.len()) {
        let reason = format!("has {} members, but must have 1 to {MAX_MEMBERS}", members.len());
        return Err(invalid(at, reason));
    }
    let member = |(name, text): (String, String)| {
        let field = field(&format!("{at}.{name}"), &text)?;
        Ok((name, field))
    };
    members.into_iter().map(member).collect::<Result<_, _>>().map(Selection).map(Work::Select)
}

pub(super) fn flat_map(at: &str, text: &str) -> Result<Work, ManifestError> {
    match field(at, text)? {
        Field::Json(path) => Ok(Work::FlatMap(path)),
        _ => {
            let reason = format!(
                "is `{text}`, but must be a list of a JSON value, as `json:items` (or `json`, the whole value)"
            );
            Err(invalid(at, reason))
        }
    }
}
