//! Records counted by key and window through a pipeline, exactly once: in one window each, and in ten.

use crate::Bench;
use crate::client::Conn;
use crate::counts::{Keys, LIMIT, PARTITIONS, Spread, deploy_with, fill};
use crate::exactly_once::committed;
use crate::server::Server;
use anyhow::ensure;
use std::time::{Duration, Instant};

const KEYS: u32 = 100_000;
const RECORDS: u64 = 1_000_000;
/// How many windows a record is in, and which those are.
const WINDOWS: [(u64, &str); 4] = [
    (1, "{ tumbling = \"1h\" }"),
    (10, "{ hopping = \"1h\", advance = \"6m\" }"),
    (1, "{ tumbling = \"1h\", emit = \"on-close\" }"),
    (10, "{ hopping = \"1h\", advance = \"6m\", emit = \"on-close\" }"),
];

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nwindows: {RECORDS} records of {KEYS} keys counted by key and window, exactly once, {PARTITIONS} partitions"
    );
    for (index, (windows, window)) in WINDOWS.iter().enumerate() {
        let server = Server::with_http(bench, &format!("windows-{index}"))?;
        let mut conn = Conn::open(&server.address)?;
        conn.create_topic("in", PARTITIONS)?;
        conn.create_topic("out", PARTITIONS)?;
        fill(&server.address, Keys::new(Spread::Uniform, KEYS)?, RECORDS)?;
        let (cpu, started) = (server.cpu()?, Instant::now());
        deploy_with(bench, &server, &format!("\"count\"\nwindow = {window}"))?;
        while committed(&server, "counts")? < RECORDS {
            ensure!(started.elapsed() < LIMIT, "the pipeline has not come to its end in {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (time, cpu) = (started.elapsed(), server.cpu()?.saturating_sub(cpu));
        println!(
            "  {window}: {:>8.0} records/s, server CPU {:>6.0} ns/record, {:>5.0} ns/update | {:.0} MiB resident at most",
            RECORDS as f64 / time.as_secs_f64(),
            cpu.as_nanos() as f64 / RECORDS as f64,
            cpu.as_nanos() as f64 / (RECORDS * windows) as f64,
            server.peak()? as f64 / f64::from(1 << 20),
        );
        let data_dir = server.data_dir.clone();
        drop(server);
        std::fs::remove_dir_all(data_dir)?;
    }
    Ok(())
}
