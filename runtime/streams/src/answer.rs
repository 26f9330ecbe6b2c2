//! What a plugin answers, and the check of it: every offset, length, source and route must lie within the batch and the
//! answer before anything is read.

use crate::batch::{BatchFull, BatchIn, Blob, Headers, HeadersIn, NULL, OwnedBatch, RecordIn, SlicesIn};
use crate::limits::RECORD_OVERHEAD_BYTES;

/// A source that means "made from no record".
pub const NO_SOURCE: u32 = u32::MAX;

/// One field of every record of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlicesOut {
    /// Where each field begins: in the input's blob, or behind it in the answer's.
    pub offsets: Vec<u32>,
    /// How long each field is; [`NULL`] for null.
    pub lengths: Vec<u32>,
}

impl SlicesOut {
    fn as_in(&self) -> SlicesIn<'_> {
        SlicesIn { offsets: &self.offsets, lengths: &self.lengths }
    }
}

/// The headers of all records of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadersOut {
    /// How many of the following entries each record owns, in order.
    pub counts: Vec<u32>,
    /// Header names.
    pub names: SlicesOut,
    /// Header values.
    pub values: SlicesOut,
}

/// An answer as the plugin gave it, not checked. See `output` in `sdk/wit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchOut {
    /// The input record that each record comes from, or [`NO_SOURCE`].
    pub source: Vec<u32>,
    /// Bytes that are not in the input.
    pub data: Vec<u8>,
    /// `None`: inherited.
    pub keys: Option<SlicesOut>,
    /// `None`: inherited.
    pub values: Option<SlicesOut>,
    /// `None`: inherited.
    pub timestamps: Option<Vec<i64>>,
    /// `None`: inherited.
    pub headers: Option<HeadersOut>,
    /// `None`: everything goes to the first output.
    pub route: Option<Vec<u32>>,
}

impl BatchOut {
    /// The answer that emits a batch of `records` as it is.
    pub fn identity(records: usize) -> BatchOut {
        BatchOut { source: (0..).take(records).collect(), ..BatchOut::default() }
    }
}

/// Why an answer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It contradicts itself or the batch: the rule of `sdk/wit` that it breaks, with the values.
    #[error("the answer is ill-formed: {0}")]
    IllFormed(String),
    /// It is larger than the plugin's limit.
    #[error("the answer is larger than {limit_bytes} bytes (limits.output)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
}

/// A checked answer. It is read together with the batch that it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    out: BatchOut,
    /// Where the headers of each input record begin; empty unless headers are inherited.
    input_headers: Vec<u32>,
    bytes: u64,
}

impl Answer {
    /// The answer that emits `batch` as it is.
    pub fn identity(batch: &BatchIn<'_>) -> Answer {
        let bytes = batch.records().map(|record| record.bytes() + RECORD_OVERHEAD_BYTES).sum();
        Answer { out: BatchOut::identity(batch.len()), input_headers: header_starts(batch.headers), bytes }
    }

    /// Whether it emits all of `batch` as it is, to the first output.
    pub(crate) fn is_identity_of(&self, batch: &BatchIn<'_>) -> bool {
        let BatchOut { source, data: _, keys, values, timestamps, headers, route } = &self.out;
        let inherits = keys.is_none() && values.is_none() && timestamps.is_none() && headers.is_none();
        inherits && route.is_none() && source.iter().copied().eq((0..).take(batch.len()))
    }

    /// Checks an answer against the batch it answers, the bytes it may emit, and the number of outputs the plugin has.
    ///
    /// # Errors
    /// The first rule that is broken, or the answer is too large.
    pub fn check(
        batch: &BatchIn<'_>,
        out: BatchOut,
        max_bytes: u64,
        outputs: u32,
    ) -> Result<Answer, AnswerError> {
        let check = Check { batch, out: &out, blob: Blob { input: batch.data, extra: &out.data } };
        check.shape(outputs).map_err(AnswerError::IllFormed)?;
        let bytes = check.bytes().map_err(AnswerError::IllFormed)?;
        if bytes > max_bytes {
            return Err(AnswerError::TooLarge { limit_bytes: max_bytes });
        }
        let input_headers = if out.headers.is_some() { Vec::new() } else { header_starts(batch.headers) };
        Ok(Answer { out, input_headers, bytes })
    }

    /// How many records are emitted.
    pub fn len(&self) -> usize {
        self.out.source.len()
    }

    /// Whether nothing is emitted.
    pub fn is_empty(&self) -> bool {
        self.out.source.is_empty()
    }

    /// What it emits: keys, values, headers, and [`RECORD_OVERHEAD_BYTES`] a record.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The output of each record; `None`: all go to the first.
    pub fn route(&self) -> Option<&[u32]> {
        self.out.route.as_deref()
    }

    /// The records emitted, in order. `batch` is the one that was checked against.
    pub fn records<'a>(&'a self, batch: BatchIn<'a>) -> impl Iterator<Item = RecordIn<'a>> {
        let mut header_start = 0;
        (0..self.len()).map(move |i| {
            let record = self.record_at(batch, i, header_start);
            if self.out.headers.is_some() {
                header_start += record.headers.len();
            }
            record
        })
    }

    /// Copies the records whose index `keep` accepts into a batch for the next node.
    ///
    /// # Errors
    /// [`BatchFull`] if that is more than 4 GiB.
    pub fn to_batch(
        &self,
        batch: BatchIn<'_>,
        mut keep: impl FnMut(usize) -> bool,
    ) -> Result<OwnedBatch, BatchFull> {
        let mut next = OwnedBatch::new(batch.topic, batch.partition);
        self.append_to(&mut next, batch, &mut keep)?;
        Ok(next)
    }

    /// The same behind what is in a batch already.
    ///
    /// # Errors
    /// As [`Answer::to_batch`].
    pub(crate) fn append_to(
        &self,
        next: &mut OwnedBatch,
        batch: BatchIn<'_>,
        mut keep: impl FnMut(usize) -> bool,
    ) -> Result<(), BatchFull> {
        for (i, record) in self.records(batch).enumerate() {
            if keep(i) {
                next.push(record, record.headers)?;
            }
        }
        Ok(())
    }

    fn record_at<'a>(&'a self, batch: BatchIn<'a>, i: usize, header_start: usize) -> RecordIn<'a> {
        let out = &self.out;
        let blob = Blob { input: batch.data, extra: &out.data };
        let source = out.source[i];
        let inherited = source as usize;
        let field = |column: &'a Option<SlicesOut>, input: SlicesIn<'a>| match column {
            Some(column) => column.as_in().get(blob, i),
            None => input.get(blob, inherited),
        };
        let headers = match &out.headers {
            Some(columns) => {
                let count = columns.counts.get(i).copied().unwrap_or(0) as usize;
                let columns = HeadersIn {
                    counts: &columns.counts,
                    names: columns.names.as_in(),
                    values: columns.values.as_in(),
                };
                Headers::new(blob, Some(columns), header_start, count)
            }
            None => {
                let start = self.input_headers.get(inherited).copied().unwrap_or(0) as usize;
                let count =
                    batch.headers.and_then(|h| h.counts.get(inherited)).copied().unwrap_or(0) as usize;
                Headers::new(blob, batch.headers, start, count)
            }
        };
        RecordIn {
            offset: batch.offsets.get(inherited).copied().unwrap_or(-1),
            timestamp: match &out.timestamps {
                Some(timestamps) => timestamps[i],
                None => batch.timestamps.get(inherited).copied().unwrap_or(-1),
            },
            key: field(&out.keys, batch.keys),
            value: field(&out.values, batch.values),
            headers,
        }
    }
}

fn header_starts(headers: Option<HeadersIn<'_>>) -> Vec<u32> {
    let Some(headers) = headers else { return Vec::new() };
    let mut next = 0_u32;
    headers
        .counts
        .iter()
        .map(|&count| {
            let start = next;
            next = next.saturating_add(count);
            start
        })
        .collect()
}

struct Check<'a> {
    batch: &'a BatchIn<'a>,
    out: &'a BatchOut,
    blob: Blob<'a>,
}

impl Check<'_> {
    /// Lengths of columns, sources, routes.
    fn shape(&self, outputs: u32) -> Result<(), String> {
        let (out, n) = (self.out, self.out.source.len());
        let space = self.batch.data.len().checked_add(out.data.len());
        if space.is_none_or(|space| u32::try_from(space).is_err()) {
            return Err(format!(
                "input and `data` together have {space:?} bytes, more than an offset can say"
            ));
        }
        let column = |name: &str, len: usize, expect: usize| {
            if len == expect {
                Ok(())
            } else {
                Err(format!("`{name}` has {len} entries, but should have {expect}"))
            }
        };
        let slices = |name: &str, slices: &SlicesOut, expect: usize| {
            column(&format!("{name}.offsets"), slices.offsets.len(), expect)?;
            column(&format!("{name}.lengths"), slices.lengths.len(), expect)
        };
        if let Some(keys) = &out.keys {
            slices("keys", keys, n)?;
        }
        if let Some(values) = &out.values {
            slices("values", values, n)?;
        }
        if let Some(timestamps) = &out.timestamps {
            column("timestamps", timestamps.len(), n)?;
        }
        if let Some(headers) = &out.headers {
            column("headers.counts", headers.counts.len(), n)?;
            let entries: u64 = headers.counts.iter().map(|&count| u64::from(count)).sum();
            let entries =
                usize::try_from(entries).map_err(|_| format!("headers.counts add up to {entries}"))?;
            slices("headers.names", &headers.names, entries)?;
            slices("headers.values", &headers.values, entries)?;
        }
        if let Some(route) = &out.route {
            column("route", route.len(), n)?;
            if let Some(i) = route.iter().position(|&route| route >= outputs) {
                return Err(format!("route[{i}] is {}, but the plugin has {outputs} outputs", route[i]));
            }
        }
        let records = self.batch.len();
        for (i, &source) in out.source.iter().enumerate() {
            if source == NO_SOURCE && out.timestamps.is_none() {
                return Err(format!("record {i} has no source and no timestamp"));
            }
            if source != NO_SOURCE && source as usize >= records {
                return Err(format!("source[{i}] is {source}, but the batch has {records} records"));
            }
        }
        Ok(())
    }

    /// Every slice, and the bytes that are emitted. Inherited fields count each time they are emitted.
    fn bytes(&self) -> Result<u64, String> {
        let out = self.out;
        let mut bytes = RECORD_OVERHEAD_BYTES * out.source.len() as u64;
        for (name, column, input) in
            [("keys", &out.keys, self.batch.keys), ("values", &out.values, self.batch.values)]
        {
            bytes += match column {
                Some(column) => self.slices(name, column)?,
                None => out.source.iter().map(|&s| length(input, s as usize)).sum(),
            };
        }
        bytes += match &out.headers {
            Some(headers) => {
                self.header_names(&headers.names)?;
                self.slices("headers.names", &headers.names)?
                    + self.slices("headers.values", &headers.values)?
            }
            None => self.inherited_header_bytes(),
        };
        Ok(bytes)
    }

    fn slices(&self, name: &str, column: &SlicesOut) -> Result<u64, String> {
        let mut bytes = 0;
        for (i, (&offset, &length)) in column.offsets.iter().zip(&column.lengths).enumerate() {
            if length == NULL {
                continue;
            }
            if self.blob.get(offset, length).is_none() {
                let (input, data) = (self.blob.input.len(), self.blob.extra.len());
                return Err(format!(
                    "{name}[{i}] is {length} bytes at {offset}, which is not within the input ({input} bytes) or the \
                     answer's data ({data} bytes behind it)"
                ));
            }
            bytes += u64::from(length);
        }
        Ok(bytes)
    }

    fn header_names(&self, names: &SlicesOut) -> Result<(), String> {
        for (i, (&offset, &length)) in names.offsets.iter().zip(&names.lengths).enumerate() {
            if length == NULL {
                return Err(format!("headers.names[{i}] is null"));
            }
            if self.blob.get(offset, length).is_some_and(|name| std::str::from_utf8(name).is_err()) {
                return Err(format!("headers.names[{i}] is not UTF-8"));
            }
        }
        Ok(())
    }

    fn inherited_header_bytes(&self) -> u64 {
        let Some(headers) = self.batch.headers else { return 0 };
        let starts = header_starts(Some(headers));
        let of = |source: u32| -> u64 {
            let start = starts.get(source as usize).copied().unwrap_or(0) as usize;
            let count = headers.counts.get(source as usize).copied().unwrap_or(0) as usize;
            (start..start.saturating_add(count))
                .map(|i| length(headers.names, i) + length(headers.values, i))
                .sum()
        };
        self.out.source.iter().map(|&source| of(source)).sum()
    }
}

fn length(column: SlicesIn<'_>, i: usize) -> u64 {
    column.lengths.get(i).filter(|&&length| length != NULL).map_or(0, |&length| u64::from(length))
}

#[cfg(test)]
mod tests;
