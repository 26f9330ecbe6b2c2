//! `pelton group`: list, describe with lag, reset offsets, delete.

use super::table::Table;
use super::topic::{print_json, print_line};
use crate::cli::{self, Json, Kafka};
use crate::client::offsets::{self, EARLIEST, LATEST};
use crate::client::{Client, check, check_with};
use crate::report::{Exit, Failure, failed, usage};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::message::delete_groups::DeleteGroupsRequest;
use pelton_wire::message::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use pelton_wire::message::list_groups::ListGroupsRequest;
use pelton_wire::message::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use pelton_wire::message::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use serde_json::json;
use std::collections::BTreeMap;

pub(crate) fn run(command: &cli::Group) -> anyhow::Result<()> {
    match command {
        cli::Group::List { json, kafka } => list(kafka, *json),
        cli::Group::Describe { name, json, kafka } => describe(kafka, name, *json),
        cli::Group::ResetOffsets { name, topic, to, partition, kafka } => {
            reset(kafka, name, topic, to, *partition)
        }
        cli::Group::Delete { name, kafka } => delete(kafka, name),
    }
}

fn list(kafka: &Kafka, json: Json) -> anyhow::Result<()> {
    let response = Client::connect(&kafka.bootstrap_server)?.send(&ListGroupsRequest::default())?;
    check(response.error_code, "list groups")?;
    let mut groups = response.groups;
    groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
    let mut table = Table::new(&["group", "state", "protocol"]);
    for group in groups {
        table.row(vec![json!(group.group_id), json!(group.group_state), json!(group.protocol_type)]);
    }
    table.print(json.json)
}

/// Committed offsets of one group: (topic, partition) to offset.
type Committed = BTreeMap<(String, i32), i64>;

fn describe(kafka: &Kafka, name: &str, json: Json) -> anyhow::Result<()> {
    let mut client = Client::connect(&kafka.bootstrap_server)?;
    let mut coordinator = client.coordinator(name)?;
    let group = described(&mut coordinator, name)?;
    let committed = committed(&mut coordinator, name)?;
    if group.is_none() && committed.is_empty() {
        return Err(failed(format!("group `{name}` does not exist")));
    }
    let mut table = Table::new(&["topic", "partition", "committed", "log end", "lag"]);
    let mut ends: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
    for (topic, _) in committed.keys() {
        if !ends.contains_key(topic) {
            let partitions: Vec<i32> = committed
                .keys()
                .filter(|(other, _)| other == topic)
                .map(|(_, partition)| *partition)
                .collect();
            ends.insert(topic.clone(), offsets::offsets(&mut client, topic, &partitions, LATEST)?);
        }
    }
    for ((topic, partition), offset) in &committed {
        let end = ends.get(topic).and_then(|found| found.get(partition)).copied();
        let lag = end.map(|end| (end - offset).max(0));
        table.row(vec![json!(topic), json!(partition), json!(offset), json!(end), json!(lag)]);
    }
    let mut members = Table::new(&["member", "client", "host"]);
    for member in group.iter().flat_map(|group| &group.members) {
        members.row(vec![json!(member.member_id), json!(member.client_id), json!(member.client_host)]);
    }
    let state = group.as_ref().map_or("Empty", |group| group.group_state.as_str());
    if json.json {
        return print_json(
            &json!({ "group": name, "state": state, "members": members.json(), "offsets": table.json() }),
        );
    }
    print_line(&format!("group {name}, state {state}"))?;
    if group.is_some_and(|group| !group.members.is_empty()) {
        members.print(false)?;
    }
    table.print(false)
}

fn described(coordinator: &mut Client, name: &str) -> anyhow::Result<Option<DescribedGroup>> {
    let request = DescribeGroupsRequest { groups: vec![name.to_owned()], ..Default::default() };
    let Some(group) = coordinator.send(&request)?.groups.into_iter().next() else { return Ok(None) };
    if group.error_code == ErrorCode::GROUP_ID_NOT_FOUND || group.group_state == "Dead" {
        return Ok(None);
    }
    check(group.error_code, &format!("describe group `{name}`"))?;
    Ok(Some(group))
}

fn committed(coordinator: &mut Client, name: &str) -> anyhow::Result<Committed> {
    let group = OffsetFetchRequestGroup { group_id: name.to_owned(), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let mut found = Committed::new();
    // Version 9: from version 10 on the response names topics by id alone.
    for group in coordinator.send_at_most(&request, 9)?.groups {
        check(group.error_code, &format!("read the offsets of group `{name}`"))?;
        for topic in group.topics {
            for partition in topic.partitions.iter().filter(|partition| partition.committed_offset >= 0) {
                found.insert((topic.name.clone(), partition.partition_index), partition.committed_offset);
            }
        }
    }
    Ok(found)
}

fn reset(kafka: &Kafka, name: &str, topic: &str, to: &str, only: Option<i32>) -> anyhow::Result<()> {
    let target = Target::parse(to)
        .ok_or_else(|| usage(format!("--to `{to}` is none of: earliest, latest, an offset, +N, -N")))?;
    let mut client = Client::connect(&kafka.bootstrap_server)?;
    let found = offsets::topic(&mut client, topic)?;
    let mut partitions: Vec<i32> =
        found.partitions.iter().map(|partition| partition.partition_index).collect();
    partitions.retain(|partition| only.is_none_or(|only| only == *partition));
    if partitions.is_empty() {
        return Err(failed(format!("topic `{topic}` has no partition {}", only.unwrap_or_default())));
    }
    let start = offsets::offsets(&mut client, topic, &partitions, EARLIEST)?;
    let end = offsets::offsets(&mut client, topic, &partitions, LATEST)?;
    let mut coordinator = client.coordinator(name)?;
    let current = committed(&mut coordinator, name)?;
    let mut table = Table::new(&["topic", "partition", "was", "is"]);
    let mut commits = Vec::new();
    for partition in partitions {
        let (start, end) =
            (start.get(&partition).copied().unwrap_or(0), end.get(&partition).copied().unwrap_or(0));
        let was = current.get(&(topic.to_owned(), partition)).copied();
        let offset = target.resolve(was.unwrap_or(start), start, end);
        table.row(vec![json!(topic), json!(partition), json!(was), json!(offset)]);
        commits.push(OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset,
            committed_leader_epoch: -1,
            ..Default::default()
        });
    }
    commit(&mut coordinator, name, topic, commits)?;
    table.print(false)
}

fn commit(
    coordinator: &mut Client,
    name: &str,
    topic: &str,
    partitions: Vec<OffsetCommitRequestPartition>,
) -> anyhow::Result<()> {
    let topic = OffsetCommitRequestTopic { name: topic.to_owned(), partitions, ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: name.to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    // Version 9: from version 10 on the request names topics by id, which would need a look-up.
    for partition in
        coordinator.send_at_most(&request, 9)?.topics.into_iter().flat_map(|topic| topic.partitions)
    {
        if partition.error_code == ErrorCode::UNKNOWN_MEMBER_ID {
            if let Some(refused) = pipeline_runs(name) {
                return Err(refused);
            }
            return Err(Failure::new(Exit::Failed, format!("group `{name}` has members"))
                .hint("stop its consumers first: they would commit over the new offsets")
                .into());
        }
        if partition.error_code == ErrorCode::POLICY_VIOLATION
            && let Some(refused) = pipeline_keeps_state(name)
        {
            return Err(refused);
        }
        check(partition.error_code, &format!("commit offsets of group `{name}`"))?;
    }
    Ok(())
}

fn delete(kafka: &Kafka, name: &str) -> anyhow::Result<()> {
    let mut coordinator = Client::connect(&kafka.bootstrap_server)?.coordinator(name)?;
    let request = DeleteGroupsRequest { groups_names: vec![name.to_owned()] };
    for result in coordinator.send(&request)?.results {
        if result.error_code == ErrorCode::NON_EMPTY_GROUP
            && let Some(refused) = pipeline_runs(name)
        {
            return Err(refused);
        }
        if result.error_code == ErrorCode::POLICY_VIOLATION
            && let Some(refused) = pipeline_keeps_state(name)
        {
            return Err(refused);
        }
        check_with(result.error_code, None, &format!("delete group `{name}`"))?;
    }
    Ok(())
}

/// The error for the group of a pipeline that keeps state.
fn pipeline_keeps_state(group: &str) -> Option<anyhow::Error> {
    let pipeline = group.strip_prefix("pelton.")?;
    let failure = Failure::new(
        Exit::Failed,
        format!(
            "group `{group}` belongs to the pipeline `{pipeline}`, which keeps state: it is what the records before these \
             offsets have made, and at other offsets records would count twice, or not at all"
        ),
    );
    let hint = format!(
        "to begin anew, `pelton pipeline delete {pipeline} --own-topics` deletes its state with its offsets, and `pelton deploy` \
         has it read from its sources' `start`; to pass over a record that fails, give its node `on_error`"
    );
    Some(failure.hint(hint).into())
}

/// The error for the group of a running pipeline.
fn pipeline_runs(group: &str) -> Option<anyhow::Error> {
    let pipeline = group.strip_prefix("pelton.")?;
    let failure = Failure::new(
        Exit::Failed,
        format!("group `{group}` belongs to the pipeline `{pipeline}`, which is running"),
    );
    Some(failure.hint(format!("`pelton pipeline pause {pipeline}` first, and resume it afterwards")).into())
}

/// The target of `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    At(i64),
    By(i64),
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            _ if text.starts_with(['+', '-']) => text.parse().ok().map(Self::By),
            _ => text.parse().ok().map(Self::At),
        }
    }

    /// Clamps the offset to the partition's log.
    fn resolve(self, current: i64, start: i64, end: i64) -> i64 {
        let offset = match self {
            Self::Earliest => start,
            Self::Latest => end,
            Self::At(offset) => offset,
            Self::By(step) => current.saturating_add(step),
        };
        offset.clamp(start, end.max(start))
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_target_stays_within_the_partition() {
        let check = |text: &str, expect: i64| {
            assert_eq!(Target::parse(text).unwrap().resolve(50, 10, 100), expect, "{text}");
        };
        check("earliest", 10);
        check("latest", 100);
        check("70", 70);
        check("7", 10);
        check("+20", 70);
        check("-20", 30);
        check("-9000000000", 10);
        check("+9000000000", 100);
        assert_eq!(Target::parse("soon"), None);
    }
}
