package main

import (
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func TestLongValuesAreShouted(t *testing.T) {
	out, err := pelton.Run(&plugin{}, pelton.Config{"longer_than": "2"}, pelton.TestValue("abc"), pelton.TestValue("no"))
	if err != nil || len(out) != 1 || string(out[0].Value) != "ABC" {
		t.Fatal(out, err)
	}
}

func TestARecordWithoutAValueIsRejected(t *testing.T) {
	_, err := pelton.Run(&plugin{}, pelton.Config{"longer_than": "0"}, pelton.TestRecord{})
	if err == nil || err.Error() != "record 0: there is no value" {
		t.Fatal(err)
	}
}
