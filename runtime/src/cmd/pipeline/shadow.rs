//! `pelton pipeline shadow`: what a revision that runs beside the live one has come to.

use super::super::replay::{difference_lines, run_lines};
use super::super::topic::{print_json, print_line};
use crate::client::http::{HttpClient, segment};
use serde_json::Value;

pub(super) fn run(http: &HttpClient, name: &str, stop: bool, as_json: bool) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/shadow", segment(name)?);
    let shadow: Value = if stop { http.delete(&path)? } else { http.get(&path)? };
    if as_json {
        return print_json(&shadow);
    }
    lines(&shadow, stop).iter().try_for_each(|line| print_line(line))
}

fn lines(shadow: &Value, stopped: bool) -> Vec<String> {
    let before = format!("revision {}", shadow["revision"]);
    let seconds = shadow["running_ms"].as_u64().unwrap_or(0) / 1_000;
    let level = match shadow["level"] == true {
        true => "both have read the same",
        false => "they are not equally far, so what is of one alone may come of the other one next",
    };
    let ended = if stopped { "ended" } else { "running" };
    let mut lines = vec![format!("{ended} for {seconds} s beside {before}; {level}")];
    for note in shadow["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        lines.push(format!("note: {note}"));
    }
    for (who, side) in [(before.as_str(), &shadow["before"]), ("the shadow", &shadow["after"])] {
        lines.extend(run_lines(who, side));
        lines.push(busy_line(who, side));
    }
    let differences = difference_lines(&before, "the shadow", &shadow["topics"]);
    if differences.is_empty() {
        lines.push("no difference by now".to_owned());
    }
    lines.extend(differences);
    match shadow["uncompared"].as_u64() {
        None | Some(0) => {}
        Some(count) => {
            lines.push(format!(
                "{count} records were not compared, since too many had waited for the other side: what differs is of the records before"
            ))
        }
    }
    lines
}

/// How long a side was at work, and what that is for each record.
fn busy_line(who: &str, side: &Value) -> String {
    let (busy_ms, records) =
        (side["busy_ms"].as_u64().unwrap_or(0), side["records_in"].as_u64().unwrap_or(0));
    match busy_ms.saturating_mul(1_000).checked_div(records) {
        Some(each) => format!("{who}: {busy_ms} ms at work, {each} \u{b5}s for a record"),
        None => format!("{who}: {busy_ms} ms at work"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_record_takes_is_of_those_that_were_read() {
        let side = |busy_ms: u64, records_in: u64| json!({ "busy_ms": busy_ms, "records_in": records_in });
        assert_eq!(busy_line("it", &side(30, 20)), "it: 30 ms at work, 1500 \u{b5}s for a record");
        assert_eq!(busy_line("it", &side(30, 0)), "it: 30 ms at work");
    }
}
