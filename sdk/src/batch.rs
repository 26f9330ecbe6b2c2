use std::ops::Range;

use crate::bindings::{Batch, Slices};

pub(crate) const NULL: u32 = u32::MAX;

/// One record of a batch, borrowed.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    batch: &'a Batch,
    index: usize,
    header_start: usize,
}

impl<'a> Record<'a> {
    /// All records of a batch, in order.
    pub fn all(batch: &'a Batch) -> impl Iterator<Item = Record<'a>> {
        let mut header_start = 0;
        (0..batch.offsets.len()).map(move |index| {
            let record = Record { batch, index, header_start };
            header_start += record.header_range().len();
            record
        })
    }

    /// Its place in the batch.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The topic that it was read from.
    pub fn topic(&self) -> &'a str {
        &self.batch.topic
    }

    /// The partition that it was read from.
    pub fn partition(&self) -> u32 {
        self.batch.partition
    }

    /// Its offset; -1 if it comes from no stored record.
    pub fn offset(&self) -> i64 {
        self.batch.offsets[self.index]
    }

    /// What the outside knows the record by, whenever it is given: topic, partition and offset, as `orders/3/42`.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}/{}", self.topic(), self.partition(), self.offset())
    }

    /// Milliseconds since 1970-01-01 UTC; -1 for none.
    pub fn timestamp(&self) -> i64 {
        self.batch.timestamps[self.index]
    }

    /// The key; `None` for null, and when `needs` in `plugin.toml` leaves keys out.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.span(&self.batch.keys).map(|span| &self.batch.data[span])
    }

    /// The value; `None` for null, and when `needs` in `plugin.toml` leaves values out.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.span(&self.batch.values).map(|span| &self.batch.data[span])
    }

    /// Name and value of each header; nothing when `needs` in `plugin.toml` leaves headers out.
    pub fn headers(&self) -> Headers<'a> {
        Headers { batch: self.batch, range: self.header_range() }
    }

    /// The value of the last header of this name, as Kafka's `lastHeader` has it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let values = self.headers().filter(|(other, _)| *other == name.as_bytes());
        values.last().and_then(|(_, value)| value)
    }

    pub(crate) fn header_range(&self) -> Range<usize> {
        let count = self.batch.headers.as_ref().map_or(0, |headers| headers.counts[self.index] as usize);
        self.header_start..self.header_start + count
    }

    fn span(&self, slices: &Slices) -> Option<Range<usize>> {
        span(slices, self.index)
    }
}

/// The headers of one record: name and value.
#[derive(Clone)]
pub struct Headers<'a> {
    batch: &'a Batch,
    range: Range<usize>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let headers = self.batch.headers.as_ref()?;
        let index = self.range.next()?;
        let field = |slices| span(slices, index).map(|span| &self.batch.data[span]);
        Some((field(&headers.names).unwrap_or_default(), field(&headers.values)))
    }
}

/// Where field `index` is; `None` for null and for a column that was left out.
fn span(slices: &Slices, index: usize) -> Option<Range<usize>> {
    let (&offset, &length) = (slices.offsets.get(index)?, slices.lengths.get(index)?);
    (length != NULL).then(|| offset as usize..offset as usize + length as usize)
}
