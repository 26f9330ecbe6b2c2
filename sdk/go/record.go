// Package pelton is for plugins in Go.
//
//	type shout struct{}
//
//	func (shout) Configure(pelton.Config) error { return nil }
//
//	func (shout) Record(record pelton.Record, out *pelton.Out) error {
//		out.Keep(record).Value(bytes.ToUpper(record.Value()))
//		return nil
//	}
//
//	func init() { pelton.ExportTransform(shout{}) }
//
//	func main() {}
//
// `pelton plugin build` makes a component of it. Without pelton, as in unit tests, exporting does nothing.
package pelton

import "iter"

// Null is the length of a field that is null.
const Null = 0xffffffff

// Slices is a column: field i is data[Offsets[i] : Offsets[i]+Lengths[i]], null where the length is Null.
type Slices struct {
	Offsets, Lengths []uint32
}

// HeaderColumns has the headers of all records: record i owns the next Counts[i] entries of both columns.
type HeaderColumns struct {
	Counts        []uint32
	Names, Values Slices
}

// Batch has the records of one call, as the contract has them (sdk/wit/records.wit), for work on columns.
type Batch struct {
	Topic        string
	Partition    uint32
	Data         []byte
	Offsets      []int64
	Keys, Values Slices
	Timestamps   []int64
	// Headers is nil when no record has a header, or plugin.toml leaves headers out of its needs.
	Headers *HeaderColumns
}

// Records are all records of a batch, in order.
func (b *Batch) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for r := (Record{batch: b}); r.index < len(b.Offsets); r.index++ {
			if !yield(r) {
				return
			}
			r.header += r.HeaderCount()
		}
	}
}

// Record is one record of a batch. What is read from it belongs to the batch: copy what is to stay.
type Record struct {
	batch         *Batch
	index, header int
}

// Index is its place in the batch.
func (r Record) Index() int { return r.index }

// Key is nil for null, and when plugin.toml leaves keys out of its needs.
func (r Record) Key() []byte { return field(r.batch.Data, r.batch.Keys, r.index) }

// Value is nil for null, and when plugin.toml leaves values out of its needs.
func (r Record) Value() []byte { return field(r.batch.Data, r.batch.Values, r.index) }

// Timestamp is in milliseconds since 1970-01-01 UTC; -1 for none.
func (r Record) Timestamp() int64 { return r.batch.Timestamps[r.index] }

// Offset is -1 if the record comes from no stored record.
func (r Record) Offset() int64 { return r.batch.Offsets[r.index] }

// Topic is where it was read from.
func (r Record) Topic() string { return r.batch.Topic }

// Partition is where it was read from.
func (r Record) Partition() uint32 { return r.batch.Partition }

// Header is a name and a value; a value of nil is null.
type Header struct {
	Name  string
	Value []byte
}

// HeaderCount says how many headers it has.
func (r Record) HeaderCount() int {
	if r.batch.Headers == nil {
		return 0
	}
	return int(r.batch.Headers.Counts[r.index])
}

// Headers are all of its headers, in order.
func (r Record) Headers() []Header {
	headers := make([]Header, r.HeaderCount())
	for i := range headers {
		columns := r.batch.Headers
		name := field(r.batch.Data, columns.Names, r.header+i)
		headers[i] = Header{string(name), field(r.batch.Data, columns.Values, r.header+i)}
	}
	return headers
}

// Header is the value of the last header of this name, and whether there is one.
func (r Record) Header(name string) ([]byte, bool) {
	for i := r.HeaderCount() - 1; i >= 0; i-- {
		columns := r.batch.Headers
		if string(field(r.batch.Data, columns.Names, r.header+i)) == name {
			return field(r.batch.Data, columns.Values, r.header+i), true
		}
	}
	return nil, false
}

// field i of a column; nil for null, and for a column that was left out.
func field(data []byte, column Slices, i int) []byte {
	if i >= len(column.Lengths) || column.Lengths[i] == Null {
		return nil
	}
	from := column.Offsets[i]
	to := from + column.Lengths[i]
	return data[from:to:to]
}
