package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// rounds writes rounds, as it is told to: one record of each key, wherever it likes. Its arguments are BOOTSTRAP TOPIC NAME
// TRANSACTIONAL. Each line that it reads is `ROUND PARTITIONS`; what it answers is the fate of the round: `there`, `aborted`, or
// `unknown`. Every fourth transaction is aborted.
func rounds(args []string) error {
	topic, name, transactional := args[1], args[2], args[3] == "transactional"
	settings := []kgo.Opt{kgo.SeedBrokers(args[0]), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AlwaysRetryEOF(),
		kgo.ProducerLinger(time.Millisecond), kgo.RequestTimeoutOverhead(10 * time.Second), kgo.MetadataMinAge(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond })}
	if transactional {
		settings = append(settings, kgo.TransactionalID(name), kgo.TransactionTimeout(time.Minute))
	}
	client, err := kgo.NewClient(settings...)
	if err != nil {
		return err
	}
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var number, partitions int
		if _, err := fmt.Sscan(lines.Text(), &number, &partitions); err != nil {
			return err
		}
		fate, err := round(client, topic, name, transactional, number, partitions)
		if err != nil {
			return fmt.Errorf("round %d: %w", number, err)
		}
		fmt.Println(fate)
	}
	return lines.Err()
}

func round(client *kgo.Client, topic, name string, transactional bool, number, partitions int) (string, error) {
	if transactional {
		if err := client.BeginTransaction(); err != nil {
			return "", err
		}
	}
	var records []*kgo.Record
	for _, region := range []string{"eu", "us", "asia"} {
		for key := range 10 {
			at, of := (number*7+len(records))%partitions, fmt.Sprintf("%s-%s-%d", region, name, key)
			value := fmt.Appendf(nil, "%d", number)
			records = append(records, &kgo.Record{Topic: topic, Partition: int32(at), Key: []byte(of), Value: value})
		}
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		return "", err
	}
	if !transactional {
		return "there", nil
	}
	if number%4 == 3 {
		return "aborted", client.EndTransaction(context.Background(), kgo.TryAbort)
	}
	if err := client.EndTransaction(context.Background(), kgo.TryCommit); err != nil {
		return "unknown", client.EndTransaction(context.Background(), kgo.TryAbort)
	}
	return "there", nil
}

// runRounds ends the program when it was started for rounds alone.
func runRounds() {
	if len(os.Args) > 2 && os.Args[1] == "rounds" {
		if err := rounds(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "the rounds end:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}
