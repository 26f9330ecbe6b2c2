//! The change of a topic's own settings, as a pure function.

use crate::config::ConfigError;
use crate::topic_config::{self, Kind, Overrides};

/// A change of a topic's overrides.
#[derive(Clone, Debug)]
pub(crate) enum ConfigChange {
    /// The overrides become these (AlterConfigs).
    Replace(Overrides),
    /// The overrides are edited in this order (IncrementalAlterConfigs).
    Edit(Vec<ConfigEdit>),
}

/// An edit of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigEdit {
    pub(crate) name: String,
    pub(crate) operation: ConfigOperation,
    pub(crate) value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigOperation {
    Set,
    Delete,
    Append,
    Subtract,
}

impl ConfigChange {
    /// The overrides afterwards. `resolved` gives the value of a setting that the topic does not override.
    pub(super) fn apply(
        self,
        own: &Overrides,
        resolved: impl Fn(&str) -> Option<String>,
    ) -> Result<Overrides, ConfigError> {
        match self {
            ConfigChange::Replace(all) => Ok(all),
            ConfigChange::Edit(edits) => apply(own, &edits, resolved),
        }
    }

    /// Whether it sets a value, and does not only delete.
    pub(crate) fn sets(&self) -> bool {
        match self {
            ConfigChange::Replace(all) => !all.is_empty(),
            ConfigChange::Edit(edits) => edits.iter().any(|edit| edit.operation != ConfigOperation::Delete),
        }
    }
}

/// Applies edits to a topic's overrides. Appending to a list that the topic does not override appends to its `resolved`
/// value, as Kafka does.
fn apply(
    own: &Overrides,
    edits: &[ConfigEdit],
    resolved: impl Fn(&str) -> Option<String>,
) -> Result<Overrides, ConfigError> {
    let mut after = own.clone();
    for ConfigEdit { name, operation, value } in edits {
        match operation {
            // A setting that this version does not know can be deleted too (KIP-894).
            ConfigOperation::Delete => drop(after.remove(name)),
            ConfigOperation::Set | ConfigOperation::Append | ConfigOperation::Subtract => {
                let own = after.get(name).cloned();
                let value = changed(name, *operation, value.as_deref(), own, &resolved)?;
                after.insert(name.clone(), value);
            }
        }
    }
    Ok(after)
}

/// The new value of a setting.
fn changed(
    name: &str,
    operation: ConfigOperation,
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
    if operation == ConfigOperation::Set {
        return Ok(value.ok_or_else(|| bad("give a value, or delete the setting"))?.to_owned());
    }
    if !matches!(setting.kind, Kind::ListOf(_) | Kind::AnyList) {
        return Err(bad("only lists can be appended to and subtracted from; set it instead"));
    }
    let given = value.ok_or_else(|| bad("give what to append or subtract"))?;
    Ok(edit(&own.or_else(|| resolved(name)).unwrap_or_default(), given, operation))
}

fn edit(current: &str, given: &str, operation: ConfigOperation) -> String {
    let words = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut list = words(current);
    let given = words(given);
    if operation == ConfigOperation::Append {
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
    use super::ConfigOperation::{Append, Delete, Set, Subtract};
    use super::*;

    fn check(
        own: &[(&str, &str)],
        edits: &[(&str, ConfigOperation, Option<&str>)],
        expect: Result<&[(&str, &str)], &str>,
    ) {
        let map = |pairs: &[(&str, &str)]| -> Overrides {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let edits: Vec<_> = edits
            .iter()
            .map(|(name, operation, value)| {
                let (name, value) = ((*name).to_owned(), value.map(str::to_owned));
                ConfigEdit { name, operation: *operation, value }
            })
            .collect();
        let default = |name: &str| topic_config::by_name(name).map(|setting| setting.default.to_owned());
        let got = apply(&map(own), &edits, default).map_err(|error| error.to_string());
        match (got, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, map(expect)),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, expect) => panic!("got {got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn changes_are_made_in_order() {
        check(&[], &[("retention.ms", Set, Some("5"))], Ok(&[("retention.ms", "5")]));
        check(&[("retention.ms", "5")], &[("retention.ms", Delete, None)], Ok(&[]));
        check(&[], &[("retention.ms", Delete, None)], Ok(&[]));
        check(
            &[],
            &[("no.such", Delete, None), ("retention.ms", Set, Some("5"))],
            Ok(&[("retention.ms", "5")]),
        );
        check(&[("of.another.version", "x")], &[("of.another.version", Delete, None)], Ok(&[]));
        check(
            &[],
            &[("cleanup.policy", Append, Some("compact"))],
            Ok(&[("cleanup.policy", "delete,compact")]),
        );
        check(&[], &[("cleanup.policy", Append, Some("delete"))], Ok(&[("cleanup.policy", "delete")]));
        let both = [("cleanup.policy", "delete,compact")];
        check(&both, &[("cleanup.policy", Subtract, Some("delete"))], Ok(&[("cleanup.policy", "compact")]));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        check(&[], &[("retention.m", Set, Some("5"))], Err("did you mean `retention.ms`"));
        check(&[], &[("retention.ms", Set, None)], Err("give a value"));
        check(&[], &[("retention.ms", Append, Some("5"))], Err("only lists"));
    }
}
