// Each region has partitions of its own, and a key stays in one of them.
package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

type region struct {
	regions           []string
	separator, header string
}

func (p *region) Configure(config pelton.Config) error {
	p.regions = nil
	for _, name := range strings.Split(config["regions"], ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return errors.New("regions: a name is empty; write them as `eu,us,asia`")
		}
		if slices.Contains(p.regions, name) {
			return fmt.Errorf("regions: `%s` is there twice", name)
		}
		p.regions = append(p.regions, name)
	}
	p.separator, p.header = config["separator"], config["header"]
	if p.separator == "" {
		return errors.New("separator is empty")
	}
	return nil
}

func (p *region) Partition(record pelton.Record, partitions uint32) uint32 {
	name, _, _ := strings.Cut(string(record.Key()), p.separator)
	if p.header != "" {
		value, _ := record.Header(p.header)
		name = string(value)
	}
	place := slices.Index(p.regions, name)
	if place < 0 {
		place = len(p.regions)
	}
	shares := uint64(len(p.regions)) + 1
	begin := func(share int) uint32 { return uint32(uint64(share) * uint64(partitions) / shares) }
	first, after := begin(place), begin(place+1)
	// With fewer partitions than shares, several of them have one together.
	return first + pelton.PartitionOfKey(record.Key(), max(after, first+1)-first)
}

func init() { pelton.ExportPartitioner(&region{}) }

func main() {}
