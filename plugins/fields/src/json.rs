//! JSON whose parts stay as they are written: numbers keep their digits, objects their order and their repetitions.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize as _, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

/// A text that is one JSON value, without space around it. However deep it is nested, nothing here calls itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'t>(&'t str);

impl<'t> Json<'t> {
    /// Checks that a value is JSON.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(value: &'t [u8]) -> Result<Json<'t>, String> {
        let text = std::str::from_utf8(value).map_err(|error| format!("the value is not JSON: {error}"))?;
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| format!("the value is not JSON: {error}"))?;
        Ok(Json::from(raw))
    }

    /// The text.
    pub fn text(self) -> &'t str {
        self.0
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Whether it is a list or an object.
    pub fn is_composite(self) -> bool {
        self.0.starts_with(['[', '{'])
    }

    /// The items of a list; none if it is no list.
    pub fn items(self) -> Option<Vec<Json<'t>>> {
        if !self.0.starts_with('[') {
            return None;
        }
        let items = Deserializer::from_str(self.0).deserialize_seq(Items);
        Some(items.expect("a part of a JSON text is JSON"))
    }

    /// The members of an object, the names as JSON; none if it is no object.
    pub fn members(self) -> Option<Vec<(Json<'t>, Json<'t>)>> {
        if !self.0.starts_with('{') {
            return None;
        }
        let members = Deserializer::from_str(self.0).deserialize_map(Members);
        Some(members.expect("a part of a JSON text is JSON"))
    }

    /// What a string says; none if it is no string.
    ///
    /// # Errors
    /// It has half of a surrogate pair, which no text can have.
    pub fn string(self) -> Option<Result<Cow<'t, str>, String>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if !inner.contains('\\') {
            return Some(Ok(Cow::Borrowed(inner)));
        }
        let text = String::deserialize(&mut Deserializer::from_str(self.0));
        // Nothing else can be wrong with what was checked.
        Some(
            text.map(Cow::Owned)
                .map_err(|_| "a text has half of a surrogate pair, which is no character".to_owned()),
        )
    }
}

impl<'t> From<&'t RawValue> for Json<'t> {
    fn from(raw: &'t RawValue) -> Json<'t> {
        Json(raw.get())
    }
}

/// Appends a text as a JSON string.
pub fn quote(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text has a JSON form, and a vector takes it");
}

struct Items;

impl<'t> Visitor<'t> for Items {
    type Value = Vec<Json<'t>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'t>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element::<&RawValue>()? {
            found.push(Json::from(item));
        }
        Ok(found)
    }
}

struct Members;

impl<'t> Visitor<'t> for Members {
    type Value = Vec<(Json<'t>, Json<'t>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'t>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some((name, value)) = members.next_entry::<&RawValue, &RawValue>()? {
            found.push((Json::from(name), Json::from(value)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_they_are_written() {
        let text = b" { \"a\" : [ 1.10 , {\"x\": \"y,]}\\\"\"} ,[] ], \"\\u0065\" :-0.0e+05 ,\"a\":12345678901234567890 } ";
        let members = Json::parse(text).expect("is JSON").members().expect("is an object");
        let texts: Vec<(&str, &str)> =
            members.iter().map(|(name, value)| (name.text(), value.text())).collect();
        let list = r#"[ 1.10 , {"x": "y,]}\""} ,[] ]"#;
        assert_eq!(texts, [("\"a\"", list), ("\"\\u0065\"", "-0.0e+05"), ("\"a\"", "12345678901234567890")]);
        assert_eq!(members[1].0.string(), Some(Ok(Cow::Borrowed("e"))));
        let items: Vec<&str> =
            members[0].1.items().expect("is a list").iter().map(|item| item.text()).collect();
        assert_eq!(items, ["1.10", r#"{"x": "y,]}\""}"#, "[]"]);
        assert_eq!((members[0].1.members(), members[1].1.items()), (None, None));
    }

    #[test]
    fn what_is_not_json() {
        for bad in [&b""[..], b"{", b"[1,]", b"\"\xff\"", b"1 2", b"{\"a\":01}", b"'a'", b"NaN"] {
            assert!(
                Json::parse(bad).is_err_and(|error| error.starts_with("the value is not JSON")),
                "{bad:?}"
            );
        }
        let half = Json::parse(br#""\ud800""#).expect("its form is right");
        assert!(half.string().is_some_and(|text| text.is_err()));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(Json::parse(deep.as_bytes()).expect("is JSON").items().expect("is a list").len(), 1);
    }
}
