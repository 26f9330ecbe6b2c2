//! Rows of a grouped table as values of a repartition topic: what left the group and what came into it.
//!
//! ```text
//! version(1) flags(1): 1 a value came, 2 one left
//! length(4) key in the table before grouping
//! length(4) what left
//! what came, up to the end
//! ```

use bytes::Bytes;

use super::context::each_row;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row};

const VERSION: u8 = 1;
const CAME: u8 = 1;
const LEFT: u8 = 2;

/// The value for a topic; none if the row is none of a grouped table.
pub fn encode(row: &Row) -> Option<Bytes> {
    let Change::Grouped { was, origin } = &row.change else { return None };
    let (was_bytes, value) = (was.as_deref().unwrap_or_default(), row.value.as_deref().unwrap_or_default());
    let mut out = Vec::with_capacity(10 + origin.len() + was_bytes.len() + value.len());
    let flags = if row.value.is_some() { CAME } else { 0 } | if was.is_some() { LEFT } else { 0 };
    out.extend_from_slice(&[VERSION, flags]);
    for field in [&origin[..], was_bytes] {
        // A record has less than 2 GiB.
        out.extend_from_slice(&(field.len() as u32).to_be_bytes());
        out.extend_from_slice(field);
    }
    out.extend_from_slice(value);
    Some(out.into())
}

/// The value and the change of a record of a repartition topic; none if it is none of [`encode`].
pub fn decode(stored: &Bytes) -> Option<(Option<Bytes>, Change)> {
    let (&[version, flags], mut rest) = stored.split_first_chunk::<2>()?;
    if version != VERSION || flags & !(CAME | LEFT) != 0 {
        return None;
    }
    let mut field = || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let (field, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        rest = after;
        Some(stored.slice_ref(field))
    };
    let (origin, was) = (field()?, field()?);
    let value = (flags & CAME != 0).then(|| stored.slice_ref(rest));
    let was = (flags & LEFT != 0).then_some(was);
    Some((value, Change::Grouped { was, origin }))
}

/// Rows of a grouped table as records for a topic. Other rows are dropped: there are none.
pub struct GroupsToTopic;

impl Operator for GroupsToTopic {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            if let Some(value) = encode(row) {
                cx.emit(RESULTS, Row { value: Some(value), change: Change::Unknown, ..row.clone() });
            }
            Ok(())
        })
    }
}

/// The rows again.
pub struct GroupsOfTopic;

impl Operator for GroupsOfTopic {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let (value, change) = row
                .value
                .as_ref()
                .and_then(decode)
                .ok_or_else(|| OperatorError::row("it is no row of a grouped table".to_owned()))?;
            cx.emit(RESULTS, Row { value, change, ..row.clone() });
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_back() {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        for was in [None, Some(bytes("")), Some(bytes("old"))] {
            for value in [None, Some(bytes("")), Some(bytes("new"))] {
                let change = Change::Grouped { was: was.clone(), origin: bytes("key") };
                let row = Row { value: value.clone(), change: change.clone(), ..Row::default() };
                let stored = encode(&row).unwrap();
                assert_eq!(decode(&stored), Some((value, change)));
                for cut in 0..13 {
                    assert_eq!(decode(&stored.slice(..cut)), None, "{cut}");
                }
            }
        }
        assert_eq!(encode(&Row::default()), None);
        assert_eq!(decode(&bytes("\u{2}\0\0\0\0\0\0\0\0\0")), None);
    }
}
