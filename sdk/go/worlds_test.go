package pelton

import (
	"fmt"
	"reflect"
	"strconv"
	"testing"
)

func at(key, value string, timestamp int64) TestRecord {
	return TestRecord{Key: []byte(key), Value: []byte(value), Timestamp: timestamp}
}

func values(t *testing.T, records []TestRecord, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{}
	for _, record := range records {
		texts = append(texts, string(record.Value))
	}
	return texts
}

func same(t *testing.T, got, wanted any) {
	t.Helper()
	if !reflect.DeepEqual(got, wanted) {
		t.Fatalf("%#v, wanted %#v", got, wanted)
	}
}

type counting struct{}

func (counting) Configure(Config) error            { return nil }
func (counting) Reads(record Record, reads *Reads) { reads.Key("seen", record.Key()) }
func (counting) Record(record Record, stores *Stores, out *Out) error {
	before, _ := strconv.Atoi(string(stores.Get("seen", record.Key())))
	count := strconv.Itoa(before + 1)
	stores.Put("seen", record.Key(), []byte(count))
	stores.Put("keys", record.Key(), []byte{})
	if string(record.Value()) == "bad" {
		return Reject("it is bad")
	}
	found := stores.Range("keys", Range{Limit: 2})
	text := count
	for _, entry := range found.Entries {
		text += " " + string(entry.Key)
	}
	out.Keep(record).Value([]byte(fmt.Sprint(text, " ", found.More)))
	return nil
}

func TestStoresShowWhatTheCallHasWritten(t *testing.T) {
	run, err := NewStateRun(counting{}, Config{}, TestStore{Name: "seen"}, TestStore{Name: "keys"})
	if err != nil {
		t.Fatal(err)
	}
	out, err := run.Give(at("c", "", 0), at("a", "", 0), at("b", "", 0), at("c", "", 0))
	same(t, values(t, out, err), []string{"1 c false", "1 a c false", "1 a b true", "2 a b true"})
	if _, err := run.Give(at("c", "", 0), at("c", "bad", 0)); !reflect.DeepEqual(err, Rejected{{1, "it is bad"}}) {
		t.Fatal(err)
	}
	same(t, string(run.Entry("seen", "c")), "2")
	out, err = run.Give(at("c", "", 0))
	same(t, values(t, out, err), []string{"3 a b true"})
}

type ranging struct{ got []any }

func (*ranging) Configure(Config) error { return nil }
func (r *ranging) Record(_ Record, stores *Stores, _ *Out) error {
	for _, key := range []string{"a/1", "a/2", "b/1", "b/2"} {
		stores.Put("s", []byte(key), []byte(key))
	}
	stores.Delete("s", []byte("a/1"))
	entries := func(found Entries) string {
		text := ""
		for _, entry := range found.Entries {
			text += string(entry.Key) + "=" + string(entry.Value) + " "
		}
		return fmt.Sprint(text, found.More)
	}
	r.got = append(r.got, entries(stores.Range("s", Range{Prefix: []byte("a/")})))
	r.got = append(r.got, entries(stores.Range("s", Range{Start: []byte("a/2"), End: []byte("b/2"), Reverse: true})))
	r.got = append(r.got, stores.DeleteRange("s", []byte("b/"), nil, 1), stores.Get("s", []byte("b/1")) == nil)
	k := []byte("k")
	for _, start := range []int64{10, 20, 95} {
		stores.PutWindow("w", k, start, []byte(fmt.Sprint(start)))
	}
	stores.DeleteWindow("w", k, 20)
	stores.PutWindow("w", k, 120, []byte("last"))
	r.got = append(r.got, stores.Window("w", k, 10) == nil, stores.Window("w", k, 20) == nil)
	r.got = append(r.got, string(stores.Window("w", k, 95)))
	windows := stores.WindowsOf("w", k, 0, 1000, Range{Reverse: true, Limit: 1})
	for _, window := range windows.Windows {
		r.got = append(r.got, window.Start, string(window.Value))
	}
	r.got = append(r.got, windows.More)
	return nil
}

func TestEntriesAndWindows(t *testing.T) {
	plugin := &ranging{}
	run, _ := NewStateRun(plugin, Config{}, TestStore{Name: "s"}, TestStore{"w", 100})
	if _, err := run.Give(at("k", "", 0)); err != nil {
		t.Fatal(err)
	}
	wanted := []any{"a/2=a/2 false", "b/1=b/1 a/2=a/2 false", true, true, true, true, "95", int64(120), "last", true}
	same(t, plugin.got, wanted)
}

type timing struct{}

func (timing) Configure(Config) error { return nil }
func (timing) Record(record Record, stores *Stores, timers *Timers, out *Out) error {
	timers.Set(StreamTime, record.Key(), record.Timestamp()+10)
	timers.Set(WallClock, record.Key(), timers.Clock()+10)
	if string(record.Value()) == "cancel" {
		timers.Cancel(WallClock, record.Key())
	}
	stores.Put("seen", record.Key(), record.Value())
	out.Keep(record)
	return nil
}
func (timing) Fire(timer Timer, stores *Stores, _ *Timers, emit *Emit) error {
	if string(timer.Name) == "bad" {
		return Reject("it is bad")
	}
	emit.RecordTo(1, timer.Name, stores.Get("seen", timer.Name), timer.At, Header{"h", nil})
	return nil
}

func TestTimersFireBeforeTheRecordThatBringsTheirTime(t *testing.T) {
	run, _ := NewTimerRun(timing{}, Config{}, TestStore{Name: "seen"})
	out, err := run.Give(at("a", "1", 0), at("b", "cancel", 5))
	same(t, values(t, out, err), []string{"1", "cancel"})
	out, err = run.Give(at("c", "3", 10))
	same(t, values(t, out, err), []string{"1", "3"})
	same(t, out[0], TestRecord{[]byte("a"), []byte("1"), 10, []Header{{"h", nil}}, 1})
	out, err = run.Tick(9)
	same(t, values(t, out, err), []string{})
	out, err = run.Tick(10)
	same(t, values(t, out, err), []string{"1", "3"})
	if due, set := run.Timer(StreamTime, "b"); due != 15 || !set {
		t.Fatal(due, set)
	}
	out, err = run.Give(at("bad", "", 11))
	same(t, values(t, out, err), []string{""})
	if _, err := run.Give(at("d", "", 30)); !reflect.DeepEqual(err, Rejected{{2, "it is bad"}}) {
		t.Fatal(err)
	}
	same(t, len(run.timers.due), 4)
}

type sum struct{}

func (sum) Configure(Config) error  { return nil }
func (sum) Create() ([]byte, error) { return []byte("0"), nil }
func (s sum) Add(value []byte, record Record) ([]byte, error) {
	if record.Value() == nil {
		return nil, Reject("there is no value")
	}
	return s.Merge(value, record.Value())
}
func (sum) Subtract(value []byte, record Record) ([]byte, error) {
	a, _ := strconv.Atoi(string(value))
	b, _ := strconv.Atoi(string(record.Value()))
	return []byte(strconv.Itoa(a - b)), nil
}
func (sum) Merge(value, other []byte) ([]byte, error) {
	a, _ := strconv.Atoi(string(value))
	b, _ := strconv.Atoi(string(other))
	return []byte(strconv.Itoa(a + b)), nil
}

type bare struct{}

func (bare) Configure(Config) error  { return nil }
func (bare) Create() ([]byte, error) { return nil, nil }
func (bare) Add(value []byte, record Record) ([]byte, error) {
	return append(value, record.Value()...), nil
}

func TestValuesOfGroups(t *testing.T) {
	run, _ := NewAggregateRun(sum{}, Config{})
	check := func(wanted string) func([]byte, error) {
		return func(value []byte, err error) {
			t.Helper()
			if err != nil || string(value) != wanted {
				t.Fatalf("%s, wanted %s: %v", value, wanted, err)
			}
		}
	}
	check("5")(run.Add("a", TestValue("5")))
	check("7")(run.Add("b", TestValue("7")))
	if _, err := run.Add("a", TestRecord{}); !reflect.DeepEqual(err, Rejected{{0, "there is no value"}}) {
		t.Fatal(err)
	}
	check("3")(run.Subtract("a", TestValue("2")))
	check("10")(run.Merge("a", "b"))
	other, _ := NewAggregateRun(bare{}, Config{})
	check("x")(other.Add("a", TestValue("x")))
	if _, err := other.Subtract("a", TestValue("x")); err == nil {
		t.Fatal("nothing can be taken out")
	}
}
