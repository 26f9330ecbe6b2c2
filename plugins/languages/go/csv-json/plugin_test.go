package main

import (
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func TestLinesBecomeObjects(t *testing.T) {
	config := pelton.Config{"columns": "id,name", "separator": ";"}
	given := []pelton.TestRecord{pelton.TestValue("1;Jörg \"J\"\t"), pelton.TestValue(";"), {}}
	out, err := pelton.Run(&csvJSON{}, config, given...)
	if err != nil || string(out[0].Value) != `{"id":"1","name":"Jörg \"J\"\u0009"}` ||
		string(out[1].Value) != `{"id":"","name":""}` || out[2].Value != nil {
		t.Fatal(out, err)
	}
}

func TestWhatDoesNotFitIsRejected(t *testing.T) {
	config := pelton.Config{"columns": "a,b", "separator": ","}
	_, err := pelton.Run(&csvJSON{}, config, pelton.TestValue("1,2"), pelton.TestValue("1"))
	if err == nil || err.Error() != "record 1: the line has 1 fields, not 2" {
		t.Fatal(err)
	}
	config["columns"] = "a,,b"
	if _, err := pelton.Run(&csvJSON{}, config); err == nil || err.Error() != "columns: a name is empty" {
		t.Fatal(err)
	}
}
