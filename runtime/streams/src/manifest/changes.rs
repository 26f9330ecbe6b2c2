//! What two manifests say differently, key by key: what a deployment would change, and what a revision has changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use toml::Value;

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 200;

/// A key that two manifests have different values for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ManifestChange {
    /// Where it is: `threads`, `node.per-city.window.grace`. Items of a list of tables are called by their `id`, sinks by their
    /// `topic`.
    pub key: String,
    /// What it was, as TOML, long ones cut; none if it was not there.
    pub before: Option<String>,
    /// What it is; none if it is not there any more.
    pub after: Option<String>,
}

/// What `after` says differently from `before`, in the order of the keys. Comments and the order of keys are no difference.
pub fn changes(before: &str, after: &str) -> Vec<ManifestChange> {
    let parse = |text| toml::from_str::<toml::Table>(text).map(Value::Table).ok();
    let mut found = Vec::new();
    if let (Some(before), Some(after)) = (parse(before), parse(after)) {
        compare("", Some(&before), Some(&after), &mut found);
    } else if before != after {
        // Only manifests that were parsed are deployed, by this version or by another one.
        let text = |text: &str| Some(cut(text.to_owned()));
        found.push(ManifestChange {
            key: "the whole text".to_owned(),
            before: text(before),
            after: text(after),
        });
    }
    found
}

fn compare(key: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<ManifestChange>) {
    if before == after {
        return;
    }
    // A list that is not there has no items.
    let is_list = is_list(before) || is_list(after);
    let items = |value: Option<&Value>| if value.is_none() && is_list { Some(BTreeMap::new()) } else { None };
    match (items(before).or_else(|| children(before)), items(after).or_else(|| children(after))) {
        (Some(before), Some(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(&inner, before.get(name).copied(), after.get(name).copied(), found);
            }
        }
        _ => {
            let (before, after) = (before.map(shown), after.map(shown));
            found.push(ManifestChange { key: key.to_owned(), before, after });
        }
    }
}

fn is_list(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Array(items)) if !items.is_empty() && items.iter().all(Value::is_table))
}

/// What is compared one by one: the keys of a table, the items of a list of tables.
fn children(value: Option<&Value>) -> Option<BTreeMap<String, &Value>> {
    match value {
        Some(Value::Table(table)) => Some(table.iter().map(|(key, value)| (key.clone(), value)).collect()),
        Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
            let mut named = BTreeMap::new();
            for (number, item) in items.iter().enumerate() {
                let name = ["id", "topic"].iter().find_map(|key| item.get(key)?.as_str());
                let name = name.map_or_else(|| number.to_string(), str::to_owned);
                let taken = named.contains_key(&name);
                named.insert(if taken { format!("{name}#{number}") } else { name }, item);
            }
            Some(named)
        }
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    cut(value.to_string())
}

fn cut(text: String) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(before: &str, after: &str) -> Vec<String> {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let line = |change: ManifestChange| {
            format!("{}: {} -> {}", change.key, or_none(change.before), or_none(change.after))
        };
        changes(before, after).into_iter().map(line).collect()
    }

    const BEFORE: &str = r#"
name = "p"
threads = 2 # a comment
[[source]]
id = "in"
topic = "orders"
[[node]]
id = "a"
from = "in"
window = { tumbling = "1h", grace = "10m" }
[[node]]
id = "b"
from = "a"
filter = "json:x > 1"
[[sink]]
topic = "out"
from = "b"
"#;

    #[test]
    fn keys_are_compared_one_by_one_and_items_by_their_names() {
        let after = r#"
threads = 3
name = "p"
[[sink]]
from = "c"
topic = "out"
[[sink]]
from = "a"
topic = "more"
[[node]]
id = "c"
from = "a"
filter = "json:x > 1"
[[node]]
id = "a"
from = "in"
window = { grace = "5m", tumbling = "1h" }
[[source]]
topic = "orders"
id = "in"
"#;
        let expect = [
            "node.a.window.grace: \"10m\" -> \"5m\"",
            "node.b: { filter = \"json:x > 1\", from = \"a\", id = \"b\" } -> -",
            "node.c: - -> { filter = \"json:x > 1\", from = \"a\", id = \"c\" }",
            "sink.more: - -> { from = \"a\", topic = \"more\" }",
            "sink.out.from: \"b\" -> \"c\"",
            "threads: 2 -> 3",
        ];
        assert_eq!(lines(BEFORE, after), expect);
    }

    #[test]
    fn comments_and_the_order_of_keys_are_no_difference() {
        assert!(lines(BEFORE, &BEFORE.replace("# a comment", "")).is_empty());
        assert!(lines(BEFORE, BEFORE).is_empty());
    }

    #[test]
    fn what_cannot_be_compared_is_said_and_what_is_long_is_cut() {
        assert_eq!(lines("a = ", "a = 1"), ["the whole text: a =  -> a = 1"]);
        let long = lines("a = 1", &format!("a = \"{}\"", "ä".repeat(1_000)));
        assert_eq!(long[0].chars().count(), "a: 1 -> ".len() + SHOWN_MAX + 1);
        assert_eq!(lines("a = [1, 2]", "a = [2]"), ["a: [1, 2] -> [2]"]);
        let two = "[[x]]\ntopic = \"t\"\n[[x]]\ntopic = \"t\"\nb = 1";
        assert_eq!(lines("", two), ["x.t: - -> { topic = \"t\" }", "x.t#1: - -> { b = 1, topic = \"t\" }"]);
    }
}
