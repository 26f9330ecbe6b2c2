//! A client that speaks the protocol and knows nothing, and the broker it speaks to.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pelton_broker::{Broker, BrokerHandle, Config, Deps};
use pelton_wire::codec::{Piece, Reader, Records, Writer};
use pelton_wire::header::{RequestHeader, ResponseHeader};
use pelton_wire::message::create_topics::{CreatableTopic, CreatableTopicConfig};
use pelton_wire::message::fetch::{FetchPartition, FetchTopic, PartitionData};
use pelton_wire::message::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use pelton_wire::message::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use pelton_wire::message::*;
use pelton_wire::record::{BatchBuilder, BatchOptions, BatchView, DecompressLimit, batches};
use pelton_wire::{ApiKey, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest that any single answer may take here.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker with a directory that goes away with it.
pub(crate) struct Server {
    pub(crate) handle: BrokerHandle,
    pub(crate) dir: Arc<tempfile::TempDir>,
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Server {
        Server::in_dir(Arc::new(tempfile::tempdir().unwrap()), settings).await
    }

    pub(crate) async fn in_dir(dir: Arc<tempfile::TempDir>, settings: &[(&str, &str)]) -> Server {
        let path = dir.path().to_str().unwrap().to_owned();
        let own = [
            ("data.dir", path.as_str()),
            ("listen", "127.0.0.1:0"),
            ("http.listen", "off"),
            ("pelton.journal.max.bytes", "33554432"),
        ];
        let config = Config::from_pairs(own.iter().chain(settings).copied()).unwrap();
        let handle = Broker::start(config, Deps::default()).await.unwrap();
        Server { handle, dir }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.handle.addr()).await
    }

    /// Stops it in an orderly way and starts it again on the same directory.
    pub(crate) async fn restart(self, settings: &[(&str, &str)]) -> Server {
        let Server { handle, dir } = self;
        handle.shutdown().await.unwrap();
        Server::in_dir(dir, settings).await
    }
}

pub(crate) struct Client {
    stream: TcpStream,
}

static NEXT_CORRELATION: AtomicI32 = AtomicI32::new(1);

/// Asks again and again until it is so; `or_else` says what is wrong when it never is.
pub(crate) async fn until(or_else: &str, mut is_so: impl AsyncFnMut() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(10);
    const PAUSE: Duration = Duration::from_millis(2);
    let started = std::time::Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "{or_else}");
        tokio::time::sleep(PAUSE).await;
    }
}

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream }
    }

    /// Sends a request; its correlation id.
    pub(crate) async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> i32 {
        let correlation_id = NEXT_CORRELATION.fetch_add(1, Ordering::Relaxed);
        let frame = frame(Q::KEY, version, correlation_id, request);
        self.stream.write_all(&frame).await.unwrap();
        correlation_id
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // The broker may have hung up already, which is for the test to find out by reading.
        drop(self.stream.write_all(bytes).await);
    }

    /// The next response, which must be the one to this request.
    pub(crate) async fn receive<Q: Request>(&mut self, version: i16, correlation_id: i32) -> Q::Response {
        let frame = self.receive_frame().await.expect("the broker closed the connection");
        let mut reader = Reader::new(frame);
        let header = ResponseHeader::decode(&mut reader, Q::KEY, version).unwrap();
        assert_eq!(header.correlation_id, correlation_id, "responses come in the order of requests");
        let response = Q::Response::decode(&mut reader, version).unwrap();
        reader.finish().unwrap();
        response
    }

    /// The next frame; `None` when the broker has closed the connection.
    pub(crate) async fn receive_frame(&mut self) -> Option<Bytes> {
        let read = async {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length).await.ok()?;
            let mut frame = BytesMut::zeroed(u32::from_be_bytes(length) as usize);
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(frame.freeze())
        };
        tokio::time::timeout(PATIENCE, read).await.expect("no answer in time")
    }

    /// Insists that no answer comes: what was sent is parked. (Were it answered later all the same, the test that goes on
    /// finds out.)
    pub(crate) async fn still_waits(&mut self) {
        const A_WHILE: Duration = Duration::from_millis(100);
        let answered = tokio::time::timeout(A_WHILE, self.stream.peek(&mut [0])).await;
        assert!(answered.is_err(), "an answer came, or the connection was closed: {answered:?}");
    }

    pub(crate) async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response {
        let correlation_id = self.send(version, request).await;
        self.receive::<Q>(version, correlation_id).await
    }

    /// An id of its own for an idempotent producer.
    pub(crate) async fn producer_id(&mut self) -> i64 {
        let init = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let given = self.call(4, &init).await;
        assert_eq!((given.error_code, given.producer_epoch), (ErrorCode::NONE, 0));
        given.producer_id
    }

    pub(crate) async fn create_topic(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let configs = settings
            .iter()
            .map(|(name, value)| CreatableTopicConfig { name: (*name).into(), value: Some((*value).into()) });
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let response = self.call(7, &request).await;
        assert_eq!(response.topics[0].error_code, ErrorCode::NONE, "{:?}", response.topics[0].error_message);
    }

    pub(crate) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        batch: Bytes,
    ) -> PartitionProduceResponse {
        let mut response = self.call(9, &produce(topic, partition, acks, batch)).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// Produces and insists that it works; the base offset.
    pub(crate) async fn append(&mut self, topic: &str, partition: i32, values: &[&str]) -> i64 {
        let result = self.produce(topic, partition, -1, batch(BatchOptions::default(), values)).await;
        assert_eq!(result.error_code, ErrorCode::NONE, "{:?}", result.error_message);
        result.base_offset
    }

    pub(crate) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> PartitionData {
        let mut response = self.call(11, &fetch(topic, partition, offset, max_bytes, 0)).await;
        assert_eq!(response.error_code, ErrorCode::NONE);
        response.responses.remove(0).partitions.remove(0)
    }

    pub(crate) async fn offset_at(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> (ErrorCode, i64) {
        let partition = ListOffsetsPartition { partition_index: partition, timestamp, ..Default::default() };
        let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![partition] };
        let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
        let response = self.call(7, &request).await;
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.offset)
    }
}

/// A request as it stands on the socket.
pub(crate) fn frame(key: ApiKey, version: i16, correlation_id: i32, request: &impl Message) -> Vec<u8> {
    let mut writer = Writer::framed();
    let client_id = Some("it".to_owned());
    RequestHeader { api_key: key, api_version: version, correlation_id, client_id }
        .encode(&mut writer)
        .unwrap();
    request.encode(&mut writer, version).unwrap();
    let pieces = writer.finish().unwrap();
    let bytes = pieces.into_iter().flat_map(|piece| match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::External { .. } => panic!("requests have no external records"),
    });
    bytes.collect()
}

/// The first request of a client.
pub(crate) fn versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "it".into(),
        client_software_version: "1".into(),
        ..Default::default()
    }
}

pub(crate) fn produce(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(batch) };
    let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

pub(crate) fn fetch(
    topic: &str,
    partition: i32,
    offset: i64,
    max_bytes: i32,
    max_wait_ms: i32,
) -> FetchRequest {
    let wanted = FetchPartition {
        partition,
        fetch_offset: offset,
        partition_max_bytes: max_bytes,
        ..Default::default()
    };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![wanted], ..Default::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes, topics: vec![topic], ..Default::default() }
}

/// A batch of records without keys, stamped with the time of day.
pub(crate) fn batch(options: BatchOptions, values: &[&str]) -> Bytes {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    batch_at(options, now, values)
}

pub(crate) fn batch_at(options: BatchOptions, timestamp: i64, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (value, i) in values.iter().zip(0..) {
        builder.append(timestamp + i, None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

/// Offsets and values of the records in a fetched partition, whose batches are checked byte by byte.
pub(crate) fn records(data: &PartitionData) -> Vec<(i64, String)> {
    let bytes = match data.records.as_ref().expect("records are never null") {
        Records::Bytes(bytes) => bytes,
        Records::External { .. } => panic!("a decoded response has no external records"),
    };
    let mut all = Vec::new();
    for view in batches(bytes) {
        let view: BatchView<'_> = view.unwrap();
        view.verify_crc().unwrap();
        let mut scratch = Vec::new();
        for record in view.records(&mut scratch, DecompressLimit::default()).unwrap() {
            let record = record.unwrap();
            all.push((record.offset, String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap()));
        }
    }
    all
}

pub(crate) fn values(data: &PartitionData) -> Vec<String> {
    records(data).into_iter().map(|(_, value)| value).collect()
}
