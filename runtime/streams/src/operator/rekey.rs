//! Records that go through a topic under another key than their own, which they have again behind it: their own key is the last
//! header meanwhile. For operators that tell records apart by a field and hand them on as they are.

use bytes::Bytes;

use super::context::each_row;
use super::field::{Extractor, Field};
use super::rows::one_field;
use super::windows::RESULTS;
use super::{Change, Context, Header, Operator, OperatorError, Row, RowHeaders};

/// The header of a topic of the pipeline's own that has the key of the record.
const KEY_HEADER: &[u8] = b"pelton.key";

/// Rows with a field of theirs as the key, on their way into a topic. Rows without a value or the field are dropped.
pub struct KeyAside(Extractor);

impl KeyAside {
    /// By this field.
    pub fn new(by: Field) -> KeyAside {
        KeyAside(Extractor::new(vec![by]))
    }
}

impl Operator for KeyAside {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let Some(value) = &row.value else {
                cx.counts.null_value += 1;
                return Ok(());
            };
            let own = row.full_key();
            let Some(key) = one_field(&self.0, row.key.as_deref(), value)?.key_bytes() else {
                cx.counts.null_field += 1;
                return Ok(());
            };
            let mut headers = row.headers.as_slice().to_vec();
            headers.push(Header { name: Bytes::from_static(KEY_HEADER), value: own });
            let headers = RowHeaders::new(headers);
            cx.emit(
                RESULTS,
                Row { key: Some(key.into()), headers, window: None, change: Change::Unknown, ..row.clone() },
            );
            Ok(())
        })
    }
}

/// Rows out of such a topic, with their own keys.
pub struct KeyBack;

impl Operator for KeyBack {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let mut headers = row.headers.as_slice().to_vec();
            let key = headers.pop().filter(|header| *header.name == *KEY_HEADER);
            let key =
                key.ok_or_else(|| OperatorError::row("it has no key of its own in its headers".to_owned()))?;
            let headers = RowHeaders::new(headers);
            cx.emit(RESULTS, Row { key: key.value, headers, ..row.clone() });
            Ok(())
        })
    }
}
