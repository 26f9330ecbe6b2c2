package pelton

import "maps"

// TestStore is a store of a plugin in a unit test.
type TestStore struct {
	Name string
	// Retention is how long a window is kept, in milliseconds; 0: it is a store of entries.
	Retention int64
}

// StateRun is a plugin with state, and its stores, which stay from batch to batch. A batch that fails leaves them as they were.
type StateRun struct {
	plugin StateTransform
	stores *memoryStores
}

// NewStateRun configures a plugin, with empty stores.
func NewStateRun(plugin StateTransform, config Config, stores ...TestStore) (*StateRun, error) {
	return &StateRun{plugin, newMemoryStores(stores)}, plugin.Configure(config)
}

// Give gives the records as one batch.
func (r *StateRun) Give(records ...TestRecord) ([]TestRecord, error) {
	batch, before := batchOf(records), r.stores.clone()
	output, err := processState(r.plugin, batch, r.stores)
	if err != nil {
		r.stores = before
		return nil, err
	}
	return expand(batch, output), nil
}

// Entry is the value of a key; nil if there is none.
func (r *StateRun) Entry(store, key string) []byte { return r.stores.of(store)[key] }

// TimerRun is a plugin with timers, its stores, its timers and the clock, which stands at 0. A call that fails leaves them as they
// were.
type TimerRun struct {
	plugin     TimerTransform
	stores     *memoryStores
	timers     *memoryTimers
	streamTime int64
}

// NewTimerRun configures a plugin, with empty stores.
func NewTimerRun(plugin TimerTransform, config Config, stores ...TestStore) (*TimerRun, error) {
	timers := &memoryTimers{due: map[timerPlace]int64{}}
	return &TimerRun{plugin, newMemoryStores(stores), timers, -1}, plugin.Configure(config)
}

// Give gives the records one by one, and has timers on stream time fire before those that bring it there. What comes out, in order.
func (r *TimerRun) Give(records ...TestRecord) ([]TestRecord, error) {
	var all []TestRecord
	for _, record := range records {
		r.streamTime = max(r.streamTime, record.Timestamp)
		fired, err := r.fire(StreamTime, r.streamTime)
		if err != nil {
			return nil, err
		}
		batch := batchOf([]TestRecord{record})
		kept, err := r.or(batch, func() (*Output, error) { return processTimers(r.plugin, batch, r.stores, r.timers) })
		if err != nil {
			return nil, err
		}
		all = append(append(all, fired...), kept...)
	}
	return all, nil
}

// Tick has the clock go on. What comes of timers on it that are due.
func (r *TimerRun) Tick(clock int64) ([]TestRecord, error) {
	r.timers.now = clock
	return r.fire(WallClock, clock)
}

// Timer is when a timer is due, and whether it is set.
func (r *TimerRun) Timer(domain TimerDomain, name string) (int64, bool) {
	at, found := r.timers.due[timerPlace{domain, name}]
	return at, found
}

// Entry is the value of a key of a store; nil if there is none.
func (r *TimerRun) Entry(store, key string) []byte { return r.stores.of(store)[key] }

func (r *TimerRun) fire(domain TimerDomain, now int64) ([]TestRecord, error) {
	return r.or(batchOf(nil), func() (*Output, error) {
		names, at := r.timers.take(domain, now)
		if len(at) == 0 {
			return &Output{}, nil
		}
		return fireTimers(r.plugin, dueTimers{domain, names, at}, r.stores, r.timers)
	})
}

// or leaves stores and timers as they were if a call fails.
func (r *TimerRun) or(batch *Batch, call func() (*Output, error)) ([]TestRecord, error) {
	stores, due := r.stores.clone(), maps.Clone(r.timers.due)
	output, err := call()
	if err != nil {
		r.stores, r.timers.due = stores, due
		return nil, err
	}
	return expand(batch, output), nil
}

// AggregateRun is an aggregator, and the value of each group.
type AggregateRun struct {
	plugin Aggregator
	values map[string][]byte
}

// NewAggregateRun configures an aggregator, without groups.
func NewAggregateRun(plugin Aggregator, config Config) (*AggregateRun, error) {
	return &AggregateRun{plugin, map[string][]byte{}}, plugin.Configure(config)
}

// Add adds a record to a group. Its value then.
func (r *AggregateRun) Add(group string, record TestRecord) ([]byte, error) {
	return r.fold(r.plugin.Add, group, record)
}

// Subtract takes a record out of a group. Its value then.
func (r *AggregateRun) Subtract(group string, record TestRecord) ([]byte, error) {
	return r.fold(subtracting(r.plugin), group, record)
}

// Merge has one group take in another one, which ends. Its value then.
func (r *AggregateRun) Merge(into, from string) ([]byte, error) {
	merged, err := mergeAll(r.plugin, column(r.values[into]), column(r.values[from]))
	if err != nil {
		return nil, err
	}
	delete(r.values, from)
	r.values[into] = merged.each()[0]
	return r.values[into], nil
}

func (r *AggregateRun) fold(change folding, group string, record TestRecord) ([]byte, error) {
	before, found := r.values[group]
	if !found {
		created, err := r.plugin.Create()
		if err != nil {
			return nil, err
		}
		before = created
	}
	record.Key = []byte(group)
	values, err := fold(column(notNil(before)), batchOf([]TestRecord{record}), []uint32{0}, change)
	if err != nil {
		return nil, err
	}
	r.values[group] = values.each()[0]
	return r.values[group], nil
}
