//! `pelton serve`: the broker, until a signal or a failed disk.

use crate::cli;
use crate::compose;
use crate::report::{Exit, Failure};
use crate::settings;
use anyhow::Context;
use pelton_broker::{Broker, BrokerHandle, StartError};
use std::io::{IsTerminal, Write};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) fn run(args: &cli::Serve) -> anyhow::Result<()> {
    let config = settings::for_serve(args)?;
    log_to_stderr();
    let deps = compose::deps(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("pelton")
        .build()
        .context("start threads")?;
    let ended = runtime.block_on(async {
        let handle = Broker::start(config, deps).await.map_err(refused)?;
        ready(&handle)?;
        until_stopped(handle).await
    });
    if ended.is_err() {
        // Threads of pipelines may still run and use the runtime: dropping it would make them panic. The process ends them.
        std::mem::forget(runtime);
    }
    ended
}

/// Prints the line that scripts wait for, with the Kafka address first.
fn ready(handle: &BrokerHandle) -> anyhow::Result<()> {
    let http = handle.http_addr().map_or_else(|| "off".to_owned(), |addr| addr.to_string());
    let mut out = std::io::stdout().lock();
    let dir = handle.broker().config.data_dir.display().to_string();
    writeln!(
        out,
        "pelton {} is ready: kafka {}, http {http}, data in {dir}",
        env!("CARGO_PKG_VERSION"),
        handle.addr()
    )?;
    Ok(out.flush()?)
}

async fn until_stopped(handle: BrokerHandle) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for signals")?;
    tokio::select! {
        reason = handle.failed() => {
            return Err(Failure::new(Exit::Storage, format!("the disk failed: {reason}"))
                .hint("acknowledged records are on disk; check the disk, then start again: the start verifies the log")
                .into());
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    handle.shutdown().await.context("shut down")
}

fn refused(error: StartError) -> anyhow::Error {
    let exit = match &error {
        // To be solved by another configuration.
        StartError::Config(_) | StartError::NoToken(_) | StartError::Token(_) => Exit::Usage,
        StartError::Listen { .. }
        | StartError::ListenHttp { .. }
        | StartError::DataDir(_)
        | StartError::Transactions(_)
        | StartError::Groups(_)
        | StartError::Deployments(_)
        | StartError::Tables(_)
        | StartError::Cleaner(_) => Exit::Failed,
    };
    Failure::new(exit, error.to_string()).into()
}

/// The level is `RUST_LOG`, by default what an operator should see.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
