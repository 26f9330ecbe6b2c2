// Calls each function of stores and timers once. Some values are orders: see cases.toml.
package main

import (
	"fmt"
	"strconv"
	"strings"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

type plugin struct{}

func (plugin) Configure(pelton.Config) error { return nil }

func (plugin) Reads(_ pelton.Record, reads *pelton.Reads) { reads.Key("s", []byte("read ahead")) }

func text(value []byte) string {
	if value == nil {
		return "null"
	}
	return string(value)
}

func more(is bool) string {
	if is {
		return "more"
	}
	return ""
}

func entries(found pelton.Entries) string {
	var said strings.Builder
	for _, entry := range found.Entries {
		fmt.Fprintf(&said, "%s=%s,", entry.Key, entry.Value)
	}
	return said.String() + more(found.More)
}

func windows(found pelton.Windows) string {
	var said strings.Builder
	for _, window := range found.Windows {
		fmt.Fprintf(&said, "%d=%s,", window.Start, window.Value)
	}
	return said.String() + more(found.More)
}

func each(record pelton.Record, stores *pelton.Stores, timers *pelton.Timers) string {
	var said []string
	for _, key := range []string{"a/1", "a/2", "b/1", "b/2"} {
		stores.Put("s", []byte(key), []byte(key))
	}
	stores.Put("s", []byte("empty"), []byte{})
	stores.Delete("s", []byte("a/1"))
	said = append(said, entries(stores.Range("s", pelton.Range{Prefix: []byte("a/")})))
	said = append(said, entries(stores.Range("s", pelton.Range{Start: []byte("a/2"), End: []byte("b/2"), Reverse: true})))
	said = append(said, entries(stores.Range("s", pelton.Range{Limit: 1})))
	said = append(said, strconv.FormatBool(stores.DeleteRange("s", []byte("b/"), []byte("b/9"), 1)))
	for _, key := range []string{"b/1", "b/2", "empty"} {
		said = append(said, text(stores.Get("s", []byte(key))))
	}
	key := record.Key()
	for _, start := range []int64{10, 20, 95} {
		stores.PutWindow("w", key, start, []byte(strconv.FormatInt(start, 10)))
	}
	first := windows(stores.WindowsOf("w", key, 0, 19, pelton.Range{}))
	stores.DeleteWindow("w", key, 20)
	stores.PutWindow("w", key, 120, []byte("last"))
	said = append(said, text(stores.Window("w", key, 10)), text(stores.Window("w", key, 95)))
	said = append(said, windows(stores.WindowsOf("w", key, 0, 1000, pelton.Range{Reverse: true, Limit: 1})), first)
	timers.Set(pelton.StreamTime, []byte("x"), 9000)
	timers.Set(pelton.StreamTime, []byte("x"), 5000)
	timers.Set(pelton.StreamTime, []byte("y"), 6000)
	timers.Cancel(pelton.StreamTime, []byte("y"))
	timers.Set(pelton.WallClock, []byte("w"), timers.Clock()+100)
	return strings.Join(append(said, strconv.FormatInt(timers.Clock(), 10)), ";")
}

func (plugin) Record(record pelton.Record, stores *pelton.Stores, timers *pelton.Timers, out *pelton.Out) error {
	order := text(record.Value())
	if order == "null" {
		out.Keep(record).Value([]byte(each(record, stores, timers)))
		return nil
	}
	if order == "stray" {
		stores.Get("nothing", []byte("k"))
	}
	if strings.HasPrefix(order, "put") {
		stores.Put("s", record.Key(), record.Value())
	}
	if strings.HasSuffix(order, "reject") {
		return pelton.Reject("told to reject")
	}
	if order == "timer" {
		timers.Set(pelton.WallClock, record.Key(), 100)
	}
	out.Keep(record)
	return nil
}

func (plugin) Fire(timer pelton.Timer, _ *pelton.Stores, _ *pelton.Timers, emit *pelton.Emit) error {
	if string(timer.Name) == "bad" {
		return pelton.Reject("told to fail")
	}
	domain := "clock"
	if timer.Domain == pelton.StreamTime {
		domain = "stream"
	}
	at := []byte(strconv.FormatInt(timer.At, 10))
	emit.RecordTo(1, timer.Name, []byte(domain), timer.At, pelton.Header{Name: "at", Value: at}, pelton.Header{Name: "null"})
	return nil
}

func init() { pelton.ExportTimerTransform(plugin{}) }

func main() {}
