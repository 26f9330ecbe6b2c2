//go:build !wasip1

package pelton

import (
	"fmt"
	"os"
)

// ExportTransform makes it the plugin that this program is.
func ExportTransform(Transform) {}

// ExportStateTransform makes it the plugin that this program is.
func ExportStateTransform(StateTransform) {}

// ExportTimerTransform makes it the plugin that this program is.
func ExportTimerTransform(TimerTransform) {}

// ExportAggregator makes it the plugin that this program is.
func ExportAggregator(Aggregator) {}

// ExportPartitioner makes it the plugin that this program is.
func ExportPartitioner(Partitioner) {}

func write(level uint32, text string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", [...]string{"debug", "info", "warn", "error"}[level], text)
}
