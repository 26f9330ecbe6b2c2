// A partitioner: says which partition of its topic each record goes to.
package main

import (
	"bytes"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

// plugin puts keys that begin alike, up to the first -, into one partition: eu-17 beside eu-4.
type plugin struct{}

// Configure is called once, with the settings of plugin.toml and pipeline.toml. An error refuses the deployment.
func (plugin) Configure(pelton.Config) error { return nil }

func (plugin) Partition(record pelton.Record, partitions uint32) uint32 {
	region, _, _ := bytes.Cut(record.Key(), []byte("-"))
	return pelton.PartitionOfKey(region, partitions)
}

func init() { pelton.ExportPartitioner(plugin{}) }

func main() {}
