package main

import (
	"fmt"
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func config(regions string) pelton.Config {
	return pelton.Config{"regions": regions, "separator": "-", "header": ""}
}

func TestRegionsShareNoPartitionWhereThereAreEnough(t *testing.T) {
	var given []pelton.TestRecord
	for i := range 300 {
		given = append(given, pelton.TestKey(fmt.Sprintf("%s-%d", []string{"eu", "us", "asia"}[i/100], i)))
	}
	for _, count := range []uint32{3, 7, 100} {
		placed, err := pelton.Partitions(&region{}, config("eu, us"), count, given...)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range placed {
			share := uint32(i / 100)
			if p < share*count/3 || p >= (share+1)*count/3 {
				t.Fatalf("%d of %d is in %d", i, count, p)
			}
		}
	}
}

func TestTheRegionMayBeInAHeader(t *testing.T) {
	record := pelton.TestKey("us-1")
	record.Headers = []pelton.Header{{Name: "region", Value: []byte("eu")}}
	settings := config("us,eu")
	settings["header"] = "region"
	placed, err := pelton.Partitions(&region{}, settings, 3, record)
	if err != nil || placed[0] != 1 {
		t.Fatal(placed, err)
	}
}

func TestSettingsThatMakeNoSenseAreRefused(t *testing.T) {
	for regions, why := range map[string]string{
		"eu,,us":   "regions: a name is empty; write them as `eu,us,asia`",
		"eu,us,eu": "regions: `eu` is there twice",
	} {
		if _, err := pelton.Partitions(&region{}, config(regions), 3); err == nil || err.Error() != why {
			t.Fatal(err)
		}
	}
}
