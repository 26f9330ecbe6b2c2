package main

import (
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func TestARegionStaysTogether(t *testing.T) {
	given := []pelton.TestRecord{pelton.TestKey("eu-1"), pelton.TestKey("us-1"), pelton.TestKey("eu-2")}
	placed, err := pelton.Partitions(plugin{}, pelton.Config{}, 12, given...)
	if err != nil || placed[0] != placed[2] || placed[0] == placed[1] {
		t.Fatal(placed, err)
	}
}
