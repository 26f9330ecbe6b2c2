//! A broker and nothing else: no command line, no HTTP, no plugins. For profiling, and to show how one is embedded.
//!
//! `cargo run --release -p pelton-broker --example broker_only -- data.dir=/tmp/data listen=127.0.0.1:9092`

use pelton_broker::{Broker, Config, Deps};
use tokio::signal::unix::{SignalKind, signal};

#[expect(clippy::print_stdout, reason = "the ready line is what a caller waits for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    let pairs: Vec<String> = std::env::args().skip(1).collect();
    let pairs = pairs.iter().map(|pair| pair.split_once('=').ok_or(format!("`{pair}` is no KEY=VALUE")));
    let config = Config::from_pairs(pairs.collect::<Result<Vec<_>, _>>()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let handle = Broker::start(config, Deps::default()).await?;
        println!("ready on {}", handle.addr());
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            reason = handle.failed() => return Err(reason.into()),
            signal = tokio::signal::ctrl_c() => signal?,
            _ = terminate.recv() => {}
        }
        Ok(handle.shutdown().await?)
    })
}
