//go:build wasip1 && pelton_partitioner

package pelton

import "unsafe"

//go:wasmexport partition
func exportPartition(arguments uint32) unsafe.Pointer {
	defer panicked()
	if thePartitioner == nil {
		panic("the world is partitioner, but pelton.ExportPartitioner was not called")
	}
	r := reader(list[uint32](arguments, batchWords+1))
	batch := r.batch()
	placed := partition(thePartitioner, batch, r.word())
	w := answering()
	put(&w, placed)
	return answered()
}

//go:wasmexport cabi_post_partition
func postPartition(uint32) { over() }
