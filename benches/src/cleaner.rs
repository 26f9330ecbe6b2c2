//! What compaction costs producers: latency beside the log cleaner at work, and without, on the same broker.

use crate::Bench;
use crate::client::Conn;
use crate::counts::{self, Keys, Spread};
use crate::latency::{self, Path};
use crate::server::Server;
use crate::stats::Latencies;
use anyhow::ensure;
use std::time::{Duration, Instant};

/// Keys of the topic that is cleaned, and how often each comes.
const KEYS: u32 = 1_000_000;
const RECORDS: u64 = 16_000_000;
/// Small, so that all but the last of each partition is cleaned.
const SEGMENT_BYTES: &str = "67108864";
/// Until then nothing is cleaned.
const NEVER: &str = "9223372036854775807";
/// A pace that a small server is asked for.
const RECORDS_PER_S: u32 = 5_000;
/// Measurements of either kind, in turn.
const ROUNDS: usize = 3;
/// The cleaner looks every 15 s what is due.
const BEGINS_WITHIN: Duration = Duration::from_secs(40);

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\ncleaner: end to end at {RECORDS_PER_S} records/s of 100 B, beside a topic of {RECORDS} records of {KEYS} keys that \
         is compacted at the default pace"
    );
    let (mut without, mut beside) = (Latencies::default(), Latencies::default());
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let server = Server::with_http(bench, &format!("cleaner-{round}"))?;
        let mut conn = Conn::open(&server.address)?;
        let configs = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", SEGMENT_BYTES),
            ("min.compaction.lag.ms", NEVER),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        conn.create_topic_with("in", counts::PARTITIONS, &configs)?;
        counts::fill(&server.address, Keys::new(Spread::Uniform, KEYS)?, RECORDS)?;
        let measure = |input: &str| -> anyhow::Result<Latencies> {
            Conn::open(&server.address)?.create_topic(input, 1)?;
            let path = Path { address: &server.address, input, output: input, records_per_s: RECORDS_PER_S };
            latency::measure(bench, &path)
        };
        without.merge(measure("without")?);
        server.command(&["topic", "alter", "in", "--config", "min.compaction.lag.ms=0"])?;
        let asked = Instant::now();
        while cleaned_bytes(&server)? == 0 {
            ensure!(asked.elapsed() < BEGINS_WITHIN, "the cleaner does not begin");
            std::thread::sleep(Duration::from_millis(50));
        }
        // What it read is told when a partition is done.
        let (before, began) = (cleaned_bytes(&server)?, Instant::now());
        beside.merge(measure("beside")?);
        let mut after = cleaned_bytes(&server)?;
        while after == before {
            ensure!(began.elapsed() < BEGINS_WITHIN, "nothing was cleaned meanwhile");
            std::thread::sleep(Duration::from_millis(50));
            after = cleaned_bytes(&server)?;
        }
        rates.push((after - before) as f64 / 1e6 / began.elapsed().as_secs_f64());
        let data_dir = server.data_dir.clone();
        drop(server);
        std::fs::remove_dir_all(data_dir)?;
    }
    println!(
        "  without: {}\n  beside:  {}  (it read {:.0} MB/s)  p99 {:.2} of that without",
        without.text(),
        beside.text(),
        rates.iter().sum::<f64>() / rates.len() as f64,
        beside.ms(0.99) / without.ms(0.99),
    );
    Ok(())
}

/// Bytes that the cleaner has read of the topic so far.
fn cleaned_bytes(server: &Server) -> anyhow::Result<u64> {
    let text = server.command(&["topic", "describe", "in", "--json"])?;
    let numbers = text.lines().filter_map(|line| line.trim().strip_prefix("\"bytes_in\": "));
    let numbers = numbers.map(|number| number.trim_end_matches(',').parse::<u64>());
    Ok(numbers.sum::<Result<u64, _>>()?)
}
