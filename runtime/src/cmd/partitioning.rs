//! `pelton topic partitioning`: which known partitioner explains where the keys of a topic are.

use super::table::Table;
use super::topic::{PARTITIONER, print_json, print_line, settings};
use crate::cli::{Json, Kafka};
use crate::client::offsets::{self, EARLIEST, LATEST};
use crate::client::{Client, check};
use crate::report::failed;
use pelton_partitioner::KeyRule;
use pelton_partitioner::sample::{Findings, Part, Sample, Verdict};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Most records that are read of all partitions together; their keys are held in memory.
const RECORDS_MAX: u64 = 1_000_000;
/// Most bytes of keys and values that are read of all partitions together.
const BYTES_MAX: u64 = 256 << 20;
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);
/// A broker that sends nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(30);
/// Keeps librdkafka from reading ahead far more than is wanted.
const READ_AHEAD: &[(&str, &str)] =
    &[("queued.min.messages", "1000"), ("queued.max.messages.kbytes", "16384")];

/// A stretch of a partition that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: i64,
    /// Where it ends, exclusive.
    to: i64,
    records: u64,
    bytes: u64,
}

/// Where a partition begins and ends.
type Bounds = BTreeMap<i32, (i64, i64)>;

pub(super) fn run(kafka: &Kafka, name: &str, records: u64, json: Json) -> anyhow::Result<()> {
    let mut client = Client::connect(&kafka.bootstrap_server)?;
    let topic = offsets::topic(&mut client, name)?;
    let mut indexes = Vec::new();
    for partition in &topic.partitions {
        check(partition.error_code, &format!("read `{name}` [{}]", partition.partition_index))?;
        indexes.push(partition.partition_index);
    }
    // A cluster that does not let its settings be read is sampled all the same.
    let settings = settings(&mut client, name).unwrap_or_default();
    let own = settings.into_iter().find(|(key, value)| key == PARTITIONER && !value.is_empty());
    let own = own.map(|(_, value)| value);
    let start = offsets::offsets(&mut client, name, &indexes, EARLIEST)?;
    let end = offsets::offsets(&mut client, name, &indexes, LATEST)?;
    let bounds: Bounds =
        start.iter().filter_map(|(index, start)| Some((*index, (*start, *end.get(index)?)))).collect();
    // Kafka's partitions are numbered from 0 on.
    let mut sample = Sample::new(u32::try_from(indexes.len()).unwrap_or(u32::MAX));
    for windows in windows(&bounds, records) {
        // A consumer of its own for each pass: librdkafka's stays paused for a partition that is assigned again.
        read(&open(kafka)?, name, windows, &mut sample)?;
    }
    let found = sample.findings();
    if json.json {
        let mut told = as_json(name, &found, &bounds);
        told["topic_partitioner"] = json!(own);
        return print_json(&told);
    }
    print_line(&heading(name, &found))?;
    if let Some(own) = own {
        print_line(&of_its_own(&own))?;
    }
    table(&found).print(false)?;
    for line in conclusions(&found) {
        print_line(&line)?;
    }
    Ok(())
}

/// What is known of a topic that places its records itself.
fn of_its_own(partitioner: &str) -> String {
    let tried = match KeyRule::ALL.iter().find(|rule| rule.to_string() == partitioner) {
        Some(_) => "it is among those that are tried below",
        None => {
            "it is not tried below: a rule that explains the keys does as it does, and no more is known of it"
        }
    };
    format!(
        "pelton.partitioner = {partitioner}: the topic places its records itself, whatever clients choose; {tried}"
    )
}

fn open(kafka: &Kafka) -> anyhow::Result<BaseConsumer> {
    let mut config = super::client_config(kafka, &[])?;
    config
        .set("group.id", "pelton-partitioning")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What retention has deleted meanwhile is no failure.
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    for (key, value) in READ_AHEAD {
        config.set(*key, *value);
    }
    config.create().map_err(|error| failed(error.to_string()))
}

/// What is read, in two passes: the oldest and the newest records of each partition, all of it where that is not more.
fn windows(bounds: &Bounds, records: u64) -> [BTreeMap<i32, Window>; 2] {
    let partitions = bounds.len().max(1) as u64;
    let half = (records.min(RECORDS_MAX / partitions) / 2).max(1);
    let bytes = BYTES_MAX / partitions / 2;
    let [mut oldest, mut newest] = [BTreeMap::new(), BTreeMap::new()];
    for (&partition, &(start, end)) in bounds {
        let split = start.saturating_add_unsigned(half).min(end);
        let window = |from, to| Window { from, to, records: half, bytes };
        if start < split {
            oldest.insert(partition, window(start, split));
        }
        let from = end.saturating_sub_unsigned(half).max(split);
        if from < end {
            newest.insert(partition, window(from, end));
        }
    }
    [oldest, newest]
}

/// Reads windows to their ends. Offsets without a record (compaction, transactions) make a window smaller, never larger.
fn read(
    consumer: &BaseConsumer,
    topic: &str,
    mut windows: BTreeMap<i32, Window>,
    sample: &mut Sample,
) -> anyhow::Result<()> {
    let unread = |error: KafkaError| failed(format!("read `{topic}`: {error}"));
    let mut assignment = TopicPartitionList::new();
    for (&partition, window) in &windows {
        let offset = Offset::Offset(window.from);
        assignment.add_partition_offset(topic, partition, offset).map_err(unread)?;
    }
    consumer.assign(&assignment).map_err(unread)?;
    let mut heard = Instant::now();
    while !windows.is_empty() {
        let done = match consumer.poll(POLL) {
            None if heard.elapsed() > SILENCE => {
                return Err(failed(format!("read `{topic}`: the broker sent nothing for {SILENCE:?}")));
            }
            None => continue,
            Some(Ok(message)) => {
                let Some(window) = windows.get_mut(&message.partition()) else { continue };
                take(window, &message, sample).then(|| message.partition())
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Some(partition),
            Some(Err(error)) => return Err(unread(error)),
        };
        heard = Instant::now();
        if let Some(partition) = done
            && windows.remove(&partition).is_some()
        {
            let mut paused = TopicPartitionList::new();
            paused.add_partition(topic, partition);
            consumer.pause(&paused).map_err(unread)?;
        }
    }
    Ok(())
}

/// Takes a record into the sample if it is of the window; whether the window has been read.
fn take(window: &mut Window, message: &impl Message, sample: &mut Sample) -> bool {
    if message.offset() >= window.to {
        return true;
    }
    sample.add(message.partition().unsigned_abs(), message.key());
    let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
    window.records = window.records.saturating_sub(1);
    window.bytes = window.bytes.saturating_sub(bytes as u64);
    window.records == 0 || window.bytes == 0 || message.offset() + 1 >= window.to
}

/// What to write of the topic into a manifest, if something can be said.
fn partitioner(found: &Findings) -> Option<&'static str> {
    match &found.verdict {
        Verdict::Explained { sure: false, .. } => None,
        Verdict::Explained { rules, .. } => {
            Some(rules.iter().find_map(|rule| rule.native()).map_or("unknown", |kind| kind.name()))
        }
        Verdict::Parts { .. } | Verdict::Unexplained => Some("unknown"),
        Verdict::Empty | Verdict::Keyless | Verdict::OnePartition => None,
    }
}

/// Keys with their partitions, as the rules are judged by: one in two partitions is two.
fn places(found: &Findings) -> u64 {
    found.partitions.iter().map(|counts| counts.keys).sum()
}

fn as_json(name: &str, found: &Findings, bounds: &Bounds) -> Value {
    let partition = |(index, counts): (usize, &pelton_partitioner::sample::Counts)| {
        let bounds = i32::try_from(index).ok().and_then(|index| bounds.get(&index));
        json!({
            "partition": index, "records": counts.records, "keyless": counts.keyless, "keys": counts.keys,
            "log_start": bounds.map(|(start, _)| start), "log_end": bounds.map(|(_, end)| end),
        })
    };
    let partitions: Vec<Value> = found.partitions.iter().enumerate().map(partition).collect();
    let name_of = |rule: &KeyRule| rule.to_string();
    let fits: Vec<Value> = (found.fits.iter())
        .map(|fit| json!({ "partitioner": name_of(&fit.rule), "here": fit.here, "elsewhere": fit.elsewhere }))
        .collect();
    let (verdict, sure, explained_by, parts, unexplained): (_, bool, Vec<String>, &[Part], u64) =
        match &found.verdict {
            Verdict::Empty => ("empty", false, Vec::new(), &[], 0),
            Verdict::Keyless => ("keyless", false, Vec::new(), &[], 0),
            Verdict::OnePartition => ("one-partition", false, Vec::new(), &[], 0),
            Verdict::Explained { rules, sure } => {
                ("explained", *sure, rules.iter().map(name_of).collect(), &[], 0)
            }
            Verdict::Parts { parts, unexplained } => ("parts", true, Vec::new(), parts, *unexplained),
            Verdict::Unexplained => ("unexplained", true, Vec::new(), &[], places(found)),
        };
    let part = |part: &Part| json!({ "partitioner": name_of(&part.rule), "partitions": part.partitions, "keys": part.keys });
    json!({
        "topic": name, "partitions": partitions, "records": found.records, "keyless": found.keyless, "keys": found.keys,
        "scattered_keys": found.scattered_keys, "empty_key_partitions": found.empty_key_partitions,
        "verdict": verdict, "sure": sure, "explained_by": explained_by,
        "parts": parts.iter().map(part).collect::<Vec<_>>(), "unexplained_keys": unexplained, "fits": fits,
        "partitioner": partitioner(found),
    })
}

fn heading(name: &str, found: &Findings) -> String {
    format!(
        "topic {name}: {} records read, {} of them without a key, {} different keys",
        found.records, found.keyless, found.keys
    )
}

fn table(found: &Findings) -> Table {
    let mut table = Table::new(&["partition", "records", "keyless", "keys"]);
    for (index, counts) in found.partitions.iter().enumerate() {
        table.row(vec![json!(index), json!(counts.records), json!(counts.keyless), json!(counts.keys)]);
    }
    table
}

fn named(rule: KeyRule) -> String {
    format!("{rule} ({})", rule.used_by())
}

/// What follows, for people.
fn conclusions(found: &Findings) -> Vec<String> {
    let mut lines = match &found.verdict {
        Verdict::Empty => vec!["Nothing can be told of a topic without records.".to_owned()],
        Verdict::Keyless => {
            vec!["No record has a key, so nothing can be told of how keys are placed, and nothing hangs on it.".to_owned()]
        }
        Verdict::OnePartition => vec![
            "Nothing can be told: every partitioner puts every key into the one partition. What the producers use begins to \
             matter when the topic grows."
                .to_owned(),
        ],
        Verdict::Explained { rules, sure } => explained(found, rules, *sure),
        Verdict::Parts { parts, unexplained } => in_parts(found, parts, *unexplained),
        Verdict::Unexplained => unexplained(found),
    };
    if found.scattered_keys > 0 {
        lines.push(format!(
            "{} keys are in several partitions: their records have no order, and a join or a count that reads the topic as it is \
             finds a part of them.",
            found.scattered_keys
        ));
    }
    if found.empty_key_partitions > 1 {
        lines.push(format!(
            "Records with an empty key are in {} partitions: librdkafka's default places them as if they had none.",
            found.empty_key_partitions
        ));
    }
    lines.extend(partitioner(found).map(|name| format!("In a manifest: partitioner = \"{name}\"")));
    lines
}

fn explained(found: &Findings, rules: &[KeyRule], sure: bool) -> Vec<String> {
    let names: Vec<String> = rules.iter().map(|rule| named(*rule)).collect();
    let mut lines = match &names[..] {
        [name] => vec![format!("Every key is where {name} puts it.")],
        _ => vec![format!("Several partitioners explain equally where every key is: {}.", names.join(", "))],
    };
    if !sure {
        let manifest = match rules {
            [rule] if rule.native().is_some() => {
                format!("If it is so, a manifest has partitioner = \"{rule}\"; ")
            }
            _ => String::new(),
        };
        lines.push(format!(
            "{} different keys are too few to be sure that it is no chance. {manifest}the producers' settings tell, or more \
             records.",
            found.keys
        ));
    } else if rules.len() > 1 {
        lines.push(format!(
            "With {} partitions they do the same to all of these keys.",
            found.partitions.len()
        ));
    } else if rules.iter().all(|rule| rule.native().is_none()) {
        lines.push(
            "No manifest can say that; a pipeline moves such records through a topic of its own where it needs those of a key \
             together."
                .to_owned(),
        );
    }
    lines
}

fn in_parts(found: &Findings, parts: &[Part], unexplained: u64) -> Vec<String> {
    let today = found.partitions.len();
    let all = places(found);
    let of_all = |keys: u64| format!("  {keys} of {all} keys: ");
    let mut lines = vec!["No one partitioner explains where all keys are:".to_owned()];
    for part in parts {
        let when = match part.partitions {
            count if count as usize == today => String::new(),
            1 => ", while the topic had one partition".to_owned(),
            count => format!(", while the topic had {count} partitions"),
        };
        lines.push(format!("{}{}{when}", of_all(part.keys), named(part.rule)));
    }
    if unexplained > 0 {
        lines.push(format!("{}where no known partitioner puts them", of_all(unexplained)));
    }
    let has_grown = parts.iter().any(|part| part.partitions as usize != today);
    if has_grown {
        lines.push(
            "The topic has grown since those were written: what comes now of the same keys goes to other partitions.".to_owned(),
        );
    }
    if parts.iter().any(|part| part.rule != parts[0].rule) {
        lines.push(
            "Its producers place keys differently: records of one key that both of them write do not meet. Have all of them use \
             one partitioner; PARTITIONERS.md says by which setting."
                .to_owned(),
        );
    }
    lines
}

fn unexplained(found: &Findings) -> Vec<String> {
    let best = found.fits.first();
    let best = best.map_or(String::new(), |fit| {
        format!(
            " The best of them, {}, has {} of {}, as chance has.",
            fit.rule,
            fit.here,
            fit.here + fit.elsewhere
        )
    });
    vec![format!(
        "No known partitioner explains where the keys are.{best} The producers name the partitions themselves, or use a partitioner \
         of their own, or another part of the record than its key."
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(n: u32, records: &[(u32, Option<&str>)]) -> Findings {
        let mut sample = Sample::new(n);
        for (partition, key) in records {
            sample.add(*partition, key.map(str::as_bytes));
        }
        sample.findings()
    }

    fn placed(n: u32, parts: &[(KeyRule, u32, std::ops::Range<u32>)]) -> Findings {
        let mut sample = Sample::new(n);
        for (rule, partitions, keys) in parts {
            for key in keys.clone().map(|i| format!("flight-{i}")) {
                let at = rule.partition(key.as_bytes(), *partitions).expect("no key is empty");
                sample.add(at, Some(key.as_bytes()));
            }
        }
        sample.findings()
    }

    #[test]
    fn the_oldest_and_the_newest_records_are_read() {
        let bounds = Bounds::from([(0, (10, 10)), (1, (0, 9)), (2, (100, 112)), (3, (5, 1_000))]);
        let [oldest, newest] = windows(&bounds, 20);
        let shown = |windows: &BTreeMap<i32, Window>| -> Vec<(i32, i64, i64)> {
            windows.iter().map(|(partition, window)| (*partition, window.from, window.to)).collect()
        };
        assert_eq!(shown(&oldest), [(1, 0, 9), (2, 100, 110), (3, 5, 15)]);
        assert_eq!(shown(&newest), [(2, 110, 112), (3, 990, 1_000)]);
        let bound = |window: &Window| (window.records, window.bytes);
        assert_eq!(oldest.get(&3).map(bound), Some((10, BYTES_MAX / 8)));
        // A topic of many partitions is read as far as a topic of few.
        let many: Bounds = (0..10_000).map(|partition| (partition, (0, 1_000))).collect();
        let read: u64 =
            windows(&many, 1_000_000).iter().flat_map(|pass| pass.values()).map(|w| w.records).sum();
        assert_eq!(read, RECORDS_MAX);
    }

    #[test]
    fn what_is_found_is_said_in_words() {
        let check = |found: &Findings, partitioner_is: Option<&str>, says: &[&str]| {
            let text = conclusions(found).join("\n");
            for part in says {
                assert!(text.contains(part), "nothing of {part:?} in:\n{text}");
            }
            assert_eq!(partitioner(found), partitioner_is, "{text}");
            let line = partitioner_is.map(|name| format!("In a manifest: partitioner = \"{name}\""));
            assert!(line.is_none_or(|line| text.ends_with(&line)), "{text}");
        };
        check(&found(3, &[]), None, &["without records"]);
        check(&found(3, &[(0, None), (2, None)]), None, &["No record has a key"]);
        check(&found(1, &[(0, Some("a"))]), None, &["Nothing can be told", "one partition"]);
        let murmur2 = placed(12, &[(KeyRule::Murmur2, 12, 0..300)]);
        check(&murmur2, Some("murmur2"), &["Every key is where murmur2 (the default of Java"]);
        let consistent = placed(7, &[(KeyRule::Consistent, 7, 0..300)]);
        check(&consistent, Some("consistent"), &["consistent (pelton's own)"]);
        let reference = placed(12, &[(KeyRule::SaramaReference, 12, 0..300)]);
        check(&reference, Some("unknown"), &["sarama-reference (NewReference", "No manifest can say that"]);
        let two = placed(2, &[(KeyRule::Fnv1a, 2, 0..300)]);
        check(&two, Some("fnv1a"), &["explain equally", "fnv1a", "sarama-reference", "With 2 partitions"]);
        let few = placed(12, &[(KeyRule::Murmur2, 12, 0..4)]);
        check(&few, None, &["4 different keys are too few", "partitioner = \"murmur2\""]);
        let mixed = placed(12, &[(KeyRule::Murmur2, 12, 0..500), (KeyRule::Crc32, 12, 400..700)]);
        check(
            &mixed,
            Some("unknown"),
            &[
                "No one partitioner",
                "murmur2 (",
                "crc32 (",
                "place keys differently",
                "keys are in several partitions",
            ],
        );
        let grown = placed(9, &[(KeyRule::Murmur2, 6, 0..500)]);
        check(
            &grown,
            Some("unknown"),
            &["500 of 500 keys: murmur2", "while the topic had 6 partitions", "has grown"],
        );
        let spread: Vec<(u32, String)> = (0..600_u32).map(|i| (i * 7 % 5, format!("{i}"))).collect();
        let spread: Vec<_> = spread.iter().map(|(at, key)| (*at, Some(key.as_str()))).collect();
        check(&found(5, &spread), Some("unknown"), &["No known partitioner", "as chance has"]);
        let empty = [(0, Some("")), (1, Some("")), (0, Some("x"))];
        check(&found(3, &empty), None, &["empty key are in 2 partitions"]);
    }

    #[test]
    fn json_has_what_a_program_asks_for() {
        let found = placed(3, &[(KeyRule::Crc32, 3, 0..100), (KeyRule::Crc32, 2, 100..400)]);
        let json = as_json("t", &found, &Bounds::from([(0, (5, 900))]));
        assert_eq!(json["verdict"], "parts");
        assert_eq!(json["partitioner"], "unknown");
        assert_eq!(json["parts"][0]["partitioner"], "crc32");
        assert_eq!(
            (&json["parts"][0]["partitions"], &json["parts"][1]["partitions"]),
            (&json!(2), &json!(3))
        );
        assert_eq!(json["unexplained_keys"], 0);
        assert_eq!(
            (&json["partitions"][0]["log_start"], &json["partitions"][0]["log_end"]),
            (&json!(5), &json!(900))
        );
        assert_eq!(json["partitions"][1]["log_end"], Value::Null);
        let sum: u64 = (0..3).filter_map(|i| json["partitions"][i]["records"].as_u64()).sum();
        assert_eq!(json["records"], sum);
        assert_eq!(json["fits"].as_array().map(Vec::len), Some(KeyRule::ALL.len()));
    }
}
