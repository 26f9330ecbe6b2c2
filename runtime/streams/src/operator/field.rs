//! What an operator looks at in a record: the whole value, the key, a number in a fixed layout, or a member of a JSON
//! value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::scalar::Scalar;

/// Levels of a path. JSON itself may be nested 128 deep.
const MAX_PATH: usize = 32;

/// Where to look. Written as in a manifest: `raw`, `key`, `all`, `long`, `double`, `json`, `json:a.b`, `json:/a/b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// The value as it is. Where a number is needed: as decimal text.
    Raw,
    /// The key of the record.
    Key,
    /// The same text for every record: one group of all.
    All,
    /// The value as 8 bytes, big endian, as Kafka's LongSerializer writes them.
    Long,
    /// The value as a 64-bit float, big endian, as Kafka's DoubleSerializer writes it.
    Double,
    /// A member of the value, which is JSON: the names on the way to it, none for the whole value. A number is the
    /// place in an array.
    Json(Vec<String>),
}

/// A value that does not have the layout which the manifest says it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Not JSON.
    #[error("the value is not JSON: {0}")]
    NotJson(String),
    /// Not 8 bytes.
    #[error("`{field}` needs a value of 8 bytes, and this one has {len}")]
    NotEightBytes {
        /// The field.
        field: Field,
        /// How long it is.
        len: usize,
    },
    /// A float that is not a number.
    #[error("the value is a float that is not a number")]
    NotANumber,
    /// A list or an object where one value is needed.
    #[error("`{0}` is a list or an object, and one value is needed")]
    Composite(Field),
}

impl Field {
    /// Parses the text of a manifest.
    ///
    /// # Errors
    /// What would be right, as a text that follows "must be".
    pub fn parse(text: &str) -> Result<Field, &'static str> {
        const EXPECT: &str = "one of `raw`, `key`, `all`, `long`, `double`, `json`, `json:member`, `json:member.member`, or \
                              `json:/member/member` as a JSON pointer, with at most 32 members";
        let path = match text {
            "raw" => return Ok(Field::Raw),
            "key" => return Ok(Field::Key),
            "all" => return Ok(Field::All),
            "long" => return Ok(Field::Long),
            "double" => return Ok(Field::Double),
            "json" => return Ok(Field::Json(Vec::new())),
            _ => text.strip_prefix("json:").ok_or(EXPECT)?,
        };
        let names: Vec<String> = match path.strip_prefix('/') {
            // The escapes of RFC 6901, in its order.
            Some(pointer) => {
                pointer.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect()
            }
            None => path.split('.').map(str::to_owned).collect(),
        };
        let pointer = path.starts_with('/');
        let good = names.len() <= MAX_PATH && (pointer || names.iter().all(|name| !name.is_empty()));
        good.then_some(Field::Json(names)).ok_or(EXPECT)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Raw => f.write_str("raw"),
            Field::Key => f.write_str("key"),
            Field::All => f.write_str("all"),
            Field::Long => f.write_str("long"),
            Field::Double => f.write_str("double"),
            Field::Json(names) if names.is_empty() => f.write_str("json"),
            Field::Json(names)
                if names.iter().any(|name| name.is_empty() || name.contains(['.', '/', '~'])) =>
            {
                f.write_str("json:")?;
                names.iter().try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")))
            }
            Field::Json(names) => write!(f, "json:{}", names.join(".")),
        }
    }
}

/// Reads several fields of a record at once.
#[derive(Debug, Default)]
pub(super) struct Extractor {
    fields: Vec<Field>,
    /// The members that are wanted; none if no field is of a JSON value.
    json: Option<Node>,
}

/// A member that is wanted, or is on the way to one.
#[derive(Debug, Default)]
struct Node {
    members: Vec<(String, Node)>,
    /// Which fields it is.
    fields: Vec<usize>,
}

impl Extractor {
    pub(super) fn new(fields: Vec<Field>) -> Extractor {
        let mut json: Option<Node> = None;
        for (index, field) in fields.iter().enumerate() {
            let Field::Json(names) = field else { continue };
            let mut node = json.get_or_insert_default();
            for name in names {
                let place = match node.members.iter().position(|(known, _)| known == name) {
                    Some(place) => place,
                    None => {
                        node.members.push((name.clone(), Node::default()));
                        node.members.len() - 1
                    }
                };
                node = &mut node.members[place].1;
            }
            node.fields.push(index);
        }
        Extractor { fields, json }
    }

    /// The fields of a record, in the order of [`Extractor::new`]. What is not there is null.
    pub(super) fn extract<'v>(
        &self,
        key: Option<&'v [u8]>,
        value: &'v [u8],
    ) -> Result<Vec<Scalar<'v>>, FieldError> {
        let mut found = self.find(key, value)?;
        if let Some(node) = &self.json {
            self.composites(node, value, &mut found)?;
        }
        Ok(found.into_iter().map(|found| found.unwrap_or(Scalar::Null)).collect())
    }

    /// The same with what is not there told from null, and lists and objects as an empty document.
    pub(super) fn find<'v>(
        &self,
        key: Option<&'v [u8]>,
        value: &'v [u8],
    ) -> Result<Vec<Option<Scalar<'v>>>, FieldError> {
        let mut found = self.of_key(key);
        for (field, found) in self.fields.iter().zip(&mut found) {
            *found = Some(match field {
                Field::Raw => Scalar::Bytes(value),
                Field::All => Scalar::Text(Cow::Borrowed("all")),
                Field::Long => Scalar::Int(i64::from_be_bytes(eight(field, value)?)),
                Field::Double => {
                    let float = f64::from_be_bytes(eight(field, value)?);
                    Scalar::float(float).ok_or(FieldError::NotANumber)?
                }
                Field::Key | Field::Json(_) => continue,
            });
        }
        if let Some(node) = &self.json {
            let not_json = |error: serde_json::Error| FieldError::NotJson(error.to_string());
            let mut json = serde_json::Deserializer::from_slice(value);
            Wanted { node, found: &mut found }.deserialize(&mut json).map_err(not_json)?;
            json.end().map_err(not_json)?;
        }
        Ok(found)
    }

    /// What a record without a value has of the fields.
    pub(super) fn of_key<'v>(&self, key: Option<&'v [u8]>) -> Vec<Option<Scalar<'v>>> {
        let of = |field: &Field| key.filter(|_| *field == Field::Key).map(Scalar::Bytes);
        self.fields.iter().map(of).collect()
    }

    /// A whole value that is a list or an object is text; a part of one is refused.
    fn composites<'v>(
        &self,
        root: &Node,
        value: &'v [u8],
        found: &mut [Option<Scalar<'v>>],
    ) -> Result<(), FieldError> {
        for (index, scalar) in found.iter_mut().enumerate() {
            if !matches!(scalar, Some(Scalar::Document(""))) {
                continue;
            }
            if !root.fields.contains(&index) {
                return Err(FieldError::Composite(self.fields[index].clone()));
            }
            let text = std::str::from_utf8(value).map_err(|error| FieldError::NotJson(error.to_string()))?;
            *scalar = Some(Scalar::Document(text.trim_ascii()));
        }
        Ok(())
    }
}

fn eight(field: &Field, value: &[u8]) -> Result<[u8; 8], FieldError> {
    value.try_into().map_err(|_| FieldError::NotEightBytes { field: field.clone(), len: value.len() })
}

/// Puts what is wanted of a JSON value where it belongs, and checks the rest.
struct Wanted<'n, 'o, 'v> {
    node: &'n Node,
    found: &'o mut [Option<Scalar<'v>>],
}

impl<'v> Wanted<'_, '_, 'v> {
    fn is(self, scalar: Scalar<'v>) {
        forget_members(self.node, self.found);
        for field in &self.node.fields {
            self.found[*field] = Some(scalar.clone());
        }
    }

    /// A list or an object; filled in when the whole value is known to be JSON.
    fn is_composite(&mut self) {
        forget_members(self.node, self.found);
        for field in &self.node.fields {
            self.found[*field] = Some(Scalar::Document(""));
        }
    }
}

/// A name that comes twice means its last value, so what was found within an earlier one is not there.
fn forget_members(node: &Node, found: &mut [Option<Scalar<'_>>]) {
    for (_, member) in &node.members {
        member.fields.iter().for_each(|field| found[*field] = None);
        forget_members(member, found);
    }
}

impl<'v> DeserializeSeed<'v> for Wanted<'_, '_, 'v> {
    type Value = ();

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'v> Visitor<'v> for Wanted<'_, '_, 'v> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.is(Scalar::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.is(Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.is(Scalar::Int(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        // Above the largest i64 as the nearest float, as other readers of JSON have it.
        self.is(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Int));
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let scalar = Scalar::float(value).ok_or_else(|| E::custom("a number is not finite"))?;
        self.is(scalar);
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'v str) -> Result<(), E> {
        self.is(Scalar::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.is(Scalar::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'v>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.is_composite();
        for place in 0_usize.. {
            let wanted = self.node.members.iter().find(|(name, _)| name.parse() == Ok(place));
            let more = match wanted {
                Some((_, node)) => items.next_element_seed(Wanted { node, found: self.found })?.is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'v>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.is_composite();
        while let Some(wanted) = members.next_key_seed(Name(&self.node.members))? {
            match wanted {
                Some(node) => members.next_value_seed(Wanted { node, found: self.found })?,
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The name of a member: whether it is wanted.
struct Name<'n>(&'n [(String, Node)]);

impl<'v, 'n> DeserializeSeed<'v> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(wanted, _)| wanted == name).map(|(_, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(scalar: &Scalar<'_>) -> String {
        let mut out = Vec::new();
        scalar.write_json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_written_as_they_are_parsed() {
        for good in [
            "raw",
            "key",
            "all",
            "long",
            "double",
            "json",
            "json:a",
            "json:a.b.0",
            "json:/a.b/c~1d/~0",
            "json:/",
        ] {
            assert_eq!(Field::parse(good).map(|field| field.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "value", "json:", "json:a..b", "json:.", "long:x"] {
            assert!(Field::parse(bad).is_err(), "{bad}");
        }
        assert!(Field::parse(&format!("json:{}", ["a"; 33].join("."))).is_err());
    }

    #[test]
    fn members_of_a_value() {
        let value = br#" {"a":{"b":[10,{"c":"x\n"}],"d":null},"n":-7,"f":2.50,"i":3.0,"t":"\u00e9","n":8,"big":18446744073709551615,
            "two":{"a":3},"two":{"b":4}} "#;
        let cases = [
            ("json:a.b.0", "10"),
            ("json:a.b.1.c", r#""x\n""#),
            ("json:a.b.2", "null"),
            ("json:a.d", "null"),
            ("json:a.x", "null"),
            ("json:n", "8"),
            ("json:n.x", "null"),
            ("json:f", "2.5"),
            ("json:i", "3"),
            ("json:t", "\"é\""),
            ("json:big", "1.8446744073709552e+19"),
            ("json:two.a", "null"),
            ("json:two.b", "4"),
            ("key", "\"k\""),
            ("all", "\"all\""),
        ];
        let fields: Vec<_> = cases.iter().map(|(field, _)| Field::parse(field).unwrap()).collect();
        let all = Extractor::new(fields.clone()).extract(Some(b"k"), value).unwrap();
        for ((field, expect), (together, alone)) in cases.iter().zip(all.iter().zip(fields)) {
            assert_eq!(text(together), *expect, "{field}");
            let one = Extractor::new(vec![alone]).extract(Some(b"k"), value).unwrap();
            assert_eq!(text(&one[0]), *expect, "{field}");
        }
    }

    #[test]
    fn values_that_are_not_what_they_should_be() {
        let extract = |field: &str, value: &[u8]| {
            let extractor = Extractor::new(vec![Field::parse(field).unwrap()]);
            extractor.extract(None, value).map(|found| text(&found[0])).map_err(|error| error.to_string())
        };
        assert_eq!(extract("json", b" [1, 2] ").as_deref(), Ok("[1, 2]"));
        assert_eq!(extract("json", b"12").as_deref(), Ok("12"));
        assert_eq!(extract("key", b"12").as_deref(), Ok("null"));
        assert_eq!(extract("long", &7_i64.to_be_bytes()).as_deref(), Ok("7"));
        assert_eq!(extract("double", &1.5_f64.to_be_bytes()).as_deref(), Ok("1.5"));
        let composite = extract("json:a", br#"{"a":[]}"#).unwrap_err();
        assert_eq!(composite, "`json:a` is a list or an object, and one value is needed");
        for (field, value) in [
            ("json:a", &b"{\"a\":1"[..]),
            ("json:a", b"{\"a\":1} x"),
            ("json:a", b""),
            ("json:a", b"{\"a\":\"\xff\"}"),
            ("json:a", b"{\"a\":1e999}"),
            ("long", b"1234567"),
            ("double", &f64::NAN.to_be_bytes()),
        ] {
            assert!(extract(field, value).is_err(), "{field} {value:?}");
        }
    }
}
