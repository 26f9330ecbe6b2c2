//! Stores of plugins: what `plugin.toml` asks for, what `pipeline.toml` says of them, and what a node has in the end.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::values::Millis;
use crate::nearest;
use crate::operator::MAX_MS;

/// Stores of one node: each is a changelog topic, and a column family for each task.
pub const MAX_STORES: usize = 16;
/// Longer names do not fit beside a pipeline's and a node's into the name of a topic.
const MAX_NAME_LEN: usize = 64;
/// What timers are kept under.
const RESERVED: &str = "timers";

/// How the entries of a store are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// By key.
    #[default]
    KeyValue,
    /// By key and the start of a window. They are forgotten with time.
    Window,
}

impl StoreKind {
    /// As a manifest has it.
    pub fn name(self) -> &'static str {
        match self {
            StoreKind::KeyValue => "key-value",
            StoreKind::Window => "window",
        }
    }
}

/// What a `plugin.toml` says of a store that the plugin works with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreNeed {
    /// How its entries are found.
    pub kind: StoreKind,
    /// How long a window is kept where the pipeline does not say; none: the pipeline must.
    pub retention: Option<Millis>,
    /// What the entries mean, as a number that the author raises when it is something else: state of another number is
    /// not read.
    pub format: u32,
    /// One line about it.
    pub doc: String,
}

/// What a `pipeline.toml` says of a store of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreGrant {
    /// How its entries are found; none: as the plugin says, or by key.
    pub kind: Option<StoreKind>,
    /// How long a window is kept.
    pub retention: Option<Millis>,
}

/// A store of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStoreSpec {
    /// What the plugin calls it.
    pub name: String,
    /// How long a window is kept, in milliseconds; none: entries are found by key.
    pub retention_ms: Option<i64>,
    /// See [`StoreNeed::format`].
    pub format: u32,
}

/// Stores that a node cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The plugin works with others.
    #[error("stores.{store} is not a store of the plugin; {hint}")]
    Unknown {
        /// The store.
        store: String,
        /// The nearest known one, or all of them.
        hint: String,
    },
    /// The plugin wants another kind.
    #[error(
        "stores.{store} is of the kind \"{given}\", but the plugin works with one of the kind \"{wanted}\""
    )]
    Kind {
        /// The store.
        store: String,
        /// What the pipeline says.
        given: &'static str,
        /// What the plugin says.
        wanted: &'static str,
    },
    /// Nobody says when windows are forgotten.
    #[error(
        "stores.{store} has windows, and nobody says how long they are kept: add retention = \"1d\", say"
    )]
    NoRetention {
        /// The store.
        store: String,
    },
    /// Entries that are found by key stay.
    #[error("stores.{store} has a retention, which is for stores of the kind \"window\"")]
    Retention {
        /// The store.
        store: String,
    },
    /// The plugin's world has no state.
    #[error("stores are for plugins with state, and this one is of the world `{world}`, which keeps nothing")]
    KeepsNothing {
        /// The world.
        world: &'static str,
    },
    /// More than [`MAX_STORES`].
    #[error("{0} stores are too many for one node: it may have {MAX_STORES}")]
    TooMany(usize),
    /// The plugin could keep nothing.
    #[error(
        "its plugin is of the world `{world}` and is given no store: add stores = {{ NAME = {{}} }} with the names that it \
         uses (its plugin.toml names none)"
    )]
    None {
        /// The world.
        world: &'static str,
    },
}

impl StoreNeed {
    /// Whether there can be such a store, by itself.
    ///
    /// # Errors
    /// Why not, as a text that follows its name.
    pub(crate) fn check(&self, name: &str) -> Result<(), String> {
        check(name, self.retention)?;
        match (self.kind, self.retention) {
            (StoreKind::KeyValue, Some(_)) => {
                Err("has a retention, which is for the kind \"window\"".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl StoreGrant {
    /// The same.
    pub(super) fn check(&self, name: &str) -> Result<(), String> {
        check(name, self.retention)
    }
}

fn check(name: &str, retention: Option<Millis>) -> Result<(), String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ok = name.len() <= MAX_NAME_LEN
        && name.starts_with(word)
        && name.chars().all(|c| word(c) || matches!(c, '.' | '_' | '-'));
    if !ok {
        return Err(format!(
            "is no name: it must be 1 to {MAX_NAME_LEN} of a-z, 0-9, `.`, `_`, `-`, and begin with a letter or a digit"
        ));
    }
    if name == RESERVED {
        return Err("is a name that the server uses itself; choose another one".to_owned());
    }
    match retention {
        Some(kept) if !(1..=MAX_MS.unsigned_abs()).contains(&kept.ms()) => {
            Err(format!("has a retention of {} ms, but must have one of 1 to {MAX_MS} ms", kept.ms()))
        }
        _ => Ok(()),
    }
}

/// The stores of a node whose plugin needs `needs`, where it says so, and which the pipeline gives `given`. In the order
/// of names.
///
/// # Errors
/// What does not fit.
pub(crate) fn resolve(
    needs: &BTreeMap<String, StoreNeed>,
    given: &BTreeMap<String, StoreGrant>,
) -> Result<Vec<NodeStoreSpec>, StoreError> {
    let count = needs.len().max(given.len());
    if count > MAX_STORES {
        return Err(StoreError::TooMany(count));
    }
    if needs.is_empty() {
        let spec = |(name, grant): (&String, &StoreGrant)| one(name, &StoreNeed::default(), *grant, None);
        return given.iter().map(spec).collect();
    }
    if let Some(store) = given.keys().find(|store| !needs.contains_key(*store)) {
        let hint = nearest::hint(store, needs.keys().map(String::as_str));
        return Err(StoreError::Unknown { store: store.clone(), hint });
    }
    let spec = |(name, need): (&String, &StoreNeed)| {
        let grant = given.get(name).copied().unwrap_or_default();
        one(name, need, grant, Some(need.kind))
    };
    needs.iter().map(spec).collect()
}

fn one(
    name: &str,
    need: &StoreNeed,
    grant: StoreGrant,
    wanted: Option<StoreKind>,
) -> Result<NodeStoreSpec, StoreError> {
    let store = name.to_owned();
    let kind = match (grant.kind, wanted) {
        (Some(given), Some(wanted)) if given != wanted => {
            return Err(StoreError::Kind { store, given: given.name(), wanted: wanted.name() });
        }
        (given, wanted) => given.or(wanted).unwrap_or_default(),
    };
    let retention = grant.retention.or(need.retention);
    let retention_ms = match (kind, retention) {
        (StoreKind::KeyValue, Some(_)) => return Err(StoreError::Retention { store }),
        (StoreKind::KeyValue, None) => None,
        (StoreKind::Window, None) => return Err(StoreError::NoRetention { store }),
        // Checked to be at most MAX_MS.
        (StoreKind::Window, Some(kept)) => Some(i64::try_from(kept.ms()).unwrap_or(MAX_MS)),
    };
    Ok(NodeStoreSpec { name: store, retention_ms, format: need.format })
}

impl NodeStoreSpec {
    /// What its entries mean, for the plugin of this name: two revisions of a pipeline can share the store if they say the
    /// same. How long windows are kept changes nothing of what is there.
    pub(crate) fn shape(&self, plugin: Option<&str>) -> String {
        let entries = if self.retention_ms.is_some() { "windows" } else { "entries" };
        let plugin = plugin.map_or("a plugin without a name".to_owned(), |name| format!("plugin {name}"));
        format!("{entries} of {plugin}, format {}", self.format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(needs: &str, given: &str) -> Result<Vec<(String, Option<i64>, u32)>, String> {
        let needs: BTreeMap<String, StoreNeed> = toml::from_str(needs).expect("is TOML");
        let given: BTreeMap<String, StoreGrant> = toml::from_str(given).expect("is TOML");
        let stores = resolve(&needs, &given).map_err(|error| error.to_string())?;
        Ok(stores.into_iter().map(|store| (store.name, store.retention_ms, store.format)).collect())
    }

    #[test]
    fn a_node_has_what_its_plugin_needs_and_its_pipeline_gives() {
        let ok = |needs: &str, given: &str, expect: &[(&str, Option<i64>, u32)]| {
            let expect =
                expect.iter().map(|(name, kept, format)| ((*name).to_owned(), *kept, *format)).collect();
            assert_eq!(resolved(needs, given), Ok(expect), "{needs} {given}");
        };
        ok(
            "",
            "b = {}\na = { kind = 'window', retention = '1m' }",
            &[("a", Some(60_000), 0), ("b", None, 0)],
        );
        ok("a = { format = 3 }", "", &[("a", None, 3)]);
        let windows = "w = { kind = 'window', retention = '1d' }";
        ok(windows, "", &[("w", Some(86_400_000), 0)]);
        ok(windows, "w = { retention = '1s' }", &[("w", Some(1_000), 0)]);
        let fails = |needs: &str, given: &str, expect: &str| {
            assert_eq!(resolved(needs, given), Err(expect.to_owned()), "{needs} {given}");
        };
        fails("seen = {}", "sene = {}", "stores.sene is not a store of the plugin; did you mean `seen`?");
        fails(
            "seen = {}",
            "seen = { kind = 'window', retention = '1d' }",
            "stores.seen is of the kind \"window\", but the plugin works with one of the kind \"key-value\"",
        );
        fails(
            "w = { kind = 'window' }",
            "",
            "stores.w has windows, and nobody says how long they are kept: add retention = \"1d\", say",
        );
        fails(
            "",
            "a = { retention = '1d' }",
            "stores.a has a retention, which is for stores of the kind \"window\"",
        );
    }

    #[test]
    fn names_and_times_that_cannot_be() {
        let check = |name: &str, need: &str| toml::from_str::<StoreNeed>(need).expect("is TOML").check(name);
        assert_eq!(check("seen-2", "kind = 'window'\nretention = '1ms'"), Ok(()));
        for name in ["", "Seen", "-x", "a/b", &"x".repeat(65), "timers"] {
            assert!(check(name, "").is_err(), "{name}");
        }
        assert!(check("a", "kind = 'window'\nretention = '0s'").is_err());
        assert!(check("a", "retention = '1s'").is_err());
    }
}
