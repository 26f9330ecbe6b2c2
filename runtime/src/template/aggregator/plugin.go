// An aggregator: Add puts a record into the value of its key, or of a window of it. The value is the result.
package main

import (
	pelton "github.com/pelton-io/pelton/sdk/go"
)

// plugin keeps the longest value of each key.
type plugin struct{}

// Configure is called once, with the settings of plugin.toml and pipeline.toml. An error refuses the deployment.
func (plugin) Configure(pelton.Config) error { return nil }

// Create is the value of a key without records.
func (plugin) Create() ([]byte, error) { return nil, nil }

func (plugin) Add(value []byte, record pelton.Record) ([]byte, error) {
	other := record.Value()
	if other == nil {
		return nil, pelton.Reject("there is no value")
	}
	return longer(value, other), nil
}

// Merge is for two sessions of a key that have met.
func (plugin) Merge(value, other []byte) ([]byte, error) { return longer(value, other), nil }

func longer(value, other []byte) []byte {
	if len(other) > len(value) {
		return other
	}
	return value
}

func init() { pelton.ExportAggregator(plugin{}) }

func main() {}
