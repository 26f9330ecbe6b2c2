package pelton

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var input = []TestRecord{
	{Key: []byte("k0"), Value: []byte("v0"), Timestamp: 1},
	{Value: []byte("v1"), Timestamp: 2, Headers: []Header{{"a", []byte("1")}}},
	{Key: []byte("k2"), Timestamp: 3, Headers: []Header{{"b", []byte("1")}, {"c", nil}}},
}

type columns struct{ emit func(r []Record, out *Out) }

func (columns) Configure(Config) error    { return nil }
func (columns) Record(Record, *Out) error { return Fatal("is never called") }
func (c columns) Batch(batch *Batch) (*Output, error) {
	var r []Record
	for record := range batch.Records() {
		r = append(r, record)
	}
	out := NewOut(batch)
	c.emit(r, out)
	return out.Finish(), nil
}

func check(t *testing.T, emit func(r []Record, out *Out), expect ...string) {
	t.Helper()
	records, err := Run(columns{emit}, Config{}, input...)
	if err != nil {
		t.Fatal(err)
	}
	text := func(bytes []byte) string {
		if bytes == nil {
			return "null"
		}
		return string(bytes)
	}
	var got []string
	for _, r := range records {
		var headers []string
		for _, header := range r.Headers {
			headers = append(headers, header.Name+":"+text(header.Value))
		}
		got = append(got, fmt.Sprintf("%d/%d/%s=%s[%s]", r.Output, r.Timestamp, text(r.Key), text(r.Value), strings.Join(headers, ",")))
	}
	if !reflect.DeepEqual(got, expect) {
		t.Fatalf("%q, wanted %q", got, expect)
	}
}

func TestWhatIsKeptIsInherited(t *testing.T) {
	check(t, func(r []Record, out *Out) {
		out.Keep(r[2])
		out.Keep(r[0])
	}, "0/3/k2=null[b:1,c:null]", "0/1/k0=v0[]")
}

func TestAColumnBeginsWithTheFirstChange(t *testing.T) {
	check(t, func(r []Record, out *Out) {
		out.Keep(r[0])
		out.Keep(r[1]).Value([]byte("new"))
		out.Keep(r[2])
		out.Keep(r[2]).Key([]byte("key")).Value([]byte{}).Timestamp(9)
		out.Keep(r[0]).Key(nil).Value(nil)
		out.Keep(r[1])
	}, "0/1/k0=v0[]", "0/2/null=new[a:1]", "0/3/k2=null[b:1,c:null]", "0/9/key=[b:1,c:null]", "0/1/null=null[]", "0/2/null=v1[a:1]")
}

func TestHeadersAndRoutes(t *testing.T) {
	check(t, func(r []Record, out *Out) {
		out.Keep(r[2])
		out.Keep(r[1]).Header("x", []byte("2")).To(3)
		out.Keep(r[2]).NoHeaders().Header("y", nil)
		out.Keep(r[1])
		if value, found := r[2].Header("c"); value != nil || !found {
			t.Fatal(value, found)
		}
	}, "0/3/k2=null[b:1,c:null]", "3/2/null=v1[a:1,x:2]", "0/3/k2=null[y:null]", "0/2/null=v1[a:1]")
}

type keyed struct{}

func (keyed) Configure(Config) error { return nil }
func (keyed) Record(record Record, out *Out) error {
	if record.Key() == nil {
		return Reject("there is no key")
	}
	out.Keep(record)
	return nil
}

func TestAnErrorRejectsItsRecord(t *testing.T) {
	_, err := Run(keyed{}, Config{}, input...)
	if !reflect.DeepEqual(err, Rejected{{1, "there is no key"}}) {
		t.Fatal(err)
	}
}

func TestKeysLieWhereClientsPutThem(t *testing.T) {
	// As Kafka's Java client 4.4.0 placed them.
	for _, c := range []struct {
		key              string
		count, partition uint32
	}{{"pelton", 7, 5}, {"pelton", 12, 11}, {"", 7, 2}, {"", 12, 9}} {
		if got := PartitionOfKey([]byte(c.key), c.count); got != c.partition {
			t.Fatal(c, got)
		}
	}
}
