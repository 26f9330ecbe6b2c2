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

type Suite = fn(&Bench) -> anyhow::Result<()>;

/// In the order in which they run.
const SUITES: [(&str, Suite); 16] = [
    ("produce", produce::run),
    ("consume", consume::run),
    ("wide", wide::run),
    ("latency", latency::run),
    ("transform", transform::run),
    ("languages", languages::run),
    ("neighbours", neighbours::run),
    ("transactions", transactions::run),
    ("exactly-once", exactly_once::run),
    ("counts", counts::run),
    ("windows", windows::run),
    ("restore", restore::run),
    ("reads", reads::run),
    ("routing", routing::run),
    ("cleaner", cleaner::run),
    ("footprint", footprint::run),
];

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
    for given in &args.suites {
        let is_known = given == "kafka" || SUITES.iter().any(|(suite, _)| given == suite);
        anyhow::ensure!(is_known, "there is no suite `{given}`; --help names all");
    }
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
    if args.suites.iter().any(|given| given == "kafka") {
        kafka::run(&bench, kafka::Extent::new(args.rounds, args.quick))?;
        if args.suites.len() == 1 {
            return Ok(());
        }
    }
    println!("durability: group (an acknowledgement waits for the journal's sync); acks=all");
    raw::print_limits(&bench)?;
    for (suite, run) in SUITES {
        if args.suites.is_empty() || args.suites.iter().any(|given| given == suite) {
            run(&bench)?;
        }
    }
    Ok(())
}
