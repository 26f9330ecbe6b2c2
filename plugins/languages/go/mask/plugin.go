// All digits of a value but the last ones become stars, and what is internal is left out.
package main

import (
	"bytes"
	"strconv"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

type mask struct {
	keep   int
	header string
}

func (p *mask) Configure(config pelton.Config) (err error) {
	p.header = config["header"]
	p.keep, err = config.Int("keep")
	return err
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func (p *mask) Record(record pelton.Record, out *pelton.Out) error {
	if internal, _ := record.Header("internal"); string(internal) == "true" {
		return nil
	}
	masked := -p.keep
	for _, b := range record.Value() {
		if isDigit(b) {
			masked++
		}
	}
	emitted := out.Keep(record)
	if masked <= 0 {
		return nil
	}
	value := bytes.Clone(record.Value())
	left := masked
	for i, b := range value {
		if left > 0 && isDigit(b) {
			value[i] = '*'
			left--
		}
	}
	emitted.Value(value)
	if p.header != "" {
		emitted.Header(p.header, strconv.AppendInt(nil, int64(masked), 10))
	}
	return nil
}

func init() { pelton.ExportTransform(&mask{}) }

func main() {}
