package main

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// commits says of the transactions of a producer which are committed; the others are aborted.
var commits = []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit, kgo.TryCommit, kgo.TryAbort, kgo.TryCommit}

func inTransaction(number int, partition int32) (vs []string) {
	for i := range 5 {
		vs = append(vs, fmt.Sprintf("transaction %d partition %d record %d", number, partition, i))
	}
	return vs
}

// transacted returns the values of a partition that are visible after so many transactions.
func transacted(partition int32, level kgo.IsolationLevel, count int) (vs []string) {
	for number, commit := range commits[:count] {
		if commit == kgo.TryCommit || level == kgo.ReadUncommitted() {
			vs = append(vs, inTransaction(number, partition)...)
		}
	}
	return vs
}

func toTransform(partition int32) (vs []string) {
	for i := range 10 {
		vs = append(vs, fmt.Sprintf("INPUT %d %d", partition, i))
	}
	return vs
}

func outgoing(topic string, partition int32, vs []string) (rs []*kgo.Record) {
	for _, v := range vs {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)})
	}
	return rs
}

// values reads a partition to the end that this isolation level sees. Markers count: the last record may be one.
func values(topic string, partition int32, level kgo.IsolationLevel) (got []string) {
	list := admin.ListEndOffsets
	if level == kgo.ReadCommitted() {
		list = admin.ListCommittedOffsets
	}
	end, ok := must(list(ctx, topic)).Lookup(topic, partition)
	equal(ok, true, "end offset listed")
	check(end.Err)
	c := client(kgo.FetchIsolationLevel(level), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(0)}}))
	defer c.Close()
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for next := int64(0); next < end.Offset; {
		fetches := c.PollFetches(limit)
		check(fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				got = append(got, string(r.Value))
			}
		})
	}
	return got
}

// eventually is equal with patience: Kafka answers a commit before it has written all markers.
func eventually(attempt func() any, expected any, what string) {
	actual := attempt()
	for end := time.Now().Add(wait); !reflect.DeepEqual(actual, expected) && time.Now().Before(end); actual = attempt() {
		time.Sleep(20 * time.Millisecond)
	}
	equal(actual, expected, what)
}

func createTwo(names ...string) {
	for _, name := range names {
		check(create(name, 2, 1, "retention.ms", "-1"))
	}
}

func transactions() string {
	createTwo(txnTopic)
	id := prefix + "transactions"
	c := client(kgo.TransactionalID(id))
	defer c.Close()
	for number, commit := range commits {
		check(c.BeginTransaction())
		for p := range int32(2) {
			check(c.ProduceSync(ctx, outgoing(txnTopic, p, inTransaction(number, p))...).FirstErr())
		}
		equal(values(txnTopic, 0, kgo.ReadCommitted()), transacted(0, kgo.ReadCommitted(), number), "before the transaction ends")
		check(c.EndTransaction(ctx, commit))
	}
	for _, level := range []kgo.IsolationLevel{kgo.ReadCommitted(), kgo.ReadUncommitted()} {
		for p := range int32(2) {
			eventually(func() any { return values(txnTopic, p, level) }, transacted(p, level, len(commits)), fmt.Sprint("partition ", p))
		}
	}
	eventually(func() any { return must(admin.DescribeTransactions(ctx, id))[id].State }, "CompleteCommit", "state")
	// The newer protocol (transaction.version 2, EndTxn v5) gives every transaction an epoch of its own. This client ends its
	// first transaction with the older one, sees then what the broker can, and gets the next epoch with InitProducerId.
	equal(must(admin.DescribeTransactions(ctx, id))[id].ProducerEpoch, int16(len(commits)), "producer epoch")
	return fmt.Sprint(len(commits), " transactions")
}

// transactionOffsets consumes, transforms and produces, seven records a transaction; the second is aborted and repeated.
func transactionOffsets() string {
	createTwo(sourceTopic, sinkTopic)
	for p := range int32(2) {
		var source []*kgo.Record
		for _, v := range toTransform(p) {
			source = append(source, &kgo.Record{Value: []byte(strings.ToLower(v))})
		}
		_, err := produceAll(sourceTopic, p, source)
		check(err)
	}
	group := prefix + "transform"
	s := must(kgo.NewGroupTransactSession(kgo.SeedBrokers(bootstrap), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(group), kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(sourceTopic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())))
	defer s.Close()
	limit, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	done, aborted := 0, 0
	for done < 20 {
		fetches := s.PollRecords(limit, 7)
		check(fetches.Err())
		if fetches.NumRecords() == 0 {
			continue
		}
		check(s.Begin())
		fetches.EachRecord(func(r *kgo.Record) {
			s.Produce(ctx, outgoing(sinkTopic, r.Partition, []string{strings.ToUpper(string(r.Value))})[0], nil)
		})
		check(s.Client().Flush(limit))
		abort := done > 0 && aborted == 0
		committed, err := s.End(limit, kgo.TransactionEndTry(!abort))
		check(err)
		equal(committed, !abort, "committed")
		if abort {
			aborted = fetches.NumRecords()
		} else {
			done += fetches.NumRecords()
		}
		eventually(func() any {
			sum := int64(0)
			must(admin.FetchOffsets(ctx, group)).Each(func(o kadm.OffsetResponse) { check(o.Err); sum += max(0, o.At) })
			return sum
		}, int64(done), "sum of the committed offsets")
	}
	every := 0
	for p := range int32(2) {
		eventually(func() any { return values(sinkTopic, p, kgo.ReadCommitted()) }, toTransform(p), fmt.Sprint("partition ", p))
		every += len(values(sinkTopic, p, kgo.ReadUncommitted()))
	}
	equal(every, done+aborted, "records read uncommitted")
	return fmt.Sprintf("%d records once, %d of them aborted before", done, aborted)
}

func transactionFenced() string {
	createTwo(fencedTopic)
	first, second := client(kgo.TransactionalID(prefix+"fenced")), client(kgo.TransactionalID(prefix+"fenced"))
	defer first.Close()
	defer second.Close()
	check(first.BeginTransaction())
	check(first.ProduceSync(ctx, outgoing(fencedTopic, 0, []string{"first"})...).FirstErr())
	_, _, err := second.ProducerID(ctx)
	check(err)
	raised(first.EndTransaction(ctx, kgo.TryCommit), kerr.ProducerFenced)
	check(second.BeginTransaction())
	check(second.ProduceSync(ctx, outgoing(fencedTopic, 0, []string{"second"})...).FirstErr())
	check(second.EndTransaction(ctx, kgo.TryCommit))
	eventually(func() any { return values(fencedTopic, 0, kgo.ReadCommitted()) }, []string{"second"}, "read committed")
	equal(values(fencedTopic, 0, kgo.ReadUncommitted()), []string{"first", "second"}, "read uncommitted")
	return ""
}
