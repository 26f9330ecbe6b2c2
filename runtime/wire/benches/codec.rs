//! What reading a Produce request and writing a Fetch response costs, with 100 partitions each.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pelton_wire::codec::{Reader, Records, Writer};
use pelton_wire::message::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use pelton_wire::message::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use pelton_wire::message::{Message, MetadataResponse};

const PARTITIONS: i32 = 100;

fn produce_decode(c: &mut Criterion) {
    let partition = |index| PartitionProduceData { index, records: Some(Bytes::from(vec![7; 1024])) };
    let topic = TopicProduceData {
        name: "flights".to_owned(),
        partition_data: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    let request =
        ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
    let mut w = Writer::new();
    request.encode(&mut w, 9).expect("a valid request");
    let bytes = w.into_bytes().expect("nothing external");
    let mut group = c.benchmark_group("produce");
    group.throughput(Throughput::Elements(PARTITIONS as u64));
    group.bench_function("decode v9, 100 partitions", |b| {
        b.iter(|| ProduceRequest::decode(&mut Reader::new(bytes.clone()), 9).expect("a valid request"));
    });
    group.finish();
}

fn fetch_encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch");
    group.throughput(Throughput::Elements(PARTITIONS as u64));
    let external = |id: i32| Records::External { id: id as u32, len: 65_536 };
    let response = |records: &dyn Fn(i32) -> Records| {
        let partition = |partition_index: i32| PartitionData {
            partition_index,
            high_watermark: 12_345,
            last_stable_offset: 12_345,
            log_start_offset: 0,
            aborted_transactions: None,
            records: Some(records(partition_index)),
            ..Default::default()
        };
        let topic = FetchableTopicResponse {
            topic_id: uuid::Uuid::from_u128(7),
            partitions: (0..PARTITIONS).map(partition).collect(),
            ..Default::default()
        };
        FetchResponse { responses: vec![topic], ..Default::default() }
    };
    let cases: [(&str, &dyn Fn(i32) -> Records); 2] = [
        ("encode v16, 100 empty partitions", &|_| Records::default()),
        ("encode v16, 100 partitions in files", &external),
    ];
    for (name, records) in cases {
        let response = response(records);
        group.bench_function(name, |b| {
            b.iter_batched(
                Writer::framed,
                |mut w| {
                    response.encode(&mut w, 16).expect("a valid response");
                    w.finish().expect("it fits a frame")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn empty_metadata(c: &mut Criterion) {
    c.bench_function("metadata/encode v12, no topics", |b| {
        b.iter(|| {
            let mut w = Writer::framed();
            MetadataResponse::default().encode(&mut w, 12).expect("a valid response");
            w.finish().expect("it fits a frame")
        });
    });
}

criterion_group!(benches, produce_decode, fetch_encode, empty_metadata);
criterion_main!(benches);
