// A transform with timers: Record sees a record, Fire a timer that is due.
package main

import (
	pelton "github.com/pelton-io/pelton/sdk/go"
)

// plugin says of each key that no record of it has come for a while.
type plugin struct {
	afterMs int
}

// Configure is called once, with the settings of plugin.toml and pipeline.toml. An error refuses the deployment.
func (p *plugin) Configure(config pelton.Config) (err error) {
	p.afterMs, err = config.Int("after_ms")
	return err
}

func (p *plugin) Record(record pelton.Record, _ *pelton.Stores, timers *pelton.Timers, _ *pelton.Out) error {
	if record.Key() == nil {
		return pelton.Reject("there is no key")
	}
	// A timer for each key, which every record moves.
	timers.Set(pelton.WallClock, record.Key(), timers.Clock()+int64(p.afterMs))
	return nil
}

func (p *plugin) Fire(timer pelton.Timer, _ *pelton.Stores, _ *pelton.Timers, emit *pelton.Emit) error {
	emit.Record(timer.Name, []byte("quiet"), timer.At)
	return nil
}

func init() { pelton.ExportTimerTransform(&plugin{}) }

func main() {}
