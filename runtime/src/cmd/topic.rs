//! `pelton topic`: create, list, describe, alter, delete.

use std::path::Path;

use super::plugin::{self, Purpose};
use super::table::Table;
use crate::cli::{self, Http, Json, Kafka};
use crate::client::http::HttpClient;
use crate::client::offsets::{self, EARLIEST, LATEST};
use crate::client::{Client, check, check_with};
use crate::report::{failed, note};
use pelton_wire::error_code::ErrorCode;
use pelton_wire::message::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use pelton_wire::message::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use pelton_wire::message::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use pelton_wire::message::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use pelton_wire::message::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use pelton_wire::message::metadata::MetadataRequest;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The time-out of a change, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
/// Kafka's resource type of a topic.
const RESOURCE_TOPIC: i8 = 2;
/// Kafka's numbers of incremental operations.
const OPERATION_SET: i8 = 0;
const OPERATION_DELETE: i8 = 1;
/// The setting that says who places a topic's records.
pub(super) const PARTITIONER: &str = "pelton.partitioner";
/// Kafka's config source: set on the topic itself.
const SOURCE_TOPIC: i8 = 1;

pub(crate) fn run(command: &cli::Topic) -> anyhow::Result<()> {
    match command {
        cli::Topic::Create { name, partitions, config, partitioner, if_not_exists, kafka, http } => {
            let config = with_partitioner(http, config, partitioner.as_deref())?;
            create(kafka, name, *partitions, &config, *if_not_exists)
        }
        cli::Topic::List { all, json, kafka } => list(kafka, *all, *json),
        cli::Topic::Describe { name, json, kafka, http } => describe(kafka, http, name, *json),
        cli::Topic::Alter { name, config, reset, partitions, partitioner, kafka, http } => {
            let config = with_partitioner(http, config, partitioner.as_deref())?;
            alter(kafka, name, &config, reset, *partitions)
        }
        cli::Topic::Partitioning { name, records, json, kafka } => {
            super::partitioning::run(kafka, name, *records, *json)
        }
        cli::Topic::Delete { name, kafka } => delete(kafka, name),
    }
}

/// The settings of a topic, with its partitioner among them. A plugin that is a directory or a file is given to the broker.
fn with_partitioner(
    http: &Http,
    config: &[String],
    partitioner: Option<&str>,
) -> anyhow::Result<Vec<String>> {
    let mut config = config.to_vec();
    let Some(named) = partitioner else { return Ok(config) };
    let path = Path::new(named);
    let is_plugin = path.is_dir() || named.ends_with(".wasm") || named.contains('/');
    let named = if is_plugin {
        let pushed = plugin::pushed(&HttpClient::new(http), path, Purpose::Use)?;
        let digest = pushed["digest"].as_str().unwrap_or_default();
        format!("{}@{digest}", pushed["name"].as_str().unwrap_or("plugin"))
    } else {
        named.to_owned()
    };
    config.push(format!("{PARTITIONER}={named}"));
    Ok(config)
}

fn connect(kafka: &Kafka) -> anyhow::Result<Client> {
    Client::connect(&kafka.bootstrap_server)
}

fn create(
    kafka: &Kafka,
    name: &str,
    partitions: Option<i32>,
    config: &[String],
    if_not_exists: bool,
) -> anyhow::Result<()> {
    let mut configs = Vec::new();
    for setting in config {
        let (key, value) = super::key_value(setting)?;
        configs.push(CreatableTopicConfig { name: key.to_owned(), value: Some(value.to_owned()) });
    }
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions.unwrap_or(-1),
        replication_factor: -1,
        configs,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
    for result in connect(kafka)?.send(&request)?.topics {
        if if_not_exists && result.error_code == ErrorCode::TOPIC_ALREADY_EXISTS {
            continue;
        }
        check_with(result.error_code, result.error_message.as_deref(), &format!("create topic `{name}`"))?;
    }
    Ok(())
}

fn list(kafka: &Kafka, all: bool, json: Json) -> anyhow::Result<()> {
    let request = MetadataRequest { topics: None, allow_auto_topic_creation: false, ..Default::default() };
    let mut topics = connect(kafka)?.send(&request)?.topics;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut table = Table::new(&["topic", "partitions", "id"]);
    for topic in topics.iter().filter(|topic| all || !topic.is_internal) {
        check(topic.error_code, "list topics")?;
        table.row(vec![json!(topic.name), json!(topic.partitions.len()), json!(topic.topic_id.to_string())]);
    }
    table.print(json.json)
}

fn describe(kafka: &Kafka, http: &Http, name: &str, json: Json) -> anyhow::Result<()> {
    let mut client = connect(kafka)?;
    let topic = offsets::topic(&mut client, name)?;
    let mut indexes: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
    indexes.sort_unstable();
    let start = offsets::offsets(&mut client, name, &indexes, EARLIEST)?;
    let end = offsets::offsets(&mut client, name, &indexes, LATEST)?;
    let mut table = Table::new(&["partition", "leader", "log start", "log end"]);
    for partition in &indexes {
        let leader = topic
            .partitions
            .iter()
            .find(|entry| entry.partition_index == *partition)
            .map(|entry| entry.leader_id);
        table.row(vec![
            json!(partition),
            json!(leader),
            json!(start.get(partition)),
            json!(end.get(partition)),
        ]);
    }
    let settings = settings(&mut client, name)?;
    let is_compacted =
        settings.iter().any(|(key, value)| key == "cleanup.policy" && value.contains("compact"));
    let is_routed = settings.iter().any(|(key, value)| key == PARTITIONER && !value.is_empty());
    let view = if is_compacted || is_routed { view(http, name, &topic.topic_id.to_string()) } else { None };
    let (partitions, routing) = view.map_or((Vec::new(), None), |view| (view.partitions, view.routing));
    let cleaning = is_compacted.then(|| cleaning(partitions));
    if json.json {
        let settings: serde_json::Map<_, _> =
            settings.into_iter().map(|(key, value)| (key, json!(value))).collect();
        let id = topic.topic_id.to_string();
        let mut described =
            json!({ "topic": name, "id": id, "partitions": table.json(), "settings": settings });
        if let Some(cleaning) = cleaning {
            described["compaction"] = cleaning.json();
        }
        if let Some(routing) = routing {
            described["routing"] = json!(routing);
        }
        return print_json(&described);
    }
    print_line(&format!("topic {name}, id {}", topic.topic_id))?;
    for (key, value) in settings {
        print_line(&format!("{key}={value}"))?;
    }
    table.print(false)?;
    if let Some(routing) = routing {
        print_line(&routing.to_string())?;
    }
    cleaning.map_or(Ok(()), |cleaning| cleaning.print(false))
}

/// What `/v1/topics/{name}` says of compaction and routing.
#[derive(Deserialize)]
struct TopicView {
    id: String,
    partitions: Vec<PartitionView>,
    routing: Option<RoutingView>,
}

/// How the records of a topic with a partitioner are routed.
#[derive(Deserialize, Serialize)]
struct RoutingView {
    partitioner: String,
    router: String,
    state: Option<String>,
    failure: Option<String>,
    unrouted_bytes: u64,
    unrouted_max_bytes: u64,
}

impl std::fmt::Display for RoutingView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RoutingView { partitioner, router, state, failure, unrouted_bytes, unrouted_max_bytes } = self;
        let state = state.as_deref().unwrap_or("starting");
        write!(
            f,
            "records are placed by {partitioner}: pipeline {router} is {state}, {unrouted_bytes} bytes of at most \
             {unrouted_max_bytes} wait for it"
        )?;
        failure.as_ref().map_or(Ok(()), |failure| write!(f, "\n{failure}"))
    }
}

#[derive(Deserialize)]
struct PartitionView {
    partition: i32,
    cleaning: Option<CleaningView>,
}

#[derive(Deserialize)]
struct CleaningView {
    dirty_ratio: f64,
    runs: u64,
    last_run_ms: Option<i64>,
    bytes_read: u64,
    bytes_written: u64,
    records_read: u64,
    records_written: u64,
    uncleanable: Option<String>,
}

/// What the HTTP port says of a topic. Kafka's protocol has no place for that.
fn view(http: &Http, name: &str, id: &str) -> Option<TopicView> {
    match HttpClient::new(http).get::<TopicView>(&format!("/v1/topics/{name}")) {
        Ok(view) if view.id == id => Some(view),
        Ok(_) => {
            note(&format!(
                "compaction and routing are not shown: {} is another broker's; --http-server says where",
                http.http_server
            ));
            None
        }
        Err(error) => {
            note(&format!(
                "compaction and routing are not shown: {error:#}; --http-server says where the HTTP port is"
            ));
            None
        }
    }
}

/// What the cleaner has done to a topic since the broker started.
fn cleaning(partitions: Vec<PartitionView>) -> Table {
    let columns = [
        "partition",
        "dirty",
        "cleans",
        "last clean ms",
        "bytes in",
        "bytes out",
        "records in",
        "records out",
        "problem",
    ];
    let mut table = Table::new(&columns);
    for PartitionView { partition, cleaning } in partitions {
        let Some(cleaning) = cleaning else { continue };
        table.row(vec![
            json!(partition),
            json!((cleaning.dirty_ratio * 1000.0).round() / 1000.0),
            json!(cleaning.runs),
            json!(cleaning.last_run_ms),
            json!(cleaning.bytes_read),
            json!(cleaning.bytes_written),
            json!(cleaning.records_read),
            json!(cleaning.records_written),
            json!(cleaning.uncleanable),
        ]);
    }
    table
}

/// Settings made on the topic itself.
pub(super) fn settings(client: &mut Client, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    let resource = DescribeConfigsResource {
        resource_type: RESOURCE_TOPIC,
        resource_name: name.to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let mut found = Vec::new();
    for result in client.send(&request)?.results {
        check_with(result.error_code, result.error_message.as_deref(), &format!("describe topic `{name}`"))?;
        for config in result.configs.into_iter().filter(|config| config.config_source == SOURCE_TOPIC) {
            found.push((config.name, config.value.unwrap_or_default()));
        }
    }
    Ok(found)
}

fn alter(
    kafka: &Kafka,
    name: &str,
    config: &[String],
    reset: &[String],
    partitions: Option<i32>,
) -> anyhow::Result<()> {
    if config.is_empty() && reset.is_empty() && partitions.is_none() {
        return Err(crate::report::usage(
            "nothing to alter: give --config KEY=VALUE, --reset KEY, --partitions N or --partitioner PLUGIN",
        ));
    }
    let mut configs = Vec::new();
    for setting in config {
        let (key, value) = super::key_value(setting)?;
        configs.push(operation(key, OPERATION_SET, Some(value)));
    }
    configs.extend(reset.iter().map(|key| operation(key, OPERATION_DELETE, None)));
    let mut client = connect(kafka)?;
    let what = format!("alter topic `{name}`");
    if !configs.is_empty() {
        let resource =
            AlterConfigsResource { resource_type: RESOURCE_TOPIC, resource_name: name.to_owned(), configs };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
        for result in client.send(&request)?.responses {
            check_with(result.error_code, result.error_message.as_deref(), &what)?;
        }
    }
    if let Some(count) = partitions {
        let topic = CreatePartitionsTopic { name: name.to_owned(), count, assignments: None };
        let request =
            CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
        for result in client.send(&request)?.results {
            check_with(result.error_code, result.error_message.as_deref(), &what)?;
        }
    }
    Ok(())
}

fn operation(key: &str, config_operation: i8, value: Option<&str>) -> AlterableConfig {
    AlterableConfig { name: key.to_owned(), config_operation, value: value.map(str::to_owned) }
}

fn delete(kafka: &Kafka, name: &str) -> anyhow::Result<()> {
    let request = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some(name.to_owned()), ..Default::default() }],
        timeout_ms: TIMEOUT_MS,
        ..Default::default()
    };
    let responses = connect(kafka)?.send(&request)?.responses;
    let result = responses
        .first()
        .ok_or_else(|| failed(format!("delete topic `{name}`: the response has no result")))?;
    check_with(result.error_code, result.error_message.as_deref(), &format!("delete topic `{name}`"))
}

pub(super) fn print_line(line: &str) -> anyhow::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}

pub(super) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print_line(&serde_json::to_string_pretty(value)?)
}
