//go:build wasip1 && pelton_transform_timer

package pelton

import (
	"runtime"
	"unsafe"
)

// clockwork is the timers of the node.
type clockwork struct{}

//go:wasmimport pelton:plugin/timers@0.1.0 set
func hostSet(domain, data, dataLen, offsets, offsetsLen, lengths, lengthsLen, at, atLen uint32)

func (clockwork) set(domain TimerDomain, names Column, at []int64) {
	d, dl := lent(names.Data)
	o, ol := lent(names.Fields.Offsets)
	l, ll := lent(names.Fields.Lengths)
	t, tl := lent(at)
	hostSet(uint32(domain), d, dl, o, ol, l, ll, t, tl)
	runtime.KeepAlive(&names)
	runtime.KeepAlive(at)
}

//go:wasmimport pelton:plugin/timers@0.1.0 cancel
func hostCancel(domain, data, dataLen, offsets, offsetsLen, lengths, lengthsLen uint32)

func (clockwork) cancel(domain TimerDomain, names Column) {
	d, dl := lent(names.Data)
	o, ol := lent(names.Fields.Offsets)
	l, ll := lent(names.Fields.Lengths)
	hostCancel(uint32(domain), d, dl, o, ol, l, ll)
	runtime.KeepAlive(&names)
}

//go:wasmimport pelton:plugin/timers@0.1.0 clock
func hostClock() int64

func (clockwork) clock() int64 { return hostClock() }

func theTimers() TimerTransform {
	if theTimerTransform == nil {
		panic("the world is transform-timer, but pelton.ExportTimerTransform was not called")
	}
	return theTimerTransform
}

//go:wasmexport process
func exportProcess(batch uint32) unsafe.Pointer {
	defer panicked()
	r := reader(list[uint32](batch, batchWords))
	return answerOutput(processTimers(theTimers(), r.batch(), server{}, clockwork{}))
}

//go:wasmexport fire
func exportFire(domain, data, dataLen, offsets, offsetsLen, lengths, lengthsLen, at, atLen uint32) unsafe.Pointer {
	defer panicked()
	fields := Slices{list[uint32](offsets, offsetsLen), list[uint32](lengths, lengthsLen)}
	names := Column{list[byte](data, dataLen), fields}
	due := dueTimers{TimerDomain(domain), names, list[int64](at, atLen)}
	return answerOutput(fireTimers(theTimers(), due, server{}, clockwork{}))
}

//go:wasmexport cabi_post_fire
func postFire(uint32) { over() }
