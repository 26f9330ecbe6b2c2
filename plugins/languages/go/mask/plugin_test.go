package main

import (
	"reflect"
	"testing"

	pelton "github.com/pelton-io/pelton/sdk/go"
)

func TestDigitsAreMaskedAndCounted(t *testing.T) {
	internal := pelton.TestValue("1234567")
	internal.Headers = []pelton.Header{{Name: "internal", Value: []byte("true")}}
	given := []pelton.TestRecord{pelton.TestValue("card 1234-5678-9012"), pelton.TestValue("no 123"), {}, internal}
	out, err := pelton.Run(&mask{}, pelton.Config{"keep": "4", "header": "masked"}, given...)
	if err != nil || len(out) != 3 || string(out[0].Value) != "card ****-****-9012" || string(out[1].Value) != "no 123" {
		t.Fatal(out, err)
	}
	if !reflect.DeepEqual(out[0].Headers, []pelton.Header{{Name: "masked", Value: []byte("8")}}) || out[2].Value != nil {
		t.Fatal(out)
	}
}
