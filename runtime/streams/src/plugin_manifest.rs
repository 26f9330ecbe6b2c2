//! `plugin.toml`: the description of a plugin. `pelton plugin build` puts it into the component, so that one digest
//! names code and description.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::limits::{LimitsSpec, PluginLimits};
use crate::manifest::stores::StoreNeed;
use crate::manifest::{ManifestError, from_toml};
use crate::nearest;
use crate::world::World;

/// Outputs that one plugin may have.
const MAX_OUTPUTS: usize = 64;
/// The output of a plugin that names none.
pub const DEFAULT_OUTPUT_NAME: &str = "main";

/// A parsed `plugin.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginManifest {
    /// The name that a pipeline gives for it.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// The world of `pelton:plugin` it is built for: `transform`.
    pub world: String,
    /// One line about it.
    #[serde(default)]
    pub description: String,
    /// The fields of a record that it reads. The others are not copied into the plugin; an answer can still inherit
    /// them.
    #[serde(default = "all_fields")]
    pub needs: Vec<Field>,
    /// The names of its outputs, in the order of `route`.
    #[serde(default = "one_output")]
    pub outputs: Vec<String>,
    /// Its settings.
    #[serde(default)]
    pub config: BTreeMap<String, ConfigKey>,
    /// The stores that it works with, which its node has.
    #[serde(default)]
    pub stores: BTreeMap<String, StoreNeed>,
    /// What the values of an aggregator mean, as a number that the author raises when it is something else: state of another
    /// number is not read.
    #[serde(default)]
    pub format: u32,
    /// Its limits where the pipeline sets none.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// The hosts that it asks for. Asking grants nothing.
    #[serde(default)]
    pub network: Network,
    /// How `pelton plugin build` builds it. A server does not look at it.
    #[serde(default)]
    pub build: Build,
}

/// How a plugin is built, where the files in its directory do not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The language.
    pub lang: Option<Lang>,
    /// The file to begin with, from the directory of `plugin.toml`.
    pub entry: Option<String>,
    /// The directory of the language's SDK, from there too.
    pub sdk: Option<String>,
}

/// A language that `pelton plugin` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Rust.
    Rust,
    /// Python.
    Python,
    /// JavaScript and TypeScript.
    Js,
    /// C.
    C,
    /// Go.
    Go,
}

impl Lang {
    /// All of them.
    pub const ALL: [Lang; 5] = [Lang::Rust, Lang::Python, Lang::Js, Lang::C, Lang::Go];

    /// The name that `plugin.toml` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Lang::Rust => "rust",
            Lang::Python => "python",
            Lang::Js => "js",
            Lang::C => "c",
            Lang::Go => "go",
        }
    }

    /// The language of that name.
    pub fn named(name: &str) -> Option<Lang> {
        Lang::ALL.into_iter().find(|lang| lang.name() == name)
    }
}

impl std::fmt::Display for Lang {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A field of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Field {
    /// The key.
    Key,
    /// The value.
    Value,
    /// The headers.
    Headers,
}

/// One setting of a plugin.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigKey {
    /// The type of its values.
    #[serde(rename = "type")]
    pub kind: ConfigType,
    /// The value if the pipeline does not set it. Without a default the pipeline must.
    pub default: Option<toml::Value>,
    /// One line about it.
    #[serde(default)]
    pub doc: String,
}

/// The type of a setting. It reaches the plugin as text: `true`, `-5`, `0.5`, or the string as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConfigType {
    /// Any text.
    String,
    /// `true` or `false`.
    Bool,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Float,
}

/// The network access that a plugin asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Host names.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// Settings of a node that do not fit its plugin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The plugin has no such setting.
    #[error("config.{key} is not a setting of the plugin; {hint}")]
    Unknown {
        /// The key.
        key: String,
        /// The nearest known key, or all of them.
        hint: String,
    },
    /// The plugin needs it.
    #[error("config.{key} is missing, and the plugin has no default for it")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of another type.
    #[error("config.{key} is {given}, but must be {expect}")]
    WrongType {
        /// The key.
        key: String,
        /// What was given.
        given: String,
        /// What would be right.
        expect: &'static str,
    },
}

fn all_fields() -> Vec<Field> {
    vec![Field::Key, Field::Value, Field::Headers]
}

fn one_output() -> Vec<String> {
    vec![DEFAULT_OUTPUT_NAME.to_owned()]
}

impl PluginManifest {
    /// Parses and checks a `plugin.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, named by its key.
    pub fn parse(text: &str) -> Result<PluginManifest, ManifestError> {
        if text.len() > crate::manifest::MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { bytes: text.len() });
        }
        let manifest: PluginManifest = from_toml(text, "plugin.toml")?;
        let invalid = |at: &str, reason: String| Err(ManifestError::Invalid { at: at.to_owned(), reason });
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if manifest.name.is_empty() || manifest.name.len() > 64 || !manifest.name.chars().all(word) {
            return invalid(
                "name",
                format!("is `{}`, but must be 1 to 64 of a-z, 0-9, `.`, `_`, `-`", manifest.name),
            );
        }
        if manifest.outputs.is_empty() || manifest.outputs.len() > MAX_OUTPUTS {
            return invalid("outputs", format!("must name 1 to {MAX_OUTPUTS} outputs"));
        }
        for (i, output) in manifest.outputs.iter().enumerate() {
            if output.is_empty() || !output.chars().all(word) || manifest.outputs[..i].contains(output) {
                return invalid(
                    &format!("outputs[{i}]"),
                    format!("is `{output}`, but must be a new name of a-z, 0-9, `.`, `_`, `-`"),
                );
            }
        }
        let keeps_nothing = World::named(&manifest.world).is_some_and(|world| !world.needs_store());
        if keeps_nothing && !manifest.stores.is_empty() {
            return invalid("stores", format!("is for worlds with state, and not for `{}`", manifest.world));
        }
        for (name, store) in &manifest.stores {
            if let Err(reason) = store.check(name) {
                return invalid(&format!("stores.{name}"), reason);
            }
        }
        for (key, setting) in &manifest.config {
            if let Some(default) = &setting.default
                && let Err(error) = setting.kind.text(key, default)
            {
                return invalid(&format!("config.{key}.default"), format!("does not fit: {error}"));
            }
        }
        if let Err(error) = PluginLimits::resolve(&manifest.limits, &LimitsSpec::default()) {
            return invalid(&error.key_path(), error.reason());
        }
        Ok(manifest)
    }

    /// Whether it reads this field.
    pub fn needs(&self, field: Field) -> bool {
        self.needs.contains(&field)
    }

    /// The settings that the plugin is configured with: the given ones, checked, and defaults for the rest.
    ///
    /// # Errors
    /// What does not fit.
    pub fn configure(
        &self,
        given: &BTreeMap<String, toml::Value>,
    ) -> Result<Vec<(String, String)>, ConfigError> {
        if let Some(key) = given.keys().find(|key| !self.config.contains_key(*key)) {
            let hint = nearest::hint(key, self.config.keys().map(String::as_str));
            return Err(ConfigError::Unknown { key: key.clone(), hint });
        }
        let text = |(key, setting): (&String, &ConfigKey)| {
            let value = given.get(key).or(setting.default.as_ref());
            let value = value.ok_or_else(|| ConfigError::Missing { key: key.clone() })?;
            Ok((key.clone(), setting.kind.text(key, value)?))
        };
        self.config.iter().map(text).collect()
    }
}

/// The settings of a plugin without a `plugin.toml`: every one is passed as text.
///
/// # Errors
/// A value that is a list, a table or a date.
pub fn configure_untyped(
    given: &BTreeMap<String, toml::Value>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let text = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::String(text) => Ok((key.clone(), text.clone())),
        toml::Value::Boolean(_) | toml::Value::Integer(_) | toml::Value::Float(_) => {
            Ok((key.clone(), value.to_string()))
        }
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            Err(ConfigError::WrongType {
                key: key.clone(),
                given: value.to_string(),
                expect: "a string, a boolean or a number",
            })
        }
    };
    given.iter().map(text).collect()
}

impl ConfigType {
    fn text(self, key: &str, value: &toml::Value) -> Result<String, ConfigError> {
        match (self, value) {
            (ConfigType::String, toml::Value::String(text)) => Ok(text.clone()),
            (ConfigType::Bool, toml::Value::Boolean(_))
            | (ConfigType::Integer | ConfigType::Float, toml::Value::Integer(_))
            | (ConfigType::Float, toml::Value::Float(_)) => Ok(value.to_string()),
            _ => Err(ConfigError::WrongType {
                key: key.to_owned(),
                given: value.to_string(),
                expect: match self {
                    ConfigType::String => "a string",
                    ConfigType::Bool => "true or false",
                    ConfigType::Integer => "a whole number",
                    ConfigType::Float => "a number",
                },
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        name = "p"
        version = "1.0.0"
        world = "transform"
        needs = ["value"]
        limits = { memory = "8 MiB" }
        [config.drop]
        type = "bool"
        default = true
        [config.field]
        type = "string"
        [config.ratio]
        type = "float"
        default = 2
    "#;

    fn configure(given: &str) -> Result<Vec<(String, String)>, String> {
        let given: BTreeMap<String, toml::Value> = toml::from_str(given).expect("is TOML");
        let manifest = PluginManifest::parse(TEXT).expect("is valid");
        manifest.configure(&given).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_typed_and_have_defaults() {
        let pairs = |pairs: [(&str, &str); 3]| Ok(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec());
        assert_eq!(configure("field = 'x'"), pairs([("drop", "true"), ("field", "x"), ("ratio", "2")]));
        assert_eq!(
            configure("field = ''\ndrop = false\nratio = 0.5"),
            pairs([("drop", "false"), ("field", ""), ("ratio", "0.5")])
        );
        let fails = |given: &str, expect: &str| assert_eq!(configure(given), Err(expect.to_owned()));
        fails("", "config.field is missing, and the plugin has no default for it");
        fails("field = 'x'\ndrpo = true", "config.drpo is not a setting of the plugin; did you mean `drop`?");
        fails("field = 1", "config.field is 1, but must be a string");
        fails("field = 'x'\ndrop = 'yes'", "config.drop is \"yes\", but must be true or false");
    }

    #[test]
    fn defaults() {
        let manifest = PluginManifest::parse(TEXT).expect("is valid");
        assert_eq!(manifest.outputs, ["main"]);
        assert!(manifest.needs(Field::Value) && !manifest.needs(Field::Key));
        let bare = PluginManifest::parse("name='p'\nversion='1'\nworld='transform'").expect("is valid");
        assert_eq!(bare.build, Build::default());
        let built = PluginManifest::parse("name='p'\nversion='1'\nworld='transform'\nbuild.lang='js'");
        assert_eq!(built.expect("is valid").build.lang, Some(Lang::Js));
        assert!(bare.needs(Field::Headers));
    }

    #[test]
    fn what_is_refused() {
        let check = |extra: &str, expect: &str| {
            let text = format!("name='p'\nversion='1'\nworld='transform'\n{extra}");
            let got = PluginManifest::parse(&text).map_err(|error| error.to_string());
            assert_eq!(got.map(|_| ()), Err(expect.to_owned()));
        };
        check("need = ['key']", "`need` is not a key of plugin.toml (line 4); did you mean `needs`?");
        check("outputs = []", "`outputs` must name 1 to 64 outputs");
        check(
            "outputs = ['a', 'a']",
            "`outputs[1]` is `a`, but must be a new name of a-z, 0-9, `.`, `_`, `-`",
        );
        check(
            "config.x = { type = 'bool', default = 1 }",
            "`config.x.default` does not fit: config.x is 1, but must be true or false",
        );
        check("limits.memory = '4 GiB'", "`limits.memory` is 4 GiB, but must be between 64 KiB and 1 GiB");
        check("stores.seen = {}", "`stores` is for worlds with state, and not for `transform`");
        check(
            "limits.memory = '4 gib'",
            "`limits.memory`: `4 gib` must be a whole number and one of B, KiB, MiB, GiB, kB, MB, GB, as \"16 MiB\" (line 4)",
        );
    }

    #[test]
    fn untyped_settings_are_text() {
        let given: BTreeMap<String, toml::Value> =
            toml::from_str("a = 'x'\nb = 1\nc = true").expect("is TOML");
        let got = configure_untyped(&given).expect("fits");
        assert_eq!(got, [("a", "x"), ("b", "1"), ("c", "true")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let given: BTreeMap<String, toml::Value> = toml::from_str("a = [1]").expect("is TOML");
        assert!(configure_untyped(&given).is_err());
    }
}
