//! `pelton pipeline redrive`: dead letters go back, request by request, until those are done that were there at first.

use super::super::topic::{print_json, print_line};
use crate::client::http::{HttpClient, segment};
use crate::report::{Exit, Failure};
use serde_json::{Map, Value, json};

/// Which letters.
pub(super) struct Wanted<'a> {
    pub(super) topic: &'a Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) from: Option<i64>,
    pub(super) limit: Option<u64>,
    pub(super) tables: bool,
}

impl Wanted<'_> {
    /// The request that comes after these answers.
    fn request(&self, so_far: &Sum, dry_run: bool) -> Value {
        json!({
            "topic": self.topic,
            "partition": self.partition,
            "from": self.from,
            "limit": self.limit.map(|limit| limit.saturating_sub(so_far.count())),
            "until": so_far.until(),
            "tables": self.tables,
            "dry_run": dry_run,
        })
    }
}

/// What several answers say together.
#[derive(Default)]
struct Sum {
    /// The last answer, with the counts of all of them, and where the first one began.
    all: Value,
}

impl Sum {
    fn add(&mut self, mut answer: Value) {
        let before = std::mem::take(&mut self.all);
        for key in ["rows", "deleted", "others"] {
            answer[key] = json!(answer[key].as_u64().unwrap_or(0) + before[key].as_u64().unwrap_or(0));
        }
        for (topic, count) in before["redriven"].as_object().into_iter().flatten() {
            let more = answer["redriven"][topic].as_u64().unwrap_or(0);
            answer["redriven"][topic] = json!(count.as_u64().unwrap_or(0) + more);
        }
        if let (Some(now), Some(before)) = (answer["letters"].as_array_mut(), before["letters"].as_array()) {
            for (now, before) in now.iter_mut().zip(before) {
                now["from"] = before["from"].clone();
            }
        }
        self.all = answer;
    }

    fn count(&self) -> u64 {
        self.all["redriven"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
    }

    /// How far the letters are read.
    fn positions(&self) -> Option<Vec<Value>> {
        Some(self.all["letters"].as_array()?.iter().map(|read| read["next"].clone()).collect())
    }

    /// Where the letters ended when the first answer was given.
    fn until(&self) -> Option<Value> {
        let mut ends = Map::new();
        for read in self.all["letters"].as_array()? {
            let topic = ends.entry(read["topic"].as_str()?).or_insert_with(|| json!({}));
            topic[read["partition"].to_string()] = read["end"].clone();
        }
        Some(Value::Object(ends))
    }

    fn lines(&self, dry_run: bool) -> Vec<String> {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let would = if dry_run { "would go" } else { "went" };
        let mut lines = Vec::new();
        for (topic, count) in self.all["redriven"].as_object().into_iter().flatten() {
            let letters = if *count == 1 { "letter" } else { "letters" };
            lines.push(format!("{count} {letters} {would} back to topic {topic}"));
        }
        if lines.is_empty() {
            lines.push(format!("no letter {would} back"));
        }
        match number(&self.all["rows"]) {
            0 => {}
            count => lines.push(format!(
                "letters that are passed over: {count}; they are of rows of tables, and an old row would take the place of a newer one \
                 (--tables puts such letters back; these come again once the group's offset is reset)"
            )),
        }
        match number(&self.all["deleted"]) {
            0 => {}
            count => {
                lines.push(format!("offsets of letters that were deleted before they were read: {count}"))
            }
        }
        match number(&self.all["others"]) {
            0 => {}
            count => lines.push(format!("records that are no letters of this pipeline: {count}")),
        }
        for read in self.all["letters"].as_array().into_iter().flatten() {
            let (from, next, end) = (&read["from"], &read["next"], &read["end"]);
            let done = if next.as_i64() >= end.as_i64() {
                if dry_run { "all would be done".to_owned() } else { "all are done".to_owned() }
            } else {
                format!("the next one is {next}")
            };
            lines.push(format!(
                "letters of topic {}, partition {}: from offset {from}, {done}; it ends at {end}",
                text(&read["topic"]),
                read["partition"]
            ));
        }
        lines
    }
}

pub(super) fn run(
    http: &HttpClient,
    name: &str,
    wanted: &Wanted<'_>,
    dry_run: bool,
    as_json: bool,
) -> anyhow::Result<()> {
    let path = format!("/v1/pipelines/{}/redrive", segment(name)?);
    let mut sum = Sum::default();
    loop {
        let request = wanted.request(&sum, dry_run).to_string();
        let before = sum.positions();
        sum.add(http.post(&path, "application/json", request.as_bytes())?);
        let is_enough = wanted.limit.is_some_and(|limit| sum.count() >= limit);
        let is_stuck = before == sum.positions();
        if sum.all["complete"] == true || !sum.all["refused"].is_null() || is_enough || is_stuck || dry_run {
            break;
        }
    }
    if as_json {
        print_json(&sum.all)?;
    } else {
        sum.lines(dry_run).iter().try_for_each(|line| print_line(line))?;
    }
    let refused = &sum.all["refused"];
    if refused.is_null() {
        return Ok(());
    }
    let offset = refused["offset"].as_i64().unwrap_or(0);
    let place =
        format!("topic {}, partition {}", refused["topic"].as_str().unwrap_or("-"), refused["partition"]);
    let text = format!(
        "the letter at offset {offset} of {place} cannot go back: {}",
        refused["why"].as_str().unwrap_or("-")
    );
    let hint = format!(
        "mend that and repeat it; or pass over the letter: --topic {} --partition {} --from {}",
        refused["topic"].as_str().unwrap_or("-"),
        refused["partition"],
        offset + 1
    );
    Err(Failure::new(Exit::Failed, text).hint(hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(redriven: u64, from: i64, next: i64) -> Value {
        json!({
            "redriven": { "in": redriven }, "rows": 1, "deleted": 3, "others": 2, "complete": false, "refused": null,
            "letters": [{ "topic": "dead", "partition": 3, "from": from, "next": next, "end": 90 }],
        })
    }

    #[test]
    fn answers_are_summed_up_and_later_requests_end_where_the_first_one_did() {
        let topic = None;
        let wanted = Wanted { topic: &topic, partition: None, from: None, limit: Some(50), tables: false };
        let mut sum = Sum::default();
        assert_eq!(wanted.request(&sum, false)["limit"], 50);
        assert_eq!(wanted.request(&sum, false)["until"], Value::Null);
        sum.add(answer(10, 5, 15));
        sum.add(answer(20, 15, 35));
        assert_eq!(sum.count(), 30);
        let request = wanted.request(&sum, false);
        assert_eq!((&request["limit"], &request["until"]["dead"]["3"]), (&json!(20), &json!(90)));
        assert_eq!(
            sum.lines(false),
            [
                "30 letters went back to topic in",
                "letters that are passed over: 2; they are of rows of tables, and an old row would take the place of a newer one \
                 (--tables puts such letters back; these come again once the group's offset is reset)",
                "offsets of letters that were deleted before they were read: 6",
                "records that are no letters of this pipeline: 4",
                "letters of topic dead, partition 3: from offset 5, the next one is 35; it ends at 90",
            ]
        );
    }
}
