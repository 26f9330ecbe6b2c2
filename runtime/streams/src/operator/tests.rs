//! Operators against text tables: rows in with their times, rows out. Every table runs once as it is and then in many
//! other ways that must not matter: other calls, commits, restarts from the changelog, calls that are rolled back,
//! other caches.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::aggregate::{AggregateSpec, Aggregator, BuiltIn, Function, Part, ResultForm};
use super::testing::{Rig, rows, show};
use super::*;
use crate::state::StoreIndex;

mod backlog;
mod by_key;
mod dedupe;
mod foreign_key;
mod native;
mod plugin;
mod rows;
mod session;
mod sliding;
mod stream_join;
mod table;
mod table_join;
mod time_window;
mod timers;
mod versioned;
mod view;

/// Other ways that each table runs in.
const WAYS: u64 = 40;

type Make<'m> = &'m dyn Fn() -> Box<dyn Operator>;

/// What an operator makes of rows, in every way; and what it counted.
fn run_all_ways(make: Make<'_>, ordered: &[bool], given: &[(usize, Row)]) -> (Vec<Vec<Emitted>>, Counts) {
    let mut rig = Rig::new(make, ordered);
    let expect = rig.run(given).unwrap();
    for seed in 0..WAYS {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut other = Rig::new(make, ordered);
        let seen = other.run_disturbed(given, &mut |range| random.random_range(range)).unwrap();
        for (index, (seen, expect)) in seen.iter().zip(&expect).enumerate() {
            let [seen, expect] = [seen, expect].map(|all| all.iter().map(show).collect::<Vec<_>>());
            assert_eq!(seen, expect, "row {index}, disturbed with seed {seed}");
        }
        assert_eq!(other.counts, rig.counts, "seed {seed}");
    }
    (expect, rig.counts)
}

/// A table: each row with what it triggers. What was counted.
fn check(make: Make<'_>, ordered: &[bool], table: &[(&str, &[&str])]) -> Counts {
    let given: Vec<_> = table.iter().map(|(row, _)| *row).collect();
    let (seen, counts) = run_all_ways(make, ordered, &rows(&given));
    for (index, ((row, expect), seen)) in table.iter().zip(seen).enumerate() {
        let seen: Vec<_> = seen.iter().map(show).collect();
        assert_eq!(seen, *expect, "row {index}: {row}");
    }
    counts
}

/// An aggregate of one function whose result is its value alone.
fn single(function: &str) -> Box<dyn Aggregator> {
    single_with(function, false, None)
}

fn single_with(function: &str, of_table: bool, members: Option<StoreIndex>) -> Box<dyn Aggregator> {
    let parts = vec![Part { name: "x".to_owned(), function: Function::parse(function).unwrap() }];
    let spec = AggregateSpec { parts, form: ResultForm::Single, of_table };
    spec.check().unwrap();
    Box::new(BuiltIn::new(spec, members))
}

/// Joins values with commas, in the order they come: what order of rows and merges an operator has can be seen in it.
struct Concat;

impl Concat {
    fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
        [a, b].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b',')
    }
}

impl aggregate::AggregateFunction for Concat {
    fn create(&mut self, _: &[u8]) -> Result<Vec<u8>, OperatorError> {
        Ok(Vec::new())
    }

    fn add(&mut self, state: &[u8], item: aggregate::Item<'_>) -> Result<Vec<u8>, OperatorError> {
        if item.value == b"odd" {
            return Err(OperatorError::row("it is odd".to_owned()));
        }
        Ok(Concat::join(state, item.value))
    }

    fn subtract(&mut self, state: &[u8], item: aggregate::Item<'_>) -> Result<Vec<u8>, OperatorError> {
        let mut parts: Vec<_> = state.split(|byte| *byte == b',').collect();
        if let Some(place) = parts.iter().position(|part| *part == item.value) {
            parts.remove(place);
        }
        Ok(parts.join(&b','))
    }

    fn merge(&mut self, _: &[u8], left: &[u8], right: &[u8]) -> Result<Vec<u8>, OperatorError> {
        Ok(Concat::join(left, right))
    }
}

fn concat() -> Box<dyn Aggregator> {
    Box::new(aggregate::FunctionAggregate(Box::new(Concat)))
}

/// A joiner that shows what it was given.
fn pair() -> Box<dyn Joiner> {
    let show = |value: Option<&[u8]>| value.map_or("~".to_owned(), |value| value.escape_ascii().to_string());
    Box::new(
        move |_: Option<&[u8]>,
              left: Option<&[u8]>,
              right: Option<&[u8]>,
              out: &mut Vec<u8>|
              -> Result<(), OperatorError> {
            out.extend_from_slice(format!("{}+{}", show(left), show(right)).as_bytes());
            Ok(())
        },
    )
}

/// Rows of some keys for some inputs, with numbers as values. Time goes on by steps and jumps, and rows come late by up to 30.
fn random_rows(random: &mut SmallRng, count: u64, inputs: usize, keys: &[&str]) -> Vec<(usize, Row)> {
    let mut time = [0, 100][random.random_range(0..2)];
    let numbers = 0..count;
    numbers
        .map(|sequence| {
            time += [0, 1, 1, 2, 5, 40, 900][random.random_range(0..7)];
            let timestamp = (time - [0, 0, 1, 5, 12, 30][random.random_range(0..6)]).max(0);
            let key = keys[random.random_range(0..keys.len())];
            let row = testing::row(&format!("{key}={sequence}@{timestamp}"));
            (random.random_range(0..inputs), Row { sequence, ..row })
        })
        .collect()
}

/// What an operator makes of rows: as they are, and once more disturbed.
fn run_two_ways(make: Make<'_>, ordered: &[bool], given: &[(usize, Row)], seed: u64) -> Vec<Vec<Emitted>> {
    let seen = Rig::new(make, ordered).run(given).unwrap();
    let mut random = SmallRng::seed_from_u64(seed);
    let other = Rig::new(make, ordered).run_disturbed(given, &mut |range| random.random_range(range));
    assert_eq!(other.unwrap(), seen, "seed {seed}");
    seen
}
