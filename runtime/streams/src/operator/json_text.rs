//! Parts of a JSON text, as they are written there: numbers keep their digits and objects their order. Every function but
//! [`Json::parse`] relies on the text being JSON, which that has proved.

use std::borrow::Cow;

use super::OperatorError;

/// A text that is one JSON value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Json<'t>(&'t str);

impl<'t> Json<'t> {
    /// Checks that a value is JSON, however deep it is nested: nothing here calls itself.
    pub(super) fn parse(value: &'t [u8]) -> Result<Json<'t>, OperatorError> {
        let not_json =
            |error: &dyn std::fmt::Display| OperatorError::row(format!("the value is not JSON: {error}"));
        let text = std::str::from_utf8(value).map_err(|error| not_json(&error))?;
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| not_json(&error))?;
        Ok(Json(text.trim_matches(is_space)))
    }

    /// The text, without what is around it.
    pub(super) fn text(self) -> &'t str {
        self.0
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// The member at the end of a path of names, where a number is the place in a list. Of members of one name the last one
    /// counts.
    pub(super) fn member(self, path: &[String]) -> Option<Json<'t>> {
        path.iter().try_fold(self, |json, name| json.child(name))
    }

    fn child(self, name: &str) -> Option<Json<'t>> {
        match self.0.as_bytes().first() {
            Some(b'[') => {
                let place: usize = name.parse().ok()?;
                self.items()?.nth(place)
            }
            Some(b'{') => {
                let mut found = None;
                let mut rest = inner(self.0);
                while !rest.is_empty() {
                    let (key, after) = rest.split_at(value_len(rest));
                    let after = after.trim_start_matches(is_space);
                    let after = after.strip_prefix(':').unwrap_or(after).trim_start_matches(is_space);
                    let (value, after) = after.split_at(value_len(after));
                    if unquoted(key) == name {
                        found = Some(Json(value));
                    }
                    rest = behind(after);
                }
                found
            }
            _ => None,
        }
    }

    /// The items of a list; none if it is no list.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Json<'t>>> {
        let is_list = self.0.starts_with('[');
        let mut rest = if is_list { inner(self.0) } else { "" };
        let items = std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (item, after) = rest.split_at(value_len(rest));
            rest = behind(after);
            Some(Json(item))
        });
        is_list.then_some(items)
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// What is within the brackets of a list or an object.
fn inner(text: &str) -> &str {
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default().trim_matches(is_space)
}

/// What comes behind a value and its comma.
fn behind(text: &str) -> &str {
    let text = text.trim_start_matches(is_space);
    text.strip_prefix(',').unwrap_or(text).trim_start_matches(is_space)
}

/// How long the value is with which a text begins.
fn value_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'"') => string_len(bytes),
        Some(b'[' | b'{') => {
            let (mut depth, mut at) = (0_usize, 0);
            while let Some(byte) = bytes.get(at) {
                match byte {
                    b'"' => at += string_len(&bytes[at..]) - 1,
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at.min(bytes.len())
        }
        _ => bytes
            .iter()
            .position(|byte| b" \t\n\r,]}:".contains(byte))
            .unwrap_or(bytes.len())
            .max(1)
            .min(bytes.len()),
    }
}

/// How long a string is with its quotes.
fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len().max(1)
}

/// What a name says.
fn unquoted(name: &str) -> Cow<'_, str> {
    let plain = name.get(1..name.len().saturating_sub(1)).unwrap_or_default();
    if plain.contains('\\') {
        serde_json::from_str(name).map_or(Cow::Borrowed(plain), Cow::Owned)
    } else {
        Cow::Borrowed(plain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn members_are_as_they_are_written() {
        let text = br#" { "a" : [ 1.10 , {"x": "y,]}\""} ,[] ], "b":{ "c" : -0 ,"d":1e2}, "b" :{"c":12345678901234567890.0}, "\u0065":null,"":7 } "#;
        let json = Json::parse(text).unwrap();
        for (at, expect) in [
            ("a.0", Some("1.10")),
            ("a.1", Some(r#"{"x": "y,]}\""}"#)),
            ("a.1.x", Some(r#""y,]}\"""#)),
            ("a.2", Some("[]")),
            ("a.3", None),
            ("a.x", None),
            ("b.c", Some("12345678901234567890.0")),
            ("b.d", None),
            ("e", Some("null")),
            ("f", None),
            ("a.0.x", None),
        ] {
            assert_eq!(json.member(&path(at)).map(Json::text), expect, "{at}");
        }
        assert_eq!(json.member(&[String::new()]).map(Json::text), Some("7"));
        assert!(json.text().starts_with('{') && json.text().ends_with('}'));
        let items = |text: &str| {
            let items = Json::parse(text.as_bytes()).unwrap().items();
            items.map(|items| items.map(Json::text).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(items("[1, [2,3] ,\"a,b\" ]").as_deref(), Some("1|[2,3]|\"a,b\""));
        assert_eq!(items("[ ]").as_deref(), Some(""));
        assert_eq!(items("{}"), None);
        for bad in [&b""[..], b"{", b"[1,]", b"\"\xff\"", b"1 2"] {
            assert!(Json::parse(bad).is_err());
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(
            Json::parse(deep.as_bytes()).unwrap().member(&path("0.0")).map(|json| json.text().len()),
            Some(396)
        );
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>()
                .prop_map(|float| serde_json::Number::from_f64(float).map_or(Value::Null, Value::Number)),
            "[ -~\\\\\"\u{e4}\u{20ac}\n]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-c\\\\\"]{0,2}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// What is found says what `serde_json` finds.
        #[test]
        fn members_are_those_that_a_parser_finds(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let parsed = Json::parse(text.as_bytes()).unwrap();
            let mut open = vec![(Vec::<String>::new(), value)];
            while let Some((path, value)) = open.pop() {
                let found = parsed.member(&path).map(Json::text);
                let found: Option<Value> = found.map(|found| serde_json::from_str(found).unwrap());
                prop_assert_eq!(found.as_ref(), Some(&value), "{:?} of {}", path, text);
                let names: Vec<(String, Value)> = match value {
                    Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
                    Value::Object(members) => members.into_iter().collect(),
                    _ => Vec::new(),
                };
                open.extend(names.into_iter().map(|(name, value)| ([&path[..], &[name]].concat(), value)));
            }
        }

        /// Whatever the bytes are.
        #[test]
        fn any_bytes_are_looked_at(bytes in proptest::collection::vec(prop_oneof![Just(b'['), Just(b'"'), Just(b'{'), Just(b'\\'), Just(b','), Just(b'}'), Just(b']'), Just(b':'), any::<u8>()], 0..40)) {
            if let Ok(json) = Json::parse(&bytes) {
                let _ = json.member(&["a".to_owned(), "0".to_owned()]);
                let _ = json.items().map(Iterator::count);
            }
        }
    }
}
