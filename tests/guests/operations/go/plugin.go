// What the bench of languages measures: hand on, keep half of them, change some bytes of each.
package main

import (
	"bytes"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

type byRecord struct{ operation string }

var name = []byte(`"name":"`)

func isKept(value []byte) bool { return len(value) > 7 && value[7]&1 == 0 }

func (p *byRecord) Record(record pelton.Record, out *pelton.Out) error {
	switch p.operation {
	case "identity":
		out.Keep(record)
	case "filter":
		if isKept(record.Value()) {
			out.Keep(record)
		}
	case "edit":
		value := bytes.Clone(record.Value())
		if at := bytes.Index(value, name); at >= 0 {
			from := at + len(name)
			if length := bytes.IndexByte(value[from:], '"'); length >= 0 {
				copy(value[from:], bytes.ToUpper(value[from:from+length]))
			}
		}
		out.Keep(record).Value(value)
	}
	return nil
}

// operations works on columns where the settings say so.
type operations struct {
	byRecord
	columns bool
}

func (p *operations) Configure(config pelton.Config) error {
	p.operation, p.columns = config["operation"], config["columns"] == "true"
	return nil
}

func (p *operations) Batch(batch *pelton.Batch) (*pelton.Output, error) {
	if !p.columns || p.operation == "edit" {
		out := pelton.NewOut(batch)
		for record := range batch.Records() {
			if err := p.Record(record, out); err != nil {
				return nil, err
			}
		}
		return out.Finish(), nil
	}
	source := make([]uint32, 0, len(batch.Offsets))
	for i := range batch.Offsets {
		at, length := batch.Values.Offsets[i], batch.Values.Lengths[i]
		if p.operation == "identity" || (length != pelton.Null && isKept(batch.Data[at:at+length])) {
			source = append(source, uint32(i))
		}
	}
	return &pelton.Output{Source: source}, nil
}

func init() { pelton.ExportTransform(&operations{}) }

func main() {}
