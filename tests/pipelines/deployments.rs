//! Components that were pushed are in the log, not in memory.

use crate::lab::{Lab, Pipe, path, until_committed, until_state};
use anyhow::{Context, Result, ensure};
use pelton_tests::broker::Broker;
use pelton_tests::load::create_topic;
use pelton_tests::records::produce;

/// Components that are pushed, each of this size but for the code.
const PUSHED: usize = 20;
const PADDING: usize = 6 << 20;
/// What the broker may grow by: a few components, not all of them.
const GROWTH_MAX: u64 = 72 << 20;

/// The component with a custom section of its own: the same code under another digest.
fn padded(component: &[u8], n: usize) -> Vec<u8> {
    const NAME: &[u8] = b"padding";
    let mut bytes = component.to_vec();
    let mut size = 1 + NAME.len() + PADDING;
    bytes.push(0);
    // LEB128
    loop {
        let low = (size & 0x7f) as u8;
        size >>= 7;
        bytes.push(if size == 0 { low } else { low | 0x80 });
        if size == 0 {
            break;
        }
    }
    bytes.push(NAME.len() as u8);
    bytes.extend_from_slice(NAME);
    let mut state = n as u64 + 1;
    bytes.extend((0..PADDING).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    }));
    bytes
}

fn resident(broker: &Broker) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    let kib = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    Ok(kib.context("RssAnon is no number")? << 10)
}

pub(crate) fn memory(lab: &Lab) -> Result<String> {
    // What waits for a checkpoint is in memory, whatever it is, so they come often here.
    let (mut start, broker, cli) = lab.start_as(|start| start.set("pelton.checkpoint.bytes", 1 << 20))?;
    cli.ok(&["plugin", "push", path(&lab.component)])?;
    let address = broker.address.clone();
    create_topic(&address, "in", 1, &[])?;
    lab.deploy(&cli, Pipe::new("first", "in", "out"))?;
    produce(&address, "in", 0, &["a"])?;
    until_committed(&cli, "first", &[1])?;
    let component = std::fs::read(&lab.component)?;
    // The first one pays for what is kept between pushes.
    cli.ok(&["plugin", "push", &lab.write("padded.wasm", padded(&component, 0))?])?;
    let before = resident(&broker)?;
    for n in 1..=PUSHED {
        cli.ok(&["plugin", "push", &lab.write("padded.wasm", padded(&component, n))?])?;
    }
    let grown = resident(&broker)?.saturating_sub(before);
    ensure!(
        grown < GROWTH_MAX,
        "{PUSHED} components of {PADDING} bytes: the broker has grown by {grown} bytes"
    );
    // Each is whole in the log: the newest of the name is what a deployment takes, after a restart as well.
    broker.kill()?;
    let broker = start.start()?;
    let cli = lab.cli(&broker)?;
    let started = resident(&broker)?;
    ensure!(started < before + GROWTH_MAX, "{started} bytes after a restart, {before} before it");
    lab.deploy(&cli, Pipe::new("last", "in", "out-last"))?;
    until_committed(&cli, "last", &[1])?;
    let listed = cli.json(&["plugin", "list", "--json"])?;
    ensure!(listed.as_array().map(Vec::len) == Some(PUSHED + 2), "{listed}");
    let (first, last) = (cli.pipeline("first")?, cli.pipeline("last")?);
    ensure!(first["plugins"]["work"] != last["plugins"]["work"], "{first} {last}");
    until_state(&cli, "first", "running")?;
    broker.stop()?;
    Ok(format!(
        "{} MiB of components, {} MiB more memory, {} MiB after a restart",
        (PUSHED * PADDING) >> 20,
        grown >> 20,
        started >> 20
    ))
}
