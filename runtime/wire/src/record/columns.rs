//! The records of one partition as columns: what a plugin is given.
//!
//! The uncompressed records of one or several batches lie one after another in a block of bytes, as they were stored;
//! the columns say where in it each key, value and header is. So a record costs a few numbers and no copy of its own.

use super::compression::DecompressLimit;
use super::records::{RawRecord, RecordError, Records, Span};
use super::view::BatchView;

/// The length of a key, value or header value that is null.
pub const NULL_LENGTH: u32 = u32::MAX;
/// Most bytes of data: places are 32-bit numbers, and a plugin's answer addresses its own data behind the input's.
pub const MAX_DATA_BYTES: usize = i32::MAX as usize;

/// Why a batch was not added.
#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    /// The columns would hold more data than places can address.
    #[error("the columns would hold {bytes} bytes, more than {MAX_DATA_BYTES}")]
    Full {
        /// Bytes there would be.
        bytes: usize,
    },
    /// Its records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Which parts of a batch to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Select {
    /// Records before this offset are left out: a fetch position may lie inside a batch.
    pub from_offset: i64,
    /// Whether headers are wanted.
    pub headers: bool,
}

impl Default for Select {
    fn default() -> Select {
        Select { from_offset: i64::MIN, headers: true }
    }
}

/// Places in [`Columns::data`]: entry i is `data[offsets[i]..][..lengths[i]]`, null if the length is [`NULL_LENGTH`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    /// Where each starts; 0 for null.
    pub offsets: Vec<u32>,
    /// How long each is.
    pub lengths: Vec<u32>,
}

impl Slices {
    /// Entry `index`, out of `data`. `None` is null, or no such entry.
    pub fn get<'d>(&self, data: &'d [u8], index: usize) -> Option<&'d [u8]> {
        let (start, length) = (*self.offsets.get(index)?, *self.lengths.get(index)?);
        if length == NULL_LENGTH {
            return None;
        }
        data.get(start as usize..)?.get(..length as usize)
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    fn push(&mut self, base: usize, span: Option<Span>) {
        // Data is bounded by MAX_DATA_BYTES, so places fit.
        let (offset, length) = span.map_or((0, NULL_LENGTH), |s| ((base + s.start) as u32, s.len as u32));
        self.offsets.push(offset);
        self.lengths.push(length);
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len);
        self.lengths.truncate(len);
    }

    fn reserve(&mut self, additional: usize) {
        self.offsets.reserve(additional);
        self.lengths.reserve(additional);
    }
}

/// Records as columns. Made to be used again: [`Columns::clear`] keeps what was allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    data: Vec<u8>,
    keys: Slices,
    values: Slices,
    timestamps: Vec<i64>,
    offsets: Vec<i64>,
    header_counts: Vec<u32>,
    header_names: Slices,
    header_values: Slices,
}

impl Columns {
    /// Nothing yet.
    pub fn new() -> Columns {
        Columns::default()
    }

    /// Takes all records out and keeps the memory.
    pub fn clear(&mut self) {
        self.truncate(&Mark::default());
        self.data.clear();
    }

    /// Takes out the records at this offset and behind it. Offsets rise.
    pub fn cut(&mut self, offset: i64) {
        let records = self.offsets.partition_point(|own| *own < offset);
        let headers = self.header_counts[..records].iter().map(|count| *count as usize).sum();
        self.truncate(&Mark { data: self.data.len(), records, headers });
    }

    /// Adds the records of a batch, which are unpacked within `limit`. Returns how many there were; after an error
    /// the columns are as they were. Control batches are for the caller to leave out.
    pub fn append(
        &mut self,
        view: &BatchView<'_>,
        select: Select,
        limit: DecompressLimit,
    ) -> Result<usize, ColumnsError> {
        let mark = self.mark();
        let result = self.try_append(view, select, limit);
        if result.is_err() {
            self.truncate(&mark);
        }
        result
    }

    fn try_append(
        &mut self,
        view: &BatchView<'_>,
        select: Select,
        limit: DecompressLimit,
    ) -> Result<usize, ColumnsError> {
        let base = self.data.len();
        let (before, room) = (self.len(), MAX_DATA_BYTES.saturating_sub(base));
        let limit = DecompressLimit { max_bytes: limit.max_bytes.min(room) };
        if view.payload().len() > room {
            return Err(ColumnsError::Full { bytes: base + view.payload().len() });
        }
        let mut data = std::mem::take(&mut self.data);
        let unpacked = view.decompress_onto(&mut data, limit);
        let filled =
            unpacked.and_then(|()| self.fill(Records::new(view.header(), &data[base..]), base, select));
        self.data = data;
        filled?;
        Ok(self.len() - before)
    }

    fn fill(&mut self, mut records: Records<'_>, base: usize, select: Select) -> Result<(), RecordError> {
        let data = records.data();
        self.reserve(records.count_bound());
        while let Some(raw) = records.next_raw() {
            let raw = raw?;
            let offset = records.offset_of(&raw);
            if offset < select.from_offset {
                continue;
            }
            self.offsets.push(offset);
            self.timestamps.push(records.timestamp_of(&raw));
            self.keys.push(base, raw.key);
            self.values.push(base, raw.value);
            self.push_headers(&raw, data, base, select.headers);
        }
        Ok(())
    }

    fn push_headers(&mut self, raw: &RawRecord, data: &[u8], base: usize, wanted: bool) {
        if !wanted || raw.header_count == 0 {
            self.header_counts.push(0);
            return;
        }
        // A header has at least two bytes, so their number fits as the data does.
        self.header_counts.push(raw.header_count as u32);
        for (name, value) in raw.headers(data).spans() {
            self.header_names.push(base + raw.header_start, Some(name));
            self.header_values.push(base + raw.header_start, value);
        }
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The bytes that all places point into.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The key of each record.
    pub fn keys(&self) -> &Slices {
        &self.keys
    }

    /// The value of each record.
    pub fn values(&self) -> &Slices {
        &self.values
    }

    /// The timestamp of each record (ms).
    pub fn timestamps(&self) -> &[i64] {
        &self.timestamps
    }

    /// The offset of each record.
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// Whether any record has a header.
    pub fn has_headers(&self) -> bool {
        !self.header_names.is_empty()
    }

    /// How many headers each record has: record i owns the next `header_counts()[i]` entries of
    /// [`Columns::header_names`] and [`Columns::header_values`].
    pub fn header_counts(&self) -> &[u32] {
        &self.header_counts
    }

    /// The names of all headers, record by record.
    pub fn header_names(&self) -> &Slices {
        &self.header_names
    }

    /// The values of all headers, record by record.
    pub fn header_values(&self) -> &Slices {
        &self.header_values
    }

    /// Bytes that the records hold here: data and columns. For the budgets of a caller.
    pub fn memory_bytes(&self) -> usize {
        const COLUMN_BYTES: usize = 2 * 8 + 8 + 8 + 4;
        self.data.len() + self.len() * COLUMN_BYTES + self.header_names.len() * 16
    }

    fn reserve(&mut self, additional: usize) {
        self.keys.reserve(additional);
        self.values.reserve(additional);
        self.timestamps.reserve(additional);
        self.offsets.reserve(additional);
        self.header_counts.reserve(additional);
    }

    fn mark(&self) -> Mark {
        Mark { data: self.data.len(), records: self.len(), headers: self.header_names.len() }
    }

    fn truncate(&mut self, mark: &Mark) {
        self.data.truncate(mark.data);
        self.keys.truncate(mark.records);
        self.values.truncate(mark.records);
        self.timestamps.truncate(mark.records);
        self.offsets.truncate(mark.records);
        self.header_counts.truncate(mark.records);
        self.header_names.truncate(mark.headers);
        self.header_values.truncate(mark.headers);
    }
}

/// How much the columns held.
#[derive(Default)]
struct Mark {
    data: usize,
    records: usize,
    headers: usize,
}
