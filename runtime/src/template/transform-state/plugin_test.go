package main

import (
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func run(t *testing.T) *pelton.StateRun {
	run, err := pelton.NewStateRun(plugin{}, pelton.Config{}, pelton.TestStore{Name: seen})
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func TestRecordsAreCountedByKey(t *testing.T) {
	run := run(t)
	out, err := run.Give(pelton.TestKey("a"), pelton.TestKey("b"), pelton.TestKey("a"))
	if err != nil || len(out) != 3 || string(out[1].Value) != "1" || string(out[2].Value) != "2" {
		t.Fatal(out, err)
	}
	// Stores stay from batch to batch.
	out, err = run.Give(pelton.TestKey("a"))
	if err != nil || string(out[0].Value) != "3" {
		t.Fatal(out, err)
	}
}

func TestWhatAFailedBatchHasWrittenIsDropped(t *testing.T) {
	run := run(t)
	_, err := run.Give(pelton.TestKey("a"), pelton.TestValue("x"))
	if err == nil || err.Error() != "record 1: there is no key" {
		t.Fatal(err)
	}
	if count := run.Entry(seen, "a"); count != nil {
		t.Fatal(count)
	}
}
