//! Records as columns: what a plugin is given. A field is an offset and a length into one blob, so handing a stored
//! batch to a plugin copies nothing but the blob and a few lists of integers.

use pelton_wire::record::columns::{Columns, NULL_LENGTH, Slices};

/// A length that means "null".
pub const NULL: u32 = NULL_LENGTH;
/// A timestamp that means "none".
pub const NO_TIMESTAMP: i64 = -1;

/// One field of every record. See `slices` in `sdk/wit`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SlicesIn<'a> {
    /// Where each field begins in the blob.
    pub offsets: &'a [u32],
    /// How long each field is; [`NULL`] for null.
    pub lengths: &'a [u32],
}

impl<'a> SlicesIn<'a> {
    /// Field `i`: `None` for null, and for a slice outside of the blob.
    pub fn get(&self, blob: Blob<'a>, i: usize) -> Option<&'a [u8]> {
        match (self.offsets.get(i), self.lengths.get(i)) {
            (Some(&offset), Some(&length)) if length != NULL => blob.get(offset, length),
            _ => None,
        }
    }

    /// Those of the records from `from` to `to`; none where the column is left out.
    fn part(self, from: usize, to: usize) -> SlicesIn<'a> {
        SlicesIn {
            offsets: self.offsets.get(from..to).unwrap_or_default(),
            lengths: self.lengths.get(from..to).unwrap_or_default(),
        }
    }
}

impl<'a> From<&'a Slices> for SlicesIn<'a> {
    fn from(slices: &'a Slices) -> SlicesIn<'a> {
        SlicesIn { offsets: &slices.offsets, lengths: &slices.lengths }
    }
}

/// The headers of all records. See `header-columns` in `sdk/wit`.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadersIn<'a> {
    /// How many of the following entries each record owns, in order.
    pub counts: &'a [u32],
    /// Header names.
    pub names: SlicesIn<'a>,
    /// Header values.
    pub values: SlicesIn<'a>,
}

/// Bytes in two parts that are addressed as one: the input's blob, then what an answer added.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blob<'a> {
    /// Offsets below its length point into it.
    pub input: &'a [u8],
    /// All other offsets point here, less the length of `input`.
    pub extra: &'a [u8],
}

impl<'a> Blob<'a> {
    /// The bytes at `offset`; `None` if they are not all in one of the parts.
    #[inline]
    pub fn get(self, offset: u32, length: u32) -> Option<&'a [u8]> {
        let (offset, length) = (offset as usize, length as usize);
        let (part, start) = match offset.checked_sub(self.input.len()) {
            None => (self.input, offset),
            Some(start) => (self.extra, start),
        };
        part.get(start..start.checked_add(length)?)
    }
}

/// Records of one partition, borrowed. Columns of one length (keys and values too), in offset order.
#[derive(Debug, Clone, Copy, Default)]
pub struct BatchIn<'a> {
    /// The topic that the records were read from.
    pub topic: &'a str,
    /// The partition of that topic.
    pub partition: u32,
    /// The blob that every slice points into. At most `u32::MAX` bytes.
    pub data: &'a [u8],
    /// The offset of each record; rises, with holes. -1: made from no stored record.
    pub offsets: &'a [i64],
    /// Record timestamps, milliseconds since 1970-01-01 UTC; -1 for none.
    pub timestamps: &'a [i64],
    /// Record keys.
    pub keys: SlicesIn<'a>,
    /// Record values.
    pub values: SlicesIn<'a>,
    /// `None`: no record has a header.
    pub headers: Option<HeadersIn<'a>>,
}

impl<'a> BatchIn<'a> {
    /// The stored records that `columns` holds.
    pub fn new(topic: &'a str, partition: u32, columns: &'a Columns) -> BatchIn<'a> {
        let headers = HeadersIn {
            counts: columns.header_counts(),
            names: columns.header_names().into(),
            values: columns.header_values().into(),
        };
        BatchIn {
            topic,
            partition,
            data: columns.data(),
            offsets: columns.offsets(),
            timestamps: columns.timestamps(),
            keys: columns.keys().into(),
            values: columns.values().into(),
            headers: columns.has_headers().then_some(headers),
        }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The blob as one part.
    pub fn blob(&self) -> Blob<'a> {
        Blob { input: self.data, extra: &[] }
    }

    /// The records whose offset is below this one. Offsets rise.
    pub fn below(self, offset: i64) -> BatchIn<'a> {
        self.part(0, self.offsets.partition_point(|own| *own < offset), 0)
    }

    /// The records from `from` to `to`, which are within it, before which there are so many headers.
    pub(crate) fn part(self, from: usize, to: usize, headers: usize) -> BatchIn<'a> {
        BatchIn {
            offsets: &self.offsets[from..to],
            timestamps: self.timestamps.get(from..to).unwrap_or_default(),
            keys: self.keys.part(from, to),
            values: self.values.part(from, to),
            headers: self.headers.map(|all| {
                let counts = all.counts.get(from..to).unwrap_or_default();
                let end = headers + counts.iter().map(|count| *count as usize).sum::<usize>();
                HeadersIn {
                    counts,
                    names: all.names.part(headers, end),
                    values: all.values.part(headers, end),
                }
            }),
            ..self
        }
    }

    /// All records, in order.
    pub fn records(self) -> impl Iterator<Item = RecordIn<'a>> {
        let mut header_start = 0;
        (0..self.len()).map(move |i| {
            let count = self.headers.map_or(0, |h| h.counts.get(i).copied().unwrap_or(0) as usize);
            let record = self.record_at(i, header_start, count);
            header_start += count;
            record
        })
    }

    /// Record `i`, if there is one. Walks the header counts, so use [`records`](Self::records) for many.
    pub fn record(self, i: usize) -> Option<RecordIn<'a>> {
        self.records().nth(i)
    }

    fn record_at(self, i: usize, header_start: usize, header_count: usize) -> RecordIn<'a> {
        RecordIn {
            offset: self.offsets[i],
            timestamp: self.timestamps.get(i).copied().unwrap_or(-1),
            key: self.keys.get(self.blob(), i),
            value: self.values.get(self.blob(), i),
            headers: Headers::new(self.blob(), self.headers, header_start, header_count),
        }
    }
}

/// One record, borrowed out of a batch or an answer.
#[derive(Debug, Clone, Copy)]
pub struct RecordIn<'a> {
    /// The offset of the stored record it is or comes from; -1: none.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC; -1: none.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Headers<'a>,
}

impl RecordIn<'_> {
    /// The bytes of key and value.
    pub(crate) fn key_and_value_bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }

    /// The bytes of key, value and headers.
    pub fn bytes(&self) -> u64 {
        let field = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len) as u64;
        let headers: u64 = self.headers.map(|(name, value)| name.len() as u64 + field(value)).sum();
        field(self.key) + field(self.value) + headers
    }
}

/// The headers of one record: an iterator of name and value. Names come as stored; Kafka wants them to be UTF-8.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    blob: Blob<'a>,
    columns: HeadersIn<'a>,
    next: usize,
    end: usize,
}

impl<'a> Headers<'a> {
    pub(crate) fn new(
        blob: Blob<'a>,
        columns: Option<HeadersIn<'a>>,
        start: usize,
        count: usize,
    ) -> Headers<'a> {
        match columns {
            Some(columns) => Headers { blob, columns, next: start, end: start.saturating_add(count) },
            None => Headers::default(),
        }
    }
}

impl<'a> Headers<'a> {
    /// The next so many of them alone.
    pub fn first(self, count: usize) -> Headers<'a> {
        Headers { end: self.end.min(self.next.saturating_add(count)), ..self }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let name = self.columns.names.get(self.blob, self.next).unwrap_or_default();
        let value = self.columns.values.get(self.blob, self.next);
        self.next += 1;
        Some((name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// A batch would be larger than offsets of 32 bits can address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of more than 4 GiB cannot be built")]
pub struct BatchFull;

#[derive(Debug, Clone, Default)]
struct OwnedSlices {
    offsets: Vec<u32>,
    lengths: Vec<u32>,
}

impl OwnedSlices {
    fn push(&mut self, data: &mut Vec<u8>, field: Option<&[u8]>) -> Result<(), BatchFull> {
        let offset = u32::try_from(data.len()).map_err(|_| BatchFull)?;
        let length = match field {
            None => NULL,
            Some(bytes) => {
                let length =
                    u32::try_from(bytes.len()).ok().filter(|&length| length != NULL).ok_or(BatchFull)?;
                offset.checked_add(length).ok_or(BatchFull)?;
                data.extend_from_slice(bytes);
                length
            }
        };
        self.offsets.push(offset);
        self.lengths.push(length);
        Ok(())
    }

    fn as_in(&self) -> SlicesIn<'_> {
        SlicesIn { offsets: &self.offsets, lengths: &self.lengths }
    }
}

/// A batch that owns its bytes: a part of another one, or what an earlier node emitted.
#[derive(Debug, Clone, Default)]
pub struct OwnedBatch {
    topic: String,
    partition: u32,
    data: Vec<u8>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: OwnedSlices,
    values: OwnedSlices,
    header_counts: Vec<u32>,
    header_names: OwnedSlices,
    header_values: OwnedSlices,
}

impl OwnedBatch {
    /// No records yet.
    pub fn new(topic: &str, partition: u32) -> OwnedBatch {
        OwnedBatch { topic: topic.to_owned(), partition, ..OwnedBatch::default() }
    }

    /// The records of `batch` whose index `keep` accepts, with their bytes alone.
    ///
    /// # Errors
    /// [`BatchFull`] only if slices of `batch` overlap so much that the copy is larger than the batch may be.
    pub fn select(batch: BatchIn<'_>, mut keep: impl FnMut(usize) -> bool) -> Result<OwnedBatch, BatchFull> {
        let mut part = OwnedBatch::new(batch.topic, batch.partition);
        for (i, record) in batch.records().enumerate() {
            if keep(i) {
                part.push(record, record.headers)?;
            }
        }
        Ok(part)
    }

    /// Copies a record in, with `headers` in place of its own.
    ///
    /// # Errors
    /// [`BatchFull`]; the batch must then be dropped.
    pub fn push<'h>(
        &mut self,
        record: RecordIn<'_>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    ) -> Result<(), BatchFull> {
        self.keys.push(&mut self.data, record.key)?;
        self.values.push(&mut self.data, record.value)?;
        let before = self.header_names.offsets.len();
        for (name, value) in headers {
            self.header_names.push(&mut self.data, Some(name))?;
            self.header_values.push(&mut self.data, value)?;
        }
        self.header_counts
            .push(u32::try_from(self.header_names.offsets.len() - before).map_err(|_| BatchFull)?);
        self.offsets.push(record.offset);
        self.timestamps.push(record.timestamp);
        Ok(())
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The batch as a plugin is given it.
    pub fn as_batch(&self) -> BatchIn<'_> {
        let headers = HeadersIn {
            counts: &self.header_counts,
            names: self.header_names.as_in(),
            values: self.header_values.as_in(),
        };
        BatchIn {
            topic: &self.topic,
            partition: self.partition,
            data: &self.data,
            offsets: &self.offsets,
            timestamps: &self.timestamps,
            keys: self.keys.as_in(),
            values: self.values.as_in(),
            headers: (!headers.names.offsets.is_empty()).then_some(headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> RecordIn<'static> {
        RecordIn { offset, timestamp: offset * 10, key, value, headers: Headers::default() }
    }

    #[test]
    fn a_part_of_a_batch_holds_the_same_records() {
        let mut whole = OwnedBatch::new("t", 3);
        let headers: [(&[u8], Option<&[u8]>); 2] = [(b"a", Some(b"1")), (b"a", None)];
        whole.push(record(5, Some(b"k5"), Some(b"")), [].into_iter()).expect("fits");
        whole.push(record(7, None, Some(b"v7")), headers.into_iter()).expect("fits");
        whole.push(record(9, Some(b"k9"), None), headers[..1].iter().copied()).expect("fits");

        let part = OwnedBatch::select(whole.as_batch(), |i| i != 0).expect("fits");
        let seen: Vec<_> = part
            .as_batch()
            .records()
            .map(|r| (r.offset, r.timestamp, r.key, r.value, r.headers.len()))
            .collect();
        assert_eq!(seen, [(7, 70, None, Some(&b"v7"[..]), 2), (9, 90, Some(&b"k9"[..]), None, 1)]);
        let last = part.as_batch().record(1).expect("is there");
        assert_eq!(last.headers.collect::<Vec<_>>(), headers[..1]);
        assert_eq!(last.bytes(), 4);
        assert_eq!(
            (part.as_batch().topic, part.as_batch().partition, part.as_batch().data.len()),
            ("t", 3, 9)
        );
        assert!(part.as_batch().record(2).is_none());
    }

    #[test]
    fn a_slice_never_leaves_its_part_of_the_blob() {
        let blob = Blob { input: b"abc", extra: b"de" };
        for (offset, length, expect) in [
            (0, 3, Some(&b"abc"[..])),
            (0, 4, None),
            (2, 2, None),
            (3, 0, Some(&b""[..])),
            (3, 2, Some(&b"de"[..])),
            (5, 0, Some(&b""[..])),
            (5, 1, None),
            (6, 0, None),
            (u32::MAX, u32::MAX, None),
        ] {
            assert_eq!(blob.get(offset, length), expect, "{offset} {length}");
        }
    }
}
