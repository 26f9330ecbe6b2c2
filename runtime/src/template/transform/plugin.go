// A transform: Record sees a record and says what to emit.
package main

import (
	"bytes"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

// plugin gives capitals for every value that is longer than a limit; shorter ones are dropped.
type plugin struct {
	longerThan int
}

// Configure is called once, with the settings of plugin.toml and pipeline.toml. An error refuses the deployment.
func (p *plugin) Configure(config pelton.Config) (err error) {
	p.longerThan, err = config.Int("longer_than")
	return err
}

func (p *plugin) Record(record pelton.Record, out *pelton.Out) error {
	value := record.Value()
	if value == nil {
		return pelton.Reject("there is no value")
	}
	if len(value) > p.longerThan {
		out.Keep(record).Value(bytes.ToUpper(value))
	}
	return nil
}

func init() { pelton.ExportTransform(&plugin{}) }

func main() {}
