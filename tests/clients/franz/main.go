// franz-go against a broker: the scenarios of the client matrix (franz BOOTSTRAP RECORDS-FILE), and a consume-transform-produce
// loop (franz loop …, see runLoop), one of rounds in rounds.go (franz rounds …). A producer for tests/transactions is in rig.go (franz rig …).
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net/url"
	"os"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	orderedRecords = 500
	wait           = 30 * time.Second
)

type header struct{ name, value string }

// record holds what must come back unchanged; null is "\x00null", because Go compares strings, not slices.
type record struct {
	timestamp  int64
	key, value string
	headers    string
}

const null = "\x00null"

var (
	prefix                                                        string
	produceTopic, orderTopic, timeTopic, groupTopic, compactTopic string
	goneTopic, committedGroup                                     string
	txnTopic, sourceTopic, sinkTopic, fencedTopic                 string
	bootstrap                                                     string
	records                                                       []record
	sources                                                       []*kgo.Record
	failed                                                        bool
	admin                                                         *kadm.Client
	ctx                                                           = context.Background()
)

// --- lines and checks: a check that fails panics, and the scenario ends ---

func run(name string, scenario func() string) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			failed = true
			at := ""
			for _, line := range strings.Split(string(debug.Stack()), "\n") {
				if i := max(strings.LastIndex(line, "/main.go:"), strings.LastIndex(line, "/transactions.go:")); i >= 0 && len(at) < 60 {
					at += " " + strings.Fields(line[i+1:])[0]
				}
			}
			fmt.Printf("FAIL %s %s (at%s)\n", name, strings.ReplaceAll(fmt.Sprint(p), "\n", " "), at)
		}
	}()
	detail := scenario()
	fmt.Printf("ok %s %s %.2fs\n", name, detail, time.Since(start).Seconds())
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(actual, expected any, what string) {
	if !reflect.DeepEqual(actual, expected) {
		panic(fmt.Sprintf("%s: got %.300s, expected %.300s", what, fmt.Sprintf("%#v", actual), fmt.Sprintf("%#v", expected)))
	}
}

func raised(err error, expected *kerr.Error) {
	if !errors.Is(err, expected) {
		panic(fmt.Sprintf("got error %v, expected %s", err, expected.Message))
	}
}

func until(what func() string, attempt func() bool) {
	for end := time.Now().Add(wait); !attempt(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			panic(fmt.Sprintf("no %s within %v", what(), wait))
		}
	}
}

// --- records ---

func text(b []byte) string {
	if b == nil {
		return null
	}
	return string(b)
}

func unescape(field string) []byte {
	if field == "-" {
		return nil
	}
	return append([]byte{}, must(url.PathUnescape(field))...)
}

func load(path string) {
	for _, line := range strings.Split(strings.TrimSuffix(string(must(os.ReadFile(path))), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		r := &kgo.Record{Timestamp: time.UnixMilli(must(strconv.ParseInt(f[0], 10, 64))), Key: unescape(f[1])}
		if v := unescape(f[2]); v != nil {
			r.Value = []byte(strings.Repeat(string(v), must(strconv.Atoi(f[3]))))
		}
		for _, h := range f[4:] {
			name, value, _ := strings.Cut(h, "=")
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(unescape(name)), Value: unescape(value)})
		}
		sources = append(sources, r)
		records = append(records, observed(r))
	}
}

func observed(r *kgo.Record) record {
	var headers []header
	for _, h := range r.Headers {
		headers = append(headers, header{h.Key, text(h.Value)})
	}
	return record{r.Timestamp.UnixMilli(), text(r.Key), text(r.Value), fmt.Sprintf("%q", headers)}
}

func checkRecords(got, expected []record) string {
	for i := 0; i < min(len(got), len(expected)); i++ {
		equal(got[i], expected[i], fmt.Sprint("record ", i))
	}
	equal(len(got), len(expected), "number of records")
	return fmt.Sprint(len(got), " records")
}

func ordered(first int) (rs []record, ks []*kgo.Record) {
	for i := first; i < orderedRecords; i++ {
		ks = append(ks, &kgo.Record{Timestamp: time.UnixMilli(int64(i) + 1), Value: []byte(fmt.Sprint("ordered ", i))})
		rs = append(rs, observed(ks[len(ks)-1]))
	}
	return rs, ks
}

// --- producers and consumers ---

func client(opts ...kgo.Opt) *kgo.Client {
	return must(kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.FetchMaxWait(50 * time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...))
}

func produceAll(topic string, partition int32, source []*kgo.Record, opts ...kgo.Opt) ([]int64, error) {
	c := client(append([]kgo.Opt{kgo.ProducerLinger(5 * time.Millisecond)}, opts...)...)
	defer c.Close()
	var batch []*kgo.Record
	for _, r := range source {
		batch = append(batch, &kgo.Record{Topic: topic, Partition: partition, Key: r.Key, Value: r.Value, Headers: r.Headers,
			Timestamp: r.Timestamp})
	}
	results := c.ProduceSync(ctx, batch...)
	var offsets []int64
	for _, r := range results {
		offsets = append(offsets, r.Record.Offset)
	}
	return offsets, results.FirstErr()
}

// read returns all records from start to the end; their offsets must follow each other from first.
func read(topic string, partition int32, start, first int64, opts ...kgo.Opt) (got []record) {
	end := endOffset(topic, partition)
	c := client(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(start)}}))...)
	defer c.Close()
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for first+int64(len(got)) < end {
		fetches := c.PollFetches(limit)
		check(fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			equal(r.Offset, first+int64(len(got)), "offset")
			got = append(got, observed(r))
		})
	}
	return got
}

func endOffset(topic string, partition int32) int64 {
	end, ok := must(admin.ListEndOffsets(ctx, topic)).Lookup(topic, partition)
	equal(ok, true, "end offset listed")
	check(end.Err)
	return end.Offset
}

func numbers(n int) (ns []int64) {
	for i := range n {
		ns = append(ns, int64(i))
	}
	return ns
}

// --- scenarios ---

func create(name string, partitions int32, replicas int16, config, value string) error {
	_, err := admin.CreateTopic(ctx, partitions, replicas, map[string]*string{config: &value}, name)
	return err
}

func createTopics() string {
	for name, n := range map[string]int32{produceTopic: 15, orderTopic: 1, timeTopic: 1, groupTopic: 4, goneTopic: 1} {
		check(create(name, n, 1, "retention.ms", "-1")) // the records' timestamps lie years back
	}
	check(create(compactTopic, 1, 1, "cleanup.policy", "compact"))
	raised(create(timeTopic, 1, 1, "retention.ms", "-1"), kerr.TopicAlreadyExists)
	raised(create("not/a/name", 1, 1, "retention.ms", "-1"), kerr.InvalidTopicException)
	raised(create(prefix+"x", 1, 1, "retention.ms", "soon"), kerr.InvalidConfig)
	raised(create(prefix+"x", 0, 1, "retention.ms", "-1"), kerr.InvalidPartitions)
	raised(create(prefix+"x", 1, 9, "retention.ms", "-1"), kerr.InvalidReplicationFactor)
	return ""
}

func metadata() string {
	until(func() string { return "leader of every partition" }, func() bool {
		return must(admin.ListEndOffsets(ctx, produceTopic)).Error() == nil
	})
	found := must(admin.Metadata(ctx, produceTopic, prefix+"none"))
	equal(len(found.Topics[produceTopic].Partitions), 15, "partitions")
	for _, p := range found.Topics[produceTopic].Partitions {
		equal(p.Replicas, []int32{p.Leader}, "replicas")
	}
	raised(found.Topics[prefix+"none"].Err, kerr.UnknownTopicOrPartition)
	return fmt.Sprintf("cluster %s, topic id %s", found.Cluster, found.Topics[produceTopic].ID)
}

func produce(codec kgo.CompressionCodec, acks kgo.Acks, partition int32) string {
	offsets, err := produceAll(produceTopic, partition, sources, kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(acks),
		kgo.DisableIdempotentWrite())
	check(err)
	if acks != kgo.NoAck() {
		equal(offsets, numbers(len(records)), "offsets")
	}
	until(func() string { return "all records" }, func() bool { return endOffset(produceTopic, partition) >= int64(len(records)) })
	return checkRecords(read(produceTopic, partition, 0, 0), records)
}

func idempotent() string {
	want, source := ordered(0)
	offsets, err := produceAll(orderTopic, 0, source, kgo.ProducerBatchMaxBytes(512), kgo.ProducerLinger(0))
	check(err)
	equal(offsets, numbers(orderedRecords), "offsets")
	producers := must(admin.DescribeProducers(ctx, kadm.TopicsSet{orderTopic: {0: {}}}))
	for _, p := range producers[orderTopic].Partitions[0].ActiveProducers {
		equal(p.LastSequence, int32(orderedRecords-1), "last sequence")
	}
	return checkRecords(read(orderTopic, 0, 0, 0), want)
}

func smallFetches() string {
	for _, start := range []int{0, 1, 11, 12, 24} {
		checkRecords(read(produceTopic, 4, int64(start), int64(start), kgo.FetchMaxBytes(1000), kgo.FetchMaxPartitionBytes(1000)),
			records[start:])
	}
	return ""
}

func firstAt(timestamp int64) int64 {
	for i, r := range records {
		if r.timestamp >= timestamp {
			return int64(i)
		}
	}
	return int64(len(records)) // kadm answers the end offset where the broker says that there is none
}

func seekTimestamp() string {
	for _, part := range [][]*kgo.Record{sources[:13], sources[13:]} {
		_, err := produceAll(timeTopic, 0, part)
		check(err)
	}
	for _, r := range records {
		for t := r.timestamp - 1; t <= r.timestamp+1; t++ {
			found, _ := must(admin.ListOffsetsAfterMilli(ctx, t, timeTopic)).Lookup(timeTopic, 0)
			check(found.Err)
			equal(found.Offset, firstAt(t), fmt.Sprint("offset for ", t))
		}
	}
	newest, _ := must(admin.ListMaxTimestampOffsets(ctx, timeTopic)).Lookup(timeTopic, 0)
	equal(newest.Offset, int64(len(records)-1), "offset of the largest timestamp")
	start := firstAt(records[len(records)-1].timestamp)
	return checkRecords(read(timeTopic, 0, start, start), records[start:])
}

func configs() string {
	find := func(key string) string {
		found := must(must(admin.DescribeTopicConfigs(ctx, timeTopic)).On(timeTopic, nil))
		for _, c := range found.Configs {
			if c.Key == key {
				return fmt.Sprint(c.MaybeValue(), " ", c.Source)
			}
		}
		return "none"
	}
	alter := func(op kadm.IncrementalOp, value string) error {
		changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: "max.message.bytes", Value: &value}}, timeTopic)
		check(err)
		return must(changed.On(timeTopic, nil)).Err
	}
	equal(find("retention.ms"), "-1 DYNAMIC_TOPIC_CONFIG", "retention.ms")
	equal(find("cleanup.policy"), "delete DEFAULT_CONFIG", "cleanup.policy")
	check(alter(kadm.SetConfig, "50000"))
	equal(find("max.message.bytes"), "50000 DYNAMIC_TOPIC_CONFIG", "max.message.bytes")
	large := []*kgo.Record{{Timestamp: time.UnixMilli(1), Value: []byte(strings.Repeat("0123456789", 7500))}}
	_, err := produceAll(timeTopic, 0, large, kgo.ProducerBatchCompression(kgo.NoCompression()))
	raised(err, kerr.MessageTooLarge)
	check(alter(kadm.DeleteConfig, ""))
	offsets, err := produceAll(timeTopic, 0, large, kgo.ProducerBatchCompression(kgo.NoCompression()))
	check(err)
	equal(offsets, []int64{int64(len(records))}, "offset")
	raised(alter(kadm.SetConfig, "many"), kerr.InvalidConfig)
	return ""
}

func createPartitions() string {
	grow := func(n int) error { return must(admin.UpdatePartitions(ctx, n, groupTopic)).Error() }
	check(grow(6))
	until(func() string { return "6 partitions" }, func() bool {
		ends := must(admin.ListEndOffsets(ctx, groupTopic))
		return len(ends[groupTopic]) == 6 && ends.Error() == nil
	})
	offsets, err := produceAll(groupTopic, 5, sources[:1])
	check(err)
	equal(offsets, []int64{0}, "offset")
	raised(grow(5), kerr.InvalidPartitions)
	return ""
}

func deleteRecords() string {
	remove := func(before int64) error {
		var offsets kadm.Offsets
		offsets.AddOffset(orderTopic, 0, before, -1)
		return must(admin.DeleteRecords(ctx, offsets)).Error()
	}
	check(remove(100))
	start, _ := must(admin.ListStartOffsets(ctx, orderTopic)).Lookup(orderTopic, 0)
	equal(start.Offset, int64(100), "start offset")
	raised(remove(orderedRecords+1), kerr.OffsetOutOfRange)
	want, _ := ordered(100)
	return checkRecords(read(orderTopic, 0, 50, 100, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), want) // below the start
}

func logDirs() string {
	dirs := must(admin.DescribeAllLogDirs(ctx, kadm.TopicsSet{orderTopic: {0: {}}}))
	var size int64
	dirs.Each(func(d kadm.DescribedLogDir) { check(d.Err); size += d.Size() })
	equal(size > orderedRecords*10, true, fmt.Sprint("size ", size))
	return fmt.Sprint(size, " bytes")
}

func compacted() string {
	_, err := produceAll(compactTopic, 0, []*kgo.Record{{Value: []byte("no key")}})
	raised(err, kerr.InvalidRecord)
	offsets, err := produceAll(compactTopic, 0, []*kgo.Record{{Key: []byte("k"), Value: []byte("v")}})
	check(err)
	equal(offsets, []int64{0}, "offset")
	return ""
}

// holes reads the compacted topic of holes.py from several offsets on, of which most are gone.
func holes(path string) string {
	lines := strings.Split(strings.TrimSuffix(string(must(os.ReadFile(path))), "\n"), "\n")
	topic, last, _ := strings.Cut(lines[0], "\t")
	end := must(strconv.ParseInt(last, 10, 64))
	for start := int64(0); start < end; start += 23 {
		var got, want []string
		for _, line := range lines[1:] {
			f := strings.Split(line, "\t")
			if offset := must(strconv.ParseInt(f[0], 10, 64)); offset >= start {
				want = append(want, fmt.Sprint(offset, text(unescape(f[1])), text(unescape(f[2]))))
			}
		}
		c := client(kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(start)}}))
		limit, cancel := context.WithTimeout(ctx, wait)
		for next := start; next < end; {
			fetches := c.PollFetches(limit)
			check(fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				got = append(got, fmt.Sprint(r.Offset, text(r.Key), text(r.Value)))
				next = r.Offset + 1
			})
		}
		cancel()
		c.Close()
		equal(got, want, fmt.Sprint("records from ", start))
	}
	return fmt.Sprint(len(lines)-1, " of ", end, " offsets")
}

// placement has keys that the client places by itself; run.py looks where they are.
func placement() string {
	topic := prefix + "placed"
	check(create(topic, 12, 1, "retention.ms", "-1"))
	c := must(kgo.NewClient(kgo.SeedBrokers(bootstrap)))
	defer c.Close()
	var batch []*kgo.Record
	for i := range 330 {
		r := &kgo.Record{Topic: topic, Value: []byte("v")}
		if i < 300 {
			r.Key = fmt.Appendf(nil, "key-%d", i)
		}
		batch = append(batch, r)
	}
	check(c.ProduceSync(ctx, batch...).FirstErr())
	return ""
}

// routed writes to a topic that places records by itself, with a transactional and with an idempotent producer; run.py looks at
// it.
func routed() string {
	topic := prefix + "routed"
	check(create(topic, 12, 1, "pelton.partitioner", "fnv1a"))
	records := func(value string) (rs []*kgo.Record) {
		for i := range 50 {
			rs = append(rs, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", i), Value: []byte(value)})
		}
		return rs
	}
	c := must(kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.TransactionalID(prefix+"routed")))
	for number, end := range commits {
		check(c.BeginTransaction())
		check(c.ProduceSync(ctx, records(fmt.Sprint(number))...).FirstErr())
		check(c.EndTransaction(ctx, end))
	}
	c.Close()
	// Idempotent unless told otherwise.
	c = must(kgo.NewClient(kgo.SeedBrokers(bootstrap)))
	defer c.Close()
	check(c.ProduceSync(ctx, records("last")...).FirstErr())
	return ""
}

func deleteTopic() string {
	_, err := admin.DeleteTopic(ctx, goneTopic)
	check(err)
	until(func() string { return "topic deleted" }, func() bool { return !must(admin.ListTopics(ctx)).Has(goneTopic) })
	_, err = admin.DeleteTopic(ctx, goneTopic)
	raised(err, kerr.UnknownTopicOrPartition)
	return ""
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/twmb/franz-go" {
				return m.Version
			}
		}
	}
	return "unknown"
}

func main() {
	runLoop()
	runRounds()
	if os.Args[1] == "rig" {
		rig(os.Args[2:])
		return
	}
	bootstrap = os.Args[1]
	prefix = fmt.Sprintf("franz-%08x-", rand.Uint32())
	produceTopic, orderTopic, timeTopic, groupTopic = prefix+"produce", prefix+"order", prefix+"time", prefix+"group"
	compactTopic, goneTopic, committedGroup = prefix+"compact", prefix+"gone", prefix+"committed"
	txnTopic, sourceTopic, sinkTopic, fencedTopic = prefix+"transactions", prefix+"source", prefix+"sink", prefix+"fenced"
	load(os.Args[2])
	fmt.Printf("# franz-go %s on %s, names start with %s\n", version(), bootstrap, prefix)
	admin = kadm.NewClient(client())
	run("create-topic", createTopics)
	run("metadata", metadata)
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	for c, codec := range codecs {
		for a, acks := range []kgo.Acks{kgo.NoAck(), kgo.LeaderAck(), kgo.AllISRAcks()} {
			name := fmt.Sprintf("produce-%s-%s", []string{"none", "gzip", "snappy", "lz4", "zstd"}[c], []string{"0", "1", "all"}[a])
			run(name, func() string { return produce(codec, acks, int32(3*c+a)) })
		}
	}
	run("idempotent", idempotent)
	run("small-fetches", smallFetches)
	run("seek-timestamp", seekTimestamp)
	run("transactions", transactions)
	run("transactions-offsets", transactionOffsets)
	run("transactions-fenced", transactionFenced)
	run("group-range", func() string { return group("group-range", kgo.RangeBalancer()) })
	run("group-roundrobin", func() string { return group("group-roundrobin", kgo.RoundRobinBalancer()) })
	run("group-sticky", func() string { return group("group-sticky", kgo.StickyBalancer()) })
	run("group-cooperative", func() string { return group("group-cooperative", kgo.CooperativeStickyBalancer()) })
	run("commit-metadata", commitMetadata)
	run("lag", lag)
	run("groups", groups)
	run("delete-group", deleteGroup)
	run("configs", configs)
	run("create-partitions", createPartitions)
	run("delete-records", deleteRecords)
	run("log-dirs", logDirs)
	run("compacted-needs-key", compacted)
	run("compacted-holes", func() string { return holes(os.Args[3]) })
	run("placement", placement)
	if os.Getenv("PELTON_ROUTED") != "" {
		run("routed", routed)
	}
	run("delete-topic", deleteTopic)
	admin.Close()
	if failed {
		os.Exit(1)
	}
}
