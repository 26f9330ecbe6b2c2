//! Tasks with built-in operators: whole pipelines against text tables, each once as it is and then in many ways that must not
//! matter: reads of all sizes, commits, restarts from the changelog, transactions that are aborted.

use std::collections::BTreeMap as Map;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::operator::key::tag;
use crate::operator::testing::row;
use crate::sink::Emitted;
use crate::state::{Blob, ChangelogPosition, MemoryState, StateBatch, StateLimits};

/// Other ways that each pipeline runs in.
const WAYS: u64 = 60;

/// Records of topics, as `key=value@time`.
pub(super) type Inputs<'i> = [(&'i str, &'i [&'i str])];

/// What topics took, as `topic: key=value@time`; refuses values with `big` in them.
#[derive(Default)]
pub(super) struct Topics {
    names: Vec<String>,
    pub(super) taken: Vec<String>,
}

impl Sink for Topics {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let text = |field: Option<&[u8]>, none: &str| {
            field.map_or(none.to_owned(), |bytes| bytes.escape_ascii().to_string().replace("\\\"", "\""))
        };
        let shown: Vec<String> = records
            .iter()
            .map(|Emitted { output, record, .. }| {
                let (key, value) = (text(record.key, "-"), text(record.value, "~"));
                format!("{}: {key}={value}@{}", self.names[output], record.timestamp)
            })
            .collect();
        let why = Refusal::TooLarge { bytes: 3, codec: "none", max: 2 };
        let big = shown.iter().enumerate().filter(|(_, one)| one.contains("big") && !one.starts_with("dead"));
        let refused: Vec<Refused> = big.map(|(index, _)| Refused { index, why: why.clone() }).collect();
        if refused.is_empty() {
            self.taken.extend(shown);
            return Ok(());
        }
        Err(refused)
    }
}

/// What changelogs say when they are replayed.
struct Changelogs<'l> {
    topology: &'l Topology,
    logs: &'l mut Vec<Map<Blob, Blob>>,
}

impl Sink for Changelogs<'_> {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let stores = &self.topology.sub_topologies[0].graph.as_ref().unwrap().stores;
        for Emitted { output, partition, record } in records.iter() {
            assert_eq!((partition, record.timestamp), (0, -1));
            let log = stores.iter().position(|store| store.changelog == output).unwrap();
            let key = Blob::from(record.key.unwrap());
            match record.value {
                Some(value) => self.logs[log].insert(key, Blob::from(value)),
                None => self.logs[log].remove(&key),
            };
        }
        Ok(())
    }
}

/// A task with its topics and its changelogs.
pub(super) struct Lab<'i> {
    topology: Arc<Topology>,
    inputs: &'i Inputs<'i>,
    pub(super) task: Task,
    plugins: Plugins,
    pub(super) topics: Topics,
    pub(super) changelogs: Vec<Map<Blob, Blob>>,
    next: Vec<usize>,
    /// What is committed: next records, and how many outputs.
    pub(super) committed: (Vec<usize>, usize),
    notices: Vec<String>,
    /// What closes, and fires, in one pass.
    pub(super) at_once: usize,
    /// What it is in random runs.
    sizes: &'static [usize],
}

/// All that there is, and less than there is.
const SIZES: &[usize] = &[CLOSED_AT_ONCE, 1, 2, 3];

pub(super) fn linked(manifest: &str) -> Arc<Topology> {
    Arc::new(topology(&format!("name='p'\n{manifest}")))
}

impl<'i> Lab<'i> {
    pub(super) fn new(topology: &Arc<Topology>, inputs: &'i Inputs<'i>) -> Lab<'i> {
        let stores = topology.sub_topologies[0].graph.as_ref().map_or(0, |graph| graph.stores.len());
        let changelogs = vec![Map::new(); stores];
        let mut plugins = Plugins::default();
        for (index, node) in topology.nodes.iter().enumerate() {
            let plugin: Box<dyn Plugin> = if node.has_timers {
                Box::new(timers::Quiet::default())
            } else if node.stores.is_empty() {
                Box::new(Script { calls: Arc::default(), was_late: true })
            } else {
                Box::new(keeps::Keeper)
            };
            plugins.set(index, plugin);
        }
        let names = topology.outputs.iter().map(|output| output.topic.clone()).collect();
        let next = vec![0; topology.sources.len()];
        Lab {
            task: task(topology, &changelogs, CLOSED_AT_ONCE),
            at_once: CLOSED_AT_ONCE,
            sizes: SIZES,
            topology: Arc::clone(topology),
            inputs,
            plugins,
            topics: Topics { names, taken: Vec::new() },
            changelogs,
            committed: (next.clone(), 0),
            next,
            notices: Vec::new(),
        }
    }

    fn records(&self, source: usize) -> &'i [&'i str] {
        let topic = &self.topology.sources[source].topic;
        self.inputs.iter().find(|(name, _)| name == topic).map_or(&[], |(_, records)| *records)
    }

    /// One step with up to so many records of each source. False: there is nothing to do.
    pub(super) fn step(&mut self, most: &mut dyn FnMut() -> usize) -> Result<bool, String> {
        let mut batches = Vec::new();
        for source in 0..self.topology.sources.len() {
            let (records, from) = (self.records(source), self.next[source]);
            let to = records.len().min(from + most());
            let mut batch = OwnedBatch::new(&self.topology.sources[source].topic, 0);
            for (offset, text) in (from..).zip(&records[from..to]) {
                let row = row(text);
                let (offset, timestamp, headers) = (offset as i64, row.timestamp, Headers::default());
                let (key, value) = (row.key.as_deref(), row.value.as_deref());
                batch.push(RecordIn { offset, timestamp, key, value, headers }, [].into_iter()).unwrap();
            }
            batches.push((source, batch, to, to < records.len()));
        }
        let inputs: Vec<TaskInput<'_>> = batches
            .iter()
            .filter(|(_, batch, ..)| !batch.is_empty())
            .map(|(source, batch, to, more)| TaskInput {
                source: *source,
                batch: batch.as_batch(),
                end_offset: *to as i64,
                more: *more,
            })
            .collect();
        if inputs.is_empty() && !self.task.is_behind().unwrap() {
            return Ok(false);
        }
        let mut outside = Outside {
            plugins: &mut self.plugins,
            sink: &mut self.topics,
            globals: &NoTables,
            interrupted: &|| false,
        };
        match self.task.process(&inputs, &mut outside) {
            Ok(output) => {
                for (source, next) in output.positions {
                    self.next[source] = next as usize;
                }
                let shown = |notice: &Notice| format!("{:?} {}", notice.kind, notice.failure);
                self.notices.extend(output.notices.iter().map(shown));
                Ok(true)
            }
            Err(StepError::Failed(failure)) => Err(failure.to_string()),
            Err(StepError::Retry { .. }) => panic!("nothing is tried again"),
        }
    }

    /// The clock goes on.
    pub(super) fn tick(&mut self, now_ms: i64) -> Result<Vec<String>, String> {
        self.task.set_clock(now_ms);
        if self.task.next_tick().unwrap().is_none_or(|next| next > now_ms) {
            return Ok(Vec::new());
        }
        let mut outside = Outside {
            plugins: &mut self.plugins,
            sink: &mut self.topics,
            globals: &NoTables,
            interrupted: &|| false,
        };
        match self.task.tick(&mut outside) {
            Ok(output) => {
                assert_eq!(output.positions, []);
                let shown = |notice: &Notice| format!("{:?} {}", notice.kind, notice.failure);
                Ok(output.notices.iter().map(shown).collect())
            }
            Err(StepError::Failed(failure)) => Err(failure.to_string()),
            Err(StepError::Retry { .. }) => panic!("nothing is tried again"),
        }
    }

    pub(super) fn commit(&mut self, apply: bool) {
        let mut sink = Changelogs { topology: &self.topology, logs: &mut self.changelogs };
        self.task.end_transaction(&mut sink).unwrap();
        let stores = self.task.stores().unwrap();
        let position = vec![ChangelogPosition::default(); self.changelogs.len()];
        if apply && let Some(batch) = stores.take_changes(position) {
            stores.apply(batch).unwrap();
        }
        self.committed = (self.next.clone(), self.topics.taken.len());
    }

    /// The transaction is aborted: a new task begins with what is committed.
    pub(super) fn abort(&mut self) {
        self.next.clone_from(&self.committed.0);
        self.topics.taken.truncate(self.committed.1);
        self.task = task(&self.topology, &self.changelogs, self.at_once);
    }

    pub(super) fn run(&mut self, random: Option<u64>) -> Result<(), String> {
        let mut random = random.map(SmallRng::seed_from_u64);
        if let Some(random) = &mut random {
            self.at_once = self.sizes[random.random_range(0..self.sizes.len())];
            self.abort();
        }
        let mut most = {
            let mut sizes = random.clone();
            move || sizes.as_mut().map_or(usize::MAX / 2, |random| random.random_range(1..6))
        };
        while self.step(&mut most)? {
            match random.as_mut().map_or(9, |random| random.random_range(0..6)) {
                0 => self.abort(),
                1 => self.commit(true),
                2 => self.commit(false),
                3 => {
                    self.commit(true);
                    self.abort();
                }
                _ => {}
            }
        }
        self.commit(true);
        Ok(())
    }
}

fn task(topology: &Arc<Topology>, changelogs: &[Map<Blob, Blob>], at_once: usize) -> Task {
    let partitions = vec![1; topology.outputs.len()];
    let task = Task::new(TaskId { sub_topology: 0, partition: 0 }, Arc::clone(topology), &partitions);
    let mut backend = MemoryState::new(changelogs.len());
    let all = |log: &Map<Blob, Blob>| log.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
    let position = vec![ChangelogPosition::default(); changelogs.len()];
    let batch = StateBatch { changes: changelogs.iter().map(all).collect(), position };
    crate::state::StateBackend::restore(&mut backend, batch).unwrap();
    let limits = StateLimits { cache_bytes: 1_000, ..StateLimits::default() };
    task.with_stores(Box::new(backend), limits).closing_at_once(at_once)
}

/// What a pipeline writes, in every way.
pub(super) fn check(manifest: &str, inputs: &Inputs<'_>, expect: &[&str]) -> Vec<String> {
    check_with(SIZES, manifest, inputs, expect)
}

/// The same with so much that closes, or fires, in one pass.
pub(super) fn check_with(
    sizes: &'static [usize],
    manifest: &str,
    inputs: &Inputs<'_>,
    expect: &[&str],
) -> Vec<String> {
    let topology = linked(manifest);
    let mut lab = Lab::new(&topology, inputs);
    lab.run(None).unwrap();
    assert_eq!(lab.topics.taken, expect, "{manifest}");
    let sort = |mut taken: Vec<String>| {
        taken.sort();
        taken
    };
    for seed in 0..WAYS {
        let mut other = Lab { sizes, ..Lab::new(&topology, inputs) };
        other.run(Some(seed)).unwrap();
        // Records of one topic come in one order; those of several topics go into them step by step.
        let topics = |all: &[String]| {
            let mut by_topic: Map<String, Vec<String>> = Map::new();
            for one in all {
                let topic = one.split_once(": ").unwrap().0.to_owned();
                by_topic.entry(topic).or_default().push(one.clone());
            }
            by_topic
        };
        assert_eq!(topics(&other.topics.taken), topics(&lab.topics.taken), "seed {seed} of {manifest}");
        assert_eq!(sort(other.topics.taken.clone()), sort(lab.topics.taken.clone()));
        let kept = |lab: &Lab<'_>| lab.changelogs.iter().map(without_rounds).collect::<Vec<_>>();
        assert_eq!(kept(&other), kept(&lab), "seed {seed} of {manifest}");
    }
    lab.notices
}

/// The number of the last round of timers that did not fire at once says how much fires at once, and nothing else.
fn without_rounds(log: &Map<Blob, Blob>) -> Map<Blob, Blob> {
    let entries = log.iter().filter(|(key, _)| ***key != [tag::BACKLOG]);
    let entries = entries.map(|(key, value)| match key.first() {
        Some(&tag::TIMER) => (Blob::clone(key), Blob::from(&[][..])),
        _ => (Blob::clone(key), Blob::clone(value)),
    });
    entries.collect()
}

mod native;

const COUNT: &str = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\naggregate='count'\n\
                     on_error={policy='skip'}\n[[sink]]\nfrom='n'\ntopic='out'\n";

#[test]
fn records_are_counted_by_key_and_once() {
    let rows = ["a=x@1", "b=x@2", "a=x@3", "-=x@4", "a=~@5", "b=x@1", "a=x@9"];
    let expect = ["out: a=1@1", "out: b=1@2", "out: a=2@3", "out: b=2@2", "out: a=3@9"];
    check(COUNT, &[("in", &rows)], &expect);
}

/// `on-close`: a final result comes once, at the record that closes its window; late records go where they should.
#[test]
fn windows_close_once_whatever_happens_between() {
    let manifest = "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\ngroup_by='json:k'\n\
        window={tumbling='10ms',grace='5ms',emit='on-close',late='emit'}\naggregate={n='count',sum='sum:json:v'}\n\
        [[sink]]\nfrom='n'\ntopic='out'\n[[sink]]\nfrom='n:late'\ntopic='late'\n";
    let rows = [
        r#"-={"k":"a","v":1}@1"#,
        r#"-={"k":"b","v":2}@12"#,
        r#"-={"k":"a","v":5}@9"#,
        r#"-={"v":7}@3"#,
        r#"-={"k":"b","v":1}@15"#,
        r#"-={"k":"a","v":100}@2"#,
        r#"-={"k":"a","v":3}@40"#,
    ];
    let expect = [
        r#"out: a\x00\x00\x00\x00\x00\x00\x00\x00={"n":2,"sum":6}@9"#,
        r#"out: b\x00\x00\x00\x00\x00\x00\x00\n={"n":2,"sum":3}@15"#,
        r#"late: a={"k":"a","v":100}@2"#,
    ];
    check(manifest, &[("in", &rows)], &expect);
}

/// The time of records is a field, and the order of two topics is that of their times, whatever is read at once.
#[test]
fn two_streams_meet_in_the_order_of_time() {
    let manifest = "[[source]]\nid='l'\ntopic='left'\ntime='json:t'\n[[source]]\nid='r'\ntopic='right'\n\
        [[node]]\nid='j'\nfrom='l'\njoin={with='r',kind='left',within='10ms',left='l',right='r'}\n\
        [[sink]]\nfrom='j'\ntopic='out'\n";
    let left =
        [r#"a={"t":0}@99"#, r#"b={"t":5}@99"#, r#"a={"t":50}@99"#, r#"a={"t":"soon"}@99"#, r#"c={"t":90}@1"#];
    let right = ["a=1@3", "a=2@20", "b=3@20", "a=4@45", "z=5@95"];
    let expect = [
        r#"out: a={"l":{"t":0},"r":1}@3"#,
        r#"out: b={"l":{"t":5},"r":null}@5"#,
        r#"out: a={"l":{"t":50},"r":4}@50"#,
    ];
    check(manifest, &[("left", &left), ("right", &right)], &expect);
}

#[test]
fn a_stream_finds_what_the_table_says_at_its_time() {
    let manifest = "[[source]]\nid='s'\ntopic='s'\n[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='j'\nfrom='s'\n\
        join={with='t',kind='left',left='s'}\n[[sink]]\nfrom='j'\ntopic='out'\n";
    let stream = ["a=1@1", "a=2@5", "b=3@5", "a=4@9"];
    let table = ["a=10@2", "b=20@5", "a=~@7"];
    let expect = [
        r#"out: a={"s":1,"t":null}@1"#,
        r#"out: a={"s":2,"t":10}@5"#,
        r#"out: b={"s":3,"t":null}@5"#,
        r#"out: a={"s":4,"t":null}@9"#,
    ];
    check(manifest, &[("s", &stream), ("t", &table)], &expect);
}

/// What a row of a table replaces leaves its group; the groups are a table, which is counted again.
#[test]
fn a_table_is_grouped_and_its_groups_are_joined() {
    let manifest = "[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='by'\nfrom='t'\ngroup_by='json:g'\n\
        aggregate={n='count',top='max:json:v'}\n\
        [[node]]\nid='sizes'\nfrom='by'\ngroup_by='json:n'\naggregate='count'\n\
        [[sink]]\nfrom='by'\ntopic='groups'\n[[sink]]\nfrom='sizes'\ntopic='sizes'\n";
    let rows =
        [r#"a={"g":"x","v":5}@1"#, r#"b={"g":"x","v":9}@2"#, r#"b={"g":"y","v":1}@3"#, "a=~@4", "c=~@5"];
    let expect = [
        r#"groups: x={"n":1,"top":5}@1"#,
        r#"groups: x={"n":2,"top":9}@2"#,
        r#"groups: x={"n":1,"top":5}@3"#,
        r#"groups: y={"n":1,"top":1}@3"#,
        "groups: x=~@4",
        "sizes: 1=1@1",
        "sizes: 1=~@2",
        "sizes: 2=1@2",
        "sizes: 2=~@3",
        "sizes: 1=1@3",
        "sizes: 1=2@3",
        "sizes: 1=1@4",
    ];
    check(manifest, &[("t", &rows)], &expect);
}

/// Plugins and operators in one pipeline, streams that part and meet again, and what is left out of one branch alone.
#[test]
fn plugins_and_operators_follow_each_other() {
    let manifest = "[[source]]\nid='in'\ntopic='in'\n\
        [[node]]\nid='p'\nfrom='in'\nplugin='p'\nkeeps_key=true\non_error={policy='dead-letter',topic='dead'}\n\
        [[node]]\nid='both'\nfrom=['in','p:late','p']\n\
        [[node]]\nid='n'\nfrom='both'\naggregate='count'\n\
        [[node]]\nid='q'\nfrom='n'\nplugin='p'\n\
        [[sink]]\nfrom='q'\ntopic='out'\n[[sink]]\nfrom='in'\ntopic='copy'\n";
    let rows = ["a=x@1", "a=>late@2", "b=reject@3", "a=drop@4", "b=y@5"];
    let expect = [
        "copy: a=x@1",
        "copy: a=>late@2",
        "copy: b=reject@3",
        "copy: a=drop@4",
        "copy: b=y@5",
        "out: a=1@1",
        "out: a=2@1",
        "out: a=3@2",
        "out: a=4@2",
        "out: b=1@3",
        "out: a=5@4",
        "out: b=2@5",
        "out: b=3@5",
        "dead: b=reject@3",
    ];
    // `2` and `2big` are words of the plugin: it repeats them.
    let expect: Vec<String> =
        expect.iter().flat_map(|one| vec![one.to_string(); 1 + usize::from(one.contains("=2@"))]).collect();
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    check(manifest, &[("in", &rows)], &expect);
}

/// A record that an operator cannot read, or whose result no topic takes, has changed nothing.
#[test]
fn what_fails_or_is_refused_is_not_counted() {
    let manifest = |on_error: &str| {
        format!(
            "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\n\
             aggregate={{last='last:json:v',n='count'}}\non_error={on_error}\n[[sink]]\nfrom='n'\ntopic='out'\n"
        )
    };
    let rows = [r#"a={"v":1}@1"#, "a=no json@2", r#"a={"v":"big"}@3"#, r#"a={"v":[]}@4"#, r#"a={"v":2}@5"#];
    let expect = [r#"out: a={"last":1,"n":1}@1"#, r#"out: a={"last":2,"n":2}@5"#];
    let notices = check(&manifest("{policy='skip'}"), &[("in", &rows)], &expect);
    assert_eq!(notices.len(), 3);
    assert!(
        notices[0]
            .starts_with("Skipped node `n` failed at topic in, partition 0, offset 1: the value is not JSON")
    );
    let letters = ["dead: a=no json@2", "dead: a={\"v\":\"big\"}@3", "dead: a={\"v\":[]}@4"];
    let expect = [expect.as_slice(), letters.as_slice()].concat();
    check(&manifest("{policy='dead-letter',topic='dead'}"), &[("in", &rows)], &expect);

    let topology = linked(&manifest("{policy='fail'}"));
    let inputs = [("in", &rows[..])];
    let mut lab = Lab::new(&topology, &inputs);
    let failure = lab.run(None).unwrap_err();
    assert!(failure.starts_with("node `n` failed at topic in, partition 0, offset 1: "), "{failure}");
    lab.commit(true);
    assert_eq!((lab.topics.taken.len(), lab.next[0], lab.changelogs[0].len()), (1, 1, 1));
}

/// A row of a table that cannot be grouped is no row of it: the next one replaces the one before it.
#[test]
fn a_row_that_cannot_be_grouped_does_not_stand_in_the_way() {
    let manifest = "[[table]]\nid='t'\ntopic='t'\n[[node]]\nid='by'\nfrom='t'\ngroup_by='json:g'\naggregate='count'\n\
        on_error={policy='skip'}\n[[sink]]\nfrom='by'\ntopic='groups'\n";
    let rows = [r#"a={"g":"x"}@1"#, "a=no json@2", r#"a={"g":"y"}@3"#, "a=no json@4", "a=~@5"];
    let expect = ["groups: x=1@1", "groups: x=~@3", "groups: y=1@3", "groups: y=~@5"];
    let notices = check(manifest, &[("t", &rows)], &expect);
    assert_eq!(notices.len(), 2, "{notices:?}");
}

#[test]
fn what_operators_drop_is_counted_and_not_twice() {
    let rows = ["a=x@1", "-=x@2", "a=~@3", "-=x@4"];
    let inputs = [("in", &rows[..])];
    let mut lab = Lab::new(&linked(COUNT), &inputs);
    lab.run(None).unwrap();
    let counts = Counts { null_key: 2, null_value: 1, ..Counts::default() };
    assert_eq!(lab.task.take_dropped(), [(0, counts)]);
    assert_eq!(lab.task.take_dropped(), []);
}

/// Notes how many bytes and records it was given at a time.
struct Measuring(Script, Arc<Mutex<Vec<(usize, usize)>>>);

impl Plugin for Measuring {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        self.1.lock().expect("not poisoned").push((batch.data.len(), batch.len()));
        self.0.process(batch)
    }
}

/// Each part of a batch that comes between records of another source is copied to whoever is given it.
#[test]
fn a_part_of_a_batch_has_no_bytes_of_the_rest() {
    let manifest = "[[source]]\nid='l'\ntopic='left'\n[[source]]\nid='r'\ntopic='right'\n\
        [[node]]\nid='p'\nfrom='l'\nplugin='p'\nkeeps_key=true\n\
        [[node]]\nid='both'\nfrom=['p','r']\n[[node]]\nid='n'\nfrom='both'\naggregate='count'\n\
        [[sink]]\nfrom='n'\ntopic='out'\n";
    let records = |side: usize| (0..40).map(|n| format!("k=value@{}", 2 * n + side)).collect::<Vec<_>>();
    let (left, right) = (records(0), records(1));
    let [left, right] =
        [&left, &right].map(|records| records.iter().map(String::as_str).collect::<Vec<&str>>());
    let inputs: [(&str, &[&str]); 2] = [("left", &left), ("right", &right)];
    let mut lab = Lab::new(&linked(manifest), &inputs);
    let met: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    let script = Script { calls: Arc::default(), was_late: true };
    lab.plugins.set(0, Box::new(Measuring(script, Arc::clone(&met))));
    lab.run(None).unwrap();
    assert_eq!(lab.topics.taken.len(), 80);
    assert_eq!(*met.lock().unwrap(), [("kvalue".len(), 1); 40]);
}

/// A step ends where an input has more to read than it was given: its next record may be the earliest.
#[test]
fn the_order_of_inputs() {
    let batch = |times: &[i64]| {
        let mut batch = OwnedBatch::new("t", 0);
        for (offset, &timestamp) in (10..).zip(times) {
            let record = RecordIn { offset, timestamp, key: None, value: None, headers: Headers::default() };
            let header = [(&b"h"[..], None)];
            batch.push(record, header.into_iter().take(offset as usize % 2)).unwrap();
        }
        batch
    };
    let runs = |left: (&[i64], bool), right: (&[i64], bool)| {
        let batches = [batch(left.0), batch(right.0)];
        let inputs = [left.1, right.1].into_iter().zip(&batches).enumerate();
        let inputs = inputs.map(|(source, (more, batch))| TaskInput {
            source,
            batch: batch.as_batch(),
            end_offset: 99,
            more,
        });
        let mut runs = order::Runs::new(inputs, Order::Time);
        let mut shown = Vec::new();
        while let Some(run) = runs.next() {
            let records = run.batch.records();
            let records =
                records.map(|record| format!("{}{}", record.timestamp, "h".repeat(record.headers.len())));
            let name = ["l", "r"][run.source];
            shown.push(format!("{name}[{}]<{}", records.collect::<Vec<_>>().join(" "), run.end_offset));
        }
        shown.join(" ")
    };
    let all = runs((&[1, 2, 9], false), (&[2, 3, 4, 20], false));
    assert_eq!(all, "l[1 2h]<12 r[2 3h 4]<13 l[9]<99 r[20h]<99");
    assert_eq!(runs((&[1, 2], true), (&[2, 3], false)), "l[1 2h]<99");
    assert_eq!(runs((&[1, 7], false), (&[2, 3], true)), "l[1]<11 r[2 3h]<99");
    assert_eq!(runs((&[5, -1, 6], false), (&[5], false)), "l[5 -1h]<12 r[5]<99 l[6]<99");
}

/// Partitions of an intake are read in the order of their offsets, as far as it is known.
#[test]
fn the_order_of_offsets() {
    let runs = |all: [(&[i64], bool); 3]| {
        let batches = all.map(|(offsets, _)| {
            let mut batch = OwnedBatch::new("t", 0);
            for &offset in offsets {
                // Times say nothing.
                let timestamp = 100 - offset;
                let record =
                    RecordIn { offset, timestamp, key: None, value: None, headers: Headers::default() };
                batch.push(record, std::iter::empty()).unwrap();
            }
            batch
        });
        let inputs = all.into_iter().zip(&batches).enumerate().map(|(source, ((_, more), batch))| {
            TaskInput { source, batch: batch.as_batch(), end_offset: 99, more }
        });
        let mut runs = order::Runs::new(inputs, Order::Offset);
        let mut shown = Vec::new();
        while let Some(run) = runs.next() {
            shown.push(format!("{}{:?}<{}", run.source, run.batch.offsets, run.end_offset));
        }
        shown.join(" ")
    };
    let all = runs([(&[1, 2, 9], false), (&[3, 4, 20], false), (&[], false)]);
    assert_eq!(all, "0[1, 2]<9 1[3, 4]<20 0[9]<99 1[20]<99");
    let held = runs([(&[1, 2, 9], false), (&[3], true), (&[5], false)]);
    assert_eq!(held, "0[1, 2]<9 1[3]<99", "what comes next of 1 may belong before 5");
    assert_eq!(runs([(&[7], false), (&[], true), (&[5], false)]), "");
}
