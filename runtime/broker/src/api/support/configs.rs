//! Helpers of DescribeConfigs, AlterConfigs and IncrementalAlterConfigs: the resource of a request, and the checks of
//! its settings.

use std::collections::HashSet;

use pelton_wire::ErrorCode;

use super::error_map::Refused;
use crate::admin::configs::ConfigOperation;

/// Kafka's config resource types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ResourceType {
    /// Every type, in the order in which Kafka lists resources.
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

/// The resource that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) enum Resource {
    Topic(String),
    /// This broker.
    Broker,
    /// The cluster-wide default of all brokers.
    EveryBroker,
    BrokerLogger,
    /// A subscription to metrics of clients.
    ClientMetrics,
    Group,
}

impl Resource {
    /// Parses a resource of a request. Brokers are named by node id; an empty name means all brokers.
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

    /// The name of the topic to change. Other resources have no settings: a request that only deletes (`sets` is false,
    /// as Kafka's reassignment tool does with throttles) succeeds with nothing to do, and a request that sets a value
    /// is refused.
    pub(in crate::api) fn changeable(self, sets: bool) -> Result<Option<String>, Refused> {
        let why = match self {
            Resource::Topic(name) => return Ok(Some(name)),
            _ if !sets => return Ok(None),
            Resource::Broker | Resource::EveryBroker => {
                "the broker's settings are in its configuration file; change them there and start it again"
            }
            Resource::BrokerLogger => {
                "log levels are set by the environment variable RUST_LOG when the broker starts"
            }
            Resource::ClientMetrics => "this broker does not collect metrics of clients",
            Resource::Group => {
                "groups have no settings of their own; the broker's `group.*` are those of all"
            }
        };
        Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
    }
}

/// The operation that IncrementalAlterConfigs gives this number.
pub(in crate::api) fn operation_of(code: i8) -> Option<ConfigOperation> {
    match code {
        0 => Some(ConfigOperation::Set),
        1 => Some(ConfigOperation::Delete),
        2 => Some(ConfigOperation::Append),
        3 => Some(ConfigOperation::Subtract),
        _ => None,
    }
}

/// Checks the settings of a request: no name twice, and no null value where one is needed. Null does not mean the
/// default in either API; Kafka refuses it.
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

#[cfg(test)]
mod tests {
    use super::*;

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
