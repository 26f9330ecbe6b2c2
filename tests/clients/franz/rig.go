package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rig is a producer for the rig in tests/transactions: franz rig transact|zombie BOOTSTRAP ... Each line that it writes says
// what it asks for or was told; an error ends it.
func rig(args []string) {
	bootstrap = args[1]
	switch args[0] {
	case "transact":
		transact(args[2], must(strconv.Atoi(args[3])), must(strconv.ParseInt(args[4], 10, 64)))
	case "zombie":
		zombie(args[2], args[3])
	default:
		panic("transact or zombie")
	}
}

// transactional connects again whenever a connection breaks, even before the first answer on it.
func transactional(id string, opts ...kgo.Opt) *kgo.Client {
	return client(append([]kgo.Opt{kgo.TransactionalID(id), kgo.AlwaysRetryEOF(), kgo.RequestTimeoutOverhead(10 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }), kgo.ProducerLinger(0)}, opts...)...)
}

// transact runs count transactions: two records to each partition of one-0, one-1 and two-0, and the offset of its number.
func transact(id string, count int, seed int64) {
	c, random := transactional(id), rand.New(rand.NewSource(seed))
	for number := 1; number <= count; number++ {
		check(c.BeginTransaction())
		var records []*kgo.Record
		for i, at := range []string{"one-0", "one-1", "two-0", "one-0", "one-1", "two-0"} {
			p := must(strconv.ParseInt(at[4:], 10, 32))
			records = append(records, &kgo.Record{Topic: at[:3], Partition: int32(p), Value: []byte(fmt.Sprintf("%d/%s/%d", number, at, i))})
		}
		check(c.ProduceSync(ctx, records...).FirstErr())
		// This client's first transaction is of the older protocol, in which the group would have to be added before.
		if number > 1 {
			check(commitOffset(c, id, int64(number)))
		}
		commit := random.Intn(5) > 0
		fmt.Printf("ask %d %v\n", number, commit)
		check(c.EndTransaction(ctx, kgo.TransactionEndTry(commit)))
		fmt.Printf("told %d %v\n", number, commit)
	}
	c.Close()
}

func commitOffset(c *kgo.Client, id string, offset int64) error {
	producerID, epoch, err := c.ProducerID(ctx)
	if err != nil {
		return err
	}
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset = offset
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic, t.Partitions = "one", []kmsg.TxnOffsetCommitRequestTopicPartition{p}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = id, "group-"+id, producerID, epoch
	req.Topics = []kmsg.TxnOffsetCommitRequestTopic{t}
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		resp, err := req.RequestWith(ctx, c)
		if err != nil {
			return err
		}
		code := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
		if !errors.Is(code, kerr.ConcurrentTransactions) && !errors.Is(code, kerr.CoordinatorNotAvailable) || time.Now().After(end) {
			return code
		}
	}
}

// zombie commits a transaction, opens another, says so, and goes on when it is told to: by then it may have been frozen and
// another may have its place. It says what it is told.
func zombie(id, topic string) {
	c := transactional(id, kgo.TransactionTimeout(2*time.Second), kgo.RecordDeliveryTimeout(10*time.Second))
	write := func(value string) error {
		return c.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr()
	}
	check(c.BeginTransaction())
	check(write("before"))
	check(c.EndTransaction(ctx, kgo.TryCommit))
	check(c.BeginTransaction())
	check(write("open"))
	fmt.Println("open")
	bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Printf("write: %v\n", write("thawed"))
	fmt.Printf("commit: %v\n", c.EndTransaction(ctx, kgo.TryCommit))
}
