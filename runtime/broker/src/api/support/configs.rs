//! What DescribeConfigs, AlterConfigs and IncrementalAlterConfigs share: which resource is meant, and the change of a
//! topic's own settings as a pure function.

use std::collections::HashSet;

use pelton_wire::ErrorCode;

use super::error_map::Refused;
use crate::config::ConfigError;
use crate::topic_config::{self, Kind, Overrides};

/// What can have settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ResourceType {
    /// Every one, in the order in which Kafka lists resources.
    pub(in crate::api) const ALL: [ResourceType; 5] = [
        ResourceType::Group,
        ResourceType::ClientMetrics,
        ResourceType::BrokerLogger,
        ResourceType::Broker,
        ResourceType::Topic,
    ];

    /// Kafka's number for it.
    pub(in crate::api) fn code(self) -> i8 {
        match self {
            ResourceType::Topic => 2,
            ResourceType::Broker => 4,
            ResourceType::BrokerLogger => 8,
            ResourceType::ClientMetrics => 16,
            ResourceType::Group => 32,
        }
    }

    pub(in crate::api) fn from_wire(code: i8) -> Option<ResourceType> {
        ResourceType::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) enum Resource {
    Topic(String),
    /// This broker.
    Broker,
    /// What all brokers have until one is told otherwise.
    EveryBroker,
    BrokerLogger,
    /// A subscription to metrics of clients.
    ClientMetrics,
    Group,
}

impl Resource {
    /// Reads a resource of a request. Brokers are named by their number; an empty name means all of them.
    pub(in crate::api) fn parse(code: i8, name: &str, node: i32) -> Result<Resource, Refused> {
        let refuse = |why: String| Err(Refused::new(ErrorCode::INVALID_REQUEST, why));
        let kind = ResourceType::from_wire(code);
        match kind {
            None => refuse(format!(
                "there is no resource type {code}: topics (2), brokers (4), broker loggers (8), client metrics (16) \
                 and groups (32) have settings"
            )),
            Some(ResourceType::Topic) => Ok(Resource::Topic(name.to_owned())),
            Some(ResourceType::Broker) if name.is_empty() => Ok(Resource::EveryBroker),
            Some(_) if name.is_empty() => refuse("the name of the resource is empty".to_owned()),
            Some(ResourceType::Broker) if name.parse() == Ok(node) => Ok(Resource::Broker),
            Some(ResourceType::BrokerLogger) if name.parse() == Ok(node) => Ok(Resource::BrokerLogger),
            Some(ResourceType::Broker | ResourceType::BrokerLogger) => {
                refuse(format!("there is no broker `{name}`; this is broker {node}"))
            }
            Some(ResourceType::ClientMetrics) => Ok(Resource::ClientMetrics),
            Some(ResourceType::Group) => Ok(Resource::Group),
        }
    }

    /// The name of the topic whose settings are to change. Of others nothing is ever set: who only deletes (`sets` is false,
    /// as the tool for reassignments does with throttles) has that, with nothing to do, and who sets something is refused.
    pub(in crate::api) fn changeable(self, sets: bool) -> Result<Option<String>, Refused> {
        let why = match self {
            Resource::Topic(name) => return Ok(Some(name)),
            _ if !sets => return Ok(None),
            Resource::Broker | Resource::EveryBroker => {
                "the broker's settings are in its configuration file; change them there and start it again"
            }
            Resource::BrokerLogger => {
                "what the broker logs is said by the environment variable RUST_LOG at its start"
            }
            Resource::ClientMetrics => "this broker does not collect metrics of clients",
            Resource::Group => {
                "groups have no settings of their own; the broker's `group.*` are those of all"
            }
        };
        Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
    }
}

/// One change, as IncrementalAlterConfigs numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Operation {
    pub(in crate::api) fn from_wire(code: i8) -> Option<Operation> {
        match code {
            0 => Some(Operation::Set),
            1 => Some(Operation::Delete),
            2 => Some(Operation::Append),
            3 => Some(Operation::Subtract),
            _ => None,
        }
    }
}

/// Checks what a request gives: each name once, and each that needs a value with one. Null stands for no default in either
/// API: Kafka refuses it, and so the client hears of it.
pub(in crate::api) fn check_given<'a>(given: impl Iterator<Item = (&'a str, bool)>) -> Result<(), Refused> {
    let (mut names, mut nulls) = (HashSet::new(), Vec::new());
    for (name, has_value) in given {
        if !names.insert(name) {
            let why = format!("`{name}` is changed twice in one request");
            return Err(Refused::new(ErrorCode::INVALID_REQUEST, why));
        }
        if !has_value {
            nulls.push(name);
        }
    }
    if nulls.is_empty() {
        return Ok(());
    }
    let why = format!("Null value not supported for : {}", nulls.join(", "));
    Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
}

/// Applies changes to a topic's own settings. `resolved` gives what a setting comes to without them: appending to a list
/// that nobody has set appends to its default, as Kafka does.
pub(in crate::api) fn apply(
    own: &Overrides,
    changes: &[(String, Operation, Option<String>)],
    resolved: impl Fn(&str) -> Option<String>,
) -> Result<Overrides, ConfigError> {
    let mut after = own.clone();
    for (name, operation, value) in changes {
        match operation {
            // Also one that no broker of this version knows: it is gone afterwards, as was asked for (KIP-894).
            Operation::Delete => drop(after.remove(name)),
            Operation::Set | Operation::Append | Operation::Subtract => {
                let own = after.get(name).cloned();
                let value = changed(name, *operation, value.as_deref(), own, &resolved)?;
                after.insert(name.clone(), value);
            }
        }
    }
    Ok(after)
}

/// What a setting becomes.
fn changed(
    name: &str,
    operation: Operation,
    value: Option<&str>,
    own: Option<String>,
    resolved: impl Fn(&str) -> Option<String>,
) -> Result<String, ConfigError> {
    let setting = topic_config::by_name(name).ok_or_else(|| unknown(name))?;
    let bad = |fix: &str| ConfigError::BadValue {
        key: name.to_owned(),
        value: value.unwrap_or_default().to_owned(),
        fix: fix.to_owned(),
    };
    if operation == Operation::Set {
        return Ok(value.ok_or_else(|| bad("give a value, or delete the setting"))?.to_owned());
    }
    if !matches!(setting.kind, Kind::ListOf(_) | Kind::AnyList) {
        return Err(bad("only lists can be appended to and subtracted from; set it instead"));
    }
    let given = value.ok_or_else(|| bad("give what to append or subtract"))?;
    Ok(edit(&own.or_else(|| resolved(name)).unwrap_or_default(), given, operation))
}

fn edit(current: &str, given: &str, operation: Operation) -> String {
    let words = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut list = words(current);
    let given = words(given);
    if operation == Operation::Append {
        let new: Vec<String> = given.into_iter().filter(|word| !list.contains(word)).collect();
        list.extend(new);
    } else {
        list.retain(|word| !given.contains(word));
    }
    list.join(",")
}

fn unknown(name: &str) -> ConfigError {
    let names = topic_config::settings().iter().map(|setting| setting.name);
    ConfigError::UnknownKey {
        key: name.to_owned(),
        nearest: crate::config::nearest(name, names).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        own: &[(&str, &str)],
        changes: &[(&str, i8, Option<&str>)],
        expect: Result<&[(&str, &str)], &str>,
    ) {
        let map = |pairs: &[(&str, &str)]| -> Overrides {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let changes: Vec<_> = changes
            .iter()
            .map(|(name, code, value)| {
                ((*name).to_owned(), Operation::from_wire(*code).unwrap(), value.map(str::to_owned))
            })
            .collect();
        let default = |name: &str| topic_config::by_name(name).map(|setting| setting.default.to_owned());
        let got = apply(&map(own), &changes, default).map_err(|error| error.to_string());
        match (got, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, map(expect)),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn changes_are_made_in_order() {
        check(&[], &[("retention.ms", 0, Some("5"))], Ok(&[("retention.ms", "5")]));
        check(&[("retention.ms", "5")], &[("retention.ms", 1, None)], Ok(&[]));
        check(&[], &[("retention.ms", 1, None)], Ok(&[]));
        check(&[], &[("no.such", 1, None), ("retention.ms", 0, Some("5"))], Ok(&[("retention.ms", "5")]));
        check(&[("of.another.version", "x")], &[("of.another.version", 1, None)], Ok(&[]));
        check(&[], &[("cleanup.policy", 2, Some("compact"))], Ok(&[("cleanup.policy", "delete,compact")]));
        check(&[], &[("cleanup.policy", 2, Some("delete"))], Ok(&[("cleanup.policy", "delete")]));
        let both = [("cleanup.policy", "delete,compact")];
        check(&both, &[("cleanup.policy", 3, Some("delete"))], Ok(&[("cleanup.policy", "compact")]));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        check(&[], &[("retention.m", 0, Some("5"))], Err("did you mean `retention.ms`"));
        check(&[], &[("retention.ms", 0, None)], Err("give a value"));
        check(&[], &[("retention.ms", 2, Some("5"))], Err("only lists"));
        assert_eq!(Operation::from_wire(4), None);
    }

    #[test]
    fn names_come_once_and_with_a_value() {
        let check = |given: &[(&str, bool)], expect: Option<&str>| {
            let refused = check_given(given.iter().copied()).err();
            assert_eq!(
                refused.as_ref().map(|r| (r.code, &*r.message)),
                expect.map(|m| (ErrorCode::INVALID_REQUEST, m))
            );
        };
        check(&[], None);
        check(&[("a", true), ("b", true)], None);
        check(&[("a", false), ("b", true), ("c", false)], Some("Null value not supported for : a, c"));
        check(&[("a", false), ("a", true)], Some("`a` is changed twice in one request"));
    }

    #[test]
    fn only_topics_can_be_changed() {
        assert_eq!(Resource::Topic("t".to_owned()).changeable(true), Ok(Some("t".to_owned())));
        for other in [Resource::Broker, Resource::EveryBroker, Resource::ClientMetrics, Resource::Group] {
            assert_eq!(other.clone().changeable(false), Ok(None));
            let refused = other.changeable(true).map_err(|refused| refused.code);
            assert_eq!(refused, Err(ErrorCode::INVALID_REQUEST));
        }
    }

    #[test]
    fn resources_are_named_as_kafka_names_them() {
        let check = |code: i8, name: &str, expect: Result<Resource, &str>| {
            let got = Resource::parse(code, name, 1);
            match (got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{code} {name}"),
                (Err(got), Err(part)) => {
                    assert_eq!(got.code, ErrorCode::INVALID_REQUEST);
                    assert!(got.message.contains(part), "{got:?}");
                }
                (got, expect) => panic!("{code} {name}: got {got:?}, expected {expect:?}"),
            }
        };
        check(2, "t", Ok(Resource::Topic("t".to_owned())));
        check(4, "1", Ok(Resource::Broker));
        check(4, "", Ok(Resource::EveryBroker));
        check(4, "2", Err("this is broker 1"));
        check(4, "x", Err("this is broker 1"));
        check(8, "1", Ok(Resource::BrokerLogger));
        check(8, "2", Err("this is broker 1"));
        check(8, "", Err("is empty"));
        check(16, "sub", Ok(Resource::ClientMetrics));
        check(16, "", Err("is empty"));
        check(32, "g", Ok(Resource::Group));
        check(32, "", Err("is empty"));
        check(64, "x", Err("no resource type 64: topics (2)"));
    }
}
