//! `pelton config`: checks a configuration, prints every key.

use super::topic::print_line;
use crate::cli;
use crate::settings;
use pelton_broker::{Config, topic_config};

pub(crate) fn run(command: &cli::Config) -> anyhow::Result<()> {
    match command {
        cli::Config::Check { config } => {
            settings::for_config(config.as_deref())?;
            print_line("the configuration is valid")
        }
        cli::Config::Print { config } => print(&settings::for_config(config.as_deref())?),
    }
}

/// Prints a file for `serve --config`: the keys that are set, and every other key as a comment with its default.
fn print(config: &Config) -> anyhow::Result<()> {
    for key in Config::keys() {
        entry(config, key.name, &key.default(), key.unit, key.meaning, key.range)?;
    }
    print_line("# Settings that topics have unless they set their own.\n")?;
    for setting in topic_config::with_broker_key() {
        entry(config, setting.broker_key, setting.default, unit(setting.kind), setting.meaning, None)?;
    }
    Ok(())
}

fn unit(kind: topic_config::Kind) -> &'static str {
    use topic_config::Kind;
    match kind {
        Kind::Int(..) | Kind::Level(..) | Kind::Long(..) => {
            "whole numbers (ms, bytes or a count, as its name says)"
        }
        Kind::Double(..) => "fractions",
        Kind::Bool | Kind::Always(_) => "bool",
        Kind::OneOf(_) => "one word",
        Kind::ListOf(_) | Kind::AnyList => "words with commas",
        Kind::Partitioner | Kind::OnError => "one word",
        Kind::Table => "TOML",
    }
}

fn entry(
    config: &Config,
    key: &str,
    default: &str,
    unit: &str,
    meaning: &str,
    range: Option<(i128, i128)>,
) -> anyhow::Result<()> {
    let range = range.map(|(low, high)| format!(", {low} to {high}")).unwrap_or_default();
    print_line(&format!("# {meaning}"))?;
    print_line(&format!("# In {unit}{range}. Default: {default}. Environment: {}", settings::variable(key)))?;
    let value = config.get(key).unwrap_or_default();
    let comment = if value == default { "# " } else { "" };
    print_line(&format!("{comment}\"{key}\" = {}\n", toml::Value::String(value)))
}
