package pelton

import (
	"maps"
	"math"
	"slices"
)

// Column has byte strings as they cross the border: see column in sdk/wit.
type Column struct {
	Data   []byte
	Fields Slices
}

func (c *Column) push(field []byte) {
	length := uint32(len(field))
	if field == nil {
		length = Null
	}
	c.Fields.push(uint32(len(c.Data)), length)
	c.Data = append(c.Data, field...)
}

func column(fields ...[]byte) Column {
	size := 0
	for _, field := range fields {
		size += len(field)
	}
	c := Column{Data: make([]byte, 0, size)}
	for _, field := range fields {
		c.push(field)
	}
	return c
}

// each is every string; nil for null. What is empty and not null is not nil.
func (c Column) each() [][]byte {
	fields := make([][]byte, len(c.Fields.Lengths))
	for i := range fields {
		fields[i] = field(c.Data, c.Fields, i)
		if fields[i] == nil && c.Fields.Lengths[i] != Null {
			fields[i] = []byte{}
		}
	}
	return fields
}

// host is what a plugin's stores are asked: the server, or a map in tests.
type host interface {
	get(store string, keys Column) Column
	put(store string, keys, values Column)
	scan(store string, r Range) Entries
	deleteRange(store string, start, end []byte, limit uint32) bool
	getWindows(store string, keys Column, starts []int64) Column
	putWindows(store string, keys Column, starts []int64, values Column)
	windowsOf(store string, key []byte, first, last int64, r Range) Windows
}

// Range says which entries of a store are wanted: all of them, until it is narrowed.
type Range struct {
	// Start is the first key, inclusive, and End the end, exclusive; nil for all that follow.
	Start, End []byte
	// Prefix is what keys begin with. Start and End mean nothing then.
	Prefix []byte
	// Reverse is from the last key to the first.
	Reverse bool
	// Limit is how many; 0 for all.
	Limit uint32
}

func (r Range) limit() uint32 {
	if r.Limit == 0 {
		return math.MaxUint32
	}
	return r.Limit
}

// Entry is a key and its value.
type Entry struct{ Key, Value []byte }

// Entries are those of a range, in the order that was asked for.
type Entries struct {
	Entries []Entry
	// More says that there are more in the range: a server gives at most 10,000, and about 4 MiB.
	More bool
}

// Window is a window of a key: when it begins, and its value.
type Window struct {
	Start int64
	Value []byte
}

// Windows are those of a key, in the order that was asked for.
type Windows struct {
	Windows []Window
	// More is as in Entries.
	More bool
}

// Reads collects what Record is going to read, so that all of a batch is asked for with one call of the server.
type Reads struct{ keys map[string]map[string]bool }

// Key names this key of a store.
func (r *Reads) Key(store string, key []byte) {
	if r.keys == nil {
		r.keys = map[string]map[string]bool{}
	}
	if r.keys[store] == nil {
		r.keys[store] = map[string]bool{}
	}
	r.keys[store][string(key)] = true
}

// Stores are the stores of the node, for one call. Values are remembered while the call lasts, and what is written goes to the
// server at its end, so the border is crossed a few times for a batch and not for each record. What a call that fails has written
// is dropped.
//
// A store that the node is not given, or one of the other kind, ends the instance.
type Stores struct {
	host   host
	stores map[string]*known
	// order is in which stores are written: that of their first use.
	order []string
}

// known is what is known of one store.
type known struct {
	entries map[string][]byte
	// written has each key once, in the order of its first write.
	written []string
	isNew   map[string]bool
	windows []writtenWindow
}

type writtenWindow struct {
	key   []byte
	start int64
	value []byte
}

// chunk is how many keys are asked for, or written, with one call of the server.
const chunk = 50_000

func newStores(h host) *Stores { return &Stores{host: h, stores: map[string]*known{}} }

func (s *Stores) known(store string) *known {
	if s.stores[store] == nil {
		s.stores[store] = &known{entries: map[string][]byte{}, isNew: map[string]bool{}}
		s.order = append(s.order, store)
	}
	return s.stores[store]
}

// Get is the value of a key; nil if there is none. It belongs to the call: copy what is to stay.
func (s *Stores) Get(store string, key []byte) []byte {
	k := s.known(store)
	value, found := k.entries[string(key)]
	if !found {
		value = s.host.get(store, column(notNil(key))).each()[0]
		k.entries[string(key)] = value
	}
	return value
}

// Put sets a key to a value; nil deletes it.
func (s *Stores) Put(store string, key, value []byte) {
	k, name := s.known(store), string(key)
	if value != nil {
		value = slices.Clone(value)
	}
	k.entries[name] = value
	if !k.isNew[name] {
		k.isNew[name] = true
		k.written = append(k.written, name)
	}
}

// Delete deletes a key.
func (s *Stores) Delete(store string, key []byte) { s.Put(store, key, nil) }

func (s *Stores) readAhead(reads *Reads) {
	for _, store := range slices.Sorted(maps.Keys(reads.keys)) {
		k := s.known(store)
		wanted := slices.DeleteFunc(slices.Sorted(maps.Keys(reads.keys[store])), func(key string) bool {
			_, found := k.entries[key]
			return found
		})
		for keys := range slices.Chunk(wanted, chunk) {
			for i, value := range s.host.get(store, columnOf(keys)).each() {
				k.entries[keys[i]] = value
			}
		}
	}
}

// Range has the entries of a range.
func (s *Stores) Range(store string, r Range) Entries {
	s.flushOne(store)
	return s.host.scan(store, r)
}

// DeleteRange deletes from start (inclusive) to end (exclusive; nil: all that follow), at most limit entries and 10,000; 0 is no
// limit of its own. Whether there are more.
func (s *Stores) DeleteRange(store string, start, end []byte, limit uint32) bool {
	s.flushOne(store)
	clear(s.known(store).entries)
	return s.host.deleteRange(store, start, end, Range{Limit: limit}.limit())
}

// Window is the value of the window of a key that begins at start; nil if there is none.
func (s *Stores) Window(store string, key []byte, start int64) []byte {
	return s.Windows(store, [][]byte{key}, []int64{start})[0]
}

// Windows has the value of the window of each key that begins at each start, in order.
func (s *Stores) Windows(store string, keys [][]byte, starts []int64) [][]byte {
	s.flushOne(store)
	var values [][]byte
	for from := 0; from < len(keys); from += chunk {
		to := min(from+chunk, len(keys))
		values = append(values, s.host.getWindows(store, column(keys[from:to]...), starts[from:to]).each()...)
	}
	return values
}

// PutWindow sets a window of a key to a value; nil deletes it. One that would be forgotten already is not kept.
func (s *Stores) PutWindow(store string, key []byte, start int64, value []byte) {
	k := s.known(store)
	if value != nil {
		value = slices.Clone(value)
	}
	k.windows = append(k.windows, writtenWindow{notNil(slices.Clone(key)), start, value})
}

// DeleteWindow deletes a window of a key.
func (s *Stores) DeleteWindow(store string, key []byte, start int64) {
	s.PutWindow(store, key, start, nil)
}

// WindowsOf has the windows of a key that begin from first to last, both inclusive. Of the range, Reverse and Limit count.
func (s *Stores) WindowsOf(store string, key []byte, first, last int64, r Range) Windows {
	s.flushOne(store)
	return s.host.windowsOf(store, key, first, last, r)
}

func (s *Stores) flush() {
	for _, store := range s.order {
		s.flushOne(store)
	}
}

func (s *Stores) flushOne(store string) {
	k := s.known(store)
	for keys := range slices.Chunk(k.written, chunk) {
		var values Column
		for _, key := range keys {
			values.push(k.entries[key])
		}
		s.host.put(store, columnOf(keys), values)
	}
	k.written = nil
	clear(k.isNew)
	for windows := range slices.Chunk(k.windows, chunk) {
		var keys, values Column
		var starts []int64
		for _, window := range windows {
			keys.push(window.key)
			starts = append(starts, window.start)
			values.push(window.value)
		}
		s.host.putWindows(store, keys, starts, values)
	}
	k.windows = nil
}

func columnOf(texts []string) Column {
	var c Column
	for _, text := range texts {
		c.Fields.push(uint32(len(c.Data)), uint32(len(text)))
		c.Data = append(c.Data, text...)
	}
	return c
}

// notNil is empty for nil: an empty key is not null.
func notNil(bytes []byte) []byte {
	if bytes == nil {
		return []byte{}
	}
	return bytes
}
