package pelton

// Output is what a transform answers (sdk/wit/records.wit). A column that is nil is inherited from the source records.
type Output struct {
	Source       []uint32
	Data         []byte
	Keys, Values *Slices
	Timestamps   []int64
	Headers      *HeaderColumns
	Route        []uint32
}

// Out collects what a transform emits for one batch. A column exists only from the first record that changes it: what
// nobody touches is inherited.
type Out struct {
	batch  *Batch
	last   Record
	output Output
}

// NewOut is an empty answer to a batch.
func NewOut(batch *Batch) *Out { return &Out{batch: batch} }

// Finish gives the answer.
func (o *Out) Finish() *Output { return &o.output }

// Last is the record that was emitted last: change what it does not inherit.
type Last struct{ out *Out }

// Keep emits the record as it is.
func (o *Out) Keep(r Record) Last {
	o.last = r
	out := &o.output
	out.Source = append(out.Source, uint32(r.index))
	if out.Keys != nil {
		out.Keys.inherit(o.batch.Keys, r.index)
	}
	if out.Values != nil {
		out.Values.inherit(o.batch.Values, r.index)
	}
	if out.Timestamps != nil {
		out.Timestamps = append(out.Timestamps, r.Timestamp())
	}
	if out.Headers != nil {
		out.Headers.inherit(r)
	}
	if out.Route != nil {
		out.Route = append(out.Route, 0)
	}
	return Last{o}
}

// Key sets its key; nil is null.
func (l Last) Key(key []byte) Last {
	out := &l.out.output
	l.out.backfill(&out.Keys, l.out.batch.Keys)
	out.Keys.setLast(l.out.append(key))
	return l
}

// Value sets its value; nil is null: a delete, in a compacted topic.
func (l Last) Value(value []byte) Last {
	out := &l.out.output
	l.out.backfill(&out.Values, l.out.batch.Values)
	out.Values.setLast(l.out.append(value))
	return l
}

// Timestamp sets it, in milliseconds since 1970-01-01 UTC.
func (l Last) Timestamp(timestamp int64) Last {
	out := &l.out.output
	if out.Timestamps == nil {
		for _, source := range out.Source {
			out.Timestamps = append(out.Timestamps, l.out.batch.Timestamps[source])
		}
	}
	out.Timestamps[len(out.Timestamps)-1] = timestamp
	return l
}

// Header adds one behind those it has.
func (l Last) Header(name string, value []byte) Last {
	headers := l.out.headers()
	headers.Names.push(l.out.append([]byte(name)))
	headers.Values.push(l.out.append(value))
	headers.Counts[len(headers.Counts)-1]++
	return l
}

// NoHeaders takes all headers away.
func (l Last) NoHeaders() Last {
	headers := l.out.headers()
	count := &headers.Counts[len(headers.Counts)-1]
	rest := len(headers.Names.Offsets) - int(*count)
	for _, column := range []*Slices{&headers.Names, &headers.Values} {
		column.Offsets, column.Lengths = column.Offsets[:rest], column.Lengths[:rest]
	}
	*count = 0
	return l
}

// To sends it to another output than the first: an index into outputs of plugin.toml.
func (l Last) To(output uint32) Last {
	out := &l.out.output
	if out.Route == nil {
		out.Route = make([]uint32, len(out.Source))
	}
	out.Route[len(out.Route)-1] = output
	return l
}

// append adds new bytes and says where they are, as offsets of the answer count.
func (o *Out) append(bytes []byte) (offset, length uint32) {
	if bytes == nil {
		return 0, Null
	}
	data := o.output.Data
	if data == nil {
		// One allocation for what most transforms answer.
		data = make([]byte, 0, len(o.batch.Data)+len(bytes))
	}
	start := len(o.batch.Data) + len(data)
	o.output.Data = append(data, bytes...)
	return uint32(start), uint32(len(bytes))
}

// backfill makes the column as if it had been there from the first record on.
func (o *Out) backfill(column **Slices, from Slices) {
	if *column != nil {
		return
	}
	room := len(o.batch.Offsets)
	*column = &Slices{make([]uint32, 0, room), make([]uint32, 0, room)}
	for _, source := range o.output.Source {
		(*column).inherit(from, int(source))
	}
}

func (o *Out) headers() *HeaderColumns {
	if o.output.Headers != nil {
		return o.output.Headers
	}
	var of []Record
	for r := range o.batch.Records() {
		of = append(of, r)
	}
	o.output.Headers = &HeaderColumns{}
	for _, source := range o.output.Source {
		o.output.Headers.inherit(of[source])
	}
	return o.output.Headers
}

func (h *HeaderColumns) inherit(r Record) {
	count := r.HeaderCount()
	h.Counts = append(h.Counts, uint32(count))
	for i := r.header; i < r.header+count; i++ {
		h.Names.inherit(r.batch.Headers.Names, i)
		h.Values.inherit(r.batch.Headers.Values, i)
	}
}

// inherit takes a field as it is in the batch; null if the batch was given without this column.
func (s *Slices) inherit(from Slices, i int) {
	if i < len(from.Lengths) {
		s.push(from.Offsets[i], from.Lengths[i])
	} else {
		s.push(0, Null)
	}
}

func (s *Slices) push(offset, length uint32) {
	s.Offsets = append(s.Offsets, offset)
	s.Lengths = append(s.Lengths, length)
}

func (s *Slices) setLast(offset, length uint32) {
	s.Offsets[len(s.Offsets)-1] = offset
	s.Lengths[len(s.Lengths)-1] = length
}
