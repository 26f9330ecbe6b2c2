//! DescribeConfigs: the settings of topics and of this broker, where each comes from, and what it means.

use pelton_wire::ErrorCode;
use pelton_wire::message::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use pelton_wire::message::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::configs::Resource;
use super::error_map::Refused;
use super::once::each_once;
use crate::broker::Broker;
use crate::config::Config;
use crate::reply::{Reply, RequestContext};
use crate::topic_config::{self, Kind, Setting, Source};

/// Kafka's numbers of config sources for the broker: in its file, nobody set it.
const SOURCE_STATIC_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// What of each setting is wanted.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

pub(crate) fn handle(cx: &RequestContext, request: DescribeConfigsRequest) -> Reply<DescribeConfigsResponse> {
    let wanted = Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let asked = |resource: &DescribeConfigsResource| {
        let keys = resource.configuration_keys.clone().filter(|keys| !keys.is_empty());
        (resource.resource_type, resource.resource_name.clone(), keys)
    };
    let resources = each_once(request.resources, asked).into_iter();
    let results = resources.map(|resource| describe(&cx.broker, resource, wanted));
    Reply::ready(DescribeConfigsResponse { results: results.collect(), ..Default::default() })
}

fn describe(broker: &Broker, asked: DescribeConfigsResource, wanted: Wanted) -> DescribeConfigsResult {
    let keys = asked.configuration_keys.as_deref();
    let found = Resource::parse(asked.resource_type, &asked.resource_name, broker.config.node_id).and_then(
        |resource| match resource {
            Resource::Topic(name) => topic(broker, &name, keys, wanted),
            Resource::Broker => Ok(of_broker(&broker.config, keys, wanted)),
        },
    );
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
    broker: &Broker,
    name: &str,
    keys: Option<&[String]>,
    wanted: Wanted,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let topic = broker.topics.get(name).ok_or_else(|| {
        Refused::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic `{name}`"))
    })?;
    let defaults = &broker.config.topic_defaults;
    let effective = topic_config::effective(defaults, &topic.overrides);
    let rows = effective.filter(|(setting, _, _)| is_wanted(keys, setting.name));
    Ok(rows
        .map(|(setting, value, source)| {
            let mut synonyms = Vec::new();
            if wanted.synonyms {
                let own = topic
                    .overrides
                    .get(setting.name)
                    .map(|value| (setting.name, value.as_str(), Source::Topic.code()));
                let set = defaults
                    .get(setting.name)
                    .map(|value| (setting.broker_key, value.as_str(), SOURCE_STATIC_BROKER));
                let built_in = Some((setting.broker_key, setting.default, SOURCE_DEFAULT));
                synonyms = [own, set, built_in].into_iter().flatten().map(synonym).collect();
            }
            DescribeConfigsResourceResult {
                name: setting.name.to_owned(),
                value: Some(value.to_owned()),
                config_source: source.code(),
                synonyms,
                config_type: type_of(setting),
                documentation: wanted.documentation.then(|| setting.meaning.to_owned()),
                ..Default::default()
            }
        })
        .collect())
}

fn of_broker(config: &Config, keys: Option<&[String]>, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let own = Config::keys().map(|key| (key.name, key.default(), key.meaning, broker_type(key.unit)));
    let of_topics = topic_config::settings()
        .iter()
        .map(|setting| (setting.broker_key, setting.default.to_owned(), setting.meaning, type_of(setting)));
    own.chain(of_topics)
        .filter(|(name, ..)| is_wanted(keys, name))
        .map(|(name, default, meaning, config_type)| {
            let value = config.get(name).unwrap_or_default();
            let config_source = if value == default { SOURCE_DEFAULT } else { SOURCE_STATIC_BROKER };
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
        })
        .collect()
}

/// Null keys ask for everything; so does an empty list, as Kafka's clients send it.
fn is_wanted(keys: Option<&[String]>, name: &str) -> bool {
    keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|key| key == name))
}

fn synonym((name, value, source): (&str, &str, i8)) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: name.to_owned(), value: Some(value.to_owned()), source }
}

/// Kafka's numbers of value types (`ConfigDef.Type` on the wire).
fn type_of(setting: &Setting) -> i8 {
    match setting.kind {
        Kind::Bool | Kind::Always(_) => 1,
        Kind::OneOf(_) => 2,
        Kind::Int(..) => 3,
        Kind::Long(..) => 5,
        Kind::Double(..) => 6,
        Kind::ListOf(_) | Kind::AnyList => 7,
    }
}

fn broker_type(unit: &str) -> i8 {
    match unit {
        "bool" => 1,
        "ms" | "bytes" | "us" | "count" | "minutes" => 5,
        _ => 2,
    }
}
