//! What a transform costs: a stored batch of 500 records is read into columns, goes through a plugin, and what comes out
//! is built into a batch again. The same driver runs the same operation as native code over the same columns.
//!
//! The guest is `tests/guests/bench-ops`, built here: `cargo bench -p pelton-wasm`.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pelton_streams::log::NoLog;
use pelton_streams::{
    Answer, BatchIn, BatchOut, InstanceSpec, Plugin, PluginError, PluginFactory, PluginLimits, SlicesOut,
};
use pelton_wasm::toolchain::{BuildOptions, build};
use pelton_wasm::{Engine, EngineConfig};
use pelton_wire::record::{BatchBuilder, BatchOptions, BatchView, Columns, DecompressLimit, Header, Select};

const RECORDS: usize = 500;

fn stored_batch(value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for i in 0..RECORDS {
        let mut value = format!("{{\"id\":{i:04},\"name\":\"somebody\",\"text\":\"");
        while value.len() < value_bytes - 2 {
            value.push(char::from(b'a' + (value.len() % 26) as u8));
        }
        value.push_str("\"}");
        builder
            .append(1_700_000_000_000, Some(format!("key-{i:012}").as_bytes()), Some(value.as_bytes()), &[])
            .unwrap();
    }
    builder.finish().unwrap().to_vec()
}

/// The driver: everything but compression, CRC and the log.
fn step(columns: &mut Columns, stored: &[u8], plugin: &mut dyn Plugin) -> usize {
    let view = BatchView::new_unchecked_crc(stored).unwrap();
    columns.clear();
    columns.append(&view, Select::default(), DecompressLimit::default()).unwrap();
    let batch = BatchIn::new("bench", 0, columns);
    let out = plugin.process(&batch).unwrap();
    let answer = Answer::check(&batch, out, u64::MAX, 1).unwrap();
    let mut builder = BatchBuilder::with_capacity(BatchOptions::default(), stored.len());
    for (delta, record) in (0..).zip(answer.records(batch)) {
        let no_headers: [Header<'_>; 0] = [];
        builder.append_at(delta, record.timestamp, record.key, record.value, no_headers.into_iter()).unwrap();
    }
    builder.uncompressed_bytes()
}

/// The operations of the guest over columns, without a border: what there is to lose.
struct Native(&'static str);

impl Plugin for Native {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        let mut out = BatchOut::default();
        match self.0 {
            "identity" => out = BatchOut::identity(batch.len()),
            "filter" => {
                let keep = |i: &u32| {
                    batch.values.get(batch.blob(), *i as usize).is_some_and(|v| v.len() > 7 && v[7] & 1 == 0)
                };
                out.source = (0..batch.len() as u32).filter(keep).collect();
            }
            _ => {
                out = BatchOut::identity(batch.len());
                let mut values = SlicesOut::default();
                out.data.reserve(batch.data.len());
                for i in 0..batch.len() {
                    let value = batch.values.get(batch.blob(), i).unwrap_or_default();
                    let start = out.data.len();
                    out.data.extend_from_slice(value);
                    let copy = &mut out.data[start..];
                    if let Some(at) = copy.windows(8).position(|window| window == b"\"name\":\"") {
                        let name = copy[at + 8..].iter_mut().take_while(|byte| **byte != b'"');
                        name.for_each(|byte| byte.make_ascii_uppercase());
                    }
                    values.offsets.push((batch.data.len() + start) as u32);
                    values.lengths.push(value.len() as u32);
                }
                out.values = Some(values);
            }
        }
        Ok(out)
    }
}

fn transform(criterion: &mut Criterion) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests"));
    let options = BuildOptions { target_dir, ..BuildOptions::default() };
    let built = build(&root.join("tests/guests/bench-ops"), &options).unwrap();
    let engine = Engine::new(EngineConfig::default()).unwrap();
    engine.load(&built.digest, &built.component).unwrap();
    for (size, value_bytes) in [("100B", 100), ("1KiB", 1024)] {
        let stored = stored_batch(value_bytes);
        for operation in ["identity", "filter", "edit"] {
            let spec = InstanceSpec {
                config: vec![("operation".to_owned(), operation.to_owned())],
                limits: PluginLimits::default(),
                log: Arc::new(NoLog),
            };
            let mut wasm = engine.instantiate(&built.digest, &spec).unwrap();
            let mut native = Native(operation);
            let mut columns = Columns::new();
            assert_eq!(
                step(&mut columns, &stored, &mut *wasm),
                step(&mut columns, &stored, &mut native),
                "{operation} does the same on both sides"
            );
            let mut group = criterion.benchmark_group(format!("transform/{size}/{operation}"));
            group.throughput(Throughput::Elements(RECORDS as u64));
            group
                .bench_function("native", |b| b.iter(|| black_box(step(&mut columns, &stored, &mut native))));
            group.bench_function("wasm", |b| b.iter(|| black_box(step(&mut columns, &stored, &mut *wasm))));
            group.bench_function("wasm, the call alone", |b| {
                let view = BatchView::new_unchecked_crc(&stored).unwrap();
                columns.clear();
                columns.append(&view, Select::default(), DecompressLimit::default()).unwrap();
                let batch = BatchIn::new("bench", 0, &columns);
                b.iter(|| black_box(wasm.process(&batch).unwrap().source.len()));
            });
        }
    }
}

criterion_group!(benches, transform);
criterion_main!(benches);
