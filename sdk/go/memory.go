package pelton

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxEntries is how many entries a server gives at once.
const maxEntries = 10_000

// memoryStores are stores in memory, as a server has them: for unit tests.
type memoryStores struct {
	entries map[string]map[string][]byte
	windows map[string]*memoryWindows
}

type memoryWindows struct {
	retention, time int64
	values          map[windowPlace][]byte
}

type windowPlace struct {
	key   string
	start int64
}

func newMemoryStores(stores []TestStore) *memoryStores {
	m := &memoryStores{map[string]map[string][]byte{}, map[string]*memoryWindows{}}
	for _, store := range stores {
		if store.Retention == 0 {
			m.entries[store.Name] = map[string][]byte{}
		} else {
			m.windows[store.Name] = &memoryWindows{store.Retention, -1, map[windowPlace][]byte{}}
		}
	}
	return m
}

// clone is for going back to: a call that fails leaves stores as they were.
func (m *memoryStores) clone() *memoryStores {
	c := newMemoryStores(nil)
	for name, entries := range m.entries {
		c.entries[name] = maps.Clone(entries)
	}
	for name, windows := range m.windows {
		c.windows[name] = &memoryWindows{windows.retention, windows.time, maps.Clone(windows.values)}
	}
	return c
}

func (m *memoryStores) of(store string) map[string][]byte {
	entries, found := m.entries[store]
	if !found {
		panic(fmt.Sprintf("the node is not given a store `%s` of entries", store))
	}
	return entries
}

func (m *memoryStores) ofWindows(store string) *memoryWindows {
	windows, found := m.windows[store]
	if !found {
		panic(fmt.Sprintf("the node is not given a store `%s` of windows", store))
	}
	return windows
}

func (m *memoryStores) get(store string, keys Column) Column {
	var values Column
	for _, key := range keys.each() {
		values.push(m.of(store)[string(key)])
	}
	return values
}

func (m *memoryStores) put(store string, keys, values Column) {
	entries, contents := m.of(store), values.each()
	for i, key := range keys.each() {
		if key == nil {
			panic("no key is null")
		}
		if contents[i] == nil {
			delete(entries, string(key))
		} else {
			entries[string(key)] = slices.Clone(contents[i])
		}
	}
}

func (m *memoryStores) scan(store string, r Range) Entries {
	var found []Entry
	for _, key := range slices.Sorted(maps.Keys(m.of(store))) {
		wanted := key >= string(r.Start) && (r.End == nil || key < string(r.End))
		if r.Prefix != nil {
			wanted = strings.HasPrefix(key, string(r.Prefix))
		}
		if wanted {
			found = append(found, Entry{[]byte(key), m.of(store)[key]})
		}
	}
	page, more := pageOf(found, r)
	return Entries{page, more}
}

func (m *memoryStores) deleteRange(store string, start, end []byte, limit uint32) bool {
	found := m.scan(store, Range{Start: start, End: end, Limit: limit})
	for _, entry := range found.Entries {
		delete(m.of(store), string(entry.Key))
	}
	return found.More
}

func (w *memoryWindows) isKept(start int64) bool { return start+w.retention > w.time }

func (m *memoryStores) getWindows(store string, keys Column, starts []int64) Column {
	var values Column
	for i, key := range keys.each() {
		values.push(m.ofWindows(store).values[windowPlace{string(key), starts[i]}])
	}
	return values
}

func (m *memoryStores) putWindows(store string, keys Column, starts []int64, values Column) {
	windows, contents := m.ofWindows(store), values.each()
	for i, key := range keys.each() {
		place := windowPlace{string(key), starts[i]}
		if key == nil || place.start < 0 {
			panic(fmt.Sprintf("%d is no time for a window", place.start))
		}
		windows.time = max(windows.time, place.start)
		if !windows.isKept(place.start) {
			continue
		}
		if contents[i] == nil {
			delete(windows.values, place)
		} else {
			windows.values[place] = slices.Clone(contents[i])
		}
	}
	maps.DeleteFunc(windows.values, func(place windowPlace, _ []byte) bool { return !windows.isKept(place.start) })
}

func (m *memoryStores) windowsOf(store string, key []byte, first, last int64, r Range) Windows {
	var found []Window
	for place, value := range m.ofWindows(store).values {
		if place.key == string(key) && place.start >= first && place.start <= last {
			found = append(found, Window{place.start, value})
		}
	}
	slices.SortFunc(found, func(a, b Window) int { return int(a.Start - b.Start) })
	page, more := pageOf(found, r)
	return Windows{page, more}
}

func pageOf[T any](found []T, r Range) ([]T, bool) {
	if r.Reverse {
		slices.Reverse(found)
	}
	limit := int(min(r.limit(), maxEntries))
	return found[:min(limit, len(found))], len(found) > limit
}

// memoryTimers are timers in memory, and the clock.
type memoryTimers struct {
	due map[timerPlace]int64
	now int64
}

type timerPlace struct {
	domain TimerDomain
	name   string
}

func (m *memoryTimers) set(domain TimerDomain, names Column, at []int64) {
	for i, name := range names.each() {
		if at[i] < 0 {
			panic(fmt.Sprintf("%d is no time for a timer", at[i]))
		}
		m.due[timerPlace{domain, string(name)}] = at[i]
	}
}

func (m *memoryTimers) cancel(domain TimerDomain, names Column) {
	for _, name := range names.each() {
		delete(m.due, timerPlace{domain, string(name)})
	}
}

func (m *memoryTimers) clock() int64 { return m.now }

// take gives those that are due, in order. They are not set any more.
func (m *memoryTimers) take(domain TimerDomain, now int64) (names Column, at []int64) {
	var due []timerPlace
	for place, at := range m.due {
		if place.domain == domain && at <= now {
			due = append(due, place)
		}
	}
	slices.SortFunc(due, func(a, b timerPlace) int {
		if m.due[a] != m.due[b] {
			return int(m.due[a] - m.due[b])
		}
		return strings.Compare(a.name, b.name)
	})
	for _, place := range due {
		names.push([]byte(place.name))
		at = append(at, m.due[place])
		delete(m.due, place)
	}
	return names, at
}
