//! Reads everything back and compares it with what clients were told.

use crate::load::{GROUP, LOADS, Outcome, client, parse_value};
use anyhow::{Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

/// Longest silence during the final read.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Findings of one kind that are spelled out.
const SPELLED_OUT: usize = 5;

/// Where a record is: load, partition, offset.
type Place = (u32, u32, i64);

/// What is counted. Nothing from `Lost` to `CommitsLost` may happen.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// Acknowledged records.
    Acknowledged,
    /// Records read at the end.
    Read,
    /// Records that a consumer was given during the load.
    Seen,
    /// Acknowledged, and not at the offset that was named.
    Lost,
    /// Given to a consumer, and something else is at that offset now.
    Unseen,
    /// More than once in the topic of an idempotent producer.
    Duplicated,
    /// Sent by an idempotent producer, acknowledged or not, and nowhere.
    Missing,
    /// Behind a record that its producer sent later.
    Disordered,
    /// Offsets that are not there.
    Holes,
    /// Bytes are not what was sent.
    Damaged,
    /// Acknowledged offset commits that were taken back.
    CommitsLost,
    /// Commits of a group's member that were acknowledged.
    GroupCommits,
    /// Acknowledged as a duplicate whose offset the broker did not know any more: it must be there, wherever it is.
    Unplaced,
}

const NAMES: [&str; 13] = [
    "acknowledged",
    "read",
    "seen",
    "lost",
    "unseen",
    "duplicated",
    "missing",
    "disordered",
    "holes",
    "damaged",
    "commits lost",
    "group commits",
    "unplaced",
];

/// How the final read compares with what clients were told.
#[derive(Debug, Default)]
pub struct Report {
    counts: [u64; NAMES.len()],
    /// Details, and what went wrong during the load. Empty when all is well.
    pub findings: Vec<String>,
}

impl Report {
    fn found(&mut self, count: Count, text: impl FnOnce() -> String) {
        let n = &mut self.counts[count as usize];
        *n += 1;
        if *n as usize <= SPELLED_OUT {
            self.findings.push(text());
        }
    }

    /// How many there are.
    pub fn count(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// Adds another round.
    pub fn add(&mut self, other: Report) {
        self.counts.iter_mut().zip(other.counts).for_each(|(sum, n)| *sum += n);
        self.findings.extend(other.findings);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            NAMES.iter().zip(self.counts).map(|(name, n)| format!("{name} {n}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// Reads all topics of the load from their beginning and compares.
///
/// # Errors
/// The read itself does not come to an end.
pub fn check(bootstrap: &str, outcome: &Outcome) -> Result<Report> {
    let mut report = Report { findings: outcome.problems.clone(), ..Report::default() };
    report.counts[Count::Acknowledged as usize] = outcome.ledger.len() as u64;
    report.counts[Count::Seen as usize] = outcome.seen.len() as u64;
    report.counts[Count::GroupCommits as usize] = outcome.group_commits;
    if outcome.group_commits == 0 {
        report.findings.push("a group's member never managed to commit".to_owned());
    }
    let logs = read_all(bootstrap, &mut report)?;
    let at = |(load, partition, offset): Place| {
        let log = &logs[load as usize][partition as usize];
        usize::try_from(offset).ok().and_then(|i| log.get(i)).copied().flatten()
    };
    for entry in &outcome.ledger {
        if entry.offset < 0 && LOADS[entry.load as usize].idempotent {
            report.counts[Count::Unplaced as usize] += 1; // whether it is there at all is `Missing`'s question
            continue;
        }
        let place = (entry.load, entry.partition, entry.offset);
        if at(place) != Some((entry.load, entry.sequence)) {
            let (topic, now) = (LOADS[entry.load as usize].topic, at(place));
            report.found(Count::Lost, || {
                format!(
                    "lost: {topic} [{}] offset {} was acknowledged for record {} after fault {}, there is {now:?}",
                    entry.partition, entry.offset, entry.sequence, entry.faults
                )
            });
        }
    }
    for seen in &outcome.seen {
        let now = at((seen.record.0, seen.partition, seen.offset));
        if now != Some(seen.record) {
            report
                .found(Count::Unseen, || format!("unseen: a consumer was given {seen:?}, there is {now:?}"));
        }
    }
    for (load, partitions) in logs.iter().enumerate().filter(|(load, _)| LOADS[*load].idempotent) {
        once_and_in_order(load, partitions, outcome.sent[load], &mut report);
    }
    commits(bootstrap, outcome, &mut report)?;
    Ok(report)
}

type Log = Vec<Option<(u32, u64)>>;

/// Every partition of every load, by offset; `None` where there is no record or a damaged one.
fn read_all(bootstrap: &str, report: &mut Report) -> Result<Vec<Vec<Log>>> {
    let mut logs = Vec::new();
    for load in &LOADS {
        let consumer: BaseConsumer = client(bootstrap)
            .set("group.id", "final-reader")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            .create()?;
        let mut assignment = TopicPartitionList::new();
        let mut partitions: Vec<Log> = Vec::new();
        for partition in 0..load.partitions as i32 {
            let (low, high) = consumer.fetch_watermarks(load.topic, partition, READ_LIMIT)?;
            if low != 0 {
                report.findings.push(format!("{} [{partition}] starts at {low}", load.topic));
            }
            partitions.push(vec![None; high as usize]);
            assignment.add_partition_offset(load.topic, partition, Offset::Offset(low))?;
        }
        consumer.assign(&assignment)?;
        let mut left: i64 = partitions.iter().map(|p| p.len() as i64).sum();
        let mut last = Instant::now();
        let mut next: Vec<i64> = vec![0; partitions.len()];
        while next.iter().zip(&partitions).any(|(next, log)| (*next as usize) < log.len()) {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    left -= 1;
                    report.counts[Count::Read as usize] += 1;
                    let (partition, offset) = (message.partition() as usize, message.offset());
                    for hole in next[partition]..offset {
                        report.found(Count::Holes, || {
                            format!("hole: {} [{partition}] offset {hole}", load.topic)
                        });
                    }
                    next[partition] = offset + 1;
                    let record = message.payload().and_then(parse_value);
                    if record.is_none() {
                        report.found(Count::Damaged, || {
                            format!("damaged: {} [{partition}] offset {offset}", load.topic)
                        });
                    }
                    if let Some(slot) = partitions[partition].get_mut(offset as usize) {
                        *slot = record;
                    }
                }
                Some(Err(KafkaError::MessageConsumption(error))) if last.elapsed() > READ_LIMIT => {
                    bail!("the final read of {} stops with {left} records left: {error}", load.topic);
                }
                _ if last.elapsed() > READ_LIMIT => {
                    bail!("the final read of {} stops with {left} records left", load.topic)
                }
                _ => {}
            }
        }
        logs.push(partitions);
    }
    Ok(logs)
}

fn once_and_in_order(load: usize, partitions: &[Log], sent: u64, report: &mut Report) {
    let topic = LOADS[load].topic;
    let mut there = HashSet::new();
    for (partition, log) in partitions.iter().enumerate() {
        let mut newest = None;
        for (offset, (_, sequence)) in log.iter().enumerate().filter_map(|(o, r)| r.map(|r| (o, r))) {
            if !there.insert(sequence) {
                report.found(Count::Duplicated, || {
                    format!("duplicate: {topic} [{partition}] offset {offset} is record {sequence} again")
                });
            } else if newest.is_some_and(|newest| sequence < newest) {
                report.found(Count::Disordered, || {
                    format!(
                        "order: {topic} [{partition}] offset {offset} is record {sequence}, after {newest:?}"
                    )
                });
            }
            newest = newest.max(Some(sequence));
        }
    }
    for sequence in (0..sent).filter(|s| !there.contains(s)) {
        report.found(Count::Missing, || format!("missing: {topic} record {sequence} of {sent}"));
    }
}

fn commits(bootstrap: &str, outcome: &Outcome, report: &mut Report) -> Result<()> {
    let consumer: BaseConsumer = client(bootstrap).set("group.id", GROUP).create()?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(LOADS[0].topic, 0);
    let found = consumer.committed_offsets(wanted, READ_LIMIT)?;
    let offset = found.elements().first().map(|e| e.offset());
    let (acked, attempted) = outcome.committed;
    let fits = match offset {
        Some(Offset::Offset(n)) => (acked..=attempted).contains(&n),
        _ => acked < 0,
    };
    if !fits {
        report.found(Count::CommitsLost, || {
            format!("commit: {acked} was acknowledged, {attempted} tried, and {offset:?} is there")
        });
    }
    Ok(())
}
