//! A new object of the fields that were named.

use fields::{Field, Json, Reader, named_fields, names, quote};
use pelton_sdk::Record;

/// What becomes of a field that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Skip,
    Null,
    Reject,
}

/// Which fields are written where.
pub(crate) struct Select {
    fields: Vec<Field>,
    reader: Reader,
    object: Vec<Member>,
    missing: Missing,
}

struct Member {
    name: String,
    /// `"name":`
    label: Vec<u8>,
    content: Content,
}

enum Content {
    /// A field, by its place.
    Field(usize),
    Object(Vec<Member>),
}

impl Select {
    /// Parses the setting `select`.
    pub(crate) fn parse(setting: &str, missing: Missing) -> Result<Select, String> {
        let mut object = Vec::new();
        let mut fields = Vec::new();
        for (field, name) in named_fields(setting, Field::parse).map_err(|error| format!("select {error}"))? {
            let target = match name {
                Some(name) => names(&name).ok_or_else(|| format!("select has `{name}`, which is no name"))?,
                None => vec![own_name(&field).ok_or_else(|| {
                    format!("select has `{field}`, which has no name by itself: write `{field} as NAME`")
                })?],
            };
            insert(&mut object, &target, fields.len())
                .map_err(|()| format!("select writes `{}` twice", target.join(".")))?;
            fields.push(field);
        }
        Ok(Select { reader: Reader::new(fields.clone()), fields, object, missing })
    }

    /// Appends the object of a record that has a value.
    pub(crate) fn write(&self, record: Record<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let value = record.value().unwrap_or_default();
        let is_object = value.trim_ascii_start().starts_with(b"{");
        if !is_object || self.fields.iter().all(|field| !matches!(field, Field::Json(_))) {
            // Otherwise the reader finds out whether it is JSON.
            crate::check(Json::parse(value)?)?;
        }
        let members = self.reader.members(Some(value))?;
        self.write_object(&self.object, record, &members, out)
    }

    fn write_object(
        &self,
        object: &[Member],
        record: Record<'_>,
        members: &[Option<Json<'_>>],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut mark = b'{';
        for member in object {
            let start = out.len();
            out.push(mark);
            out.extend_from_slice(&member.label);
            let is_there = match &member.content {
                Content::Field(place) => write_field(&self.fields[*place], record, members[*place], out)?,
                Content::Object(object) => self.write_object(object, record, members, out).map(|()| true)?,
            };
            match (&member.content, is_there, self.missing) {
                (_, true, _) => mark = b',',
                (_, false, Missing::Skip) => out.truncate(start),
                (_, false, Missing::Null) => {
                    out.extend_from_slice(b"null");
                    mark = b',';
                }
                (Content::Field(place), false, Missing::Reject) => {
                    return Err(format!("it has no `{}`", self.fields[*place]));
                }
                (Content::Object(_), false, Missing::Reject) => {}
            }
        }
        if mark == b'{' {
            out.push(mark);
        }
        out.push(b'}');
        Ok(())
    }
}

/// Appends a field, if it is there.
fn write_field(
    field: &Field,
    record: Record<'_>,
    member: Option<Json<'_>>,
    out: &mut Vec<u8>,
) -> Result<bool, String> {
    let bytes = match field {
        Field::Json(_) => {
            if let Some(member) = member {
                out.extend_from_slice(member.text().as_bytes());
            }
            return Ok(member.is_some());
        }
        Field::Timestamp => {
            let is_there = record.timestamp() >= 0;
            if is_there {
                out.extend_from_slice(record.timestamp().to_string().as_bytes());
            }
            return Ok(is_there);
        }
        Field::Key => record.key(),
        Field::Raw => record.value(),
        Field::Header(name) => record.header(name),
    };
    let Some(bytes) = bytes else { return Ok(false) };
    let text = std::str::from_utf8(bytes)
        .map_err(|_| format!("`{field}` is not UTF-8, so it is no text of JSON"))?;
    quote(text, out);
    Ok(true)
}

/// What a field is called where the setting does not say it.
fn own_name(field: &Field) -> Option<String> {
    match field {
        Field::Key => Some("key".to_owned()),
        Field::Timestamp => Some("timestamp".to_owned()),
        Field::Header(name) => Some(name.clone()),
        Field::Raw => None,
        Field::Json(names) => names.last().filter(|name| name.parse::<usize>().is_err()).cloned(),
    }
}

/// Fails if the place is taken.
fn insert(object: &mut Vec<Member>, target: &[String], field: usize) -> Result<(), ()> {
    let Some((name, rest)) = target.split_first() else { return Err(()) };
    let known = object.iter_mut().find(|member| member.name == *name);
    if let Some(member) = known {
        return match &mut member.content {
            Content::Object(inner) => insert(inner, rest, field),
            Content::Field(_) => Err(()),
        };
    }
    let mut label = Vec::new();
    quote(name, &mut label);
    label.push(b':');
    let content = if rest.is_empty() {
        Content::Field(field)
    } else {
        let mut inner = Vec::new();
        insert(&mut inner, rest, field)?;
        Content::Object(inner)
    };
    object.push(Member { name: name.clone(), label, content });
    Ok(())
}
