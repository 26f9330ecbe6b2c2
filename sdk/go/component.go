//go:build wasip1

package pelton

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"unsafe"
)

// The canonical ABI: what the host calls, and how arguments and answers lie in a memory of 32 bits (sdk/wit). Go's own
// pointers have 64, so structs are read and written as numbers.

// given has the memory of what the host gives to one call. Go does not move what is kept here.
var given [][]uint64

//go:wasmexport cabi_realloc
func realloc(old, oldSize, _, size uint32) uint32 {
	memory := make([]uint64, (max(size, 1)+7)/8)
	given = append(given, memory)
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(memory))))
	if oldSize > 0 {
		copy(list[byte](at, size), list[byte](old, oldSize))
	}
	return at
}

// list is what lies there.
func list[T any](at, count uint32) []T {
	if count == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(uintptr(at))), count)
}

// address is where a list lies.
func address[T any](list []T) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(list)))) }

// reader takes an argument apart, word for word.
type reader []uint32

func (r *reader) word() uint32 {
	word := (*r)[0]
	*r = (*r)[1:]
	return word
}

// column is one that the host gives.
func (r *reader) column() Column { return Column{take[byte](r), r.slices()} }

func take[T any](r *reader) []T {
	at := r.word()
	return list[T](at, r.word())
}

func (r *reader) slices() Slices { return Slices{take[uint32](r), take[uint32](r)} }

// batchWords is how many words a batch takes.
const batchWords = 30

func (r *reader) batch() *Batch {
	b := &Batch{Topic: string(take[byte](r)), Partition: r.word(), Data: take[byte](r), Offsets: take[int64](r)}
	b.Keys, b.Values = r.slices(), r.slices()
	b.Timestamps = take[int64](r)
	hasHeaders := r.word()&1 != 0
	headers := &HeaderColumns{take[uint32](r), r.slices(), r.slices()}
	if hasHeaders {
		b.Headers = headers
	}
	return b
}

// answer is what lies where the host looks for an answer, until it has taken it.
var answer struct {
	words [34]uint32
	keeps []any
}

// writer puts an answer together, word for word.
type writer struct{ words []uint32 }

func answering() writer {
	answer.words, answer.keeps = [34]uint32{}, nil
	return writer{answer.words[:]}
}

func (w *writer) word(word uint32) {
	w.words[0] = word
	w.words = w.words[1:]
}

func put[T any](w *writer, list []T) {
	answer.keeps = append(answer.keeps, list)
	w.word(address(list))
	w.word(uint32(len(list)))
}

func (w *writer) text(text string) { put(w, []byte(text)) }

func (w *writer) slices(s *Slices) {
	w.present(s != nil)
	if s == nil {
		s = &Slices{}
	}
	put(w, s.Offsets)
	put(w, s.Lengths)
}

func (w *writer) present(present bool) {
	if present {
		w.word(1)
	} else {
		w.word(0)
	}
}

func (w *writer) output(o *Output) {
	w.word(0)
	put(w, o.Source)
	put(w, o.Data)
	w.slices(o.Keys)
	w.slices(o.Values)
	w.present(o.Timestamps != nil)
	put(w, o.Timestamps)
	w.present(o.Headers != nil)
	headers := o.Headers
	if headers == nil {
		headers = &HeaderColumns{}
	}
	put(w, headers.Counts)
	put(w, headers.Names.Offsets)
	put(w, headers.Names.Lengths)
	put(w, headers.Values.Offsets)
	put(w, headers.Values.Lengths)
	w.present(o.Route != nil)
	put(w, o.Route)
}

func (w *writer) column(c *Column) {
	put(w, c.Data)
	put(w, c.Fields.Offsets)
	put(w, c.Fields.Lengths)
}

// failure is that of a call; nil is none.
func (w *writer) failure(err error) {
	w.word(1)
	switch failed := err.(type) {
	case Rejected:
		w.word(reject)
		var entries []uint32
		for _, rejection := range failed {
			reason := []byte(rejection.Reason)
			answer.keeps = append(answer.keeps, reason)
			entries = append(entries, uint32(rejection.Index), address(reason), uint32(len(reason)))
		}
		answer.keeps = append(answer.keeps, entries)
		w.word(address(entries))
		w.word(uint32(len(failed)))
	case *failure:
		w.word(uint32(failed.kind))
		w.text(failed.reason)
	default:
		w.word(fatal)
		w.text(err.Error())
	}
}

// answerOutput is what process and fire answer.
func answerOutput(output *Output, err error) unsafe.Pointer {
	w := answering()
	if err != nil {
		w.failure(err)
	} else {
		w.output(output)
	}
	return answered()
}

func answered() unsafe.Pointer { return unsafe.Pointer(&answer.words) }

// garbageBytes may pile up before it is collected.
const garbageBytes = 8 << 20

// collected is how much had ever been allocated when garbage was collected last.
var collected uint64

// Go collects garbage beside the program, and what is left of that when an exported function returns stays on the one
// stack of the machine until it is full (Go 1.26). So garbage is collected by us, as a whole.
func init() {
	debug.SetGCPercent(-1)
	betweenRecords = collect
}

func collect() {
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocated)
	if total := allocated[0].Value.Uint64(); total-collected > garbageBytes {
		runtime.GC()
		collected = total
	}
}

// over is called when the host has taken an answer.
func over() {
	answer.keeps = nil
	clear(given)
	given = given[:0]
	collect()
}

var (
	theTransform      Transform
	theStateTransform StateTransform
	theTimerTransform TimerTransform
	theAggregator     Aggregator
	thePartitioner    Partitioner
)

// ExportTransform makes it the plugin that this program is.
func ExportTransform(plugin Transform) { theTransform = plugin }

// ExportStateTransform makes it the plugin that this program is.
func ExportStateTransform(plugin StateTransform) { theStateTransform = plugin }

// ExportTimerTransform makes it the plugin that this program is.
func ExportTimerTransform(plugin TimerTransform) { theTimerTransform = plugin }

// ExportAggregator makes it the plugin that this program is.
func ExportAggregator(plugin Aggregator) { theAggregator = plugin }

// ExportPartitioner makes it the plugin that this program is.
func ExportPartitioner(plugin Partitioner) { thePartitioner = plugin }

// configurer is what all plugins are.
type configurer interface{ Configure(config Config) error }

// exported is the plugin, whichever world it is of.
func exported() configurer {
	switch {
	case theTransform != nil:
		return theTransform
	case theStateTransform != nil:
		return theStateTransform
	case theTimerTransform != nil:
		return theTimerTransform
	case theAggregator != nil:
		return theAggregator
	case thePartitioner != nil:
		return thePartitioner
	}
	return nil
}

//go:wasmexport configure
func exportConfigure(settings, count uint32) unsafe.Pointer {
	config := Config{}
	r := reader(list[uint32](settings, 4*count))
	for range count {
		name, value := string(take[byte](&r)), string(take[byte](&r))
		config[name] = value
	}
	given = given[:0]
	err := fmt.Errorf("nothing is exported: call pelton.ExportTransform, or that of another world, in an init function")
	if plugin := exported(); plugin != nil {
		err = plugin.Configure(config)
	}
	w := answering()
	w.present(err != nil)
	if err != nil {
		w.text(err.Error())
	}
	return answered()
}

// panicked says why the instance ends: without it, a trap says `unreachable` and nothing else.
func panicked() {
	if reason := recover(); reason != nil {
		Error(fmt.Sprintf("panic: %v\n%s", reason, debug.Stack()))
		Error(fmt.Sprintf("panic: %v", reason))
		panic(reason)
	}
}

//go:wasmimport pelton:plugin/log@0.1.0 write
func hostWrite(level uint32, text unsafe.Pointer, length uint32)

func write(level uint32, text string) {
	hostWrite(level, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}
