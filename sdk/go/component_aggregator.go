//go:build wasip1 && pelton_aggregator

package pelton

import "unsafe"

// columnWords is how many words a column takes.
const columnWords = 6

func theFolds() Aggregator {
	if theAggregator == nil {
		panic("the world is aggregator, but pelton.ExportAggregator was not called")
	}
	return theAggregator
}

func answerColumn(column *Column, err error) unsafe.Pointer {
	w := answering()
	if err != nil {
		w.failure(err)
	} else {
		w.word(0)
		w.column(column)
	}
	return answered()
}

//go:wasmexport create
func exportCreate() unsafe.Pointer {
	defer panicked()
	value, err := theFolds().Create()
	w := answering()
	w.present(err != nil)
	if err != nil {
		w.text(err.Error())
	} else {
		put(&w, value)
	}
	return answered()
}

//go:wasmexport cabi_post_create
func postCreate(uint32) { over() }

func exportFold(arguments uint32, change folding) unsafe.Pointer {
	r := reader(list[uint32](arguments, columnWords+batchWords+2))
	values, batch := r.column(), r.batch()
	return answerColumn(fold(values, batch, take[uint32](&r), change))
}

//go:wasmexport add
func exportAdd(arguments uint32) unsafe.Pointer {
	defer panicked()
	return exportFold(arguments, theFolds().Add)
}

//go:wasmexport cabi_post_add
func postAdd(uint32) { over() }

//go:wasmexport subtract
func exportSubtract(arguments uint32) unsafe.Pointer {
	defer panicked()
	return exportFold(arguments, subtracting(theFolds()))
}

//go:wasmexport cabi_post_subtract
func postSubtract(uint32) { over() }

//go:wasmexport merge
func exportMerge(leftData, leftDataLen, leftOffsets, leftOffsetsLen, leftLengths, leftLengthsLen,
	rightData, rightDataLen, rightOffsets, rightOffsetsLen, rightLengths, rightLengthsLen uint32) unsafe.Pointer {
	defer panicked()
	left := Column{
		list[byte](leftData, leftDataLen),
		Slices{list[uint32](leftOffsets, leftOffsetsLen), list[uint32](leftLengths, leftLengthsLen)},
	}
	right := Column{
		list[byte](rightData, rightDataLen),
		Slices{list[uint32](rightOffsets, rightOffsetsLen), list[uint32](rightLengths, rightLengthsLen)},
	}
	return answerColumn(mergeAll(theFolds(), left, right))
}

//go:wasmexport cabi_post_merge
func postMerge(uint32) { over() }
