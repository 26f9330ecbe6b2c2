//! The broker's configuration from its three places: a file, then the environment, then the command line; the later
//! wins.

use crate::cli;
use crate::report::{Exit, Failure, usage};
use pelton_broker::{Config, topic_config};
use std::path::Path;

/// A setting and the file, variable or flag that it is from, for errors.
struct Pair {
    key: String,
    value: String,
    place: String,
}

/// The configuration of `serve` from all three places.
pub(crate) fn for_serve(args: &cli::Serve) -> anyhow::Result<Config> {
    let mut pairs = file_and_environment(args.config.as_deref(), std::env::vars())?;
    let mut flag = |key: &str, value: Option<String>, name: &str| {
        if let Some(value) = value {
            pairs.push(Pair { key: key.to_owned(), value, place: name.to_owned() });
        }
    };
    flag("data.dir", args.data_dir.as_ref().map(|dir| dir.display().to_string()), "--data-dir");
    flag("listen", args.listen.clone(), "--listen");
    flag("advertise", args.advertise.clone(), "--advertise");
    flag("http.listen", args.http.clone(), "--http");
    flag("pelton.state.dir", args.state_dir.as_ref().map(|dir| dir.display().to_string()), "--state-dir");
    for setting in &args.set {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| usage(format!("--set `{setting}` is not KEY=VALUE")))?;
        pairs.push(Pair { key: key.to_owned(), value: value.to_owned(), place: "--set".to_owned() });
    }
    build(pairs)
}

/// A file and the environment, for `config check` and `config print`.
pub(crate) fn for_config(file: Option<&Path>) -> anyhow::Result<Config> {
    build(file_and_environment(file, std::env::vars())?)
}

fn build(pairs: Vec<Pair>) -> anyhow::Result<Config> {
    let mut config = Config::default();
    for Pair { key, value, place } in pairs {
        config.set(&key, &value).map_err(|error| usage(format!("{place}: {error}")))?;
    }
    config.check().map_err(|error| usage(error.to_string()))?;
    Ok(config)
}

fn file_and_environment(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    if let Some(path) = file {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(Exit::Usage, format!("read the configuration {place}: {error}")))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::new(Exit::Usage, format!("{place}: {error}"))
                .hint("a key that is the beginning of another one is written in quotes, as \"max.connections\" = 100")
        })?;
        flatten(&table, "", &place, &mut pairs)?;
    }
    let variables: Vec<(String, String)> = environment.collect();
    for key in known_keys() {
        let name = variable(&key);
        if let Some((_, value)) = variables.iter().find(|(known, _)| *known == name) {
            pairs.push(Pair { key, value: value.clone(), place: name });
        }
    }
    Ok(pairs)
}

fn known_keys() -> Vec<String> {
    let own = Config::keys().map(|key| key.name.to_owned());
    own.chain(topic_config::broker_keys().map(str::to_owned)).collect()
}

/// The environment variable of a key: `PELTON_`, then the key in capitals with `_` for `.`, without the prefix
/// `pelton.`.
pub(crate) fn variable(key: &str) -> String {
    let key = key.strip_prefix("pelton.").unwrap_or(key);
    format!("PELTON_{}", key.to_uppercase().replace(['.', '-'], "_"))
}

/// Joins the keys of nested tables: `num.partitions = 4` is a table in a table in TOML.
fn flatten(table: &toml::Table, prefix: &str, place: &str, pairs: &mut Vec<Pair>) -> anyhow::Result<()> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let value = match value {
            toml::Value::Table(inner) => {
                flatten(inner, &key, place, pairs)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                return Err(usage(format!("{place}: `{key}` must be a text, a number, true or false")));
            }
        };
        pairs.push(Pair { key, value, place: place.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pelton.toml");
        std::fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        file_and_environment(Some(&path), environment).and_then(build).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let found =
            config("num.partitions = 3\nlisten = \"127.0.0.1:9093\"\n", &[("PELTON_NUM_PARTITIONS", "5")]);
        let found = found.unwrap();
        assert_eq!((found.num_partitions, found.listen.port), (5, 9093));
        let quoted = config("\"max.connections\" = 7\n\"max.connections.per.ip\" = 2\n", &[]).unwrap();
        assert_eq!((quoted.max_connections, quoted.max_connections_per_ip), (7, 2));
    }

    #[test]
    fn our_own_keys_do_not_say_pelton_twice() {
        assert_eq!(variable("pelton.journal.max.bytes"), "PELTON_JOURNAL_MAX_BYTES");
        assert_eq!(variable("log.retention.ms"), "PELTON_LOG_RETENTION_MS");
        let names: std::collections::BTreeSet<String> =
            known_keys().iter().map(|key| variable(key)).collect();
        assert_eq!(names.len(), known_keys().len(), "every key has a variable of its own");
    }

    #[test]
    fn an_error_names_the_place_the_key_and_the_fix() {
        let error = config("num.partition = 3\n", &[]).unwrap_err();
        assert!(error.contains("pelton.toml") && error.contains("num.partitions"), "{error}");
        let error = config("", &[("PELTON_NUM_PARTITIONS", "none")]).unwrap_err();
        assert!(error.contains("PELTON_NUM_PARTITIONS") && error.contains("whole number"), "{error}");
        let error = config("listen = [1]\n", &[]).unwrap_err();
        assert!(error.contains("`listen` must be"), "{error}");
    }
}
