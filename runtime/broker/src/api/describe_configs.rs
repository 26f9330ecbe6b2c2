//! DescribeConfigs: the settings of topics and of this broker, with sources and documentation. Other resource types
//! have no settings and get an empty answer, so that tools which ask about all of them go on.

use std::sync::Arc;

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use pelton_wire::message::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::context::RequestContext;
use super::parts::Cluster;
use super::reply::Reply;
use super::support::broker_settings::{DerivedKind, derived};
use super::support::configs::Resource;
use super::support::error_map::Refused;
use super::support::once::each_once;
use crate::admin::{Admin, TopicRef};
use crate::config::{Config, Key};
use crate::topic_config::{self, Effective, Kind, Setting, Source};

/// Most client metrics subscriptions that one request may ask about. Every name gets an answer, which is many times as
/// long as the name.
const SUBSCRIPTIONS_MAX: usize = 1000;

/// The optional parts of each setting that the request asks for.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

pub(crate) fn handle(
    cluster: &Arc<Cluster>,
    admin: &Arc<Admin>,
    _: &RequestContext,
    request: DescribeConfigsRequest,
) -> Reply<DescribeConfigsResponse> {
    let wanted = Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let asked = |resource: &DescribeConfigsResource| {
        let keys = resource.configuration_keys.clone().filter(|keys| !keys.is_empty());
        (resource.resource_type, resource.resource_name.clone(), keys)
    };
    let resources = each_once(request.resources, asked);
    let few = resources.len() <= SUBSCRIPTIONS_MAX;
    let results = resources.into_iter().map(|resource| describe(cluster, admin, resource, few, wanted));
    Reply::ready(DescribeConfigsResponse { results: results.collect(), ..Default::default() })
}

fn describe(
    cluster: &Cluster,
    admin: &Admin,
    asked: DescribeConfigsResource,
    few: bool,
    wanted: Wanted,
) -> DescribeConfigsResult {
    let keys = asked.configuration_keys.as_deref();
    let found =
        Resource::parse(asked.resource_type, &asked.resource_name, cluster.node.id).and_then(|resource| {
            match resource {
                Resource::Topic(name) => topic(admin, &name, keys, wanted),
                Resource::Broker => Ok(of_broker(cluster, keys, wanted)),
                // The broker has no dynamic settings.
                Resource::EveryBroker | Resource::BrokerLogger | Resource::Group => Ok(Vec::new()),
                Resource::ClientMetrics if few => Ok(of_client_metrics(keys, wanted)),
                Resource::ClientMetrics => {
                    let why = format!("ask about at most {SUBSCRIPTIONS_MAX} subscriptions at once");
                    Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
                }
            }
        });
    let (error_code, error_message, configs) = match found {
        Ok(configs) => (ErrorCode::NONE, None, configs),
        Err(Refused { code, message }) => (code, Some(message), Vec::new()),
    };
    DescribeConfigsResult {
        error_code,
        error_message,
        resource_type: asked.resource_type,
        resource_name: asked.resource_name,
        configs,
    }
}

fn topic(
    admin: &Admin,
    name: &str,
    keys: Option<&[String]>,
    wanted: Wanted,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let topic = admin.find_topic(TopicRef::Name(name))?;
    let settings = admin.settings(&topic.overrides).filter(|row| is_wanted(keys, row.setting.name));
    Ok(settings.map(|row| of_topic(&row, wanted)).collect())
}

fn of_topic(row: &Effective<'_>, wanted: Wanted) -> DescribeConfigsResourceResult {
    let Effective { setting, own, broker } = *row;
    let mut synonyms = Vec::new();
    if wanted.synonyms {
        let own = own.map(|value| (setting.name, value, Source::Topic.code()));
        let broker = broker.map(|value| (setting.broker_key, value, Source::Broker.code()));
        let built_in = if setting.broker_key.is_empty() { setting.name } else { setting.broker_key };
        let built_in = Some((built_in, setting.default, Source::Default.code()));
        synonyms = [own, broker, built_in].into_iter().flatten().map(synonym).collect();
    }
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: Some(row.value().to_owned()),
        read_only: setting.is_own(),
        config_source: row.source().code(),
        synonyms,
        config_type: type_of(setting),
        documentation: wanted.documentation.then(|| setting.meaning.to_owned()),
        ..Default::default()
    }
}

fn of_broker(
    cluster: &Cluster,
    keys: Option<&[String]>,
    wanted: Wanted,
) -> Vec<DescribeConfigsResourceResult> {
    let config = &cluster.config;
    let set = |name: &'static str, default: String, meaning: &'static str, config_type: i8| Row {
        name,
        value: config.get(name).unwrap_or_default(),
        default: Some(default),
        meaning,
        config_type,
    };
    let own = Config::keys().map(|key| set(key.name, key.default(), key.meaning, broker_type(key)));
    let of_topics = topic_config::with_broker_key().map(|setting| {
        set(setting.broker_key, setting.default.to_owned(), setting.meaning, type_of(setting))
    });
    let logs = cluster.log_dir.topics_path().display().to_string();
    let facts = derived(config, &cluster.node.advertised, &logs).into_iter().map(|fact| Row {
        name: fact.name,
        value: fact.value,
        default: None,
        meaning: fact.meaning,
        config_type: match fact.kind {
            DerivedKind::Text => TYPE_STRING,
            DerivedKind::Short => TYPE_SHORT,
            DerivedKind::Int => TYPE_INT,
            DerivedKind::List => TYPE_LIST,
        },
    });
    let rows = own.chain(of_topics).chain(facts).filter(|row| is_wanted(keys, row.name));
    rows.map(|row| row.answer(wanted)).collect()
}

/// A subscription has Kafka's defaults, with which no metric is collected.
fn of_client_metrics(keys: Option<&[String]>, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let row = |name, value: &str, meaning, config_type| Row {
        name,
        value: value.to_owned(),
        default: Some(value.to_owned()),
        meaning,
        config_type,
    };
    let rows = [
        row("interval.ms", "300000", "How often clients would send metrics.", TYPE_INT),
        row("match", "", "Which clients would send metrics.", TYPE_LIST),
        row("metrics", "", "Which metrics clients would send: none is collected here.", TYPE_LIST),
    ];
    rows.into_iter().filter(|row| is_wanted(keys, row.name)).map(|row| row.answer(wanted)).collect()
}

/// A setting that clients cannot change.
struct Row {
    name: &'static str,
    value: String,
    /// The default; `None` if the value follows from other settings.
    default: Option<String>,
    meaning: &'static str,
    config_type: i8,
}

impl Row {
    fn answer(self, wanted: Wanted) -> DescribeConfigsResourceResult {
        let Row { name, value, default, meaning, config_type } = self;
        let is_default = default.is_some_and(|default| default == value);
        let config_source = if is_default { Source::Default } else { Source::Broker }.code();
        let synonyms =
            if wanted.synonyms { vec![synonym((name, &value, config_source))] } else { Vec::new() };
        DescribeConfigsResourceResult {
            name: name.to_owned(),
            value: Some(value),
            read_only: true,
            config_source,
            synonyms,
            config_type,
            documentation: wanted.documentation.then(|| meaning.to_owned()),
            ..Default::default()
        }
    }
}

/// Null and an empty list of keys both ask for all settings.
fn is_wanted(keys: Option<&[String]>, name: &str) -> bool {
    keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key == name))
}

fn synonym((name, value, source): (&str, &str, i8)) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: name.to_owned(), value: Some(value.to_owned()), source }
}

/// Kafka's numbers of value types (`ConfigDef.Type` on the wire).
const TYPE_BOOLEAN: i8 = 1;
const TYPE_STRING: i8 = 2;
const TYPE_INT: i8 = 3;
const TYPE_SHORT: i8 = 4;
const TYPE_LONG: i8 = 5;
const TYPE_DOUBLE: i8 = 6;
const TYPE_LIST: i8 = 7;

fn type_of(setting: &Setting) -> i8 {
    match setting.kind {
        Kind::Bool | Kind::Always(_) => TYPE_BOOLEAN,
        Kind::OneOf(_) | Kind::Partitioner | Kind::Table | Kind::OnError => TYPE_STRING,
        Kind::Int(..) | Kind::Level(..) => TYPE_INT,
        Kind::Long(..) => TYPE_LONG,
        Kind::Double(..) => TYPE_DOUBLE,
        Kind::ListOf(_) | Kind::AnyList => TYPE_LIST,
    }
}

fn broker_type(key: &Key) -> i8 {
    match (key.unit, key.range) {
        ("bool", _) => TYPE_BOOLEAN,
        (_, Some((_, most))) if most <= i128::from(i32::MAX) => TYPE_INT,
        (_, Some(_)) => TYPE_LONG,
        (_, None) => TYPE_STRING,
    }
}
