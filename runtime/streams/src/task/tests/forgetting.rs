//! Stores do not grow with what has come, but with what can still be asked for.

use super::graph::{Lab, linked};

/// More windows begin with each step than an operator forgets at once.
#[test]
fn as_much_is_forgotten_as_is_written() {
    const STEPS: usize = 12;
    const KEYS: usize = 3_000;
    let row = |n: usize| format!("k{n}=x@{}", n / KEYS * 10);
    let rows: Vec<String> = (0..STEPS * KEYS).map(row).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    for node in [
        "window={tumbling='5ms'}\naggregate='count'",
        "window={sliding='5ms'}\naggregate='count'",
        "window={session='5ms'}\naggregate='count'",
        "deduplicate={within='5ms'}",
    ] {
        let manifest = format!(
            "[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\n{node}\n[[sink]]\nfrom='n'\ntopic='out'\n"
        );
        let inputs = [("in", &rows[..])];
        let mut lab = Lab::new(&linked(&manifest), &inputs);
        for step in 0..STEPS {
            assert!(lab.step(&mut || KEYS).unwrap());
            lab.commit(true);
            // Of the step and the two before, which are over when this one has begun: an entry, and when it is due.
            let entries: usize = lab.changelogs.iter().map(|log| log.len()).sum();
            assert!(entries <= 3 * 2 * KEYS + 1, "{node}: {entries} entries behind step {step}");
        }
    }
}
