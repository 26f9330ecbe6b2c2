//! Operators against Kafka Streams: random topologies with random inputs go through both, and what each input triggers
//! must be the same. Where it is meant to differ is in `runtime/streams/OPERATORS.md`, and nothing else is allowed for.
//!
//! `./run test kafka_streams` installs what it needs. PELTON_CASES says how many cases, PELTON_SEED which is the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::state::{MemoryState, StateBackend, StoreSpec};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use case::{Case, Match};
use differences::{JOIN_LATE, Watch};
use oracle::{Answer, Oracle};
use task::{Output, Task, disturb};

mod case;
mod differences;
mod oracle;
mod task;
mod topology;
mod values;

/// Cases without a wish for more. Of these most inputs are compared.
const CASES: u64 = 1_000;

/// Those of `case::Node`.
const KINDS_OF_NODES: usize = 23;
/// Cases that differ are shown up to here.
const SHOWN: usize = 15;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn memory(specs: &[StoreSpec]) -> Box<dyn StateBackend> {
    Box::new(MemoryState::new(specs.len()))
}

/// How far cases were compared.
#[derive(Default)]
struct Seen {
    inputs: usize,
    compared: usize,
    outputs: usize,
    /// The same by the kinds of nodes of the case.
    outputs_with: BTreeMap<String, usize>,
    /// Cases that were cut, by the difference that they met.
    cut: BTreeMap<&'static str, usize>,
}

impl Seen {
    fn add(&mut self, case: &Case, outputs: usize) {
        self.outputs += outputs;
        for node in case.nodes.iter().filter(|_| outputs > 0) {
            let kind = serde_json::to_value(node).expect("a node is JSON")["op"].to_string();
            *self.outputs_with.entry(kind).or_default() += outputs;
        }
    }
}

#[test]
#[ignore = "it needs Java and Kafka Streams, which `./run test kafka_streams` installs"]
fn operators_do_as_kafka_streams_does() {
    let (first, count) = (number("PELTON_SEED", 0), number("PELTON_CASES", CASES));
    let cases = Arc::new((first..first + count).map(Case::random).collect::<Vec<_>>());
    let mut oracle = Oracle::ask(&cases);
    let (mut seen, mut failures) = (Seen::default(), Vec::new());
    for (seed, case) in (first..).zip(&*cases) {
        let answer = match oracle.answer() {
            Answer::Outputs(outputs) => outputs,
            Answer::Failed { error } => {
                failures.push((0, format!("seed {seed}: Kafka Streams fails: {error}\n{}", shown(case))));
                continue;
            }
        };
        if let Err(reason) = compare(case, &answer, &mut seen) {
            failures.push((case.nodes.len(), format!("seed {seed}: {reason}\n{}", shown(case))));
        }
    }
    println!(
        "{count} cases from seed {first}: {} of {} inputs compared with {} outputs; cut by differences: {:?}",
        seen.compared, seen.inputs, seen.outputs, seen.cut
    );
    // The simplest ones first.
    failures.sort_by_key(|(size, _)| *size);
    let few: Vec<_> = failures.iter().take(SHOWN).map(|(_, text)| text.as_str()).collect();
    assert!(failures.is_empty(), "{} cases differ\n{}", failures.len(), few.join("\n\n"));
    println!("outputs of cases with each kind of node: {:?}", seen.outputs_with);
    if count >= CASES {
        assert!(seen.compared * 4 > seen.inputs * 3, "too little is compared");
        assert_eq!(seen.outputs_with.len(), KINDS_OF_NODES, "a kind of node is not compared");
    }
}

/// Commits, restarts from the changelog, inputs that are taken back, caches of all sizes: what comes out is the same.
#[test]
fn outputs_do_not_depend_on_what_happens_in_between() {
    for seed in 0..number("PELTON_CASES", 300) {
        let case = Case::random(seed);
        let mut plain = Task::new(&case, 1 << 20, &mut memory);
        let mut disturbed = Task::new(&case, 300, &mut memory);
        let mut random = SmallRng::seed_from_u64(seed);
        for (index, input) in case.inputs.iter().enumerate() {
            disturb(&mut disturbed, input, &mut random, &mut memory);
            let (expect, seen) = (plain.input(input), disturbed.input(input));
            assert_eq!(show(&seen), show(&expect), "seed {seed}, input {index}\n{}", shown(&case));
        }
        assert_eq!(disturbed.counts, plain.counts, "seed {seed}\n{}", shown(&case));
    }
}

/// Runs a case and compares what each input triggers.
fn compare(case: &Case, kafka: &[Vec<Output>], seen: &mut Seen) -> Result<(), String> {
    let mut task = Task::new(case, 1 << 20, &mut memory);
    let mut watch = Watch::new(case, &task);
    let mut whole = [Vec::new(), Vec::new()];
    if kafka.len() != case.inputs.len() {
        return Err(format!("{} answers for {} inputs", kafka.len(), case.inputs.len()));
    }
    seen.inputs += case.inputs.len();
    for (index, (input, kafka)) in case.inputs.iter().zip(kafka).enumerate() {
        let (mut ours, mut kafka) = (task.input(input), kafka.clone());
        let met = watch.met(case, &task, &kafka);
        if let Some(difference) = met.filter(|met| *met != JOIN_LATE || case.must != Match::Whole) {
            *seen.cut.entry(difference).or_default() += 1;
            return Ok(());
        }
        seen.add(case, kafka.len());
        if !case.times {
            ours.iter_mut().chain(&mut kafka).for_each(|(_, _, time)| *time = 0);
        }
        match case.must {
            Match::Exact => {}
            Match::AnyKeyOrder => {
                for outputs in [&mut ours, &mut kafka] {
                    outputs
                        .chunk_by_mut(|a, b| a.2 == b.2)
                        .for_each(|same| same.sort_by(|a, b| a.0.cmp(&b.0)));
                }
            }
            Match::AnyOrder => {
                for outputs in [&mut ours, &mut kafka] {
                    outputs.sort();
                    outputs.dedup();
                }
            }
            Match::Whole => {
                whole[0].extend(ours);
                whole[1].extend(kafka);
                continue;
            }
        }
        if ours != kafka {
            return Err(format!(
                "input {index} {input:?}\n  ours  {}\n  kafka {}",
                show(&ours),
                show(&kafka)
            ));
        }
        seen.compared += 1;
    }
    whole.iter_mut().for_each(|outputs| outputs.sort());
    if whole[0] != whole[1] {
        return Err(format!("in all\n  ours  {}\n  kafka {}", show(&whole[0]), show(&whole[1])));
    }
    if case.must == Match::Whole {
        seen.compared += case.inputs.len();
    }
    Ok(())
}

fn show(outputs: &[Output]) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or("null".to_owned());
    let one = |(key, value, time): &Output| format!("{}={}@{time}", text(key), text(value));
    outputs.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn shown(case: &Case) -> String {
    let nodes = case.nodes.iter().enumerate().map(|(place, node)| format!("  {place}: {node:?}"));
    let inputs = case.inputs.iter().enumerate().map(|(index, (topic, key, value, time))| {
        format!("  {index}: {topic} {}", show(&[(key.clone(), value.clone(), *time)]))
    });
    nodes.chain(inputs).collect::<Vec<_>>().join("\n")
}
