//! What a manifest says of each record by itself: `filter`, `branch`, `select` and `flat_map`.
//!
//! `filter` and `select` of a table give a table: a row that does not meet the condition is deleted there
//! ([`FilterTable`](super::FilterTable), [`MapTable`](super::MapTable)).

use bytes::Bytes;

use super::condition::{Condition, Judge};
use super::context::each_row;
use super::field::{Field, FieldError};
use super::json_text::Json;
use super::scalar::{Scalar, write, write_json_bytes};
use super::table::ValueFunction;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Predicate, Row};

/// Items of a list that become records of their own: what one record becomes is in memory at once.
pub const MAX_ITEMS: usize = 10_000;

/// Whether a condition is true of a row.
pub struct Holds(Judge);

impl Holds {
    /// For a condition.
    pub fn new(condition: Condition) -> Holds {
        Holds(Judge::new(condition))
    }
}

impl Predicate for Holds {
    fn test(&mut self, row: &Row) -> Result<bool, OperatorError> {
        self.0.is_true(row.key.as_deref(), row.value.as_deref())
    }
}

/// The members of an object that is made of a record, in their order, each with where its value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection(pub Vec<(String, Field)>);

/// Makes the objects of a [`Selection`]. A member that the record lacks is null there.
pub struct Select {
    selection: Selection,
    needs_json: bool,
}

impl Select {
    /// For a selection.
    pub fn new(selection: Selection) -> Select {
        let needs_json = selection.0.iter().any(|(_, field)| matches!(field, Field::Json(_)));
        Select { selection, needs_json }
    }

    fn object(&self, key: Option<&[u8]>, value: &[u8]) -> Result<Bytes, OperatorError> {
        let json = if self.needs_json { Some(Json::parse(value)?) } else { None };
        let mut out = Vec::with_capacity(value.len());
        for (name, field) in &self.selection.0 {
            out.push(if out.is_empty() { b'{' } else { b',' });
            write(&mut out, name);
            out.push(b':');
            match field {
                Field::Json(path) => {
                    let found = json.and_then(|json| json.member(path));
                    out.extend_from_slice(found.map_or("null", Json::text).as_bytes());
                }
                Field::Key => match key {
                    Some(key) => write_json_bytes(&mut out, key),
                    None => out.extend_from_slice(b"null"),
                },
                Field::Raw => write_json_bytes(&mut out, value),
                Field::All | Field::Long | Field::Double => number(field, value)?.write_json(&mut out),
            }
        }
        if out.is_empty() {
            out.push(b'{');
        }
        out.push(b'}');
        Ok(out.into())
    }
}

fn number<'v>(field: &Field, value: &'v [u8]) -> Result<Scalar<'v>, OperatorError> {
    let found = super::field::Extractor::new(vec![field.clone()]).extract(None, value);
    let mut found = found.map_err(|error: FieldError| OperatorError::row(error.to_string()))?;
    Ok(found.pop().unwrap_or(Scalar::Null))
}

impl ValueFunction for Select {
    fn call(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<Option<Bytes>, OperatorError> {
        self.object(key, value).map(Some)
    }
}

/// Rows of a stream with other values. Rows without a value are dropped.
pub struct MapValues(pub Box<dyn ValueFunction>);

impl Operator for MapValues {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let Some(value) = &row.value else {
                cx.counts.null_value += 1;
                return Ok(());
            };
            if let Some(value) = self.0.call(row.key.as_deref(), value)? {
                cx.emit(RESULTS, Row { value: Some(value), change: Change::Unknown, ..row.clone() });
            }
            Ok(())
        })
    }
}

/// Each item of a list in a row's value becomes a row, with the key, the time and the headers of that one.
pub struct Explode(Vec<String>);

impl Explode {
    /// The names on the way to the list.
    pub fn new(path: Vec<String>) -> Explode {
        Explode(path)
    }
}

impl Operator for Explode {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let Some(value) = &row.value else {
                cx.counts.null_value += 1;
                return Ok(());
            };
            let Some(list) = Json::parse(value)?.member(&self.0).filter(|list| !list.is_null()) else {
                cx.counts.null_field += 1;
                return Ok(());
            };
            let of = || Field::Json(self.0.clone());
            let items = list.items().ok_or_else(|| OperatorError::row(format!("`{}` is no list", of())))?;
            for (count, item) in items.enumerate() {
                if count == MAX_ITEMS {
                    let reason =
                        format!("`{}` has more than {MAX_ITEMS} items, which become records at once", of());
                    return Err(OperatorError::row(reason));
                }
                let value = Some(value.slice_ref(item.text().as_bytes()));
                cx.emit(RESULTS, Row { value, change: Change::Unknown, ..row.clone() });
            }
            Ok(())
        })
    }
}
