//! Reads the fields that are wanted of a record, in one pass over its value.

use std::borrow::Cow;
use std::fmt;

use pelton_sdk::Record;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use crate::field::Field;
use crate::json::Json;
use crate::number::Number;

/// A field of a record. What is not there is `None` in an `Option` around it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'v> {
    /// A member that is null.
    Null,
    /// True or false.
    Bool(bool),
    /// A number of JSON, or a timestamp.
    Number(Number<'v>),
    /// A string of JSON.
    Text(Cow<'v, str>),
    /// A key, a header, or a value as it is.
    Bytes(&'v [u8]),
    /// A list or an object.
    Composite(Json<'v>),
}

/// Reads some fields of records.
#[derive(Debug, Default)]
pub struct Reader {
    fields: Vec<Field>,
    /// The members that are wanted; none if no field is of a JSON value.
    json: Option<Node>,
}

/// A member that is wanted, or is on the way to one.
#[derive(Debug, Default)]
struct Node {
    /// With their names, and their places in a list.
    members: Vec<(String, Option<usize>, Node)>,
    /// Which fields it is.
    fields: Vec<usize>,
}

impl Reader {
    /// One for these fields.
    pub fn new(fields: Vec<Field>) -> Reader {
        let mut json: Option<Node> = None;
        for (index, field) in fields.iter().enumerate() {
            let Field::Json(names) = field else { continue };
            let mut node = json.get_or_insert_default();
            for name in names {
                let known = node.members.iter().position(|(known, ..)| known == name).unwrap_or_else(|| {
                    node.members.push((name.clone(), name.parse().ok(), Node::default()));
                    node.members.len() - 1
                });
                node = &mut node.members[known].2;
            }
            node.fields.push(index);
        }
        Reader { fields, json }
    }

    /// The members of a value, as they are written, in the order of [`Reader::new`]; none for what is not there, and for
    /// fields that are not of JSON.
    ///
    /// # Errors
    /// The value is not JSON, for people.
    pub fn members<'v>(&self, value: Option<&'v [u8]>) -> Result<Vec<Option<Json<'v>>>, String> {
        let mut found = vec![None; self.fields.len()];
        if let (Some(node), Some(value)) = (&self.json, value) {
            let not_json = |error: &dyn fmt::Display| format!("the value is not JSON: {error}");
            let text = std::str::from_utf8(value).map_err(|error| not_json(&error))?;
            if node.fields.is_empty() {
                descend(node, text, &mut found).map_err(|error| not_json(&error))?;
            } else {
                // The whole value is wanted: it is without the space around it.
                let whole: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
                note(node, whole, &mut found).map_err(|error| not_json(&error))?;
            }
        }
        Ok(found)
    }

    /// The fields of a record, in the order of [`Reader::new`]. A record without a value has no members.
    ///
    /// # Errors
    /// Its value is not JSON, for people.
    pub fn read<'v>(&self, record: Record<'v>) -> Result<Vec<Option<Value<'v>>>, String> {
        let members = self.members(record.value())?;
        let value = |(field, member): (&Field, Option<Json<'v>>)| -> Result<Option<Value<'v>>, String> {
            Ok(match field {
                Field::Json(_) => member.map(Value::of).transpose()?,
                Field::Key => record.key().map(Value::Bytes),
                Field::Raw => record.value().map(Value::Bytes),
                Field::Header(name) => record.header(name).map(Value::Bytes),
                Field::Timestamp => Some(record.timestamp())
                    .filter(|timestamp| *timestamp >= 0)
                    .map(|timestamp| Value::Number(Number::from(timestamp))),
            })
        };
        self.fields.iter().zip(members).map(value).collect()
    }
}

impl<'v> Value<'v> {
    fn of(json: Json<'v>) -> Result<Value<'v>, String> {
        Ok(match json.text() {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ if json.is_composite() => Value::Composite(json),
            text => match json.string() {
                Some(text) => Value::Text(text?),
                None => Value::Number(
                    Number::parse(text)
                        .ok_or_else(|| "a number has an exponent of more than 17 digits".to_owned())?,
                ),
            },
        })
    }

    /// The items of a list.
    ///
    /// # Errors
    /// One cannot be read, for people.
    pub fn items(&self) -> Option<Result<Vec<Value<'v>>, String>> {
        let Value::Composite(json) = self else { return None };
        Some(json.items()?.into_iter().map(Value::of).collect())
    }
}

type Found<'v> = [Option<Json<'v>>];

/// Finds what is wanted within a text, and checks the rest.
fn descend<'v>(node: &Node, text: &'v str, found: &mut Found<'v>) -> Result<(), serde_json::Error> {
    let mut json = Deserializer::from_str(text);
    let within = Within { node, found };
    match text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes().first() {
        Some(b'{') => json.deserialize_map(within)?,
        Some(b'[') => json.deserialize_seq(within)?,
        _ => json.deserialize_ignored_any(IgnoredAny).map(drop)?,
    }
    json.end()
}

/// A member that is wanted, or is on the way to one. A name that comes twice means its last value, so what was found
/// within an earlier one is not there.
fn note<'v>(node: &Node, raw: &'v RawValue, found: &mut Found<'v>) -> Result<(), serde_json::Error> {
    forget(node, found);
    for field in &node.fields {
        found[*field] = Some(Json::from(raw));
    }
    if node.members.is_empty() { Ok(()) } else { descend(node, raw.get(), found) }
}

fn forget(node: &Node, found: &mut Found<'_>) {
    node.fields.iter().for_each(|field| found[*field] = None);
    node.members.iter().for_each(|(_, _, member)| forget(member, found));
}

/// An object or a list of which members are wanted.
struct Within<'n, 'o, 'v> {
    node: &'n Node,
    found: &'o mut Found<'v>,
}

impl<'v> Visitor<'v> for Within<'_, '_, 'v> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(wanted) = members.next_key_seed(Name(&self.node.members))? {
            match wanted {
                Some(node) => {
                    note(node, members.next_value()?, self.found).map_err(serde::de::Error::custom)?
                }
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<(), A::Error> {
        for place in 0_usize.. {
            let wanted = self.node.members.iter().find(|(_, at, _)| *at == Some(place));
            match wanted {
                Some((_, _, node)) => match items.next_element()? {
                    Some(raw) => note(node, raw, self.found).map_err(serde::de::Error::custom)?,
                    None => break,
                },
                None if items.next_element::<IgnoredAny>()?.is_none() => break,
                None => {}
            }
        }
        Ok(())
    }
}

/// The name of a member: whether it is wanted.
struct Name<'n>(&'n [(String, Option<usize>, Node)]);

impl<'v, 'n> DeserializeSeed<'v> for Name<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: serde::Deserializer<'v>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(wanted, ..)| wanted == name).map(|(_, _, node)| node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_value() {
        let value =
            br#" {"a":{"b":[10,{"c":"x\n"}],"d":null},"n":-7,"f":2.50,"n":8,"big":18446744073709551615,
            "two":{"a":3},"two":{"b":4},"out":1e999,"\u0065":"e"} "#;
        let cases = [
            ("json:a.b.0", Some("10")),
            ("json:a.b.1.c", Some(r#""x\n""#)),
            ("json:a.b.2", None),
            ("json:a.b", Some(r#"[10,{"c":"x\n"}]"#)),
            ("json:a.d", Some("null")),
            ("json:a.d.x", None),
            ("json:n", Some("8")),
            ("json:f", Some("2.50")),
            ("json:big", Some("18446744073709551615")),
            ("json:two.a", None),
            ("json:two.b", Some("4")),
            ("json:out", Some("1e999")),
            ("json:out.x", None),
            ("json:e", Some("\"e\"")),
            ("json:/n", Some("8")),
        ];
        let fields: Vec<Field> = cases.iter().map(|(field, _)| Field::parse(field).expect(field)).collect();
        let together = Reader::new(fields.clone()).members(Some(value)).expect("is JSON");
        for ((name, expect), (together, field)) in cases.iter().zip(together.iter().zip(fields)) {
            assert_eq!(together.map(Json::text), *expect, "{name}");
            let alone = Reader::new(vec![field]).members(Some(value)).expect("is JSON");
            assert_eq!(alone[0].map(Json::text), *expect, "{name}");
        }
        let whole = Reader::new(vec![Field::Json(Vec::new())]).members(Some(b" [1, 2]\n")).expect("is JSON");
        assert_eq!(whole[0].map(Json::text), Some("[1, 2]"));
        assert_eq!(Reader::new(vec![Field::Json(Vec::new())]).members(None), Ok(vec![None]));
    }

    #[test]
    fn a_value_is_looked_at_to_its_end() {
        let reader = Reader::new(vec![Field::parse("json:a").expect("is one")]);
        for bad in [&b"{\"a\":1"[..], b"{\"a\":1} x", b"", b"{\"a\":\"\xff\"}", b"{\"a\":1,\"b\":01}", b"x"] {
            assert!(reader.members(Some(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(reader.members(Some(b"5")), Ok(vec![None]));
    }
}
