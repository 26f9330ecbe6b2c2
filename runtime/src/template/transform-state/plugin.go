// A transform with state: Record sees a record and the stores of its partition, and says what to emit.
package main

import (
	"strconv"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

// seen is what plugin.toml calls the store.
const seen = "seen"

// plugin counts the records of each key. What is written to a store counts if and only if what is emitted does, through any crash.
type plugin struct{}

// Configure is called once, with the settings of plugin.toml and pipeline.toml. An error refuses the deployment.
func (plugin) Configure(pelton.Config) error { return nil }

// Reads says what Record will read: all of a batch is asked for at once.
func (plugin) Reads(record pelton.Record, reads *pelton.Reads) {
	if key := record.Key(); key != nil {
		reads.Key(seen, key)
	}
}

func (plugin) Record(record pelton.Record, stores *pelton.Stores, out *pelton.Out) error {
	key := record.Key()
	if key == nil {
		return pelton.Reject("there is no key")
	}
	// What is not there is no number, and counts as 0.
	before, _ := strconv.Atoi(string(stores.Get(seen, key)))
	count := []byte(strconv.Itoa(before + 1))
	stores.Put(seen, key, count)
	out.Keep(record).Value(count)
	return nil
}

func init() { pelton.ExportStateTransform(plugin{}) }

func main() {}
