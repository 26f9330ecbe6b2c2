//! Operators without state: what becomes of each row by itself.

use super::context::each_row;
use super::field::{Extractor, Field};
use super::scalar::Scalar;
use super::windows::RESULTS;
use super::{Change, Context, Operator, OperatorError, Row};

/// What becomes of a row of a stream: any number of rows, each with the output that it leaves by.
pub trait RowFunction: Send {
    /// Emits what the row becomes.
    ///
    /// # Errors
    /// The row cannot be processed.
    fn call(&mut self, row: &Row, emit: &mut dyn FnMut(usize, Row)) -> Result<(), OperatorError>;
}

impl<F> RowFunction for F
where
    F: FnMut(&Row, &mut dyn FnMut(usize, Row)) -> Result<(), OperatorError> + Send,
{
    fn call(&mut self, row: &Row, emit: &mut dyn FnMut(usize, Row)) -> Result<(), OperatorError> {
        self(row, emit)
    }
}

/// Whether a row goes on.
pub trait Predicate: Send {
    /// Says it.
    ///
    /// # Errors
    /// The row cannot be processed.
    fn test(&mut self, row: &Row) -> Result<bool, OperatorError>;
}

impl<F: FnMut(&Row) -> Result<bool, OperatorError> + Send> Predicate for F {
    fn test(&mut self, row: &Row) -> Result<bool, OperatorError> {
        self(row)
    }
}

/// Each row becomes what a function makes of it. The result is a stream.
pub struct FlatMap(pub Box<dyn RowFunction>);

impl Operator for FlatMap {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            self.0.call(row, &mut |output, made| cx.emit(output, Row { change: Change::Unknown, ..made }))
        })
    }
}

/// Rows of several inputs, in their order. Whatever they are, the result is a stream.
pub struct Merge;

impl Operator for Merge {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            cx.emit(RESULTS, Row { change: Change::Unknown, ..row.clone() });
            Ok(())
        })
    }
}

/// Each row leaves by the output of the first predicate that it meets. One that meets none leaves by the one behind them.
pub struct Branch(pub Vec<Box<dyn Predicate>>);

impl Operator for Branch {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let mut output = 0;
            for predicate in &mut self.0 {
                if predicate.test(row)? {
                    break;
                }
                output += 1;
            }
            cx.emit(output, Row { change: Change::Unknown, ..row.clone() });
            Ok(())
        })
    }
}

/// Rows of a stream that meet a predicate.
pub struct Filter(pub Box<dyn Predicate>);

impl Operator for Filter {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            if self.0.test(row)? {
                cx.emit(RESULTS, Row { change: Change::Unknown, ..row.clone() });
            }
            Ok(())
        })
    }
}

/// What becomes of a row without the field that would be its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullKey {
    /// It is dropped, and counted.
    Drop,
    /// It goes on without a key.
    Keep,
}

/// Rows of a stream with a field of theirs as the key.
pub struct SelectKey {
    field: Extractor,
    null: NullKey,
}

impl SelectKey {
    /// By this field.
    pub fn new(field: Field, null: NullKey) -> SelectKey {
        SelectKey { field: Extractor::new(vec![field]), null }
    }
}

impl Operator for SelectKey {
    fn process(&mut self, _: usize, rows: &[Row], cx: &mut Context<'_>) -> Result<(), OperatorError> {
        each_row(rows, cx, |row, cx| {
            let key = match &row.value {
                None => None,
                Some(value) => one_field(&self.field, row.key.as_deref(), value)?.key_bytes(),
            };
            if key.is_none() {
                cx.counts.null_field += 1;
                if self.null == NullKey::Drop {
                    return Ok(());
                }
            }
            let key = key.map(Into::into);
            cx.emit(RESULTS, Row { key, window: None, change: Change::Unknown, ..row.clone() });
            Ok(())
        })
    }
}

/// The value of the only field.
pub(super) fn one_field<'v>(
    field: &Extractor,
    key: Option<&'v [u8]>,
    value: &'v [u8],
) -> Result<Scalar<'v>, OperatorError> {
    let mut found = field.extract(key, value).map_err(|error| OperatorError::row(error.to_string()))?;
    Ok(found.pop().unwrap_or(Scalar::Null))
}
