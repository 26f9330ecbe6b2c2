#!/usr/bin/env bash
# serde_json 1.0.154 (Rust): whether a text is JSON depends on the type that it is read as.
#
# IgnoredAny and RawValue, which are there to check or to keep what one does not look at, follow the grammar of RFC 8259. Value, and
# a String or an f64 that is asked for, refuse some of what it allows: half of a surrogate pair (\ud800), a number that no f64 can
# hold (1e999), lists within each other 128 times and more. So a program that checks a value as it comes in and stores it as it is
# has values that it cannot read later, and one that reads a struct takes or refuses the same text by which fields the struct
# has: a field that nobody declared is skipped, whatever is in it, and adding one makes texts unreadable that were fine.
#
# Seen here: four texts. IgnoredAny and RawValue take all of them, Value the first one only; a struct that declares `other` takes
# all four, and one that declares `field`, which they differ in, the first one only.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.1.0"
edition = "2021"

[dependencies]
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = { version = "=1.0.154", features = ["raw_value"] }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{from_str, Value};

#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Other {
    other: i32,
}

#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Field {
    field: Value,
    other: i32,
}

fn takes<T: DeserializeOwned>(texts: &[String]) -> Vec<bool> {
    texts.iter().map(|text| from_str::<T>(text).is_ok()).collect()
}

fn main() {
    let nested = "[".repeat(200) + &"]".repeat(200);
    let texts: Vec<String> = ["1", r#""\ud800""#, "1e999", &nested]
        .iter()
        .map(|field| format!(r#"{{"field":{field},"other":5}}"#))
        .collect();
    let (all, first) = (vec![true; 4], vec![true, false, false, false]);
    let seen = [
        ("IgnoredAny", takes::<IgnoredAny>(&texts), &all),
        ("RawValue", takes::<Box<RawValue>>(&texts), &all),
        ("a struct without the field", takes::<Other>(&texts), &all),
        ("Value", takes::<Value>(&texts), &first),
        ("a struct with the field", takes::<Field>(&texts), &first),
    ];
    for (name, taken, _) in &seen {
        println!("{name:<28} takes 1, \\ud800, 1e999, 200 lists: {taken:?}");
    }
    std::process::exit(i32::from(seen.iter().any(|(_, taken, expect)| taken != *expect)));
}
RUST
(cd "$dir" && CARGO_TARGET_DIR="$dir/target" cargo build --quiet) >"$dir/log" 2>&1 || { cat "$dir/log"; exit 2; }
"$dir/target/debug/finding" || { echo "no longer so"; exit 1; }
