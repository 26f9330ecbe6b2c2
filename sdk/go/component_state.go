//go:build wasip1 && (pelton_transform_state || pelton_transform_timer)

package pelton

import (
	"runtime"
	"unsafe"
)

// server is the stores of the node. Lists go as their address and length; an answer that is more than a word comes where the last
// argument says, and what it points to is memory of this call.
type server struct{}

// lent are the words of a list that the host is given.
func lent[T any](list []T) (uint32, uint32) { return address(list), uint32(len(list)) }

//go:wasmimport pelton:plugin/state@0.1.0 get
func hostGet(store, storeLen, data, dataLen, offsets, offsetsLen, lengths, lengthsLen uint32, answer unsafe.Pointer)

func (server) get(store string, keys Column) Column {
	var answer [6]uint32
	name := []byte(store)
	s, sl := lent(name)
	d, dl := lent(keys.Data)
	o, ol := lent(keys.Fields.Offsets)
	l, ll := lent(keys.Fields.Lengths)
	hostGet(s, sl, d, dl, o, ol, l, ll, unsafe.Pointer(&answer))
	runtime.KeepAlive(name)
	runtime.KeepAlive(&keys)
	r := reader(answer[:])
	return r.column()
}

//go:wasmimport pelton:plugin/state@0.1.0 put
func hostPut(store, storeLen, data, dataLen, offsets, offsetsLen, lengths, lengthsLen,
	valuesData, valuesDataLen, valuesOffsets, valuesOffsetsLen, valuesLengths, valuesLengthsLen uint32)

func (server) put(store string, keys, values Column) {
	name := []byte(store)
	s, sl := lent(name)
	d, dl := lent(keys.Data)
	o, ol := lent(keys.Fields.Offsets)
	l, ll := lent(keys.Fields.Lengths)
	vd, vdl := lent(values.Data)
	vo, vol := lent(values.Fields.Offsets)
	vl, vll := lent(values.Fields.Lengths)
	hostPut(s, sl, d, dl, o, ol, l, ll, vd, vdl, vo, vol, vl, vll)
	runtime.KeepAlive(name)
	runtime.KeepAlive(&keys)
	runtime.KeepAlive(&values)
}

//go:wasmimport pelton:plugin/state@0.1.0 range
func hostRange(store, storeLen, start, startLen, hasEnd, end, endLen, reverse, limit uint32, answer unsafe.Pointer)

//go:wasmimport pelton:plugin/state@0.1.0 prefix
func hostPrefix(store, storeLen, prefix, prefixLen, reverse, limit uint32, answer unsafe.Pointer)

func (server) scan(store string, r Range) Entries {
	var answer [13]uint32
	name := []byte(store)
	s, sl := lent(name)
	if r.Prefix != nil {
		p, pl := lent(r.Prefix)
		hostPrefix(s, sl, p, pl, flag(r.Reverse), r.limit(), unsafe.Pointer(&answer))
	} else {
		from, fromLen := lent(r.Start)
		to, toLen := lent(r.End)
		hostRange(s, sl, from, fromLen, flag(r.End != nil), to, toLen, flag(r.Reverse), r.limit(), unsafe.Pointer(&answer))
	}
	runtime.KeepAlive(name)
	runtime.KeepAlive(&r)
	read := reader(answer[:])
	keys, values := read.column().each(), read.column().each()
	found := Entries{Entries: make([]Entry, len(keys)), More: read.word()&1 != 0}
	for i := range keys {
		found.Entries[i] = Entry{keys[i], values[i]}
	}
	return found
}

//go:wasmimport pelton:plugin/state@0.1.0 delete-range
func hostDeleteRange(store, storeLen, start, startLen, hasEnd, end, endLen, limit uint32) uint32

func (server) deleteRange(store string, start, end []byte, limit uint32) bool {
	name := []byte(store)
	s, sl := lent(name)
	from, fromLen := lent(start)
	to, toLen := lent(end)
	more := hostDeleteRange(s, sl, from, fromLen, flag(end != nil), to, toLen, limit)
	runtime.KeepAlive(name)
	runtime.KeepAlive(start)
	runtime.KeepAlive(end)
	return more != 0
}

//go:wasmimport pelton:plugin/state@0.1.0 get-windows
func hostGetWindows(store, storeLen, data, dataLen, offsets, offsetsLen, lengths, lengthsLen, starts, startsLen uint32,
	answer unsafe.Pointer)

func (server) getWindows(store string, keys Column, starts []int64) Column {
	var answer [6]uint32
	name := []byte(store)
	s, sl := lent(name)
	d, dl := lent(keys.Data)
	o, ol := lent(keys.Fields.Offsets)
	l, ll := lent(keys.Fields.Lengths)
	t, tl := lent(starts)
	hostGetWindows(s, sl, d, dl, o, ol, l, ll, t, tl, unsafe.Pointer(&answer))
	runtime.KeepAlive(name)
	runtime.KeepAlive(&keys)
	runtime.KeepAlive(starts)
	r := reader(answer[:])
	return r.column()
}

//go:wasmimport pelton:plugin/state@0.1.0 put-windows
func hostPutWindows(store, storeLen, data, dataLen, offsets, offsetsLen, lengths, lengthsLen, starts, startsLen,
	valuesData, valuesDataLen, valuesOffsets, valuesOffsetsLen, valuesLengths, valuesLengthsLen uint32)

func (server) putWindows(store string, keys Column, starts []int64, values Column) {
	name := []byte(store)
	s, sl := lent(name)
	d, dl := lent(keys.Data)
	o, ol := lent(keys.Fields.Offsets)
	l, ll := lent(keys.Fields.Lengths)
	t, tl := lent(starts)
	vd, vdl := lent(values.Data)
	vo, vol := lent(values.Fields.Offsets)
	vl, vll := lent(values.Fields.Lengths)
	hostPutWindows(s, sl, d, dl, o, ol, l, ll, t, tl, vd, vdl, vo, vol, vl, vll)
	runtime.KeepAlive(name)
	runtime.KeepAlive(&keys)
	runtime.KeepAlive(starts)
	runtime.KeepAlive(&values)
}

//go:wasmimport pelton:plugin/state@0.1.0 windows-of
func hostWindowsOf(store, storeLen, key, keyLen uint32, first, last int64, reverse, limit uint32, answer unsafe.Pointer)

func (server) windowsOf(store string, key []byte, first, last int64, r Range) Windows {
	var answer [9]uint32
	name := []byte(store)
	s, sl := lent(name)
	k, kl := lent(key)
	hostWindowsOf(s, sl, k, kl, first, last, flag(r.Reverse), r.limit(), unsafe.Pointer(&answer))
	runtime.KeepAlive(name)
	runtime.KeepAlive(key)
	read := reader(answer[:])
	starts := take[int64](&read)
	values := read.column().each()
	found := Windows{Windows: make([]Window, len(values)), More: read.word()&1 != 0}
	for i := range values {
		found.Windows[i] = Window{starts[i], values[i]}
	}
	return found
}

func flag(is bool) uint32 {
	if is {
		return 1
	}
	return 0
}

//go:wasmexport cabi_post_process
func postProcess(uint32) { over() }
