//! Each key of an output must read exactly what follows from the input, once and in order.

use anyhow::{Context, Result, ensure};
use pelton_tests::exactly_once::reader::read_each;
use rdkafka::message::Message;
use std::collections::BTreeMap;

/// Findings that are spelled out.
const SPELLED_OUT: usize = 8;

/// What is to come out: of each key the values in their order.
pub(crate) type Wanted = BTreeMap<String, Vec<String>>;

/// Reads a topic committed, and compares; the number of its records.
pub(crate) fn check(bootstrap: &str, topic: &str, partitions: u32, wanted: &Wanted) -> Result<usize> {
    let mut found: BTreeMap<String, Vec<(i32, i64, String)>> = BTreeMap::new();
    read_each(bootstrap, topic, &mut vec![0; partitions as usize], |message| {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let entry = (message.partition(), message.offset(), text(message.payload()));
        found.entry(text(message.key())).or_default().push(entry);
        Ok(())
    })?;
    let findings = compare(wanted, &found);
    let shown = &findings[..findings.len().min(SPELLED_OUT)];
    ensure!(findings.is_empty(), "{topic}: {} findings:\n  {}", findings.len(), shown.join("\n  "));
    let records = found.values().map(Vec::len).sum();
    ensure!(records > 0, "INVALID: there is nothing in {topic}");
    Ok(records)
}

/// One finding for each place where what was found leaves what was wanted.
fn compare(wanted: &Wanted, found: &BTreeMap<String, Vec<(i32, i64, String)>>) -> Vec<String> {
    let mut findings = Vec::new();
    for (key, records) in found {
        let values = wanted.get(key).map(Vec::as_slice).unwrap_or_default();
        let places: BTreeMap<&str, usize> =
            values.iter().enumerate().map(|(place, value)| (value.as_str(), place)).collect();
        let mut next = 0;
        for (partition, offset, value) in records {
            let what = format!("[{partition}] offset {offset}: key {key} has {value}");
            match places.get(value.as_str()) {
                None => findings.push(format!("foreign: {what}, which nothing was to be made into")),
                Some(place) if *place < next => findings.push(format!("doubled: {what} again")),
                Some(place) => {
                    if *place > next {
                        findings.push(format!("lost: {what} where {} was to come", values[next]));
                    }
                    next = place + 1;
                }
            }
        }
        if next < values.len() {
            findings.push(format!("lost: key {key} ends before {} of {} values", values[next], values.len()));
        }
    }
    for key in wanted.iter().filter(|(key, values)| !values.is_empty() && !found.contains_key(*key)) {
        findings.push(format!("lost: nothing of key {}", key.0));
    }
    findings
}

/// The values of the input, by key.
pub(crate) fn inputs(numbers: &[u64]) -> Wanted {
    let values = |key: usize, last: u64| (1..=last).map(|number| format!("{key}.{number}")).collect();
    numbers.iter().enumerate().map(|(key, last)| (key.to_string(), values(key, *last))).collect()
}

/// Of each key every second value.
pub(crate) fn evens(numbers: &[u64]) -> Wanted {
    let values =
        |key: usize, last: u64| (2..=last).step_by(2).map(|number| format!("{key}.{number}")).collect();
    numbers.iter().enumerate().map(|(key, last)| (key.to_string(), values(key, *last))).collect()
}

/// The changes of a count by number modulo `classes`.
pub(crate) fn counts(numbers: &[u64], classes: u64) -> Wanted {
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for last in numbers {
        for number in 1..=*last {
            *sums.entry(number % classes).or_default() += 1;
        }
    }
    let values = |sum: u64| (1..=sum).map(|n| n.to_string()).collect();
    sums.into_iter().map(|(class, sum)| (format!("class-{class}"), values(sum))).collect()
}

/// The comparison is tried before it is trusted: it must find what is lost, doubled and foreign.
///
/// # Errors
/// It does not.
pub(crate) fn try_out() -> Result<()> {
    let wanted = inputs(&[3]);
    let record = |offset: i64, value: &str| (0, offset, value.to_owned());
    let cases: [(&[&str], &str); 6] = [
        (&["0.1", "0.2", "0.3"], ""),
        (&["0.1", "0.3"], "lost"),
        (&["0.1", "0.2"], "lost"),
        (&["0.1", "0.2", "0.2", "0.3"], "doubled"),
        (&["0.2", "0.1", "0.3"], "lost"),
        (&["0.1", "0.2", "0.3", "0.4"], "foreign"),
    ];
    for (values, kind) in cases {
        let records = values.iter().enumerate().map(|(offset, value)| record(offset as i64, value)).collect();
        let findings = compare(&wanted, &BTreeMap::from([("0".to_owned(), records)]));
        let first = findings.first().map(String::as_str).unwrap_or_default();
        ensure!(
            first.starts_with(kind) && findings.is_empty() == kind.is_empty(),
            "{values:?} gives {findings:?}"
        );
    }
    let nothing = compare(&wanted, &BTreeMap::new());
    nothing.first().context("nothing at all is not found")?;
    Ok(())
}
