//go:build wasip1 && pelton_transform

package pelton

import "unsafe"

//go:wasmexport process
func exportProcess(batch uint32) unsafe.Pointer {
	defer panicked()
	if theTransform == nil {
		panic("the world is transform, but pelton.ExportTransform was not called")
	}
	r := reader(list[uint32](batch, batchWords))
	return answerOutput(process(theTransform, r.batch()))
}

//go:wasmexport cabi_post_process
func postProcess(uint32) { over() }
