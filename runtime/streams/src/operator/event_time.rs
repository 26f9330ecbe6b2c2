//! When something happened, by a field of its record.

use super::field::{Extractor, Field};
use super::scalar::Scalar;
use super::windows::MAX_TIMESTAMP;
use crate::batch::{BatchIn, NO_TIMESTAMP, OwnedBatch, RecordIn};
use crate::manifest::values::epoch_ms;

/// Reads the time of records: a whole number of milliseconds since 1970-01-01 UTC, or a date and time with a zone as
/// RFC 3339 has it.
#[derive(Debug)]
pub struct EventTime(Extractor);

impl EventTime {
    /// In this field.
    pub fn new(field: Field) -> EventTime {
        EventTime(Extractor::new(vec![field]))
    }

    /// The time of a record; [`NO_TIMESTAMP`] if the field is not there or is no time.
    pub fn of(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> i64 {
        let time = || {
            let found = self.0.extract(key, value?).ok()?.pop()?;
            let ms = match &found {
                Scalar::Int(ms) => *ms,
                Scalar::Text(text) => epoch_ms(text)?,
                Scalar::Bytes(bytes) => match found.number() {
                    Some(Scalar::Int(ms)) => ms,
                    _ => epoch_ms(std::str::from_utf8(bytes).ok()?.trim_ascii())?,
                },
                Scalar::Null | Scalar::Bool(_) | Scalar::Float(_) | Scalar::Document(_) => return None,
            };
            (0..=MAX_TIMESTAMP).contains(&ms).then_some(ms)
        };
        time().unwrap_or(NO_TIMESTAMP)
    }

    /// The same records with these times.
    pub fn stamp(&self, batch: BatchIn<'_>) -> OwnedBatch {
        let mut stamped = OwnedBatch::new(batch.topic, batch.partition);
        for record in batch.records() {
            let timestamp = self.of(record.key, record.value);
            let pushed = stamped.push(RecordIn { timestamp, ..record }, record.headers);
            pushed.expect("a copy of a batch fits where the batch does");
        }
        stamped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_or_dates() {
        for (field, value, expect) in [
            ("json:t", r#"{"t":1357034400000}"#, 1_357_034_400_000),
            ("json:t", r#"{"t":"2013-01-01T10:00:00Z"}"#, 1_357_034_400_000),
            ("json:t", r#"{"t":1.5}"#, -1),
            ("json:t", r#"{"t":-5}"#, -1),
            ("json:t", r#"{"t":"2013-01-01"}"#, -1),
            ("json:t", "{}", -1),
            ("json:t", "no json", -1),
            ("raw", "17", 17),
            ("raw", "2013-01-01T10:00:00+01:00", 1_357_030_800_000),
            ("raw", "soon", -1),
            ("key", "x", 12),
        ] {
            let time = EventTime::new(Field::parse(field).unwrap());
            assert_eq!(time.of(Some(b"12"), Some(value.as_bytes())), expect, "{field} {value}");
        }
        assert_eq!(EventTime::new(Field::Raw).of(None, None), -1);
    }
}
