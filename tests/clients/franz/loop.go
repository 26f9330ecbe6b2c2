package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// work is how long a transaction stays open, as if records needed some.
const work = 20 * time.Millisecond

// loop consumes, transforms and produces: every record of one topic once into another, until it is killed. Its arguments are
// BOOTSTRAP FROM TO GROUP TRANSACTIONAL-ID. It prints `begin` and `end` around each transaction. What it cannot mend by an abort
// ends it; whoever runs it starts it again.
func loop(args []string) error {
	source, sink := args[1], args[2]
	session, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(args[0]), kgo.TransactionalID(args[4]), kgo.ConsumerGroup(args[3]),
		kgo.TransactionTimeout(10*time.Second), kgo.ConsumeTopics(source), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(3*time.Second),
		kgo.HeartbeatInterval(300*time.Millisecond), kgo.FetchMaxWait(50*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }))
	if err != nil {
		return err
	}
	defer session.Close()
	for {
		fetches := session.PollRecords(context.Background(), 50)
		if fetches.NumRecords() == 0 {
			continue // errors of single partitions come while the broker is down
		}
		if err := session.Begin(); err != nil {
			return err
		}
		fmt.Println("begin")
		failed := kgo.AbortingFirstErrPromise(session.Client())
		fetches.EachRecord(func(r *kgo.Record) {
			copied := &kgo.Record{Topic: sink, Partition: r.Partition, Key: r.Key, Value: r.Value}
			session.Produce(context.Background(), copied, failed.Promise())
		})
		time.Sleep(work)
		if _, err := session.End(context.Background(), kgo.TransactionEndTry(failed.Err() == nil)); err != nil {
			return err
		}
		fmt.Println("end")
	}
}

// runLoop ends the program when it was started for the loop alone.
func runLoop() {
	if len(os.Args) > 2 && os.Args[1] == "loop" {
		fmt.Fprintln(os.Stderr, "the loop ends:", loop(os.Args[2:]))
		os.Exit(1)
	}
}
