//! Macro benches: a built `pelton` under load, beside the raw limit of the same minute.
#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod cleaner;
mod client;
mod consume;
mod counts;
mod exactly_once;
mod footprint;
mod kafka;
mod languages;
mod latency;
mod neighbours;
mod produce;
mod raw;
mod reads;
mod restore;
mod routing;
mod server;
mod stats;
mod transactions;
mod transform;
mod wide;
mod windows;

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Measures a built pelton. Every figure stands beside a raw limit that was measured in the same run.
#[derive(Debug, Parser)]
struct Args {
    /// The binary to measure
    #[arg(long)]
    binary: PathBuf,
    /// Where data goes: the disk that is measured
    #[arg(long, env = "PELTON_BENCH_DIR")]
    dir: Option<PathBuf>,
    /// Seconds per measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Sizes of records in bytes
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1024])]
    sizes: Vec<usize>,
    /// Numbers of partitions to produce to
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 1000])]
    partitions: Vec<i32>,
    /// Rounds beside Apache Kafka
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Beside Apache Kafka, only 1 KiB records over 100 partitions, and less of everything
    #[arg(long)]
    quick: bool,
    /// produce, consume, wide, latency, transform, languages, neighbours, transactions, exactly-once, counts, windows, restore, reads, routing, cleaner, footprint [default: all of these], kafka
    suites: Vec<String>,
}

/// What every suite needs.
struct Bench {
    binary: PathBuf,
    dir: tempfile::TempDir,
    time: Duration,
    sizes: Vec<usize>,
    partitions: Vec<i32>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let base = args
        .dir
        .unwrap_or_else(|| std::env::var_os("PELTON_CACHE").map_or_else(std::env::temp_dir, PathBuf::from));
    let bench = Bench {
        binary: args.binary,
        dir: tempfile::Builder::new().prefix("bench.").tempdir_in(base)?,
        time: Duration::from_secs(args.seconds),
        sizes: args.sizes,
        partitions: args.partitions,
    };
    let wanted = |suite: &str| args.suites.is_empty() || args.suites.iter().any(|given| given == suite);
    if args.suites.iter().any(|given| given == "kafka") {
        kafka::run(&bench, kafka::Extent::new(args.rounds, args.quick))?;
        if args.suites.len() == 1 {
            return Ok(());
        }
    }
    println!("durability: group (an acknowledgement waits for the journal's sync); acks=all");
    raw::print_limits(&bench)?;
    if wanted("produce") {
        produce::run(&bench)?;
    }
    if wanted("consume") {
        consume::run(&bench)?;
    }
    if wanted("wide") {
        wide::run(&bench)?;
    }
    if wanted("latency") {
        latency::run(&bench)?;
    }
    if wanted("transform") {
        transform::run(&bench)?;
    }
    if wanted("languages") {
        languages::run(&bench)?;
    }
    if wanted("neighbours") {
        neighbours::run(&bench)?;
    }
    if wanted("transactions") {
        transactions::run(&bench)?;
    }
    if wanted("exactly-once") {
        exactly_once::run(&bench)?;
    }
    if wanted("counts") {
        counts::run(&bench)?;
    }
    if wanted("windows") {
        windows::run(&bench)?;
    }
    if wanted("restore") {
        restore::run(&bench)?;
    }
    if wanted("reads") {
        reads::run(&bench)?;
    }
    if wanted("routing") {
        routing::run(&bench)?;
    }
    if wanted("cleaner") {
        cleaner::run(&bench)?;
    }
    if wanted("footprint") {
        footprint::run(&bench)?;
    }
    Ok(())
}
