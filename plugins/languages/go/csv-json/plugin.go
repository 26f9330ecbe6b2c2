// A line with separators becomes a JSON object of texts.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

type csvJSON struct {
	columns   []string
	separator []byte
}

func (p *csvJSON) Configure(config pelton.Config) error {
	p.columns = strings.Split(config["columns"], ",")
	p.separator = []byte(config["separator"])
	for _, name := range p.columns {
		if name == "" {
			return errors.New("columns: a name is empty")
		}
	}
	if len(p.separator) == 0 {
		return errors.New("separator is empty")
	}
	return nil
}

func (p *csvJSON) Record(record pelton.Record, out *pelton.Out) error {
	line := record.Value()
	if line == nil {
		out.Keep(record)
		return nil
	}
	fields := bytes.Split(line, p.separator)
	if len(fields) != len(p.columns) {
		return pelton.Reject(fmt.Sprintf("the line has %d fields, not %d", len(fields), len(p.columns)))
	}
	var json []byte
	for i, field := range fields {
		if i == 0 {
			json = append(json, '{')
		} else {
			json = append(json, ',')
		}
		json = append(quote(json, []byte(p.columns[i])), ':')
		json = quote(json, field)
	}
	out.Keep(record).Value(append(json, '}'))
	return nil
}

func quote(json, text []byte) []byte {
	json = append(json, '"')
	for _, b := range text {
		switch {
		case b == '"' || b == '\\':
			json = append(json, '\\', b)
		case b < 0x20:
			json = fmt.Appendf(json, "\\u%04x", b)
		default:
			json = append(json, b)
		}
	}
	return append(json, '"')
}

func init() { pelton.ExportTransform(&csvJSON{}) }

func main() {}
