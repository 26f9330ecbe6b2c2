//! Tasks with state, and with several inputs.

use super::*;

/// A number that each record adds to, as a store would be written to.
#[derive(Default)]
struct Written {
    now: Vec<String>,
    savepoint: Option<usize>,
}

#[derive(Clone, Default)]
struct State(Arc<Mutex<Written>>);

impl Savepoints for State {
    fn begin(&mut self) {
        let mut written = self.0.lock().expect("not poisoned");
        assert_eq!(written.savepoint, None, "savepoints are not nested");
        written.savepoint = Some(written.now.len());
    }

    fn keep(&mut self) {
        self.0.lock().expect("not poisoned").savepoint = None;
    }

    fn undo(&mut self) {
        let mut written = self.0.lock().expect("not poisoned");
        let before = written.savepoint.take().expect("undo follows a savepoint");
        written.now.truncate(before);
    }
}

/// Writes each value to the state, and fails at `bad`.
struct Writer(State);

impl Plugin for Writer {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        let mut source = Vec::new();
        for (i, record) in (0..).zip(batch.records()) {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            if value == "bad" {
                return Err(PluginError::Trapped { trap: "unreachable".into(), said: None });
            }
            self.0.0.lock().expect("not poisoned").now.push(value);
            source.push(i);
        }
        Ok(BatchOut { source, ..BatchOut::default() })
    }
}

/// Refuses values with `big` in them.
struct SmallAlone(Vec<String>);

impl Sink for SmallAlone {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let value =
            |record: RecordIn<'_>| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        let values: Vec<String> = records.iter().map(|emitted| value(emitted.record)).collect();
        let big = values.iter().enumerate().filter(|(_, value)| value.contains("big"));
        let why = Refusal::TooLarge { bytes: 3, codec: "none", max: 2 };
        let refused: Vec<Refused> = big.map(|(index, _)| Refused { index, why: why.clone() }).collect();
        if refused.is_empty() {
            self.0.extend(values);
            return Ok(());
        }
        Err(refused)
    }
}

fn batch_of(topic: &str, values: &str) -> OwnedBatch {
    let mut batch = OwnedBatch::new(topic, 0);
    for (offset, record) in (0..).zip(records(values)) {
        let value = record.value.as_deref();
        let parts = RecordIn { offset, timestamp: 1, key: None, value, headers: Headers::default() };
        batch.push(parts, std::iter::empty()).expect("is small");
    }
    batch
}

#[test]
fn the_state_has_what_is_emitted_whatever_fails_or_is_refused() {
    for (on_error, values, expect) in [
        ("{ policy = 'skip' }", "a bad b big c", "a b c"),
        ("{ policy = 'skip' }", "bad big bad", ""),
        ("{ policy = 'fail' }", "a b big c", "a b"),
        ("{ policy = 'fail' }", "a b c bad", "a b c"),
    ] {
        let topology = Arc::new(topology(&one_node(on_error)));
        let state = State::default();
        let mut plugins = Plugins::default();
        plugins.set(0, Box::new(Writer(state.clone())));
        let partitions = vec![1; topology.outputs.len()];
        let task = Task::new(TaskId { sub_topology: 0, partition: 0 }, topology, &partitions);
        let mut task = task.with_state(Box::new(state.clone()));
        let mut sink = SmallAlone(Vec::new());
        let batch = batch_of("in", values);
        let end_offset = batch.as_batch().len() as i64;
        let input = TaskInput { source: 0, batch: batch.as_batch(), end_offset, more: false };
        let mut outside =
            Outside { plugins: &mut plugins, sink: &mut sink, globals: &NoTables, interrupted: &|| false };
        task.process(&[input], &mut outside).expect("some of it is done");
        let written = std::mem::take(&mut *state.0.lock().expect("not poisoned"));
        assert_eq!(
            (written.now.join(" "), written.savepoint),
            (expect.to_owned(), None),
            "{on_error} {values}"
        );
        assert_eq!(sink.0, written.now, "{on_error} {values}");
    }
}

/// Two sources of one task, as a join has them: the step ends at the first that cannot go on.
#[test]
fn a_step_takes_several_inputs_and_answers_a_position_for_each() {
    let manifest = "name='p'\nguarantee='at-least-once'\n[[source]]\nid='l'\ntopic='left'\n[[source]]\nid='r'\ntopic='right'\n\
        [[node]]\nid='a'\nfrom='l'\nplugin='p'\n[[node]]\nid='b'\nfrom='r'\nplugin='p'\n\
        [[sink]]\nfrom='a'\ntopic='x'\n[[sink]]\nfrom='b'\ntopic='y'";
    let mut topology = topology(manifest);
    assert_eq!(topology.sub_topologies.len(), 2, "nothing joins them yet");
    topology.sub_topologies = vec![SubTopology { sources: vec![0, 1], ..SubTopology::default() }];
    let topology = Arc::new(topology);
    let run = |left: &str, right: &str| {
        let mut plugins = Plugins::default();
        plugins.set(0, Box::new(Writer(State::default())));
        plugins.set(1, Box::new(Writer(State::default())));
        let mut task = Task::new(TaskId { sub_topology: 0, partition: 0 }, Arc::clone(&topology), &[1, 1]);
        let (left, right) = (batch_of("left", left), batch_of("right", right));
        let mut sink = SmallAlone(Vec::new());
        let mut step = |from: [usize; 2]| {
            let rest = [&left, &right].map(|batch| batch.as_batch());
            let rest = [0, 1].map(|i| OwnedBatch::select(rest[i], |n| n >= from[i]).expect("is small"));
            let inputs = [0, 1].map(|source| TaskInput {
                source,
                batch: rest[source].as_batch(),
                end_offset: [&left, &right][source].as_batch().len() as i64,
                more: false,
            });
            let mut outside = Outside {
                plugins: &mut plugins,
                sink: &mut sink,
                globals: &NoTables,
                interrupted: &|| false,
            };
            task.process(&inputs, &mut outside).map(|out| out.positions)
        };
        let steps = (step([0, 0]), step([2, 0]));
        (steps, sink.0.join(" "))
    };
    let (steps, written) = run("a b", "c d e");
    assert_eq!((steps.0.expect("is fine"), written.as_str()), (vec![(0, 2), (1, 3)], "a b c d e c d e"));
    let (steps, written) = run("a b", "bad d e");
    assert_eq!((steps.0.expect("the left is done"), written.as_str()), (vec![(0, 2)], "a b"));
    let Err(StepError::Failed(failure)) = steps.1 else { panic!("the right is bad") };
    assert_eq!((failure.topic.as_str(), failure.offset), ("right", 0));
    let (steps, written) = run("a bad", "c d");
    let expect = (vec![(0, 1)], "a c d");
    assert_eq!(
        (steps.0.expect("some is done"), written.as_str()),
        expect,
        "the right comes with the next step"
    );
}
