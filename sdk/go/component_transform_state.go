//go:build wasip1 && pelton_transform_state

package pelton

import "unsafe"

//go:wasmexport process
func exportProcess(batch uint32) unsafe.Pointer {
	defer panicked()
	if theStateTransform == nil {
		panic("the world is transform-state, but pelton.ExportStateTransform was not called")
	}
	r := reader(list[uint32](batch, batchWords))
	return answerOutput(processState(theStateTransform, r.batch(), server{}))
}
