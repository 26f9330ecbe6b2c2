//! What a record batch costs: checked as a broker does on append, walked, unpacked, put into columns, built.
//!
//! Throughput is in bytes of the batch, uncompressed; a batch holds as many records as fit 256 KiB.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pelton_wire::record::{
    AppendRules, BatchBuilder, BatchHeader, BatchOptions, BatchView, Codec, Columns, DecompressLimit, Select,
    recompress, validate_for_append,
};

const BATCH_BYTES: usize = 256 * 1024;
const RECORD_BYTES: [usize; 2] = [100, 1024];
const LIMIT: DecompressLimit = DecompressLimit { max_bytes: 64 << 20 };

/// A line of readable text, different for each record and not much more compressible than JSON.
fn value(n: usize, bytes: usize) -> Vec<u8> {
    let mut state = n as u64;
    let mut out = Vec::with_capacity(bytes + 32);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(format!("\"field{}\":{},", out.len() % 7, state >> 40).as_bytes());
    }
    out.truncate(bytes);
    out
}

fn values(bytes: usize) -> Vec<Vec<u8>> {
    (0..BATCH_BYTES / bytes).map(|n| value(n, bytes)).collect()
}

fn build(values: &[Vec<u8>], codec: Codec) -> Vec<u8> {
    let options = BatchOptions { codec, ..BatchOptions::default() };
    let mut builder = BatchBuilder::with_capacity(options, BATCH_BYTES + values.len() * 16);
    for (n, value) in (0i64..).zip(values) {
        builder
            .append(1_700_000_000_000 + n, Some(&n.to_be_bytes()), Some(value), &[])
            .expect("a small record");
    }
    builder.finish().expect("a small batch").to_vec()
}

fn uncompressed(c: &mut Criterion) {
    for bytes in RECORD_BYTES {
        let values = values(bytes);
        let batch = build(&values, Codec::None);
        let view = BatchView::check(&batch).expect("a batch");
        let mut group = c.benchmark_group(format!("{}x{bytes}B", values.len()));
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function("header", |b| b.iter(|| BatchHeader::parse(black_box(&batch))));
        group.bench_function("check", |b| b.iter(|| BatchView::check(black_box(&batch)).map(drop)));
        let mut scratch = Vec::new();
        let rules = AppendRules { keys_required: true, ..AppendRules::default() };
        group.bench_function("validate", |b| {
            b.iter(|| validate_for_append(black_box(&view), &rules, &mut scratch).expect("a proper batch"))
        });
        group.bench_function("records", |b| {
            b.iter(|| {
                let records = black_box(&view).records(&mut scratch, LIMIT).expect("not compressed");
                records.map(|record| record.expect("well-formed").value.map_or(0, <[u8]>::len)).sum::<usize>()
            })
        });
        let mut columns = Columns::new();
        group.bench_function("columns", |b| {
            b.iter(|| {
                columns.clear();
                columns.append(black_box(&view), Select::default(), LIMIT).expect("well-formed")
            })
        });
        group.bench_function("build", |b| b.iter(|| build(black_box(&values), Codec::None)));
        group.finish();
    }
}

fn codecs(c: &mut Criterion) {
    let values = values(1024);
    let plain = build(&values, Codec::None);
    let plain_view = BatchView::check(&plain).expect("a batch");
    for codec in Codec::ALL.into_iter().skip(1) {
        let batch = build(&values, codec);
        let view = BatchView::check(&batch).expect("a batch");
        let mut group = c.benchmark_group("codec");
        group.throughput(Throughput::Bytes(plain.len() as u64));
        let mut scratch = Vec::new();
        group.bench_function(BenchmarkId::new("decompress", codec), |b| {
            b.iter(|| black_box(&view).decompressed(&mut scratch, LIMIT).expect("can be unpacked").len())
        });
        group.bench_function(BenchmarkId::new("recompress", codec), |b| {
            let mut scratch = Vec::new();
            b.iter(|| {
                recompress(black_box(&plain_view), codec, None, &mut scratch, LIMIT).expect("can be packed")
            })
        });
        group.finish();

        // A batch of one small record, as a client without linger sends it.
        let small = build(&values[..1], codec);
        let view = BatchView::check(&small).expect("a batch");
        c.bench_function(&format!("codec/one record/{codec}"), |b| {
            b.iter(|| black_box(&view).decompressed(&mut scratch, LIMIT).expect("can be unpacked").len())
        });
    }
}

criterion_group!(benches, uncompressed, codecs);
criterion_main!(benches);
