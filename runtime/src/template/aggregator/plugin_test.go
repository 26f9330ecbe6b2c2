package main

import (
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func TestTheLongestValueStays(t *testing.T) {
	run, err := pelton.NewAggregateRun(plugin{}, pelton.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ group, value, wanted string }{
		{"a", "abc", "abc"}, {"a", "ab", "abc"}, {"b", "longer", "longer"},
	} {
		if got, err := run.Add(step.group, pelton.TestValue(step.value)); err != nil || string(got) != step.wanted {
			t.Fatal(step, string(got), err)
		}
	}
	if got, err := run.Merge("a", "b"); err != nil || string(got) != "longer" {
		t.Fatal(string(got), err)
	}
}
