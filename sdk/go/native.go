//go:build !wasip1

package pelton

import (
	"fmt"
	"os"
)

// ExportTransform makes it the plugin that this program is.
func ExportTransform(Transform) {}

// ExportPartitioner makes it the plugin that this program is.
func ExportPartitioner(Partitioner) {}

func write(level uint32, text string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", [...]string{"debug", "info", "warn", "error"}[level], text)
}
