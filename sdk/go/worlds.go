package pelton

import (
	"errors"
	"fmt"
)

// StateTransform is a plugin of the world transform-state: a transform with stores. What it writes is part of the pipeline's
// transaction: it is there if and only if what it emitted is. What it keeps in its own memory is a cache and says nothing about a
// store: a call may be undone.
type StateTransform interface {
	// Configure is called once, before anything else. An error refuses the deployment.
	Configure(config Config) error
	// Record takes one record and emits any number of records. One that is not emitted is filtered. An error rejects the
	// record, unless it is one of Retry or Fatal.
	Record(record Record, stores *Stores, out *Out) error
}

// Reader is a plugin with stores that says which keys Record will read, so that the server is asked for those of a whole batch at
// once. What is not named is found all the same, with a call of its own.
type Reader interface {
	Reads(record Record, reads *Reads)
}

// TimerDomain says whose time a timer waits for.
type TimerDomain uint32

const (
	// StreamTime is the largest timestamp of the records that came in this partition. Such a timer fires before the record
	// that brings it there.
	StreamTime TimerDomain = iota
	// WallClock is the clock of the machine.
	WallClock
)

// Timer is a timer that is due.
type Timer struct {
	Domain TimerDomain
	Name   []byte
	// At is when it was due, in milliseconds since 1970-01-01 UTC.
	At int64
}

// TimerTransform is a plugin of the world transform-timer: a transform with stores that can also act without a record.
type TimerTransform interface {
	// Configure is called once, before anything else. An error refuses the deployment.
	Configure(config Config) error
	// Record takes one record and emits any number of records. An error is as in StateTransform.
	Record(record Record, stores *Stores, timers *Timers, out *Out) error
	// Fire is called when a timer is due. It is not set any more. An error is for this timer; on_error of the pipeline decides
	// about it.
	Fire(timer Timer, stores *Stores, timers *Timers, emit *Emit) error
}

// Aggregator is a plugin of the world aggregator: it folds records into one value for each key, or for each window of a key. The
// value is at once the result that the node emits; the server keeps it.
type Aggregator interface {
	// Configure is called once, before anything else. An error refuses the deployment.
	Configure(config Config) error
	// Create is the value of a group without records.
	Create() ([]byte, error)
	// Add is the value once a record is in it. The record's key is that of the group. An error rejects the record, unless it is
	// one of Retry or Fatal.
	Add(value []byte, record Record) ([]byte, error)
}

// Subtracter is an Aggregator for tables, whose rows are replaced, and move to other groups.
type Subtracter interface {
	// Subtract is the value without a record that was added before.
	Subtract(value []byte, record Record) ([]byte, error)
}

// Merger is an Aggregator for sessions, which meet.
type Merger interface {
	// Merge makes one value of two of one key. The first one is that of the earlier session.
	Merge(value, other []byte) ([]byte, error)
}

// timerHost is what a plugin's timers are told: the server, or a list in tests.
type timerHost interface {
	set(domain TimerDomain, names Column, at []int64)
	cancel(domain TimerDomain, names Column)
	clock() int64
}

// Timers are the timers of the node. What is set and cancelled goes to the server at the end of the call, and is dropped if it
// fails.
type Timers struct {
	host  timerHost
	asked []asked
}

type asked struct {
	domain  TimerDomain
	cancels bool
	name    []byte
	at      int64
}

// Set sets a timer, due at a time in milliseconds since 1970-01-01 UTC. One of this name in the domain is moved.
func (t *Timers) Set(domain TimerDomain, name []byte, at int64) {
	t.asked = append(t.asked, asked{domain, false, append([]byte{}, name...), at})
}

// Cancel takes a timer away, if it is set.
func (t *Timers) Cancel(domain TimerDomain, name []byte) {
	t.asked = append(t.asked, asked{domain, true, append([]byte{}, name...), 0})
}

// Clock is the clock of the machine, as it was when the call began. Only timers should depend on it: records that are processed
// again see another one.
func (t *Timers) Clock() int64 { return t.host.clock() }

func (t *Timers) flush() {
	for from := 0; from < len(t.asked); {
		first, to := t.asked[from], from
		var names Column
		var at []int64
		// What is of one kind goes together, in order.
		for ; to < len(t.asked) && t.asked[to].domain == first.domain && t.asked[to].cancels == first.cancels; to++ {
			names.push(t.asked[to].name)
			at = append(at, t.asked[to].at)
		}
		if first.cancels {
			t.host.cancel(first.domain, names)
		} else {
			t.host.set(first.domain, names, at)
		}
		from = to
	}
	t.asked = nil
}

// noSource is what Source says of a record that is made of none.
const noSource = 0xffffffff

// Emit collects what timers emit.
type Emit struct{ output Output }

func newEmit() *Emit {
	return &Emit{Output{
		Keys: &Slices{}, Values: &Slices{}, Timestamps: []int64{}, Headers: &HeaderColumns{}, Route: []uint32{},
	}}
}

// Record emits a record to the first output; a key or value of nil is null.
func (e *Emit) Record(key, value []byte, timestamp int64, headers ...Header) {
	e.RecordTo(0, key, value, timestamp, headers...)
}

// RecordTo emits a record to an output: an index into outputs of plugin.toml.
func (e *Emit) RecordTo(output uint32, key, value []byte, timestamp int64, headers ...Header) {
	out := &e.output
	push := func(column *Slices, content []byte) {
		if content == nil {
			column.push(0, Null)
			return
		}
		column.push(uint32(len(out.Data)), uint32(len(content)))
		out.Data = append(out.Data, content...)
	}
	out.Source = append(out.Source, noSource)
	push(out.Keys, key)
	push(out.Values, value)
	out.Timestamps = append(out.Timestamps, timestamp)
	out.Headers.Counts = append(out.Headers.Counts, uint32(len(headers)))
	for _, header := range headers {
		push(&out.Headers.Names, []byte(header.Name))
		push(&out.Headers.Values, header.Value)
	}
	out.Route = append(out.Route, output)
}

// readAhead asks for what a plugin says that it will read.
func readAhead(plugin any, batch *Batch, stores *Stores) {
	reader, ok := plugin.(Reader)
	if !ok {
		return
	}
	var reads Reads
	for record := range batch.Records() {
		reader.Reads(record, &reads)
	}
	stores.readAhead(&reads)
}

// eachRecord gives all records to a function, and collects those that it rejects.
func eachRecord(batch *Batch, take func(record Record) error) error {
	var rejected Rejected
	for record := range batch.Records() {
		if betweenRecords != nil && record.index%recordsBetween == recordsBetween-1 {
			betweenRecords()
		}
		err := take(record)
		var failed *failure
		if errors.As(err, &failed) && failed.kind != reject {
			return err
		}
		if err != nil {
			rejected = append(rejected, Rejection{record.index, err.Error()})
		}
	}
	if rejected != nil {
		return rejected
	}
	return nil
}

func processState(plugin StateTransform, batch *Batch, h host) (*Output, error) {
	stores, out := newStores(h), NewOut(batch)
	readAhead(plugin, batch, stores)
	err := eachRecord(batch, func(record Record) error { return plugin.Record(record, stores, out) })
	if err != nil {
		return nil, err
	}
	stores.flush()
	return out.Finish(), nil
}

func processTimers(plugin TimerTransform, batch *Batch, h host, t timerHost) (*Output, error) {
	stores, timers, out := newStores(h), &Timers{host: t}, NewOut(batch)
	readAhead(plugin, batch, stores)
	err := eachRecord(batch, func(record Record) error { return plugin.Record(record, stores, timers, out) })
	if err != nil {
		return nil, err
	}
	stores.flush()
	timers.flush()
	return out.Finish(), nil
}

// dueTimers are timers of a domain that are due.
type dueTimers struct {
	domain TimerDomain
	names  Column
	at     []int64
}

func fireTimers(plugin TimerTransform, due dueTimers, h host, t timerHost) (*Output, error) {
	stores, timers, emit := newStores(h), &Timers{host: t}, newEmit()
	for i, name := range due.names.each() {
		err := plugin.Fire(Timer{due.domain, name, due.at[i]}, stores, timers, emit)
		var failed *failure
		if errors.As(err, &failed) && failed.kind != reject {
			return nil, err
		}
		if err != nil {
			return nil, Rejected{{i, err.Error()}}
		}
	}
	stores.flush()
	timers.flush()
	return &emit.output, nil
}

// folding is what becomes of a value with a record.
type folding = func(value []byte, record Record) ([]byte, error)

func fold(values Column, batch *Batch, groups []uint32, change folding) (*Column, error) {
	now, out := values.each(), &Column{}
	err := eachRecord(batch, func(record Record) error {
		group := groups[record.index]
		value, err := change(notNil(now[group]), record)
		if err != nil {
			return err
		}
		now[group] = notNil(value)
		out.push(now[group])
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func subtracting(plugin Aggregator) folding {
	if subtracter, ok := plugin.(Subtracter); ok {
		return subtracter.Subtract
	}
	return func([]byte, Record) ([]byte, error) {
		return nil, Fatal("this aggregator cannot take records out again, so it is not for tables")
	}
}

func mergeAll(plugin Aggregator, left, right Column) (*Column, error) {
	merger, ok := plugin.(Merger)
	if !ok {
		return nil, Fatal("this aggregator cannot merge values, so it is not for sessions")
	}
	out, others := &Column{}, right.each()
	for i, value := range left.each() {
		merged, err := merger.Merge(notNil(value), notNil(others[i]))
		var failed *failure
		if errors.As(err, &failed) && failed.kind == retry {
			return nil, err
		}
		if err != nil {
			// No record is to blame.
			return nil, Fatal(fmt.Sprint(err))
		}
		out.push(notNil(merged))
	}
	return out, nil
}
