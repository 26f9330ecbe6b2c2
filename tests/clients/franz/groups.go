package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member is a group member that commits what it read and keeps what it owns up to date.
type member struct {
	sync.Mutex
	client   *kgo.Client
	owned    map[int32]bool
	got      []string
	stopping bool
	done     chan error
}

func join(group string, opts ...kgo.Opt) *member {
	m := &member{owned: map[int32]bool{}, done: make(chan error, 1)}
	change := func(own bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.Lock()
			defer m.Unlock()
			for _, p := range partitions[groupTopic] {
				if own {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
	m.client = client(append(opts, kgo.ConsumerGroup(group), kgo.ConsumeTopics(groupTopic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.BlockRebalanceOnPoll(), kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)))...)
	go func() { m.done <- m.poll() }()
	return m
}

func (m *member) poll() error {
	defer m.client.CloseAllowingRebalance()
	for {
		m.Lock()
		stopping := m.stopping
		m.Unlock()
		if stopping {
			return nil
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		fetches := m.client.PollFetches(short)
		cancel()
		if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		m.Lock()
		fetches.EachRecord(func(r *kgo.Record) { m.got = append(m.got, string(r.Value)) })
		m.Unlock()
		if fetches.NumRecords() > 0 {
			if err := m.client.CommitUncommittedOffsets(ctx); err != nil {
				return err
			}
		}
		m.client.AllowRebalance()
	}
}

func group(name string, balancer kgo.GroupBalancer) string {
	id := prefix + name
	var sent []string
	var members []*member
	produced := func() {
		for p := range int32(4) {
			var batch []*kgo.Record
			for range 10 {
				sent = append(sent, fmt.Sprintf("%s %d", name, len(sent)))
				batch = append(batch, &kgo.Record{Value: []byte(sent[len(sent)-1])})
			}
			_, err := produceAll(groupTopic, p, batch)
			check(err)
		}
	}
	state := func() (counts []int, partitions map[int32]bool, got []string) {
		partitions = map[int32]bool{}
		for _, m := range members {
			m.Lock()
			for _, v := range m.got {
				if strings.HasPrefix(v, name+" ") {
					got = append(got, v)
				}
			}
			if !m.stopping {
				counts = append(counts, len(m.owned))
				for p := range m.owned {
					partitions[p] = true
				}
			}
			m.Unlock()
		}
		return counts, partitions, got
	}
	settled := func(want ...int) {
		until(func() string {
			counts, _, got := state()
			return fmt.Sprintf("assignment %v with %d records read once (owned %v, read %d)", want, len(sent), counts, len(got))
		}, func() bool {
			for _, m := range members {
				select {
				case err := <-m.done:
					check(err)
					m.done <- nil
				default:
				}
			}
			counts, partitions, got := state()
			sort.Ints(counts)
			sort.Strings(got)
			expected := append([]string{}, sent...)
			sort.Strings(expected)
			return reflect.DeepEqual(counts, want) && len(partitions) == 4 && reflect.DeepEqual(got, expected)
		})
	}
	stop := func(m *member) {
		m.Lock()
		m.stopping = true
		m.Unlock()
	}
	defer func() {
		for _, m := range members {
			stop(m)
		}
		for _, m := range members {
			<-m.done
		}
	}()
	produced()
	members = append(members, join(id, kgo.Balancers(balancer)))
	settled(4)
	members = append(members, join(id, kgo.Balancers(balancer)))
	settled(2, 2)
	produced()
	settled(2, 2)
	found := must(admin.DescribeGroups(ctx, id))[id]
	equal([]any{found.State, len(found.Members), len(found.AssignedPartitions()[groupTopic])}, []any{"Stable", 2, 4}, "state, members, assigned")
	lags := must(admin.Lag(ctx, id))[id].Lag.Total()
	equal(lags, int64(0), "lag")
	stop(members[0])
	settled(4)
	produced()
	settled(4)
	return fmt.Sprintf("%d records once, %s", len(sent), found.Protocol)
}

func committed() (int64, string) {
	found, _ := must(admin.FetchOffsets(ctx, committedGroup)).Lookup(orderTopic, 0)
	check(found.Err)
	return found.At, found.Metadata
}

func commit(at int64, metadata string) error {
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: orderTopic, Partition: 0, At: at, LeaderEpoch: 0, Metadata: metadata})
	answer, err := admin.CommitOffsets(ctx, committedGroup, offsets)
	if err != nil {
		return err
	}
	return answer.Error()
}

func commitMetadata() string {
	check(commit(7, "höhe 7"))
	at, metadata := committed()
	equal([]any{at, metadata}, []any{int64(7), "höhe 7"}, "committed")
	raised(commit(7, strings.Repeat("x", 5000)), kerr.OffsetMetadataTooLarge)
	return ""
}

func lag() string {
	at, _ := committed()
	equal(endOffset(orderTopic, 0)-at, int64(orderedRecords-7), "lag")
	return ""
}

func groups() string {
	listed := must(admin.ListGroups(ctx))
	equal(listed[committedGroup].State, "Empty", "state")
	equal(len(must(admin.DescribeGroups(ctx, committedGroup))[committedGroup].Members), 0, "members")
	check(commit(3, ""))
	at, _ := committed()
	equal(at, int64(3), "altered offset")
	var topics kadm.TopicsSet
	topics.Add(orderTopic, 0)
	check(must(admin.DeleteOffsets(ctx, committedGroup, topics)).Error())
	_, ok := must(admin.FetchOffsets(ctx, committedGroup)).Lookup(orderTopic, 0)
	equal(ok, false, "offset is there after its deletion")
	return ""
}

func deleteGroup() string {
	id := prefix + "group-range"
	check(must(admin.DeleteGroups(ctx, id)).Error())
	raised(must(admin.DeleteGroups(ctx, id)).Error(), kerr.GroupIDNotFound)
	equal(len(must(admin.FetchOffsets(ctx, id))), 0, "offsets of a deleted group")
	return ""
}
