use crate::batch::{NULL, Record};
use crate::bindings::{Batch, HeaderColumns, Output, Slices};

/// Collects what a transform emits for one batch.
///
/// A column of the answer exists only from the first record that changes it: a transform that filters answers with four
/// bytes a record, and keys, headers and timestamps that nobody touches never cross the border again.
pub struct Out<'a> {
    batch: &'a Batch,
    output: Output,
    /// Where new bytes begin, as offsets of the answer count.
    base: usize,
}

/// The record that was emitted last: change what it does not inherit.
pub struct Last<'o, 'a> {
    out: &'o mut Out<'a>,
}

impl<'a> Out<'a> {
    /// An empty answer to `batch`.
    pub fn new(batch: &'a Batch) -> Out<'a> {
        let output = Output {
            source: Vec::with_capacity(batch.offsets.len()),
            data: Vec::new(),
            keys: None,
            values: None,
            timestamps: None,
            headers: None,
            route: None,
        };
        Out { batch, output, base: batch.data.len() }
    }

    /// The answer.
    pub fn finish(self) -> Output {
        self.output
    }

    /// Emits the record as it is.
    pub fn keep(&mut self, record: Record<'_>) -> Last<'_, 'a> {
        self.begin(record);
        Last { out: self }
    }

    /// Emits the record with another value.
    pub fn value(&mut self, record: Record<'_>, value: impl AsRef<[u8]>) -> Last<'_, 'a> {
        self.write(record, |data| data.extend_from_slice(value.as_ref()))
    }

    /// Emits the record with another key and another value.
    pub fn key_value(
        &mut self,
        record: Record<'_>,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Last<'_, 'a> {
        self.begin(record);
        let span = self.append(|data| data.extend_from_slice(key.as_ref()));
        self.set_key(span);
        let span = self.append(|data| data.extend_from_slice(value.as_ref()));
        self.set_value(span);
        Last { out: self }
    }

    /// Emits the record with a value that `write` appends to the answer's bytes. What is there already must stay.
    pub fn write(&mut self, record: Record<'_>, write: impl FnOnce(&mut Vec<u8>)) -> Last<'_, 'a> {
        self.begin(record);
        let span = self.append(write);
        self.set_value(span);
        Last { out: self }
    }

    /// Emits the record with its value copied once and changed in place. A null value stays null.
    pub fn edit(&mut self, record: Record<'_>, edit: impl FnOnce(&mut [u8])) -> Last<'_, 'a> {
        self.begin(record);
        if let Some(value) = record.value() {
            let start = self.output.data.len();
            let span = self.append(|data| data.extend_from_slice(value));
            edit(&mut self.output.data[start..]);
            self.set_value(span);
        }
        Last { out: self }
    }

    /// Emits the record with a null value: a delete, in a compacted topic.
    pub fn tombstone(&mut self, record: Record<'_>) -> Last<'_, 'a> {
        self.begin(record);
        self.set_value((0, NULL));
        Last { out: self }
    }

    /// Adds a record that inherits everything.
    fn begin(&mut self, record: Record<'_>) {
        let Out { batch, output, .. } = self;
        output.source.push(number(record.index()));
        if let Some(keys) = &mut output.keys {
            inherit(keys, &batch.keys, record.index());
        }
        if let Some(values) = &mut output.values {
            inherit(values, &batch.values, record.index());
        }
        if let Some(timestamps) = &mut output.timestamps {
            timestamps.push(record.timestamp());
        }
        if let Some(headers) = &mut output.headers {
            inherit_headers(headers, batch, record);
        }
        if let Some(route) = &mut output.route {
            route.push(0);
        }
    }

    /// Appends new bytes and says where they are.
    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let data = &mut self.output.data;
        if data.capacity() == 0 {
            // One allocation for what most transforms answer.
            data.reserve(self.base);
        }
        let start = data.len();
        write(data);
        (number(self.base + start), number(data.len() - start))
    }

    fn set_key(&mut self, span: (u32, u32)) {
        let Out { batch, output, .. } = self;
        let column = output.keys.get_or_insert_with(|| backfill(&output.source, &batch.keys));
        set_last(column, span);
    }

    fn set_value(&mut self, span: (u32, u32)) {
        let Out { batch, output, .. } = self;
        let column = output.values.get_or_insert_with(|| backfill(&output.source, &batch.values));
        set_last(column, span);
    }
}

impl Last<'_, '_> {
    /// Sets its key.
    pub fn key(self, key: impl AsRef<[u8]>) -> Self {
        let span = self.out.append(|data| data.extend_from_slice(key.as_ref()));
        self.out.set_key(span);
        self
    }

    /// Sets its key to null.
    pub fn no_key(self) -> Self {
        self.out.set_key((0, NULL));
        self
    }

    /// Sets its timestamp, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(self, timestamp: i64) -> Self {
        let Out { batch, output, .. } = self.out;
        let column = output.timestamps.get_or_insert_with(|| {
            output.source.iter().map(|&source| batch.timestamps[source as usize]).collect()
        });
        if let Some(last) = column.last_mut() {
            *last = timestamp;
        }
        self
    }

    /// Adds a header behind those it has.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = self.out.append(|data| data.extend_from_slice(name.as_bytes()));
        let value = self.out.append(|data| data.extend_from_slice(value.as_ref()));
        let headers = self.out.headers();
        push(&mut headers.names, name);
        push(&mut headers.values, value);
        if let Some(count) = headers.counts.last_mut() {
            *count += 1;
        }
        self
    }

    /// Takes all headers away.
    pub fn no_headers(self) -> Self {
        let headers = self.out.headers();
        if let Some(count) = headers.counts.last_mut() {
            let rest = headers.names.offsets.len() - std::mem::take(count) as usize;
            for column in [&mut headers.names, &mut headers.values] {
                column.offsets.truncate(rest);
                column.lengths.truncate(rest);
            }
        }
        self
    }

    /// Sends it to another output than the first: an index into `outputs` of `plugin.toml`.
    pub fn to(self, output: u32) -> Self {
        let emitted = self.out.output.source.len();
        let route = self.out.output.route.get_or_insert_with(|| vec![0; emitted]);
        if let Some(last) = route.last_mut() {
            *last = output;
        }
        self
    }
}

impl Out<'_> {
    fn headers(&mut self) -> &mut HeaderColumns {
        let Out { batch, output, .. } = self;
        output.headers.get_or_insert_with(|| {
            let empty = || Slices { offsets: Vec::new(), lengths: Vec::new() };
            let mut columns = HeaderColumns { counts: Vec::new(), names: empty(), values: empty() };
            let records: Vec<Record<'_>> = Record::all(batch).collect();
            for &source in &output.source {
                inherit_headers(&mut columns, batch, records[source as usize]);
            }
            columns
        })
    }
}

/// The column as if it had been there from the first record on.
fn backfill(source: &[u32], from: &Slices) -> Slices {
    let mut column =
        Slices { offsets: Vec::with_capacity(source.len()), lengths: Vec::with_capacity(source.len()) };
    for &source in source {
        inherit(&mut column, from, source as usize);
    }
    column
}

fn inherit(column: &mut Slices, from: &Slices, index: usize) {
    let offset = from.offsets.get(index).copied().unwrap_or(0);
    push(column, (offset, from.lengths.get(index).copied().unwrap_or(NULL)));
}

fn inherit_headers(columns: &mut HeaderColumns, batch: &Batch, record: Record<'_>) {
    let range = record.header_range();
    columns.counts.push(number(range.len()));
    if let Some(from) = &batch.headers {
        for index in range {
            inherit(&mut columns.names, &from.names, index);
            inherit(&mut columns.values, &from.values, index);
        }
    }
}

fn push(column: &mut Slices, (offset, length): (u32, u32)) {
    column.offsets.push(offset);
    column.lengths.push(length);
}

fn set_last(column: &mut Slices, (offset, length): (u32, u32)) {
    if let (Some(last_offset), Some(last_length)) = (column.offsets.last_mut(), column.lengths.last_mut()) {
        (*last_offset, *last_length) = (offset, length);
    }
}

/// Everything here is counted in bytes of a memory of 32 bits.
fn number(n: usize) -> u32 {
    u32::try_from(n).expect("no more than 4 GiB of memory")
}

#[cfg(test)]
mod tests;
