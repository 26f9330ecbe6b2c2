//! One file per subcommand. A command parses what clap does not, sends requests, and prints the results.

mod config;
mod consume;
mod deploy;
mod group;
mod log;
mod partitioning;
mod pipeline;
mod plugin;
mod produce;
mod replay;
mod serve;
mod table;
mod tables;
mod topic;

use crate::cli::{Cli, Command, Kafka};
use crate::report::{Exit, Failure, usage};
use anyhow::Context;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Topic(command) => topic::run(&command),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Group(command) => group::run(&command),
        Command::Plugin(command) => plugin::run(&command),
        Command::Deploy(args) => deploy::run(&args),
        Command::Pipeline(command) => pipeline::run(&command),
        Command::Replay(args) => replay::run(&args),
        Command::Table(command) => tables::run(&command),
        Command::Log(command) => log::run(&command),
        Command::Config(command) => config::run(&command),
    }
}

/// A librdkafka configuration with the user's `-X` options over our defaults.
fn client_config(kafka: &Kafka, options: &[String]) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.bootstrap_server).set("client.id", "pelton");
    config.set_log_level(RDKafkaLogLevel::Error);
    for option in options {
        let (key, value) = key_value(option)?;
        config.set(key, value);
    }
    produce::with_defaults(&mut config);
    Ok(config)
}

fn key_value(text: &str) -> anyhow::Result<(&str, &str)> {
    text.split_once('=').ok_or_else(|| usage(format!("`{text}` is not KEY=VALUE")))
}

/// A flag that Ctrl-C or a termination signal sets.
fn on_interrupt() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("watch for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                flag.store(true, Ordering::Relaxed);
            }
        })
        .context("watch for signals")?;
    Ok(stop)
}

fn unreachable(why: &str) -> anyhow::Error {
    Failure::new(Exit::Unreachable, format!("no broker answered: {why}"))
        .hint("is `pelton serve` running? --bootstrap-server says where")
        .into()
}
