package main

import (
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func TestAKeyThatIsQuietIsTold(t *testing.T) {
	run, err := pelton.NewTimerRun(&plugin{}, pelton.Config{"after_ms": "1000"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run.Give(pelton.TestKey("a")); err != nil || len(out) != 0 {
		t.Fatal(out, err)
	}
	if out, err := run.Tick(999); err != nil || len(out) != 0 {
		t.Fatal(out, err)
	}
	out, err := run.Tick(1000)
	if err != nil || len(out) != 1 || string(out[0].Key) != "a" || string(out[0].Value) != "quiet" || out[0].Timestamp != 1000 {
		t.Fatal(out, err)
	}
}
