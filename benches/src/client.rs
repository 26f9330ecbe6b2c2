//! A raw client: frames are made once and sent again and again, so that the load generator costs as little as it can.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use pelton_wire::codec::{Reader, Records, Writer};
use pelton_wire::header::{RequestHeader, ResponseHeader};
use pelton_wire::message::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use pelton_wire::message::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use pelton_wire::message::fetch::{FetchPartition, FetchRequest, FetchTopic};
use pelton_wire::message::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use pelton_wire::record::{BatchBuilder, BatchOptions};
use pelton_wire::{ErrorCode, Message, Request};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Versions that carry topic names, known to every broker since 2020.
const PRODUCE_VERSION: i16 = 9;
pub(crate) const FETCH_VERSION: i16 = 12;
const CREATE_TOPICS_VERSION: i16 = 5;
const CREATE_PARTITIONS_VERSION: i16 = 1;

/// Partitions that one request asks for: until the next checkpoint each has a second file open.
const CREATED_AT_ONCE: i32 = 2000;
/// How often a creation is tried that the broker has no descriptors for, and how long after the last try.
const CREATE_TRIES: u32 = 60;
const CREATE_AGAIN: Duration = Duration::from_secs(2);

/// One connection.
pub(crate) struct Conn {
    stream: TcpStream,
    correlation_id: i32,
    body: Vec<u8>,
}

impl Conn {
    pub(crate) fn open(address: &str) -> anyhow::Result<Conn> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Conn { stream, correlation_id: 0, body: Vec::new() })
    }

    /// Sends a frame that [`frame`] made, with a correlation id of its own.
    pub(crate) fn send(&mut self, frame: &mut [u8]) -> anyhow::Result<()> {
        self.correlation_id += 1;
        frame[8..12].copy_from_slice(&self.correlation_id.to_be_bytes());
        Ok(self.stream.write_all(frame)?)
    }

    /// Reads one response whole; it stays in a buffer of the connection.
    pub(crate) fn receive(&mut self) -> anyhow::Result<&[u8]> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let length = usize::try_from(i32::from_be_bytes(prefix))?;
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(&self.body)
    }

    /// Sends and decodes.
    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> anyhow::Result<R::Response> {
        let mut bytes = frame(request, version)?;
        self.send(&mut bytes)?;
        decode::<R>(self.receive()?, version)
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// One with settings of its own.
    pub(crate) fn create_topic_with(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
        };
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions.min(CREATED_AT_ONCE),
            replication_factor: 1,
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..Default::default() };
        self.until_created(name, |conn| {
            let topics = conn.call(&request, CREATE_TOPICS_VERSION)?.topics;
            Ok(topics.first().map_or(ErrorCode::NONE, |topic| topic.error_code))
        })?;
        for count in (CREATED_AT_ONCE..partitions).step_by(CREATED_AT_ONCE as usize) {
            let count = (count + CREATED_AT_ONCE).min(partitions);
            let grown = CreatePartitionsTopic { name: name.to_owned(), count, assignments: None };
            let request =
                CreatePartitionsRequest { topics: vec![grown], timeout_ms: 60_000, ..Default::default() };
            self.until_created(name, |conn| {
                let results = conn.call(&request, CREATE_PARTITIONS_VERSION)?.results;
                Ok(results.first().map_or(ErrorCode::NONE, |result| result.error_code))
            })?;
        }
        Ok(())
    }

    /// Tries again what is refused until a checkpoint has closed files.
    fn until_created(
        &mut self,
        name: &str,
        mut create: impl FnMut(&mut Conn) -> anyhow::Result<ErrorCode>,
    ) -> anyhow::Result<()> {
        for _ in 0..CREATE_TRIES {
            match create(self)? {
                ErrorCode::NONE => return Ok(()),
                ErrorCode::KAFKA_STORAGE_ERROR => std::thread::sleep(CREATE_AGAIN),
                other => bail!("create {name}: {other:?}"),
            }
        }
        bail!("create {name}: no room for its files")
    }
}

/// A whole frame, length prefix first.
pub(crate) fn frame<R: Request>(request: &R, version: i16) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer::framed();
    RequestHeader {
        api_key: R::KEY,
        api_version: version,
        correlation_id: 0,
        client_id: Some("bench".to_owned()),
    }
    .encode(&mut writer)?;
    request.encode(&mut writer, version)?;
    Ok(writer.into_bytes()?.to_vec())
}

/// A response out of a frame without its length prefix.
pub(crate) fn decode<R: Request>(body: &[u8], version: i16) -> anyhow::Result<R::Response> {
    let mut reader = Reader::new(Bytes::copy_from_slice(body));
    ResponseHeader::decode(&mut reader, R::KEY, version)?;
    Ok(R::Response::decode(&mut reader, version)?)
}

/// A batch of records of `size` bytes that do not compress.
pub(crate) fn batch(records: usize, size: usize, seed: u64) -> anyhow::Result<Bytes> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let mut value = vec![0; size];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    for _ in 0..records {
        rng.fill(&mut value[..]);
        builder.append(i64::try_from(now.as_millis())?, None, Some(&value), &[])?;
    }
    Ok(builder.finish()?)
}

/// A Produce of one batch, acks=all.
pub(crate) fn produce(topic: &str, partition: i32, batch: Bytes) -> anyhow::Result<Vec<u8>> {
    let data = PartitionProduceData { index: partition, records: Some(batch) };
    let topic = TopicProduceData { name: topic.to_owned(), partition_data: vec![data], ..Default::default() };
    frame(
        &ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() },
        PRODUCE_VERSION,
    )
}

/// Whether the answer to [`produce`] says that all was taken.
pub(crate) fn check_produced(body: &[u8]) -> anyhow::Result<()> {
    let response = decode::<ProduceRequest>(body, PRODUCE_VERSION)?;
    for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
        ensure!(partition.error_code == ErrorCode::NONE, "produce: {:?}", partition.error_code);
    }
    Ok(())
}

/// A Fetch of one partition.
pub(crate) fn fetch(topic: &str, partition: i32, offset: i64, max_bytes: i32) -> anyhow::Result<Vec<u8>> {
    let partition = FetchPartition {
        partition,
        fetch_offset: offset,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: max_bytes,
        ..Default::default()
    };
    let topic = FetchTopic { topic: topic.to_owned(), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    frame(&request, FETCH_VERSION)
}

/// The records in the answer to [`fetch`].
pub(crate) fn fetched(body: &[u8]) -> anyhow::Result<Bytes> {
    let response = decode::<FetchRequest>(body, FETCH_VERSION)?;
    let partition = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
    let partition = partition.context("an answer without the partition")?;
    ensure!(partition.error_code == ErrorCode::NONE, "fetch: {:?}", partition.error_code);
    match partition.records {
        Some(Records::Bytes(bytes)) => Ok(bytes),
        Some(Records::External { .. }) => unreachable!("a decoded response holds its bytes"),
        None => Ok(Bytes::new()),
    }
}
