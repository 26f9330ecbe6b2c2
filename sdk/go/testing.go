package pelton

import "fmt"

// TestRecord is a record to give in a unit test, or one that came out.
type TestRecord struct {
	Key, Value []byte
	Timestamp  int64
	Headers    []Header
	// Output is where it goes. It means nothing in a record that is given.
	Output uint32
}

// TestValue is a record with a value alone.
func TestValue(value string) TestRecord { return TestRecord{Value: []byte(value)} }

// TestKey is a record with a key alone.
func TestKey(key string) TestRecord { return TestRecord{Key: []byte(key)} }

// Run configures a transform and gives it the records as one batch of the topic test, partition 0, from offset 0.
func Run(plugin Transform, config Config, records ...TestRecord) ([]TestRecord, error) {
	if err := plugin.Configure(config); err != nil {
		return nil, err
	}
	batch := batchOf(records)
	output, err := process(plugin, batch)
	if err != nil {
		return nil, err
	}
	return expand(batch, output), nil
}

// Partitions configures a partitioner and asks it where the records go.
func Partitions(plugin Partitioner, config Config, partitions uint32, records ...TestRecord) ([]uint32, error) {
	if err := plugin.Configure(config); err != nil {
		return nil, err
	}
	placed := partition(plugin, batchOf(records), partitions)
	for _, p := range placed {
		if p >= partitions {
			return nil, fmt.Errorf("%d of %d partitions", p, partitions)
		}
	}
	return placed, nil
}

func batchOf(records []TestRecord) *Batch {
	batch, headers := &Batch{Topic: "test"}, &HeaderColumns{}
	give := func(column *Slices, bytes []byte) {
		length := uint32(len(bytes))
		if bytes == nil {
			length = Null
		}
		column.push(uint32(len(batch.Data)), length)
		batch.Data = append(batch.Data, bytes...)
	}
	for i, record := range records {
		batch.Offsets = append(batch.Offsets, int64(i))
		batch.Timestamps = append(batch.Timestamps, record.Timestamp)
		give(&batch.Keys, record.Key)
		give(&batch.Values, record.Value)
		headers.Counts = append(headers.Counts, uint32(len(record.Headers)))
		for _, header := range record.Headers {
			give(&headers.Names, []byte(header.Name))
			give(&headers.Values, header.Value)
			batch.Headers = headers
		}
	}
	return batch
}

func expand(batch *Batch, output *Output) []TestRecord {
	data := append(append([]byte{}, batch.Data...), output.Data...)
	var of []Record
	for record := range batch.Records() {
		of = append(of, record)
	}
	var emitted []TestRecord
	header := 0
	for i, source := range output.Source {
		record := TestRecord{Timestamp: -1}
		if source != noSource {
			r := of[source]
			record = TestRecord{Key: r.Key(), Value: r.Value(), Timestamp: r.Timestamp(), Headers: r.Headers()}
		}
		if output.Keys != nil {
			record.Key = field(data, *output.Keys, i)
		}
		if output.Values != nil {
			record.Value = field(data, *output.Values, i)
		}
		if output.Timestamps != nil {
			record.Timestamp = output.Timestamps[i]
		}
		if columns := output.Headers; columns != nil {
			record.Headers = nil
			for range columns.Counts[i] {
				name := string(field(data, columns.Names, header))
				record.Headers = append(record.Headers, Header{name, field(data, columns.Values, header)})
				header++
			}
		}
		if output.Route != nil {
			record.Output = output.Route[i]
		}
		emitted = append(emitted, record)
	}
	return emitted
}
