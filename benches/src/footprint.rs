//! Resident memory, and exec to ready.

use crate::client::Conn;
use crate::server::Server;
use crate::{Bench, produce};
use std::time::Duration;

const PARTITIONS: i32 = 10_000;
/// Partitions that one CreateTopics asks for.
const TOPIC_PARTITIONS: i32 = 500;
/// Idle means: nothing was asked for so long.
const SETTLE: Duration = Duration::from_secs(2);
const MIB: f64 = (1 << 20) as f64;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    println!("\nfootprint");
    let server = Server::start(bench, "idle")?;
    let first = server.ready_after;
    std::thread::sleep(SETTLE);
    let idle = server.resident()?;
    println!("  empty: ready {:.0} ms after exec; resident {:.0} MiB idle", ms(first), idle as f64 / MIB);
    Conn::open(&server.address)?.create_topic("load", 100)?;
    produce::load(bench, &server.address, 100, 1024, || server.cpu())?;
    println!("  after produce load (100 partitions): resident {:.0} MiB", server.resident()? as f64 / MIB);
    drop(server);

    let server = Server::start(bench, "many")?;
    let mut conn = Conn::open(&server.address)?;
    for topic in 0..PARTITIONS / TOPIC_PARTITIONS {
        conn.create_topic(&format!("many-{topic}"), TOPIC_PARTITIONS)?;
    }
    conn.create_topic("load", 100)?;
    produce::load(bench, &server.address, 100, 1024, || server.cpu())?;
    let data_dir = server.data_dir.clone();
    server.stop()?;
    let server = Server::open(&bench.binary, &data_dir)?;
    std::thread::sleep(SETTLE);
    println!(
        "  {PARTITIONS} partitions, clean start: ready {:.0} ms after exec; resident {:.0} MiB",
        ms(server.ready_after),
        server.resident()? as f64 / MIB
    );
    drop(server);
    let server = Server::open(&bench.binary, &data_dir)?;
    println!("  {PARTITIONS} partitions after kill -9: ready {:.0} ms after exec", ms(server.ready_after));
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
