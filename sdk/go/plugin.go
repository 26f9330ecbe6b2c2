package pelton

import (
	"fmt"
	"strconv"
)

// Config has the settings of plugin.toml and pipeline.toml, as text.
type Config map[string]string

// Int is a setting as a number.
func (c Config) Int(name string) (int, error) {
	number, err := strconv.Atoi(c[name])
	if err != nil {
		return 0, fmt.Errorf("%s is `%s`, which is no number", name, c[name])
	}
	return number, nil
}

// Transform is a plugin of the world transform.
type Transform interface {
	// Configure is called once, before anything else. An error refuses the deployment.
	Configure(config Config) error
	// Record takes one record and emits any number of records. One that is not emitted is filtered. An error rejects the
	// record, unless it is one of Retry or Fatal.
	Record(record Record, out *Out) error
}

// BatchTransform is one that works on columns: Batch is called in place of Record.
type BatchTransform interface {
	Transform
	Batch(batch *Batch) (*Output, error)
}

// Partitioner is a plugin of the world partitioner.
type Partitioner interface {
	// Configure is called once, before anything else. An error refuses the deployment.
	Configure(config Config) error
	// Partition is below partitions, which is at least 1. The same record and the same number of partitions must always
	// give the same answer.
	Partition(record Record, partitions uint32) uint32
}

type failure struct {
	kind   int
	reason string
}

const (
	retry = iota
	reject
	fatal
)

func (f *failure) Error() string { return f.reason }

// Reject says that this record cannot be processed, now or later. What happens to it is on_error of the pipeline.
func Reject(reason string) error { return &failure{reject, reason} }

// Retry asks for the same batch again later.
func Retry(reason string) error { return &failure{retry, reason} }

// Fatal stops the pipeline.
func Fatal(reason string) error { return &failure{fatal, reason} }

// Rejected says which records of a batch were rejected, and why.
type Rejected []Rejection

// Rejection is a record, by its place in the batch, that cannot be processed.
type Rejection struct {
	Index  int
	Reason string
}

func (r Rejected) Error() string { return fmt.Sprintf("record %d: %s", r[0].Index, r[0].Reason) }

// betweenRecords is called now and then, where there is something to do besides.
var betweenRecords func()

// recordsBetween is how often.
const recordsBetween = 256

func process(plugin Transform, batch *Batch) (*Output, error) {
	if columns, ok := plugin.(BatchTransform); ok {
		return columns.Batch(batch)
	}
	out := NewOut(batch)
	if err := eachRecord(batch, func(record Record) error { return plugin.Record(record, out) }); err != nil {
		return nil, err
	}
	return out.Finish(), nil
}

func partition(plugin Partitioner, batch *Batch, partitions uint32) []uint32 {
	placed := make([]uint32, 0, len(batch.Offsets))
	for record := range batch.Records() {
		placed = append(placed, plugin.Partition(record, partitions))
	}
	return placed
}

// PartitionOfKey is where Kafka's Java client puts a key: murmur2. Null is taken as an empty key.
func PartitionOfKey(key []byte, partitions uint32) uint32 {
	return (murmur2(key) & 0x7fffffff) % partitions
}

// murmur2 is Kafka's hash, with the seed that Kafka uses.
func murmur2(key []byte) uint32 {
	const m = 0x5bd1e995
	hash := 0x9747b28c ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		word := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		word *= m
		hash = hash*m ^ (word^word>>24)*m
	}
	if len(key) > 0 {
		for i, b := range key {
			hash ^= uint32(b) << (8 * i)
		}
		hash *= m
	}
	hash = (hash ^ hash>>13) * m
	return hash ^ hash>>15
}
