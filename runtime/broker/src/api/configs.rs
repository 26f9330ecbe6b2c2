//! What DescribeConfigs, AlterConfigs and IncrementalAlterConfigs share: which resource is meant, and the change of a
//! topic's own settings as a pure function.

use std::collections::HashSet;

use pelton_wire::ErrorCode;

use super::error_map::Refused;
use crate::config::ConfigError;
use crate::topic_config::{self, Kind, Overrides};

/// Kafka's numbers of resource types.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Topic(String),
    Broker,
}

impl Resource {
    /// Reads a resource of a request. Brokers are named by their number; an empty name means all of them.
    pub(super) fn parse(kind: i8, name: &str, node: i32) -> Result<Resource, Refused> {
        match kind {
            TOPIC => Ok(Resource::Topic(name.to_owned())),
            BROKER if name.is_empty() || name.parse() == Ok(node) => Ok(Resource::Broker),
            BROKER => {
                let why = format!("there is no broker `{name}`; this is broker {node}");
                Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
            }
            other => {
                let why =
                    format!("resource type {other} has no settings here; topics (2) and brokers (4) have");
                Err(Refused::new(ErrorCode::INVALID_REQUEST, why))
            }
        }
    }
}

/// What clients are told who try to change the broker's settings.
pub(super) fn broker_is_read_only() -> Refused {
    let why = "the broker's settings are in its configuration file; change them there and start it again";
    Refused::new(ErrorCode::INVALID_REQUEST, why)
}

/// One change, as IncrementalAlterConfigs numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl Operation {
    pub(super) fn from_wire(code: i8) -> Option<Operation> {
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
pub(super) fn check_given<'a>(given: impl Iterator<Item = (&'a str, bool)>) -> Result<(), Refused> {
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
pub(super) fn apply(
    own: &Overrides,
    changes: &[(String, Operation, Option<String>)],
    resolved: impl Fn(&str) -> Option<String>,
) -> Result<Overrides, ConfigError> {
    let mut after = own.clone();
    for (name, operation, value) in changes {
        let setting = topic_config::by_name(name).ok_or_else(|| unknown(name))?;
        let bad = |fix: &str| ConfigError::BadValue {
            key: name.clone(),
            value: value.clone().unwrap_or_default(),
            fix: fix.to_owned(),
        };
        let is_list = matches!(setting.kind, Kind::ListOf(_) | Kind::AnyList);
        match operation {
            Operation::Delete => drop(after.remove(name)),
            Operation::Set => {
                let value = value.clone().ok_or_else(|| bad("give a value, or delete the setting"))?;
                after.insert(name.clone(), value);
            }
            Operation::Append | Operation::Subtract if !is_list => {
                return Err(bad("only lists can be appended to and subtracted from; set it instead"));
            }
            Operation::Append | Operation::Subtract => {
                let given = value.clone().ok_or_else(|| bad("give what to append or subtract"))?;
                let current = after.get(name).cloned().or_else(|| resolved(name)).unwrap_or_default();
                after.insert(name.clone(), edit(&current, &given, *operation));
            }
        }
    }
    Ok(after)
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
    fn a_broker_is_named_by_its_number() {
        assert_eq!(Resource::parse(4, "1", 1), Ok(Resource::Broker));
        assert_eq!(Resource::parse(4, "", 1), Ok(Resource::Broker));
        assert!(Resource::parse(4, "2", 1).unwrap_err().message.contains("this is broker 1"));
        assert_eq!(Resource::parse(2, "t", 1), Ok(Resource::Topic("t".to_owned())));
        assert!(Resource::parse(8, "x", 1).is_err());
    }
}
