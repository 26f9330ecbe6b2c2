//! Real flights through the example's transform as Wasm, beside the same code as native, in the same driver: a stored
//! batch is read into columns, goes through the plugin, and what comes out is checked and built into a batch again.

use crate::Bench;
use anyhow::{Context, ensure};
use clean_flight::flight::{Columns as FlightColumns, Line};
use pelton_streams::log::NoLog;
use pelton_streams::{
    Answer, BatchIn, BatchOut, InstanceSpec, Plugin, PluginError, PluginFactory, PluginLimits, SlicesOut,
};
use pelton_wasm::toolchain::{BuildOptions, build};
use pelton_wasm::{Engine, EngineConfig};
use pelton_wire::record::{BatchBuilder, BatchOptions, BatchView, Columns, DecompressLimit, Header, Select};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records in a batch: about 16 KiB of flights would be 150; a client that loads a file sends more.
const BATCH_RECORDS: usize = 500;
/// Bytes that an answer may have: the example's own limit.
const OUTPUT_MAX: u64 = 16 << 20;
/// Rounds that are compared: each side runs once in each, so that a slow minute hits both.
const ROUNDS: u32 = 5;

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let batches = flights(&root.join("examples/data/nycflights13/flights.csv.gz"))?;
    let target_dir = Some(bench.dir.path().join("plugin"));
    let built =
        build(&root.join("plugins/clean-flight"), &BuildOptions { target_dir, ..BuildOptions::default() })?;
    let engine = Engine::new(EngineConfig::default())?;
    engine.load(&built.digest, &built.component)?;
    let spec = InstanceSpec { config: Vec::new(), limits: PluginLimits::default(), log: Arc::new(NoLog) };
    let mut wasm = engine.instantiate(&built.digest, &spec)?;
    let mut native = Native(FlightColumns::default());
    let (mut in_wasm, mut in_native) = (Pass::default(), Pass::default());
    for _ in 0..ROUNDS {
        in_wasm.add(pass(&batches, &mut *wasm)?);
        in_native.add(pass(&batches, &mut native)?);
    }
    ensure!(
        (in_wasm.emitted, in_wasm.bytes) == (in_native.emitted, in_native.bytes),
        "the two do not do the same"
    );
    println!(
        "\ntransform: {} real flights in batches of {BATCH_RECORDS}, {} come out, one core, {ROUNDS} rounds each\n\
         \x20 Wasm   {:>9.0} records/s  {:>5.0} ns a record\n\
         \x20 native {:>9.0} records/s  {:>5.0} ns a record, ratio {:.2}",
        in_wasm.records / u64::from(ROUNDS),
        in_wasm.emitted / u64::from(ROUNDS),
        in_wasm.records_per_s(),
        1e9 / in_wasm.records_per_s(),
        in_native.records_per_s(),
        1e9 / in_native.records_per_s(),
        in_wasm.records_per_s() / in_native.records_per_s(),
    );
    Ok(())
}

/// The year as stored batches.
fn flights(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let unpacked = Command::new("gzip").arg("-dc").arg(file).stderr(Stdio::inherit()).output();
    let unpacked = unpacked.context("run gzip")?;
    ensure!(unpacked.status.success(), "gzip could not read {}", file.display());
    let text = String::from_utf8(unpacked.stdout)?;
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let batch = |lines: &[&str]| -> anyhow::Result<Vec<u8>> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for line in lines {
            builder.append(1_357_034_400_000, None, Some(line.as_bytes()), &[])?;
        }
        Ok(builder.finish()?.to_vec())
    };
    lines.chunks(BATCH_RECORDS).map(batch).collect()
}

/// What one side did.
#[derive(Default)]
pub(crate) struct Pass {
    records: u64,
    pub(crate) emitted: u64,
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Pass {
    pub(crate) fn add(&mut self, other: Pass) {
        self.records += other.records;
        self.emitted += other.emitted;
        self.bytes += other.bytes;
        self.time += other.time;
    }

    pub(crate) fn records_per_s(&self) -> f64 {
        self.records as f64 / self.time.as_secs_f64()
    }
}

/// All batches through the driver once.
pub(crate) fn pass(batches: &[Vec<u8>], plugin: &mut dyn Plugin) -> anyhow::Result<Pass> {
    let mut pass = Pass::default();
    let mut columns = Columns::new();
    let started = Instant::now();
    for stored in batches {
        columns.clear();
        let view = BatchView::new_unchecked_crc(stored)?;
        columns.append(&view, Select::default(), DecompressLimit::default())?;
        let batch = BatchIn::new("flights", 0, &columns);
        let answer = Answer::check(&batch, plugin.process(&batch)?, OUTPUT_MAX, 1)?;
        let mut builder = BatchBuilder::with_capacity(BatchOptions::default(), stored.len());
        for (delta, record) in (0..).zip(answer.records(batch)) {
            let no_headers: [Header<'_>; 0] = [];
            builder.append_at(delta, record.timestamp, record.key, record.value, no_headers.into_iter())?;
            pass.emitted += 1;
        }
        pass.records += batch.len() as u64;
        pass.bytes += builder.uncompressed_bytes() as u64;
    }
    pass.time = started.elapsed();
    Ok(pass)
}

/// The plugin's own code over the same columns, without a border.
struct Native(FlightColumns);

impl Plugin for Native {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        let mut out = BatchOut::default();
        let (mut keys, mut values) = (SlicesOut::default(), SlicesOut::default());
        let base = batch.data.len();
        for index in 0..batch.len() {
            let line = batch.values.get(batch.blob(), index).unwrap_or_default();
            let source = index as u32;
            match self.0.read(line) {
                Ok(Line::Flight(flight)) if flight.arr_delay.is_some() => {
                    let start = out.data.len();
                    flight.write_json(&mut out.data);
                    let carrier = flight.carrier.as_bytes();
                    let at = carrier.as_ptr().addr() - batch.data.as_ptr().addr();
                    out.source.push(source);
                    keys.offsets.push(at as u32);
                    keys.lengths.push(carrier.len() as u32);
                    values.offsets.push((base + start) as u32);
                    values.lengths.push((out.data.len() - start) as u32);
                }
                Ok(_) => {}
                Err(error) => return Err(PluginError::Fatal(error.to_string())),
            }
        }
        (out.keys, out.values) = (Some(keys), Some(values));
        Ok(out)
    }
}
