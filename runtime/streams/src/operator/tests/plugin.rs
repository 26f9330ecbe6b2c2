//! Aggregates of plugins: they are what the same function makes of one row after the other, with far fewer calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::aggregate::{FunctionAggregate, PluginAggregate};
use super::table::Chain;
use super::testing::FunctionPlugin;
use super::*;

type MakeWith<'m> = &'m dyn Fn(Box<dyn Aggregator>) -> Box<dyn Operator>;

fn plugin() -> (Box<FunctionPlugin>, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    (Box::new(FunctionPlugin { function: Box::new(Concat), calls: Arc::clone(&calls) }), calls)
}

/// Both make the same of rows, in every way.
fn compare(make: MakeWith<'_>, ordered: &[bool], given: &[(usize, Row)], seed: u64) {
    let one = || make(Box::new(FunctionAggregate(Box::new(Concat))));
    let many = || make(Box::<PluginAggregate>::default());
    let expect = Rig::new(&one, ordered).run(given).unwrap();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut rig = Rig::new(&many, ordered);
    rig.aggregator = Some(plugin().0);
    let seen = rig.run_disturbed(given, &mut |range| random.random_range(range)).unwrap();
    assert_eq!(seen, expect, "seed {seed}");
}

#[test]
fn they_are_what_the_function_makes_row_by_row() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let given = random_rows(&mut random, 120, 1, &["a", "b", "c", "d"]);
        for emit in [Emit::OnUpdate, Emit::OnClose] {
            let closing = Closing { grace_ms: 20, emit, late: Late::Emit, retention_ms: 100 };
            compare(&|it| Box::new(TimeWindows::new(0, (30, 10), closing, it, true)), &[true], &given, seed);
            compare(&|it| Box::new(SlidingWindows::new(0, 30, closing, it, true)), &[true], &given, seed);
            compare(&|it| Box::new(Sessions::new(0, 25, closing, it, true)), &[true], &given, seed);
        }
        compare(&|it| Box::new(AggregateByKey::new(0, it, true)), &[false], &given, seed);
        // Rows of a table that move between groups, and go.
        let value = |random: &mut SmallRng| ["x", "y", "z", "~"][random.random_range(0..4)];
        let given: Vec<_> = given
            .iter()
            .map(|(input, row)| {
                let text = format!(
                    "{}={}@{}",
                    row.key.as_ref().unwrap().escape_ascii(),
                    value(&mut random),
                    row.timestamp
                );
                (*input, Row { sequence: row.sequence, ..testing::row(&text) })
            })
            .collect();
        let groups = |it| -> Box<dyn Operator> {
            let by = Field::parse("raw").unwrap();
            Box::new(Chain(vec![
                Box::new(Table::new(1, true)),
                Box::new(GroupTable::new(by)),
                Box::new(AggregateTable::new(0, it, true)),
            ]))
        };
        compare(&groups, &[false, false], &given, seed);
    }
}

#[test]
fn one_call_is_for_all_rows() {
    let rows_of = |count: usize| -> Vec<Row> {
        let texts: Vec<String> = (0..count).map(|n| format!("{}={n}@{n}", n % 7)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        rows(&texts).into_iter().map(|(_, row)| row).collect()
    };
    let closing = Closing { grace_ms: 20, emit: Emit::OnUpdate, late: Late::Drop, retention_ms: 0 };
    let by_key = || -> Box<dyn Operator> {
        Box::new(AggregateByKey::new(0, Box::<PluginAggregate>::default(), false))
    };
    let windows = || -> Box<dyn Operator> {
        Box::new(TimeWindows::new(0, (30, 10), closing, Box::<PluginAggregate>::default(), false))
    };
    let sessions = || -> Box<dyn Operator> {
        Box::new(Sessions::new(0, 10, closing, Box::<PluginAggregate>::default(), false))
    };
    let makes: [(Make<'_>, bool); 3] = [(&by_key, false), (&windows, true), (&sessions, true)];
    for (make, ordered) in makes {
        let (plugin, calls) = plugin();
        let mut rig = Rig::new(make, &[ordered]);
        rig.aggregator = Some(plugin);
        rig.give(0, &rows_of(500)).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

/// A row may be in as many sliding windows as there were rows of its key within their size, twice over.
#[test]
fn one_call_is_for_all_sliding_windows_of_a_row() {
    let closing = Closing { grace_ms: 20, emit: Emit::OnUpdate, late: Late::Drop, retention_ms: 0 };
    let make = || -> Box<dyn Operator> {
        Box::new(SlidingWindows::new(0, 50, closing, Box::<PluginAggregate>::default(), false))
    };
    let (plugin, calls) = plugin();
    let mut rig = Rig::new(&make, &[true]);
    rig.aggregator = Some(plugin);
    for n in 0..40 {
        rig.give(0, &[Row { sequence: n, ..testing::row(&format!("a={n}@{n}")) }]).unwrap();
    }
    assert_eq!(calls.load(Ordering::Relaxed), 40);
}

/// Where sessions become one nothing is planned; the others are, before and behind it.
#[test]
fn sessions_that_become_one_cost_calls_of_their_own() {
    let closing = Closing { grace_ms: 20, emit: Emit::OnUpdate, late: Late::Drop, retention_ms: 0 };
    let make = || -> Box<dyn Operator> {
        Box::new(Sessions::new(0, 5, closing, Box::<PluginAggregate>::default(), false))
    };
    let (plugin, calls) = plugin();
    let mut rig = Rig::new(&make, &[true]);
    rig.aggregator = Some(plugin);
    let given = ["a=1@0", "b=1@0", "a=2@10", "a=3@5", "b=2@1", "b=3@2", "c=1@9", "b=4@3"];
    let given: Vec<Row> = rows(&given).into_iter().map(|(_, row)| row).collect();
    rig.give(0, &given).unwrap();
    // The plan, the merge, and what comes of it with the third row.
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn a_record_that_it_rejects_is_named() {
    let make = || -> Box<dyn Operator> {
        Box::new(AggregateByKey::new(0, Box::<PluginAggregate>::default(), false))
    };
    let mut rig = Rig::new(&make, &[false]);
    rig.aggregator = Some(plugin().0);
    let given: Vec<Row> =
        rows(&["a=x@1", "-=y@1", "b=odd@2", "a=odd@3"]).into_iter().map(|(_, row)| row).collect();
    let reason = "the plugin rejects the record: it is odd".to_owned();
    assert_eq!(rig.give(0, &given), Err(OperatorError::Row(RowError { index: 2, reason })));
}
